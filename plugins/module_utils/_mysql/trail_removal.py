# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that takes the trail out again: capture first, and the rows only when told so."""

from __future__ import annotations

from collections.abc import Mapping

from .._core.errors import AuditError
from .._core.plan import Plan, Transaction
from .._core.sql import Identifier, sql
from .accounts import ACCOUNTS, DROP_ACCOUNT, OWNER
from .session import Session
from .trail_catalog import TrailCatalog
from .trail_tables import LOG, MARK, VIEWS
from .trigger import CurrentTrigger, Slots, drop, read_triggers


def plan_removal(catalog: TrailCatalog, drop_log: bool, session: Session) -> Plan:
    """Return what removes the trail.

    :raises AuditError: while tables still carry audit triggers.
    """
    plan = Plan()
    if not (catalog.installed and (catalog.tables[LOG]["comment"] or "").startswith(MARK)):
        return plan
    left = _all_of(read_triggers(session, catalog.schema, elsewhere=True))
    if left:
        raise AuditError(
            f"{len(left)} triggers still write to the log (first: {left[0].schema}.{left[0].table} {left[0].name}); "
            "remove them first: mysql_audit_triggers with `policies: []` and `purge: true`"
        )
    steps = plan.transaction(f"trail {catalog.schema}", required=True)
    if drop_log:
        schema = Identifier.of(catalog.schema)
        steps.add(sql("DROP DATABASE {schema}", schema=schema), "the log and its rows go, as asked (drop_log)")
        for account in ACCOUNTS:
            steps.add(sql(DROP_ACCOUNT, account=account.sql()), f"account {account} goes")
    else:
        _keep_rows(steps, catalog)
    return plan


def _all_of(tables: Mapping[tuple[str, str], Slots]) -> list[CurrentTrigger]:
    return [found for slots in tables.values() for slot in slots.values() for found in slot]


def _keep_rows(steps: Transaction, catalog: TrailCatalog) -> None:
    """The log stays with its guards, which need no account but the one that defines them."""
    for name in sorted(catalog.events):
        steps.add(sql("DROP EVENT {event}", event=Identifier.of(catalog.schema, name)), f"event {name} goes")
    for name in VIEWS:
        if name != "audit_log" and name in catalog.views:
            steps.add(sql("DROP VIEW {view}", view=Identifier.of(catalog.schema, name)), f"view {name} goes")
    for found in _all_of(catalog.triggers):
        if found.table != LOG:
            steps.add(drop(found), f"{found.name} of the probe goes")
    for name, routine in sorted(catalog.routines.items()):
        statement = sql(f"DROP {routine['kind']} {{name}}", name=Identifier.of(catalog.schema, name))
        steps.add(statement, f"{name} goes")
    if OWNER.grantee in catalog.accounts:
        steps.add(sql(DROP_ACCOUNT, account=OWNER.sql()), f"account {OWNER} goes")
