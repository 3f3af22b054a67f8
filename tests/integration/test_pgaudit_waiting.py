# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pgaudit where it is not loaded yet, on a standby, for a login that may little, and its proof of itself."""

from __future__ import annotations

import contextlib
import os
import pathlib
import typing as t

import databases
import pytest
from databases import Database, connect, fetch
from local_postgresql import LocalPostgresql, standby_of
from statement_auditing import (
    PRELOAD,
    as_made,
    ask,
    audit_entries,
    configure,
    everything,
    logged,
    preload,
    refused,
    show,
)

NewDatabase = t.Callable[..., Database]


@pytest.fixture
def server(own_server: LocalPostgresql) -> t.Iterator[LocalPostgresql]:
    """Return a server that loads nothing."""
    made = (own_server.data / "postgresql.conf").read_text(encoding="utf-8")
    yield own_server
    as_made(own_server, made)


@pytest.fixture
def clinic(server: LocalPostgresql, new_database: NewDatabase) -> t.Iterator[Database]:
    """Return a database with a table; afterwards nothing is configured."""
    database = new_database(server)
    database.execute("CREATE TABLE patients (id int PRIMARY KEY, ssn text)")
    yield database
    configure(server, state="absent", extension_databases=[database.name])


def loaded(server: LocalPostgresql) -> LocalPostgresql:
    preload(server, "pgaudit")
    server.restart()
    return server


def options_for(clinic: Database, app: str) -> dict[str, t.Any]:
    return {
        "settings": {"log": ["read"], "log_catalog": False},
        "databases": {clinic.name: {"log": ["read", "write"]}},
        "roles": {app: {"log": []}},
        "objects": [{"database": clinic.name, "table": "public.patients", "columns": ["ssn"]}],
        "extension_databases": [clinic.name],
        "log_connections": True,
    }


def test_settings_wait_for_the_library_and_count_from_the_restart_on(clinic: Database):
    server = clinic.server
    app = clinic.create_role("app")
    options = options_for(clinic, app)
    waiting = configure(server, **options)
    again = configure(server, **options)
    assert (waiting["loaded"], waiting["extensions"], waiting.changed, again.changed) == (False, {}, True, False)
    assert show(server, "log_connections") == "on"
    preload(server, "pgaudit")
    predicted = configure(server, **options, assume_loaded=True, check_mode=True)
    server.restart()
    assert show(server, "pgaudit.log") == "read"
    assert show(server, "pgaudit.log", clinic.name) == "read, write"
    assert show(server, "pgaudit.log", clinic.name, user=app) == "none"
    finished = configure(server, **options)
    assert finished["statements"] == predicted["statements"] == ['CREATE EXTENSION pgaudit SCHEMA "public"']
    assert finished["extensions"] == {clinic.name: "1.7"}
    assert not configure(server, **options).changed


def test_names_of_settings_are_known_before_the_library_is_loaded(clinic: Database):
    before = everything(clinic.server)
    said = refused(clinic.server, settings={"log": ["ddl"], "log_relations": True})
    assert "no setting 'log_relations'; did you mean log_relation?" in said
    assert everything(clinic.server) == before
    names = said.partition("It has ")[2].split(", ")
    loaded(clinic.server)
    found = ask(clinic.server, "SELECT substr(name, 9) FROM pg_settings WHERE name LIKE 'pgaudit.%'")
    assert sorted(name for (name,) in found) == sorted(names)


def test_what_waits_for_the_library_can_be_removed(clinic: Database):
    server = clinic.server
    app = clinic.create_role("app")
    before = everything(server, clinic.name)
    configure(server, **{**options_for(clinic, app), "log_connections": None})
    assert everything(server, clinic.name) != before
    configure(server, state="absent", extension_databases=[clinic.name])
    assert everything(server, clinic.name) == before


def test_check_mode_on_a_server_without_the_library_tells_the_same_statements(clinic: Database):
    options = options_for(clinic, clinic.create_role("app"))
    before = everything(clinic.server, clinic.name)
    predicted = configure(clinic.server, **options, check_mode=True)
    assert everything(clinic.server, clinic.name) == before
    assert predicted["statements"] == configure(clinic.server, **options)["statements"] != []


def test_a_standby_takes_the_settings_of_the_server_and_gets_the_rest_from_its_primary(
    clinic: Database, tmp_path: pathlib.Path
):
    server = loaded(clinic.server)
    app = clinic.create_role("app")
    options = options_for(clinic, app)
    standby = standby_of(server, tmp_path / "standby", {"fsync": "off"}, os.getpid())
    try:
        first = configure(standby, **options, self_test=True)
        assert [statement.split(" = ")[0] for statement in first["statements"]] == [
            "SET dbfleet.pgaudit_before",
            "ALTER SYSTEM SET dbfleet.pgaudit_before",
            "ALTER SYSTEM SET pgaudit.log",
            "ALTER SYSTEM SET pgaudit.log_catalog",
            "ALTER SYSTEM SET pgaudit.role",
            "ALTER SYSTEM SET log_connections",
            "SELECT pg_reload_conf()",
        ]
        assert not configure(standby, **options).changed
        assert show(server, "pgaudit.log") == "none"
        configure(server, **options)
        databases.wait_for_replay(server, standby)
        lines = logged(standby, lambda: ask(standby, "SELECT ssn FROM patients", database=clinic.name))
        assert len(audit_entries(lines)) == 1
        assert len(audit_entries(lines, "OBJECT")) == 1
        assert not configure(standby, **options).changed
        # A role that is exempt on the primary is exempt here.
        assert show(standby, "pgaudit.log", clinic.name, user=app) == "none"
        assert configure(standby, state="absent", extension_databases=[clinic.name]).changed
        assert show(standby, "pgaudit.log") == "none"
        assert show(standby, "pgaudit.log", clinic.name) == "read, write"
    finally:
        standby.remove()
        ask(server, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


def test_a_standby_that_became_the_primary_gives_back_what_there_was(clinic: Database, tmp_path: pathlib.Path):
    app = clinic.create_role("app")
    server = loaded(clinic.server)
    ask(server, "CREATE EXTENSION pgaudit", database=clinic.name)
    ask(server, f"ALTER ROLE {app} SET pgaudit.log = 'ddl'")
    standby = standby_of(server, tmp_path / "standby", {"fsync": "off"}, os.getpid())
    try:
        options = {**options_for(clinic, app), "objects": [], "extension_databases": [clinic.name]}
        for each in (standby, server):
            configure(each, **options)
        databases.wait_for_replay(server, standby)
        ask(standby, "SELECT pg_promote()")
        removed = configure(standby, state="absent", extension_databases=[clinic.name])
        assert list(removed["extensions"]) == [clinic.name]
        assert show(standby, "pgaudit.log", clinic.name, user=app) == "ddl"
    finally:
        standby.remove()
        ask(server, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


def test_a_setting_of_the_command_line_is_not_overridden_in_vain(clinic: Database):
    server = clinic.server
    server.stop()
    server.start(f"-c {PRELOAD}=pgaudit -c pgaudit.log=none -c log_connections=off")
    before = everything(server)
    said = refused(server, settings={"log": ["ddl"]})
    assert "pgaudit.log is given to the server by its command line" in said
    assert everything(server) == before
    assert "log_connections is given" in refused(server, log_connections=True)


def test_a_login_that_is_no_superuser_is_a_limitation_that_is_said(clinic: Database):
    server = loaded(clinic.server)
    before = everything(server)
    app = clinic.create_role("app")
    result = configure(server, settings={"log": ["ddl"]}, log_connections=True, login_user=app)
    assert not result.changed
    assert "this login is none" in result["limitations"][0]
    assert everything(server)["files"] == before["files"]
    # What it may not change is a difference until somebody else has, and none from then on.
    assert any(text.startswith("pgaudit.log is 'none', to be 'ddl'") for text in result["differences"])
    configure(server, settings={"log": ["ddl"]}, log_connections=True)
    met = configure(server, settings={"log": ["ddl"]}, log_connections=True, login_user=app)
    assert (met["differences"], met["limitations"], met["settings"]["pgaudit.log"]) == ([], [], "ddl")


def test_a_login_that_may_make_roles_audits_objects_of_its_own(clinic: Database):
    server = loaded(clinic.server)
    manager = clinic.create_role("manager", "LOGIN CREATEROLE")
    made = f"CREATE TABLE files (id int, ssn text); ALTER TABLE files OWNER TO {manager}"
    ask(server, made, database=clinic.name)
    options = {
        "settings": {"log": ["ddl"]},
        "objects": [{"database": clinic.name, "table": "public.files", "columns": ["ssn"]}],
        "login_user": manager,
    }
    first = configure(server, **options)
    assert first.changed
    assert first["objects"] == 1
    assert not configure(server, **options).changed
    held = "SELECT has_column_privilege('audit_objects', 'files', 'ssn', 'SELECT')"
    assert ask(server, held, database=clinic.name) == [(True,)]


def test_the_proof_finds_every_class_leaves_nothing_and_sees_an_exempt_login(clinic: Database):
    server = loaded(clinic.server)
    every = {"settings": {"log": ["all"]}, "login_db": clinic.name}
    configure(server, **every)
    before = everything(server, clinic.name)
    proven = configure(server, **every, self_test=True, check_mode=True)
    assert proven["recorded"] == ["ddl", "function", "misc", "misc_set", "read", "role", "write"]
    assert proven["differences"] == []
    assert everything(server, clinic.name) == before
    ask(server, "ALTER ROLE postgres SET pgaudit.log = 'none'")
    exempt = configure(server, **every, self_test=True, check_mode=True)
    ask(server, "ALTER ROLE postgres RESET pgaudit.log")
    assert exempt["recorded"] == []
    assert exempt["differences"] == ["pgaudit.log of role postgres is 'none', and not asked for"]
    configure(server, settings={"log": ["ddl"]})


def test_the_proof_works_in_a_database_that_is_read_only_by_default(clinic: Database):
    server = loaded(clinic.server)
    configure(server, settings={"log": ["ddl", "write"]})
    ask(server, f"ALTER DATABASE {clinic.name} SET default_transaction_read_only = on")
    proven = configure(server, settings={"log": ["ddl", "write"]}, self_test=True, login_db=clinic.name)
    assert proven["recorded"] == ["ddl", "write"]


def test_pgaudit_that_sessions_load_by_themselves_is_not_taken_for_loaded(clinic: Database):
    """Whoever only loads the library where it must not be loaded has no auditing, and is told so."""
    with contextlib.closing(connect(clinic.server, clinic.name)) as session, pytest.raises(Exception, match="pgaudit"):
        fetch(session, "LOAD 'pgaudit'")
    assert configure(clinic.server)["loaded"] is False
