# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks that a user has written: queries that give one number, which must not be above a threshold."""

from __future__ import annotations

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

    :param ask: executes a statement that cannot write and returns its value.
    :raises Exception: whatever the driver raises.
    """
    try:
        value = ask(statement(check["query"]))
        if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
            raise AuditError(f"the query gave {value!r}, which is no number")
    except AuditError as error:
        return failed(check, database, str(error))
    return {**failed(check, database, ""), "value": _plain(value), "ok": value <= check["threshold"], "error": None}


def failed(check: Mapping[str, Any], database: str, error: str) -> dict[str, Any]:
    """Return the result of a check that could not be made."""
    found = {"name": check["name"], "database": database, "threshold": _plain(check["threshold"])}
    return {**found, "value": None, "ok": False, "error": error}


def _plain(value: float | Decimal) -> float | int:
    return int(value) if value == int(value) else float(value)
