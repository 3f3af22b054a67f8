# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Home-made logs that an import must not lose rows of, nor bring in twice or in clear."""

from __future__ import annotations

import base64
import typing as t

import running
from local_mysql import LocalMysql
from mysql_auditing import install_trail, rollout
from mysql_databases import Schema

PATIENT = "CREATE TABLE patient (id INT PRIMARY KEY, name VARCHAR(50), ssn VARCHAR(20))"
IMAGE = "JSON_OBJECT('id', NEW.id, 'name', NEW.name, 'ssn', NEW.ssn)"
TRIGGER = "CREATE TRIGGER record_{table}_{event} AFTER {event} ON {table} FOR EACH ROW INSERT INTO {insert}"


def adopt(schema: Schema, **options: t.Any) -> running.ModuleResult:
    """Run the trail's module."""
    return running.run_module("mysql_audit_trail", **{**schema.login, "adopt": "import", **options})


def bring_under(schema: Schema, statements: t.Sequence[str], **policy: t.Any) -> running.ModuleResult:
    """Make tables with a log of one's own, and audit them."""
    for statement in statements:
        schema.execute(statement)
    install_trail(schema, adopt="beside")
    return rollout(schema, {"tables": [f"{schema.name}.*"], **policy}, allow_missing=True)


def imported(schema: Schema, columns: str) -> list[t.Any]:
    """Return columns of the rows that came from the log, oldest first."""
    return schema.execute(
        f"SELECT {columns} FROM audit.audit_log WHERE JSON_VALUE(context, '$.imported_from') LIKE %s ORDER BY id",
        f"{schema.name}.%",
    )


def test_rows_are_told_apart_by_their_own_number_not_by_the_patients(schema: Schema) -> None:
    insert = f"patient_history (id, action, new_data) VALUES (NEW.id, '{{event}}', {IMAGE})"
    bring_under(
        schema,
        [
            PATIENT,
            "CREATE TABLE patient_history (history_id BIGINT AUTO_INCREMENT PRIMARY KEY, id INT, action VARCHAR(10),"
            " new_data JSON, changed_at DATETIME DEFAULT CURRENT_TIMESTAMP)",
            *(
                TRIGGER.format(event=event, table="patient", insert=insert.format(event=event))
                for event in ("INSERT", "UPDATE")
            ),
        ],
        columns={"hash": ["ssn"]},
    )
    schema.execute("INSERT INTO patient VALUES (1, 'ann', 's'), (2, 'eve', 's')")
    adopt(schema)
    schema.execute("UPDATE patient SET name = 'ada' WHERE id = 1")
    adopt(schema)
    assert imported(schema, "action, record_id") == [("INSERT", "1"), ("INSERT", "2"), ("UPDATE", "1")]
    log = f"{schema.name}.patient_history"
    (found,) = adopt(schema, adopt_columns={log: {"id": "id"}})["foreign_auditing"]
    assert "column id may be NULL" in found["obstacle"]


def test_bytes_and_names_that_come_twice_neither_stop_an_import_nor_pass_it(schema: Schema) -> None:
    # Of what rows became: to be audited as well, it would bring values back in clear.
    key, address = bytes(range(200, 216)), "UNHEX('0A000001')"
    skipped = bring_under(
        schema,
        [
            PATIENT,
            "CREATE TABLE audit_log (id BIGINT AUTO_INCREMENT PRIMARY KEY, table_name VARCHAR(64), action VARCHAR(10),"
            " record_id BINARY(16), new_values LONGTEXT CHECK (json_valid(new_values)), ip VARBINARY(16),"
            " changed_at DATETIME)"
            if schema.server.is_mariadb
            else "CREATE TABLE audit_log (id BIGINT AUTO_INCREMENT PRIMARY KEY, table_name VARCHAR(64),"
            " action VARCHAR(10), record_id BINARY(16), new_values JSON, ip VARBINARY(16), changed_at DATETIME)",
            TRIGGER.format(
                event="INSERT",
                table="patient",
                insert=f"audit_log (table_name, new_values) VALUES ('patient', {IMAGE})",
            ),
        ],
    )["skipped_tables"]
    assert [entry["table"] for entry in skipped] == [f"{schema.name}.audit_log"]
    schema.execute(
        "INSERT INTO audit_log (table_name, action, record_id, new_values, ip, changed_at) VALUES "
        f"""('ward', 'INSERT', %s, '{{"name": "x"}}', {address}, '2024-02-01'),"""
        f"""('gone', 'INSERT', %s, '{{"password": "p1", "\\\\u0070assword": "p2"}}', {address}, '2024-02-01')""",
        key,
        key,
    )
    adopt(schema)
    rows = imported(schema, "record_id, client_ip, CONCAT(new_values)")
    assert rows[0][:2] == (base64.b64encode(key).decode(), "10.0.0.1")
    assert not any("p1" in row[2] or "p2" in row[2] for row in rows)


def test_writers_get_in_between_while_years_of_months_are_made(new_mysql_server: t.Callable[..., LocalMysql]) -> None:
    with Schema(new_mysql_server(event_scheduler="ON")) as schema:
        bring_under(
            schema,
            [
                PATIENT,
                "CREATE TABLE audit_log (id BIGINT AUTO_INCREMENT PRIMARY KEY, action VARCHAR(10), new_values JSON,"
                " changed_at DATETIME)",
                TRIGGER.format(
                    event="INSERT", table="patient", insert=f"audit_log (action, new_values) VALUES ('INSERT', {IMAGE})"
                ),
            ],
        )
        schema.execute("INSERT INTO audit_log (action, new_values, changed_at) VALUES ('INSERT', '{}', '2016-03-01')")
        made = [one for one in adopt(schema)["statements"] if "REORGANIZE" in one]
        assert len(made) > 9
        assert max(one.count("LESS THAN") for one in made) == 13
        assert schema.value("SELECT COUNT(*) FROM audit.audit_log_data PARTITION (p2016_03)") == 1


def test_of_a_table_that_a_policy_excludes_no_value_is_imported(schema: Schema) -> None:
    note = "JSON_OBJECT('id', NEW.id, 'note', NEW.note)"
    bring_under(
        schema,
        [
            PATIENT,
            "CREATE TABLE note (id INT PRIMARY KEY, note VARCHAR(50))",
            "CREATE TABLE audit_log (id BIGINT AUTO_INCREMENT PRIMARY KEY, table_name VARCHAR(64), action VARCHAR(10),"
            " new_values JSON, changed_at DATETIME DEFAULT CURRENT_TIMESTAMP)",
            *(
                TRIGGER.format(
                    event="INSERT", table=table, insert=f"audit_log (table_name, action, new_values) {values}"
                )
                for table, values in (
                    ("patient", f"VALUES ('patient', 'INSERT', {IMAGE})"),
                    ("note", f"VALUES ('note', 'INSERT', {note})"),
                )
            ),
        ],
        exclude=[f"{schema.name}.note"],
    )
    schema.execute("INSERT INTO note VALUES (1, 'schizophrenia')")
    adopt(schema)
    assert imported(schema, "table_name, record_id, CONCAT(new_values)") == [("note", None, "{}")]
