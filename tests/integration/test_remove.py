# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Auditing is taken out of a server that was not empty: dumps of the catalogue before and after are the same."""

from __future__ import annotations

import contextlib
import pathlib
import typing as t

import pytest
from archiving import Archiver
from auditing import install_trail, records, rollout, wanted
from databases import Database
from local_postgresql import LocalPostgresql
from removing import differences, postgresql_state
from running import ModuleResult, run_module
from statement_auditing import ask, configure, preload

ODD = "Ünï \"q\" 'db'"

#: What others have made in a database: triggers that are called like ours, and whatever an administrator may have.
OTHERS = """
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA "Odd ""S";
COMMENT ON SCHEMA "Odd ""S" IS 'audit of others';
GRANT USAGE ON SCHEMA "Odd ""S" TO app WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA "Odd ""S" GRANT SELECT ON TABLES TO app;
CREATE TABLE "Odd ""S"."T'x %s" (id int PRIMARY KEY, "pass word" text);
CREATE TABLE items (id int PRIMARY KEY, name text);
GRANT INSERT, TRIGGER ON items TO app;
CREATE FUNCTION public.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER dbfleet_audit_mine BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE TABLE unaudited.audit_log (id int);
CREATE TRIGGER dbfleet_audit_insert BEFORE INSERT ON unaudited.audit_log
  FOR EACH ROW EXECUTE FUNCTION public.refuse_change();
CREATE FUNCTION public.note_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER dbfleet_audit_mine ON ddl_command_end EXECUTE FUNCTION public.note_ddl();
"""

#: What others have set on the server, for pgaudit and for all else.
SETTINGS = """
ALTER SYSTEM SET work_mem = '5MB'
ALTER SYSTEM SET log_connections = 'off'
ALTER SYSTEM SET log_line_prefix = '%m by hand '
ALTER SYSTEM SET pgaudit.log = 'role, -misc'
ALTER SYSTEM SET pgaudit.log_rows = 'on'
ALTER ROLE app SET pgaudit.log = 'read'
ALTER DATABASE {odd} SET pgaudit.log = 'write'
ALTER ROLE app IN DATABASE {odd} SET work_mem = '6MB'
SELECT pg_reload_conf()
"""

POLICIES = [wanted("public.items"), wanted('"Odd ""S".*')]


class Host(t.NamedTuple):
    """A server with two databases, and its state before anybody thought of auditing."""

    server: LocalPostgresql
    databases: tuple[Database, ...]
    before: dict[str, str]

    def state(self) -> dict[str, str]:
        return postgresql_state(self.server, *self.databases)

    def roll_out(self) -> None:
        """As playbooks/site.yml does."""
        preload(self.server, "pgaudit")
        configure(
            self.server,
            settings={"log": ["ddl"]},
            roles={"app": {"log": ["none"]}},
            objects=[{"database": ODD, "table": "public.items"}],
            extension_databases=[database.name for database in self.databases],
            log_connections=True,
            log_line_prefix="%m [%p] %q%u@%d ",
        )
        for database in self.databases:
            install_trail(database, readers=["reader"], applications=["app"], tablespace="apart")
            rollout(database, policies=POLICIES)

    def take_out(self, **options: t.Any) -> list[ModuleResult]:
        """As playbooks/remove.yml does."""
        done = []
        for database in self.databases:
            done.append(rollout(database, policies=[]))
            done.append(absent(database, **options))
        extensions = [database.name for database in self.databases]
        managed = {"log_connections": True, "log_line_prefix": "%m [%p] %q%u@%d "}
        done.append(configure(self.server, state="absent", extension_databases=extensions, **managed))
        done.append(preload(self.server, "pgaudit", state="absent", keep_written=True))
        return done


def absent(database: Database, **options: t.Any) -> ModuleResult:
    return run_module("postgresql_audit_trail", **database.login, state="absent", **options)


@pytest.fixture(scope="module")
def host(own_server: LocalPostgresql) -> t.Iterator[Host]:
    """Return a host that is not empty, with auditing rolled out."""
    own_server.configure({"shared_preload_libraries": "auto_explain, pgaudit"})
    own_server.restart()
    main = Database(own_server, "postgres", template=None)
    main.execute("CREATE ROLE app; CREATE ROLE reader LOGIN; CREATE ROLE audit_objects; CREATE ROLE audit_team")
    # Within the server's own directory.
    main.execute("SET allow_in_place_tablespaces = on")
    main.execute("CREATE TABLESPACE apart LOCATION ''")
    databases = Database(own_server, ODD), Database(own_server, "plain")
    databases[0].execute("CREATE EXTENSION pgaudit")
    for database in databases:
        database.execute("CREATE SCHEMA unaudited")
        database.execute(OTHERS)
    for statement in SETTINGS.format(odd='"' + ODD.replace('"', '""') + '"').strip().splitlines():
        ask(own_server, statement)
    made = Host(own_server, databases, postgresql_state(own_server, *databases))
    made.roll_out()
    yield made
    for database in databases:
        database.disconnect()


def test_the_rows_stay_and_nothing_else_does_until_they_are_to_go(host: Host, tmp_path: pathlib.Path):
    odd, plain = host.databases
    for database in host.databases:
        database.execute("INSERT INTO items VALUES (1, 'ann')")
    archiver = Archiver(plain, tmp_path)
    archiver.seal()
    # The present period of a log in use stays where it is.
    assert "take auditing out first" in archiver.refused(older_than="0d")
    plain.execute("CREATE FUNCTION audit.capture_rate(int) RETURNS int LANGUAGE sql AS 'SELECT $1'")
    *_trails, statements, _libraries = host.take_out()
    # Without the library, no DDL would work in a database that keeps the extension.
    assert list(statements["extensions"]) == [ODD]
    plain.execute("DROP FUNCTION audit.capture_rate(int)")
    odd.execute("INSERT INTO items VALUES (2, 'bob')")
    assert [record.record_id for record in records(odd)] == ["1"]
    assert odd.value("SELECT count(*) FROM audit.audit_log", user="reader") > 0
    # All that the documentation lists, and nothing of it beside the log.
    left = [line for line in differences(host.before, host.state()) if "audit" not in line.partition(": ")[2]]
    assert [line for line in left if line.startswith("-") or line.partition(": ")[0] == "+settings"] == []
    assert odd.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^audit_' ORDER BY 1") == [
        ("audit_objects",),
        ("audit_owner",),
        ("audit_reader",),
        ("audit_team",),
    ]
    functions = "SELECT proname FROM pg_proc WHERE pronamespace = 'audit'::regnamespace"
    assert odd.execute(functions) == [("refuse_change",)]
    assert not odd.value("SELECT has_schema_privilege('app', 'audit', 'USAGE')")
    assert not any(result.changed for result in host.take_out())
    kept = {number for (number,) in plain.execute("SELECT id FROM audit.audit_log_data")}
    archived = archiver.run(older_than="0d")
    assert (archiver.ids(), archived["kept"]) == (kept, [])
    assert (len(kept) > 1, plain.value("SELECT count(*) FROM audit.audit_log")) == (True, 0)
    host.take_out(drop_log=True)
    assert differences(host.before, host.state()) == []
    assert not any(result.changed for result in host.take_out(drop_log=True))


def test_what_others_have_built_on_the_log_keeps_it(host: Host):
    odd = host.databases[0]
    install_trail(odd)
    odd.execute("CREATE VIEW report AS SELECT * FROM audit.audit_logs; CREATE TABLE audit.notes (id int)")
    for drop_log, name in ((False, "report"), (True, "report")):
        refused = absent(odd, drop_log=drop_log, may_fail=True)
        assert refused.failed
        assert f"view public.{name} depends on view audit.audit_logs" in refused.msg
    odd.execute("DROP VIEW report")
    assert "table audit.notes depends on schema audit" in absent(odd, drop_log=True, may_fail=True).msg
    odd.execute("DROP TABLE audit.notes")
    assert absent(odd, drop_log=True).changed
    assert differences(host.before, host.state()) == []


def test_a_log_that_somebody_holds_stays_whole_and_the_next_run_takes_it_out(host: Host):
    odd = host.databases[0]
    install_trail(odd)
    predicted = absent(odd, drop_log=True, check_mode=True, diff_mode=True)
    assert 'DROP SCHEMA "audit"' in str(predicted["diff"])
    with contextlib.closing(odd.connect(autocommit=False)) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE audit.audit_log_data IN ROW EXCLUSIVE MODE")
        refused = absent(odd, drop_log=True, lock_timeout=0.1, lock_retries=0, may_fail=True)
        assert "locked by another session" in refused.msg
        assert odd.value("SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE 'dbfleet%'") > 1
    assert absent(odd, drop_log=True)["statements"] == predicted["statements"]
    assert differences(host.before, host.state()) == []
