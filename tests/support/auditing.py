# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Databases that have an audit trail, and what stands in their logs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import typing as t

import running
from databases import Database, connect, fetch
from local_postgresql import LocalPostgresql

_TEMPLATE = "dbfleet_trail"


class Record(t.NamedTuple):
    """One row of audit.audit_log; the fields are its columns."""

    id: int
    changed_at: t.Any
    transaction_id: str
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
    application_name: str
    context: dict[str, t.Any] | None
    policy_id: int | None


def records(db: Database, table: str | None = None) -> list[Record]:
    """Return what the log holds of a table (of everything, without one) but DDL, oldest first."""
    rows = db.execute(
        f"SELECT {', '.join(Record._fields)} FROM audit.audit_log "
        "WHERE (table_name = %s OR %s IS NULL) AND action <> 'DDL' ORDER BY id",
        table,
        table,
    )
    return [Record(*row) for row in rows]


def changes(db: Database, table: str) -> list[tuple[str, t.Any, t.Any]]:
    """Return what the log holds of a table as (action, old values, new values)."""
    return [(record.action, record.old_values, record.new_values) for record in records(db, table)]


def rollout(db: Database, **options: t.Any) -> running.ModuleResult:
    """Bring a database under policies: run_module("postgresql_audit_triggers") with its login."""
    return running.run_module("postgresql_audit_triggers", **{**db.login, **options})


def refusal(db: Database, **options: t.Any) -> str:
    """Return the message of a rollout that must fail."""
    result = rollout(db, may_fail=True, **options)
    assert result.failed, result
    return result.msg


def install_trail(db: Database, **options: t.Any) -> running.ModuleResult:
    """Install the trail with its partitions."""
    result = running.run_module("postgresql_audit_trail", **{**db.login, **options})
    schema = {"schema": options["schema"]} if "schema" in options else {}
    running.run_module("postgresql_audit_partitions", **{**db.login, **schema})
    return result


def trail_template(server: LocalPostgresql) -> str:
    """Return the name of a database with a trail that others can be copied from; whoever asks first makes it."""
    handle = os.open(server.directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.closing(connect(server, "postgres")) as connection:
            if not fetch(connection, "SELECT 1 FROM pg_database WHERE datname = %s", _TEMPLATE):
                making = Database(server, f"{_TEMPLATE}_in_the_making")
                install_trail(making)
                fetch(connection, f'ALTER DATABASE "{making.name}" RENAME TO "{_TEMPLATE}"')
    finally:
        os.close(handle)
    return _TEMPLATE


@contextlib.contextmanager
def trail_database(server: LocalPostgresql) -> t.Iterator[Database]:
    """Give a database that has the trail and its partitions already, and no audited table."""
    database = Database(server, template=trail_template(server))
    try:
        yield database
    finally:
        database.drop()


def wanted(*tables: str, **keys: t.Any) -> dict[str, t.Any]:
    """Return a policy: ``wanted("public.users", when="NEW.id > 0")``."""
    return {"tables": list(tables), **keys}
