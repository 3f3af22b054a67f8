# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What settings say of DDL, grants and logins, and what the ages of archives say of retention. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.retention import Age, Retention
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_checks import Result

_ON = ("on", "1", "true", "yes")

_CLASSES = frozenset(("read", "write", "function", "role", "ddl", "misc", "misc_set"))


def settings_checks(trail: Mapping[str, Any]) -> list[Result]:
    """Return whether DDL, grants and logins of a database are recorded, by the trail or by the server's own audit."""
    settings = trail.get("settings")
    if not settings:
        return [Result(name, "unknown", "not gathered") for name in ("ddl_recorded", "logins_recorded")]
    events = settings.get("events") or []
    return [
        _recorded("ddl_recorded", "DDL", [*_by_trail(events, "ddl"), *_server_classes(settings, "ddl")]),
        _recorded("logins_recorded", "logins", [*_by_trail(events, "login"), *_server_logins(settings)]),
        *_grants(settings),
    ]


def _grants(settings: Mapping[str, Any]) -> list[Result]:
    """Return that a database goes without what the server as a whole has been given; see _report_checks."""
    classes = settings.get("pgaudit.log")
    if classes is None or "role" in pgaudit_classes(classes):
        return []
    text = f"pgaudit.log is {classes!r} here: nothing records grants and changes of roles"
    return [Result("grants_recorded", "amber", text, "add the class role to pgaudit_settings; see docs/statements.md")]


def pgaudit_classes(setting: Any) -> set[str]:
    """Return the classes that a value of pgaudit.log leaves; as pgaudit reads it, a minus takes one away again."""
    classes: set[str] = set()
    for word in (part.strip().lower() for part in str(setting or "").split(",")):
        named = word.removeprefix("-")
        meant = _CLASSES if named == "all" else {named} & _CLASSES
        classes = classes - meant if word.startswith("-") else classes | meant
    return classes


def _recorded(check: str, what: str, by: Sequence[str]) -> Result:
    if by:
        return Result(check, "ok", f"{what}: by {' and by '.join(by)}")
    return Result(check, "amber", f"nothing records {what}", "roll out statement auditing; see docs/statements.md")


def _by_trail(events: Sequence[str], event: str) -> list[str]:
    return ["the trail"] if event in events else []


def words(value: Any) -> set[str]:
    """Return the words of a list, or of a setting with commas between them, in lower case."""
    parts = value if isinstance(value, list) else str(value or "").split(",")
    return {str(part).strip().lower() for part in parts}


def _server_classes(settings: Mapping[str, Any], wanted: str) -> list[str]:
    by = ["pgaudit"] if wanted in pgaudit_classes(settings.get("pgaudit.log")) else []
    if _plugin_logs(settings) and words(settings.get("server_audit_events")) & {f"query_{wanted}", "query", ""}:
        by.append("server_audit")
    return by


def _server_logins(settings: Mapping[str, Any]) -> list[str]:
    # From PostgreSQL 18 on it may be a list of what is logged of a connection.
    logged = words(settings.get("log_connections")) - {"off", "", "0", "false", "no", "none"}
    by = ["the server's log"] if logged else []
    if _plugin_logs(settings) and words(settings.get("server_audit_events")) & {"connect", ""}:
        by.append("server_audit")
    return by


def _plugin_logs(settings: Mapping[str, Any]) -> bool:
    return str(settings.get("server_audit_logging", "")).lower() in _ON


def retention_check(given: Mapping[str, Any] | None, least: str | None) -> Result:
    """Return whether archives are kept for long enough.

    :param given: `url`, `older_than` and `categories` of a host, as the role audit_archive takes them.
    :param least: the age that is asked for, or None when it is enough that there is one.
    """
    if given is None:
        return Result("retention", "unknown", "not known")
    if not given.get("url"):
        # What is not archived is in the log, and nothing says for how long somebody leaves it there.
        return Result("retention", "unknown", "nothing is archived: audit_archive_url is not set")
    try:
        ages = _archive_ages(given)
    except AuditError as error:
        return Result("retention", "red", f"audit_archive_{error}", "set audit_archive_retention")
    if least is None:
        if all(age is None for age in ages.values()):
            return Result("retention", "unknown", "no age is set: what is archived is kept for good")
        return Result("retention", "ok", _said(ages))
    short = [name for name, age in ages.items() if age and age < Age.parse(least, "retention")]
    if short:
        text = f"{_said({name: ages[name] for name in short})}; {least} is asked for"
        return Result("retention", "red", text, "raise the ages in audit_archive_retention")
    return Result("retention", "ok", f"{_said(ages)}; {least} is asked for")


def _archive_ages(given: Mapping[str, Any]) -> dict[str, Age | None]:
    categories = given.get("categories") or {}
    retention = Retention(given.get("older_than") or "13mo", categories)
    return {name: retention.of([name]).archive for name in categories} or {"default": None}


def _said(ages: Mapping[str, Age | None]) -> str:
    return "archives: " + ", ".join(f"{name} {age.text if age else 'for good'}" for name, age in ages.items())
