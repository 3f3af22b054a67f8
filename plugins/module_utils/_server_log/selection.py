# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which of a log's events are asked for, and keeping the latest of them."""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .._core.errors import AuditError
from .._core.event_query import EVENTS_SPEC, parse_query

#: What servers record about statements and sessions.
LOG_ACTIONS = ("READ", "WRITE", "FUNCTION", "ROLE", "DDL", "MISC", "LOGIN", "LOGOUT", "DENIED")


class Selection:
    """The options that say which events.

    :param now: what an interval counts back from, in UTC.
    :raises AuditError: naming the option that cannot be meant so.
    """

    def __init__(self, options: Mapping[str, Any], now: datetime) -> None:
        asked = {name: options.get(name, spec.get("default")) for name, spec in EVENTS_SPEC.items()}
        conditions = dict(parse_query({**asked, "actions": None}, now).conditions)
        self._range = [_text(conditions.pop(name, None)) for name in ("since", "until")]
        self._schema = conditions.pop("schema_name", None)
        self._table = conditions.pop("table_name", None)
        #: Fields that must hold a value.
        self._exact = conditions
        self._database = options["database"]
        self._actions = frozenset(_action(text) for text in options["actions"] or LOG_ACTIONS)
        if self._table:
            self._mention = re.compile(rf"(?<![\w$]){re.escape(self._table)}(?![\w$])", re.IGNORECASE)

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Tell whether an event is asked for."""
        since, until = self._range
        return (
            event["action"] in self._actions
            and (since is None or event["changed_at"] >= since)
            and (until is None or event["changed_at"] < until)
            and all(event[name] == value for name, value in self._exact.items())
            and (self._database is None or event["context"].get("database") in (None, self._database))
            and (self._table is None or self._is_about_table(event))
        )

    def _is_about_table(self, event: Mapping[str, Any]) -> bool:
        if event["table_name"] is not None:
            return event["table_name"] == self._table and (
                self._schema is None or event["schema_name"] in (None, self._schema)
            )
        # Where the server names no table, its statement may.
        return bool(self._mention.search(event["new_values"]["statement"] or ""))


class Latest:
    """The events with the latest times among all that it is given, in memory for so many."""

    def __init__(self, limit: int) -> None:
        self.total = 0
        self._limit = limit
        self._heap: list[tuple[str, int, Mapping[str, Any]]] = []

    def add(self, event: Mapping[str, Any]) -> None:
        """Take an event, and let go of the oldest one too many."""
        self.total += 1
        entry = (event["changed_at"], self.total, event)
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def events(self) -> list[Mapping[str, Any]]:
        """Return them, the latest last; those of the same time as the logs had them."""
        return [event for _time, _number, event in sorted(self._heap)]


def _text(moment: datetime | None) -> str | None:
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z" if moment else None


def _action(text: str) -> str:
    if text.upper() not in LOG_ACTIONS:
        raise AuditError(f"actions: {text!r} is none that a server's log has: {', '.join(LOG_ACTIONS)}")
    return text.upper()
