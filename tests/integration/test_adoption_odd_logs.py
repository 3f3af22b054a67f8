# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Home-made logs that an import must not lose rows of, nor bring in twice or in clear."""

from __future__ import annotations

import typing as t

import running
from auditing import install_trail, rollout, wanted
from databases import Database
from local_postgresql import LocalPostgresql

TABLES = """
CREATE TABLE patient (id int PRIMARY KEY, name text, ssn text);
CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN {insert}; RETURN NULL; END $$;
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON patient FOR EACH ROW EXECUTE FUNCTION record();
"""
IMAGES = "CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END, CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END"
POLICY = wanted("public.patient", columns={"hash": ["ssn"]})
IMPORTED = "FROM audit.audit_log WHERE context ? 'imported_id'"


def adopt(db: Database, how: str = "import", **options: t.Any) -> running.ModuleResult:
    """Run the trail's module."""
    return running.run_module("postgresql_audit_trail", **{**db.login, "adopt": how, **options})


def bring_under(db: Database, log: str, insert: str, *policies: dict[str, t.Any]) -> running.ModuleResult:
    """Make a table with a log of one's own, and audit it."""
    db.execute(log + TABLES.format(insert=insert))
    install_trail(db, adopt="beside")
    return rollout(db, policies=list(policies or (POLICY,)), allow_missing=True)


def test_rows_are_told_apart_by_their_own_number_not_by_the_patients(db: Database) -> None:
    bring_under(
        db,
        "CREATE TABLE patient_history (history_id bigserial PRIMARY KEY, id int, action char(10), old_data jsonb,"
        " new_data jsonb, changed_at timestamptz DEFAULT now());",
        "INSERT INTO patient_history (id, action, old_data, new_data) "
        f"VALUES (coalesce(NEW.id, OLD.id), TG_OP, {IMAGES})",
    )
    db.execute("INSERT INTO patient SELECT i, 'ann', 's' FROM generate_series(1, 3) AS i")
    adopt(db)
    db.execute("UPDATE patient SET name = 'eve' WHERE id = 1; DELETE FROM patient WHERE id = 3")
    adopt(db)
    # Of char(10), the blanks are no part of the word.
    assert db.execute(f"SELECT action, record_id {IMPORTED} ORDER BY id") == [
        *(("INSERT", str(key)) for key in (1, 2, 3)),
        ("UPDATE", "1"),
        ("DELETE", "3"),
    ]
    (log,) = adopt(db, adopt_columns={"public.patient_history": {"id": "id"}})["foreign_auditing"]
    assert "column id may be NULL" in log["obstacle"]
    db.execute("ALTER TABLE patient_history ADD number bigserial")
    other = adopt(db, adopt_columns={"public.patient_history": {"id": "number"}}, may_fail=True)
    assert "imported by the numbers in history_id; by those in number" in other.msg


def test_numbers_that_sessions_take_in_advance_are_no_order(db: Database) -> None:
    bring_under(
        db,
        "CREATE TABLE audit_log (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 20), action text, old_data jsonb,"
        " new_data jsonb, changed_at timestamptz DEFAULT now());",
        f"INSERT INTO audit_log (action, old_data, new_data) VALUES (TG_OP, {IMAGES})",
    )
    db.execute("INSERT INTO patient VALUES (1, 'ann', 's')")
    result = adopt(db)
    assert "audit_log_id_seq with another CACHE" in result["foreign_auditing"][0]["obstacle"]
    assert "is not imported" in str(result["warnings"])
    db.execute("ALTER TABLE audit_log ALTER id SET CACHE 1")
    adopt(db)
    assert db.value(f"SELECT count(*) {IMPORTED}") == 1


def test_rows_that_the_login_may_not_see_stop_the_import(new_server: t.Callable[..., LocalPostgresql]) -> None:
    # A server of its own, for members of audit_owner are those of all databases.
    db = Database(new_server())
    bring_under(
        db,
        "CREATE TABLE audit_log (id bigserial PRIMARY KEY, action text, old_data jsonb, new_data jsonb,"
        " changed_at timestamptz DEFAULT now());",
        f"INSERT INTO audit_log (action, old_data, new_data) VALUES (TG_OP, {IMAGES})",
    )
    db.execute("INSERT INTO patient VALUES (1, 'ann', 's'), (2, 'eve', 's')")
    db.execute(
        "CREATE ROLE dba LOGIN IN ROLE audit_owner, audit_writer; GRANT USAGE, CREATE ON SCHEMA audit TO dba;"
        "GRANT SELECT ON audit_log TO dba; ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY half ON audit_log USING (id = 2)"
    )
    refused = adopt(db, login_user="dba", may_fail=True)
    assert 'row-level security policy for table "audit_log"' in refused.msg
    adopt(db)
    assert db.value(f"SELECT count(*) {IMPORTED}") == 2


def test_a_key_that_is_a_secret_is_not_taken_from_the_logs_own_column(db: Database) -> None:
    bring_under(
        db,
        "CREATE TABLE card (card_number text PRIMARY KEY, owner text);"
        "CREATE TABLE audit_log (id bigserial PRIMARY KEY, table_name text, record_id text, action text,"
        " old_data jsonb, new_data jsonb, changed_at timestamptz DEFAULT now());",
        f"INSERT INTO audit_log (table_name, action, old_data, new_data) VALUES (TG_TABLE_NAME, TG_OP, {IMAGES})",
        wanted("public.card"),
    )
    db.execute(
        "INSERT INTO audit_log (table_name, record_id, action, new_data) VALUES"
        """ ('card', '4111111111111111', 'INSERT', '{"owner": "ann"}'),"""
        """ ('session', 'SECRET-TOKEN', 'INSERT', '{"token": "SECRET-TOKEN"}')"""
    )
    adopt(db)
    assert db.execute(f"SELECT record_id, new_values {IMPORTED} ORDER BY id") == [
        (None, {"owner": "ann"}),
        (None, {"token": "[REDACTED]"}),
    ]
    assert db.value("SELECT count(*) FROM audit.audit_log AS d WHERE d::text ~ '4111111|SECRET'") == 0


def test_a_log_of_what_rows_became_is_passed_by_as_well(db: Database) -> None:
    skipped = bring_under(
        db,
        "CREATE TABLE audit_log (id bigserial PRIMARY KEY, table_name text, action text, new_data jsonb,"
        " performed_at timestamptz DEFAULT now());",
        "INSERT INTO audit_log (table_name, action, new_data) VALUES (TG_TABLE_NAME, TG_OP, to_jsonb(NEW))",
        wanted("public.*", columns={"hash": ["ssn"]}),
    )["skipped_tables"]
    assert [entry["table"] for entry in skipped] == ["public.audit_log"]
    db.execute("INSERT INTO patient VALUES (1, 'ann', '123-45-6789')")
    adopt(db)
    assert db.value("SELECT count(*) FROM audit.audit_log WHERE action = 'INSERT'") == 2
    assert db.value("SELECT count(*) FROM audit.audit_log AS d WHERE d::text ~ '123-45'") == 0


def test_of_a_table_that_a_policy_excludes_no_value_is_imported(db: Database) -> None:
    bring_under(
        db,
        "CREATE TABLE psychiatric_note (id int PRIMARY KEY, note text);"
        "CREATE TABLE audit_log (id bigserial PRIMARY KEY, table_name text, record_id text, action text,"
        " old_data jsonb, new_data jsonb, changed_at timestamptz DEFAULT now());",
        f"INSERT INTO audit_log (table_name, action, old_data, new_data) VALUES (TG_TABLE_NAME, TG_OP, {IMAGES})",
        {**wanted("public.*"), "exclude": ["public.psychiatric_note"]},
    )
    db.execute(
        "CREATE TRIGGER record AFTER INSERT ON psychiatric_note FOR EACH ROW EXECUTE FUNCTION record();"
        "INSERT INTO psychiatric_note VALUES (1, 'schizophrenia'); INSERT INTO patient VALUES (1, 'ann', 's')"
    )
    steps = adopt(db, check_mode=True, diff_mode=True)
    assert "without any value of what policies exclude: public.psychiatric_note" in str(steps["diff"])
    adopt(db)
    assert db.execute(f"SELECT table_name, action, record_id, new_values {IMPORTED} ORDER BY id") == [
        ("psychiatric_note", "INSERT", None, {}),
        ("patient", "INSERT", "1", {"id": 1, "name": "ann", "ssn": "s"}),
    ]


def test_rows_of_a_log_in_parts_are_imported_once(db: Database) -> None:
    bring_under(
        db,
        "CREATE TABLE audit_log (id bigserial PRIMARY KEY, action text, old_data jsonb, new_data jsonb,"
        " changed_at timestamptz DEFAULT now()); CREATE TABLE audit_log_2026 () INHERITS (audit_log);"
        "CREATE FUNCTION redirect() RETURNS trigger LANGUAGE plpgsql AS $$"
        "BEGIN INSERT INTO audit_log_2026 VALUES (NEW.*); RETURN NULL; END $$;"
        "CREATE TRIGGER redirect BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION redirect();",
        f"INSERT INTO audit_log (action, old_data, new_data) VALUES (TG_OP, {IMAGES})",
    )
    db.execute("INSERT INTO patient VALUES (1, 'ann', 's'), (2, 'eve', 's')")
    (log,) = adopt(db)["foreign_auditing"]
    assert (log["log"], log["tables"], log["triggers"]) == ("public.audit_log", ["public.patient"], 1)
    assert db.value(f"SELECT count(*) {IMPORTED}") == 2
