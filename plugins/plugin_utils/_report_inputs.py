# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes into the report: the role's variables, and what the modules have answered for a host. Pure functions."""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core.info import COUNT_LIMIT
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.audit_plugin import (
    NOT_LOGGING,
    UNWRITTEN,
    USER_LISTS,
)
from ansible_collections.dbfleet.audit.plugins.plugin_utils._profiles import PROFILES
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_alerts import THRESHOLDS
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_checks import instant
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_settings import pgaudit_classes, words

FORMATS = ("html", "json", "junit", "prometheus")

_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_CHECK_KEYS = {"name", "query", "threshold", "databases"}
_PERIODS = "week, month, quarter, year or {since, until}"


def input_problems(given: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the role's variables, before a server is asked.

    :param given: `period`, `thresholds`, `checks` and `profiles`.
    """
    problems = _threshold_problems(given["thresholds"])
    problems += [
        f"audit_profiles: there is no {name}; choose from {', '.join(PROFILES)}"
        for name in given["profiles"]
        if name not in PROFILES
    ]
    period_ = given["period"]
    if isinstance(period_, Mapping):
        if set(period_) != {"since", "until"}:
            problems.append(f"audit_report_period has {', '.join(sorted(period_)) or 'nothing'}; give {_PERIODS}")
    elif period_ not in ("week", *_MONTHS):
        problems.append(f"audit_report_period is {period_!r}; give {_PERIODS}")
    return problems + _check_problems(given["checks"])


def _threshold_problems(thresholds: Mapping[str, Any]) -> list[str]:
    problems = [
        f"audit_report_thresholds: there is no {name}; choose from {', '.join(THRESHOLDS)}"
        for name in sorted(set(thresholds) - set(THRESHOLDS))
    ]
    problems += [
        f"audit_report_thresholds: {name} is no number"
        for name, value in thresholds.items()
        if isinstance(value, bool) or not isinstance(value, (int, float))
    ]
    rows = thresholds.get("unsealed_rows")
    if isinstance(rows, (int, float)) and rows >= COUNT_LIMIT:
        problems.append(f"audit_report_thresholds: unsealed_rows are counted to {COUNT_LIMIT - 1:,}; give no more")
    return problems


def _check_problems(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    problems = []
    names: set[str] = set()
    for number, check in enumerate(checks):
        where = f"audit_report_checks[{number}]"
        problems += [f"{where}: unknown key {key}" for key in sorted(set(check) - _CHECK_KEYS)]
        problems += [f"{where}: {key} is missing" for key in ("name", "query", "threshold") if check.get(key) is None]
        name = str(check.get("name"))
        if name in names:
            problems.append(f"{where}: there is another one with the name {name!r}")
        names.add(name)
    return problems


def period(given: str | Mapping[str, Any], now: str) -> dict[str, str]:
    """Return the time that the report is about, as `name`, `since` and `until`; a name means the time until now.

    Another run's answers are taken by the name alone, so that different times have different ones.

    :param now: as in 2026-11-22T10:00:00Z.
    """
    if isinstance(given, Mapping):
        # YAML reads a bare date as one.
        since, until = str(given["since"]), str(given["until"])
        return {"name": f"{since} to {until}", "since": since, "until": until}
    end = instant(now)
    start = end - timedelta(days=7) if given == "week" else _months_before(end, _MONTHS[given])
    return {"name": given, "since": start.strftime("%Y-%m-%dT%H:%M:%SZ"), "until": now}


def _months_before(end: datetime, months: int) -> datetime:
    year, month = divmod(end.year * 12 + end.month - 1 - months, 12)
    return end.replace(year=year, month=month + 1, day=min(end.day, calendar.monthrange(year, month + 1)[1]))


def host_facts(gathered: Mapping[str, Any], today: str) -> dict[str, Any]:
    """Return the facts of a host, which the report is made from.

    :param gathered: `engine`; `info`, the result of the module for information; `compared`, the results of the
        module for verification; `targets`, the databases in their order, each with `name` and `exceptions`;
        `statements`; `retention`; `verified`, what is kept of verification by database; `exempt_databases`;
        `adopt`, what the inventory says of auditing that is not ours;
        `unreachable`; `error`, why asking ended early, or empty; `asked_at` and the name of the `period`, by which
        another run tells whether it can take the facts. What was not asked is missing.
    :param today: as in 2026-11-22.
    """
    info = gathered.get("info") or {}
    facts = {
        "engine": gathered["engine"],
        "status": "unreachable" if gathered.get("unreachable") else "failed" if gathered.get("error") else "ok",
        "reason": gathered.get("error") or "",
        "retention": gathered.get("retention"),
        "asked_at": gathered.get("asked_at"),
        "period": gathered.get("period"),
    }
    if facts["status"] != "ok":
        return facts
    compared = dict(zip((target["name"] for target in gathered["targets"]), gathered["compared"]))
    targets = {target["name"]: target for target in gathered["targets"]}
    verified = gathered.get("verified") or {}
    return {
        **facts,
        "server": _server(info, gathered),
        "trails": [
            _trail(
                trail,
                *_of(trail["database"], targets, compared, verified),
                today,
                info.get("limitations") or [],
                gathered.get("adopt") or "report",
            )
            for trail in info.get("trails") or []
        ],
        "statements": gathered.get("statements"),
        "checks": info.get("checks") or [],
    }


def _server(info: Mapping[str, Any], gathered: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of the server as a whole."""
    server = {key: value for key, value in info.items() if key not in ("trails", "checks", "statements")}
    of_trails = {
        f"{trail['database']}: {text}" for trail in info.get("trails") or [] for text in trail.get("limitations") or []
    }
    server["limitations"] = [text for text in info.get("limitations") or [] if text not in of_trails]
    server["waiting"] = _waiting(gathered.get("statements"), gathered["engine"])
    exempt = gathered.get("exempt_databases") or []
    server["unlisted"] = [
        name for name in info.get("unlisted") or [] if not any(fnmatchcase(name, pattern) for pattern in exempt)
    ]
    return server


def _waiting(statements: Mapping[str, Any] | None, engine: str) -> list[str] | None:
    """Return the libraries of statement auditing that wait for a restart; None where that was not asked."""
    if statements is None or (statements["enabled"] and statements.get("restart_required") is None):
        return None
    library = "server_audit" if engine == "mysql" else "pgaudit"
    return [library] if statements.get("restart_required") else []


def _of(database: str, targets: Mapping[str, Any], *kept: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what is known of a database; a server that has one trail has one of each, without a name."""
    name = database if database in targets else ""
    return tuple(known.get(name) or {} for known in (targets, *kept))


def _trail(
    trail: Mapping[str, Any],
    target: Mapping[str, Any],
    compared: Mapping[str, Any],
    verified: Mapping[str, Any],
    today: str,
    known: Sequence[str],
    adopt: str,
) -> dict[str, Any]:
    return {
        **trail,
        "adopt": adopt,
        "problems": _problems(compared),
        "verified_at": verified.get("verified_at"),
        "exceptions": [
            {**exception, "expired": bool(exception.get("until")) and str(exception["until"]) < today}
            for exception in target.get("exceptions") or []
        ],
        # What the login cannot do is said once for the server.
        "limitations": [
            text
            for text in dict.fromkeys(
                [*(trail.get("limitations") or []), *(compared.get("limitations") or []), verified.get("error")]
            )
            if text and text not in known
        ],
    }


def _problems(compared: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    if compared.get("failed"):
        return [{"type": "refused", "detail": compared["msg"]}]
    return compared.get("problems")


def pgaudit_facts(
    configured: Mapping[str, Any] | None, preload: Mapping[str, Any] | None, enabled: bool
) -> dict[str, Any] | None:
    """Return what the report says of pgaudit, from the predictions of its modules in check mode."""
    if not enabled:
        return {"enabled": False, "problems": []}
    if not configured or "differences" not in configured:
        return None
    preload = preload or {}
    classes = pgaudit_classes(configured["settings"].get("pgaudit.log"))
    problems = [*preload.get("differences", []), *configured["differences"]]
    # What a rollout would not change may still wait for what makes it count.
    if not configured.get("loaded"):
        problems.append("the server has not loaded pgaudit")
    elif preload.get("restart_required"):
        problems.append("the server has not restarted since its libraries were set")
    return {
        "enabled": True,
        "problems": list(dict.fromkeys(problems)),
        "limitations": list(configured.get("limitations") or []),
        "restart_required": bool(preload.get("restart_required")),
        "grants": "role" in classes,
        "reads": bool(configured["objects"]) or "read" in classes,
    }


def plugin_facts(result: Mapping[str, Any] | None, enabled: bool) -> dict[str, Any] | None:
    """Return what the report says of server_audit, from the prediction of its module in check mode."""
    if not enabled:
        return {"enabled": False, "problems": []}
    if not result or "available" not in result:
        return None
    if not result["available"]:
        return {"enabled": False, "reason": result["reason"], "problems": []}
    events = words(result["settings"]["events"])
    said = result.get("limitations") or []
    # As asked or not, nothing is recorded then.
    lost = [text for text in said if text == NOT_LOGGING or text.endswith(UNWRITTEN)]
    return {
        "enabled": True,
        "problems": [*result["differences"], *lost],
        "lost": bool(lost),
        "limitations": [text for text in said if text not in lost],
        "restart_required": bool(result.get("restart_required")),
        # ALTER USER and SET PASSWORD are in no narrower event.
        "grants": bool(events & {"", "query"}) and not any(result["settings"].get(name) for name in USER_LISTS),
        "reads": bool(events & {"", "query", "table", "query_dml"}),
    }
