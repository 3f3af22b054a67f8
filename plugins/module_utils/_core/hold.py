# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must not be dropped or deleted, whatever its age. Pure; the engines look for rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import AuditError
from .pattern import Pattern

_KEYS = ("reason", "table", "record_id", "changed_by")


@dataclass(frozen=True)
class Hold:
    """A legal hold on rows: those that have all of what it names.

    :ivar table: pattern of `schema.table`, or None for any.
    :ivar record_id: as in the log.
    :ivar changed_by: as in the log; compared with db_user too.
    """

    reason: str
    table: Pattern | None
    record_id: str | None
    changed_by: str | None

    @classmethod
    def parse(cls, given: Mapping[str, Any], where: str) -> Hold:
        """Return a hold of the option.

        :param where: what an error calls it.
        """
        unknown = sorted(set(given) - set(_KEYS))
        if unknown:
            raise AuditError(f"{where} has {', '.join(map(repr, unknown))}; it may have {', '.join(_KEYS)}")
        fields = {name: str(given[name]) if given.get(name) not in (None, "") else None for name in _KEYS}
        if not fields["reason"]:
            raise AuditError(f"{where} has no reason; say which case it is for")
        if not (fields["table"] or fields["changed_by"]):
            raise AuditError(f"{where} ({fields['reason']}) names neither a table nor a user: give table or changed_by")
        table = Pattern.parse(fields["table"], f"{where}: table") if fields["table"] else None
        return cls(fields["reason"], table, fields["record_id"], fields["changed_by"])

    def plain(self) -> dict[str, Any]:
        """Return it as the option has it."""
        return {**{name: getattr(self, name) for name in _KEYS}, "table": self.table and self.table.text}

    def may_be_in(self, tables: Iterable[str]) -> bool:
        """Tell whether rows of these tables, as `schema.table`, may be held; nothing else is known of them."""
        if self.table is None:
            return True
        # A name may have a dot in it; where it could be meant, it is.
        names = [name.split(".") for name in tables]
        splits = [(parts[:end], parts[end:]) for parts in names for end in range(1, len(parts))]
        return any(self.table.matches(".".join(schema), ".".join(name)) for schema, name in splits)

    def may_hold(self, tables: Sequence[Sequence[str | None]]) -> list[tuple[str, str]] | None:
        """Return those of (schema, table) pairs that it is about, or None for rows of any table."""
        if self.table is None:
            return None
        return [(schema, name) for schema, name in tables if schema and name and self.table.matches(schema, name)]

    @property
    def is_of_rows(self) -> bool:
        """Whether a table's name alone does not say it."""
        return bool(self.record_id or self.changed_by)
