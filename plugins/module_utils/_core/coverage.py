# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which tables are audited, by which policy, and which are not on purpose. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from .exemption import Exemption
from .policy import Policy, parse_policies
from .policy_versions import StoredPolicy

#: Operations that a table's triggers must have for it to count as audited, unless its policy asks for fewer.
_ROW_OPERATIONS = frozenset(("insert", "update", "delete"))


@dataclass(frozen=True)
class AuditedTable:
    """A table that can be audited, and what the server says of it.

    :ivar operations: those with an enabled trigger of ours; None where the login does not see triggers.
    :ivar width: average bytes of a row.
    :ivar inserted: rows written since the server counts, as `updated` and `deleted`; None where it does not count.
    :ivar types: the columns' types by their names; only for discovery.
    """

    schema: str
    name: str
    operations: tuple[str, ...] | None
    disabled: tuple[str, ...]
    parent: tuple[str, str] | None
    rows: int | None
    bytes: int | None
    width: float
    name_bytes: int
    columns: int
    inserted: int | None
    updated: int | None
    deleted: int | None
    types: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Judged:
    """A table, and the policy and the exception that mean it.

    :ivar exempt: whether the exception has not expired.
    """

    table: AuditedTable
    policy: Policy | None
    exemption: Exemption | None
    exempt: bool

    @property
    def audited(self) -> bool | None:
        """Whether it is audited; None where nobody can see that."""
        if self.table.operations is None:
            return None
        wanted = set(self.policy.operations) if self.policy else _ROW_OPERATIONS
        operations = set(self.table.operations)
        return bool(operations) and (operations >= _ROW_OPERATIONS or operations >= wanted)

    @property
    def excepted(self) -> bool:
        return self.exempt and not self.audited

    @property
    def problem(self) -> str | None:
        if self.table.disabled:
            return f"trigger disabled: {', '.join(self.table.disabled)}"
        if self.audited is None:
            return "the login does not see whether it has triggers"
        if self.policy is None or self.exempt:
            return None
        missing = [name for name in self.policy.operations if name not in (self.table.operations or ())]
        if missing:
            return f"policy {self.policy.name} asks for {', '.join(missing)}, and no trigger records it"
        return None


class Coverage:
    """What is audited of these tables.

    :param policies: those in force; None where the login may not read them.
    :param exemptions: the tables that are deliberately not audited.
    """

    def __init__(
        self,
        tables: Sequence[AuditedTable],
        policies: Sequence[Policy] | None,
        exemptions: Sequence[Exemption],
        today: date,
    ) -> None:
        self._today = today
        parents = {(table.schema, table.name): table.parent for table in tables}
        self._judged = []
        # One that was approved anew may stand behind the one that has expired.
        ordered = sorted(exemptions, key=lambda entry: entry.expired(today))
        for table in tables:
            exemption = _exemption_of(table, ordered)
            exempt = exemption is not None and not exemption.expired(today)
            self._judged.append(_Judged(table, _policy_of(table, policies or (), parents), exemption, exempt))

    def facts(self) -> dict[str, Any]:
        """Return what the info modules tell of it."""
        known = [judged.audited for judged in self._judged if judged.audited is not None]
        return {
            "auditable": len(self._judged),
            # Unknown is not zero: a login that sees no triggers must not report a fleet without auditing.
            "audited": sum(known) if known or not self._judged else None,
            "excepted": sum(judged.excepted for judged in self._judged),
            "tables": sorted(map(self._entry, self._judged), key=lambda entry: entry["table"]),
        }

    def missing(self) -> list[AuditedTable] | None:
        """Return the tables that are neither audited nor excepted, or None when nobody can see that of one of them."""
        asked = [judged for judged in self._judged if not judged.excepted]
        if any(judged.audited is None for judged in asked):
            return None
        return [judged.table for judged in asked if not judged.audited]

    def _entry(self, judged: _Judged) -> dict[str, Any]:
        table, policy, exemption = judged.table, judged.policy, judged.exemption
        return {
            "table": f"{table.schema}.{table.name}",
            "audited": judged.audited,
            "policy": policy.name if policy else None,
            "classification": policy.classification if policy else None,
            "retention": policy.retention if policy else None,
            "tags": list(policy.tags) if policy else [],
            "operations": None if table.operations is None else list(table.operations),
            "rows": table.rows,
            "bytes": table.bytes,
            "inserted": table.inserted,
            "updated": table.updated,
            "deleted": table.deleted,
            "problem": judged.problem,
            "exception": exemption.plain(self._today) if exemption else None,
        }


def in_force(stored: Iterable[StoredPolicy], database: str) -> list[Policy]:
    """Return the policies that the trail has in force, in their order."""
    current = sorted((policy for policy in stored if policy.current), key=lambda policy: policy.position)
    raw = [{**policy.definition, "name": policy.name} for policy in current]
    for definition in raw:
        definition.pop("redact_defaults", None)
    return parse_policies(raw, database)


def _exemption_of(table: AuditedTable, exemptions: Sequence[Exemption]) -> Exemption | None:
    return next((entry for entry in exemptions if entry.pattern.matches(table.schema, table.name)), None)


def _policy_of(
    table: AuditedTable, policies: Sequence[Policy], parents: Mapping[tuple[str, str], tuple[str, str] | None]
) -> Policy | None:
    """Return the first policy that means a table, else that of the table that it inherits from."""
    seen: set[tuple[str, str]] = set()
    key: tuple[str, str] | None = (table.schema, table.name)
    while key and key not in seen:
        seen.add(key)
        for policy in policies:
            if policy.matches(*key):
                return policy
        key = parents.get(key)
    return None
