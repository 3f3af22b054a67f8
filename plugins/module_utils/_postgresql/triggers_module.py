# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options, planning and results of postgresql_audit_triggers, shared with verify."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timezone
from typing import Any

from .._core.errors import AuditError
from .._core.plan import Plan
from .._core.policy import parse_exemptions, parse_policies
from .._core.selection import Selection
from . import trail_catalog
from .apply import Failure
from .conditions import refused_conditions
from .module import PostgresqlModule
from .policy_versions import TriggerCatalog, TriggerOptions
from .session import Session
from .trigger_catalog import read_policies, read_tables
from .triggers import UNUSED, TriggerPlan, plan_triggers

TRIGGER_SPEC: dict[str, Any] = {
    "policies": {"type": "list", "elements": "dict", "default": []},
    "exceptions": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "table": {"type": "str", "required": True},
            "reason": {"type": "str", "required": True},
            "approved_by": {"type": "str", "required": True},
            "until": {"type": "str"},
        },
    },
    "purge": {"type": "bool", "default": True},
    "allow_missing": {"type": "bool", "default": False},
    "redact_defaults": {"type": "bool", "default": True},
}

_DEPENDENT_OBJECTS = "2BP01"


def trigger_options(params: Mapping[str, Any]) -> TriggerOptions:
    """Check the policies; nothing has been read from the server yet."""
    return TriggerOptions(
        params["schema"],
        params["login_db"],
        parse_policies(params["policies"], params["login_db"], params["redact_defaults"]),
        parse_exemptions(params["exceptions"], params["login_db"]),
        params["purge"],
        params["allow_missing"],
    )


def read(session: Session, schema: str, roles: list[str] | None = None) -> TriggerCatalog:
    trail = trail_catalog.read(session, schema, roles or [])
    stored = []
    if "policy" in trail.relations:
        trail.login.require()
        stored = read_policies(session, schema)
    return TriggerCatalog(trail, read_tables(session, schema), stored, session.encoding)


def reconcile(module: PostgresqlModule, session: Session) -> None:
    """Bring every table under its policy and report what a person wants to know."""
    options = trigger_options(module.params)
    planned: list[tuple[TriggerPlan, list[Failure]]] = []

    def planner(open_session: Session) -> Plan:
        catalog = read(open_session, options.schema)
        result = plan_triggers(options, catalog, open_session)
        refused: list[Failure] = []
        if result.plan:
            open_session.require_writable()
            _require_trail(module, catalog, options)
            refused = _leave_out_refused(result, open_session)
        planned[:] = [(result, refused)]
        return result.plan

    applied = module.reconcile(session, planner)
    result, refused = planned[0]
    failures = _without_echo(refused + applied)
    _report(module, result, failures)
    if failures:
        raise AuditError(
            f"{options.database}: {len(failures)} of {len(result.selection.policies)} tables were left as they were, "
            "the rest is done: " + "; ".join(f"{failure.subject} ({failure.explain()})" for failure in failures)
        )


def _leave_out_refused(result: TriggerPlan, session: Session) -> list[Failure]:
    """Leave out the tables whose owners made something that a condition does not fit: the others must not wait.

    :raises AuditError: for a condition that fits none of its policy's tables, which is the policy's fault.
    """
    refused = refused_conditions(result.conditional, session)
    subjects = {failure.subject for failure in refused}
    tables: dict[str, set[str]] = {}
    for (schema, name), policy in result.selection.policies.items():
        tables.setdefault(policy.name, set()).add(f"{schema}.{name}")
    for failure in refused:
        if any(failure.subject in titles and titles <= subjects for titles in tables.values()):
            raise AuditError(f"{session.database}: {failure.message}")
    result.plan.leave_out(subjects)
    return refused


def _require_trail(module: PostgresqlModule, catalog: TriggerCatalog, options: TriggerOptions) -> None:
    # In check mode of a first rollout the trail is only predicted, and so are the triggers.
    if options.policies and not catalog.trail.installed and not module.check_mode:
        raise AuditError(
            f"{options.database}: no audit trail in schema {options.schema!r}; run postgresql_audit_trail first"
        )


def _without_echo(failures: list[Failure]) -> list[Failure]:
    """Leave out that an unused function could not go because a table that failed still uses it."""
    echo = [failure for failure in failures if failure.subject == UNUSED and failure.sqlstate == _DEPENDENT_OBJECTS]
    return [failure for failure in failures if failure not in echo] if len(failures) > len(echo) else failures


def _report(module: PostgresqlModule, result: TriggerPlan, failures: list[Failure]) -> None:
    failed = {failure.subject for failure in failures}
    tables = {f"{schema}.{name}" for schema, name in result.selection.policies}
    module.results.update(
        audited=len(tables - failed),
        auditable=result.selection.auditable,
        changed_tables=sorted((set(result.plan.subjects()) - failed) & tables),
        skipped_tables=[
            {"table": f"{schema}.{name}", "reason": reason}
            for (schema, name), reason in result.selection.skipped.items()
        ],
        failed_tables=[{"table": failure.subject, "error": failure.explain()} for failure in failures],
        exceptions=exceptions(result.selection),
        limitations=result.limitations,
    )
    for warning in result.warnings:
        module.warn(warning)


def exceptions(selection: Selection) -> list[dict[str, Any]]:
    """Return the tables that an exception keeps out of auditing."""
    today: date = datetime.now(timezone.utc).date()
    return [
        {
            "table": f"{schema}.{name}",
            "reason": entry.reason,
            "approved_by": entry.approved_by,
            "until": entry.until.isoformat() if entry.until else None,
            "expired": entry.expired(today),
        }
        for (schema, name), entry in selection.exempted.items()
    ]
