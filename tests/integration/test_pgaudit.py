# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stands in a server's log after real statements, once pgaudit is configured."""

from __future__ import annotations

import contextlib
import typing as t

import psycopg2
import pytest
from databases import Database, connect, fetch
from local_postgresql import LocalPostgresql
from statement_auditing import (
    PRELOAD,
    ask,
    audit_entries,
    configure,
    logged,
    server_log,
    wait_for_line,
)

#: A statement of every class -> the class and command in its line.
STATEMENTS = {
    "read": ("SELECT count(ssn) FROM patients", "READ,SELECT"),
    "write": ("UPDATE patients SET name = 'eve' WHERE id = 1", "WRITE,UPDATE"),
    "function": ("DO $$BEGIN END$$", "FUNCTION,DO"),
    "role": ("GRANT SELECT ON patients TO PUBLIC", "ROLE,GRANT"),
    "ddl": ("CREATE TEMP TABLE made (id int)", "DDL,CREATE TABLE"),
    "misc": ("LISTEN audit_test", "MISC,LISTEN"),
    "misc_set": ("SET work_mem = '5MB'", "MISC,SET"),
}

#: A class that has another one in it.
ALSO = {"misc": ["misc", "misc_set"]}


@pytest.fixture(scope="module")
def server(own_server: LocalPostgresql) -> LocalPostgresql:
    """Return a server that has pgaudit loaded."""
    own_server.configure({PRELOAD: "pgaudit"})
    own_server.restart()
    return own_server


@pytest.fixture
def clinic(server: LocalPostgresql, new_database: t.Callable[..., Database]) -> t.Iterator[Database]:
    """Return a database with patients and a view of them; afterwards nothing is configured."""
    database = new_database(server)
    database.execute(
        "CREATE TABLE patients (id int PRIMARY KEY, name text, ssn text);"
        "CREATE VIEW numbers AS SELECT id, ssn FROM patients;"
        "CREATE TABLE visits (id int);"
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC"
    )
    yield database
    configure(server, state="absent", extension_databases=[database.name])
    ask(server, "ALTER SYSTEM RESET ALL")
    ask(server, "SELECT pg_reload_conf()")


def run(database: Database, *statements: str, user: str = "postgres") -> list[str]:
    """Return what one session that makes these statements adds to the server's log."""

    def work() -> None:
        with contextlib.closing(connect(database.server, database.name, user)) as session:
            for statement in statements:
                fetch(session, statement)

    return logged(database.server, work)


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_class_logs_its_own_statements_and_no_others(clinic, name):
    configure(clinic.server, settings={"log": [name]})
    entries = audit_entries(run(clinic, *(statement for statement, _line in STATEMENTS.values())))
    expected = [STATEMENTS[own] for own in ALSO.get(name, [name])]
    assert len(entries) == len(expected)
    for entry, (statement, line) in zip(entries, expected):
        assert entry.startswith(f"{line},")
        assert statement in entry


@pytest.mark.parametrize(
    ("log", "logged_classes"),
    [
        (["all", "-read", "-misc_set"], ["WRITE", "FUNCTION", "ROLE", "DDL", "MISC"]),
        (["all", "-misc"], ["READ", "WRITE", "FUNCTION", "ROLE", "DDL"]),
        (["misc", "-misc_set"], ["MISC"]),
        (["none"], []),
    ],
)
def test_classes_can_be_taken_out(clinic, log, logged_classes):
    result = configure(clinic.server, settings={"log": log})
    entries = audit_entries(run(clinic, *(statement for statement, _line in STATEMENTS.values())))
    assert [entry.split(",")[0] for entry in entries] == logged_classes
    proven = configure(clinic.server, settings={"log": log}, self_test=True)
    assert sorted(name.upper() for name in proven["recorded"]) == sorted(logged_classes)
    assert result.changed
    assert proven["differences"] == []


def test_a_database_and_a_role_have_settings_of_their_own(clinic, new_database):
    other = new_database(clinic.server)
    quiet, plain = (clinic.create_role(name, "LOGIN IN ROLE pg_read_all_data") for name in ("quiet", "plain"))
    configure(
        clinic.server,
        settings={"log": ["misc_set"]},
        databases={clinic.name: {"log": ["read"]}},
        roles={quiet: {"log": []}},
    )
    statements = ("SELECT count(*) FROM patients", "SET work_mem = '5MB'")
    assert [entry.split(",")[1] for entry in audit_entries(run(clinic, *statements, user=plain))] == ["SELECT"]
    assert [entry.split(",")[1] for entry in audit_entries(run(other, statements[1], user=plain))] == ["SET"]
    assert audit_entries(run(clinic, *statements, user=quiet)) == []


#: What is audited by object -> statements that are logged, and statements that are not.
OBJECTS = {
    "column": (
        [{"table": "public.patients", "columns": ["ssn"], "privileges": ["select", "update"]}],
        [
            "SELECT ssn FROM patients",
            "SELECT * FROM patients",
            "SELECT id FROM patients WHERE ssn = '1'",
            "UPDATE patients SET ssn = '2'",
            "SELECT ssn FROM numbers",
        ],
        [
            "SELECT id, name FROM patients",
            "UPDATE patients SET name = 'eve'",
            "INSERT INTO patients VALUES (7, 'a', 'b')",
            "DELETE FROM patients",
            "SELECT * FROM visits",
        ],
    ),
    "whole table": (
        [{"table": "public.patients"}],
        ["SELECT id FROM patients", "SELECT count(*) FROM patients"],
        ["INSERT INTO patients VALUES (7, 'a', 'b')", "UPDATE patients SET name = 'x'", "DELETE FROM patients"],
    ),
    "changes": (
        [{"table": "public.patients", "privileges": ["insert", "update", "delete"]}],
        ["INSERT INTO patients VALUES (7, 'a', 'b')", "UPDATE patients SET name = 'x'", "DELETE FROM patients"],
        ["SELECT ssn FROM patients"],
    ),
    "view": ([{"table": "public.numbers"}], ["SELECT id FROM numbers"], ["SELECT id FROM patients"]),
    "pattern": (
        [{"table": "public.*", "columns": ["ssn"]}],
        ["SELECT ssn FROM patients", "SELECT id FROM patients WHERE ssn = '1'"],
        ["SELECT id FROM visits", "SELECT id FROM patients"],
    ),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_objects_are_logged_by_what_is_done_to_them(clinic, case):
    objects, recorded, silent = OBJECTS[case]
    wanted = [{"database": clinic.name, **entry} for entry in objects]
    configure(clinic.server, settings={"log": []}, objects=wanted)
    assert [len(audit_entries(run(clinic, statement), "OBJECT")) for statement in recorded] == [1] * len(recorded)
    assert audit_entries(run(clinic, *silent), "OBJECT") == []
    assert not configure(clinic.server, settings={"log": []}, objects=wanted).changed


def test_an_exempt_role_is_still_seen_where_it_touches_an_audited_object(clinic):
    exempt, other = (clinic.create_role(name) for name in ("exempt", "other"))
    configure(
        clinic.server,
        settings={"log": ["read"]},
        roles={exempt: {"log": []}},
        objects=[{"database": clinic.name, "table": "public.patients", "columns": ["ssn"]}],
    )
    lines = run(clinic, "SELECT ssn FROM patients", "SELECT name FROM patients", user=exempt)
    assert audit_entries(lines) == []
    assert len(audit_entries(lines, "OBJECT")) == 1
    assert len(audit_entries(run(clinic, "SELECT name FROM patients", user=other))) == 1


def test_what_is_no_longer_audited_by_object_is_no_longer_logged(clinic):
    entry = {"database": clinic.name, "table": "public.patients"}
    configure(clinic.server, settings={"log": []}, objects=[entry, {**entry, "table": "public.visits"}])
    configure(clinic.server, settings={"log": []}, objects=[{**entry, "table": "public.visits"}])
    entries = audit_entries(run(clinic, "SELECT * FROM patients", "SELECT * FROM visits"), "OBJECT")
    assert [entry.split(",")[3] for entry in entries] == ["public.visits"]


def test_odd_names_of_a_database_a_role_a_table_and_a_column(server, new_database):
    odd = new_database(server, 'cli"nic, \'é" %s')
    odd.execute('CREATE SCHEMA "a.b"; CREATE TABLE "a.b"."T, ""x" ("c, ""d" int, plain int)')
    ask(server, """CREATE ROLE "O'Brien, = %s" SUPERUSER LOGIN""")
    options = {
        "settings": {"log": []},
        "databases": {odd.name: {"log": ["ddl"]}},
        "roles": {"O'Brien, = %s": {"log": ["misc_set"]}},
        "objects": [{"database": odd.name, "table": '"a.b"."T, ""x"', "columns": ['c, "d']}],
        "extension_databases": [odd.name],
    }
    try:
        configure(server, **options)
        again = configure(server, **options)
        assert not again.changed, again
        assert len(audit_entries(run(odd, "SET work_mem = '5MB'", user="O'Brien, = %s"))) == 1
        assert len(audit_entries(run(odd, 'SELECT "c, ""d" FROM "a.b"."T, ""x"'), "OBJECT")) == 1
        assert audit_entries(run(odd, 'SELECT plain FROM "a.b"."T, ""x"'), "OBJECT") == []
        configure(server, state="absent", extension_databases=[odd.name])
        assert ask(server, "SELECT setconfig FROM pg_db_role_setting") == []
    finally:
        ask(server, """DROP ROLE "O'Brien, = %s" """)


def test_with_the_extension_ddl_and_grants_name_what_they_changed(clinic):
    statements = ("CREATE TABLE made (id int)", "GRANT SELECT ON made TO PUBLIC", "DROP TABLE made")
    configure(clinic.server, settings={"log": ["ddl", "role"]})
    bare = audit_entries(run(clinic, *statements))
    result = configure(clinic.server, settings={"log": ["ddl", "role"]}, extension_databases=[clinic.name])
    named = audit_entries(run(clinic, *statements))
    assert [entry.split(",")[2:4] for entry in bare] == [["", ""]] * 3
    assert [",".join(entry.split(",")[:4]) for entry in named] == [
        "DDL,CREATE TABLE,TABLE,public.made",
        "ROLE,GRANT,TABLE,",
        "DDL,DROP TABLE,TABLE,public.made",
    ]
    assert result["extensions"] == {clinic.name: "1.7"}


def test_the_extension_goes_into_the_schema_that_is_asked_for(clinic):
    clinic.execute("CREATE SCHEMA tools")
    configure(clinic.server, extension_databases=[clinic.name], extension_schema="tools")
    assert (
        clinic.value("SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pgaudit'") == "tools"
    )


def test_a_schema_that_is_missing_fails_and_is_named(clinic):
    failed = configure(clinic.server, extension_databases=[clinic.name], extension_schema="nowhere", may_fail=True)
    assert failed.failed
    assert 'schema "nowhere" does not exist' in failed.msg
    assert clinic.name in failed.msg


def test_connections_refused_logins_and_the_ends_of_sessions_are_logged(clinic):
    server = clinic.server
    configure(server, log_connections=True, log_disconnections=True, log_line_prefix="%m [%p] %q%u@%d %h %a ")
    before = len(server_log(server))
    with contextlib.closing(connect(server, clinic.name, application_name="billing app")) as session:
        fetch(session, "SELECT 1")
    with pytest.raises(psycopg2.OperationalError):
        connect(server, clinic.name, host="127.0.0.1", password="wrong")
    assert f"user=postgres database={clinic.name}" in wait_for_line(server, before, "connection authorized")
    assert "billing app" in wait_for_line(server, before, "disconnection: session time", "[local]")
    assert '"postgres"' in wait_for_line(server, before, "password authentication failed")
    configure(server, log_connections=False, log_disconnections=False, log_line_prefix="%p ")
    assert run(clinic, "SELECT 1") == []


def test_parameters_are_in_the_log_only_when_asked_for(clinic):
    statement = "PREPARE find AS SELECT name FROM patients WHERE ssn = $1"
    secret = "EXECUTE find (reverse('terces'))"
    configure(clinic.server, settings={"log": ["read"], "log_parameter": False})
    assert "secret" not in "".join(run(clinic, statement, secret))
    configure(clinic.server, settings={"log": ["read"], "log_parameter": True})
    assert "secret" in "".join(run(clinic, statement, secret))
