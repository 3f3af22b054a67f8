# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that brings every table of a server under its policy."""

from __future__ import annotations

from collections.abc import Sequence

from .._core.plan import Plan, Transaction
from .._core.policy import Limits, Policy
from .._core.policy_versions import VersionStatements, plan_versions
from .._core.rollout import TriggerOptions, TriggerPlan, unmatched_exemptions
from .._core.selection import Selection, select
from .._core.sql import Identifier, sql
from .capture import Capture
from .grants import plan_audited_databases
from .session import Session
from .trail_functions import AWAIT_WRITERS
from .trigger import CurrentTrigger, Trigger, drop
from .trigger_catalog import MysqlTable, TriggerCatalog

POLICIES = "policies"

#: What triggers cannot do on these servers.
LIMITS = Limits(
    operations={"truncate": "no trigger sees TRUNCATE here; leave it out (its operations are insert, update, delete)"},
    keys={
        ("capture", "statement"): "triggers here see single rows only; remove `capture`",
        ("auto_attach", True): "nothing here runs when a table is created; run the rollout after migrations instead",
    },
)

_VERSIONS = VersionStatements(
    add="""
INSERT INTO {schema}.policy (policy_id, name, position, patterns, definition, classification, retention, tags,
  valid_from)
VALUES ({id}, {name}, {position}, {patterns}, {definition}, {classification}, {retention}, {tags}, UTC_TIMESTAMP(6))
""",
    move="UPDATE {schema}.policy SET position = {position} WHERE policy_id = {id}",
    close="UPDATE {schema}.policy SET valid_to = UTC_TIMESTAMP(6) WHERE policy_id = {id}",
)


def plan_triggers(options: TriggerOptions, catalog: TriggerCatalog, session: Session) -> TriggerPlan:
    """Return what brings every table under its policy.

    :raises AuditError: for anything in the policies that the server does not bear out.
    """
    selection = select(
        options.policies,
        options.exemptions,
        catalog.tables,
        options.database,
        options.allow_missing,
        catalog.logs,
        ignore_case=True,
    )
    warnings = unmatched_exemptions(options, selection) + _warnings(selection, catalog, session)
    result = TriggerPlan(Plan(), selection, warnings)
    policies = result.plan.transaction(POLICIES, required=True)
    ids = plan_versions(policies, options.schema, options.policies, catalog.stored, _VERSIONS, options.purge)
    databases = {schema for schema, _table in selection.policies}
    plan_audited_databases(policies, databases, options.purge, catalog.trail, session)
    for key, table in catalog.tables.items():
        policy = selection.policies.get(key)
        wanted = wanted_triggers(table, policy, ids[policy.name], options.schema, session) if policy else []
        current = catalog.triggers_of(table)
        transaction = result.plan.transaction(table.title)
        changed = [trigger for trigger in wanted if trigger.difference(current.get(trigger.slot, []))]
        if policy and policy.when:
            result.conditional.extend((trigger, policy.when) for trigger in changed)
        surplus = {slot for slot in current if slot not in {trigger.slot for trigger in wanted}}
        if key in selection.skipped or not (wanted or options.purge):
            surplus = set()
        unwanted = [found for slot in sorted(surplus) for found in current[slot]]
        _plan_table(transaction, table, changed, unwanted, catalog, options.schema)
    return result


def _plan_table(
    transaction: Transaction,
    table: MysqlTable,
    changed: Sequence[Trigger],
    unwanted: Sequence[CurrentTrigger],
    catalog: TriggerCatalog,
    schema: str,
) -> None:
    """Add what makes, replaces and drops the triggers of one table, while no change of it can fall in between."""
    if not (changed or unwanted):
        return
    current = catalog.triggers_of(table)
    place = {"table": Identifier.of(table.schema, table.name)}
    if current and AWAIT_WRITERS in catalog.trail.routines:
        statement = sql("CALL {procedure}()", procedure=Identifier.of(schema, AWAIT_WRITERS))
        transaction.add(statement, f"{table.title}: other changes must not wait for ours to begin")
    transaction.add(sql("LOCK TABLES {table} WRITE", **place), f"{table.title}: no change falls in between")
    for trigger in changed:
        trigger.plan(transaction, current.get(trigger.slot, []))
    for found in unwanted:
        transaction.add(drop(found), f"{table.title}: no policy asks for {found.name}", "altered")
    transaction.add(sql("UNLOCK TABLES"), f"{table.title}: changes go on")


def wanted_triggers(table: MysqlTable, policy: Policy, policy_id: int, schema: str, session: Session) -> list[Trigger]:
    """Return the triggers that the policy wants on the table."""
    columns = {column.name: column for column in table.typed}
    key = [columns[name] for name in table.key]
    # To the server `ssn` and `SSN` are one column; the stored policy stays as it was written, and so its version.
    spelled = policy.spelled(table.columns)
    capture = Capture(schema, (table.schema, table.name), table.typed, key, spelled, policy_id, session.is_mariadb)
    return [
        Trigger((table.schema, table.name), "AFTER", operation, capture.body(operation).render(session))
        for operation in policy.operations
    ]


def _warnings(selection: Selection, catalog: TriggerCatalog, session: Session) -> list[str]:
    warnings = []
    for key in selection.policies:
        table = catalog.tables[key]
        if not table.key:
            warnings.append(f"{table.title} has no key: its records carry no record_id")
        if table.foreign_keys and not session.on("enable_cascade_triggers"):
            warnings.append(
                f"{table.title}: what foreign keys change of it fires no trigger and is not recorded: "
                f"{'; '.join(table.foreign_keys)}; replace the action by statements of the application, or by RESTRICT"
            )
        if not table.is_transactional:
            warnings.append(
                f"{table.title}: engine {table.engine} knows no transactions: a change whose record fails, or that is "
                "rolled back, stays"
            )
    return warnings
