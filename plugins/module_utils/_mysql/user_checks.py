# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A user's own checks on a MariaDB or MySQL server, each in a transaction that cannot write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._core.user_checks import TIMEOUT, failed, result
from .session import Session, describe, is_lost, pymysql

#: Errors whose messages name objects, rights and limits, and quote the query. All others may quote a value of a row.
_WITHOUT_VALUES = frozenset(
    (
        *(1044, 1045, 1142, 1143, 1227, 1290, 1356, 1370, 1792),  # rights, and what a reader may not
        *(1049, 1052, 1054, 1109, 1146, 1305, 1630),  # names
        *(1055, 1056, 1060, 1064, 1066, 1111, 1140, 1222, 1241, 1242, 1248),  # the form of the query
        *(1205, 1213, 1317, 1969, 3024),  # time and locks
    )
)


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
        return failed(check, "", _reason(error))
    finally:
        if session.connection.open:
            session.execute("ROLLBACK")


def _reason(error: Any) -> str:
    """Return what went wrong, with the server's words where these hold no values."""
    if error.args[:1] and error.args[0] in _WITHOUT_VALUES:
        return describe(error)
    number = error.args[0] if error.args and isinstance(error.args[0], int) else "unknown"
    return f"the query failed: {type(error).__name__} (error {number}); the message may quote data"
