# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What somebody altered by hand is named and put back; what is not ours is refused by name."""

from __future__ import annotations

import typing as t

import pytest
import running
from auditing import records, rollout, trail_database, wanted
from databases import Database
from local_postgresql import LocalPostgresql


def trail_module(db: Database, **options: t.Any) -> running.ModuleResult:
    return running.run_module("postgresql_audit_trail", **{**db.login, **options})


#: What is done by hand (with {role} for a stranger) -> words of the reason that --diff gives.
TRAIL_DRIFT = {
    "function source": (
        "CREATE OR REPLACE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql "
        "SET search_path TO pg_catalog, pg_temp AS 'BEGIN RETURN NULL; END'",
        ["refuse_change", "source"],
    ),
    "function settings": ("ALTER FUNCTION audit.log_event RESET search_path", ["log_event", "settings"]),
    "function definer": ("ALTER FUNCTION audit.set_context SECURITY DEFINER", ["set_context", "SECURITY DEFINER"]),
    "function owner": ("ALTER FUNCTION audit.keyed_digest OWNER TO {role}", ["keyed_digest", "audit_owner"]),
    "function dropped": ("DROP FUNCTION audit.log_event", ["log_event"]),
    "function granted": ("GRANT EXECUTE ON FUNCTION audit.keyed_digest TO {role}", ["{role}", "keyed_digest"]),
    "function to all": ("GRANT EXECUTE ON FUNCTION audit.log_event TO PUBLIC", ["PUBLIC", "log_event"]),
    "table granted": ("GRANT SELECT ON audit.audit_log_data TO {role}", ["{role}", "SELECT", "audit_log_data"]),
    "table granted to the writer": ("GRANT DELETE ON audit.audit_log_data TO audit_writer", ["audit_writer", "DELETE"]),
    "key granted": ("GRANT SELECT ON audit.hash_key TO PUBLIC", ["PUBLIC", "hash_key"]),
    "partition granted": ("GRANT INSERT ON audit.audit_log_future TO {role}", ["{role}", "audit_log_future"]),
    "column granted": ("GRANT UPDATE (changed_by) ON audit.audit_log_data TO {role}", ["{role}", "changed_by"]),
    "sequence granted": ("GRANT USAGE ON SEQUENCE audit.audit_log_id_seq TO {role}", ["{role}", "audit_log_id_seq"]),
    "schema granted": ("GRANT CREATE ON SCHEMA audit TO {role}", ["{role}", "CREATE", "schema audit"]),
    "reading revoked": ("REVOKE SELECT ON audit.audit_log FROM audit_reader", ["audit_reader", "SELECT", "audit_log"]),
    "view replaced": (
        "CREATE OR REPLACE VIEW audit.audit_logs AS SELECT * FROM audit.audit_logs_before WHERE user_id <> 'eve'",
        ["view audit_logs"],
    ),
    "view dropped": ("DROP VIEW audit.audit_history", ["view audit_history"]),
    "view owner": ("ALTER VIEW audit.audit_log OWNER TO {role}", ["audit_log", "audit_owner"]),
    "table owner": ("ALTER TABLE audit.policy OWNER TO {role}", ["policy", "audit_owner"]),
    "partition owner": ("ALTER TABLE audit.audit_log_past OWNER TO {role}", ["audit_log_past", "audit_owner"]),
    "schema owner": ("ALTER SCHEMA audit OWNER TO {role}", ["schema audit", "audit_owner"]),
    "guard dropped": ("DROP TRIGGER dbfleet_audit_guard ON audit.audit_log_data", ["audit_log_data"]),
    "guard disabled": (
        "ALTER TABLE audit.audit_log_past DISABLE TRIGGER dbfleet_audit_guard",
        ["audit_log_past"],
    ),
    "guard not always": (
        "ALTER TABLE audit.audit_log_future ENABLE TRIGGER dbfleet_audit_row_guard",
        ["audit_log_future"],
    ),
    "event trigger disabled": ("ALTER EVENT TRIGGER dbfleet_audit_guard_drop DISABLE", ["dbfleet_audit_guard_drop"]),
    "event trigger dropped": ("DROP EVENT TRIGGER dbfleet_audit_guard_ddl", ["dbfleet_audit_guard_ddl"]),
    "index dropped": ("DROP INDEX audit.audit_log_record_idx", ["record"]),
    "default privileges": (
        "ALTER DEFAULT PRIVILEGES FOR ROLE audit_owner IN SCHEMA audit GRANT SELECT ON TABLES TO {role}; "
        "DROP VIEW audit.audit_history",
        ["audit_history"],
    ),
}


@pytest.mark.parametrize("drift", TRAIL_DRIFT)
def test_what_was_altered_in_the_trail_is_named_and_put_back(trail, drift):
    role = trail.create_role("stranger")
    statement, words = TRAIL_DRIFT[drift]
    if drift == "view replaced":
        source = trail.value("SELECT pg_get_viewdef('audit.audit_logs'::regclass)").rstrip(";")
        statement = f"CREATE OR REPLACE VIEW audit.audit_logs AS {source} WHERE changed_by <> 'eve'"
    trail.execute(statement.format(role=role))
    repaired = trail_module(trail, diff_mode=True)
    assert repaired.changed
    reasons = [line for line in repaired["diff"]["after"].splitlines() if line.startswith("-- ")]
    assert any(all(word.format(role=role) in reason for word in words) for reason in reasons), reasons
    assert not trail_module(trail, check_mode=True).changed
    for relation in ("audit_log_data", "audit_history", "hash_key", "audit_log_future"):
        rights = "SELECT has_table_privilege(%s, 'audit.' || %s, 'SELECT,INSERT,UPDATE,DELETE')"
        assert trail.value(rights, role, relation) is False, relation


def test_a_member_of_the_owning_roles_is_put_out(new_server: t.Callable[..., LocalPostgresql]):
    """On a server of its own, where no other test's run does it first."""
    with trail_database(new_server()) as database:
        role = database.create_role("stranger")
        database.execute(f"GRANT audit_owner, audit_writer, audit_reader TO {role}")
        reasons = trail_module(database, diff_mode=True)["diff"]["after"]
        assert role in reasons
        query = "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = %s::regrole"
        assert database.execute(query, role) == [("audit_reader",)]
        assert not trail_module(database).changed


TRIGGER_DRIFT = {
    "disabled": "ALTER TABLE things DISABLE TRIGGER dbfleet_audit_update",
    "not always": "ALTER TABLE things ENABLE TRIGGER dbfleet_audit_update",
    "dropped": "DROP TRIGGER dbfleet_audit_update ON things",
    "renamed": "ALTER TRIGGER dbfleet_audit_update ON things RENAME TO harmless",
    "another function": "CREATE OR REPLACE TRIGGER dbfleet_audit_update AFTER UPDATE ON things FOR EACH ROW "
    "WHEN (NOT (OLD.* *= NEW.*)) EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "another condition": "CREATE OR REPLACE TRIGGER dbfleet_audit_insert AFTER INSERT ON things FOR EACH ROW "
    "WHEN (NEW.id > 1000) EXECUTE FUNCTION {function}('id')",
    "other arguments": "CREATE OR REPLACE TRIGGER dbfleet_audit_insert AFTER INSERT ON things FOR EACH ROW "
    "WHEN (NEW.id > 0) EXECUTE FUNCTION {function}('id', 'x', 'y', '{{}}', '{{}}')",
    "an event less": "CREATE OR REPLACE TRIGGER dbfleet_audit_update AFTER UPDATE OF name ON things FOR EACH ROW "
    "WHEN ((NEW.id > 0) AND NOT (OLD.* *= NEW.*)) EXECUTE FUNCTION {function}('id')",
    "the source": "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
    "AS 'BEGIN RETURN NULL; END'",
    "the function's owner": "ALTER FUNCTION {function}() OWNER TO postgres",
    "the function's executors": "GRANT EXECUTE ON FUNCTION {function}() TO PUBLIC",
    "never fires": "CREATE OR REPLACE TRIGGER dbfleet_audit_update AFTER UPDATE ON things FOR EACH ROW "
    "WHEN (false) EXECUTE FUNCTION {function}('id')",
}


@pytest.mark.parametrize("drift", TRIGGER_DRIFT)
def test_what_was_altered_in_the_capture_is_put_back(trail, drift):
    trail.execute("CREATE TABLE things (id int PRIMARY KEY, name text)")
    options = {"policies": [wanted("public.things", when="NEW.id > 0", operations=["insert", "update"])]}
    rollout(trail, **options)
    triggers = (
        "SELECT tgname, pg_get_triggerdef(oid), tgenabled, tgfoid FROM pg_trigger "
        "WHERE tgrelid = 'things'::regclass ORDER BY 1"
    )
    before = trail.execute(triggers)
    function = trail.value("SELECT tgfoid::regproc::text FROM pg_trigger WHERE tgrelid = 'things'::regclass LIMIT 1")
    trail.execute(TRIGGER_DRIFT[drift].format(function=function))
    repaired = rollout(trail, diff_mode=True, **options)
    assert repaired.changed
    assert repaired["diff"]["after"].startswith("-- ")
    assert trail.execute(triggers) == before
    assert not rollout(trail, **options).changed
    trail.execute("INSERT INTO things VALUES (1, 'a'); UPDATE things SET name = 'b'; UPDATE things SET id = 2")
    assert [record.action for record in records(trail)] == ["INSERT", "UPDATE", "UPDATE"]


def test_a_trigger_of_somebody_else_is_left_alone(trail):
    trail.execute("CREATE TABLE things (id int PRIMARY KEY)")
    trail.execute("CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    trail.execute("CREATE TRIGGER audit AFTER INSERT ON things FOR EACH ROW EXECUTE FUNCTION own()")
    rollout(trail, policies=[wanted("public.things")])
    rollout(trail, policies=[])
    assert trail.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = 'things'::regclass") == [("audit",)]


FOREIGN = {
    "schema": ("CREATE SCHEMA audit", ["'audit'", "not ours"]),
    "log": ("CREATE SCHEMA audit; CREATE TABLE audit.audit_log (id int)", ["'audit'", "audit_log", "not ours"]),
    "comment": ("CREATE SCHEMA audit; COMMENT ON SCHEMA audit IS 'our own dbfleet.audit 1'", ["'audit'", "not ours"]),
}


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
def test_what_is_not_ours_is_refused_by_name(db, foreign, check_mode):
    statement, words = FOREIGN[foreign]
    db.execute(statement)
    result = trail_module(db, may_fail=True, check_mode=check_mode)
    assert result.failed
    for word in words:
        assert word in result.msg
    assert db.value("SELECT count(*) FROM pg_proc WHERE pronamespace = 'audit'::regnamespace") == 0


def test_state_absent_leaves_alone_what_is_not_ours(db):
    db.execute("CREATE SCHEMA audit; CREATE TABLE audit.audit_log (id int)")
    assert not trail_module(db, state="absent", drop_log=True).changed
    assert db.value("SELECT to_regclass('audit.audit_log')") is not None


def test_a_foreign_role_is_refused_by_name(new_server: t.Callable[..., LocalPostgresql]):
    database = Database(new_server())
    database.execute("CREATE ROLE audit_owner LOGIN")
    result = trail_module(database, may_fail=True)
    assert result.failed
    assert "'audit_owner'" in result.msg
    assert "COMMENT ON ROLE" in result.msg
    assert database.value("SELECT to_regnamespace('audit')") is None
    database.execute("COMMENT ON ROLE audit_owner IS 'dbfleet.audit: adopted'")
    assert trail_module(database).changed
    assert database.value("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'audit_owner'") is False


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"readers": ["nobody_here"]}, ["'nobody_here'", "does not exist"]),
        ({"applications": ["nobody_here"]}, ["'nobody_here'", "does not exist"]),
        ({"readers": ["postgres"], "applications": ["postgres"]}, ["'postgres'", "both"]),
        ({"tablespace": "nowhere"}, ["'nowhere'", "does not exist"]),
        ({"context": {"user": "app user"}}, ["'user'", "'app.user'"]),
    ],
)
def test_options_that_the_server_does_not_bear_out_are_refused(db, options, words):
    result = trail_module(db, may_fail=True, **options)
    assert result.failed
    for word in words:
        assert word in result.msg
    assert db.value("SELECT to_regnamespace('audit')") is None
