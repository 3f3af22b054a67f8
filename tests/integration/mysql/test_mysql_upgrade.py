# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Trails that earlier releases have left are upgraded, and one that a newer release has left is brought back."""

from __future__ import annotations

import functools
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
from trail_fixture import APPLICATION, MYSQL, READER, SHOP, TRAILS, FixtureSealer, kind_of, write_mysql

from ansible_collections.dbfleet.audit.plugins.module_utils._core.schema_version import SCHEMA_VERSION
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql import trail_functions

OLDEST, *BETWEEN, NEWEST = sorted(path.name for path in TRAILS.iterdir())
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

roll_out = functools.partial(trail_fixture.roll_out, "mysql")


class Restored(t.NamedTuple):
    """A server as an earlier release has left it."""

    schema: Schema
    sealer: FixtureSealer


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
        yield Restored(schema, FixtureSealer(schema.login, tmp_path, kind_of(server), request.param))


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


def trail_module(schema: Schema, **options: t.Any) -> running.ModuleResult:
    """Run the module of the trail alone."""
    options = {key: value for key, value in {**MYSQL, **options}.items() if key != "policies"}
    return running.run_module("mysql_audit_trail", **schema.login, **options)


def version_told(schema: Schema) -> t.Any:
    """Return what the info module says."""
    return running.run_module("mysql_audit_info", **schema.login, gather=["grants"])["trails"][0]["schema_version"]


@pytest.mark.parametrize(
    "restored",
    [OLDEST, *(pytest.param(name, marks=pytest.mark.thorough) for name in BETWEEN), NEWEST],
    indirect=True,
)
def test_an_upgrade_keeps_rows_and_seals_and_ends_like_a_fresh_trail(restored: Restored, fresh: list[str]) -> None:
    schema, sealer = restored
    rows = rows_of(schema)
    found = version_told(schema)
    assert sealer.seal_problems() == []
    trail = trail_module(schema)
    assert trail["schema_version"] == SCHEMA_VERSION
    # Routines are new, triggers are not yet.
    write_mysql(schema, 5)
    changed = [trail.changed, *roll_out(schema.login, MYSQL)[1:]]
    if found == SCHEMA_VERSION:
        assert changed == [False] * 3, "what is put into databases has changed: raise SCHEMA_VERSION"
    write_mysql(schema, 6)
    assert roll_out(schema.login, MYSQL) == [False] * 3
    assert rows_of(schema)[: len(rows)] == rows
    assert catalogue(schema) == fresh
    assert version_told(schema) == SCHEMA_VERSION
    assert sealer.verify()["problems"] == []
    sealer.seal()
    result = sealer.verify(self_test=True)
    assert (result["problems"], result["unsealed"]) == ([], 0)


@pytest.mark.parametrize("restored", [OLDEST], indirect=True)
def test_writers_wait_for_an_upgrade_no_longer_than_its_lock_timeout(restored: Restored, fresh: list[str]) -> None:
    schema = restored.schema
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
        trail_module(schema, **waits)
        result = running.run_module("mysql_audit_triggers", **schema.login, policies=MYSQL["policies"], **waits)
    # MySQL locks the log with any table of its triggers.
    assert f"{SHOP}.person" in [failed["table"] for failed in result["failed_tables"]]
    assert LOCK_TIMEOUT / 2 < max(writes.results) < LOCK_TIMEOUT * 1.5
    holder.rollback()
    roll_out(schema.login, MYSQL)
    assert roll_out(schema.login, MYSQL) == [False] * 3
    assert catalogue(schema) == fresh
    # The run that was killed left no record of what it had replaced by then: that is named.
    assert {problem["type"] for problem in restored.sealer.verify()["problems"]} == {"altered_between_seals"}


def killed_half_way(schema: Schema) -> None:
    """Kill a run of the trail's module when the first of its routines is there."""
    options = {key: value for key, value in MYSQL.items() if key != "policies"}
    process = running.start_module("mysql_audit_trail", **schema.login, **options)
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


@pytest.mark.parametrize("restored", [NEWEST], indirect=True)
def test_a_trail_of_a_newer_release_is_refused_and_goes_back_only_on_purpose(restored: Restored) -> None:
    schema, sealer = restored
    roll_out(schema.login, MYSQL)
    reader = schema.connect(user=READER, database="audit")
    assert fetch(reader, "SELECT audit.schema_version()") == [(SCHEMA_VERSION,)]
    with pytest.raises(pymysql.MySQLError, match="denied"):
        schema.execute("SELECT audit.schema_version()", user=APPLICATION)
    assert trail_module(schema, _constants=NEWER).changed
    schema.execute("ALTER TABLE audit.audit_log_data ADD COLUMN origin TEXT")
    write_mysql(schema, 5)
    rows, newer = rows_of(schema), catalogue(schema)
    words = f"was made by a newer dbfleet.audit (schema version 99, this release knows {SCHEMA_VERSION})"
    for check_mode in (True, False):
        refused = trail_module(schema, may_fail=True, check_mode=check_mode)
        assert words in refused.msg
        assert "allow_downgrade" in refused.msg
        assert refused["schema_version"] == 99
    policies = [{**policy, "tags": ["new"]} for policy in MYSQL["policies"]]
    assert words in running.run_module("mysql_audit_triggers", **schema.login, policies=policies, may_fail=True).msg
    assert catalogue(schema) == newer
    found = sealer.verify()["problems"]
    assert [words in problem["detail"] for problem in found if problem["type"] == "refused"] == [True]
    assert roll_out(schema.login, MYSQL, allow_downgrade=True)[0]
    write_mysql(schema, 6)
    assert roll_out(schema.login, MYSQL) == [False] * 3
    assert rows_of(schema)[: len(rows)] == rows
    assert schema.value("SELECT COUNT(*) FROM audit.audit_log_data WHERE origin IS NULL") > len(rows)
    assert sealer.verify()["problems"] == []
    sealer.seal()
    assert sealer.verify()["problems"] == []
