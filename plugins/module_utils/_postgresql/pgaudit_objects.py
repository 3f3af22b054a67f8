# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Object auditing: pgaudit records what is done by a right that its role has been granted. Pure planning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._core.errors import AuditError
from .._core.pattern import Pattern
from .._core.plan import Plan
from .._core.sql import Identifier, Joined, Sql, identifiers, sql

#: What pgaudit audits by object; the first three also by column.
PRIVILEGES = ("select", "insert", "update", "delete")
_BY_COLUMN = PRIVILEGES[:3]

#: (privilege, column), the column None for the whole relation.
Grant = tuple[str, Any]


@dataclass(frozen=True)
class AuditedObject:
    """Relations that a pattern means, and what of them is recorded."""

    database: str
    pattern: Pattern
    columns: tuple[str, ...]
    privileges: tuple[str, ...]

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> AuditedObject:
        """Check one entry of the option `objects`.

        :raises AuditError: naming the entry, and what is wrong with it.
        """
        where = f"objects: {entry['database']}: {entry['table']}"
        columns = tuple(entry.get("columns") or ())
        privileges = tuple(dict.fromkeys(entry.get("privileges") or ("select",)))
        whole = [name for name in privileges if name not in _BY_COLUMN]
        if columns and whole:
            raise AuditError(
                f"{where}: {', '.join(whole)} cannot be audited by column; leave `columns` out, or make two entries"
            )
        pattern = Pattern.parse(entry["table"], where)
        return cls(entry["database"], pattern, columns, privileges)

    @property
    def grants(self) -> set[Grant]:
        return {(privilege, column) for privilege in self.privileges for column in self.columns or (None,)}


@dataclass(frozen=True)
class Relation:
    """A table, view, materialised view or foreign table, and what the role is granted on it."""

    schema: str
    name: str
    columns: Sequence[str]
    grants: frozenset[Grant]


@dataclass(frozen=True)
class DatabaseCatalog:
    """What a database has.

    :ivar extension: version of the extension there, None where it is not.
    :ivar available: version that CREATE EXTENSION makes, None where no such extension is installed on the host.
    :ivar relations: those that a pattern matches, and those that the role has grants on.
    """

    extension: str | None
    available: str | None
    relations: Sequence[Relation]


def plan_objects(
    plan: Plan, objects: Sequence[AuditedObject], role: str, database: str, catalog: DatabaseCatalog
) -> int:
    """Plan the role's grants in one database, one transaction a relation; return how many relations are audited.

    :raises AuditError: for a pattern that matches nothing, and a column that no matched relation has.
    """
    wanted: dict[tuple[str, str], set[Grant]] = {}
    for entry in objects:
        for relation in _matched(entry, database, catalog.relations):
            wanted.setdefault((relation.schema, relation.name), set()).update(entry.grants)
    for relation in catalog.relations:
        _plan_relation(plan, relation, _without_covered(wanted.get((relation.schema, relation.name), set())), role)
    return len(wanted)


def _matched(entry: AuditedObject, database: str, relations: Sequence[Relation]) -> list[Relation]:
    found = [relation for relation in relations if entry.pattern.matches(relation.schema, relation.name)]
    where = f"objects: {database}: {entry.pattern.text}"
    if not found:
        raise AuditError(f"{where} matches no table, view or foreign table; correct it, or take it off the list")
    having = [relation for relation in found if set(entry.columns) <= set(relation.columns)]
    if not having:
        columns = {column for relation in found for column in relation.columns}
        missing = [column for column in entry.columns if column not in columns] or list(entry.columns)
        raise AuditError(f"{where} has no column {', '.join(missing)}; it has {', '.join(sorted(columns))}")
    return having


def _without_covered(grants: set[Grant]) -> set[Grant]:
    """Leave out columns whose whole relation is audited for the same."""
    return {grant for grant in grants if grant[1] is None or (grant[0], None) not in grants}


def _plan_relation(plan: Plan, relation: Relation, wanted: set[Grant], role: str) -> None:
    title = f"{relation.schema}.{relation.name}"
    table = Identifier.of(relation.schema, relation.name)
    transaction = plan.transaction(title)
    revoked = relation.grants - wanted
    # REVOKE for a whole relation takes the same privilege from its columns.
    kept = {grant for grant in relation.grants - revoked if (grant[0], None) not in revoked}
    for verb, grants, reason in (
        ("REVOKE {what} ON TABLE {table} FROM {role}", revoked, "is audited, and must not be"),
        ("GRANT {what} ON TABLE {table} TO {role}", wanted - kept, "is to be audited"),
    ):
        if grants:
            transaction.add(
                sql(verb, what=_list(grants), table=table, role=Identifier.of(role)),
                f"{_words(grants)} of {title} {reason}",
                "grant",
            )


def _by_privilege(grants: set[Grant] | frozenset[Grant]) -> list[tuple[str, list[str]]]:
    """Return each privilege once for the whole relation, without columns, and once with the columns that have it."""
    found: dict[tuple[str, bool], list[str]] = {}
    for name, column in sorted(grants, key=lambda grant: (grant[0], grant[1] or "")):
        columns = found.setdefault((name, column is None), [])
        if column is not None:
            columns.append(column)
    return [(name, columns) for (name, _whole), columns in found.items()]


def _list(grants: set[Grant] | frozenset[Grant]) -> Joined:
    return Joined(", ", tuple(_privilege(name, columns) for name, columns in _by_privilege(grants)))


def _privilege(name: str, columns: list[str]) -> Sql:
    return sql(f"{name.upper()} ({{columns}})", columns=identifiers(columns)) if columns else sql(name.upper())


def _words(grants: set[Grant] | frozenset[Grant]) -> str:
    return ", ".join(name + (f" of {', '.join(columns)}" if columns else "") for name, columns in _by_privilege(grants))


def plan_extension(plan: Plan, database: str, catalog: DatabaseCatalog, schema: str, loaded: bool) -> str | None:
    """Plan the extension, by which DDL is recorded with the objects that it changes; return its version to be.

    While the library is not loaded, nothing can be done, and there is no version.
    """
    if catalog.extension is None and loaded:
        plan.transaction(_EXTENSION, required=True).add(
            sql("CREATE EXTENSION pgaudit SCHEMA {schema}", schema=Identifier.of(schema)),
            f"database {database} lacks the extension pgaudit",
            "missing",
        )
    elif catalog.extension is not None and catalog.available not in (None, catalog.extension):
        plan.transaction(_EXTENSION, required=True).add(
            sql("ALTER EXTENSION pgaudit UPDATE"),
            f"the extension pgaudit of database {database} is {catalog.extension}, installed is {catalog.available}",
            "altered",
        )
    return catalog.available or catalog.extension if catalog.extension or loaded else None


def plan_extension_removal(plan: Plan, database: str, catalog: DatabaseCatalog) -> None:
    if catalog.extension is not None:
        plan.transaction(_EXTENSION).add(
            sql("DROP EXTENSION pgaudit"), f"database {database} has the extension pgaudit, which is to go"
        )


_EXTENSION = "extension pgaudit"
