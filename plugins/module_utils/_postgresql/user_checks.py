# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A user's own checks on PostgreSQL databases, each in a transaction that cannot write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._core.errors import AuditError
from .._core.user_checks import TIMEOUT, failed, of_database, result
from .session import Session, connect, psycopg2


def user_checks(params: Mapping[str, Any], databases: Sequence[str]) -> list[dict[str, Any]]:
    """Return what the checks have found in each database that they are meant for; one that fails leaves the others."""
    return [found for database in databases for found in _in_database(params, database)]


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
        return failed(check, database, str(error).strip().splitlines()[0])
    finally:
        if not session.connection.closed:
            session.execute("ROLLBACK")
