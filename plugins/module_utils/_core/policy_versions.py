# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every version of every policy stays in the trail; which one is in force, on any engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .plan import Transaction
from .policy import Policy
from .sql import Identifier, Literal, sql


@dataclass(frozen=True)
class StoredPolicy:
    """A version of a policy as the trail keeps it."""

    policy_id: int
    name: str
    position: int
    definition: dict[str, Any]
    current: bool


@dataclass(frozen=True)
class VersionStatements:
    """The engine's three statements on its table of policies.

    :ivar add: takes the places id, name, position, patterns, definition, classification, retention, tags and, where
        the engine has functions for policies, function.
    """

    add: str
    move: str
    close: str


def plan_versions(
    transaction: Transaction,
    schema: str,
    policies: Sequence[Policy],
    versions: Sequence[StoredPolicy],
    statements: VersionStatements,
    purge: bool,
    functions: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Add what brings the policies into force; return the id of each one's version by the policy's name.

    :param functions: the name of each policy's function by the policy's name.
    """
    current = {stored.name: stored for stored in versions if stored.current}
    next_id = max((stored.policy_id for stored in versions), default=0) + 1
    place = {"schema": Identifier.of(schema)}
    ids = {}

    def close(stored: StoredPolicy, why: str) -> None:
        reason = f"policy {stored.name!r} (version {stored.policy_id}) {why}"
        transaction.add(sql(statements.close, id=Literal(stored.policy_id), **place), reason, "altered")

    for position, policy in enumerate(policies, 1):
        stored = current.pop(policy.name, None)
        if stored and stored.definition == policy.definition():
            ids[policy.name] = stored.policy_id
            if stored.position != position:
                places = {"id": Literal(stored.policy_id), "position": Literal(position), **place}
                reason = f"policy {policy.name!r} is now number {position}"
                transaction.add(sql(statements.move, **places), reason, "altered")
            continue
        ids[policy.name], next_id = next_id, next_id + 1
        if stored:
            close(stored, "has a new version")
        places = _columns(policy, (functions or {}).get(policy.name))
        statement = sql(statements.add, id=Literal(ids[policy.name]), position=Literal(position), **places, **place)
        reason = f"policy {policy.name!r} (version {ids[policy.name]}) comes into force"
        transaction.add(statement, reason, "altered")
    if purge:
        for stored in current.values():
            close(stored, "is no longer asked for")
    return ids


def _columns(policy: Policy, function: str | None) -> dict[str, Literal]:
    return {
        "name": Literal(policy.name),
        "function": Literal(function),
        "patterns": Literal(json.dumps(policy.patterns(), ensure_ascii=False)),
        "definition": Literal(policy.definition_text()),
        "classification": Literal(policy.classification),
        "retention": Literal(policy.retention),
        "tags": Literal(list(policy.tags)),
    }
