# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which tables are published, and what of each row's old version the WAL has. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .._core.errors import AuditError
from .._core.pattern import Pattern
from .trigger_catalog import PgTable

#: Schema and name of a table.
Key = tuple[str, str]

#: How pg_class calls REPLICA IDENTITY FULL.
FULL = "f"


@dataclass(frozen=True)
class Identity:
    """A table's replica identity.

    :ivar kind: as pg_class has it: d (the primary key), i (an index), f (the whole row), n (nothing).
    :ivar index: the index of kind i.
    :ivar usable: whether an UPDATE or DELETE of the table is possible once it is published.
    :ivar keyed: whether there is a primary key, by which the default identity is usable.
    :ivar oid: the table's own number, which stays when it is renamed; 0 where it is not known.
    :ivar indexes: those of its indexes that could be its identity.
    :ivar generated: what kinds of generated columns it has, as pg_attribute has them: s (stored), v (virtual).
    """

    kind: str
    index: str = ""
    usable: bool = True
    keyed: bool = True
    oid: int = 0
    indexes: tuple[str, ...] = ()
    generated: str = ""


@dataclass
class Choice:
    """The tables that are published, in order, and those that a pattern met in vain, with the reason."""

    tables: dict[Key, PgTable] = field(default_factory=dict)
    skipped: dict[Key, str] = field(default_factory=dict)


def choose(
    patterns: Sequence[Pattern],
    tables: Mapping[Key, PgTable],
    identities: Mapping[Key, Identity],
    database: str,
    whole_rows: bool = True,
) -> Choice:
    """Match patterns with tables. A partition goes with its root, an inheritance child with its parent.

    :param whole_rows: whether the tables are to have the replica identity FULL.
    :raises AuditError: for a pattern that matches nothing, and a table that is named and cannot be published.
    """
    for pattern in patterns:
        if not any(pattern.matches(*key) for key in tables):
            raise AuditError(f"{database}: tables: {pattern.text!r} matches no table; correct it, or take it out")
    choice = Choice()
    for key, table in tables.items():
        if not _is_meant(key, patterns, tables) or (table.root and _is_meant(table.root, patterns, tables)):
            continue
        obstacle = _obstacle(table, identities.get(key), whole_rows)
        if not obstacle:
            choice.tables[key] = table
            continue
        if any(pattern.exact and pattern.matches(*key) for pattern in patterns):
            raise AuditError(f"{database}: tables: {table.title} cannot be published: {obstacle}; take it out")
        choice.skipped[key] = obstacle
    return choice


def _is_meant(key: Key, patterns: Sequence[Pattern], tables: Mapping[Key, PgTable]) -> bool:
    current: Key | None = key
    # A table has one parent here, and no table is its own ancestor.
    while current:
        if any(pattern.matches(*current) for pattern in patterns):
            return True
        table = tables.get(current)
        current = table.parent if table else None
    return False


def _obstacle(table: PgTable, identity: Identity | None, whole_rows: bool) -> str:
    if table.kind not in ("r", "p"):
        return "it is a view or a foreign table, whose changes are in no WAL of this server"
    if table.persistence == "u":
        return "it is unlogged: its changes are in no WAL"
    if not table.owned:
        return f"no rights: only its owner {table.owner}, a member of that role or a superuser may publish it"
    if table.kind == "p" and identity and not identity.keyed:
        # A partition gets the default identity, whatever its root has.
        return "it is partitioned and has no primary key: each new partition would refuse every UPDATE and DELETE"
    if whole_rows and identity and "v" in identity.generated:
        return (
            "it has a virtual generated column, with which the server would refuse every UPDATE and DELETE; take "
            "`replica_identity: keep`"
        )
    return ""


def tree(key: Key, tables: Mapping[Key, PgTable]) -> list[Key]:
    """Return a table and all of its partitions: each has a replica identity of its own."""
    if key not in tables or tables[key].kind != "p":
        return [key]
    return [key, *(other for other, table in tables.items() if table.root == key and table.kind in ("r", "p"))]


def require_identities(choice: Choice, tables: Mapping[Key, PgTable], identities: Mapping[Key, Identity]) -> None:
    """Refuse to publish a table whose replica identity stays and is none.

    :raises AuditError: naming the tables: the application's UPDATE and DELETE would fail from then on.
    """
    names = [
        ".".join(part)
        for key in choice.tables
        for part in tree(key, tables)
        if tables[part].kind == "r" and not identities[part].usable
    ]
    if names:
        raise AuditError(
            f"replica_identity: keep: {', '.join(names)}: no primary key and no replica identity, so that every UPDATE "
            "and DELETE would be refused as soon as it is published; use `full`, or give it a key"
        )
