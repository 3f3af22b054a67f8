# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Databases that have auditing of their own: recognised, reported, left alone, and their rows imported as history."""

from __future__ import annotations

import threading
import time
import typing as t

import pytest
import running
from auditing import install_trail, rollout, wanted
from databases import Database
from fleet import HOST, audited, inventory, play
from local_postgresql import LocalPostgresql
from sealing import Sealer

# As guides publish it.
HOME_MADE = """
CREATE TABLE patient (id int PRIMARY KEY, name text, ssn text, password_hash text);
CREATE TABLE "Ward" (ward int, bed int, note text, PRIMARY KEY (ward, bed));
CREATE TABLE audit_log (
  id bigserial PRIMARY KEY, table_name text NOT NULL, action text NOT NULL, old_data jsonb, new_data jsonb,
  performed_by text NOT NULL DEFAULT current_user, performed_at timestamptz NOT NULL DEFAULT now(), client_ip inet);
CREATE FUNCTION audit_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- INSERT INTO nowhere
  INSERT INTO audit_log (table_name, action, old_data, new_data)
  VALUES (TG_TABLE_NAME, TG_OP, CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END,
          CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
  RETURN NULL;
END $$;
CREATE TRIGGER a_patient AFTER INSERT OR UPDATE OR DELETE ON patient FOR EACH ROW EXECUTE FUNCTION audit_changes();
CREATE TRIGGER z_ward AFTER INSERT OR UPDATE OR DELETE ON "Ward" FOR EACH ROW EXECUTE FUNCTION audit_changes();
-- It writes to a table, and audits nothing.
CREATE TABLE beds (ward int PRIMARY KEY, free int);
CREATE FUNCTION count_beds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO beds VALUES (NEW.ward, 1) ON CONFLICT (ward) DO UPDATE SET free = beds.free + 1; RETURN NULL; END $$;
CREATE TRIGGER beds AFTER INSERT ON "Ward" FOR EACH ROW EXECUTE FUNCTION count_beds();
-- 2024, when nobody had heard of dbfleet.audit.
INSERT INTO audit_log (table_name, action, old_data, new_data, performed_by, performed_at, client_ip)
SELECT 'patient', 'UPDATE',
       jsonb_build_object('id', i, 'name', 'old', 'ssn', 's' || i, 'password_hash', 'p', 'pin', '1'),
       jsonb_build_object('id', i, 'name', 'new', 'ssn', 's' || i, 'password_hash', 'q', 'pin', '1'),
       'dr_' || i % 3, '2024-03-31 12:00+00'::timestamptz + i * interval '1 minute', '10.0.0.7'
FROM generate_series(1, 12000) AS i;
INSERT INTO "Ward" VALUES (1, 2, 'north');
"""
LOG = {"kind": "home_made", "log": "public.audit_log", "tables": ["public.Ward", "public.patient"], "triggers": 2}

POLICY = wanted("public.*", columns={"hash": ["ssn"], "exclude": ["pin"]})


def adopt(db: Database, how: str, **options: t.Any) -> running.ModuleResult:
    """Run the trail's module."""
    return running.run_module("postgresql_audit_trail", **{**db.login, "adopt": how, **options})


def bring_under(db: Database, **options: t.Any) -> running.ModuleResult:
    """Install trail and triggers."""
    schema = {"schema": options["schema"]} if "schema" in options else {}
    install_trail(db, adopt="beside", **schema)
    return rollout(db, policies=[POLICY], allow_missing=True, **schema)


@pytest.fixture(scope="module")
def template(pg: LocalPostgresql) -> t.Iterator[str]:
    """Return the name of a database with a home-made log."""
    database = Database(pg)
    database.execute(HOME_MADE)
    database.execute("ANALYZE")
    database._own.close()
    yield database.name
    database.drop()


@pytest.fixture
def clinic(pg: LocalPostgresql, template: str) -> t.Iterator[Database]:
    """Return a database with a home-made log of 25,001 rows."""
    database = Database(pg, template=template)
    yield database
    database.drop()


def catalogue(db: Database) -> list[t.Any]:
    """Return what the home-made auditing consists of."""
    return db.execute(
        "SELECT oid::text, xmin::text, tgname FROM pg_trigger WHERE tgname IN ('a_patient', 'z_ward') "
        "UNION SELECT oid::text, xmin::text, proname FROM pg_proc WHERE proname = 'audit_changes' "
        "UNION SELECT oid::text, relacl::text, relname FROM pg_class WHERE relname = 'audit_log' "
        "AND relnamespace = 'public'::regnamespace UNION SELECT count(*)::text, md5(sum(id)::text), 'rows' "
        "FROM public.audit_log ORDER BY 3"
    )


def test_a_home_made_log_is_named_and_left_alone(clinic: Database) -> None:
    before = catalogue(clinic)
    installed = adopt(clinic, "report")
    (found,) = installed["foreign_auditing"]
    assert {key: found[key] for key in LOG} == LOG
    assert (found["rows"], found["importable"]) == (12001, True)
    (note,) = map(str, installed["warnings"])
    assert "public.audit_log" in note
    assert "adopt: import" in note
    assert "warnings" not in adopt(clinic, "beside")
    result = rollout(clinic, policies=[POLICY], allow_missing=True)
    assert [entry["table"] for entry in result["skipped_tables"]] == ["public.audit_log"]
    assert (result["audited"], result["auditable"]) == (3, 3)
    assert catalogue(clinic) == before
    info = running.run_module("postgresql_audit_info", **clinic.login, databases=[clinic.name], gather=["coverage"])
    (trail,) = info["trails"]
    assert trail["foreign_auditing"] == installed["foreign_auditing"]
    assert [table["table"] for table in trail["coverage"]["tables"]] == ["public.Ward", "public.beds", "public.patient"]
    clinic.execute("INSERT INTO patient VALUES (7, 'ann', 's7', 'p')")
    assert clinic.value("SELECT count(*) FROM public.audit_log") == 12002
    assert clinic.execute("SELECT table_name FROM audit.audit_log WHERE action <> 'DDL'") == [("patient",)]
    exact = rollout(clinic, policies=[wanted("public.audit_log")])
    assert (exact["audited"], exact["skipped_tables"]) == (1, [])
    # Nobody's triggers take a table out of auditing.
    assert rollout(clinic, policies=[POLICY], allow_missing=True)["audited"] == 4


class History(t.NamedTuple):
    """A database whose home-made log was imported by a run that was cut off and one that went on."""

    db: Database
    sealer: Sealer
    cut_off: running.ModuleResult
    #: Rows, and rows with an origin of their own, that each of the two had imported.
    imported: list[tuple[int, int]]


IMPORTED = "SELECT count(*), count(DISTINCT context ->> 'imported_id') FROM audit.audit_log WHERE policy_id = 2"


@pytest.fixture(scope="module")
def history(pg: LocalPostgresql, template: str, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[History]:
    """Return such a database, which was sealed before and between."""
    db = Database(pg, template=template)
    refused = adopt(db, "import", may_fail=True)
    bring_under(db)
    sealer = Sealer(db.login, tmp_path_factory.mktemp("seals"), policies=[POLICY], allow_missing=True)
    db.execute("INSERT INTO patient VALUES (7, 'ann', 's7', 'p')")
    sealer.seal()
    before = catalogue(db)
    cut_off = _cut_off(db)
    imported = db.execute(IMPORTED)
    predicted = adopt(db, "import", check_mode=True)["statements"]
    assert adopt(db, "import")["statements"] == predicted
    assert catalogue(db) == before
    assert "policies first" in refused.msg
    yield History(db, sealer, cut_off, imported + db.execute(IMPORTED))
    db.drop()


def _cut_off(db: Database) -> running.ModuleResult:
    """Have the session of an import ended in the middle of its second batch; return what its module says."""
    db.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.context ->> 'imported_id' = '11000' THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER wait BEFORE INSERT ON audit.audit_log_data FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    results: list[running.ModuleResult] = []
    run = threading.Thread(target=lambda: results.append(adopt(db, "import", may_fail=True)))
    run.start()
    asleep = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event = 'PgSleep'"
    )
    while run.is_alive() and not db.value(asleep):
        time.sleep(0.05)
    run.join()
    db.execute("DROP FUNCTION wait() CASCADE")
    return results[0]


def test_a_run_that_is_cut_off_is_carried_on(history: History) -> None:
    assert "connection was lost" in history.cut_off.msg
    assert history.imported == [(10000, 10000), (12002, 12002)]


def test_rows_are_imported_once_and_sealed(history: History) -> None:
    db = history.db
    assert not adopt(db, "import").changed
    db.execute("UPDATE patient SET name = 'eve'")
    assert adopt(db, "import").changed
    assert db.execute(IMPORTED) == [(12003, 12003)]
    history.sealer.seal()
    assert history.sealer.problems() == []
    # In months of its own, which are archived as any other.
    assert db.value("SELECT count(*) FROM audit.audit_log_past") == 0
    assert db.value("SELECT count(*) FROM audit.audit_log_2024_03") == 719


def test_imported_rows_are_found_and_masked(history: History) -> None:
    db = history.db
    answer = running.run_module(
        "postgresql_audit_events", **db.login, table="public.patient", record_id="17", since="2024-01-01"
    )
    (event,) = answer["events"]
    assert (event["action"], event["changed_by"], event["client_ip"]) == ("UPDATE", "dr_2", "10.0.0.7")
    assert event["changed_at"].startswith("2024-03-31T12:17:00")
    assert event["context"] == {"imported_from": "public.audit_log", "imported_id": "17"}
    assert event["changed_columns"] == ["name", "password_hash"]
    assert event["old_values"]["password_hash"] == "[REDACTED]"
    assert set(event["old_values"]) == {"id", "name", "ssn", "password_hash"}
    # The same digest as that of a change of today.
    db.execute("INSERT INTO patient VALUES (17, 'eve', 's17', 'p')")
    digest = "SELECT new_values ->> 'ssn' FROM audit.audit_log WHERE record_id = '17' AND action = 'INSERT'"
    assert event["old_values"]["ssn"] == db.value(digest)
    assert db.value("SELECT count(*) FROM audit.audit_log AS d WHERE d::text ~ '\"(s[0-9]+|p|q)\"'") == 0
    ward = "SELECT record_id, new_values FROM audit.audit_log WHERE table_name = 'Ward' AND context ? 'imported_id'"
    assert db.execute(f"{ward} ORDER BY id")[0] == ("[1, 2]", {"ward": 1, "bed": 2, "note": "north"})


def test_no_application_can_make_a_record_look_imported(history: History) -> None:
    db = history.db
    origin = "SELECT name, valid_to = valid_from FROM audit.policy WHERE policy_id = 2"
    assert db.execute(origin) == [("imported from public.audit_log", True)]
    session = db.connect()
    with session.cursor() as cursor:
        cursor.execute("""SELECT set_config('app.audit_context', '{"imported_from": "x"}', false)""")
        cursor.execute("INSERT INTO patient VALUES (18, 'x', 'x', 'x')")
    assert db.value("SELECT policy_id FROM audit.audit_log WHERE context ->> 'imported_from' = 'x'") == 1


def test_rows_that_no_guide_thinks_of_are_imported_too(db: Database) -> None:
    db.execute(HOME_MADE.split("-- 2024", maxsplit=1)[0])
    db.execute(
        "ALTER TABLE audit_log ALTER table_name DROP NOT NULL, ALTER action DROP NOT NULL, "
        "ALTER performed_by DROP NOT NULL, ALTER performed_at DROP NOT NULL;"
        "INSERT INTO audit_log (table_name, action, old_data, new_data, performed_by, performed_at) VALUES "
        "(NULL, NULL, NULL, NULL, NULL, NULL), (NULL, 'LOGIN', NULL, NULL, 'ann', '-infinity'),"
        """('Patient', 'UPDATE', NULL, '{"SSN": "s8", "name": "eve"}', 'ann', 'infinity'),"""
        """('patient', 'UPDATE', '[1]', '{"Ssn": "s9"}', 'ann', '9999-12-31'),"""
        "('gone.' || repeat('x', 300), 'DELETE', 'null', NULL, 'ann', '0044-03-15 BC')"
    )
    install_trail(db, adopt="beside")
    rollout(db, policies=[wanted("public.patient", columns={"hash": ["ssn"]})])
    adopt(db, "import")
    assert db.execute(IMPORTED) == [(5, 5)]
    assert db.value("""SELECT count(*) FROM audit.audit_log AS d WHERE d::text ~ '"s[89]"'""") == 0


def test_a_policy_in_force_is_no_origin_whatever_somebody_adds_to_it(history: History) -> None:
    db = history.db
    db.execute("""UPDATE audit.policy SET definition = definition || '{"imported": {}}' WHERE policy_id = 1""")
    ((row,),) = db.execute(
        "INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, changed_by, db_user, policy_id) "
        "VALUES (now() - interval '2 days', pg_current_xact_id(), 'INSERT', 'x', 'x', 1) RETURNING id"
    )
    history.sealer.seal()
    assert [problem[2] for problem in history.sealer.problems() if problem[0] == "backdated_row"] == [row]


# The columns of 2ndQuadrant's audit trigger and of supa_audit, and code that writes them as theirs does.
TOOLS = """
CREATE EXTENSION hstore;
CREATE EXTENSION table_log;
CREATE SCHEMA audit;
CREATE TABLE audit.logged_actions (
  event_id bigserial PRIMARY KEY, schema_name text, table_name text, relid oid, session_user_name text,
  action_tstamp_tx timestamptz, action_tstamp_stm timestamptz, action_tstamp_clk timestamptz, transaction_id bigint,
  application_name text, client_addr inet, client_port int, client_query text, action text, row_data hstore,
  changed_fields hstore, statement_only boolean);
CREATE FUNCTION audit.if_modified_func() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  audit_row audit.logged_actions;
BEGIN
  audit_row = ROW(nextval('audit.logged_actions_event_id_seq'), TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_RELID, session_user,
    now(), now(), clock_timestamp(), 1, 'psql', NULL, NULL, NULL, left(TG_OP, 1), NULL, NULL, false);
  IF TG_OP = 'UPDATE' THEN
    audit_row.row_data = public.hstore(OLD.*);
    audit_row.changed_fields = public.hstore(NEW.*) OPERATOR(public.-) audit_row.row_data;
  ELSIF TG_OP = 'INSERT' THEN audit_row.row_data = public.hstore(NEW.*);
  ELSE audit_row.row_data = public.hstore(OLD.*);
  END IF;
  INSERT INTO audit.logged_actions VALUES (audit_row.*);
  RETURN NULL;
END $$;
CREATE TYPE audit.operation AS ENUM ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE');
CREATE TABLE audit.record_version (
  id bigserial PRIMARY KEY, record_id uuid, old_record_id uuid, op audit.operation NOT NULL,
  ts timestamptz NOT NULL DEFAULT now(), table_oid oid, table_schema name, table_name name, record jsonb,
  old_record jsonb);
CREATE FUNCTION audit.insert_update_delete_trigger() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  INSERT INTO audit.record_version (record_id, op, table_oid, table_schema, table_name, record, old_record)
  SELECT gen_random_uuid(), TG_OP::audit.operation, TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME,
         CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END, CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
  RETURN coalesce(NEW, OLD);
END $$;
CREATE TABLE account (id int PRIMARY KEY, owner text, token text);
CREATE TABLE card (id int PRIMARY KEY, owner text);
CREATE TABLE item (id int PRIMARY KEY, name text);
CREATE TABLE emp (name text PRIMARY KEY, salary int);
CREATE TABLE emp_audit (operation char(1), stamp timestamp, userid text, name text, salary int);
CREATE FUNCTION process_emp_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO emp_audit SELECT 'I', now(), current_user, NEW.*; RETURN NULL; END $$;
CREATE TRIGGER emp_audit AFTER INSERT ON emp FOR EACH ROW EXECUTE FUNCTION process_emp_audit();
CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON account
  FOR EACH ROW EXECUTE FUNCTION audit.if_modified_func('true');
CREATE TRIGGER audit_i_u_d AFTER INSERT OR UPDATE OR DELETE ON card
  FOR EACH ROW EXECUTE FUNCTION audit.insert_update_delete_trigger();
SELECT table_log_init(5, 'public', 'item', 'public', 'item_log');
INSERT INTO account VALUES (1, 'ann', 'secret'); UPDATE account SET owner = 'eve'; DELETE FROM account;
INSERT INTO card VALUES (5, 'ann'); UPDATE card SET owner = 'eve';
INSERT INTO item VALUES (1, 'pen'); INSERT INTO emp VALUES ('ann', 1);
"""


def test_the_logs_of_tools_are_known_and_imported_beside(db: Database) -> None:
    if not db.execute("SELECT name FROM pg_available_extensions WHERE name = 'table_log'"):
        pytest.skip("this PostgreSQL has no table_log (Debian: package postgresql-NN-tablelog)")
    db.execute(TOOLS)
    info = running.run_module("postgresql_audit_info", **db.login, databases=[db.name], gather=["coverage"])
    refused = adopt(db, "import", may_fail=True).msg
    for line in ("postgresql_audit_schema: dbfleet_audit", "postgresql_audit_adopt: import"):
        assert line in refused
    # A log in columns may be what an application lives on.
    skipped = bring_under(db, schema="trail")["skipped_tables"]
    assert [entry["table"] for entry in skipped] == ["public.item_log"]
    assert len(info["trails"][0]["foreign_auditing"]) == 4
    done = adopt(db, "import", schema="trail")
    kinds = {entry["log"]: (entry["kind"], entry["tables"], entry["importable"]) for entry in done["foreign_auditing"]}
    assert kinds == {
        "audit.logged_actions": ("2ndquadrant", ["public.account"], True),
        "audit.record_version": ("supa_audit", ["public.card"], True),
        "public.emp_audit": ("home_made", ["public.emp"], False),
        "public.item_log": ("table_log", ["public.item"], False),
    }
    rows = db.execute(
        "SELECT table_name, action, record_id, old_values, new_values, changed_by FROM trail.audit_log "
        "WHERE context ? 'imported_id' ORDER BY id"
    )
    ann, eve = {"id": "1", "owner": "ann", "token": "[REDACTED]"}, {"id": "1", "owner": "eve", "token": "[REDACTED]"}
    assert rows[:3] == [
        ("account", "INSERT", "1", None, ann, "postgres"),
        ("account", "UPDATE", "1", ann, eve, "postgres"),
        ("account", "DELETE", "1", eve, None, "postgres"),
    ]
    assert [row[:4] for row in rows[3:]] == [
        ("card", "INSERT", "5", None),
        ("card", "UPDATE", "5", {"id": 5, "owner": "ann"}),
    ]


def test_settings_of_pgaudit_are_told_with_their_place(db_pgaudit: Database) -> None:
    name = db_pgaudit.name
    role = db_pgaudit.create_role()
    db_pgaudit.execute(f"ALTER DATABASE {name} SET pgaudit.log = 'ddl'; ALTER ROLE {role} SET pgaudit.log = 'read'")
    settings = running.run_module("postgresql_audit_info", **db_pgaudit.login)["pgaudit"]["settings"]
    ours = [entry for entry in settings if name in entry["place"] or role in entry["place"]]
    assert sorted(ours, key=lambda entry: entry["value"]) == [
        {"name": "pgaudit.log", "value": "ddl", "place": f"database {name}"},
        {"name": "pgaudit.log", "value": "read", "place": f"role {role}"},
    ]


@pytest.mark.thorough
def test_the_role_imports_after_the_policies(clinic: Database) -> None:
    clinic.execute("DELETE FROM audit_log WHERE id > 3")
    hosts = inventory(clinic.server, [audited(clinic, POLICY)], adopt="import", allow_missing=True)
    first, second = play("site", hosts), play("site", hosts)
    assert clinic.value("SELECT count(*) FROM audit.audit_log WHERE context ? 'imported_from'") == 3
    # Trail, partitions, triggers, history.
    assert (first.stats(HOST)["changed"], second.stats(HOST)["changed"]) == (4, 0)
    assert "is not ours" not in first.stdout


def test_the_role_imports_nothing_where_the_policies_have_failed(clinic: Database) -> None:
    clinic.execute("DELETE FROM audit_log WHERE id > 3")
    install_trail(clinic, adopt="beside")
    rollout(clinic, policies=[wanted("public.patient")])
    # What is to be masked from now on is in force nowhere yet.
    unknown = {**wanted("public.patient", columns={"redact": ["ssn", "no_such_column"]}), "name": "public.patient"}
    failed = play("site", inventory(clinic.server, [audited(clinic, unknown)], adopt="import"), check=False)
    assert "no_such_column" in failed.stdout
    assert clinic.execute("SELECT new_values FROM audit.audit_log WHERE context ? 'imported_from'") == []
