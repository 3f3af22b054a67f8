# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A user's own checks on a MariaDB or MySQL server, each in a transaction that cannot write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._core.user_checks import TIMEOUT, failed, result
from .session import Session, describe, is_lost, pymysql


def user_checks(session: Session, checks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the checks have found; their queries name the databases that they are about."""
    if not checks:
        return []
    limit, value = ("max_statement_time", TIMEOUT) if session.is_mariadb else ("max_execution_time", TIMEOUT * 1000)
    session.execute(f"SET SESSION {limit} = {value}")
    try:
        return [_found(check, session) for check in checks]
    finally:
        # What else the module asks takes as long as it takes.
        session.execute(f"SET SESSION {limit} = 0")


def _found(check: Mapping[str, Any], session: Session) -> dict[str, Any]:
    session.execute("START TRANSACTION READ ONLY")
    try:
        return result(check, "", lambda statement: session.one(statement)["value"])
    except pymysql.MySQLError as error:
        if is_lost(error):
            raise
        return failed(check, "", describe(error))
    finally:
        if session.connection.open:
            session.execute("ROLLBACK")
