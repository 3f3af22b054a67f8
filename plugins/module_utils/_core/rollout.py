# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the triggers modules of all engines share: options, the outcome of planning, the run, results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from typing import Any, Callable

from .errors import AuditError
from .exemption import EXCEPTIONS_SPEC, Exemption, parse_exemptions
from .module import AuditModule, AuditSession
from .plan import Failure, Plan
from .policy import NO_LIMITS, Limits, Policy, parse_policies
from .selection import Selection

TRIGGER_SPEC: dict[str, Any] = {
    "policies": {"type": "list", "elements": "dict", "default": []},
    **EXCEPTIONS_SPEC,
    "purge": {"type": "bool", "default": True},
    "allow_missing": {"type": "bool", "default": False},
    "redact_defaults": {"type": "bool", "default": True},
}


@dataclass(frozen=True)
class TriggerOptions:
    """What the user asked for; field names are the module's options.

    :ivar database: what messages call the place: a database, or a whole server.
    """

    schema: str
    database: str
    policies: Sequence[Policy]
    exemptions: Sequence[Exemption]
    purge: bool
    allow_missing: bool


@dataclass
class TriggerPlan:
    """The plan, and what a person wants to know about it."""

    plan: Plan
    selection: Selection
    warnings: list[str] = field(default_factory=list)
    limitations: list[str] = field(default_factory=list)
    #: Triggers with a condition of the user's that are about to be made, to be tried out first.
    conditional: list[Any] = field(default_factory=list)


def trigger_options(params: Mapping[str, Any], database: str, limits: Limits = NO_LIMITS) -> TriggerOptions:
    """Check the policies; nothing has been read from the server yet."""
    return TriggerOptions(
        params["schema"],
        database,
        parse_policies(params["policies"], database, params["redact_defaults"], limits),
        parse_exemptions(params["exceptions"], database),
        params["purge"],
        params["allow_missing"],
    )


def reconcile(
    module: AuditModule,
    session: AuditSession,
    planner: Callable[[], TriggerPlan],
    refused_conditions: Callable[[Sequence[Any], Any], list[Failure]],
) -> tuple[TriggerPlan, list[Failure]]:
    """Bring every table under its policy; return the plan and what failed of it.

    :param planner: reads the catalogue, plans, and refuses a login or a server that cannot have the plan.
    :param refused_conditions: tries out :attr:`TriggerPlan.conditional` and returns what the server will not take.
    """
    planned: list[tuple[TriggerPlan, list[Failure]]] = []

    def plan(_session: AuditSession) -> Plan:
        result = planner()
        refused = refused_conditions(result.conditional, session) if result.plan else []
        _leave_out_refused(result, refused, session.database)
        planned[:] = [(result, refused)]
        return result.plan

    applied = module.reconcile(session, plan)
    result, refused = planned[0]
    return result, [*refused, *applied]


def _leave_out_refused(result: TriggerPlan, refused: Sequence[Failure], database: str) -> None:
    """Leave out the tables that a condition does not fit, for their columns may be to blame: the others must not wait.

    :raises AuditError: for a condition that fits none of its policy's tables, which is the policy's fault.
    """
    subjects = {failure.subject for failure in refused}
    tables: dict[str, set[str]] = {}
    for (schema, name), policy in result.selection.policies.items():
        tables.setdefault(policy.name, set()).add(f"{schema}.{name}")
    for failure in refused:
        if any(failure.subject in titles and titles <= subjects for titles in tables.values()):
            raise AuditError(f"{database}: {failure.explanation}")
    result.plan.leave_out(subjects)


def unmatched_exemptions(options: TriggerOptions, selection: Selection) -> list[str]:
    """Return a warning for every exception that no table bears out."""
    exempted = list(selection.exempted.values())
    return [
        f"exception {exemption.pattern.text!r} matches no table: correct it, or take it off the list"
        for exemption in options.exemptions
        if exemption not in exempted
    ]


def report(module: AuditModule, result: TriggerPlan, failures: Sequence[Failure], database: str) -> None:
    """Put what a person wants to know into the results.

    :raises AuditError: when tables were left as they were.
    """
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
        failed_tables=[{"table": failure.subject, "error": failure.explanation} for failure in failures],
        exceptions=exceptions(result.selection),
        limitations=result.limitations,
    )
    for warning in result.warnings:
        module.warn(warning)
    if failures:
        raise AuditError(
            f"{database}: {len(failures)} of {len(result.selection.policies)} tables were left as they were, "
            "the rest is done: " + "; ".join(f"{failure.subject} ({failure.explanation})" for failure in failures)
        )


def exceptions(selection: Selection) -> list[dict[str, Any]]:
    """Return the tables that an exception keeps out of auditing."""
    today: date = datetime.now(timezone.utc).date()
    return [{"table": f"{schema}.{name}", **entry.plain(today)} for (schema, name), entry in selection.exempted.items()]
