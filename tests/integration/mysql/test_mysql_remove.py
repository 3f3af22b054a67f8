# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Auditing is taken out of a server that was not empty: what the server says of itself before and after is the same."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest
import running
from local_mysql import LocalMysql
from mysql_archiving import MysqlArchiver, count
from mysql_auditing import install_trail, records, rollout
from mysql_databases import Schema, fetch
from removing import differences, mysql_state

pytestmark = pytest.mark.own_server

ODD = "Ünï `q` 'd_b%"

#: What others have made in a database: triggers that are called like ours, and whatever an administrator may have.
OTHERS = (
    "CREATE TABLE items (id INT PRIMARY KEY, `pass ``word` VARCHAR(20), note VARCHAR(20))",
    "CREATE TRIGGER dbfleet_audit_mine BEFORE INSERT ON items FOR EACH ROW SET NEW.note = 'theirs'",
    "CREATE TRIGGER dbfleet_audit_insert BEFORE UPDATE ON items FOR EACH ROW SET NEW.note = 'theirs'",
    "CREATE TABLE audit_log (id INT PRIMARY KEY)",
    "CREATE PROCEDURE maintain_partitions() SELECT 1",
    "CREATE EVENT maintain_partitions ON SCHEDULE EVERY 1 DAY DO SELECT 1",
    "CREATE VIEW audit_logs AS SELECT id FROM audit_log",
)


class Host(t.NamedTuple):
    """A server with two databases, and its state before anybody thought of auditing."""

    databases: tuple[Schema, ...]
    reader: str
    app: str
    before: dict[str, str]

    @property
    def odd(self) -> Schema:
        return self.databases[0]

    def left(self) -> list[str]:
        """Return what is different now."""
        return differences(self.before, mysql_state(self.odd))

    def roll_out(self) -> None:
        """As playbooks/site.yml does."""
        install_trail(self.odd, readers=[f"{self.reader}@%"], applications=[f"{self.app}@%"])
        rollout(self.odd, *({"tables": [f'"{database.name}".items']} for database in self.databases))

    def take_out(self, **options: t.Any) -> list[running.ModuleResult]:
        """As playbooks/remove.yml does."""
        return [rollout(self.odd), self.absent(**options)]

    def absent(self, **options: t.Any) -> running.ModuleResult:
        return running.run_module("mysql_audit_trail", **{**self.odd.login, "state": "absent", **options})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[LocalMysql]:
    """Return a server for the tests of this file, which take the trail out."""
    directory = tmp_path_factory.mktemp("mysql")
    made = LocalMysql.create(directory, settings={"event_scheduler": "ON"}, while_pid=os.getpid())
    yield made
    made.remove()


@pytest.fixture
def host(server: LocalMysql) -> t.Iterator[Host]:
    """Return a host that is not empty, with auditing rolled out."""
    with Schema(server, ODD) as odd, Schema(server) as plain:
        for database in (odd, plain):
            for statement in OTHERS:
                database.execute(statement)
        reader, app = odd.create_account("reader", grants="SELECT"), odd.create_account("app")
        odd.execute(f"GRANT SELECT (id), UPDATE (note) ON items TO '{app}'@'%' WITH GRANT OPTION")
        odd.execute(f"GRANT EXECUTE ON PROCEDURE maintain_partitions TO '{app}'@'%'")
        made = Host((odd, plain), reader, app, mysql_state(odd))
        made.roll_out()
        yield made


def test_the_rows_stay_and_nothing_else_does_until_they_are_to_go(host: Host, tmp_path: pathlib.Path):
    host.odd.execute("INSERT INTO items VALUES (1, 'secret', NULL)", user=host.app)
    archiver = MysqlArchiver(host.odd, tmp_path)
    archiver.seal()
    # The present period of a log in use stays where it is.
    assert "take auditing out first" in archiver.refused(older_than="0d")
    host.take_out()
    host.odd.execute("INSERT INTO items VALUES (2, 'secret', NULL)", user=host.app)
    assert [record.record_id for record in records(host.odd)] == ["1"]
    assert host.odd.execute("SELECT COUNT(*) FROM audit.audit_log", user=host.reader)[0][0] > 0
    left = host.left()
    assert [line for line in left if line.startswith("-")] == []
    kept = {line.split(":")[0] for line in left}
    assert kept > {"+TABLE audit.audit_log_data", "+VIEW audit.audit_log", "+audit_writer@localhost"}
    assert not {word for name in kept for word in ("PROCEDURE", "FUNCTION", "EVENT", "audit_owner") if word in name}
    assert [line for line in left if host.app in line] == []
    assert not any(result.changed for result in host.take_out())
    kept = {number for (number,) in host.odd.execute("SELECT id FROM audit.audit_log_data")}
    archived = archiver.run(older_than="0d")
    assert (archiver.ids(), archived["kept"]) == (kept, [])
    assert (len(kept) > 0, count(host.odd, "audit_log")) == (True, 0)
    host.take_out(drop_log=True)
    assert host.left() == []
    assert not any(result.changed for result in host.take_out(drop_log=True))


def test_what_others_have_put_beside_the_log_keeps_it(host: Host):
    rollout(host.odd)
    host.odd.execute("CREATE TABLE audit.notes (id INT)")
    host.odd.execute("CREATE PROCEDURE audit.mine() SELECT 1")
    refused = host.absent(drop_log=True, may_fail=True)
    assert "holds what dbfleet.audit did not make: routine mine, table or view notes" in refused.msg
    assert host.odd.value("SELECT COUNT(*) FROM information_schema.events WHERE event_schema = 'audit'") == 1
    host.odd.execute("DROP PROCEDURE audit.mine")
    host.odd.execute("DROP TABLE audit.notes")
    assert host.absent(drop_log=True).changed
    assert host.left() == []


@pytest.mark.parametrize(("drop_log", "held"), [(False, "probe"), (True, "audit_log_data")])
def test_a_removal_that_gets_stuck_half_way_is_finished_by_the_next(host: Host, drop_log: bool, held: str):
    rollout(host.odd)
    predicted = host.absent(drop_log=drop_log, check_mode=True, diff_mode=True)
    assert "DROP USER IF EXISTS 'audit_owner'@'localhost'" in str(predicted["diff"])
    holder = host.odd.connect(autocommit=False)
    fetch(holder, f"SELECT * FROM audit.{held}")
    refused = host.absent(drop_log=drop_log, lock_timeout=1, lock_retries=0, may_fail=True)
    assert "locked by another session" in refused.msg
    assert host.odd.execute("SELECT event_name FROM information_schema.events WHERE event_schema = 'audit'") == []
    holder.rollback()
    assert 0 < len(host.absent(drop_log=drop_log)["statements"]) < len(predicted["statements"])
    host.take_out(drop_log=True)
    assert host.left() == []
