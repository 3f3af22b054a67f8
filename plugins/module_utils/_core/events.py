# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asking for events, page by page or all into a file: the same on every engine."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import Any, Protocol

from .errors import AuditError
from .event_export import Sink, export
from .event_query import EventQuery, Position, parse_query
from .event_row import Row, as_event
from .module import AuditModule


class EventSource(Protocol):
    """What an engine reads from its log."""

    def read(self, query: EventQuery, sink: Sink) -> None:
        """Hand the rows over one by one, without holding them; one query."""

    def count(self, query: EventQuery) -> int:
        """Return how many there are, wherever a page begins; one query."""


def answer(module: AuditModule, source: EventSource) -> None:
    """Put the events that the module's options ask for into its results, or into a file."""
    query = parse_query(module.params, datetime.now(timezone.utc))
    if module.params["dest"]:
        _export(module, source, query)
    else:
        module.results.update(_page(source, query))
    if module.params["count"]:
        module.results["total"] = source.count(query)


def _export(module: AuditModule, source: EventSource, query: EventQuery) -> None:
    dest, form = module.params["dest"], module.params["format"]
    everything = replace(query, limit=None)
    exported = export(lambda sink: source.read(everything, sink), dest, form, module.check_mode)
    module.results.update(asdict(exported), dest=dest)


def _page(source: EventSource, query: EventQuery) -> dict[str, Any]:
    limit = query.limit or 0
    rows: list[Row] = []
    # One more than was asked for tells whether there is another page.
    source.read(replace(query, limit=limit + 1), rows.append)
    events = [as_event(row) for row in rows[:limit]]
    return {"events": events, "next": Position.of(events[-1]) if len(rows) > limit else None}


def no_trail(place: str, log: str) -> AuditError:
    """Return the error for a log that is not there."""
    return AuditError(
        f"{place}: there is no audit trail: {log} does not exist; name the schema that the trail is in (schema), or "
        "roll the trail out first"
    )


def no_rights(place: str, log: str, login: str) -> AuditError:
    """Return the error for a login that may not read the log."""
    return AuditError(f"{place}: {login} may not read {log}; name it among the `readers` of the trail")
