# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Auditing that is not ours: logs that other triggers write to, recognised by what those triggers do. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .adoption_columns import is_log, map_columns, obstacle, repeats

Name = tuple[str, str]

ADOPT_SPEC: dict[str, Any] = {
    "adopt": {"type": "str", "choices": ["report", "beside", "import"], "default": "report"},
    "adopt_columns": {"type": "dict", "default": {}},
}

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_PART = r'(?:"(?:[^"]|"")+"|`(?:[^`]|``)+`|[\w$]+)'
_INSERT = re.compile(rf"\binsert\s+(?:ignore\s+)?into\s+({_PART})(?:\s*\.\s*({_PART}))?", re.IGNORECASE)

#: Tools that are known by the columns of their logs, and what is no more than one of many like it.
_TOOLS = {
    "2ndquadrant": {"event_id", "row_data", "changed_fields", "action_tstamp_clk"},
    "supa_audit": {"record_id", "old_record_id", "record", "old_record", "op"},
    "table_log": {"trigger_mode", "trigger_tuple", "trigger_changed"},
}
HOME_MADE = "home_made"


@dataclass(frozen=True)
class Writer:
    """Triggers that write to tables.

    :ivar source: the code, or for a function in C the statement that it amounts to.
    :ivar on: the tables that they are on.
    :ivar triggers: their number.
    :ivar places: schemas in which a name without one may be meant, in this order.
    """

    source: str
    on: tuple[Name, ...]
    triggers: int
    places: tuple[str, ...]


@dataclass(frozen=True)
class Relation:
    """A table that triggers write to.

    :ivar columns: kind by name; see adoption_columns.obstacle().
    :ivar rows: how many it has, as the server estimates it.
    :ivar unordered: see adoption_columns.obstacle().
    :ivar ancestors: the tables that it is a partition or an inheritance child of.
    """

    schema: str
    name: str
    columns: Mapping[str, str]
    rows: int
    unordered: Mapping[str, str] = field(default_factory=dict)
    ancestors: frozenset[Name] = frozenset()

    @property
    def title(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class ForeignLog:
    """A log of changes that somebody else's triggers write.

    :ivar mapping: the column by what it holds; see adoption_columns.
    :ivar obstacle: why its rows cannot be imported, or None.
    """

    kind: str
    relation: Relation
    tables: tuple[Name, ...]
    triggers: int
    mapping: Mapping[str, str] = field(default_factory=dict)
    obstacle: str | None = None

    @property
    def key(self) -> Name:
        return (self.relation.schema, self.relation.name)

    @property
    def title(self) -> str:
        return self.relation.title

    @property
    def repeats(self) -> bool:
        """Whether what it holds is rows of the tables that it tells of, and nothing that an application lives on."""
        return self.kind == "table_log" or repeats(self.relation.columns, self.mapping)

    @property
    def schemas(self) -> dict[str, str]:
        """The schema of each table that is recorded in it, by name; of a name that there is once."""
        names = [name for _schema, name in self.tables]
        return {name: schema for schema, name in self.tables if names.count(name) == 1}

    def facts(self) -> dict[str, Any]:
        """Return what the modules tell of it."""
        return {
            "kind": self.kind,
            "log": self.title,
            "tables": sorted(".".join(table) for table in self.tables),
            "triggers": self.triggers,
            "rows": self.relation.rows,
            "importable": self.obstacle is None,
            "obstacle": self.obstacle,
        }


def written(writer: Writer, fold: Callable[[str], str]) -> list[list[Name]]:
    """Return what a trigger inserts into: of each statement, the tables that may be meant, the likeliest first.

    :param fold: what the engine makes of a name without quotes.
    """
    found = []
    for first, second in _INSERT.findall(_COMMENT.sub(" ", writer.source)):
        parts = [_plain(part, fold) for part in (first, second) if part]
        candidates = [(parts[0], parts[1])] if len(parts) == 2 else [(place, parts[0]) for place in writer.places]
        if candidates not in found:
            found.append(candidates)
    return found


def _plain(part: str, fold: Callable[[str], str]) -> str:
    quote = part[0]
    return part[1:-1].replace(quote * 2, quote) if quote in '"`' else fold(part)


def recognise(
    writers: Iterable[Writer],
    relations: Mapping[Name, Relation],
    fold: Callable[[str], str],
    given: Mapping[str, Mapping[str, str]] | None = None,
) -> list[ForeignLog]:
    """Return the logs that these triggers write, ordered by name.

    :param relations: of the tables that :func:`written` names, those that there are.
    :param given: the option adopt_columns; a log that it names is one, whatever it looks like.
    :raises AuditError: for an entry of `given` that does not fit its table.
    """
    on: dict[Name, list[Writer]] = {}
    for writer in writers:
        for candidates in written(writer, fold):
            target = next((name for name in candidates if name in relations), None)
            if target and writer not in on.setdefault(target, []):
                on[target].append(writer)
    _merge_parts(on, relations)
    logs = []
    for target, found in sorted(on.items()):
        said = (given or {}).get(relations[target].title)
        log = _log(relations[target], found, said)
        if log.tables and (said is not None or is_log(target[1], log.mapping)):
            logs.append(log)
    return logs


def _merge_parts(on: dict[Name, list[Writer]], relations: Mapping[Name, Relation]) -> None:
    """Count what writes to a part of a table as writing to the table, which is read with all of its parts."""
    for part in list(on):
        whole = max(relations[part].ancestors & set(on), key=lambda name: -len(relations[name].ancestors), default=None)
        if whole:
            on[whole] += [writer for writer in on.pop(part) if writer not in on[whole]]


def _log(relation: Relation, writers: Sequence[Writer], given: Mapping[str, str] | None) -> ForeignLog:
    tables = sorted({table for writer in writers for table in writer.on} - {(relation.schema, relation.name)})
    mapping = map_columns(relation.columns, given or {}, relation.title, relation.unordered)
    kind = next((name for name, columns in _TOOLS.items() if columns <= set(relation.columns)), HOME_MADE)
    names = [name for _schema, name in tables]
    twice = sorted({name for name in names if names.count(name) > 1})
    reason = obstacle(relation.columns, mapping, len(tables), relation.unordered)
    if kind == "table_log":
        reason = "it has two rows of a change, and the columns of the table in place of JSON"
    elif reason is None and twice and "schema_name" not in mapping:
        reason = f"it does not say of which schema the changed table is, and several have {twice[0]}"
    triggers = sum(writer.triggers for writer in writers if set(writer.on) - {(relation.schema, relation.name)})
    return ForeignLog(kind, relation, tuple(tables), triggers, mapping, reason)


def elsewhere(role: str) -> str:
    """Return what to set for a trail in another schema than one that somebody else's log is in.

    :param role: what the role's variables begin with.
    """
    return (
        f"Put the trail beside it with two variables: `{role}_schema: dbfleet_audit` and `{role}_adopt: beside`, or "
        f"`{role}_adopt: import` to have the rows of a log of changes in it copied as well (of the module, `schema` "
        "and `adopt`); or move it away"
    )


def notes(logs: Sequence[ForeignLog], place: str) -> list[str]:
    """Return what a person has to decide on, one text a log.

    :param place: what messages call the database or server.
    """
    texts = []
    for log in logs:
        what = f"{place}: {log.title} records changes of {len(log.tables)} tables by triggers that are not ours"
        way = "`adopt: beside` keeps both and ends this warning"
        if log.obstacle is None:
            way = f"`adopt: import` copies its rows into the trail, {way}"
        texts.append(f"{what}; {way}")
    return texts
