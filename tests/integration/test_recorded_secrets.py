# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Passwords of other servers and services get into no record, however a command or a setting spells them."""

from __future__ import annotations

import typing as t

import pytest
from auditing import install_trail, trail_database
from databases import Database
from local_postgresql import LocalPostgresql

SECRETS = ("GEHEIM", "HEIM")

MAPPING = "ALTER USER MAPPING FOR CURRENT_USER SERVER other OPTIONS "
SUBSCRIPTION = "CREATE SUBSCRIPTION s CONNECTION {} PUBLICATION p WITH (connect = false, slot_name = NONE)"
#: case -> a command, or several of which the record of the last one is looked at.
COMMANDS = {
    "subscription": SUBSCRIPTION.format("'postgresql://repl:GEHEIM@127.0.0.1:1/x'"),
    "escaped blank": SUBSCRIPTION.format(r"E'host=127.0.0.1 password=GE\\ HEIM'"),
    "escaped quote": SUBSCRIPTION.format(r"'host=127.0.0.1 password=''GE\''HEIM'''"),
    "continued": SUBSCRIPTION.format("E'host=127.0.0.1'\n  ' application_name=\\'it password=GEHEIM\\''"),
    "continued after a comment": SUBSCRIPTION.format("E'host=h' -- it's\n  -- \n ' options=\\'x\\' password=GEHEIM'"),
    "dollars": SUBSCRIPTION.format("$$host=127.0.0.1 password=GEHEIM$$"),
    "nested comment": "/* /* it */ don't */ " + SUBSCRIPTION.format("'host=127.0.0.1 password=GEHEIM'"),
    "altered subscription": (
        SUBSCRIPTION.format("'host=127.0.0.1'"),
        "ALTER SUBSCRIPTION s CONNECTION 'postgresql://repl:GEHEIM@127.0.0.1:1/x'",
    ),
    "comment": MAPPING + "(SET password /* x */ 'GEHEIM')",
    "comment to the end of the line": MAPPING + "(SET password -- it\n 'GEHEIM')",
    "unicode": MAPPING + "(SET password U&'GEHEIM')",
    "other name": MAPPING + "(ADD pin 'GEHEIM')",
    "server": "ALTER SERVER other OPTIONS (ADD connection 'https://u:GEHEIM@host/x')",
    "wrapper": "ALTER FOREIGN DATA WRAPPER w OPTIONS (ADD credential 'GEHEIM')",
    "schema's table": "CREATE SCHEMA late CREATE TABLE t (pin text DEFAULT 'GEHEIM')",
    "URL in a function": (
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT 'postgresql://u:GE''HE@HEIM@host:5/x' $$"
    ),
    "string in a function": (
        r"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT 'host=h password=GE\ HEIM user=x' $$"
    ),
    "comment in a function": (
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ ALTER ROLE x PASSWORD /* it */ U&'GEHEIM' $$"
    ),
    "URL in a view": "CREATE VIEW v AS SELECT 'amqp://:GEHEIM@host' AS queue",
}


@pytest.fixture(scope="module")
def shop(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database that knows another server."""
    with trail_database(pg) as database:
        database.execute("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER other FOREIGN DATA WRAPPER w")
        database.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER other OPTIONS (password 'x')")
        yield database


def recorded(db: Database, *statements: str) -> list[dict[str, t.Any]]:
    """Return what the last of these statements, one by one in a transaction that is rolled back, leaves in the log."""
    session = db.connect(autocommit=False)
    with session.cursor() as cursor:
        for statement in statements:
            cursor.execute("SELECT coalesce(max(id), 0) FROM audit.audit_log")
            [(last,)] = cursor.fetchall()
            cursor.execute(statement)
        cursor.execute("SELECT new_values FROM audit.audit_log WHERE action = 'DDL' AND id > %s", [last])
        events = [row[0] for row in cursor.fetchall()]
    session.rollback()
    return events


@pytest.mark.parametrize("case", COMMANDS)
def test_no_command_leaves_a_password_in_its_record(shop, case):
    statements = COMMANDS[case]
    events = recorded(shop, *([statements] if isinstance(statements, str) else statements))
    assert events
    assert not [secret for secret in SECRETS if secret in str(events)], events


def test_what_is_no_secret_of_such_a_command_stays_readable(shop):
    [event] = recorded(shop, SUBSCRIPTION.format("'postgresql://repl:GEHEIM@127.0.0.1:1/x'"))
    assert event["statement"] == SUBSCRIPTION.format("'***'")
    [event] = recorded(shop, "CREATE PUBLICATION p WITH (publish = 'insert')")
    assert event["statement"] == "CREATE PUBLICATION p WITH (publish = 'insert')"


@pytest.fixture
def watched(own_server: LocalPostgresql, new_database: t.Callable[..., Database]) -> t.Iterator[Database]:
    """Return a database with a trail on a server whose configuration may be changed."""
    database = new_database(own_server)
    install_trail(database)
    yield database
    database.execute("ALTER SYSTEM RESET ALL")
    database.execute("ALTER ROLE postgres RESET ALL")


#: setting, its value, what is to be seen of that.
SETTINGS = (
    ("primary_conninfo", "postgresql://repl:GEHEIM@10.0.0.1/x", "***"),
    ("primary_conninfo", r"host=h password=GE\ HEIM", "***"),
    ("archive_command", "PGPASSWORD=GEHEIM copy %p", "PGPASSWORD=***"),
    ("archive_command", "copy %p --password 'GE HEIM'", "copy %p --password ***"),
    ("archive_command", "copy %p s3://key:GE'HE@HEIM@bucket/%f", "copy %p s3://key:***@bucket/%f"),
    ("ssl_passphrase_command", "echo GEHEIM", "***"),
    ("archive_command", "copy %p s3://bucket:9000/%f", "copy %p s3://bucket:9000/%f"),
)
VALUES = """
SELECT new_values ->> 'value' FROM audit.audit_log
WHERE new_values ->> 'object_type' = %s AND new_values ->> 'found_by' IS NOT NULL ORDER BY id
"""


def test_no_setting_leaves_a_password_in_the_snapshot_or_the_log(watched):
    for name, value, _seen in SETTINGS:
        quoted = value.replace("'", "''")
        watched.execute(f"ALTER SYSTEM SET {name} = '{quoted}'")
        watched.execute("CALL audit.record_catalog_changes()")
        watched.execute("ALTER SYSTEM RESET ALL")
        watched.execute("CALL audit.record_catalog_changes()")
    seen = [value for (value,) in watched.execute(VALUES, "configuration")]
    assert [value for value in seen if value] == [seen for _name, _value, seen in SETTINGS]
    assert not [secret for secret in SECRETS if secret in whole(watched)]


def test_a_setting_of_a_role_hides_the_password_in_a_url(watched):
    watched.execute("ALTER ROLE postgres SET app.queue = 'amqp://u:GEHEIM@host/x'")
    watched.execute("CALL audit.record_catalog_changes()")
    assert watched.execute(VALUES, "setting") == [("amqp://u:***@host/x",)]


def test_what_an_earlier_release_has_left_in_the_snapshot_gets_into_no_record(watched):
    for name, clear in (("primary_conninfo", "postgresql://u:GEHEIM@h"), ("archive_command", "copy p://u:GEHEIM@h")):
        watched.execute(f"ALTER SYSTEM SET {name} = '{clear}'")
        watched.execute("CALL audit.record_catalog_changes()")
        known = "SET state = state || jsonb_build_object('value', %s::text) WHERE name = %s"
        watched.execute(f"UPDATE audit.catalog_snapshot {known}", clear, name)
    assert watched.execute("SELECT * FROM audit.catalog_changes()") == []
    watched.execute("ALTER SYSTEM RESET archive_command")
    watched.execute("CALL audit.record_catalog_changes()")
    assert not [secret for secret in SECRETS if secret in whole(watched)]


def whole(db: Database) -> str:
    """Return all that the snapshot and the log of a database hold."""
    held = ("catalog_snapshot", "audit_log_data")
    return "".join(db.value(f"SELECT string_agg(h::text, '') FROM audit.{name} AS h") for name in held)
