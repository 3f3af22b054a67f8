# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has happened in a period, put together out of the groups that an engine's one query of the log answers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .errors import AuditError
from .info import Request, iso

#: How many of the busiest users and tables, of bulk changes (and as many TRUNCATEs) and of applications are named.
BUSIEST, BULK, APPLICATIONS = 10, 20, 50

ROW_ACTIONS = ("INSERT", "UPDATE", "DELETE", "TRUNCATE")


@dataclass(frozen=True)
class Group:
    """What records of the log have in common; the query's columns have these names.

    :ivar part: of which grouping it is: `time` (day, hour, action, kind), `user`, `table`, `application` or `bulk`.
    :ivar kind: of an event: `failure` (a change that was not recorded), `refused_login`, or None.
    :ivar changes: the number of records; of all parts but `time`, records of rows.
    :ivar off_hours: how many of them at night or on a weekend.
    :ivar without_user: how many of them under the login's own name.
    :ivar bulk_deletes: of a group of `bulk`, how many DELETEs are among all of that part, also those left out.
    """

    part: str
    day: Any
    hour: int | None
    action: str | None
    kind: str | None
    changed_by: str | None
    table_name: str | None
    application: str | None
    transaction_id: str | None
    at: str | None
    changes: int
    off_hours: int
    without_user: int
    bulk_deletes: int = 0


COLUMNS = tuple(column.name for column in fields(Group))


def activity(groups: Iterable[Group], request: Request) -> dict[str, Any]:
    """Return the activity of a period, users and tables ordered by their changes."""
    parts: dict[str, list[Group]] = {name: [] for name in ("time", "user", "table", "application", "bulk")}
    for group in groups:
        parts[group.part].append(group)
    rows = [group for group in parts["time"] if group.action in ROW_ACTIONS]
    by_hour, by_action = _sums(rows, "hour"), _sums(rows, "action")
    return {
        "since": iso(request.since),
        "until": iso(request.until),
        "changes": _total(rows),
        "without_user": sum(group.without_user for group in rows),
        "by_action": dict(sorted(by_action.items())),
        "by_day": [{"day": str(day), "changes": count} for day, count in sorted(_sums(rows, "day").items())],
        "by_hour": [by_hour.get(hour, 0) for hour in range(24)],
        "users": _busiest(parts["user"], "changed_by", "changes"),
        "tables": _busiest(parts["table"], "table_name", "changes"),
        "off_hours": {
            "changes": sum(group.off_hours for group in rows),
            "users": _busiest(parts["user"], "changed_by", "off_hours"),
        },
        "bulk": [_bulk(group) for group in _bulk_changes(parts["bulk"])],
        # A TRUNCATE is one record, however many rows it takes.
        "bulk_deletes": max((group.bulk_deletes for group in parts["bulk"]), default=0) + by_action.get("TRUNCATE", 0),
        "applications": [
            {"name": group.application or "", "changes": group.changes, "without_user": group.without_user}
            for group in _largest(parts["application"], "changes", APPLICATIONS)
        ],
        "failures": _total(group for group in parts["time"] if group.kind == "failure"),
        "ddl": _total(group for group in parts["time"] if group.action == "DDL"),
        "logins": _total(group for group in parts["time"] if group.action == "LOGIN"),
        # No trigger sees a login that the server refuses; only applications can have reported some.
        "refused_logins": _total(group for group in parts["time"] if group.kind == "refused_login") or None,
    }


def offsets(time_zone: str, since: datetime, until: datetime) -> list[tuple[datetime, int]]:
    """Return the offsets of a zone in a period as (end in UTC, seconds), so that a server need not know the zone.

    :raises AuditError: for a zone that this host does not know.
    """
    zone = _zone(time_zone)
    spans: list[tuple[datetime, int]] = []
    moment = since
    while moment < until:
        seconds = _seconds(zone, moment)
        end = _next_change(zone, moment, until)
        spans.append((end, seconds))
        moment = end
    return spans


def _next_change(zone: tzinfo, moment: datetime, until: datetime) -> datetime:
    """Return when the offset is another one, to the second."""
    seconds = _seconds(zone, moment)
    step = moment
    while _seconds(zone, step) == seconds:
        if step >= until:
            return until
        step += timedelta(days=7)
    before = step - timedelta(days=7)
    while step - before > timedelta(seconds=1):
        middle = before + (step - before) / 2
        before, step = (middle, step) if _seconds(zone, middle) == seconds else (before, middle)
    return min(step.replace(microsecond=0), until)


def _seconds(zone: tzinfo, moment: datetime) -> int:
    offset = moment.astimezone(zone).utcoffset() or timedelta()
    return int(offset.total_seconds())


def _zone(name: str) -> tzinfo:
    if name.upper() == "UTC":
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise AuditError(
            f"time_zone: {name!r} is none that this host knows; give a name like Europe/Berlin (package tzdata)"
        ) from None


def _sums(groups: Iterable[Group], name: str) -> dict[Any, int]:
    sums: dict[Any, int] = {}
    for group in groups:
        sums[getattr(group, name)] = sums.get(getattr(group, name), 0) + group.changes
    return sums


def _total(groups: Iterable[Group]) -> int:
    return sum(group.changes for group in groups)


def _largest(groups: Sequence[Group], number: str, limit: int) -> list[Group]:
    counted = [group for group in groups if getattr(group, number)]
    return sorted(counted, key=lambda group: (-getattr(group, number), str(group)))[:limit]


def _busiest(groups: Sequence[Group], name: str, number: str) -> list[dict[str, Any]]:
    return [
        {"name": getattr(group, name), "changes": getattr(group, number)} for group in _largest(groups, number, BUSIEST)
    ]


def _bulk_changes(groups: Sequence[Group]) -> list[Group]:
    """Return the largest bulk changes, and behind them the latest TRUNCATEs, which nobody knows the size of."""
    sized = [group for group in groups if group.action != "TRUNCATE"]
    truncates = [group for group in groups if group.action == "TRUNCATE"]
    latest = sorted(truncates, key=lambda group: (group.at or "", str(group)), reverse=True)
    return [*_largest(sized, "changes", BULK), *latest[:BULK]]


def _bulk(group: Group) -> Mapping[str, Any]:
    return {
        "at": group.at,
        "table": group.table_name,
        "action": group.action,
        "rows": None if group.action == "TRUNCATE" else group.changes,
        "changed_by": group.changed_by,
        "application": group.application,
        "transaction_id": group.transaction_id,
    }
