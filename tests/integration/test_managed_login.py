# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A login as managed services give it: CREATEROLE, no superuser, tables that belong to others."""

from __future__ import annotations

import typing as t

import psycopg2
import pytest
from auditing import changes, records, wanted
from databases import Database, unique
from local_postgresql import LocalPostgresql
from running import ModuleResult, run_module

REFUSED = psycopg2.errors.InsufficientPrivilege
POLICIES = [wanted("public.*", columns={"redact": ["phone"], "hash": ["ssn"]})]
MODULES: dict[str, dict[str, t.Any]] = {
    "postgresql_audit_trail": {"applications": ["shop_app"], "readers": ["auditor"]},
    "postgresql_audit_partitions": {},
    "postgresql_audit_triggers": {"policies": POLICIES},
}
VERIFY = {**MODULES["postgresql_audit_trail"], "policies": POLICIES}

# What the service's administrator has done once for the server, and then in each database.
ROLES = """
CREATE ROLE shop_owner NOLOGIN;
CREATE ROLE other_owner NOLOGIN;
CREATE ROLE shop_app LOGIN;
CREATE ROLE auditor LOGIN;
CREATE ROLE audit_admin LOGIN CREATEROLE;
GRANT shop_owner TO audit_admin;
"""
TABLES = """
GRANT CREATE ON DATABASE {database} TO audit_admin;
GRANT CREATE ON SCHEMA public TO shop_owner, shop_app, other_owner;
SET ROLE shop_owner;
CREATE TABLE users (id int PRIMARY KEY, name text, phone text, ssn text, password_hash text);
CREATE TABLE visits (id int PRIMARY KEY, at date) PARTITION BY RANGE (id);
CREATE TABLE visits_a PARTITION OF visits FOR VALUES FROM (0) TO (10);
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO shop_app;
SET ROLE other_owner;
CREATE TABLE lent (id int PRIMARY KEY, phone text);
CREATE TABLE closed (id int PRIMARY KEY);
GRANT TRIGGER ON lent TO audit_admin;
GRANT ALL ON lent, closed TO shop_app;
RESET ROLE;
"""
AUDIT_ROLES = ("audit_owner", "audit_writer", "audit_reader")
MEMBERSHIP_HAS_OPTIONS = "SELECT current_setting('server_version_num')::int >= 160000"
MEMBERS = "SELECT count(*) FROM pg_auth_members WHERE roleid IN ('audit_owner'::regrole, 'audit_writer'::regrole)"


def login(db: Database, user: str = "audit_admin") -> dict[str, t.Any]:
    """Return the options that bring a module to the database as a role."""
    return {**db.login, "login_user": user}


def roll_out(db: Database, user: str = "audit_admin", **options: t.Any) -> dict[str, ModuleResult]:
    """Run the modules of a rollout in their order."""
    return {name: run_module(name, **login(db, user), **options, **more) for name, more in MODULES.items()}


def verify(db: Database, user: str = "audit_admin") -> ModuleResult:
    """Return what verify says, problems or none."""
    return run_module("postgresql_audit_verify", **login(db, user), **VERIFY, fail_on_problem=False)


def remove(db: Database, user: str = "audit_admin", **options: t.Any) -> list[ModuleResult]:
    """Take auditing out, as the playbook does."""
    return [
        run_module("postgresql_audit_triggers", **login(db, user), policies=[]),
        run_module("postgresql_audit_trail", **login(db, user), state="absent", **options),
    ]


def make_service(server: LocalPostgresql) -> Database:
    """Return the maintenance database of a server that now has the roles of a managed service."""
    maintenance = Database(server, "postgres", template=None)
    maintenance.execute(ROLES)
    return maintenance


def make_shop(server: LocalPostgresql) -> Database:
    """Return a database as the customer has it before auditing."""
    database = Database(server, unique("shop"))
    database.execute(TABLES.format(database=database.name))
    return database


@pytest.fixture(scope="module")
def service(own_server: LocalPostgresql) -> LocalPostgresql:
    """Return a server whose audit roles, if any, were made by audit_admin."""
    make_service(own_server)
    return own_server


@pytest.fixture
def alone(new_server: t.Callable[..., LocalPostgresql]) -> Database:
    """Return a database without auditing on a server of its own, for tests with other makers of the audit roles."""
    server = new_server()
    make_service(server)
    return make_shop(server)


@pytest.fixture
def new(service: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database without auditing."""
    database = make_shop(service)
    yield database
    database.drop()


@pytest.fixture(scope="module")
def shop(service: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database with auditing, for tests that change nothing but rows of their own."""
    database = make_shop(service)
    roll_out(database)
    yield database
    database.drop()


def test_a_rollout_does_what_check_mode_said_and_the_second_changes_nothing(new):
    predicted = roll_out(new, check_mode=True)
    done = roll_out(new)
    trail = "postgresql_audit_trail"
    assert done[trail]["statements"] == predicted[trail]["statements"]
    assert all(result.changed for result in done.values())
    for result in roll_out(new).values():
        assert (result.changed, result["statements"]) == (False, [])
    triggers = done["postgresql_audit_triggers"]
    assert triggers["audited"] == 3
    assert [table["table"] for table in triggers["skipped_tables"]] == ["public.closed"]
    assert "no rights" in triggers["skipped_tables"][0]["reason"]


def test_every_change_is_recorded_with_its_user_and_masked(shop):
    before = len(records(shop))
    shop.execute(
        "INSERT INTO users VALUES (1, 'ann', '555-0100', '123', 'hash'); UPDATE users SET name = 'eve';"
        "INSERT INTO visits VALUES (1, now()); INSERT INTO lent VALUES (1, '555-0100'); DELETE FROM users",
        user="shop_app",
    )
    recorded = records(shop)[before:]
    assert [(record.action, record.table_name) for record in recorded] == [
        ("INSERT", "users"),
        ("UPDATE", "users"),
        ("INSERT", "visits"),
        ("INSERT", "lent"),
        ("DELETE", "users"),
    ]
    assert {record.db_user for record in recorded} == {"shop_app"}
    written = str([(record.old_values, record.new_values) for record in recorded])
    assert not any(secret in written for secret in ("555-0100", "'123'", "'hash'"))
    assert recorded[1].changed_columns == ["name"]


def test_triggers_fire_in_every_session_where_the_login_has_the_owners_rights(shop):
    enabled = dict(
        shop.execute(
            "SELECT tgrelid::regclass::text, string_agg(DISTINCT tgenabled::text, '') "
            "FROM pg_trigger WHERE tgname LIKE 'dbfleet_audit_%' AND tgrelid::regclass::text !~ '^audit' GROUP BY 1"
        )
    )
    assert enabled == {"users": "A", "visits": "A", "visits_a": "A", "lent": "O"}


FORGERIES = {
    "read": "SELECT FROM audit.audit_log",
    "read the table": "SELECT FROM audit.audit_log_data",
    "read a partition": "SELECT FROM audit.audit_log_future",
    "read the key": "SELECT FROM audit.hash_key",
    "read the policies": "SELECT FROM audit.policy",
    "add": "INSERT INTO audit.audit_log_data DEFAULT VALUES",
    "add to a partition": "INSERT INTO audit.audit_log_future DEFAULT VALUES",
    "add through a view": "INSERT INTO audit.audit_log (action) VALUES ('INSERT')",
    "change": "UPDATE audit.audit_log_data SET changed_by = 'me'",
    "delete": "DELETE FROM audit.audit_log_data",
    "truncate": "TRUNCATE audit.audit_log_data",
    "drop": "DROP TABLE audit.audit_log_data",
    "drop the schema": "DROP SCHEMA audit CASCADE",
    "use up ids": "SELECT nextval('audit.audit_log_id_seq')",
    "make a digest": "SELECT audit.keyed_digest('123')",
    "become the owner": "SET ROLE audit_owner",
    "become the writer": "SET ROLE audit_writer",
    "become the login": "SET ROLE audit_admin",
    "join": "GRANT audit_owner TO CURRENT_USER",
    "function of its own": "CREATE FUNCTION audit.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "maintain": "CALL audit.maintain_partitions()",
    "audit the table of another": "SELECT audit.add_table('users')",
    "stop a trigger": "ALTER TABLE users DISABLE TRIGGER dbfleet_audit_update",
    "drop a trigger": "DROP TRIGGER dbfleet_audit_update ON users",
}


@pytest.mark.parametrize("attempt", FORGERIES)
def test_an_application_cannot_read_change_or_forge_the_log(shop, attempt):
    before = records(shop)
    with pytest.raises(REFUSED):
        shop.execute(FORGERIES[attempt], user="shop_app")
    assert records(shop) == before


def test_an_application_cannot_use_a_capture_function_for_a_table_of_its_own(shop):
    name = shop.value(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'audit'::regnamespace AND proname LIKE 'capture%'"
    )
    with pytest.raises(REFUSED, match="permission denied for function"):
        shop.execute(
            "CREATE TABLE fake (id int); CREATE TRIGGER mine AFTER INSERT ON fake FOR EACH ROW "
            f"EXECUTE FUNCTION audit.{name}('id', 'public', 'users', '{{}}', '{{}}')",
            user="shop_app",
        )


def test_an_applications_events_are_its_own(shop):
    shop.execute("SELECT audit.log_event('login_failed', 'person', '7')", user="shop_app")
    event = records(shop)[-1]
    assert (event.action, event.db_user, event.record_id) == ("EVENT", "shop_app", "7")
    assert event.new_values == {"event": "login_failed", "success": True}


@pytest.mark.parametrize("user", ["audit_admin", "postgres"])
@pytest.mark.parametrize("attempt", ["change", "delete", "truncate"])
def test_the_guards_hold_for_the_login_as_for_superusers(shop, user, attempt):
    with pytest.raises(REFUSED, match="append-only"):
        shop.execute(FORGERIES[attempt], user=user)


def test_a_reader_reads_and_nothing_else(shop):
    shop.execute("SELECT FROM audit.audit_log", user="auditor")
    with pytest.raises(REFUSED, match="permission denied"):
        shop.execute(FORGERIES["change"], user="auditor")


def test_whatever_cannot_be_had_is_named(shop):
    results = roll_out(shop)
    trail = results["postgresql_audit_trail"]["limitations"]
    tables = results["postgresql_audit_triggers"]["limitations"]
    for word in ("drops, disables or replaces", "auto_attach", "cast to json", "'audit_admin' must be a member"):
        assert any(word in limitation for limitation in trail), word
    assert ["ENABLE ALWAYS" in limitation and "public.lent" in limitation for limitation in tables] == [True]
    assert verify(shop)["limitations"] == trail + tables
    info = run_module("postgresql_audit_info", **login(shop))
    # Which events were asked for, nobody has told it.
    assert (info["superuser"], info["limitations"]) == (False, [text for text in trail if "these events" not in text])


def test_verify_proves_and_a_rollout_repairs_what_an_owner_has_done(new):
    roll_out(new)
    proof = verify(new)
    assert (proof["valid"], proof["recorded"], proof["tampering_refused"]) == (True, True, True), proof["problems"]
    new.execute("SET ROLE shop_owner; DROP TRIGGER dbfleet_audit_update ON users", user="audit_admin")
    new.execute("ALTER TABLE users DISABLE TRIGGER dbfleet_audit_insert; ALTER TABLE lent DISABLE TRIGGER ALL")
    assert {problem["type"] for problem in verify(new)["problems"]} == {"missing", "disabled", "altered"}
    assert roll_out(new)["postgresql_audit_triggers"]["changed_tables"] == ["public.lent", "public.users"]
    assert verify(new)["valid"]


def test_a_stranger_in_the_owners_role_is_found_and_put_out(new):
    roll_out(new)
    new.execute("GRANT audit_owner TO shop_app", user="audit_admin")
    assert [problem["type"] for problem in verify(new)["problems"]] == ["grant"]
    roll_out(new)
    assert verify(new)["valid"]
    with pytest.raises(REFUSED):
        new.execute("SET ROLE audit_owner", user="shop_app")


def test_new_tables_come_with_the_next_run_or_when_the_application_asks(new):
    roll_out(new)
    new.execute(
        "SET ROLE shop_owner; CREATE TABLE later (id int PRIMARY KEY); CREATE TABLE asked (id int)", user="audit_admin"
    )
    new.execute("CREATE TABLE visits_b PARTITION OF visits FOR VALUES FROM (10) TO (20)")
    new.execute("GRANT shop_owner TO shop_app; GRANT ALL ON asked TO shop_app")
    new.execute("SELECT audit.add_table('asked'); INSERT INTO asked VALUES (1)", user="shop_app")
    new.execute("INSERT INTO visits VALUES (11, now())", user="shop_app")
    assert len(changes(new, "asked")) == len(changes(new, "visits")) == 1
    assert roll_out(new)["postgresql_audit_triggers"]["changed_tables"] == ["public.later"]
    assert verify(new)["valid"]
    new.execute("REVOKE shop_owner FROM shop_app")


def test_a_superuser_takes_over_and_leaves_nothing_in_the_logins_hands(alone):
    roll_out(alone)
    # Code of a member of audit_owner would run as the superuser who probes.
    assert {"grant", "not_probed"} <= {problem["type"] for problem in verify(alone, "postgres")["problems"]}
    roll_out(alone, "postgres")
    assert alone.value(MEMBERS) == 0
    owners = (
        "SELECT DISTINCT proowner::regrole::text FROM pg_proc "
        "WHERE proname = 'add_table' OR oid IN (SELECT evtfoid FROM pg_event_trigger)"
    )
    assert alone.execute(owners) == [("postgres",)]
    assert not any(result.changed for result in roll_out(alone, "postgres").values())
    proof = verify(alone, "postgres")
    assert (proof["valid"], proof["limitations"]) == (True, [])


def test_a_login_that_comes_after_a_superuser_is_told_what_it_meets(alone):
    roll_out(alone, "postgres")
    result = run_module("postgresql_audit_trail", **login(alone), may_fail=True)
    assert "'audit_admin' has no rights on the audit trail" in result.msg
    alone.execute("GRANT audit_owner, audit_writer TO audit_admin")
    first, again = roll_out(alone), roll_out(alone)
    assert "the event triggers are a superuser's" in first["postgresql_audit_trail"]["limitations"][0]
    assert not any(result.changed for result in again.values())
    assert [problem["type"] for problem in verify(alone)["problems"]] == ["not_probed"]


@pytest.mark.parametrize("options", ["", "CREATEROLE NOINHERIT"])
def test_a_login_that_would_get_stuck_is_refused_before_anything_is_changed(new, options):
    name = new.create_role("weak", f"LOGIN {options}")
    new.execute(f"GRANT CREATE ON DATABASE {new.name} TO {name}")
    if options and new.value(MEMBERSHIP_HAS_OPTIONS):
        pytest.skip("a membership says itself what is inherited")
    result = run_module("postgresql_audit_trail", **login(new, name), may_fail=True)
    assert (result.failed, result.changed) == (True, False)
    assert name in result.msg
    assert ("NOINHERIT" if options else "audit_owner") in result.msg
    assert new.value("SELECT to_regnamespace('audit') IS NULL")


def test_a_login_without_rights_on_a_trail_is_told_what_it_lacks(shop):
    name = shop.create_role("stranger")
    for module, options in {**MODULES, "postgresql_audit_verify": VERIFY}.items():
        result = run_module(module, **login(shop, name), **options, may_fail=True)
        assert result.failed
        assert any(words in result.msg for words in ("audit_owner", "permission denied for schema audit")), result.msg


def test_roles_that_an_administrator_has_made_need_no_createrole(alone):
    for role in AUDIT_ROLES:
        alone.execute(f"CREATE ROLE {role} NOLOGIN; COMMENT ON ROLE {role} IS 'dbfleet.audit: made by hand'")
    alone.execute("ALTER ROLE audit_admin NOCREATEROLE; GRANT audit_owner, audit_writer TO audit_admin")
    roll_out(alone)
    assert not any(result.changed for result in roll_out(alone).values())
    assert verify(alone)["valid"]
    alone.execute("GRANT other_owner TO audit_admin")
    taken_out = remove(alone, drop_log=True)
    assert "may not drop them" in str(taken_out[1]["warnings"])
    assert alone.value("SELECT count(*) FROM pg_roles WHERE rolname = ANY (%s)", list(AUDIT_ROLES)) == 3


def test_pgaudit_that_nobody_could_silence_is_named(new_server):
    server = new_server(shared_preload_libraries="pgaudit")
    make_service(server)
    database = make_shop(server)
    results = roll_out(database)
    assert "pgaudit is not silenced" in results["postgresql_audit_trail"]["limitations"][-1]
    database.execute("INSERT INTO users VALUES (1, 'ann', '555-0100', '123', 'hash')", user="shop_app")
    assert len(changes(database, "users")) == 1
    assert not any(result.changed for result in roll_out(database).values())


def test_auditing_is_taken_out_and_the_rows_stay_until_they_are_to_go(new):
    roll_out(new)
    new.execute("INSERT INTO users VALUES (1)", user="shop_app")
    # Without the owner's rights, a trigger can be made and not be dropped.
    result = run_module("postgresql_audit_triggers", **login(new), policies=[], may_fail=True)
    assert [table["table"] for table in result["failed_tables"]] == ["public.lent"]
    new.execute("GRANT other_owner TO audit_admin")
    assert [outcome.changed for outcome in remove(new)] == [True, True]
    assert [outcome.changed for outcome in remove(new)] == [False, False]
    new.execute("INSERT INTO users VALUES (2)", user="shop_app")
    assert [record.record_id for record in records(new)] == ["1"]
    assert remove(new, drop_log=True)[1].changed
    assert new.value("SELECT to_regnamespace('audit') IS NULL")
    new.execute("REVOKE other_owner FROM audit_admin")
