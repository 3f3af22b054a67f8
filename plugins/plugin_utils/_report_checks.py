# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the report checks of a host as a whole, and the frame of all checks. Pure functions on what was gathered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ansible_collections.dbfleet.audit.plugins.plugin_utils._rollout import counted

#: Every check by its id, as reports, controls, JUnit and Prometheus call it.
CHECKS = {
    "reachable": "The server answered, and so did its databases",
    "trail_installed": "The audit trail is installed",
    "coverage": "Every table that could be audited is",
    "drift": "Auditing is as the inventory asks for",
    "exceptions": "No exception has expired",
    "partitions_ahead": "Partitions of the log are made ahead of time",
    "catch_all_empty": "No row waits in the catch-all partition",
    "sealed": "Rows are sealed in time",
    "seals_signed": "Every seal is signed",
    "append_only": "Guards and rights on the log are as they have to be",
    "statements": "Statement auditing is as the inventory asks for",
    "ddl_recorded": "DDL is recorded",
    "grants_recorded": "Grants and changes of roles and users are recorded",
    "logins_recorded": "Logins are recorded",
    "reads_recorded": "Reads are recorded of something",
    "user_context": "Changes name the application's user",
    "sensitive_columns": "No table that looks sensitive goes without audit",
    "retention": "Archives are kept for as long as the profiles ask",
    "pending_restart": "No restart is pending",
    "audit_failures": "No change went unrecorded",
    "other_auditing": "Auditing that is not ours is there on purpose, or there is none",
    "limitations": "The login can give every guarantee",
    "user_checks": "Every check of your own is within its threshold",
}

#: From the best to the worst.
LEVELS = ("ok", "unknown", "amber", "red")


@dataclass(frozen=True)
class Result:
    """What a check has found.

    :ivar level: one of LEVELS; unknown where what was gathered does not tell.
    :ivar fix: the command or the setting that mends it.
    :ivar database: empty for the host.
    """

    check: str
    level: str
    text: str
    fix: str = ""
    database: str = ""


@dataclass(frozen=True)
class Context:
    """What the checks go by beside the facts of a host.

    :ivar now: when the facts were gathered.
    :ivar max_unsealed_hours: after which a row that is in no seal is too old.
    :ivar retention: the least age of archives that the profiles ask for, or None.
    """

    host: str
    now: datetime
    max_unsealed_hours: float = 24
    retention: str | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def run(self, playbook: str) -> str:
        """Return the command that runs a playbook on this host."""
        return f"ansible-playbook dbfleet.audit.{playbook} --limit {self.host}"


def instant(text: str) -> datetime:
    """Return the time of an ISO text; one without a zone is UTC."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def worst(results: Iterable[Result]) -> str:
    """Return the worst level of all; ok when there are none."""
    return max((result.level for result in results), key=LEVELS.index, default="ok")


def named(names: Sequence[str], most: int = 5) -> str:
    """Return names in one line, the first few of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def server_checks(facts: Mapping[str, Any], context: Context) -> list[Result]:
    """Return what the checks of a server that has answered have found."""
    server = facts.get("server") or {}
    return [
        Result("reachable", "ok", "answered"),
        _restart(facts, context),
        *_unlisted(server),
        *_statements(facts.get("statements"), server, context),
        *_own_checks(facts.get("checks") or []),
        *[
            Result("limitations", "amber", text)
            for part in (server, facts.get("statements") or {})
            for text in part.get("limitations") or []
        ],
    ]


def _unlisted(server: Mapping[str, Any]) -> list[Result]:
    names = server.get("unlisted") or []
    if not names:
        return []
    text = f"{counted(len(names), 'database')} that the inventory does not list: {named(names)}"
    return [
        Result(
            "coverage", "amber", text, "list them in postgresql_audit_databases, or in audit_report_exempt_databases"
        )
    ]


def _restart(facts: Mapping[str, Any], context: Context) -> Result:
    server = facts.get("server") or {}
    errors = [str(error) for error in (server.get("restart") or {}).get("errors") or []]
    if errors:
        text = f"the server would not start again: {named(errors, 3)}"
        return Result("pending_restart", "red", text, "mend the configuration")
    waiting = pending(facts)
    if waiting is None:
        return Result("pending_restart", "unknown", "this login does not see whether something waits for a restart")
    if waiting:
        role = "mysql_audit_plugin" if facts.get("engine") == "mysql" else "pgaudit"
        fix = f"{context.run('site')} -e {role}_restart=auto"
        return Result("pending_restart", "amber", f"a restart is pending: {named(waiting)}", fix)
    return Result("pending_restart", "ok", "none is pending")


def pending(facts: Mapping[str, Any]) -> list[str] | None:
    """Return what waits for a restart of a server; None where that is not known.

    Of MariaDB and MySQL it is server_audit alone: these servers do not tell what else would be read at a start.
    """
    server = facts.get("server") or {}
    plugin, settings = (
        server.get("waiting"),
        (server.get("restart") or {}).get("pending", server.get("pending_restart")),
    )
    known = plugin if facts.get("engine") == "mysql" else settings
    waiting = [str(item) for item in (*(settings or ()), *(plugin or ()))]
    return None if known is None and not waiting else waiting


def _by_hand(server: Mapping[str, Any]) -> str:
    """Return what others have set of statement auditing, for a text that ends here."""
    set_ = [*((server.get("pgaudit") or {}).get("settings") or []), *(server.get("server_audit") or [])]
    if not set_:
        return ""
    return "; set by hand: " + named([f"{entry['name']} = {entry['value']} ({entry['place']})" for entry in set_])


def _statements(statements: Mapping[str, Any] | None, server: Mapping[str, Any], context: Context) -> list[Result]:
    if not statements:
        return [Result(name, "unknown", "not asked") for name in ("statements", "grants_recorded", "reads_recorded")]
    if not statements["enabled"]:
        text = f"no statement auditing: {statements.get('reason') or 'switched off for this host'}{_by_hand(server)}"
        return [
            Result("statements", "amber", text, "see docs/statements.md"),
            Result("grants_recorded", "amber", text, "see docs/statements.md"),
            Result("reads_recorded", "unknown", "no statement auditing"),
        ]
    problems = [str(problem) for problem in statements["problems"]]
    if problems:
        # Settings are what was asked for, and not what is being logged.
        left_open = ["grants_recorded", "reads_recorded"]
        # Nor are settings enough where records get lost.
        left_open += ["ddl_recorded", "logins_recorded"] if statements.get("lost") else []
        return [
            Result("statements", "red", f"not as asked: {named(problems)}", context.run("site")),
            *[Result(name, "unknown", "statement auditing is not as asked") for name in left_open],
        ]
    return [Result("statements", "ok", "as asked"), _grants(statements), _reads(statements)]


def _grants(statements: Mapping[str, Any]) -> Result:
    if statements.get("grants"):
        return Result("grants_recorded", "ok", "grants and changes of roles and users: by statement auditing")
    text = "not all of them are recorded, but by pgaudit's class role, and by server_audit's event QUERY of all users"
    return Result("grants_recorded", "amber", text, "set pgaudit_settings or mysql_audit_plugin_settings")


def _reads(statements: Mapping[str, Any]) -> Result:
    if statements.get("reads"):
        return Result("reads_recorded", "ok", "some reads are recorded: those that the settings name")
    return Result("reads_recorded", "unknown", "no setting asks for reads; see pgaudit_objects")


def _own_checks(checks: Iterable[Mapping[str, Any]]) -> list[Result]:
    results = []
    for check in checks:
        database = check.get("database") or ""
        if check.get("error"):
            results.append(Result("user_checks", "red", f"{check['name']}: {check['error']}", database=database))
            continue
        text = f"{check['name']}: {check['value']}, at most {check['threshold']}"
        results.append(Result("user_checks", "ok" if check["ok"] else "red", text, database=database))
    return results
