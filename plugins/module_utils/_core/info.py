# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the info modules of all engines tell of a trail: options, discovery, estimates, partitions. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from .coverage import AuditedTable
from .discovery import Columns, discover, proposal
from .errors import AuditError
from .event_query import parse_time
from .exemption import EXCEPTIONS_SPEC, Exemption

PARTS = ("coverage", "partitions", "activity", "seals", "grants", "settings")

INFO_SPEC: dict[str, Any] = {
    "gather": {"type": "list", "elements": "str", "choices": list(PARTS), "default": []},
    "discover": {"type": "bool", "default": False},
    "since": {"type": "str", "default": "30d"},
    "until": {"type": "str", "default": "0s"},
    "office_hours": {"type": "str", "default": "07:00-19:00"},
    "time_zone": {"type": "str", "default": "UTC"},
    "bulk_rows": {"type": "int", "default": 1000},
    **EXCEPTIONS_SPEC,
}

#: More rows than these are not counted one by one: in the catch-all, and of those in no seal.
COUNT_LIMIT = 1_000_001

_UNSEEN = "the login does not see of every table whether it is audited"

# docs/benchmarks.md: a record of 480 bytes of JSON takes 757, and 23 more in the index `record`.
_RECORD_BYTES = 300
#: Quotes, colon and comma of a column in JSON.
_COLUMN_BYTES = 6

_OFFICE_HOURS = re.compile(r"([01]\d|2[0-4]):([0-5]\d)\s*-\s*([01]\d|2[0-4]):([0-5]\d)", re.ASCII)
_MONTHS_AVERAGED = 3

#: What is told of each partition.
_OF_PARTITION = ("name", "from", "to", "rows", "bytes")


@dataclass(frozen=True)
class Request:
    """The options of :data:`INFO_SPEC`, checked.

    :ivar since: in UTC, as `until`.
    :ivar opens: minutes after midnight, as `closes`; office hours that end before they begin go over midnight.
    :ivar exemptions: those of all databases.
    """

    gather: frozenset[str]
    discover: bool
    since: datetime
    until: datetime
    opens: int
    closes: int
    time_zone: str
    bulk_rows: int
    exemptions: tuple[Exemption, ...]

    @property
    def wanted(self) -> bool:
        """Whether anything is asked of the trails."""
        return self.discover or bool(self.gather)

    @property
    def over_midnight(self) -> bool:
        return self.closes < self.opens


def parse_request(params: Mapping[str, Any], now: datetime, exemptions: Sequence[Exemption]) -> Request:
    """Check the options.

    :param now: what an interval counts back from, in UTC.
    :param exemptions: what the engine reads in the option for exceptions.
    :raises AuditError: naming the option that cannot be meant so.
    """
    since, until = (parse_time(name, params[name], now) for name in ("since", "until"))
    if since >= until:
        raise AuditError(f"since: {params['since']!r} is not before until: {params['until']!r}")
    match = _OFFICE_HOURS.fullmatch(params["office_hours"].strip())
    minutes = (
        [int(hour) * 60 + int(minute) for hour, minute in zip(match.groups()[::2], match.groups()[1::2])]
        if match
        else []
    )
    if not minutes or max(minutes) > 24 * 60 or minutes[0] == minutes[1]:
        raise AuditError(f"office_hours: {params['office_hours']!r} are none: give them like 07:00-19:00")
    if params["bulk_rows"] < 1:
        raise AuditError(f"bulk_rows: {params['bulk_rows']} is no number of rows; give 1 or more")
    return Request(
        frozenset(params["gather"]),
        params["discover"],
        since,
        until,
        *minutes,
        params["time_zone"],
        params["bulk_rows"],
        tuple(exemptions),
    )


def discovered(
    tables: Sequence[AuditedTable] | None, operations: Sequence[str], lost: list[str]
) -> dict[str, list[dict[str, Any]] | str | None]:
    """Return which of the tables that are not audited look as if they had to be: `discovery` and `proposal`.

    :param tables: as :meth:`Coverage.missing` returns them; None leaves both unknown, which is then named in `lost`.
    :param operations: those that the engine can audit.
    """
    if tables is None:
        lost.append(f"discovery: {_UNSEEN}")
        return {"discovery": None, "proposal": None}
    found = discover([Columns(table.schema, table.name, table.types, table.rows) for table in tables], operations)
    return {"discovery": found, "proposal": proposal(found)}


def estimate(
    tables: Sequence[AuditedTable] | None, counted_since: datetime | None, now: datetime, source: str
) -> dict[str, Any]:
    """Return what auditing these tables would add to the log.

    :param tables: as :meth:`Coverage.missing` returns them.
    :param counted_since: since when the server counts, in UTC; None where it does not.
    :param source: where the counts are from, or why there are none.
    """
    since = None if counted_since is None else iso(counted_since)
    answer = {"counted_since": since, "rows_per_day": None, "bytes_per_day": None, "basis": source}
    if tables is None:
        return {**answer, "basis": _UNSEEN}
    if counted_since is None or any(table.inserted is None for table in tables):
        return answer
    # What was counted in less than a day says nothing of a whole one.
    days = max((now - counted_since) / timedelta(days=1), 1.0)
    rows = sum(_changes(table) for table in tables)
    size = sum(_log_bytes(table) for table in tables)
    basis = (
        f"{rows} rows written to {len(tables)} tables that are not audited, {source}, over {days:.1f} days; "
        f"a record takes about {_RECORD_BYTES} bytes and the row's values once, for an update twice"
    )
    return {**answer, "rows_per_day": round(rows / days, 1), "bytes_per_day": round(size / days), "basis": basis}


def partitions(
    found: Sequence[Mapping[str, Any]], interval: str | None, catch_all_rows: int | None, now: datetime
) -> dict[str, Any]:
    """Return how far the log's partitions reach, and how it grows.

    :param found: name, from and to (ISO dates; None is open), rows and bytes, in the order of time; and `begins`, the
        first day of the period that it is made for, where the engine has a partition begin at the end of another one.
    """
    # Once archived periods have left such a log, its oldest partition would count as their months.
    periods = [
        {**entry, "from": max(entry["from"], entry.get("begins") or "")}
        for entry in found
        if entry["from"] and entry["to"]
    ]
    today = now.date().isoformat()
    growth: dict[str, dict[str, Any]] = {}
    for entry in periods:
        if entry["from"] <= today:
            month = growth.setdefault(entry["from"][:7], {"month": entry["from"][:7], "rows": 0, "bytes": 0})
            month["rows"] += entry["rows"] or 0
            month["bytes"] += entry["bytes"] or 0
    size = sum(entry["bytes"] or 0 for entry in found)
    return {
        "interval": interval or _interval(periods),
        "until": periods[-1]["to"] if periods else None,
        "ahead": sum(entry["from"] > today for entry in periods),
        "catch_all_rows": catch_all_rows,
        "bytes": size,
        "list": [{key: entry[key] for key in _OF_PARTITION} for entry in found],
        "growth": list(growth.values()),
        "projected_bytes": size + 12 * _monthly_bytes(list(growth.values()), now.date()),
    }


def attempt(
    part: str, read: Callable[[], Any], error: type[Exception], refusal: Callable[[Any], str | None], lost: list[str]
) -> Any:
    """Return what can be read, or None when the login may not; what was lost is then named.

    :param error: the driver's error.
    :param refusal: says why an error means that this login cannot read it, or None when it means anything else.
    """
    try:
        return read()
    except error as raised:
        reason = refusal(raised)
        if reason is None:
            raise
        lost.append(f"{part}: {reason}")
        return None


def iso(moment: datetime) -> str:
    """Return a moment in UTC as text."""
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _changes(table: AuditedTable) -> int:
    return (table.inserted or 0) + (table.updated or 0) + (table.deleted or 0)


def _log_bytes(table: AuditedTable) -> float:
    image = table.width + table.name_bytes + _COLUMN_BYTES * table.columns
    return _changes(table) * (_RECORD_BYTES + image) + (table.updated or 0) * image


def _interval(periods: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the length of the last period, where the setting cannot be read."""
    if not periods:
        return None
    first, last = (date.fromisoformat(periods[-1][end]) for end in ("from", "to"))
    return {1: "day", 7: "week"}.get((last - first).days, "month")


def _monthly_bytes(growth: Sequence[Mapping[str, Any]], today: date) -> int:
    complete = [month["bytes"] for month in growth if month["month"] < today.isoformat()[:7]][-_MONTHS_AVERAGED:]
    if complete:
        return round(sum(complete) / len(complete))
    # The first month is not over: the rest of it is taken to be like the days that it has had.
    return round(growth[-1]["bytes"] * 30 / today.day) if growth and growth[-1]["rows"] else 0
