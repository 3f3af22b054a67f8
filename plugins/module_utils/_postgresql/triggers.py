# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that brings every table of a database under its policy."""

from __future__ import annotations

from .._core.errors import AuditError
from .._core.plan import Plan, Transaction
from .._core.rollout import TriggerOptions, TriggerPlan, unmatched_exemptions
from .._core.selection import Selection, other_spellings, select
from .._core.sql import Identifier, Literal, Quoter, sql
from .capture import capture_name, is_capture
from .ddl_functions import rollout_lock
from .policy_versions import TriggerCatalog, plan_policies
from .trigger import PREFIX, Trigger, wanted_triggers
from .trigger_catalog import CONDITION_DIGEST, PgTable

#: Tables that a warning names; it counts the others.
_NAMED = 10

POLICIES = "policies"
UNUSED = "functions of policies no longer in force"

# The condition as the server keeps it, so that the next run can tell whether anybody changed it.
_REMEMBER_CONDITION = """
INSERT INTO {schema}.definition (object, source_digest, server_digest)
SELECT {object}, {digest}, {server_digest}
FROM pg_trigger AS t
WHERE t.tgrelid = {table}::regclass AND t.tgname = {trigger}
ON CONFLICT (object) DO UPDATE
  SET source_digest = excluded.source_digest, server_digest = excluded.server_digest
"""


def plan_triggers(options: TriggerOptions, catalog: TriggerCatalog, quoter: Quoter) -> TriggerPlan:
    """Return what brings every table under its policy.

    :raises AuditError: for anything in the policies that the database does not bear out.
    """
    selection = select(
        options.policies, options.exemptions, catalog.tables, options.database, options.allow_missing, catalog.logs
    )
    _refuse_statement_capture(selection, catalog, options.database)
    result = TriggerPlan(
        Plan(lock=rollout_lock(options.schema)),
        selection,
        _warnings(options, selection, catalog),
        _limitations(selection, catalog),
    )
    plan_policies(result.plan.transaction(POLICIES, required=True), options, catalog, selection, quoter)
    for key, table in catalog.tables.items():
        policy = selection.policies.get(key)
        wanted = wanted_triggers(table, policy) if policy else []
        transaction = result.plan.transaction(table.title)
        conditional = [trigger for trigger in wanted if trigger.when and _difference(trigger, catalog)]
        if policy and conditional:
            result.conditional.extend(conditional)
            _plan_check(transaction, table, policy.name, options.schema, quoter)
        for trigger in wanted:
            _plan_trigger(transaction, trigger, catalog, options.schema, quoter)
        # A policy does ask for a table that is skipped for want of rights; another login may have audited it.
        if key not in selection.skipped:
            _plan_drops(transaction, table, {trigger.name for trigger in wanted}, options.purge)
    if options.purge:
        _plan_unused(result.plan.transaction(UNUSED), options, catalog)
    return result


def _difference(trigger: Trigger, catalog: TriggerCatalog) -> str:
    current = trigger.table.triggers.get(trigger.name)
    difference = trigger.difference(current, catalog.trail.definitions.get(trigger.object), catalog.encoding)
    if current and not (difference or trigger.table.owned or current["enabled"] in "AO"):
        # Only an owner can switch a trigger on; one that is made anew is on.
        return "is disabled"
    return difference


def _plan_check(transaction: Transaction, table: PgTable, policy: str, schema: str, quoter: Quoter) -> None:
    statement = sql(
        "SELECT {schema}.refuse_hidden_domain({table}, {policy})",
        schema=Identifier.of(schema),
        table=Literal(quoter.identifier(table.schema, table.name)),
        policy=Literal(policy),
    )
    transaction.add(statement, f"{table.title}: no code of its owner's runs when the condition is read")


def _plan_trigger(
    transaction: Transaction, trigger: Trigger, catalog: TriggerCatalog, schema: str, quoter: Quoter
) -> None:
    table = trigger.table
    current = table.triggers.get(trigger.name)
    difference = _difference(trigger, catalog)
    place = {"table": Identifier.of(table.schema, table.name), "trigger": Identifier.of(trigger.name)}
    if difference:
        problem = "altered" if current else "missing"
        transaction.add(trigger.create(schema), f"{table.title}: {trigger.name} {difference}", problem)
    if table.owned and (difference or current["enabled"] != "A" or current["clones_off"]):
        # In the same transaction: CREATE OR REPLACE leaves a trigger that session_replication_role can silence.
        transaction.add(
            sql("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}", **place),
            f"{table.title}: {trigger.name} does not fire in every session",
            None if difference else "disabled",
        )
    if difference and trigger.per_row and trigger.when:
        statement = sql(
            _REMEMBER_CONDITION,
            schema=Identifier.of(schema),
            object=Literal(trigger.object),
            digest=Literal(trigger.source_digest),
            server_digest=sql(CONDITION_DIGEST),
            table=Literal(quoter.identifier(table.schema, table.name)),
            trigger=Literal(trigger.name),
        )
        transaction.add(statement, f"{table.title}: the condition as the server keeps it")


def _plan_drops(transaction: Transaction, table: PgTable, wanted: set[str], purge: bool) -> None:
    for name, current in table.triggers.items():
        unwanted = current["ours"] and name not in wanted
        if unwanted and (purge or wanted):
            statement = sql(
                "DROP TRIGGER {trigger} ON {table}",
                trigger=Identifier.of(name),
                table=Identifier.of(table.schema, table.name),
            )
            transaction.add(statement, f"{table.title}: no policy asks for {name}", "altered")


def _plan_unused(transaction: Transaction, options: TriggerOptions, catalog: TriggerCatalog) -> None:
    wanted = {capture_name(policy) for policy in options.policies}
    for name in sorted(set(catalog.trail.functions) - wanted):
        if is_capture(name):
            function = Identifier.of(options.schema, name)
            transaction.add(sql("DROP FUNCTION {function}()", function=function), f"no policy uses {name}", "altered")


def _refuse_statement_capture(selection: Selection, catalog: TriggerCatalog, database: str) -> None:
    for key, policy in selection.policies.items():
        if policy.capture != "statement":
            continue
        table = catalog.tables[key]
        obstacles = {
            "it is partitioned": table.kind == "p",
            "it is a partition": table.root is not None,
            "it has inheritance children": table.has_children,
            "it is an inheritance child": table.parent is not None,
            "a subscription writes to it": table.subscribed,
        }
        reason = next((reason for reason, holds in obstacles.items() if holds), None)
        if reason:
            raise AuditError(
                f"{database}: policy {policy.name!r}: `capture: statement` would miss changes of {table.title} "
                f"({reason}); use `capture: row` for it"
            )


def _warnings(options: TriggerOptions, selection: Selection, catalog: TriggerCatalog) -> list[str]:
    warnings = unmatched_exemptions(options, selection) + other_spellings(selection, catalog.tables)
    for key in selection.policies:
        table = catalog.tables[key]
        if table.persistence == "u":
            warnings.append(f"{table.title} is unlogged: a crash empties it, and its audit records stay behind")
        if not table.key:
            warnings.append(f"{table.title} has no key: its records carry no record_id")
    return warnings + _nesting(options.database, selection, catalog)


def _nesting(database: str, selection: Selection, catalog: TriggerCatalog) -> list[str]:
    """Warn of triggers whose changes of their own table are recorded before the change that made them fire."""
    places = []
    for key, policy in sorted(selection.policies.items()):
        table = catalog.tables[key]
        names = sorted(name for name, early in table.nesting.items() if early or policy.capture == "statement")
        if names:
            places.append(f"{table.title} ({', '.join(names)})")
    if not places:
        return []
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return [
        f"{database}: triggers for each row that seem to change their own table fire before the audit's: "
        f"{', '.join(places[:_NAMED])}{more}. Such a change is recorded before the one that caused it. Rename them to "
        f"sort after {PREFIX} (ALTER TRIGGER ... RENAME TO zz_...); under `capture: statement`, use `capture: row` too"
    ]


def _limitations(selection: Selection, catalog: TriggerCatalog) -> list[str]:
    foreign = [catalog.tables[key].title for key in selection.policies if not catalog.tables[key].owned]
    if not foreign:
        return []
    return [
        f"the login holds TRIGGER on {', '.join(foreign)} but not the owner's rights: triggers there cannot be ENABLE "
        "ALWAYS (session_replication_role = replica and logical replication pass them by), nor can it drop them again"
    ]
