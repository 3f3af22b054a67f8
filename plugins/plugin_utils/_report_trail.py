# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the report checks of a database's trail, from what the modules have returned of it. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core.info import COUNT_LIMIT
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_checks import Context, Result, instant, named
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_settings import settings_checks
from ansible_collections.dbfleet.audit.plugins.plugin_utils._rollout import counted

#: What is checked of each database. Its being unknown leaves open whether the database is audited as it has to be.
ESSENTIAL = (
    *("trail_installed", "coverage", "drift", "exceptions", "partitions_ahead", "catch_all_empty", "sealed"),
    *("append_only", "audit_failures", "ddl_recorded", "logins_recorded"),
)
#: The others, which may be unknown because nobody asked, or nothing was there to be looked at.
CHECKED = (*ESSENTIAL, "seals_signed", "user_context", "sensitive_columns")

#: Types of problems that have a check of their own.
_RIGHTS = ("grant", "not_refused")
_EXPIRED = "exception_expired"
#: What refuses changes of the log.
_GUARDS = re.compile(r"\b(?:dbfleet_audit_(?:row_)?guard\w*|refuse_change)\b")

#: From which share of changes without an application's user on it is worth a word, unless a threshold says.
_USUAL_CONTEXT = 90


def trail_checks(trail: Mapping[str, Any], context: Context) -> list[Result]:
    """Return what the checks of one database have found."""
    if trail.get("error"):
        found = [
            Result("reachable", "red", f"could not be read: {trail['error']}", context.run("verify")),
            *unknown("the database could not be read"),
        ]
    elif not trail.get("installed"):
        found = [
            Result("trail_installed", "red", "there is no audit trail, and it was asked for", context.run("site")),
            *_sensitive(trail),
            *unknown("there is no audit trail", but=("trail_installed", "sensitive_columns")),
        ]
    else:
        found = [
            Result("trail_installed", "ok", "installed"),
            _coverage(trail, context),
            _drift(trail, context),
            _exceptions(trail),
            *_partitions(trail.get("partitions"), context),
            *_seals(trail.get("seals"), context),
            _rights(trail, context),
            *_activity(trail.get("activity"), context),
            *settings_checks(trail),
            *_sensitive(trail),
            *_others(trail),
            *[Result("limitations", "amber", text) for text in trail.get("limitations") or []],
        ]
    return [Result(one.check, one.level, one.text, one.fix, trail["database"]) for one in found]


def unknown(reason: str, but: Sequence[str] = ()) -> list[Result]:
    """Return that nothing is known of a database, or another one's answers would stand for it."""
    return [Result(check, "unknown", reason) for check in CHECKED if check not in but]


def _rows(number: int) -> str:
    """Return a number of rows in words; the modules count no further than to a limit."""
    return f"more than {COUNT_LIMIT - 1:,} rows" if number >= COUNT_LIMIT else counted(number, "row")


def _coverage(trail: Mapping[str, Any], context: Context) -> Result:
    coverage = trail.get("coverage")
    if not coverage or coverage["audited"] is None:
        return Result("coverage", "unknown", "this login does not see which tables are audited")
    tables = [table for table in coverage["tables"] if not table["exception"] or table["exception"]["expired"]]
    # False is not audited, None what the login does not see.
    missing, hidden = ([table["table"] for table in tables if table["audited"] is answer] for answer in (False, None))
    text = f"{coverage['audited']:,} of {counted(coverage['auditable'], 'table')} audited"
    if hidden:
        text += f"; this login does not see whether these are: {named(hidden)}"
    broken = [
        f"{table['table']} ({table['problem']})"
        for table in tables
        if table.get("problem") and table["audited"] is not None
    ]
    if broken:
        return Result("coverage", "red", f"{text}; not as they were: {named(broken)}", context.run("site"))
    if missing:
        fix = f"add a policy or an exception for them, then {context.run('site')}"
        return Result("coverage", "amber", f"{text}; without: {named(missing)}", fix)
    if hidden:
        return Result("coverage", "unknown", text)
    return Result("coverage", "ok", text)


def _drift(trail: Mapping[str, Any], context: Context) -> Result:
    if trail.get("problems") is None:
        return Result("drift", "unknown", "not compared with the inventory")
    tables = _names(trail)
    problems = [
        problem["detail"]
        for problem in trail["problems"]
        if problem["type"] not in (*_RIGHTS, _EXPIRED) and not _is_guard(problem, tables)
    ]
    if problems:
        text = f"{counted(len(problems), 'difference')} from what was asked: {named(problems, 3)}"
        return Result("drift", "red", text, context.run("site"))
    return Result("drift", "ok", "as asked")


def _names(trail: Mapping[str, Any]) -> set[str]:
    return {table["table"] for table in (trail.get("coverage") or {}).get("tables") or []}


def _is_guard(problem: Mapping[str, Any], tables: Collection[str]) -> bool:
    """Tell whether a problem is about what protects the log, and not about a table that has the name of a guard."""
    return bool(_GUARDS.search(problem["detail"])) and problem.get("table") not in tables


def _exceptions(trail: Mapping[str, Any]) -> Result:
    exceptions = trail.get("exceptions") or []
    expired = [f"{entry['table']} ({entry['until']})" for entry in exceptions if entry.get("expired")]
    if expired:
        fix = "audit them, or have the exception approved anew"
        return Result("exceptions", "red", f"expired: {named(expired)}", fix)
    return Result("exceptions", "ok", f"{counted(len(exceptions), 'exception')}, none expired")


def _partitions(partitions: Mapping[str, Any] | None, context: Context) -> list[Result]:
    if not partitions:
        return [Result(name, "unknown", "not gathered") for name in ("partitions_ahead", "catch_all_empty")]
    ahead, wanted = partitions["ahead"], context.thresholds.get("partitions_ahead", 1)
    text = f"{counted(ahead, partitions.get('interval') or 'period')} ahead, until {partitions['until'] or 'none'}"
    return [
        Result("partitions_ahead", "ok", text)
        if ahead >= wanted
        else Result("partitions_ahead", "amber", text, context.run("site")),
        _catch_all(partitions.get("catch_all_rows"), context),
    ]


def _catch_all(rows: int | None, context: Context) -> Result:
    if rows is None:
        return Result("catch_all_empty", "unknown", "its rows could not be counted")
    if rows:
        return Result("catch_all_empty", "amber", f"{_rows(rows)} in it", context.run("site"))
    return Result("catch_all_empty", "ok", "it is empty")


def _seals(seals: Mapping[str, Any] | None, context: Context) -> list[Result]:
    if not seals:
        return [Result(name, "unknown", "not gathered") for name in ("sealed", "seals_signed")]
    if not seals.get("last_number"):
        text, fix = "the log was never sealed", "set audit_seal_signing_key; see docs/seals.md"
        return [Result("sealed", "amber", text, fix), Result("seals_signed", "unknown", text)]
    return [_sealed(seals, context), _signed(seals, context)]


def _signed(seals: Mapping[str, Any], context: Context) -> Result:
    unsigned = seals.get("unsigned")
    if unsigned is None:
        return Result("seals_signed", "unknown", "not gathered")
    if unsigned:
        return Result("seals_signed", "amber", f"{counted(unsigned, 'seal')} not signed", context.run("seal"))
    return Result("seals_signed", "ok", f"{counted(seals['last_number'], 'seal')}, all signed")


def _sealed(seals: Mapping[str, Any], context: Context) -> Result:
    oldest, rows = seals.get("oldest_unsealed_at"), seals.get("unsealed_rows")
    if rows is None:
        return Result("sealed", "unknown", "the rows that are in no seal could not be counted")
    text = f"last seal {seals['last_number']} of {seals['last_sealed_at']}, {_rows(rows)} unsealed"
    age = unsealed_hours(seals, context)
    if age > context.max_unsealed_hours:
        text += f", the oldest since {oldest}: more than {context.max_unsealed_hours:g} hours"
        return Result("sealed", "red", text, context.run("seal"))
    return Result("sealed", "ok", text)


def unsealed_hours(seals: Mapping[str, Any], context: Context) -> float:
    """Return the age of the oldest row that is in no seal, in hours."""
    oldest = seals.get("oldest_unsealed_at")
    return (context.now - instant(oldest)).total_seconds() / 3600 if oldest else 0.0


def _rights(trail: Mapping[str, Any], context: Context) -> Result:
    tables = _names(trail)
    problems = [
        problem["detail"]
        for problem in trail.get("problems") or []
        if problem["type"] in _RIGHTS or _is_guard(problem, tables)
    ]
    problems += [
        f"{grant['grantee']} has {', '.join(grant['privileges'])} on {grant['object']}"
        for grant in trail.get("grants") or []
        if not grant["expected"]
    ]
    if problems:
        return Result("append_only", "red", named(problems), context.run("site"))
    if trail.get("grants") is None or trail.get("problems") is None:
        return Result("append_only", "unknown", "not gathered")
    if any(problem["type"] == "refused" for problem in trail["problems"]):
        return Result("append_only", "unknown", "the comparison with the inventory was refused; see drift")
    return Result("append_only", "ok", "guards and rights as they have to be")


def _activity(activity: Mapping[str, Any] | None, context: Context) -> list[Result]:
    if not activity:
        return [Result(name, "unknown", "not gathered") for name in ("audit_failures", "user_context")]
    return [_failures(activity.get("failures")), _user_context(activity, context)]


def _failures(failures: int | None) -> Result:
    if failures is None:
        return Result("audit_failures", "unknown", "not gathered")
    if failures:
        text = f"{counted(failures, 'change')} not recorded"
        return Result("audit_failures", "red", text, "find the reason in the log")
    return Result("audit_failures", "ok", "none in the period")


def with_user(activity: Mapping[str, Any]) -> float | None:
    """Return the share of changes that name an application's user, in percent; None when there is none to be named."""
    changes, without = activity.get("changes"), activity.get("without_user")
    return 100 * (changes - without) / changes if changes and without is not None else None


def _user_context(activity: Mapping[str, Any], context: Context) -> Result:
    share = with_user(activity)
    if share is None:
        text = "not gathered" if activity.get("changes") else "no application has changed anything"
        return Result("user_context", "unknown", text)
    wanted = context.thresholds.get("user_context", _USUAL_CONTEXT)
    text = f"{share:.0f} % of the changes name the application's user"
    if share >= wanted:
        return Result("user_context", "ok", text)
    without = [entry["name"] for entry in activity.get("applications") or [] if entry["without_user"]]
    fix = "have the applications say on whose behalf they work; see docs/context.md"
    return Result("user_context", "amber", f"{text}; without, at times: {named(without)}", fix)


def _others(trail: Mapping[str, Any]) -> list[Result]:
    logs = trail.get("foreign_auditing")
    if logs is None:
        return []
    if not logs:
        return [Result("other_auditing", "ok", "none")]
    told = [f"{log['log']} (of {counted(len(log['tables']), 'table')}, {_rows(log['rows'])})" for log in logs]
    text = f"triggers that are not ours write {named(told)}"
    left = [f"{log['log']}: {log['obstacle']}" for log in logs if log.get("obstacle")]
    if trail.get("adopt") == "import" and left:
        fix = "see docs/adoption.md, or drop the triggers that write to it once nobody needs them"
        return [Result("other_auditing", "amber", f"{text}; not imported: {named(left)}", fix)]
    if trail.get("adopt", "report") != "report":
        return [Result("other_auditing", "ok", f"{text}; adopt: {trail['adopt']}")]
    fix = "set postgresql_audit_adopt or mysql_audit_adopt to beside or import; see docs/adoption.md"
    return [Result("other_auditing", "amber", f"{text}, with whatever their columns hold in clear", fix)]


def _sensitive(trail: Mapping[str, Any]) -> list[Result]:
    found = trail.get("discovery")
    if found is None:
        return [Result("sensitive_columns", "unknown", "not looked for, or not all tables were seen")]
    tables = [f"{entry['table']} ({', '.join(entry['categories'])})" for entry in found]
    if tables:
        fix = "take the proposed policies over into the inventory"
        return [Result("sensitive_columns", "amber", f"not audited: {named(tables)}", fix)]
    return [Result("sensitive_columns", "ok", "none was found")]
