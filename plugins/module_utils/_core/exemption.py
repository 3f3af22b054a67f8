# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables that are deliberately not audited. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from typing import Any

from .errors import AuditError
from .pattern import Pattern

EXCEPTIONS_SPEC: dict[str, Any] = {
    "exceptions": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "table": {"type": "str", "required": True},
            "reason": {"type": "str", "required": True},
            "approved_by": {"type": "str", "required": True},
            "until": {"type": "str"},
        },
    }
}


@dataclass(frozen=True)
class Exemption:
    """A table that is deliberately not audited: who said so, why, and until when.

    :ivar databases: name or glob pattern of the databases that have the table.
    """

    pattern: Pattern
    reason: str
    approved_by: str
    until: date | None
    databases: str = "*"

    def concerns(self, database: str) -> bool:
        return fnmatchcase(database, self.databases)

    def expired(self, today: date) -> bool:
        return self.until is not None and self.until < today

    def plain(self, today: date) -> dict[str, Any]:
        """Return what results say of it, beside the table."""
        return {
            "reason": self.reason,
            "approved_by": self.approved_by,
            "until": self.until.isoformat() if self.until else None,
            "expired": self.expired(today),
        }


def parse_exemptions(raw: Sequence[Mapping[str, Any]], database: str) -> list[Exemption]:
    """Return checked exceptions; `until` is an ISO date (2027-03-31)."""
    return [_parse(entry, entry["table"], f"{database}: exceptions[{index}]") for index, entry in enumerate(raw)]


def parse_exemptions_of_databases(raw: Sequence[Mapping[str, Any]]) -> list[Exemption]:
    """Return checked exceptions on `database.schema.table`.

    :raises AuditError: for the first that has no database before its table, or is not as it has to be.
    """
    exemptions = []
    for index, entry in enumerate(raw):
        where = f"exceptions[{index}]"
        databases, dot, table = entry["table"].partition(".")
        if not (databases and dot and "." in table.strip(".")):
            raise AuditError(f"{where}: {entry['table']!r} is not database.schema.table, as in shop.public.tmp_load")
        exemptions.append(_parse(entry, table, where, databases))
    return exemptions


def _parse(entry: Mapping[str, Any], table: str, where: str, databases: str = "*") -> Exemption:
    until = entry.get("until")
    try:
        day = date.fromisoformat(str(until)) if until else None
    except ValueError:
        raise AuditError(f"{where}: `until` is not a date like 2027-03-31: {until!r}") from None
    return Exemption(Pattern.parse(table, where), entry["reason"], entry["approved_by"], day, databases)
