# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Thresholds that the facts of a fleet have crossed. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible_collections.dbfleet.audit.plugins.plugin_utils._profiles import AT_LEAST
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_checks import Context, pending
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_trail import unsealed_hours, with_user

Trail = Mapping[str, Any]


def _coverage(trail: Trail, _context: Context) -> float | None:
    """Return the share of tables that are audited or a valid exception, in percent; what nobody sees is not audited."""
    coverage = trail.get("coverage")
    if not coverage:
        return None
    covered = (coverage["audited"] or 0) + coverage["excepted"]
    return round(100 * covered / coverage["auditable"], 2) if coverage["auditable"] else 100.0


def _part(part: str, name: str) -> Callable[[Trail, Context], float | None]:
    return lambda trail, _context: (trail.get(part) or {}).get(name)


def _unsealed_hours(trail: Trail, context: Context) -> float | None:
    seals = trail.get("seals")
    return round(unsealed_hours(seals, context), 1) if seals else None


def _user_context(trail: Trail, _context: Context) -> float | None:
    activity = trail.get("activity") or {}
    if activity.get("changes") == 0:
        return 100.0
    share = with_user(activity)
    return None if share is None else round(share, 1)


#: What is measured of each database, by threshold.
_OF_TRAILS: dict[str, Callable[[Trail, Context], float | None]] = {
    "coverage": _coverage,
    "unsealed_hours": _unsealed_hours,
    "unsealed_rows": _part("seals", "unsealed_rows"),
    "partitions_ahead": _part("partitions", "ahead"),
    "bulk_deletes": _part("activity", "bulk_deletes"),
    "audit_failures": _part("activity", "failures"),
    "user_context": _user_context,
}

#: What is measured of each server.
_OF_SERVERS = ("pending_restarts",)

THRESHOLDS = (*_OF_TRAILS, *_OF_SERVERS)

NOTHING_ASKED = "no database was asked"


def alerts(
    answers: Mapping[str, Mapping[str, Any]], contexts: Mapping[str, Context], thresholds: Mapping[str, float]
) -> list[dict[str, str]]:
    """Return what is beyond its threshold or not known, with the host.

    Hosts and databases that did not answer, databases without a trail and own checks count always.

    :param answers: facts by host.
    """
    return [alert for host, answer in answers.items() for alert in _of_host(host, answer, contexts[host], thresholds)]


def _of_host(
    host: str, answer: Mapping[str, Any], context: Context, thresholds: Mapping[str, float]
) -> Iterator[dict[str, str]]:
    if answer["status"] != "ok":
        yield {"name": "reachable", "host": host, "text": answer["reason"] or answer["status"]}
        return
    if not answer.get("trails"):
        yield {"name": "reachable", "host": host, "text": NOTHING_ASKED}
    for trail in answer.get("trails") or []:
        for name, text in _of_trail(trail, context, thresholds):
            yield {"name": name, "host": host, "text": f"{trail['database']}: {text}"}
    waiting = pending(answer)
    if "pending_restarts" in thresholds and (waiting is None or len(waiting) > thresholds["pending_restarts"]):
        text = _unknown("pending_restarts") if waiting is None else f"{len(waiting)} waiting"
        yield {"name": "pending_restarts", "host": host, "text": text}
    for check in answer.get("checks") or []:
        if not check["ok"]:
            text = check.get("error") or f"{check['value']}, at most {check['threshold']}"
            yield {"name": check["name"], "host": host, "text": f"{check.get('database') or 'server'}: {text}"}


def _of_trail(trail: Trail, context: Context, thresholds: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    if trail.get("error"):
        yield "reachable", f"could not be read: {trail['error']}"
        return
    if not trail.get("installed"):
        yield "trail_installed", "there is no audit trail"
    for name, measure in _OF_TRAILS.items():
        # Of what is not there, only the tables can be told.
        if name not in thresholds or not (trail.get("installed") or name == "coverage"):
            continue
        value = measure(trail, context)
        if value is None:
            yield name, _unknown(name)
        elif _beyond(name, value, thresholds[name]):
            yield name, _text(name, value, thresholds[name])


def _unknown(name: str) -> str:
    return f"{name} is not known, and a threshold asks for it"


def _beyond(name: str, value: float, threshold: float) -> bool:
    return value < threshold if name in AT_LEAST else value > threshold


def _text(name: str, value: float, threshold: float) -> str:
    # As it is, and not as the format `g` would round it: 1e+06 is no number of rows.
    asked = "at least" if name in AT_LEAST else "at most"
    return f"{name} is {value:.12g}, {asked} {threshold:.12g} is asked for"
