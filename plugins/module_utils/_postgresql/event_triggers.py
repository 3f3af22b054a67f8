# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The event triggers of a trail: those that keep it, always there, and those that record what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._core.plan import Transaction
from .._core.sql import Identifier, Joined, Literal, Sql, sql
from .session import LOGIN_EVENTS_VERSION


@dataclass(frozen=True)
class EventTrigger:
    """One event trigger as we want it.

    :ivar tags: the commands that it fires for; none means all.
    :ivar records: which of the trail's `events` it records; None for one that keeps the trail.
    """

    event: str
    function: str
    tags: tuple[str, ...] = ()
    records: str | None = None


#: Triggers of one event fire in the order of their names: a refusal comes before a record.
EVENT_TRIGGERS = {
    "dbfleet_audit_guard_ddl": EventTrigger(
        "ddl_command_end",
        "guard_ddl",
        # CREATE SCHEMA, because it can make tables with triggers in the same statement.
        ("ALTER TABLE", "ALTER TRIGGER", "CREATE CAST", "CREATE SCHEMA", "CREATE TABLE", "CREATE TRIGGER"),
    ),
    "dbfleet_audit_attach": EventTrigger(
        "ddl_command_end",
        "attach_ddl",
        # ALTER VIEW t RENAME ... renames a table t and its columns as well as ALTER TABLE does.
        (
            *("ALTER FOREIGN TABLE", "ALTER INDEX", "ALTER MATERIALIZED VIEW", "ALTER SCHEMA", "ALTER SEQUENCE"),
            *("ALTER TABLE", "ALTER TYPE", "ALTER VIEW"),
            *("CREATE SCHEMA", "CREATE TABLE", "CREATE TABLE AS", "SELECT INTO"),
        ),
    ),
    "dbfleet_audit_guard_drop": EventTrigger("sql_drop", "guard_drop"),
    "dbfleet_audit_record_ddl": EventTrigger("ddl_command_end", "record_ddl", records="ddl"),
    "dbfleet_audit_record_drop": EventTrigger("sql_drop", "record_drop", records="ddl"),
    "dbfleet_audit_record_login": EventTrigger("login", "record_login", records="login"),
}


_RECORD = """
SELECT {schema}.record_event('DDL', NULL, {name}, NULL, NULL, jsonb_build_object(
  'event', {command}::text, 'success', true, 'object_type', 'event trigger', 'object', {name}::text))
"""


def plan_event_triggers(
    steps: Transaction, schema: str, events: Sequence[str], current: Mapping[str, Any], version_number: int
) -> None:
    """Add what makes the event triggers as they have to be; only a superuser may carry it out.

    :param current: the database's event triggers, as the trail's catalogue has them.
    """
    recorded = recordable(events, version_number)
    for name, wanted in EVENT_TRIGGERS.items():
        if wanted.records is None or wanted.records in recorded:
            _plan_present(steps, schema, name, wanted, current.get(name))
        elif current.get(name, {}).get("ours"):
            drop = sql("DROP EVENT TRIGGER {trigger}", trigger=Identifier.of(name))
            steps.add(drop, f"events of the kind {wanted.records} are not to be recorded", "altered")
            _record(steps, schema, name, "DROP EVENT TRIGGER")


def recordable(events: Sequence[str], version_number: int) -> list[str]:
    """Return those of the events asked for that a server of this version can record."""
    return [event for event in events if event != "login" or version_number >= LOGIN_EVENTS_VERSION]


def fires(name: str, current: Mapping[str, Any] | None) -> bool:
    """Tell whether one of :data:`EVENT_TRIGGERS` is in the database as we want it, and fires in every session.

    :param current: what the trail's catalogue has of it.
    """
    return current is not None and _is_same(EVENT_TRIGGERS[name], current) and current["enabled"] == "A"


def _is_same(wanted: EventTrigger, current: Mapping[str, Any]) -> bool:
    return (
        bool(current["ours"])
        and (current["event"], current["function"]) == (wanted.event, wanted.function)
        and sorted(current["tags"] or []) == sorted(wanted.tags)
    )


def _plan_present(steps: Transaction, schema: str, name: str, wanted: EventTrigger, current: Any) -> None:
    trigger = {"trigger": Identifier.of(name)}
    same = bool(current) and _is_same(wanted, current)
    if not same:
        state = "altered" if current else "missing"
        if current:
            steps.add(sql("DROP EVENT TRIGGER {trigger}", **trigger), f"event trigger {name} was altered")
        function = Identifier.of(schema, wanted.function)
        create = _create(wanted, function=function, **trigger)
        steps.add(create, f"event trigger {name} {'was altered' if current else 'is missing'}", state)
    if not same or current["enabled"] != "A":
        steps.add(
            sql("ALTER EVENT TRIGGER {trigger} ENABLE ALWAYS", **trigger),
            f"event trigger {name} does not fire in every session",
            "disabled" if same else None,
        )
        if current:
            _record(steps, schema, name, "ALTER EVENT TRIGGER")


def _record(steps: Transaction, schema: str, name: str, command: str) -> None:
    """Leave a record of what no event trigger sees; a seal that finds the change looks for it."""
    record = sql(_RECORD, schema=Identifier.of(schema), name=Literal(name), command=Literal(command))
    steps.add(record, f"what became of event trigger {name} is in the log")


def _create(wanted: EventTrigger, **places: Identifier) -> Sql:
    condition = sql("")
    if wanted.tags:
        tags = Joined(", ", tuple(Literal(tag) for tag in wanted.tags))
        condition = sql(" WHEN TAG IN ({tags})", tags=tags)
    return sql(
        f"CREATE EVENT TRIGGER {{trigger}} ON {wanted.event}{{condition}} EXECUTE FUNCTION {{function}}()",
        condition=condition,
        **places,
    )
