# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which policy rules which table: the first that matches wins, and nothing that was asked for is quietly ignored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .errors import AuditError
from .exemption import Exemption
from .policy import Policy, without_case

#: Why a pattern passes a log by; an exact name takes it.
_LOG_OF_OTHERS = (
    "a log of changes that other triggers write: each change would be recorded twice; name it exactly to audit it"
)


class Table(Protocol):
    """What matching needs to know of a table, on any engine."""

    schema: str
    name: str
    columns: tuple[str, ...]
    #: Why the table cannot be audited (a view, a foreign table, ...), or None.
    obstacle: str | None
    #: The table that this one is an inheritance child of, as (schema, name), or None.
    parent: tuple[str, str] | None
    #: The root of the partition tree that this table is a part of, as (schema, name), or None.
    root: tuple[str, str] | None


@dataclass
class Selection:
    """The outcome: every audited table with its policy, every skipped one with the reason."""

    policies: dict[tuple[str, str], Policy] = field(default_factory=dict)
    skipped: dict[tuple[str, str], str] = field(default_factory=dict)
    exempted: dict[tuple[str, str], Exemption] = field(default_factory=dict)
    auditable: int = 0


def select(
    policies: Sequence[Policy],
    exemptions: Sequence[Exemption],
    tables: Mapping[tuple[str, str], Table],
    database: str,
    allow_missing: bool,
    logs: Collection[tuple[str, str]] = (),
    ignore_case: bool = False,
) -> Selection:
    """Match tables with policies.

    :param logs: tables that triggers of somebody else's copy other tables' rows into.
    :param ignore_case: whether the names of columns mean the same in upper and lower case, as on MariaDB and MySQL.
    :raises AuditError: for a pattern without a table, an exact one of a table that cannot be audited, a column of none.
    """
    if not allow_missing:
        _refuse_unmatched(policies, tables, database)
    selection = Selection()
    for key, table in tables.items():
        exemption = next((entry for entry in exemptions if entry.pattern.matches(*key)), None)
        policy = policy_for(key, policies, tables)
        passed_by = key in logs and not (policy and _names(policy, table))
        selection.auditable += int(table.obstacle is None and table.root is None and not passed_by)
        if exemption:
            selection.exempted[key] = exemption
        elif policy is None:
            continue
        elif table.obstacle:
            _refuse_exact(policy, table, database)
            selection.skipped[key] = table.obstacle
        elif passed_by:
            selection.skipped[key] = _LOG_OF_OTHERS
        elif table.root and _covered(table.root, policies, exemptions, tables):
            continue
        else:
            selection.policies[key] = policy
    if not allow_missing:
        _refuse_unknown_columns(policies, selection, tables, database, without_case if ignore_case else str)
    return selection


def policy_for(
    key: tuple[str, str], policies: Sequence[Policy], tables: Mapping[tuple[str, str], Table]
) -> Policy | None:
    """The first policy that names the table, else the one of its inheritance parent."""
    seen: set[tuple[str, str]] = set()
    current: tuple[str, str] | None = key
    while current and current not in seen:
        seen.add(current)
        match = next((policy for policy in policies if policy.matches(*current)), None)
        if match:
            return match
        table = tables.get(current)
        current = table.parent if table else None
    return None


def _covered(
    root: tuple[str, str],
    policies: Sequence[Policy],
    exemptions: Sequence[Exemption],
    tables: Mapping[tuple[str, str], Table],
) -> bool:
    """Tell whether a partition's root is audited itself, so that the partition must be left alone."""
    exempted = any(entry.pattern.matches(*root) for entry in exemptions)
    return root in tables and not exempted and policy_for(root, policies, tables) is not None


def _refuse_unmatched(policies: Sequence[Policy], tables: Mapping[tuple[str, str], Table], database: str) -> None:
    for policy in policies:
        for pattern in policy.tables:
            if not any(pattern.matches(*key) for key in tables):
                raise AuditError(
                    f"{database}: policy {policy.name!r}: {pattern.text!r} matches no table; correct it, "
                    "or set `allow_missing: true` if the table is yet to come"
                )


def _names(policy: Policy, table: Table) -> bool:
    """Tell whether a policy names a table and does not only match it."""
    return any(pattern.exact and pattern.matches(table.schema, table.name) for pattern in policy.tables)


def _refuse_exact(policy: Policy, table: Table, database: str) -> None:
    for pattern in policy.tables:
        if pattern.exact and pattern.matches(table.schema, table.name):
            raise AuditError(
                f"{database}: policy {policy.name!r} names {pattern.text!r}, which cannot be audited: "
                f"{table.obstacle}; take it out of `tables`"
            )


def _refuse_unknown_columns(
    policies: Sequence[Policy],
    selection: Selection,
    tables: Mapping[tuple[str, str], Table],
    database: str,
    comparable: Callable[[str], str],
) -> None:
    for policy in policies:
        keys = [key for key, chosen in selection.policies.items() if chosen is policy]
        present = {comparable(column) for key in keys for column in tables[key].columns}
        for column in policy.named_columns():
            if keys and comparable(column) not in present:
                raise AuditError(
                    f"{database}: policy {policy.name!r}: column {column!r} is in none of its tables "
                    f"({', '.join('.'.join(key) for key in keys[:5])}); correct or remove it, "
                    "or set `allow_missing: true` if the column is yet to come"
                )


def other_spellings(selection: Selection, tables: Mapping[tuple[str, str], Table]) -> list[str]:
    """Return a warning for every column of which only the letters' case keeps it from what its table's policy says."""
    warnings = []
    for key, policy in selection.policies.items():
        named, columns = policy.named_columns(), tables[key].columns
        unmet = {without_case(name): name for name in named if name not in columns}
        warnings += [
            f"{'.'.join(key)}: policy {policy.name!r} names {unmet[without_case(column)]!r}, which to the server is "
            f"another column than its {column!r}: nothing that the policy says of it holds there; name {column!r} too"
            for column in columns
            if column not in named and without_case(column) in unmet
        ]
    return warnings
