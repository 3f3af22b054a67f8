# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every policy in force has its version in the trail, and a capture function."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .._core.plan import Transaction
from .._core.policy import Policy
from .._core.policy_versions import StoredPolicy, VersionStatements, plan_versions
from .._core.rollout import TriggerOptions
from .._core.selection import Selection
from .._core.sql import Identifier, Literal, Quoter, sql
from .attach_functions import EXCEPTIONS_SETTING
from .capture import capture_function, capture_name
from .function import plan_functions
from .trail_catalog import TrailCatalog
from .trigger_catalog import PgTable

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


_VERSIONS = VersionStatements(_ADD_POLICY, _MOVE_POLICY, _CLOSE_POLICY)


@dataclass
class TriggerCatalog:
    """What the server has: the trail, every table, every stored policy.

    :ivar logs: tables that triggers of somebody else's copy other tables' rows into, and that we do not audit yet.
    """

    trail: TrailCatalog
    tables: Mapping[tuple[str, str], PgTable]
    stored: Sequence[StoredPolicy]
    encoding: str
    logs: set[tuple[str, str]] = field(default_factory=set)


def plan_policies(
    transaction: Transaction,
    options: TriggerOptions,
    catalog: TriggerCatalog,
    selection: Selection,
    quoter: Quoter,
) -> None:
    """Add what brings every policy into force: its row, and its capture function with the row's id in it."""
    names = {policy.name: capture_name(policy) for policy in options.policies}
    ids = plan_versions(
        transaction, options.schema, options.policies, catalog.stored, _VERSIONS, options.purge, functions=names
    )
    silent = catalog.trail.login.silences_pgaudit
    functions = [
        capture_function(policy, ids[policy.name], options.schema, silent, partition_owners(policy, selection, catalog))
        for policy in options.policies
    ]
    plan_functions(transaction, options.schema, functions, catalog.trail, quoter)
    _plan_exceptions(transaction, options, catalog)


def _plan_exceptions(transaction: Transaction, options: TriggerOptions, catalog: TriggerCatalog) -> None:
    """Keep the exceptions where add_table() and auto_attach find them."""
    wanted = json.dumps([exemption.pattern.regexes for exemption in options.exemptions], ensure_ascii=False)
    if catalog.trail.settings.get(EXCEPTIONS_SETTING, "[]") != wanted:
        statement = sql(
            _KEEP_EXCEPTIONS,
            name=Literal(EXCEPTIONS_SETTING),
            value=Literal(wanted),
            schema=Identifier.of(options.schema),
        )
        transaction.add(statement, "the exceptions have changed", "altered")


def partition_owners(policy: Policy, selection: Selection, catalog: TriggerCatalog) -> list[str]:
    """Return the owners of the policy's partitioned tables, on every level of their trees."""
    audited = {key for key, chosen in selection.policies.items() if chosen is policy}
    tables = (table for key, table in catalog.tables.items() if key in audited or table.root in audited)
    return sorted({table.owner for table in tables if table.kind == "p"})
