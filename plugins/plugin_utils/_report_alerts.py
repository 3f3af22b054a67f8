# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Thresholds that the facts of a fleet have crossed. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible_collections.dbfleet.audit.plugins.plugin_utils._profiles import AT_LEAST
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_checks import Context, pending
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_trail import unaudited, unsealed_hours, with_user

Trail = Mapping[str, Any]


def _coverage(trail: Trail, _context: Context) -> float | None:
    """Return the share of tables that are audited or a valid exception, in percent."""
    coverage = trail.get("coverage") or {}
    if not coverage.get("auditable") or coverage["audited"] is None:
        return None
    return round(100 * (1 - len(unaudited(trail)) / coverage["auditable"]), 2)


def _part(part: str, name: str) -> Callable[[Trail, Context], float | None]:
    return lambda trail, _context: (trail.get(part) or {}).get(name)


def _bulk_deletes(trail: Trail, _context: Context) -> float | None:
    activity = trail.get("activity")
    return sum(change["action"] == "DELETE" for change in activity.get("bulk") or []) if activity else None


def _unsealed_hours(trail: Trail, context: Context) -> float | None:
    seals = trail.get("seals")
    return round(unsealed_hours(seals, context), 1) if seals else None


def _user_context(trail: Trail, _context: Context) -> float | None:
    share = with_user(trail["activity"]) if trail.get("activity") else None
    return None if share is None else round(share, 1)


#: What is measured of each database, by threshold.
_OF_TRAILS: dict[str, Callable[[Trail, Context], float | None]] = {
    "coverage": _coverage,
    "unsealed_hours": _unsealed_hours,
    "unsealed_rows": _part("seals", "unsealed_rows"),
    "partitions_ahead": _part("partitions", "ahead"),
    "bulk_deletes": _bulk_deletes,
    "audit_failures": _part("activity", "failures"),
    "user_context": _user_context,
}

#: What is measured of each server.
_OF_SERVERS = ("pending_restarts",)

THRESHOLDS = (*_OF_TRAILS, *_OF_SERVERS)


def alerts(
    answers: Mapping[str, Mapping[str, Any]], contexts: Mapping[str, Context], thresholds: Mapping[str, float]
) -> list[dict[str, str]]:
    """Return what is beyond its threshold, with the host; hosts that did not answer and own checks count always.

    :param answers: facts by host.
    """
    return [alert for host, answer in answers.items() for alert in _of_host(host, answer, contexts[host], thresholds)]


def _of_host(
    host: str, answer: Mapping[str, Any], context: Context, thresholds: Mapping[str, float]
) -> Iterator[dict[str, str]]:
    if answer["status"] != "ok":
        yield {"name": "reachable", "host": host, "text": answer["reason"] or answer["status"]}
        return
    for trail in answer.get("trails") or []:
        for name, measure in _OF_TRAILS.items():
            value = measure(trail, context) if name in thresholds and not trail.get("error") else None
            if value is not None and _beyond(name, value, thresholds[name]):
                yield {"name": name, "host": host, "text": _text(trail["database"], name, value, thresholds[name])}
    waiting = len(pending(answer.get("server") or {}))
    if "pending_restarts" in thresholds and waiting > thresholds["pending_restarts"]:
        yield {"name": "pending_restarts", "host": host, "text": f"{waiting} waiting"}
    for check in answer.get("checks") or []:
        if not check["ok"]:
            text = check.get("error") or f"{check['value']}, at most {check['threshold']}"
            yield {"name": check["name"], "host": host, "text": f"{check.get('database') or 'server'}: {text}"}


def _beyond(name: str, value: float, threshold: float) -> bool:
    return value < threshold if name in AT_LEAST else value > threshold


def _text(database: str, name: str, value: float, threshold: float) -> str:
    return (
        f"{database}: {name} is {value:g}, {'at least' if name in AT_LEAST else 'at most'} {threshold:g} is asked for"
    )
