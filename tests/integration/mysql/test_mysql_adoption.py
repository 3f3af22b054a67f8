# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Servers that have auditing of their own: recognised, reported, left alone, and their rows imported as history."""

from __future__ import annotations

import pathlib
import typing as t

import running
from mysql_auditing import install_trail, records, rollout
from mysql_databases import Schema
from sealing import Sealer

# As guides publish it: one log, three triggers a table.
TABLES = """
CREATE TABLE patient (id INT PRIMARY KEY, name VARCHAR(50), ssn VARCHAR(20), password_hash VARCHAR(50));
CREATE TABLE audit_log (
  id BIGINT AUTO_INCREMENT PRIMARY KEY, table_name VARCHAR(64) NOT NULL, action VARCHAR(10) NOT NULL,
  record_id VARCHAR(64), old_values JSON, new_values JSON, changed_by VARCHAR(100),
  changed_at DATETIME DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE visits (patient INT PRIMARY KEY, number INT);
CREATE TRIGGER count_visits AFTER UPDATE ON patient FOR EACH ROW
  INSERT INTO visits VALUES (NEW.id, 1) ON DUPLICATE KEY UPDATE number = number + 1
"""
IMAGE = "JSON_OBJECT('id', {0}.id, 'name', {0}.name, 'ssn', {0}.ssn, 'password_hash', {0}.password_hash, 'pin', 1)"
TRIGGER = """
CREATE TRIGGER patient_{event}_audit AFTER {event} ON patient FOR EACH ROW
BEGIN
  INSERT INTO audit_log (table_name, action, record_id, old_values, new_values, changed_by)
  VALUES ('patient', '{event}', {row}.id, {old}, {new}, CURRENT_USER());
END
"""
OLD_ROWS = """
INSERT INTO audit_log (table_name, action, record_id, old_values, new_values, changed_by, changed_at)
SELECT 'patient', 'UPDATE', n.i, JSON_OBJECT('id', n.i, 'name', 'old', 'ssn', CONCAT('s', n.i), 'password_hash', 'p'),
       JSON_OBJECT('id', n.i, 'name', 'new', 'ssn', CONCAT('s', n.i), 'password_hash', 'q'), 'dr@ward',
       TIMESTAMP'2024-03-31 12:00:00' + INTERVAL n.i MINUTE
FROM (WITH RECURSIVE c AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM c WHERE i < 900) SELECT i FROM c) AS n
"""


def make_home_made(schema: Schema) -> None:
    """Give a database auditing of its own, and 900 rows of 2024 in its log."""
    for statement in TABLES.split(";\n"):
        schema.execute(statement)
    for event, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
        old, new = (
            "NULL" if event == out else IMAGE.format(one) for one, out in (("OLD", "INSERT"), ("NEW", "DELETE"))
        )
        schema.execute(TRIGGER.format(event=event, row=row, old=old, new=new))
    schema.execute(OLD_ROWS)


def adopt(database: Schema, /, how: str, **options: t.Any) -> running.ModuleResult:
    """Run the trail's module."""
    return running.run_module("mysql_audit_trail", **{**database.login, "adopt": how, **options})


def home_made(schema: Schema) -> list[t.Any]:
    """Return what the home-made auditing consists of."""
    triggers = (
        "SELECT trigger_name, created, action_statement FROM information_schema.triggers WHERE trigger_schema = %s "
        "AND trigger_name NOT LIKE 'dbfleet%%' ORDER BY 1"
    )
    return [*schema.execute(triggers, schema.name), *schema.execute("CHECKSUM TABLE audit_log")]


def test_a_home_made_log_is_left_alone_and_its_rows_become_history(schema: Schema, tmp_path: pathlib.Path) -> None:
    make_home_made(schema)
    before = home_made(schema)
    log = f"{schema.name}.audit_log"
    (found,) = adopt(schema, "report")["foreign_auditing"]
    assert (found["kind"], found["log"], found["tables"]) == ("home_made", log, [f"{schema.name}.patient"])
    assert (found["triggers"], found["importable"]) == (3, True)
    assert log in str(adopt(schema, "report")["warnings"])
    assert "policies first" in adopt(schema, "import", may_fail=True).msg
    install_trail(schema, adopt="beside")
    policy = {"tables": [f"{schema.name}.*"], "columns": {"hash": ["ssn"], "exclude": ["pin"]}}
    result = rollout(schema, policy, allow_missing=True)
    assert [entry["table"] for entry in result["skipped_tables"]] == [log]
    assert (result["audited"], result["auditable"]) == (2, 2)
    sealer = Sealer(schema.login, tmp_path, engine="mysql", policies=[policy], allow_missing=True)
    schema.execute("INSERT INTO patient VALUES (17, 'ann', 's17', 'p')")
    assert schema.value("SELECT COUNT(*) FROM audit_log") == 901
    assert [record.action for record in records(schema, "patient")] == ["INSERT"]
    sealer.seal()
    before = home_made(schema)
    predicted = adopt(schema, "import", check_mode=True)
    assert adopt(schema, "import")["statements"] == predicted["statements"]
    assert home_made(schema) == before
    assert not adopt(schema, "import").changed
    schema.execute("UPDATE patient SET name = 'eve'")
    assert adopt(schema, "import").changed

    captured, *imported = [one for one in records(schema, "patient") if one.record_id == "17"]
    assert len(imported) == 4
    old = next(one for one in imported if one.context and one.context["imported_id"] == "17")
    assert old.context == {"imported_from": log, "imported_id": "17"}
    assert (old.action, old.changed_by, str(old.changed_at)) == ("UPDATE", "dr@ward", "2024-03-31 12:17:00")
    assert sorted(old.changed_columns or ()) == ["name", "password_hash"]
    assert old.new_values == {
        "id": 17,
        "name": "new",
        "ssn": captured.new_values["ssn"],
        "password_hash": "[REDACTED]",
    }
    (name,) = schema.execute("SELECT name FROM audit.policy WHERE policy_id = %s", old.policy_id)[0]
    assert (name, old.policy_id != captured.policy_id) == (f"imported from {log}", True)
    secret = "SELECT COUNT(*) FROM audit.audit_log WHERE schema_name = %s AND CONCAT_WS('', old_values, new_values) "
    assert schema.value(f"{secret} REGEXP '\"(s[0-9]+|p|q)\"|pin'", schema.name) == 0
    assert (
        schema.value("SELECT COUNT(DISTINCT context) FROM audit.audit_log WHERE policy_id = %s", old.policy_id) == 902
    )
    assert schema.value("SELECT COUNT(*) FROM audit.audit_log_data PARTITION (p2024_03)") == 719
    sealer.seal()
    assert sealer.problems() == []
    running.run_module("mysql_audit_events", **schema.login, table=f"{schema.name}.patient", record_id="3")


def test_a_log_that_nobody_can_import_is_told_with_its_reason(schema: Schema) -> None:
    schema.execute("CREATE TABLE employee (id INT PRIMARY KEY, name VARCHAR(50))")
    schema.execute(
        "CREATE TABLE employee_audit (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50), changedat DATETIME, "
        "action VARCHAR(50))"
    )
    schema.execute(
        "CREATE TRIGGER before_employee_update BEFORE UPDATE ON employee FOR EACH ROW "
        "INSERT INTO employee_audit SET action = 'update', name = OLD.name, changedat = NOW()"
    )
    (found,) = adopt(schema, "beside")["foreign_auditing"]
    assert (found["log"], found["importable"]) == (f"{schema.name}.employee_audit", False)
    assert "old_values or new_values" in found["obstacle"]
    assert found["obstacle"] in str(adopt(schema, "import")["warnings"])
    # It may be what an application lives on.
    assert rollout(schema, {"tables": [f"{schema.name}.*"]})["audited"] == 2


def test_a_database_of_somebody_elses_is_refused_with_the_way_out(schema: Schema) -> None:
    schema.execute("CREATE TABLE audit_log (id INT)")
    message = adopt(schema, "report", schema=schema.name, may_fail=True).msg
    assert "`mysql_audit_schema: dbfleet_audit` and `mysql_audit_adopt: beside`" in message


def test_rows_that_no_guide_thinks_of_are_imported_too(schema: Schema) -> None:
    make_home_made(schema)
    schema.execute("ALTER TABLE audit_log MODIFY table_name VARCHAR(255) NULL, MODIFY action VARCHAR(10) NULL")
    schema.execute("SET SESSION sql_mode = ''")
    rows = (
        "(NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
        "(NULL, 'LOGIN', NULL, NULL, NULL, 'ann', '0000-00-00')",
        "('Patient', 'UPDATE', '8', NULL, JSON_OBJECT('SSN', 's8', 'name', 'eve'), 'ann', '9999-12-31')",
        "('patient', 'UPDATE', '9', '[1]', JSON_OBJECT('Ssn', 's9'), 'ann', '2024-01-01')",
        "(CONCAT(REPEAT('x', 80), '.y'), 'DELETE', REPEAT('r', 64), 'null', NULL, 'ann', '1000-01-01')",
    )
    schema.execute(
        "INSERT INTO audit_log (table_name, action, record_id, old_values, new_values, changed_by, changed_at) VALUES "
        + ", ".join(rows)
    )
    install_trail(schema, adopt="beside")
    policy = {"tables": [f"{schema.name}.patient"], "columns": {"hash": ["ssn"]}}
    rollout(schema, policy)
    adopt(schema, "import")
    imported = "SELECT COUNT(*) FROM audit.audit_log WHERE JSON_VALUE(context, '$.imported_from') = %s"
    assert schema.value(imported, f"{schema.name}.audit_log") == 905
    assert schema.value("SELECT COUNT(*) FROM audit.audit_log WHERE CONCAT(new_values) REGEXP '\"s[89]\"'") == 0
