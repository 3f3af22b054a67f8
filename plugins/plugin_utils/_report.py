# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The compliance report of a fleet as a model that all formats are written from. Pure functions."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

import yaml

from ansible_collections.dbfleet.audit.plugins.module_utils._core.user_checks import NO_DATABASE
from ansible_collections.dbfleet.audit.plugins.plugin_utils import _profiles, _report_fleet
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_alerts import NOTHING_ASKED, alerts
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_checks import (
    CHECKS,
    LEVELS,
    Context,
    Result,
    instant,
    server_checks,
    worst,
)
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_controls import controls
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_settings import retention_check
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_trail import ESSENTIAL, trail_checks, unknown

POSTURES = ("green", "amber", "red", "unknown")

#: Where the role keeps the facts of a host: in this run, and in a fact cache for others.
_FACTS = "_audit_report_facts"
_CACHED = "_audit_report_cached"

_UNASKED = "it was not reached, or not asked in this run"

#: What stands in the report of a database as it was gathered.
_KEPT = ("installed", "error", "estimate", "partitions", "seals", "exceptions", "problems", "foreign_auditing")


def of_hosts(
    hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the report of what the role has kept of each host.

    :param options: those of report(), and `cache_hours`: how old facts of another run may be, 0 for none of them.
    """
    known = {host: hostvars[host].get(_FACTS) or _cached(hostvars[host], options) for host in hosts}
    facts = {host: kept for host, kept in known.items() if kept}
    return report(facts, hosts, {**options, "collection_version": _version()})


def _cached(variables: Mapping[str, Any], options: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the facts that another run has left of a host in the fact cache, or why they cannot be taken."""
    facts = variables.get("ansible_facts", {}).get(_CACHED)
    hours = options["cache_hours"]
    if not facts or not hours:
        return None
    asked = facts["asked_at"]
    age = instant(options["generated_at"]) - instant(asked)
    # A clock that is ahead would make an answer good for as long.
    if abs(age) > timedelta(hours=hours):
        side = "ago" if age > timedelta(0) else "ahead"
        reason = f"it was last asked at {asked}, which is more than {hours} hours {side}"
    elif facts["period"] != options["period"]["name"]:
        reason = f"it was asked at {asked} for another period ({facts['period']})"
    else:
        return facts
    return {"engine": facts["engine"], "status": "unreachable", "reason": reason}


def _version() -> str:
    """Return the version of the collection: an installed one has a manifest, a checkout what it is built from."""
    top = pathlib.Path(__file__).parents[2]
    manifest = top / "MANIFEST.json"
    if manifest.exists():
        return str(json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"])
    return str(yaml.safe_load((top / "galaxy.yml").read_text(encoding="utf-8"))["version"])


def report(facts: Mapping[str, Any], hosts: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report.

    :param facts: by host, as `_report_inputs.facts()` makes them; a host that is missing has not answered.
    :param hosts: all that should have answered.
    :param options: `title`, `generated_at`, `collection_version`, `period` (`name`, `since`, `until`), `profiles`,
        `thresholds` and `max_unsealed_hours`.
    """
    answers = _checked({host: facts.get(host) or {"status": "unreachable", "reason": _UNASKED} for host in hosts})
    context = Context(
        host="",
        now=instant(options["generated_at"]),
        max_unsealed_hours=options["max_unsealed_hours"],
        retention=_profiles.least_retention(options["profiles"]),
        thresholds=options["thresholds"],
    )
    contexts = {host: replace(context, host=host) for host in hosts}
    results = {host: _results(answers[host], contexts[host]) for host in hosts}
    found = {host: _by_check(results[host]) for host in hosts}
    trails = _once(answers)
    counted = {(host, trail["database"]) for host, trail in trails}
    entries = [_host(host, answers[host], results[host], found[host], counted) for host in hosts]
    ages = {host: answer.get("retention") for host, answer in answers.items()}
    proven = controls(options["profiles"], found, ages)
    crossed = alerts(answers, contexts, options["thresholds"])
    return {
        **{key: options[key] for key in ("title", "generated_at", "collection_version", "period", "profiles")},
        "thresholds": dict(options["thresholds"]),
        "summary": _summary(entries, trails, proven),
        "hosts": entries,
        "controls": proven,
        "activity": _report_fleet.activity(trails),
        "growth": _report_fleet.growth(trails),
        "discovery": _report_fleet.discovery(trails),
        "proposals": _report_fleet.proposals(trails),
        "checks": [{"host": host, **check} for host in hosts for check in answers[host].get("checks") or []],
        "alerts": crossed,
    }


def _checked(answers: dict[str, Any]) -> dict[str, Any]:
    """Leave out checks that a server has no database for, where another one has; if none has, it is a misspelling."""
    made: dict[str, set[str]] = {}
    for answer in answers.values():
        for check in answer.get("checks") or []:
            if check.get("error") != NO_DATABASE:
                made.setdefault(check["name"], set()).add(check["database"])

    def counts(check: Mapping[str, Any]) -> bool:
        return check.get("error") != NO_DATABASE or not any(
            fnmatchcase(database, check["database"]) for database in made.get(check["name"], ())
        )

    return {
        host: {**answer, "checks": [check for check in answer.get("checks") or [] if counts(check)]}
        for host, answer in answers.items()
    }


def _results(answer: Mapping[str, Any], context: Context) -> list[Result]:
    if answer["status"] != "ok":
        return [Result("reachable", "unknown", answer["reason"] or answer["status"], context.run("report"))]
    trails = answer.get("trails") or []
    return [
        *server_checks(answer, context),
        *[result for trail in trails for result in trail_checks(trail, context)],
        *([] if trails else unknown(NOTHING_ASKED)),
        retention_check(answer.get("retention"), context.retention),
    ]


def _by_check(results: Iterable[Result]) -> dict[str, Result]:
    """Return the worst result of each check; a host has several databases."""
    found: dict[str, Result] = {}
    for result in results:
        known = found.get(result.check)
        if known is None or LEVELS.index(result.level) > LEVELS.index(known.level):
            found[result.check] = result
    return found


def _readable(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [trail for trail in answer.get("trails") or [] if not trail.get("error")]


def _once(answers: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return host and trail of each log once, of those who can write to it if one can.

    A standby and the nodes of a cluster have the same log, which its chain of seals tells. Where the login does not
    see that, a standby is taken for a copy of the database with its name on a server that can write.
    """
    readable = [(host, trail) for host, answer in answers.items() for trail in _readable(answer)]
    # In the order of hosts, but those that can write before those that cannot.
    readable.sort(key=lambda entry: _is_copy(answers[entry[0]]))
    written = {trail["database"] for host, trail in readable if not _is_copy(answers[host])}
    seen: set[str] = set()
    trails = []
    for host, trail in readable:
        chain = (trail.get("seals") or {}).get("chain")
        if chain in seen or (not chain and _is_copy(answers[host]) and trail["database"] in written):
            continue
        seen |= {chain} if chain else set()
        trails.append((host, trail))
    return trails


def _is_copy(answer: Mapping[str, Any]) -> bool:
    server = answer.get("server") or {}
    return bool(server.get("in_recovery") or server.get("read_only"))


def _host(
    host: str,
    answer: Mapping[str, Any],
    results: Sequence[Result],
    found: Mapping[str, Result],
    counted: Collection[tuple[str, str]],
) -> dict[str, Any]:
    version = (answer.get("server") or {}).get("version") or {}
    posture, reason = _posture(answer, results, found)
    return {
        "name": host,
        "engine": version.get("vendor") or answer.get("engine", ""),
        "version": version.get("full", ""),
        "standby": _is_copy(answer),
        "asked_at": answer.get("asked_at"),
        "posture": posture,
        "reason": reason,
        "findings": [_finding(result) for result in _worst_first(results)],
        "checks": {check: {"level": result.level, "text": result.text} for check, result in found.items()},
        "databases": [
            {**_database(trail), "counted": (host, trail["database"]) in counted}
            for trail in answer.get("trails") or []
        ],
    }


def _posture(answer: Mapping[str, Any], results: Sequence[Result], found: Mapping[str, Result]) -> tuple[str, str]:
    """Return the posture of a host, and its reason where no finding gives it."""
    if answer["status"] != "ok":
        return "unknown", answer.get("reason", "")
    level = worst(result for result in results if result.level != "unknown")
    if level != "red" and not answer.get("trails"):
        return "unknown", NOTHING_ASKED
    open_ = [CHECKS[check] for check in ESSENTIAL if check in found and found[check].level == "unknown"]
    if level == "ok" and open_:
        # Nobody has seen that it is in order.
        return "amber", f"not known: {'; '.join(open_)}"
    return {"ok": "green"}.get(level, level), answer.get("reason", "")


def _worst_first(results: Iterable[Result]) -> list[Result]:
    bad = [result for result in results if result.level in ("red", "amber")]
    return sorted(bad, key=lambda result: -LEVELS.index(result.level))


def _finding(result: Result) -> dict[str, str]:
    return {key: getattr(result, key) for key in ("level", "check", "database", "text", "fix")}


def _database(trail: Mapping[str, Any]) -> dict[str, Any]:
    coverage, partitions, seals, activity = (
        trail.get(name) or {} for name in ("coverage", "partitions", "seals", "activity")
    )
    return {
        "name": trail["database"],
        "auditable": coverage.get("auditable"),
        "audited": coverage.get("audited"),
        "excepted": coverage.get("excepted"),
        "changes": activity.get("changes"),
        "failures": activity.get("failures"),
        "log_bytes": partitions.get("bytes"),
        "projected_bytes": partitions.get("projected_bytes"),
        "partitions_until": partitions.get("until"),
        "partitions_ahead": partitions.get("ahead"),
        "last_sealed_at": seals.get("last_sealed_at"),
        "verified_at": trail.get("verified_at"),
        "unsealed_rows": seals.get("unsealed_rows"),
        "tables": coverage.get("tables", []),
        **{key: trail.get(key) for key in _KEPT},
    }


def _summary(
    entries: Sequence[Mapping[str, Any]],
    trails: Sequence[tuple[str, Mapping[str, Any]]],
    proven: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    def total(part: str, name: str) -> int | None:
        """Return the sum of what is known, or None where nothing is."""
        numbers = [(trail.get(part) or {}).get(name) for _host, trail in trails]
        known = [number for number in numbers if number is not None]
        return sum(known) if known else None

    # What a login cannot see is not counted as not audited.
    seen = [trail["coverage"] for _host, trail in trails if (trail.get("coverage") or {}).get("audited") is not None]
    auditable, audited = (sum(coverage[name] for coverage in seen) for name in ("auditable", "audited"))
    postures = [entry["posture"] for entry in entries]
    return {
        "hosts": len(entries),
        **{posture: postures.count(posture) for posture in POSTURES},
        "auditable": auditable,
        "audited": audited,
        "coverage": round(audited / auditable, 4) if auditable else None,
        "changes": total("activity", "changes"),
        "failures": total("activity", "failures"),
        "unsealed_rows": total("seals", "unsealed_rows"),
        "controls_met": sum(control["met"] is True for control in proven),
        "controls_not_met": sum(control["met"] is False for control in proven),
        "controls": len(proven),
    }
