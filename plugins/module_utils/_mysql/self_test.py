# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proves capture and protection by doing: changes of the probe table, attempts to tamper, all rolled back."""

from __future__ import annotations

from typing import Any

from .._core.verification import Problem
from .session import Session, describe, pymysql

PROBE_USER = "dbfleet.audit verify"

_CHANGES = (
    "INSERT INTO {schema}.probe (id, value) VALUES (1, 'before')",
    "UPDATE {schema}.probe SET value = 'after'",
    "DELETE FROM {schema}.probe",
)

# Rows of this transaction, which nobody else sees: found by what only they say.
_RECORDED = """
SELECT GROUP_CONCAT(d.action ORDER BY d.id SEPARATOR ' ') AS actions
FROM {schema}.audit_log_data AS d
WHERE d.table_name = 'probe' AND d.schema_name = %(schema)s AND d.changed_by = %(user)s AND d.record_id = '1'
  AND d.changed_at > UTC_TIMESTAMP() - INTERVAL 1 HOUR
"""

# A row trigger needs a row, which is the probe's own.
_TAMPERING = (
    "UPDATE {schema}.audit_log_data SET changed_by = 'nobody' WHERE table_name = 'probe' AND changed_by = %(user)s",
    "DELETE FROM {schema}.audit_log_data WHERE table_name = 'probe' AND changed_by = %(user)s",
)

#: What SIGNAL raises.
_REFUSED = 1644


def self_test(session: Session, schema: str) -> list[Problem]:
    """Change the probe, find the records, try to change and to delete them; return what failed."""
    session.execute("START TRANSACTION")
    try:
        return _recorded(session, schema) + _refused(session, schema)
    finally:
        session.execute("ROLLBACK")


def _recorded(session: Session, schema: str) -> list[Problem]:
    try:
        session.all("SET @audit_user = %(user)s, @audit_context = NULL", {"user": PROBE_USER})
        for change in _CHANGES:
            session.execute(_in(schema, change, session))
        found = session.one(_in(schema, _RECORDED, session), {"schema": schema, "user": PROBE_USER})["actions"]
    except pymysql.MySQLError as error:
        return [Problem("not_recorded", f"a probe change failed: {describe(error)}")]
    expected = "INSERT UPDATE DELETE"
    if found == expected:
        return []
    return [Problem("not_recorded", f"a probe change left {found or 'nothing'!r} in the log instead of {expected!r}")]


def _refused(session: Session, schema: str) -> list[Problem]:
    problems = []
    for attempt in _TAMPERING:
        statement = _in(schema, attempt, session)
        try:
            session.all(statement, {"user": PROBE_USER})
        except pymysql.MySQLError as error:
            if _number(error) == _REFUSED:
                continue
            problems.append(Problem("not_refused", f"{attempt[:6]} of the log: {describe(error)}"))
        else:
            problems.append(Problem("not_refused", f"{attempt[:6]} of the log was not refused"))
    return problems


def _in(schema: str, statement: str, session: Session) -> str:
    return statement.replace("{schema}", session.identifier(schema))


def _number(error: Any) -> Any:
    return error.args[0] if error.args else None
