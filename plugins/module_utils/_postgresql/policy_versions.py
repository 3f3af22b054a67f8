# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every version of every policy stays in the trail, and the one in force has a capture function."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .._core.plan import Transaction
from .._core.policy import Exemption, Policy
from .._core.selection import Selection
from .._core.sql import Identifier, Literal, Quoter, sql
from .attach_functions import EXCEPTIONS_SETTING
from .capture import capture_function, capture_name
from .function import plan_functions
from .trail_catalog import TrailCatalog
from .trigger_catalog import PgTable, StoredPolicy

_ADD_POLICY = """
INSERT INTO {schema}.policy (policy_id, name, position, function, patterns, definition, classification, retention, tags)
VALUES ({id}, {name}, {position}, {function}, {patterns}, {definition}, {classification}, {retention}, {tags})
"""

_MOVE_POLICY = "UPDATE {schema}.policy SET position = {position} WHERE policy_id = {id}"

_KEEP_EXCEPTIONS = """
INSERT INTO {schema}.setting (name, value) VALUES ({name}, {value})
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""

_CLOSE_POLICY = "UPDATE {schema}.policy SET valid_to = clock_timestamp() WHERE policy_id = {id}"


@dataclass(frozen=True)
class TriggerOptions:
    """What the user asked for; field names are the module's options."""

    schema: str
    database: str
    policies: Sequence[Policy]
    exemptions: Sequence[Exemption]
    purge: bool
    allow_missing: bool


@dataclass
class TriggerCatalog:
    """What the server has: the trail, every table, every stored policy."""

    trail: TrailCatalog
    tables: Mapping[tuple[str, str], PgTable]
    stored: Sequence[StoredPolicy]
    encoding: str


def plan_policies(
    transaction: Transaction,
    options: TriggerOptions,
    catalog: TriggerCatalog,
    selection: Selection,
    quoter: Quoter,
) -> None:
    """Add what brings every policy into force: its row, and its capture function with the row's id in it."""
    current = {stored.name: stored for stored in catalog.stored if stored.current}
    next_id = max((stored.policy_id for stored in catalog.stored), default=0) + 1
    place = {"schema": Identifier.of(options.schema)}
    functions = []
    for position, policy in enumerate(options.policies, 1):
        stored = current.pop(policy.name, None)
        if stored and stored.definition == policy.definition():
            policy_id = stored.policy_id
            if stored.position != position:
                statement = sql(_MOVE_POLICY, id=Literal(policy_id), position=Literal(position), **place)
                transaction.add(statement, f"policy {policy.name!r} is now number {position}", "altered")
        else:
            policy_id, next_id = next_id, next_id + 1
            if stored:
                _close(transaction, stored, place, "has a new version")
            _add(transaction, policy, policy_id, position, place)
        owners = partition_owners(policy, selection, catalog)
        silent = catalog.trail.login.silences_pgaudit
        functions.append(capture_function(policy, policy_id, options.schema, silent, owners))
    plan_functions(transaction, options.schema, functions, catalog.trail, quoter)
    _plan_exceptions(transaction, options, catalog, place)
    if options.purge:
        for stored in current.values():
            _close(transaction, stored, place, "is no longer asked for")


def _plan_exceptions(
    transaction: Transaction, options: TriggerOptions, catalog: TriggerCatalog, place: Mapping[str, Identifier]
) -> None:
    """Keep the exceptions where add_table() and auto_attach find them."""
    wanted = json.dumps([exemption.pattern.regexes for exemption in options.exemptions], ensure_ascii=False)
    if catalog.trail.settings.get(EXCEPTIONS_SETTING, "[]") != wanted:
        statement = sql(_KEEP_EXCEPTIONS, name=Literal(EXCEPTIONS_SETTING), value=Literal(wanted), **place)
        transaction.add(statement, "the exceptions have changed", "altered")


def _add(
    transaction: Transaction, policy: Policy, policy_id: int, position: int, place: Mapping[str, Identifier]
) -> None:
    statement = sql(
        _ADD_POLICY,
        id=Literal(policy_id),
        name=Literal(policy.name),
        position=Literal(position),
        function=Literal(capture_name(policy)),
        patterns=Literal(json.dumps(policy.patterns(), ensure_ascii=False)),
        definition=Literal(policy.definition_text()),
        classification=Literal(policy.classification),
        retention=Literal(policy.retention),
        tags=Literal(list(policy.tags)),
        **place,
    )
    transaction.add(statement, f"policy {policy.name!r} (version {policy_id}) comes into force", "altered")


def _close(transaction: Transaction, stored: StoredPolicy, place: Mapping[str, Identifier], why: str) -> None:
    statement = sql(_CLOSE_POLICY, id=Literal(stored.policy_id), **place)
    transaction.add(statement, f"policy {stored.name!r} (version {stored.policy_id}) {why}", "altered")


def partition_owners(policy: Policy, selection: Selection, catalog: TriggerCatalog) -> list[str]:
    """Return the owners of the policy's partitioned tables, on every level of their trees."""
    audited = {key for key, chosen in selection.policies.items() if chosen is policy}
    tables = (table for key, table in catalog.tables.items() if key in audited or table.root in audited)
    return sorted({table.owner for table in tables if table.kind == "p"})
