# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A trigger of ours: its name tells what is in it, so that another version of it can stand beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from .._core.plan import Transaction, first_difference
from .._core.sql import Identifier, Sql, Verbatim, sql
from .accounts import WRITER
from .session import Session, same_mode
from .text import same_code

PREFIX = "dbfleet_audit_"
OPERATIONS = ("insert", "update", "delete")

#: What :attr:`Trigger.name` gives: a name that only begins like it is somebody else's.
_NAME = f"^{PREFIX}({'|'.join(OPERATIONS)})_[0-9a-f]{{12}}$"

_TRIGGERS = """
SELECT t.trigger_schema AS `schema`, t.trigger_name AS name, t.event_object_table AS `table`,
       t.event_manipulation AS event, t.action_timing AS timing, t.definer AS definer, t.sql_mode AS sql_mode,
       t.action_statement AS body
FROM information_schema.triggers AS t
WHERE (t.trigger_name REGEXP %(pattern)s OR t.definer = %(writer)s) AND {which}
ORDER BY t.created, t.trigger_name
"""

_CREATE = """
CREATE DEFINER = {definer} TRIGGER {trigger}
  {timing} {event} ON {table}
  FOR EACH ROW {body}
"""


@dataclass(frozen=True)
class CurrentTrigger:
    """A trigger as the catalogue shows it."""

    schema: str
    name: str
    table: str
    event: str
    timing: str
    definer: str
    sql_mode: str
    body: str


#: Our triggers of one table, by timing and event.
Slots = dict[tuple[str, str], list[CurrentTrigger]]


@dataclass(frozen=True)
class Trigger:
    """One trigger as we want it.

    :ivar body: the code, rendered.
    """

    table: tuple[str, str]
    timing: str
    operation: str
    body: str

    @property
    def slot(self) -> tuple[str, str]:
        """What there can be one of on a table: timing and event, in upper case."""
        return (self.timing, self.operation.upper())

    @property
    def name(self) -> str:
        """The name: unique in its database, and another one for every other body."""
        parts = (*self.table, self.timing, self.operation, self.body)
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
        return f"{PREFIX}{self.operation}_{digest}"

    def create(self) -> Sql:
        return sql(
            _CREATE,
            definer=WRITER.sql(),
            trigger=Identifier.of(self.table[0], self.name),
            timing=sql(self.timing),
            event=sql(self.operation.upper()),
            table=Identifier.of(*self.table),
            body=Verbatim(self.body),
        )

    def difference(self, current: Sequence[CurrentTrigger]) -> str:
        """Return how the server's triggers in this slot differ from this one, or an empty text."""
        if not current:
            return "is missing"
        if len(current) > 1:
            return "is there more than once"
        found = current[0]
        checks = {
            "runs as somebody else": found.definer == str(WRITER),
            "runs in another sql_mode": same_mode(found.sql_mode),
            "is not the one of this policy and these columns": found.name == self.name,
            "has another body": same_code(self.body, found.body),
        }
        return first_difference(checks)

    def plan(self, transaction: Transaction, current: Sequence[CurrentTrigger]) -> None:
        """Add what puts this trigger in place of those in its slot, if they differ from it.

        The new one is made before the old one goes: should the connection end between the two, a change is recorded
        twice until the next run, and never not at all. Under LOCK TABLES no change can fall in between.
        """
        difference = self.difference(current)
        if not difference:
            return
        title = ".".join(self.table)
        reason = f"{title}: the trigger for {self.timing} {self.operation.upper()} {difference}"
        same_name = [found for found in current if found.name == self.name]
        for found in same_name:
            transaction.add(drop(found), f"{reason}: it makes room for its like")
        transaction.add(self.create(), reason, "altered" if current else "missing")
        for found in current:
            if found not in same_name:
                transaction.add(drop(found), f"{reason}: the old one goes")


def drop(current: CurrentTrigger) -> Sql:
    """Return what drops a trigger."""
    return sql("DROP TRIGGER {name}", name=Identifier.of(current.schema, current.name))


def read_triggers(session: Session, schema: str, elsewhere: bool = False) -> dict[tuple[str, str], Slots]:
    """Read our triggers of one schema, or of all others, by schema and table."""
    which = "t.trigger_schema <> %(schema)s" if elsewhere else "t.trigger_schema = %(schema)s"
    places = {"schema": schema, "pattern": _NAME, "writer": str(WRITER)}
    tables: dict[tuple[str, str], Slots] = {}
    for row in session.all(_TRIGGERS.replace("{which}", which), places):
        slots = tables.setdefault((row["schema"], row["table"]), {})
        slots.setdefault((row["timing"], row["event"]), []).append(CurrentTrigger(**row))
    return tables
