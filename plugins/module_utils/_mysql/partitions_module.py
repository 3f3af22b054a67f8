# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options, planning and results of mysql_audit_partitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core.errors import AuditError
from .._core.plan import Plan
from .._core.sql import Identifier, Literal, Verbatim, sql
from .accounts import OWNER
from .module import MysqlModule
from .partition_plan import (
    AHEAD_SETTING,
    DEFAULT_AHEAD,
    DEFAULT_INTERVAL,
    INTERVAL_SETTING,
    INTERVALS,
    partition_statement,
)
from .session import Session
from .text import same_code
from .trail_catalog import read_events
from .trail_tables import LOG

PARTITION_SPEC: dict[str, Any] = {
    "interval": {"type": "str", "choices": list(INTERVALS), "default": DEFAULT_INTERVAL},
    "ahead": {"type": "int", "default": DEFAULT_AHEAD},
    "event": {"type": "bool", "default": True},
}

EVENT = "maintain_partitions"

# Every server of a fleet at an hour of its own, which is that of its first rollout.
_CREATE_EVENT = """
CREATE DEFINER = {owner} EVENT {event}
  ON SCHEDULE EVERY 1 DAY DO {body}
"""
_EVENT_BODY = "CALL {schema}.maintain_partitions()"

_INSTALLED = """
SELECT COUNT(*) AS number FROM information_schema.tables AS t
WHERE t.table_schema = %(schema)s AND t.table_name IN ('audit_log_data', 'setting')
"""

_PARTITIONS = """
SELECT p.partition_name AS name, p.partition_description AS bound
FROM information_schema.partitions AS p
WHERE p.table_schema = %(schema)s AND p.table_name = 'audit_log_data' AND p.partition_name IS NOT NULL
ORDER BY p.partition_ordinal_position
"""

_SETTING = "UPDATE {schema}.setting SET value = {value} WHERE name = {name}"


def plan_partitions(session: Session, schema: str, interval: str, ahead: int, event: bool) -> Plan:
    """Ask the server what is due.

    :param ahead: whole periods to have ready after the current one.
    :param event: whether an event of the server's keeps it up.
    """
    plan = Plan()
    place = {"schema": Identifier.of(schema)}
    # Before a first rollout, in check mode, the trail and its default settings are only predicted.
    current = {INTERVAL_SETTING: DEFAULT_INTERVAL, AHEAD_SETTING: str(DEFAULT_AHEAD)}
    if installed(session, schema):
        rows = session.all(f"SELECT s.name, s.value FROM {session.identifier(schema)}.setting AS s")
        current = {row["name"]: row["value"] for row in rows}
    settings = plan.transaction("partition settings", required=True)
    for name, value in {INTERVAL_SETTING: interval, AHEAD_SETTING: str(ahead)}.items():
        if current.get(name) != value:
            statement = sql(_SETTING, name=Literal(name), value=Literal(value), **place)
            settings.add(statement, f"{name} becomes {value} for the schedule too", "altered")
    expression = partition_statement(schema, LOG, Literal(interval), Literal(ahead), sql("UTC_TIMESTAMP(6)"))
    due = session.one(f"SELECT {expression.render(session)} AS statement")["statement"]
    if due:
        transaction = plan.transaction("partitions", required=True)
        transaction.add(sql("{text}", text=Verbatim(due)), "partitions of coming periods are missing", "missing")
    _plan_event(plan, session, schema, event)
    return plan


def _plan_event(plan: Plan, session: Session, schema: str, wanted: bool) -> None:
    current = read_events(session, schema).get(EVENT)
    transaction = plan.transaction("event", required=True)
    name = Identifier.of(schema, EVENT)
    if current and not wanted:
        transaction.add(sql("DROP EVENT {event}", event=name), "something else keeps the partitions up", "altered")
    if not wanted:
        return
    body = sql(_EVENT_BODY, schema=Identifier.of(schema))
    if current and _is_ours(current, body.render(session)):
        return
    problem = "altered" if current else "missing"
    reason = f"the event that keeps the partitions up is {problem}"
    if current:
        transaction.add(sql("DROP EVENT {event}", event=name), reason)
    transaction.add(sql(_CREATE_EVENT, owner=OWNER.sql(), event=name, body=body), reason, problem)


def _is_ours(event: Mapping[str, Any], body: str) -> bool:
    # On a replica, and where one was promoted, an event of the source's stands by or has yet to be switched on.
    enabled = event["status"] == "ENABLED"
    daily = (event["every"], event["unit"]) == ("1", "DAY")
    return enabled and daily and event["definer"] == str(OWNER) and same_code(body, event["body"])


def installed(session: Session, schema: str) -> bool:
    """Tell whether the trail's log and settings are there."""
    return session.one(_INSTALLED, {"schema": schema})["number"] == 2


def reconcile(module: MysqlModule, session: Session) -> None:
    """Make what is due and report every partition that there is now."""
    params = module.params
    schema = params["schema"]
    if not module.check_mode and not installed(session, schema):
        raise AuditError(f"{session.database}: no audit trail in database {schema!r}; run mysql_audit_trail first")
    module.reconcile(
        session, lambda s: plan_partitions(s, schema, params["interval"], params["ahead"], params["event"])
    )
    rows = session.all(_PARTITIONS, {"schema": schema})
    lower = "MINVALUE"
    module.results["partitions"] = []
    for row in rows:
        upper = row["bound"].strip("'")
        module.results["partitions"].append({"name": row["name"], "from": lower, "to": upper})
        lower = upper
