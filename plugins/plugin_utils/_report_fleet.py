# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the whole fleet did in the period: the trails' activity, growth and discovery, put together. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: How many of the busiest and the largest a report names; a trail names ten and twenty.
_BUSIEST = 20
_BULK = 50

#: Host, and the trail of one of its databases.
Trails = Sequence[tuple[str, Mapping[str, Any]]]


def activity(trails: Trails) -> dict[str, Any]:
    """Return what was changed, when, by whom and where."""
    found = [(host, trail, trail["activity"]) for host, trail in trails if trail.get("activity")]
    all_ = [each for _host, _trail, each in found]
    off_hours = [(host, each["off_hours"]) for host, _trail, each in found if each.get("off_hours")]
    return {
        "by_day": _days(all_),
        "by_hour": [sum(each["by_hour"][hour] for each in all_ if each.get("by_hour")) for hour in range(24)],
        "by_action": dict(_sum((each.get("by_action") or {}) for each in all_).most_common()),
        "users": _people((host, each.get("users") or []) for host, _trail, each in found),
        "tables": _busiest(_placed(found, "tables")),
        "off_hours": {
            "changes": sum(each["changes"] for _host, each in off_hours),
            "users": _people((host, each.get("users") or []) for host, each in off_hours),
        },
        "bulk": _bulk(_placed(found, "bulk")),
        "applications": _busiest(_placed(found, "applications")),
    }


def _bulk(changes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the largest bulk changes, and behind them as many TRUNCATEs, which do not tell their rows."""
    sized = [change for change in changes if change["rows"] is not None]
    others = [change for change in changes if change["rows"] is None]
    return [*sorted(sized, key=lambda change: -change["rows"])[:_BULK], *others[:_BULK]]


def growth(trails: Trails) -> list[dict[str, Any]]:
    """Return rows and bytes of all logs by month."""
    rows: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for _host, trail in trails:
        for month in (trail.get("partitions") or {}).get("growth") or []:
            rows[month["month"]] += month["rows"] or 0
            size[month["month"]] += month["bytes"] or 0
    return [{"month": month, "rows": rows[month], "bytes": size[month]} for month in sorted(size)]


def discovery(trails: Trails) -> list[dict[str, Any]]:
    """Return the tables that look sensitive and are not audited, the most sensitive first."""
    found = [
        {"host": host, "database": trail["database"], **entry}
        for host, trail in trails
        for entry in trail.get("discovery") or []
    ]
    return sorted(found, key=lambda entry: (-entry["score"], entry["host"], entry["database"], entry["table"]))


def proposals(trails: Trails) -> list[dict[str, str]]:
    """Return the policies that are proposed for each database, as text for the inventory."""
    return [
        {"host": host, "database": trail["database"], "yaml": trail["proposal"]}
        for host, trail in trails
        if trail.get("proposal")
    ]


def _days(all_: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    days = _sum({day["day"]: day["changes"] for day in each.get("by_day") or []} for each in all_)
    return [{"day": day, "changes": days[day]} for day in sorted(days)]


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total


def _people(users: Iterable[tuple[str, Sequence[Mapping[str, Any]]]]) -> list[dict[str, Any]]:
    """Return people by name: the same one may work on several hosts."""
    changes: Counter[str] = Counter()
    hosts: dict[str, set[str]] = {}
    for host, named in users:
        for user in named:
            changes[user["name"]] += user["changes"]
            hosts.setdefault(user["name"], set()).add(host)
    return [
        {"name": name, "changes": number, "hosts": sorted(hosts[name])}
        for name, number in changes.most_common(_BUSIEST)
    ]


def _placed(found: Iterable[tuple[str, Mapping[str, Any], Mapping[str, Any]]], key: str) -> list[dict[str, Any]]:
    return [
        {"host": host, "database": trail["database"], **entry}
        for host, trail, each in found
        for entry in each.get(key) or []
    ]


def _busiest(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(entries, key=lambda entry: -entry["changes"])[:_BUSIEST]
