# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Undoing changes of audited tables, and running the SQL that it prints."""

from __future__ import annotations

import subprocess
import typing as t

import running
from auditing import rollout, wanted
from databases import Database


def audited(db: Database, tables: str, *fill: str, **columns: list[str]) -> str:
    """Make tables, audit them, fill them, and return the time after that."""
    db.execute(tables)
    rollout(db, policies=[wanted("*.*", columns=columns)])
    for statement in fill:
        db.execute(statement)
    return now(db)


def now(db: Database) -> str:
    """Return the server's time; what was done by now stays."""
    return db.value("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')")


def undo(db: Database, table: str = "public.users", **options: t.Any) -> running.ModuleResult:
    """Run the module on a table."""
    return running.run_module("postgresql_audit_undo", **{**db.login, "table": table, **options})


def refusal(db: Database, table: str = "public.users", **options: t.Any) -> str:
    """Return the message of an undo that must fail."""
    result = undo(db, table, may_fail=True, **options)
    assert result.failed, result
    assert not result.changed or not result["executed"]
    return result.msg


def rows(db: Database, table: str = "users") -> list[str]:
    """Return the rows of a table as the server writes them."""
    return [row[0] for row in db.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1")]


def psql(db: Database, statements: list[str], settings: str = "") -> str:
    """Run printed SQL with psql, as a person does who has reviewed it, and return what it says."""
    command = ["psql", "-X", "-v", "ON_ERROR_STOP=1", "-h", str(db.server.socket_dir), "-p", str(db.server.port)]
    command += ["-U", "postgres", "-d", db.name, "-f", "-"]
    environment = {**running.private_environment(), "PGOPTIONS": settings}
    text = "\n".join(statements)
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=text, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kinds(result: running.ModuleResult) -> list[tuple[str, str, str]]:
    """Return what became of each record and what takes it back."""
    return [(entry["record_id"], entry["now"], entry["restore"]) for entry in result["records"]]
