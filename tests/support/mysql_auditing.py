# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stands in the log of a MariaDB or MySQL server of a test's own database, and how it is brought under audit."""

from __future__ import annotations

import json
import typing as t

import running
from mysql_databases import Schema


class Record(t.NamedTuple):
    """One row of audit.audit_log; the fields are its columns, JSON as Python values."""

    id: int
    changed_at: t.Any
    transaction_id: str | None
    action: str
    schema_name: str
    table_name: str
    record_id: str | None
    old_values: dict[str, t.Any] | None
    new_values: dict[str, t.Any] | None
    changed_columns: list[str] | None
    changed_by: str
    db_user: str
    client_ip: str | None
    application_name: str | None
    context: dict[str, t.Any] | None
    policy_id: int | None


_OPTIONS = (
    *("exceptions", "purge", "allow_missing", "redact_defaults", "lock_timeout", "lock_retries"),
    *("check_mode", "diff_mode", "may_fail"),
)
_DOCUMENTS = ("old_values", "new_values", "changed_columns", "context")


def records(schema: Schema, table: str | None = None) -> list[Record]:
    """Return what the log holds of a table (of the whole database, without one), oldest first."""
    rows = schema.execute(
        f"SELECT {', '.join(Record._fields)} FROM audit.audit_log "
        "WHERE schema_name = %s AND (table_name = %s OR %s IS NULL) ORDER BY id",
        schema.name,
        table,
        table,
    )
    return [_record(row) for row in rows]


def _record(row: tuple[t.Any, ...]) -> Record:
    values = dict(zip(Record._fields, row))
    for name in _DOCUMENTS:
        if values[name] is not None:
            values[name] = json.loads(values[name], parse_float=str)
    return Record(**values)


def changes(schema: Schema, table: str) -> list[tuple[str, t.Any, t.Any]]:
    """Return what the log holds of a table as (action, old values, new values)."""
    return [(record.action, record.old_values, record.new_values) for record in records(schema, table)]


def left(schema: Schema, table: str, *statements: str) -> list[Record]:
    """Return what statements left in the log of a table."""
    last = schema.value("SELECT COALESCE(MAX(id), 0) FROM audit.audit_log_data")
    for statement in statements:
        schema.execute(statement)
    return [record for record in records(schema, table) if record.id > last]


def install_trail(schema: Schema, /, **options: t.Any) -> running.ModuleResult:
    """Install the trail of the server, with its partitions."""
    result = running.run_module("mysql_audit_trail", **{**schema.login, **options})
    running.run_module("mysql_audit_partitions", **schema.login)
    return result


def rollout(schema: Schema, /, *policies: dict[str, t.Any], **options: t.Any) -> running.ModuleResult:
    """Bring the server under policies; other tests' tables, should there be any left, lose theirs."""
    return running.run_module("mysql_audit_triggers", **{**schema.login, "policies": list(policies), **options})


def audit(schema: Schema, /, *tables: str, **keys: t.Any) -> running.ModuleResult:
    """Bring tables of the test's database (all of them, unless named) under one policy.

    The keywords are keys of the policy, or options of the module or of run_module().
    """
    options = {key: keys.pop(key) for key in tuple(keys) if key in _OPTIONS}
    patterns = [f"{schema.name}.{table}" for table in tables or ("*",)]
    return rollout(schema, {"tables": patterns, **keys}, **options)


def refusal(schema: Schema, /, *policies: dict[str, t.Any], **options: t.Any) -> str:
    """Return the message of a rollout that must fail."""
    result = rollout(schema, *policies, may_fail=True, **options)
    assert result.failed, result
    return result.msg


def verification(schema: Schema, /, *policies: dict[str, t.Any], **options: t.Any) -> running.ModuleResult:
    """Return what verify finds; problems are no failure."""
    arguments = {**schema.login, "policies": list(policies), "fail_on_problem": False, **options}
    return running.run_module("mysql_audit_verify", **arguments)
