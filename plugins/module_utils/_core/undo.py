# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Undo, decided record by record: from its changes in the log to the statement that takes them back.

Values stay in the server: what is decided here is which column is taken from the old values of which change. The engine
then compares that with the table as it is now and gives back SQL literals for whatever differs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .errors import AuditError


@dataclass(frozen=True)
class UndoColumn:
    """A column of the table as it is now.

    :ivar type: the type, as the engine needs it to compare values.
    :ivar required: an INSERT has to name it: it takes no NULL and has no default.
    :ivar generated: the server computes it; it is never written.
    :ivar insert_only: an UPDATE cannot set it (GENERATED ALWAYS AS IDENTITY).
    :ivar comparable: whether values of the type can be compared by the engine's ordinary operators.
    :ivar renewed: the server sets it to the present time in every UPDATE that does not name it.
    :ivar opaque: why its recorded values cannot be read back, or an empty text.
    """

    name: str
    type: str
    required: bool = False
    generated: bool = False
    insert_only: bool = False
    comparable: bool = True
    opaque: str = ""
    renewed: bool = False


@dataclass(frozen=True)
class UndoTable:
    """The table as it is now.

    :ivar key: the columns that identify a record, in the key's order.
    :ivar audited: whether changes of it are recorded now.
    """

    schema: str
    name: str
    columns: tuple[UndoColumn, ...]
    key: tuple[str, ...]
    audited: bool

    @property
    def title(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def names(self) -> frozenset[str]:
        return frozenset(column.name for column in self.columns)


@dataclass(frozen=True)
class Doubt:
    """Why it is not certain in which order a record was changed.

    :ivar closed: whether the record ends as it begins, so that one which is still like that is as it has to be.
    """

    reason: str
    closed: bool


@dataclass(frozen=True)
class Change:
    """What the log says of one change of one record.

    An update of the key comes as two of them, with `moved`: the record of the old key was deleted, that of the new one
    inserted.

    :ivar wanted: whether this is one of the changes to undo.
    :ivar key: the record's key as JSON array, or None where the image does not hold it.
    :ivar image: the columns of the old values (of an INSERT: the new ones), each with the reason why its value cannot
        be restored (redacted, hashed, too large), or None.
    :ivar changed_columns: of an UPDATE. Where only the first change of each record is read, those of all of them.
    :ivar last_id: id of the record's last change.
    :ivar doubt: about the order that this change is part of.
    """

    id: int
    record_id: str | None
    action: str
    key: str | None
    wanted: bool
    moved: bool
    changed_by: str
    changed_at: str
    image: Mapping[str, str | None]
    changed_columns: tuple[str, ...]
    last_id: int
    doubt: Doubt | None = None


@dataclass
class Target:
    """What a record has to be again.

    :ivar exists: whether there has to be such a record.
    :ivar whole: whether `sources` name every column that the log knows, so that the record can be made anew.
    :ivar sources: column -> id of the change whose old values hold what it has to be.
    :ivar lost: column -> why its value cannot be restored.
    :ivar touched: the columns that the changes to undo have changed.
    :ivar conflict: why nothing must be written, should anything have to be: a change that is to stay came later, or
        the changes may have come in another order.
    """

    first: Change
    last_id: int
    exists: bool
    whole: bool = False
    sources: dict[str, int] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    conflict: str = ""

    @property
    def record_id(self) -> str | None:
        return self.first.record_id

    @property
    def checked(self) -> list[str]:
        """The columns of a record that has to go that tell whether it is still the one that was seen."""
        return [] if self.exists else [name for name, lost in self.first.image.items() if not lost]

    def take(self, change: Change, whole: bool) -> None:
        """Add a change to undo; the first one that touches a column says what it was."""
        self.touched |= set(change.changed_columns)
        if self.whole or not self.exists or change.action == "INSERT":
            return
        self.whole = whole or change.action == "DELETE"
        for name in change.image if self.whole else change.changed_columns:
            if name in self.sources or name in self.lost:
                continue
            why = change.image.get(name, "not recorded")
            if why:
                self.lost[name] = why
            else:
                self.sources[name] = change.id

    def collides(self, change: Change) -> bool:
        """Tell whether a change that is to stay has changed what would be undone."""
        if self.whole or not self.exists or change.action != "UPDATE":
            return True
        return bool(self.touched & set(change.changed_columns))


@dataclass(frozen=True)
class Found:
    """A record as the table has it now, all values as SQL literals.

    :ivar key: the key's columns.
    :ivar wanted: of a record that has to be there, the columns that are not as they have to be.
    :ivar seen: the same columns as they are; of one that has to go, the columns that tell it.
    """

    present: bool
    key: Mapping[str, str]
    wanted: Mapping[str, str]
    seen: Mapping[str, str]


@dataclass(frozen=True)
class Skip:
    """A record that is left as it is, and why."""

    record_id: str | None
    reason: str


@dataclass(frozen=True)
class Restoration:
    """A statement that restores one record, and where it stands in the order of the log."""

    record_id: str | None
    now: str
    restore: str
    statement: str
    position: int

    @property
    def record(self) -> dict[str, str | None]:
        return {"record_id": self.record_id, "now": self.now, "restore": self.restore}


class Writer(Protocol):
    """What an engine supplies to write a statement."""

    #: Between the columns and the values of an INSERT.
    insert_hint: str
    #: Statements that a session has to begin with for the others to mean what they say.
    preamble: Sequence[str]

    def identifier(self, *parts: str) -> str:
        """Return a quoted name."""

    def relation(self, table: UndoTable) -> str:
        """Return the table as DELETE and UPDATE name it."""

    def matches(self, column: UndoColumn, literal: str) -> str:
        """Return the condition that a column holds a value, NULL included."""


def trace(changes: Iterable[Change], table: UndoTable, whole: bool) -> tuple[list[Target], list[Skip]]:
    """Find out what the records have to be again.

    :param changes: by record, in the order in which they were made, from the first one to undo of each record. With
        `whole`, the first alone.
    :param whole: go back to the row as it was and not only over the changes to undo.
    :raises AuditError: when the log identifies records by columns that are not the table's key.
    """
    targets, skipped = [], []
    for record_id, history in itertools.groupby(changes, key=lambda change: change.record_id):
        traced = _trace(list(history), table, whole)
        if isinstance(traced, Target):
            targets.append(traced)
        else:
            skipped.append(Skip(record_id, traced))
    return targets, skipped


def _trace(history: Sequence[Change], table: UndoTable, whole: bool) -> Target | str:
    first = history[0]
    reason = _unidentified(first, table)
    doubts = [change.doubt for change in history if change.doubt]
    reason = reason or next((doubt.reason for doubt in doubts if not doubt.closed), "")
    if reason:
        return reason
    target = Target(first, max(change.last_id for change in history), exists=first.action != "INSERT")
    target.conflict = next((doubt.reason for doubt in doubts), "")
    for change in history:
        if change.wanted:
            target.take(change, whole)
        elif target.collides(change) and not target.conflict:
            target.conflict = f"changed again by {change.changed_by} at {change.changed_at}"
    for column in table.columns:
        if column.opaque and column.name in target.sources:
            del target.sources[column.name]
            target.lost[column.name] = column.opaque
    for name in target.sources.keys() - table.names:
        del target.sources[name]
        target.lost[name] = "no longer a column"
    return target


def _unidentified(change: Change, table: UndoTable) -> str:
    """Return why it is not known which record this is, or an empty text."""
    if change.record_id is None:
        return "recorded without a key, which the table had none of then"
    masked = [f"{name} ({change.image[name]})" for name in table.key if change.image.get(name)]
    if masked:
        return f"its key is not in the log: {', '.join(masked)}"
    if change.key is None:
        raise AuditError(
            f"{table.title}: the log has no column {', '.join(table.key)}, by which a record is found now; the key was "
            "renamed or changed after the time to go back to: undo that first"
        )
    return ""


def restore(
    targets: Sequence[Target], found: Sequence[Found], table: UndoTable, writer: Writer
) -> tuple[list[Restoration], list[Skip]]:
    """Write the statements that are needed, the latest change first, and name the records that have to stay.

    That order is what makes them work: whatever a change needed to be there (a row that it refers to, a unique value
    that had become free) is there again when the change is undone.
    """
    statements = _Statements(table, writer)
    pairs, rest = _moved(list(zip(targets, found)))
    restorations = [statements.rename(*gone, come[1]) for gone, come in pairs]
    skipped: list[Skip] = []
    for target, state in rest:
        result = statements.restoration(target, state)
        if result and target.conflict:
            result = target.conflict
        if isinstance(result, Restoration):
            restorations.append(result)
        elif result:
            skipped.append(Skip(target.record_id, result))
    phases = ("DELETE", "UPDATE", "INSERT")
    restorations.sort(key=lambda entry: (-entry.position, phases.index(entry.restore)))
    return restorations, skipped


_State = tuple[Target, Found]


def _moved(states: Sequence[_State]) -> tuple[list[tuple[_State, _State]], list[_State]]:
    """Put together what one update of the key has made two records of, so that one update takes it back."""
    gone = {state[0].first.id: state for state in states if _is_moved(state, exists=True)}
    come = {state[0].first.id: state for state in states if _is_moved(state, exists=False)}
    both = gone.keys() & come.keys()
    rest = [state for state in states if not (state[0].first.id in both and state[0].first.moved)]
    return [(gone[number], come[number]) for number in both], rest


def _is_moved(state: _State, exists: bool) -> bool:
    target, found = state
    return target.first.moved and target.exists == exists and found.present != exists and not target.conflict


class _Statements:
    """Writes the statements for one table."""

    def __init__(self, table: UndoTable, writer: Writer) -> None:
        self.table = table
        self.writer = writer
        self.columns = {column.name: column for column in table.columns}

    def restoration(self, target: Target, found: Found) -> Restoration | str | None:
        """Return the statement, why there can be none, or None where nothing has to be done."""
        if not target.exists:
            return self.delete(target, found) if found.present else None
        if not found.present:
            return self.insert(target, found)
        if any(not self.columns[name].insert_only for name in found.wanted):
            return self.update(target, found)
        lost = [f"{name} ({why})" for name, why in target.lost.items() if name in target.touched & self.table.names]
        return f"only what the log does not hold was changed: {', '.join(lost)}" if lost else None

    def delete(self, target: Target, found: Found) -> Restoration:
        text = f"DELETE FROM {self.writer.relation(self.table)}\n{self._where(found, found.seen)};"
        return Restoration(target.record_id, "inserted", "DELETE", text, target.first.id)

    def update(self, target: Target, found: Found) -> Restoration:
        wanted = {name: value for name, value in found.wanted.items() if not self.columns[name].insert_only}
        lost = {name: why for name, why in target.lost.items() if name in target.touched or name not in self.columns}
        lost.update((name, "GENERATED ALWAYS") for name in found.wanted.keys() - wanted.keys())
        kept = {name: self.writer.identifier(name) for name, column in self.columns.items() if column.renewed}
        given = {**kept, **wanted}.items()
        values = ",\n    ".join(f"{self.writer.identifier(name)} = {value}" for name, value in given)
        where = self._where(found, {name: found.seen[name] for name in wanted if name in found.seen})
        text = f"{_comment(lost)}UPDATE {self.writer.relation(self.table)}\nSET {values}\n{where};"
        return Restoration(target.record_id, "changed", "UPDATE", text, target.first.id)

    def rename(self, target: Target, gone: Found, come: Found) -> Restoration:
        """Return the update that makes the record of the new key the one that has gone."""
        wanted = {name: value for name, value in gone.wanted.items() if value != come.seen.get(name)}
        return self.update(target, Found(True, come.key, wanted, come.seen))

    def insert(self, target: Target, found: Found) -> Restoration | str:
        if not target.whole:
            return "is gone, though the log has no deletion of it"
        lost = {column.name: "not recorded" for column in self.table.columns if not column.generated}
        lost = {name: target.lost.get(name, why) for name, why in lost.items() if name not in found.wanted}
        needed = [f"{name} ({why})" for name, why in lost.items() if self.columns[name].required]
        if needed:
            return f"an INSERT needs what the log does not hold: {', '.join(needed)}"
        lost.update((name, why) for name, why in target.lost.items() if name not in self.columns)
        names = ", ".join(self.writer.identifier(name) for name in found.wanted)
        values = ", ".join(found.wanted.values())
        table = self.writer.identifier(self.table.schema, self.table.name)
        text = f"{_comment(lost)}INSERT INTO {table} ({names}){self.writer.insert_hint}\nVALUES ({values});"
        return Restoration(target.record_id, "deleted", "INSERT", text, target.last_id)

    def _where(self, found: Found, seen: Mapping[str, str]) -> str:
        """Return the condition on the key, and that nothing has changed since, so that nothing newer is lost."""
        literals = {**found.key, **{name: value for name, value in seen.items() if name not in found.key}}
        tests = [self.writer.matches(self.columns[name], value) for name, value in literals.items()]
        return "WHERE " + "\n  AND ".join(tests)


def _comment(lost: Mapping[str, str]) -> str:
    # A line's end in a name would end the comment.
    names = (re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", f"{name} ({why})") for name, why in lost.items())
    return f"-- not restored: {', '.join(names)}\n" if lost else ""
