# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options, planning and results of postgresql_audit_partitions; the planning itself is done by the server."""

from __future__ import annotations

from typing import Any

from .._core.errors import AuditError
from .._core.plan import Plan
from .._core.sql import Identifier, Literal, Verbatim, sql
from .module import PostgresqlModule
from .partition_functions import (
    AHEAD_SETTING,
    DEFAULT_AHEAD,
    DEFAULT_INTERVAL,
    INTERVAL_SETTING,
    INTERVALS,
    partition_probe,
)
from .session import Session

PARTITION_SPEC: dict[str, Any] = {
    "interval": {"type": "str", "choices": list(INTERVALS), "default": DEFAULT_INTERVAL},
    "ahead": {"type": "int", "default": DEFAULT_AHEAD},
}

_SETTING = "UPDATE {schema}.setting SET value = {value} WHERE name = {name}"

_STATE = """
SELECT current_setting('dbfleet.partitions')::jsonb AS plan,
       to_regclass(%(setting)s) IS NOT NULL AS installed
"""

_PARTITIONS = """
SELECT c.relname AS name,
       substring(pg_get_expr(c.relpartbound, c.oid) FROM 'FROM \\(''?([^'')]+)') AS lower,
       substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \\(''?([^'')]+)') AS upper
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass(%(log)s)
ORDER BY c.relname
"""


_INSTALLED = "SELECT to_regclass(%(log)s) IS NOT NULL AS installed"


def plan_partitions(session: Session, schema: str, interval: str, ahead: int) -> Plan:
    """Ask the server what is due.

    :param ahead: whole periods to have ready after the current one.
    """
    session.execute(partition_probe(schema, interval, ahead).render(session))
    setting = session.identifier(schema, "setting")
    state = session.one(_STATE, {"setting": setting})
    plan = Plan()
    # Before a first rollout, in check mode, the trail and its default settings are only predicted.
    current = {INTERVAL_SETTING: DEFAULT_INTERVAL, AHEAD_SETTING: str(DEFAULT_AHEAD)}
    if state.installed:
        current = dict(session.all(f"SELECT name, value FROM {setting}"))
    _plan_settings(plan, schema, {INTERVAL_SETTING: interval, AHEAD_SETTING: str(ahead)}, current)
    for unit in state.plan:
        transaction = plan.transaction(unit["subject"], required=True)
        for step in unit["statements"]:
            transaction.add(sql("{text}", text=Verbatim(step["sql"])), step["reason"], step.get("problem"))
    return plan


def _plan_settings(plan: Plan, schema: str, wanted: dict[str, str], current: dict[str, str]) -> None:
    transaction = plan.transaction("partition settings", required=True)
    for name, value in wanted.items():
        if current.get(name) != value:
            statement = sql(_SETTING, schema=Identifier.of(schema), name=Literal(name), value=Literal(value))
            transaction.add(statement, f"{name} becomes {value} for the timer too", "altered")


def reconcile(module: PostgresqlModule, session: Session) -> None:
    """Make what is due and report every partition that there is now."""
    params = module.params
    log = {"log": session.identifier(params["schema"], "audit_log_data")}
    if not module.check_mode and not session.one(_INSTALLED, log).installed:
        raise AuditError(
            f"{session.database}: no audit trail in schema {params['schema']!r}; run postgresql_audit_trail first"
        )
    module.reconcile(session, lambda s: plan_partitions(s, params["schema"], params["interval"], params["ahead"]))
    rows = session.all(_PARTITIONS, log)
    module.results["partitions"] = [{"name": row.name, "from": row.lower, "to": row.upper} for row in rows]
