# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is asked of the log: options checked one by one and turned into values that are bound to a query."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from .errors import AuditError

#: What the log records: changes of rows, and what happened in the database beside them.
ACTIONS = ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "DDL", "LOGIN", "EVENT")

#: Options whose text a column of that name must hold.
EXACT = ("record_id", "changed_by", "db_user", "transaction_id")

MAXIMUM_LIMIT = 10000

EVENTS_SPEC: dict[str, Any] = {
    "table": {"type": "str"},
    **{name: {"type": "str"} for name in EXACT},
    "actions": {"type": "list", "elements": "str"},
    "values": {"type": "dict"},
    "since": {"type": "str"},
    "until": {"type": "str"},
    "order": {"type": "str", "choices": ["asc", "desc"], "default": "asc"},
    "limit": {"type": "int", "default": 100},
    "after": {"type": "str"},
    "count": {"type": "bool", "default": False},
    "dest": {"type": "path"},
    "format": {"type": "str", "choices": ["jsonl", "csv"], "default": "jsonl"},
}

_INTERVAL = re.compile(r"(\d+)\s*([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?:(:\d\d)(?:\.(\d{1,6}))?)?)?\s?(?:Z|([+-]\d\d)(?::?(\d\d))?)?",
    re.ASCII | re.IGNORECASE,
)
_CURSOR = re.compile(r"(\S+Z),(\d{1,19})", re.ASCII)


@dataclass(frozen=True)
class Position:
    """The place of one event in the log: by time, and by id among those of the same time."""

    changed_at: datetime
    id: int

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read a cursor.

        :raises AuditError: when it is none.
        """
        match = _CURSOR.fullmatch(text.strip())
        if not match:
            raise AuditError(f"after: {text!r} is no cursor: give `next` of the page before as it was returned")
        return cls(parse_time("after", match.group(1), datetime.now(timezone.utc)), int(match.group(2)))

    @staticmethod
    def of(event: Mapping[str, Any]) -> str:
        """Return the cursor that stands for an event: ``2026-11-21T19:03:07.123456Z,4711``."""
        return f"{event['changed_at']},{event['id']}"


@dataclass(frozen=True)
class EventQuery:
    """Which events, and in which order; what is not named may be anything."""

    #: Values by the name of the condition that they are bound to: `since`, `table_name`, `actions`, ...
    conditions: Mapping[str, Any] = field(default_factory=dict)
    #: What columns of the audited table hold, before or after the change, as text.
    values: Mapping[str, str] = field(default_factory=dict)
    after: Position | None = None
    order: str = "asc"
    #: None: all.
    limit: int | None = None


def parse_query(options: Mapping[str, Any], now: datetime) -> EventQuery:
    """Check the options of :data:`EVENTS_SPEC`.

    :param now: what an interval counts back from, in UTC.
    :raises AuditError: naming the option that cannot be meant so.
    """
    _refuse_empty(options)
    if not 1 <= options["limit"] <= MAXIMUM_LIMIT:
        raise AuditError(
            f"limit: {options['limit']} is not between 1 and {MAXIMUM_LIMIT}; ask for more page by page (after), or "
            "export it (dest)"
        )
    conditions = {name: options[name] for name in EXACT if options[name] is not None}
    if options["table"] is not None:
        schema, dot, table = options["table"].partition(".")
        conditions.update({"schema_name": schema, "table_name": table} if dot else {"table_name": schema})
    if options["actions"]:
        conditions["actions"] = tuple(dict.fromkeys(_action(text) for text in options["actions"]))
    return EventQuery(
        conditions={**conditions, **_range(options, now)},
        values={column: _text(column, value) for column, value in (options["values"] or {}).items()},
        after=None if options["after"] is None else Position.parse(options["after"]),
        order=options["order"],
        limit=options["limit"],
    )


def parse_time(option: str, text: str, now: datetime) -> datetime:
    """Read a moment: ISO 8601, UTC where it names no zone, or an interval back from now.

    :raises AuditError: naming the option, when it is neither.
    """
    try:
        if interval := _INTERVAL.fullmatch(text.strip()):
            return now - timedelta(**{_UNITS[interval.group(2)]: int(interval.group(1))})
        if match := _TIME.fullmatch(text.strip()):
            day, minute, second, fraction, hours, minutes = match.groups()
            clock = f"{minute or '00:00'}{second or ':00'}.{(fraction or '').ljust(6, '0')}"
            zone = f"{hours}:{minutes or '00'}" if hours else "+00:00"
            return datetime.fromisoformat(f"{day}T{clock}{zone}").astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise AuditError(f"{option}: {text!r} is no time: {error}") from None
    raise AuditError(
        f"{option}: {text!r} is no time: give a date or date-time of ISO 8601 (2026-11-01, 2026-11-01T08:30:00+01:00; "
        "UTC where no zone is named), or an interval back from now (90m, 24h, 7d)"
    )


def _range(options: Mapping[str, Any], now: datetime) -> dict[str, datetime]:
    bounds = {name: parse_time(name, options[name], now) for name in ("since", "until") if options[name] is not None}
    if len(bounds) == 2 and bounds["since"] >= bounds["until"]:
        raise AuditError(
            f"since: {options['since']!r} is not before until: {options['until']!r}, so that no event can lie between "
            "them (an event at `since` is returned, one at `until` is not)"
        )
    return bounds


def _refuse_empty(options: Mapping[str, Any]) -> None:
    # A template that came out empty must neither mean everything nor find nothing in silence.
    for name in ("table", *EXACT, "actions", "values", "since", "until", "after", "dest"):
        if options[name] is not None and not options[name]:
            raise AuditError(f"{name}: is empty; name something, or leave the option out")
    schema, dot, table = (options["table"] or "t").partition(".")
    if not schema or (dot and not table):
        raise AuditError(f"table: {options['table']!r} names no table: give schema.table, or the table's name alone")


def _action(text: str) -> str:
    if text.upper() not in ACTIONS:
        raise AuditError(f"actions: {text!r} is none that the log records: {', '.join(ACTIONS)}")
    return text.upper()


def _text(column: str, value: Any) -> str:
    """Return a value as both engines write one that they take out of JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    raise AuditError(f"values: {column!r} must be a text, a number or a boolean, and is {value!r}")
