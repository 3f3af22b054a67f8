# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Trails that earlier releases have left are upgraded, and one that a newer release has left is brought back."""

from __future__ import annotations

import os
import pathlib
import re
import time
import typing as t

import pymysql
import pytest
import running
import trail_fixture
from local_mysql import LocalMysql
from mysql_auditing import install_trail
from mysql_databases import ExternalMysql, MysqlServer, Schema, fetch
from seal_writers import Background
from trail_fixture import APPLICATION, MYSQL, READER, SHOP, FixtureSealer, kind_of, without_policies, write_mysql
from upgrading import NEWEST, OLDEST, Restored, every_trail, one_trail, prove_upgrade, prove_way_back

from ansible_collections.dbfleet.audit.plugins.module_utils._core.schema_version import SCHEMA_VERSION
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql import trail_functions

LOCK_TIMEOUT = 1.0
ROWS = "SELECT id, SHA2(CONCAT_WS(CHAR(0), {columns}), 256) FROM audit.audit_log_data AS d ORDER BY id"

OBJECTS = """
SELECT IF(table_type = 'BASE TABLE', 'TABLE', table_type), table_schema, table_name FROM information_schema.tables
WHERE table_schema IN ({databases})
UNION ALL SELECT routine_type, routine_schema, routine_name FROM information_schema.routines
WHERE routine_schema IN ({databases})
UNION ALL SELECT 'TRIGGER', trigger_schema, trigger_name FROM information_schema.triggers
WHERE trigger_schema IN ({databases})
UNION ALL SELECT 'EVENT', event_schema, event_name FROM information_schema.events WHERE event_schema IN ({databases})
ORDER BY 1, 2, 3
"""


@pytest.fixture(scope="module")
def server(mysql_server: MysqlServer, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[MysqlServer]:
    """Return a server whose trail is this file's own."""
    if isinstance(mysql_server, ExternalMysql):
        yield mysql_server
        with bare(mysql_server) as schema:
            # The tests to come expect one.
            install_trail(schema)
        return
    place = tmp_path_factory.mktemp("server")
    own = LocalMysql.create(place, while_pid=os.getpid())
    yield own
    own.remove()


def bare(server: MysqlServer) -> Schema:
    """Return the audited database of a server whose trail is gone."""
    schema = Schema(server, SHOP)
    running.run_module("mysql_audit_triggers", **schema.login)
    running.run_module("mysql_audit_trail", state="absent", drop_log=True, **schema.login)
    schema.execute(f"DROP USER IF EXISTS {READER}@'%', {APPLICATION}@'%'")
    return schema


@pytest.fixture(scope="module")
def fresh(server: MysqlServer, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the catalogue of such a server that this release has made."""
    with bare(server) as schema:
        trail_fixture.fill_mysql(schema, tmp_path_factory.mktemp("keys"))
        return catalogue(schema)


@pytest.fixture
def restored(
    server: MysqlServer, fresh: list[str], tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> t.Iterator[Restored]:
    """Return a restored server."""
    del fresh
    with bare(server) as schema:
        trail_fixture.restore_mysql(schema, request.param)
        yield Restored(
            engine="mysql",
            place=schema,
            options=MYSQL,
            sealer=FixtureSealer(schema.login, tmp_path, kind_of(server), request.param),
            rows=lambda: rows_of(schema),
            catalogue=lambda: catalogue(schema),
            write=lambda number: write_mysql(schema, number),
        )


def catalogue(schema: Schema) -> list[str]:
    """Return how the server would make the trail, the triggers and their rights; periods are left out."""
    objects = schema.execute(OBJECTS.format(databases=f"'audit', '{SHOP}'"))
    # The text is the only column that begins so.
    texts = [
        next(value for value in schema.execute(f"SHOW CREATE {kind} `{database}`.`{name}`")[0] if is_text(value))
        for kind, database, name in objects
    ]
    accounts = ("audit_writer@localhost", "audit_owner@localhost", f"{READER}@'%'", f"{APPLICATION}@'%'")
    texts += sorted(row[0] for account in accounts for row in schema.execute(f"SHOW GRANTS FOR {account}"))
    changing = r"^.*PARTITION `?p.*\n?|AUTO_INCREMENT=\d+ |(?<=COMMENT='dbfleet.audit) \d| STARTS '[^']*'"
    # What was restored from a dump names its columns' character set, and bodies may end with another blank.
    texts = [text.replace(" CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", " COLLATE utf8mb4_bin") for text in texts]
    return [re.sub(changing, "", text, flags=re.MULTILINE).rstrip("; \n") for text in texts]


def is_text(value: t.Any) -> bool:
    """Tell whether a column is the statement that makes an object."""
    return isinstance(value, str) and value.startswith("CREATE ")


def rows_of(schema: Schema) -> list[tuple[t.Any, ...]]:
    """Return the log's rows, each as its id and a digest of all of its columns that the first release had."""
    columns = (
        "transaction_id, action, schema_name, table_name, record_id, old_values, new_values, changed_columns, "
        "changed_by, db_user, client_ip, application_name, context, policy_id"
    )
    texts = ", ".join(f"COALESCE({name}, CHAR(1))" for name in columns.split(", "))
    return schema.execute(ROWS.format(columns=f"d.changed_at, {texts}"))


@every_trail
def test_an_upgrade_keeps_rows_and_seals_and_ends_like_a_fresh_trail(restored: Restored, fresh: list[str]) -> None:
    prove_upgrade(restored, fresh)


@one_trail(OLDEST)
def test_writers_wait_for_an_upgrade_no_longer_than_its_lock_timeout(restored: Restored, fresh: list[str]) -> None:
    schema = restored.place
    assert isinstance(schema, Schema)
    killed_half_way(schema)
    holder = schema.connect(autocommit=False)
    fetch(holder, "INSERT INTO person VALUES (900, 'who', 'takes', 'long')")
    writer = schema.connect(user=APPLICATION)
    numbers = iter(range(1000, 9999))

    def write() -> float:
        began = time.monotonic()
        fetch(writer, "INSERT INTO person VALUES (%s, 'x', 'y', 'z')", next(numbers))
        return time.monotonic() - began

    with Background(write, 0.01) as writes:
        waits = {"lock_timeout": LOCK_TIMEOUT, "lock_retries": 1, "may_fail": True}
        restored.trail(**waits)
        result = restored.run("triggers", policies=MYSQL["policies"], **waits)
    # MySQL locks the log with any table of its triggers.
    assert f"{SHOP}.person" in [failed["table"] for failed in result["failed_tables"]]
    assert LOCK_TIMEOUT / 2 < max(writes.results) < LOCK_TIMEOUT * 1.5
    holder.rollback()
    restored.roll_out()
    assert restored.roll_out() == [False] * 3
    assert catalogue(schema) == fresh
    # The run that was killed left no record of what it had replaced by then: that is named.
    assert {problem["type"] for problem in restored.sealer.verify()["problems"]} == {"altered_between_seals"}


def killed_half_way(schema: Schema) -> None:
    """Kill a run of the trail's module when the first of its routines is there."""
    process = running.start_module("mysql_audit_trail", **schema.login, **without_policies(MYSQL))
    query = "SELECT COUNT(*) FROM information_schema.routines WHERE routine_name = 'schema_version'"
    while not schema.value(query):
        time.sleep(0.01)
    process.kill()
    process.communicate()


#: What the code of a newer release differs in.
NEWER = {
    "_mysql.trail_functions.SCHEMA_VERSION": 99,
    "_mysql.trail_functions._FITTING": trail_functions._FITTING.replace("BEGIN", "BEGIN /* newer */", 1),
}


@one_trail(NEWEST)
def test_a_trail_of_a_newer_release_is_refused_and_goes_back_only_on_purpose(restored: Restored) -> None:
    prove_way_back(restored, NEWER)


@one_trail(NEWEST)
def test_readers_see_the_version_and_applications_do_not(restored: Restored) -> None:
    restored.roll_out()
    reader = restored.place.connect(user=READER, database="audit")
    assert fetch(reader, "SELECT audit.schema_version()") == [(SCHEMA_VERSION,)]
    with pytest.raises(pymysql.MySQLError, match="denied"):
        restored.place.execute("SELECT audit.schema_version()", user=APPLICATION)
