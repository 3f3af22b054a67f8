# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What somebody configured by hand is named and put back, what others own stays, what cannot be meant is refused."""

from __future__ import annotations

import typing as t

import pytest
from databases import Database
from local_postgresql import LocalPostgresql
from statement_auditing import PRELOAD, ask, configure, everything, refused, show

NewDatabase = t.Callable[..., Database]


class Clinic(t.NamedTuple):
    """A server with two databases and a role, and the options that it is configured by."""

    server: LocalPostgresql
    main: Database
    other: Database
    app: str
    options: dict[str, t.Any]

    @property
    def state(self) -> dict[str, t.Any]:
        return everything(self.server, self.main.name, self.other.name)


@pytest.fixture(scope="module")
def server(own_server: LocalPostgresql) -> LocalPostgresql:
    """Return a server that has pgaudit loaded."""
    own_server.configure({PRELOAD: "pgaudit"})
    own_server.restart()
    return own_server


@pytest.fixture
def bare(server: LocalPostgresql, new_database: NewDatabase) -> t.Iterator[Clinic]:
    """Return what has nothing of pgaudit configured, and settings of others; afterwards all that is gone."""
    main, other = new_database(server), new_database(server)
    for database in (main, other):
        database.execute(
            "CREATE TABLE patients (id int PRIMARY KEY, name text, ssn text); GRANT SELECT ON patients TO PUBLIC"
        )
    app = main.create_role("app")
    ask(server, "ALTER SYSTEM SET work_mem = '5MB'")
    ask(server, f"ALTER ROLE {app} SET work_mem = '6MB'")
    ask(server, f"ALTER DATABASE {main.name} SET work_mem = '7MB'")
    options = {
        "settings": {"log": ["ddl", "write"], "log_catalog": False},
        "databases": {main.name: {"log": ["ddl"]}},
        "roles": {app: {"log": []}},
        "objects": [{"database": main.name, "table": "public.patients", "columns": ["ssn"]}],
        "extension_databases": [main.name],
        "log_connections": True,
    }
    yield Clinic(server, main, other, app, options)
    configure(server, state="absent", extension_databases=[main.name, other.name])
    ask(server, "ALTER SYSTEM RESET ALL")
    ask(server, "SELECT pg_reload_conf()")


@pytest.fixture
def clinic(bare: Clinic) -> Clinic:
    """Return the same, configured."""
    configure(bare.server, **bare.options)
    return bare


#: What is done by hand, and where -> the difference in words.
DRIFT = {
    "superuser exempt": ("", "ALTER ROLE postgres SET pgaudit.log = 'none'", "pgaudit.log of role postgres is 'none'"),
    "role in a database": (
        "",
        "ALTER ROLE {app} IN DATABASE {main} SET pgaudit.log = 'none'",
        "pgaudit.log of role {app} in database {main} is 'none', and not asked for",
    ),
    "database": (
        "",
        "ALTER DATABASE {main} SET pgaudit.log = 'none'",
        "pgaudit.log of database {main} is 'none', to be 'ddl'",
    ),
    "another database": (
        "",
        "ALTER DATABASE {other} SET pgaudit.log_catalog = on",
        "pgaudit.log_catalog of database {other} is 'on', and not asked for",
    ),
    "all roles": ("", "ALTER ROLE ALL SET pgaudit.log = 'none'", "pgaudit.log of all roles is 'none', and not"),
    "role reset": ("", "ALTER ROLE {app} RESET pgaudit.log", "pgaudit.log of role {app} is not set, to be 'none'"),
    "server": ("", "ALTER SYSTEM SET pgaudit.log = 'none'", "pgaudit.log is 'none' ({auto}:"),
    "server, not asked for": ("", "ALTER SYSTEM SET pgaudit.log_rows = on", "pgaudit.log_rows is 'on' ({auto}:"),
    "server reset": ("", "ALTER SYSTEM RESET pgaudit.role", "pgaudit.role is not set, to be 'audit_objects'"),
    "connections": ("", "ALTER SYSTEM SET log_connections = off", "log_connections is 'off' ({auto}:"),
    "one right more": (
        "main",
        "GRANT DELETE ON patients TO audit_objects",
        "delete of public.patients is audited, and must not be",
    ),
    "the whole table": (
        "main",
        "GRANT SELECT ON patients TO audit_objects",
        "select of public.patients is audited, and must not be",
    ),
    "another table": (
        "other",
        "GRANT UPDATE (name) ON patients TO audit_objects",
        "update of name of public.patients is audited, and must not be",
    ),
    "a right less": (
        "main",
        "REVOKE SELECT (ssn) ON patients FROM audit_objects",
        "select of ssn of public.patients is to be audited",
    ),
    "no role": (
        "main",
        "DROP OWNED BY audit_objects; DROP ROLE audit_objects",
        "there is no role audit_objects to audit objects by",
    ),
    "no extension": ("main", "DROP EXTENSION pgaudit", "database {main} lacks the extension pgaudit"),
}


@pytest.mark.parametrize("drift", DRIFT)
def test_what_was_configured_by_hand_is_named_and_put_back(clinic: Clinic, drift: str):
    where, statement, difference = DRIFT[drift]
    names = {
        "app": clinic.app,
        "main": clinic.main.name,
        "other": clinic.other.name,
        "auto": clinic.server.data / "postgresql.auto.conf",
    }
    before = clinic.state
    database = getattr(clinic, where).name if where else "postgres"
    ask(clinic.server, statement.format(**names), database=database)
    assert clinic.state != before
    repaired = configure(clinic.server, **clinic.options, diff_mode=True)
    assert any(text.startswith(difference.format(**names)) for text in repaired["differences"])
    assert f"-- {difference.format(**names)}" in repaired["diff"]["after"]
    assert clinic.state == before
    assert not configure(clinic.server, **clinic.options).changed


def test_nothing_is_changed_for_other_words_that_mean_the_same(clinic: Clinic):
    ask(clinic.server, "ALTER SYSTEM SET pgaudit.log = 'write,DDL'")
    ask(clinic.server, "ALTER SYSTEM SET pgaudit.log_catalog = 'false'")
    ask(clinic.server, f"ALTER ROLE {clinic.app} SET pgaudit.log = ''")
    again = configure(clinic.server, **clinic.options)
    assert (again.changed, again["statements"]) == (False, [])


def test_what_is_no_longer_asked_for_goes(clinic: Clinic):
    changed = configure(clinic.server, settings={"log": ["ddl"]})
    assert ask(clinic.server, "SELECT name, setting FROM pg_file_settings WHERE name LIKE 'pgaudit.%'") == [
        ("pgaudit.log", "ddl")
    ]
    assert [scope for scope in clinic.state["scopes"] if "pgaudit" in scope[2]] == []
    assert "audit_objects" not in str(clinic.state[clinic.main.name])
    assert any("pgaudit.log_catalog is 'off'" in text for text in changed["differences"])
    # An option that is left out leaves its setting as it is.
    assert show(clinic.server, "log_connections") == "on"


def test_settings_of_others_are_left_alone(clinic: Clinic):
    server = clinic.server
    assert show(server, "work_mem", clinic.other.name) == "5MB"
    assert show(server, "work_mem", clinic.main.name) == "7MB"
    assert show(server, "work_mem", clinic.other.name, user=clinic.app) == "6MB"


def test_what_is_removed_leaves_nothing_and_takes_nothing_else_along(bare: Clinic):
    before = bare.state
    configure(bare.server, **{**bare.options, "log_connections": None})
    ask(bare.server, "GRANT SELECT ON patients TO audit_objects", database=bare.other.name)
    ask(bare.server, f"ALTER ROLE {bare.app} IN DATABASE {bare.other.name} SET pgaudit.log = 'read'")
    assert bare.state != before
    removal = {"state": "absent", "extension_databases": [bare.main.name]}
    predicted = configure(bare.server, **removal, check_mode=True)
    configured = bare.state
    removed = configure(bare.server, **removal)
    assert (predicted.changed, configured != before) == (True, True)
    assert removed.changed
    assert bare.state == before
    assert not configure(bare.server, **removal).changed


def test_a_persons_own_line_that_the_options_do_not_mention_stays_and_is_warned_about(bare: Clinic):
    file = bare.server.data / "postgresql.conf"
    made = file.read_text(encoding="utf-8")
    bare.server.configure({"pgaudit.log_rows": "on", "PGAUDIT.LOG": "read"})
    place = len(made.splitlines()) + 1
    try:
        result = configure(bare.server, settings={"log": ["ddl"]})
        assert f"pgaudit.log_rows is 'on' in {file}:{place} and not among the settings: it stays" in str(
            result["warnings"]
        )
        assert f"pgaudit.log is 'read' ({file}:{place + 1}), to be 'ddl'" in result["differences"]
        assert show(bare.server, "pgaudit.log") == "ddl"
        assert show(bare.server, "pgaudit.log_rows") == "on"
        assert not configure(bare.server, settings={"log": ["ddl"]}).changed
        assert not configure(bare.server, settings={"log": ["ddl"], "log_rows": True}).changed
    finally:
        file.write_text(made, encoding="utf-8")


def test_check_mode_tells_every_statement_and_makes_none(bare: Clinic):
    before = bare.state
    predicted = configure(bare.server, **bare.options, check_mode=True, diff_mode=True)
    assert bare.state == before
    executed = configure(bare.server, **bare.options, diff_mode=True)
    assert bare.state != before
    assert predicted["statements"] == executed["statements"]
    assert predicted["diff"] == executed["diff"]
    assert 'CREATE EXTENSION pgaudit SCHEMA "public"' in predicted["statements"]


def test_what_would_show_too_much_or_hide_something_is_warned_about(bare: Clinic):
    ask(bare.server, f"GRANT SET ON PARAMETER pgaudit.log TO {bare.app}")
    ask(bare.server, "ALTER SYSTEM SET log_min_messages = 'fatal'")
    ask(bare.server, "SELECT pg_reload_conf()")
    settings = {"log": ["ddl"], "log_parameter": True}
    said = configure(bare.server, settings=settings, databases={bare.main.name: {"log": ["read"]}})["warnings"]
    assert f"pgaudit.log_parameter is on for database {bare.main.name}:" in str(said)
    assert f"{bare.app} may turn pgaudit off for themselves" in str(said)
    assert "log_min_messages is fatal" in str(said)
    ask(bare.server, f"REVOKE SET ON PARAMETER pgaudit.log FROM {bare.app}")
    ask(bare.server, "ALTER SYSTEM RESET log_min_messages")
    ask(bare.server, "SELECT pg_reload_conf()")
    assert configure(bare.server, settings=settings).get("warnings", []) == []


@pytest.mark.parametrize(
    ("prepare", "reason"), [("ALTER ROLE audit_objects LOGIN", "can log in"), ("GRANT audit_objects TO {app}", "has ")]
)
def test_an_object_role_that_somebody_uses_is_refused_and_never_taken_away(bare: Clinic, prepare: str, reason: str):
    ask(bare.server, "CREATE ROLE audit_objects")
    ask(bare.server, prepare.format(app=bare.app))
    ask(bare.server, "GRANT DELETE ON patients TO audit_objects", database=bare.main.name)
    before = bare.state
    said = refused(bare.server, **bare.options)
    assert f"the role audit_objects {reason}" in said
    assert bare.state == before
    configure(bare.server, state="absent", extension_databases=[bare.main.name])
    assert bare.state == before
    ask(bare.server, "DROP OWNED BY audit_objects; DROP ROLE audit_objects", database=bare.main.name)


#: Options that cannot be meant -> words of the refusal.
WRONG = {
    "setting": ({"settings": {"log": ["ddl"], "log_catalogue": True}}, "did you mean log_catalog?"),
    "class": ({"settings": {"log": ["dll"]}}, "'dll' is no class of pgaudit; did you mean ddl?"),
    "value": ({"settings": {"log_catalog": "perhaps"}}, "which is neither on nor off"),
    "database": ({"databases": {"nowhere": {"log": []}}}, "databases names the database nowhere"),
    "setting of a database": ({"databases": {"postgres": {"lgo": []}}}, "databases: postgres: the installed version"),
    "no dictionary": ({"databases": {"postgres": ["ddl"]}}, "which is no dictionary"),
    "role": ({"roles": {"nobody": {"log": []}}}, "roles names the role nobody"),
    "extension": ({"extension_databases": ["nowhere_*"]}, "extension_databases lists nowhere_*"),
    "object's database": ({"objects": [{"database": "nowhere", "table": "a.b"}]}, "objects names the database nowhere"),
    "table": ({"objects": [{"database": "{main}", "table": "public.patient"}]}, "public.patient matches no table"),
    "pattern": ({"objects": [{"database": "{main}", "table": "patients"}]}, "is not `schema.table`"),
    "column": (
        {"objects": [{"database": "{main}", "table": "public.patients", "columns": ["snn"]}]},
        "has no column snn; it has id, name, ssn",
    ),
    "delete by column": (
        {"objects": [{"database": "{main}", "table": "public.patients", "columns": ["ssn"], "privileges": ["delete"]}]},
        "delete cannot be audited by column",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_meant_is_refused_before_anything_is_changed(bare: Clinic, wrong: str):
    options, words = WRONG[wrong]
    objects = [
        {**entry, "database": entry["database"].format(main=bare.main.name)} for entry in options.get("objects", [])
    ]
    before = bare.state
    # What is right besides must not be done either.
    said = refused(bare.server, **{**bare.options, **options, **({"objects": objects} if objects else {})})
    assert words in said
    assert bare.state == before
