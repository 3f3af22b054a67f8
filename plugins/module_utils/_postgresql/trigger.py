# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The triggers that a policy puts on one table."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core.plan import first_difference
from .._core.policy import Policy, is_sensitive
from .._core.sql import Identifier, Sql, Verbatim, literals, sql
from .capture import capture_name
from .trigger_catalog import PgTable

PREFIX = "dbfleet_audit_"

# pg_trigger.tgtype: ROW 1, INSERT 4, DELETE 8, UPDATE 16, TRUNCATE 32; AFTER and STATEMENT are the absence of a bit
# (PostgreSQL, catalog/pg_trigger.h).
EVENT_BITS = {"insert": 4, "delete": 8, "update": 16, "truncate": 32}
_ROW_BIT = 1

_TRANSITIONS = {
    "insert": ("NEW TABLE AS new_rows", " new_rows"),
    "update": ("OLD TABLE AS old_rows NEW TABLE AS new_rows", "old_rows new_rows"),
    "delete": ("OLD TABLE AS old_rows", "old_rows "),
}

_CREATE = """
CREATE OR REPLACE TRIGGER {trigger}
  AFTER {event} ON {table}{referencing}
  FOR EACH {level}{condition} EXECUTE FUNCTION {function}({arguments})
"""


@dataclass(frozen=True)
class Trigger:
    """One trigger as we want it."""

    operation: str
    table: PgTable
    function: str
    arguments: tuple[str, ...]
    when: str | None
    per_row: bool

    @property
    def name(self) -> str:
        # Partitions inherit a root's triggers by name: one of their own, from before ATTACH, must not collide.
        return PREFIX + ("tree_" if self.table.kind == "p" else "") + self.operation

    @property
    def kind(self) -> int:
        """The value of pg_trigger.tgtype."""
        return EVENT_BITS[self.operation] + (_ROW_BIT if self.per_row else 0)

    @property
    def object(self) -> str:
        """The key under which the trail remembers a condition of the user's."""
        return f"trigger {self.table.title} {self.name}"

    @property
    def source_digest(self) -> str:
        return hashlib.sha256((self.when or "").encode()).hexdigest()

    def create(self, schema: str) -> Sql:
        referencing = "" if self.per_row or self.operation == "truncate" else _TRANSITIONS[self.operation][0]
        condition = self.when if self.per_row else None
        return sql(
            _CREATE,
            trigger=Identifier.of(self.name),
            event=sql(self.operation.upper()),
            table=Identifier.of(self.table.schema, self.table.name),
            referencing=sql(f"\n  REFERENCING {referencing}" if referencing else ""),
            level=sql("ROW" if self.per_row else "STATEMENT"),
            condition=sql("\n  WHEN ({text})", text=Verbatim(condition)) if condition else sql(""),
            function=Identifier.of(schema, self.function),
            arguments=literals(self.arguments),
        )

    def difference(self, current: Mapping[str, Any] | None, known: list[str] | None, encoding: str) -> str:
        """Return how the server's trigger differs from this one, or an empty text.

        :param known: the digests that the trail remembers of a condition, or None.
        """
        if current is None:
            return "is missing"
        arguments = b"".join(argument.encode(encoding) + b"\0" for argument in self.arguments).hex()
        checks = {
            "calls another function": current["ours"] and current["function"] == self.function,
            "has other arguments": current["arguments"] == arguments,
            "fires on something else": current["type"] == self.kind and not current["columns"],
            "has another condition": self._same_condition(current["condition"], known),
            "has other transition tables": current["transition"] == self._transition(),
        }
        return first_difference(checks)

    def _same_condition(self, current: str | None, known: list[str] | None) -> bool:
        """Compare with what the catalogue found: nothing, or the digest of a condition."""
        if self.per_row and self.when:
            return known == [self.source_digest, current]
        return current is None

    def _transition(self) -> str:
        return " " if self.per_row or self.operation == "truncate" else _TRANSITIONS[self.operation][1]


def wanted_triggers(table: PgTable, policy: Policy) -> list[Trigger]:
    """Return the triggers that the policy wants on the table."""
    hashed = [column for column in policy.hash if column in table.columns]
    redacted = [
        column
        for column in table.columns
        if column in policy.redact or (policy.redact_defaults and is_sensitive(column) and column not in hashed)
    ]
    key = table.key[0] if len(table.key) == 1 else ""
    reported = (table.schema, table.name) if table.kind == "p" else ("", "")
    more = (*reported, array_literal(redacted), array_literal(hashed), *(() if key else table.key))
    arguments = (key,) if more == ("", "", "{}", "{}") else (key, *more)
    return [
        Trigger(
            operation,
            table,
            capture_name(policy),
            arguments,
            policy.when if operation != "truncate" else None,
            policy.capture == "row" and operation != "truncate",
        )
        for operation in policy.operations
    ]


def array_literal(names: list[str]) -> str:
    """Return names as PostgreSQL itself writes an array of them."""
    return "{" + ",".join(_element(name) for name in names) + "}"


def _element(name: str) -> str:
    if name and name.lower() != "null" and not re.search(r'["\\{}, \t\n\v\f\r]', name):
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
