# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A user's own checks on PostgreSQL databases, each in a transaction that cannot write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._core.errors import AuditError
from .._core.user_checks import TIMEOUT, failed, of_database, result, without_database
from .session import Session, connect, psycopg2

#: Classes of SQLSTATE whose messages name objects and rights, limits and states. All others may quote a value of a row.
_WITHOUT_VALUES = ("08", "0A", "21", "25", "40", "42", "53", "55", "57", "58")


def user_checks(params: Mapping[str, Any], databases: Sequence[str]) -> list[dict[str, Any]]:
    """Return what the checks have found in each database that they are meant for; one that fails leaves the others."""
    answers = [found for database in databases for found in _in_database(params, database)]
    return [*answers, *without_database(params["checks"], databases)]


def _in_database(params: Mapping[str, Any], database: str) -> list[dict[str, Any]]:
    checks = of_database(params["checks"], database)
    if not checks:
        return []
    try:
        session = connect({**params, "login_db": database})
    except AuditError as error:
        return [failed(check, database, str(error)) for check in checks]
    try:
        return [_found(check, database, session) for check in checks]
    finally:
        session.close()


def _found(check: Mapping[str, Any], database: str, session: Session) -> dict[str, Any]:
    try:
        session.execute("BEGIN READ ONLY")
        session.one("SELECT set_config('statement_timeout', %(limit)s, true)", {"limit": f"{TIMEOUT}s"})
        return result(check, database, lambda statement: session.one(statement).value)
    except psycopg2.Error as error:
        return failed(check, database, _reason(error))
    finally:
        if not session.connection.closed:
            session.execute("ROLLBACK")


def _reason(error: Any) -> str:
    """Return what went wrong, with the server's words where these hold no values."""
    if error.pgcode is None:
        return str(error).strip().splitlines()[0]
    if error.pgcode.startswith(_WITHOUT_VALUES):
        return str(error.diag.message_primary)
    return f"the query failed: {type(error).__name__} (SQLSTATE {error.pgcode}); the message may quote data"
