# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The log only grows, nobody but readers sees it, and an owner of tables cannot get out of being audited."""

from __future__ import annotations

import contextlib
import typing as t

import psycopg2
import pytest
from auditing import install_trail, records, rollout, trail_database, wanted
from databases import Database, fetch
from local_postgresql import LocalPostgresql

REFUSED = psycopg2.errors.InsufficientPrivilege


class Shop(t.NamedTuple):
    """A database whose tables belong to a role that is no superuser, and are audited."""

    db: Database
    owner: str
    stranger: str


@pytest.fixture(scope="module")
def shop(pg: LocalPostgresql) -> t.Iterator[Shop]:
    """Return the database, with one record in its log."""
    with trail_database(pg) as database:
        owner, stranger = database.create_role("owner"), database.create_role("stranger")
        database.execute(
            f"GRANT CREATE ON SCHEMA public TO {owner}; GRANT CREATE ON DATABASE {database.name} TO {owner}"
        )
        for statement in (
            "CREATE TABLE things (id int PRIMARY KEY)",
            "CREATE TABLE doomed (id int PRIMARY KEY)",
            "CREATE TABLE cut (id int) PARTITION BY LIST (id)",
            "CREATE TABLE cut_1 PARTITION OF cut FOR VALUES IN (1)",
            "CREATE TYPE mood AS ENUM ('sad', 'glad')",
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "CREATE FUNCTION as_json(mood) RETURNS json LANGUAGE sql AS $$SELECT '1'::json$$",
        ):
            database.execute(statement, user=owner)
        install_trail(database, applications=[owner])
        rollout(database, policies=[wanted("public.*")])
        database.execute("INSERT INTO things VALUES (0)")
        yield Shop(database, owner, stranger)


def leaves(db: Database) -> list[str]:
    """Return the log's partitions."""
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit.audit_log_data'::regclass"
    return [name for (name,) in db.execute(query)]


ATTEMPTS = ["UPDATE {} SET changed_by = 'me'", "DELETE FROM {}", "DELETE FROM {} WHERE false", "TRUNCATE {}"]
SESSIONS = {
    "superuser": "",
    "replica": "SET session_replication_role = replica",
    "audit_owner": "SET ROLE audit_owner",
}


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_nothing_in_the_log_can_be_changed(shop, session, attempt):
    """Neither through the parent nor in any partition."""
    before = records(shop.db)
    connection = shop.db.connect()
    fetch(connection, SESSIONS[session] or "SELECT")
    partitions = leaves(shop.db)
    assert len(partitions) >= 3
    for table in ("audit.audit_log_data", *partitions):
        with pytest.raises(REFUSED, match="append-only"):
            fetch(connection, attempt.format(table))
    assert records(shop.db) == before


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit.audit_log SET changed_by = 'me'", "DELETE FROM audit.audit_log", "DELETE FROM audit.audit_logs"],
)
def test_nothing_in_the_log_can_be_changed_through_its_views(shop, session, statement):
    connection = shop.db.connect()
    fetch(connection, SESSIONS[session] or "SELECT")
    with pytest.raises(REFUSED, match="append-only"):
        fetch(connection, statement)


def test_the_writer_can_add_to_the_log_and_do_nothing_else(shop):
    connection = shop.db.connect()
    fetch(connection, "SET ROLE audit_writer")
    for statement in (*ATTEMPTS, "SELECT * FROM {}"):
        with pytest.raises(REFUSED, match="permission denied"):
            fetch(connection, statement.format("audit.audit_log_data"))
    rights = (
        "SELECT array_agg(DISTINCT privilege_type::text) FROM information_schema.role_table_grants "
        "WHERE grantee = 'audit_writer' AND table_schema = 'audit' AND table_name <> 'hash_key'"
    )
    assert shop.db.value(rights) == ["INSERT"]


def test_nobody_can_log_in_as_a_role_of_the_trail(shop):
    for role in ("audit_owner", "audit_writer", "audit_reader"):
        with pytest.raises(psycopg2.OperationalError, match="not permitted to log in"):
            shop.db.connect(user=role)


@pytest.mark.parametrize("role", ["owner", "stranger"])
def test_applications_and_strangers_have_no_right_on_anything_of_the_trail(shop, role):
    query = """
    SELECT c.relname FROM pg_class c, unnest(string_to_array(
      CASE c.relkind WHEN 'S' THEN 'USAGE,SELECT,UPDATE'
      ELSE 'SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER' END, ',')) AS p (privilege)
    WHERE c.relnamespace = 'audit'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
      AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(%(role)s, c.oid, privilege)
          ELSE has_table_privilege(%(role)s, c.oid, privilege) OR
               (privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') AND
                has_any_column_privilege(%(role)s, c.oid, privilege)) END"""
    with shop.db.connect().cursor() as cursor:
        cursor.execute(query, {"role": getattr(shop, role)})
        assert cursor.fetchall() == []


EVASIONS = {
    "drop": "DROP TRIGGER dbfleet_audit_insert ON things",
    "disable": "ALTER TABLE things DISABLE TRIGGER dbfleet_audit_insert",
    "disable all": "ALTER TABLE things DISABLE TRIGGER ALL",
    "disable user": "ALTER TABLE things DISABLE TRIGGER USER",
    "origin only": "ALTER TABLE things ENABLE TRIGGER dbfleet_audit_delete",
    "replica only": "ALTER TABLE things ENABLE REPLICA TRIGGER dbfleet_audit_delete",
    "rename": "ALTER TRIGGER dbfleet_audit_insert ON things RENAME TO harmless",
    "replace": "CREATE OR REPLACE TRIGGER dbfleet_audit_insert AFTER INSERT ON things "
    "FOR EACH ROW EXECUTE FUNCTION nothing()",
    "narrow": "CREATE OR REPLACE TRIGGER dbfleet_audit_truncate AFTER TRUNCATE ON things EXECUTE FUNCTION nothing()",
    "partition": "ALTER TABLE cut_1 DISABLE TRIGGER dbfleet_audit_tree_insert",
    "partitioned": "ALTER TABLE cut DISABLE TRIGGER ALL",
    "impostor": "CREATE TRIGGER dbfleet_audit_zzz AFTER INSERT ON doomed FOR EACH ROW EXECUTE FUNCTION nothing()",
    "cast to json": "CREATE CAST (mood AS json) WITH FUNCTION as_json(mood)",
    "cast by assignment": "CREATE CAST (mood AS json) WITH FUNCTION as_json(mood) AS ASSIGNMENT",
    "event trigger": "ALTER EVENT TRIGGER dbfleet_audit_guard_ddl DISABLE",
    "log": "DROP TABLE audit.audit_log_data CASCADE",
    "view": "DROP VIEW audit.audit_log",
    "schema": "DROP SCHEMA audit CASCADE",
    "function": "DROP FUNCTION audit.refuse_change() CASCADE",
    "log_event": "ALTER FUNCTION audit.log_event SET search_path = public",
    "own function": "CREATE FUNCTION audit.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "own trigger": "CREATE TRIGGER mine AFTER INSERT ON things FOR EACH ROW EXECUTE FUNCTION audit.refuse_change()",
    "insert": "INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, changed_by, db_user) "
    "VALUES (now(), '1', 'INSERT', 'me', 'me')",
    "role": "SET ROLE audit_owner",
    "grant": "GRANT audit_owner TO CURRENT_USER",
    "replica session": "SET session_replication_role = replica",
}


@pytest.mark.parametrize("evasion", EVASIONS)
def test_the_owner_of_a_table_cannot_get_out_of_being_audited(shop, evasion):
    log = "SELECT oid, tgrelid, tgname, tgenabled, tgfoid FROM pg_trigger WHERE tgname LIKE 'dbfleet%' ORDER BY oid"
    before = shop.db.execute(log)
    with pytest.raises(psycopg2.errors.Error) as caught:
        shop.db.execute(EVASIONS[evasion], user=shop.owner)
    assert caught.value.pgcode == "42501", caught.value
    assert shop.db.execute(log) == before


FORGERIES = {
    "trigger": "CREATE TRIGGER dbfleet_audit_insert AFTER INSERT ON own {}",
    "schema element": "CREATE SCHEMA AUTHORIZATION CURRENT_USER CREATE TABLE t (id int) "
    "CREATE TRIGGER dbfleet_audit_insert AFTER INSERT ON t {}",
    "replaced": "CREATE OR REPLACE TRIGGER dbfleet_audit_tree_insert AFTER INSERT ON cut {}",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_the_owner_of_a_partitioned_table_cannot_forge_records_of_others(shop, forgery):
    """Adding partitions takes EXECUTE on the capture function, whose arguments say which table is reported."""
    shop.db.execute("CREATE TABLE IF NOT EXISTS own (id int)", user=shop.owner)
    function = shop.db.value("SELECT tgfoid::regproc::text FROM pg_trigger WHERE tgrelid = 'cut'::regclass LIMIT 1")
    call = f"FOR EACH ROW EXECUTE FUNCTION {function}('id', 'public', 'salaries', '{{}}', '{{}}')"
    with contextlib.suppress(REFUSED):
        shop.db.execute(FORGERIES[forgery].format(call), user=shop.owner)
        # What attaches new tables to their policies may have put the trigger right instead of refusing it.
        shop.db.execute(f"INSERT INTO {'t' if 'SCHEMA' in FORGERIES[forgery] else 'own'} VALUES (1)", user=shop.owner)
    shop.db.execute("INSERT INTO cut VALUES (1)", user=shop.owner)
    assert records(shop.db, "salaries") == []


def test_what_owners_do_every_day_is_still_allowed(shop):
    for statement in (
        "ALTER TABLE things ADD COLUMN name text",
        "CREATE TRIGGER own AFTER INSERT ON things FOR EACH ROW EXECUTE FUNCTION nothing()",
        "ALTER TABLE things DISABLE TRIGGER own",
        "DROP TRIGGER own ON things",
        "CREATE CAST (mood AS text) WITH INOUT AS ASSIGNMENT",
        "ALTER TABLE things RENAME TO stuff",
        "ALTER TABLE stuff RENAME TO things",
        "CREATE TEMPORARY TABLE passing (id int); DROP TABLE passing",
        "CREATE SCHEMA s CREATE TABLE t (id int); DROP SCHEMA s CASCADE",
    ):
        shop.db.execute(statement, user=shop.owner)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE cut_2 PARTITION OF cut FOR VALUES IN (2)",
        "CREATE TABLE cut_3 (id int); ALTER TABLE cut ATTACH PARTITION cut_3 FOR VALUES IN (3)",
    ],
    ids=["create", "attach"],
)
def test_the_owner_of_a_partitioned_table_can_add_partitions(shop, statement):
    shop.db.execute(statement, user=shop.owner)
    part = statement.split()[2]
    shop.db.execute(f"INSERT INTO {part} VALUES (%s)", int(part[-1]), user=shop.owner)
    assert records(shop.db, "cut")[-1].new_values == {"id": int(part[-1])}


def test_dropping_a_whole_table_is_allowed_and_its_records_stay(shop):
    shop.db.execute("INSERT INTO doomed VALUES (1)", user=shop.owner)
    shop.db.execute("DROP TABLE doomed", user=shop.owner)
    assert [record.action for record in records(shop.db, "doomed")] == ["INSERT"]


def test_functions_that_run_with_other_rights_pin_their_path(shop):
    query = (
        "SELECT proname FROM pg_proc WHERE pronamespace = 'audit'::regnamespace AND prosecdef "
        "AND NOT proconfig @> ARRAY['search_path=pg_catalog, pg_temp']"
    )
    assert shop.db.execute(query) == []
    assert shop.db.value("SELECT count(*) FROM pg_proc WHERE pronamespace = 'audit'::regnamespace AND prosecdef") >= 2


def test_functions_with_a_backslash_pin_what_it_means(shop):
    """A session may have turned standard_conforming_strings off."""
    query = (
        "SELECT proname FROM pg_proc WHERE pronamespace = 'audit'::regnamespace AND strpos(prosrc, %s) > 0 "
        "AND proconfig @> ARRAY['standard_conforming_strings=on'] IS NOT TRUE"
    )
    assert shop.db.execute(query, "\\") == []
    assert len(shop.db.execute(query.replace("IS NOT TRUE", ""), "\\")) > 5


def test_functions_on_the_path_of_a_user_are_not_run_by_the_capture(shop):
    """Shadows of what capture calls, first on the session's path, and one in its temporary schema."""
    session = shop.db.connect(user=shop.owner)
    for statement in (
        "CREATE SCHEMA evil",
        "CREATE FUNCTION evil.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql AS $$SELECT '{\"forged\": 1}'::jsonb$$",
        "CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql "
        "AS $$SELECT '1999-01-01'::timestamptz$$",
        "CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql AS $$SELECT 'forged'::text$$",
        "CREATE TEMPORARY TABLE audit_log_data (id int)",
        "CREATE FUNCTION pg_temp.inet_client_addr() RETURNS inet LANGUAGE sql AS $$SELECT '6.6.6.6'::inet$$",
        "SET search_path = evil, pg_temp, pg_catalog, public",
        "INSERT INTO public.things (id) VALUES (77)",
    ):
        fetch(session, statement)
    record = records(shop.db, "things")[-1]
    assert (record.record_id, record.new_values["id"], record.client_ip) == ("77", 77, None)
    assert record.application_name != "forged"
    assert abs((record.changed_at - shop.db.value("SELECT now()")).total_seconds()) < 60


def test_a_cast_that_is_there_before_the_trail_is_refused_by_name(db, run_module):
    """It would run with the rights of the capture functions as soon as such a value is audited."""
    owner = db.create_role("owner")
    db.execute(f"GRANT CREATE ON SCHEMA public TO {owner}")
    for statement in (
        "CREATE TYPE mood AS ENUM ('sad')",
        "CREATE FUNCTION as_json(mood) RETURNS json LANGUAGE sql AS $$SELECT '1'::json$$",
        "CREATE CAST (mood AS json) WITH FUNCTION as_json(mood)",
    ):
        db.execute(statement, user=owner)
    result = run_module("postgresql_audit_trail", may_fail=True, **db.login)
    assert result.failed
    assert "as_json(public.mood)" in result.msg
    assert owner in result.msg
    assert db.value("SELECT to_regnamespace('audit')") is None


def test_a_superuser_may_do_what_others_may_not(trail):
    """Nothing prevents it; the next run puts it back."""
    trail.execute("CREATE TABLE things (id int)")
    rollout(trail, policies=[wanted("public.*")])
    trail.execute(
        "ALTER TABLE things DISABLE TRIGGER dbfleet_audit_insert; DROP TRIGGER dbfleet_audit_update ON things"
    )
    assert rollout(trail, policies=[wanted("public.*")])["changed_tables"] == ["public.things"]
