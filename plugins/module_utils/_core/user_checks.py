# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks that a user has written: queries that give one number, which must not be above a threshold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

from .errors import AuditError

CHECKS_SPEC: dict[str, Any] = {
    "checks": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "query": {"type": "str", "required": True},
            "threshold": {"type": "float", "required": True},
            "databases": {"type": "list", "elements": "str", "default": ["*"]},
        },
    },
}

#: Seconds after which a server ends a query: nobody waits for it, and it may be the reason why others do.
TIMEOUT = 60


#: Of a check that is meant for databases that are not there.
NO_DATABASE = "no database that is asked has such a name"


def without_database(checks: Sequence[Mapping[str, Any]], databases: Sequence[str]) -> list[dict[str, Any]]:
    """Return as failed what is meant for databases that are not there, with the pattern for the database.

    :param databases: all that are asked.
    """
    return [
        failed(check, pattern, NO_DATABASE)
        for check in checks
        for pattern in dict.fromkeys(check["databases"])
        if not any(fnmatchcase(database, pattern) for database in databases)
    ]


def of_database(checks: Sequence[Mapping[str, Any]], database: str) -> list[Mapping[str, Any]]:
    """Return the checks that are meant for a database."""
    return [check for check in checks if any(fnmatchcase(database, pattern) for pattern in check["databases"])]


def statement(query: str) -> str:
    """Return the statement that asks for the number.

    As a subquery, more than one row or column is the server's error.

    :raises AuditError: when it would be more than one statement.
    """
    single = query.strip().rstrip(";")
    if ";" in single:
        raise AuditError("the query has a semicolon in it; give one SELECT")
    return f"SELECT (\n{single}\n) AS value"


def result(check: Mapping[str, Any], database: str, ask: Callable[[str], Any]) -> dict[str, Any]:
    """Return what a check has found; what goes wrong is its `error`, and it is not ok then.

    An error names no value: it goes into reports, and a query that is wrong may have read anything.

    :param ask: executes a statement that cannot write and returns its value.
    :raises Exception: whatever the driver raises.
    """
    try:
        if not _is_finite(check["threshold"]):
            raise AuditError("the threshold is no finite number")
        value = ask(statement(check["query"]))
        if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
            raise AuditError(f"the query gave a value of the type {type(value).__name__}, which is no number")
        if not _is_finite(value):
            raise AuditError("the query gave NaN, infinity or a number that is too large")
    except AuditError as error:
        return failed(check, database, str(error))
    return {**failed(check, database, ""), "value": _plain(value), "ok": value <= check["threshold"], "error": None}


def failed(check: Mapping[str, Any], database: str, error: str) -> dict[str, Any]:
    """Return the result of a check that could not be made."""
    threshold = check["threshold"]
    found = {"name": check["name"], "database": database}
    found["threshold"] = _plain(threshold) if _is_finite(threshold) else None
    return {**found, "value": None, "ok": False, "error": error}


def _is_finite(value: float | Decimal) -> bool:
    """Tell whether a number is one that JSON has."""
    # What Decimal holds beyond the range of float would be text of thousands of digits, which Python refuses to write.
    return (not isinstance(value, Decimal) or value.is_finite()) and math.isfinite(float(value))


def _plain(value: float | Decimal) -> float | int:
    return int(value) if value == int(value) else float(value)
