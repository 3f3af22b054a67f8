# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that takes the trail out again: capture first, and the rows only when told so."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace

from .._core.errors import AuditError
from .._core.plan import Plan, Transaction
from .._core.sql import Identifier, sql
from .accounts import ACCOUNTS, DROP_ACCOUNT, OWNER, Account
from .grants import plan_revokes
from .partitions_module import EVENT
from .session import Session
from .trail_catalog import TrailCatalog
from .trail_functions import AWAIT_WRITERS, trail_routines
from .trail_options import TrailOptions
from .trail_tables import LOG, MARK, TABLES, VIEWS
from .trigger import CurrentTrigger, Slots, drop, read_triggers

#: What archiving has beside the log, and what postgresql_audit_restore's twin has made, by their comments.
_OURS_BY_COMMENT = re.compile(rf"{re.escape(MARK)}(\b|$)")


def plan_removal(catalog: TrailCatalog, drop_log: bool, session: Session) -> Plan:
    """Return what removes the trail.

    :raises AuditError: while tables still carry audit triggers, or where something else is in the trail's database.
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
        _refuse_foreign(catalog, session)
        _take_out(steps, catalog, session, list(VIEWS), guards=False)
        for account in ACCOUNTS:
            _drop_account(steps, account, catalog)
        # Last, for the mark of a run that was cut off is in it.
        statement = sql("DROP DATABASE {schema}", schema=Identifier.of(catalog.schema))
        steps.add(statement, "the log and its rows go, as asked (drop_log)")
    else:
        # The log stays with its guards, which need no account but the one that defines them.
        _take_out(steps, catalog, session, [name for name in VIEWS if name != "audit_log"], guards=True)
        _drop_account(steps, OWNER, catalog)
    return plan


def _all_of(tables: Mapping[tuple[str, str], Slots]) -> list[CurrentTrigger]:
    return [found for slots in tables.values() for slot in slots.values() for found in slot]


def _routines(session: Session, schema: str) -> set[str]:
    options = TrailOptions(schema, (), (), ())
    return {AWAIT_WRITERS, *(routine.name for routine in trail_routines(options, session.vendor))}


def _refuse_foreign(catalog: TrailCatalog, session: Session) -> None:
    """Refuse to drop a database that holds something of others.

    :raises AuditError: naming it.
    """
    tables = [
        name
        for name, table in catalog.tables.items()
        if name not in TABLES and name not in VIEWS and not _OURS_BY_COMMENT.match(table["comment"] or "")
    ]
    others = [f"table or view {name}" for name in tables]
    others += [f"routine {name}" for name in catalog.routines if name not in _routines(session, catalog.schema)]
    others += [f"event {name}" for name in catalog.events if name != EVENT]
    if others:
        raise AuditError(
            f"database {catalog.schema!r} holds what dbfleet.audit did not make: {', '.join(sorted(others)[:5])}; move "
            "it away, or drop it, before the log is dropped"
        )


def _take_out(
    steps: Transaction, catalog: TrailCatalog, session: Session, views: Collection[str], guards: bool
) -> None:
    """Add what takes out all but the tables; rights first, for the server keeps them when their objects are gone."""
    ours = {account.grantee for account in ACCOUNTS}
    routines = _routines(session, catalog.schema)
    going = [grant for grant in catalog.grants if grant.grantee not in ours]
    if guards:
        going = [grant for grant in going if grant.name in views or grant.name in routines]
    plan_revokes(steps, [], replace(catalog, grants=going), session)
    if EVENT in catalog.events:
        steps.add(sql("DROP EVENT {event}", event=Identifier.of(catalog.schema, EVENT)), f"event {EVENT} goes")
    for name in views:
        if name in catalog.views:
            steps.add(sql("DROP VIEW {view}", view=Identifier.of(catalog.schema, name)), f"view {name} goes")
    for found in _all_of(catalog.triggers):
        if found.table != LOG or not guards:
            steps.add(drop(found), f"{found.name} of {found.table} goes")
    for name, routine in sorted(catalog.routines.items()):
        if name in routines:
            statement = sql(f"DROP {routine['kind']} {{name}}", name=Identifier.of(catalog.schema, name))
            steps.add(statement, f"{name} goes")


def _drop_account(steps: Transaction, account: Account, catalog: TrailCatalog) -> None:
    if account.grantee in catalog.accounts:
        steps.add(sql(DROP_ACCOUNT, account=account.sql()), f"account {account} goes")
