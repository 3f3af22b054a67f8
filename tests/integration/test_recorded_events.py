# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is recorded besides the changes of rows: DDL, events of the application, what only a comparison finds."""

from __future__ import annotations

import typing as t

import psycopg2
import pytest
import running
from auditing import install_trail, rollout
from databases import Database, fetch, unique
from local_postgresql import LocalPostgresql

Event = tuple[t.Optional[str], t.Optional[str], dict[str, t.Any]]

NAMES = (
    "SELECT coalesce(array_agg(evtname::text ORDER BY evtname), '{}') FROM pg_event_trigger "
    "WHERE evtname LIKE 'dbfleet\\_audit\\_record%'"
)


def ddl(db: Database, statement: str, **options: t.Any) -> list[Event]:
    """Execute a statement and return what it leaves in the log as DDL: schema, object's name, the rest."""
    last = db.value("SELECT coalesce(max(id), 0) FROM audit.audit_log")
    db.execute(statement, **options)
    return db.execute(
        "SELECT schema_name, table_name, new_values FROM audit.audit_log WHERE action = 'DDL' AND id > %s ORDER BY id",
        last,
    )


def test_a_command_is_recorded_with_its_object_its_text_and_who_gave_it(trail):
    role = trail.create_role("builder")
    trail.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
    session = trail.connect(user=role, autocommit=False, application_name="migrate")
    fetch(session, "SELECT set_config('app.user', 'ann', true)")
    fetch(session, "CREATE TABLE people (id int)")
    session.commit()
    record = trail.execute(
        "SELECT action, schema_name, table_name, new_values, changed_by, db_user, application_name "
        "FROM audit.audit_log WHERE action = 'DDL' AND table_name = 'people'"
    )
    event = {
        "event": "CREATE TABLE",
        "success": True,
        "object_type": "table",
        "object": "public.people",
        "statement": "CREATE TABLE people (id int)",
    }
    assert record == [("DDL", "public", "people", event, "ann", role, "migrate")]


def test_what_a_drop_takes_along_is_recorded_too(trail):
    trail.execute("CREATE SCHEMA old; CREATE TABLE old.a (id int PRIMARY KEY); CREATE VIEW old.b AS SELECT 1 AS n")
    events = ddl(trail, "DROP SCHEMA old CASCADE")
    assert {(event["object_type"], event["object"]) for _schema, _name, event in events} == {
        ("schema", "old"),
        ("table", "old.a"),
        ("view", "old.b"),
    }
    assert {(event["event"], event["dropped"]) for _schema, _name, event in events} == {("DROP SCHEMA", True)}


def test_a_rolled_back_command_leaves_no_record(trail):
    session = trail.connect(autocommit=False)
    fetch(session, "CREATE TABLE never (id int)")
    session.rollback()
    assert trail.value("SELECT count(*) FROM audit.audit_log WHERE table_name = 'never'") == 0


@pytest.mark.parametrize(
    "statement",
    ["CREATE TEMP TABLE scratch (id int)", "CREATE TEMP TABLE scratch AS SELECT 1; DROP TABLE scratch"],
)
def test_temporary_tables_are_not_worth_a_record(trail, statement):
    assert ddl(trail, statement) == []


def test_of_an_extension_only_itself_is_recorded(trail):
    events = ddl(trail, "CREATE EXTENSION pgcrypto")
    assert [(event["object_type"], event["object"]) for _schema, _name, event in events] == [("extension", "pgcrypto")]


SECRETS = {
    "user mapping": "CREATE USER MAPPING FOR CURRENT_USER SERVER other OPTIONS (user 'u', password 'PIN-1')",
    "escaped": "CREATE USER MAPPING FOR CURRENT_USER SERVER other OPTIONS (password E'it\\'s PIN-1')",
    "doubled": "CREATE USER MAPPING FOR CURRENT_USER SERVER other OPTIONS (password 'it''s PIN-1')",
    "function": "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ ALTER ROLE x PASSWORD 'PIN-1' $$",
    "other statement": "INSERT INTO people VALUES ('PIN-1'); CREATE TABLE more (id int)",
    "after it": "CREATE TABLE more (id int); INSERT INTO people VALUES ('PIN-1')",
    "comment": "/* don't */ INSERT INTO people VALUES ('PIN-1'); -- it's\nCREATE TABLE more (id int)",
    "quoted name": "CREATE TABLE \"it's\" (id int); INSERT INTO people VALUES ('PIN-1')",
    "dollars": "INSERT INTO people VALUES ($a$it's PIN-1$a$); CREATE TABLE more (id int)",
    "role": "CREATE ROLE PLACE PASSWORD 'PIN-1'; CREATE TABLE more (id int); DROP ROLE PLACE",
    "block": "DO $$ BEGIN INSERT INTO people VALUES ('PIN-1'); CREATE TABLE more (id int); END $$",
    "query": "CREATE TABLE more AS SELECT 'PIN-1'::text AS pin",
    "connection": "CREATE SERVER third FOREIGN DATA WRAPPER w OPTIONS (conninfo 'host=x password=PIN-1 user=y')",
    "quoted in it": "CREATE SERVER third FOREIGN DATA WRAPPER w OPTIONS (conninfo 'password=''my PIN-1'' user=y')",
}


@pytest.mark.parametrize("strings", ["on", "off"])
@pytest.mark.parametrize("case", SECRETS)
def test_no_secret_gets_into_the_text_of_a_statement(trail, case, strings):
    trail.execute("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER other FOREIGN DATA WRAPPER w")
    trail.execute("CREATE TABLE people (pin text)")
    trail.execute(f"SET standard_conforming_strings = {strings}; SET escape_string_warning = off")
    events = ddl(trail, SECRETS[case].replace("PLACE", unique("role")))
    assert events
    assert "PIN-1" not in str(events)


def test_backslashes_of_old_strings_hide_no_value(trail):
    trail.execute(
        "CREATE TABLE people (pin text); SET standard_conforming_strings = off; SET escape_string_warning = off"
    )
    events = ddl(trail, r"INSERT INTO people VALUES ('it\'s PIN-1'); CREATE TABLE more (id int)")
    assert "PIN-1" not in str(events)


def test_a_single_command_keeps_its_literals(trail):
    [(_schema, _name, event)] = ddl(trail, "CREATE VIEW open AS SELECT 'it''s; open' AS state, 1 AS n;")
    assert event["statement"] == "CREATE VIEW open AS SELECT 'it''s; open' AS state, 1 AS n;"


def test_a_very_long_text_is_cut_short(trail):
    [(_schema, _name, event)] = ddl(trail, f"CREATE VIEW long AS SELECT '{'x' * 100000}' AS n")
    assert event["statement"].endswith("x ... (100034 characters in all)")
    assert len(event["statement"]) < 66000


@pytest.fixture
def full_log(trail: Database) -> t.Iterator[Database]:
    """Return a database whose log has no number left for another record."""
    trail.execute("ALTER SEQUENCE audit.audit_log_id_seq MAXVALUE 9000; SELECT setval('audit.audit_log_id_seq', 9000)")
    return trail


def test_a_command_that_cannot_be_recorded_does_not_happen(full_log):
    role = full_log.create_role("builder")
    full_log.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
    with pytest.raises(psycopg2.Error, match="reached maximum value of sequence"):
        full_log.execute("CREATE TABLE people (id int)", user=role)
    assert full_log.value("SELECT to_regclass('people')") is None


def test_a_superuser_is_warned_and_can_make_room(full_log):
    session = full_log.connect()
    fetch(session, "CREATE TABLE people (id int)")
    assert "CREATE TABLE was not recorded: nextval: reached maximum value" in "".join(session.notices)
    fetch(session, "ALTER SEQUENCE audit.audit_log_id_seq NO MAXVALUE")
    assert ddl(full_log, "DROP TABLE people")


def test_events_are_recorded_as_asked_and_no_longer_when_not(db):
    application = db.create_role("application")
    install_trail(db, events=["app"], applications=[application])
    assert db.value(NAMES) == []
    assert install_trail(db, events=["ddl"], applications=[application]).changed
    assert db.value(NAMES) == ["dbfleet_audit_record_ddl", "dbfleet_audit_record_drop"]
    assert not install_trail(db, events=["ddl"], applications=[application]).changed
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        db.execute("SELECT audit.log_event('export')", user=application)
    install_trail(db, events=[], applications=[application])
    assert db.value(NAMES) == []


def test_logins_are_a_limitation_of_servers_that_have_no_trigger_for_them(db):
    if db.value("SELECT current_setting('server_version_num')::int") >= 170000:
        expected = []
    else:
        expected = ["logins are not in the audit log: PostgreSQL fires event triggers for them from version 17 on"]
    lost = install_trail(db, events=["login"])["limitations"]
    assert [text.split(";")[0] for text in lost] == expected


def test_a_misspelt_event_is_named(db):
    result = running.run_module("postgresql_audit_trail", may_fail=True, events=["dll"], **db.login)
    assert result.msg == "value of events must be one or more of: ddl, login, app. Got no match for: dll"


FORGED = """
SELECT audit.log_event('password_reset', 'account', '17', false, '{"channel": "mail", "api_token": "PIN-1"}',
  failure_reason => 'link expired', old_values => '{"password": "PIN-1", "mfa": true}', new_values => '{"mfa": false}')
"""


def test_an_event_has_a_reason_and_values_before_and_after_but_no_secret(trail):
    trail.execute(FORGED)
    [(old, new)] = trail.execute("SELECT old_values, new_values FROM audit.audit_log WHERE action = 'EVENT'")
    assert old == {"password": "[REDACTED]", "mfa": True}
    assert new == {
        "event": "password_reset",
        "success": False,
        "failure_reason": "link expired",
        "channel": "mail",
        "api_token": "[REDACTED]",
        "mfa": False,
    }


def test_old_and_new_values_may_come_within_the_metadata(trail):
    trail.execute("""SELECT audit.log_event('role_changed', 'account', '17', true,
        '{"old_values": {"role": "clerk"}, "new_values": {"role": "admin"}, "by": "request"}')""")
    assert trail.execute("SELECT old_values, new_values FROM audit.audit_log WHERE action = 'EVENT'") == [
        ({"role": "clerk"}, {"role": "admin", "by": "request", "event": "role_changed", "success": True})
    ]


def test_values_of_an_event_are_objects(trail):
    with pytest.raises(psycopg2.errors.InvalidParameterValue, match="takes JSON objects as old_values"):
        trail.execute("SELECT audit.log_event('x', old_values => '[1]')")


def test_a_function_of_an_earlier_release_is_replaced_and_not_doubled(trail):
    trail.execute("DROP FUNCTION audit.log_event")
    trail.execute("CREATE FUNCTION audit.log_event(action text, metadata jsonb) RETURNS void LANGUAGE sql AS ''")
    assert install_trail(trail).changed
    assert trail.value("SELECT array_agg(pronargs) FROM pg_proc WHERE proname = 'log_event'") == [8]
    assert not install_trail(trail).changed


@pytest.fixture
def watched(own_server: LocalPostgresql, new_database: t.Callable[..., Database]) -> Database:
    """Return a database with a trail on a server where nobody else makes roles."""
    database = new_database(own_server)
    install_trail(database)
    return database


def changed(db: Database) -> list[tuple[str, str, str]]:
    """Return what verify and info say has changed since the last snapshot; they must agree."""
    verified = running.run_module("postgresql_audit_verify", policies=[], purge=False, **db.login)
    found = running.run_module("postgresql_audit_info", **db.login)["catalog_changes"]
    assert found == verified["catalog_changes"]
    return [(entry["object_type"], entry["object"], entry["change"]) for entry in found]


UNSEEN = {
    "role": ("CREATE ROLE tester SUPERUSER", [("role", "tester", "appeared")]),
    "membership": ("GRANT audit_reader TO tester", [("role", "tester", "changed")]),
    "database": ("CREATE DATABASE side", [("database", "side", "appeared")]),
    "grant": ("GRANT CONNECT ON DATABASE side TO tester", [("database", "side", "changed")]),
    "role's setting": (
        "ALTER ROLE tester SET work_mem = '64MB'",
        [("setting", "work_mem of role tester in database (any)", "appeared")],
    ),
    "configuration": ("ALTER SYSTEM SET log_statement = 'ddl'", [("configuration", "log_statement", "appeared")]),
    "event trigger": (
        "ALTER EVENT TRIGGER dbfleet_audit_record_ddl DISABLE",
        [("event trigger", "dbfleet_audit_record_ddl", "changed")],
    ),
}
UNDO = [
    "ALTER SYSTEM RESET ALL",
    "ALTER EVENT TRIGGER dbfleet_audit_record_ddl ENABLE ALWAYS",
    "DROP DATABASE IF EXISTS side",
    "DROP ROLE IF EXISTS tester",
]


def test_what_no_event_trigger_sees_is_found_recorded_once_and_no_problem(watched):
    assert changed(watched) == []
    try:
        for statement, expected in list(UNSEEN.values())[:-1]:
            watched.execute(statement)
            assert changed(watched) == expected, statement
            watched.execute("CALL audit.record_catalog_changes()")
            assert changed(watched) == [], statement
    finally:
        for statement in UNDO:
            watched.execute(statement)
    recorded = watched.execute(
        "SELECT new_values ->> 'object', new_values ->> 'event', changed_by FROM audit.audit_log "
        "WHERE new_values ->> 'found_by' = 'catalog snapshot' ORDER BY id"
    )
    assert recorded == [(name, change, "(unknown)") for _sql, [(_kind, name, change)] in list(UNSEEN.values())[:-1]]


def test_an_event_trigger_that_was_off_is_found_although_it_is_on_again(watched):
    watched.execute("ALTER EVENT TRIGGER dbfleet_audit_record_ddl DISABLE; CALL audit.record_catalog_changes()")
    watched.execute("ALTER EVENT TRIGGER dbfleet_audit_record_ddl ENABLE ALWAYS; CALL audit.record_catalog_changes()")
    states = watched.execute(
        "SELECT old_values ->> 'enabled', new_values ->> 'enabled' FROM audit.audit_log "
        "WHERE table_name = 'dbfleet_audit_record_ddl' AND new_values ->> 'found_by' IS NOT NULL ORDER BY id"
    )
    assert states == [("A", "D"), ("D", "A")]


def test_the_snapshot_holds_no_secret(watched):
    watched.execute("ALTER SYSTEM SET primary_conninfo = 'host=a password=PIN-1'")
    watched.execute("CREATE ROLE tester PASSWORD 'PIN-1'; ALTER ROLE tester SET my.api_token = 'PIN-1'")
    try:
        watched.execute("CALL audit.record_catalog_changes()")
        assert (
            watched.value("SELECT count(*) FROM audit.catalog_snapshot WHERE name ~ 'primary_conninfo|api_token'") == 2
        )
        for held in ("catalog_snapshot", "audit_log_data"):
            assert "PIN-1" not in watched.value(f"SELECT string_agg(h::text, '') FROM audit.{held} AS h")
    finally:
        for statement in UNDO:
            watched.execute(statement)


def test_a_second_rollout_does_not_take_what_changed_for_its_own_business(watched):
    watched.execute("CREATE ROLE tester")
    try:
        assert not install_trail(watched).changed
        assert changed(watched) == [("role", "tester", "appeared")]
    finally:
        watched.execute("DROP ROLE tester")


def test_a_rollout_is_recorded_like_any_other_ddl(trail):
    trail.execute("CREATE TABLE people (id int PRIMARY KEY)")
    rollout(trail, policies=[{"name": "p", "tables": ["public.people"]}])
    made = trail.execute(
        "SELECT DISTINCT new_values ->> 'event', new_values ->> 'statement' FROM audit.audit_log "
        "WHERE action = 'DDL' AND new_values ->> 'object' LIKE '%% on public.people'"
    )
    assert made == [("CREATE TRIGGER", "DO '***'")]


SHARED = {
    "CREATE ROLE seen": "ROLE,CREATE ROLE",
    "GRANT pg_monitor TO seen": "ROLE,GRANT ROLE",
    "ALTER ROLE seen SET work_mem = '8MB'": "ROLE,ALTER ROLE",
    "DROP ROLE seen": "ROLE,DROP ROLE",
    "CREATE DATABASE seen": "DDL,CREATE DATABASE",
    "DROP DATABASE seen": "DDL,DROP DATABASE",
    "ALTER SYSTEM RESET work_mem": "DDL,ALTER SYSTEM",
    "ALTER EVENT TRIGGER dbfleet_audit_record_ddl DISABLE": "DDL,ALTER EVENT TRIGGER",
}


def test_pgaudits_default_classes_say_who_did_what_no_event_trigger_sees(db_pgaudit):
    install_trail(db_pgaudit)
    before = db_pgaudit.server.log.stat().st_size
    session = db_pgaudit.connect(options="-c pgaudit.log=ddl,role")
    name = unique("seen")
    for statement in SHARED:
        fetch(session, statement.replace("seen", name))
    with open(db_pgaudit.server.log, encoding="utf-8", errors="replace") as log:
        log.seek(before)
        lines = log.read().splitlines()
    for statement, entry in SHARED.items():
        text = statement.replace("seen", name)
        assert any(f",{entry},," in line and text in line for line in lines), statement
