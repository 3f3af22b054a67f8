# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verification: what a rollout would change is what is wrong now, and the self-test proves the rest by doing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Callable

from .._core.errors import AuditError
from .._core.plan import Plan
from .._core.selection import Selection
from .function import OWNER, WRITER
from .login import limitations
from .module import PostgresqlModule
from .partitions_module import plan_partitions
from .self_test import Problem, self_test
from .session import Session
from .trail import plan_trail
from .trail_catalog import TrailCatalog
from .trail_module import trail_options
from .triggers import plan_triggers
from .triggers_module import exceptions, read, trigger_options


def verify(module: PostgresqlModule, session: Session) -> None:
    """Compare the database with what the options ask for, try it out, and report."""
    params = module.params
    trail, triggers = trail_options(params), trigger_options(params)
    everything = read(session, trail.schema, trail.roles())
    catalog = everything.trail
    if not catalog.installed:
        raise AuditError(f"{session.database}: no audit trail in schema {trail.schema!r}; run playbooks/site.yml first")
    module.results["limitations"] = limitations(catalog.login, catalog.guarded)
    problems = _differences(lambda: plan_trail(trail, catalog, session))

    def table_plan() -> Plan:
        result = plan_triggers(triggers, everything, session)
        problems.extend(_expired(result.selection))
        module.results.update(audited=len(result.selection.policies), auditable=result.selection.auditable)
        module.results["limitations"] += result.limitations
        return result.plan

    problems += _differences(table_plan)
    if not session.in_recovery:
        problems += _differences(lambda: plan_partitions(session, trail.schema, params["interval"], params["ahead"]))
    probe = params["self_test"] and not (session.in_recovery or module.check_mode or _broken(problems))
    obstacle = _obstacle(session, catalog)
    if probe and obstacle:
        problems.append(Problem("not_probed", f"{obstacle}, so that no probe could be made"))
        probe = False
    found = self_test(session, trail.schema, triggers.policies) if probe else []
    problems += found
    module.results.update(
        valid=not problems,
        problems=[{key: value for key, value in asdict(problem).items() if value} for problem in problems],
        probes=len(triggers.policies) if probe else 0,
        recorded=probe and not any(problem.type == "not_recorded" for problem in found),
        tampering_refused=probe and not any(problem.type == "not_refused" for problem in found),
    )
    if problems and params["fail_on_problem"]:
        raise AuditError(f"{session.database}: {_summary(problems)}")


def _summary(problems: list[Problem]) -> str:
    named = "; ".join(f"{problem.type}: {problem.detail}" for problem in problems[:10])
    more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
    return f"{len(problems)} problems: {named}{more}"


def _expired(selection: Selection) -> list[Problem]:
    return [
        Problem("exception_expired", f"the exception of {entry['table']} ended on {entry['until']}", entry["table"])
        for entry in exceptions(selection)
        if entry["expired"]
    ]


def _obstacle(session: Session, catalog: TrailCatalog) -> str:
    """Return what keeps the self-test from working here, or an empty text."""
    if session.read_only:
        return "default_transaction_read_only is on"
    if catalog.guarded and not catalog.login.superuser:
        return "event triggers of a superuser refuse the triggers of other logins"
    # Triggers of the log's tables run as whoever probes, and a member of its owner may have made some.
    if catalog.login.superuser and any(catalog.roles.get(name, {}).get("members") for name in (OWNER, WRITER)):
        return f"code of those who are members of {OWNER} or {WRITER} would run as this superuser"
    return ""


def _broken(problems: list[Problem]) -> bool:
    """Tell whether functions are missing that the self-test would call."""
    return any(problem.type == "missing" and problem.detail.startswith("function") for problem in problems)


def _differences(planner: Callable[[], Plan]) -> list[Problem]:
    """Return what a plan would change, once for each difference; a refusal to plan is a problem as well."""
    try:
        plan = planner()
    except AuditError as error:
        return [Problem("refused", str(error))]
    return [
        Problem(step.problem, step.reason, transaction.subject)
        for transaction in plan.transactions
        for step in transaction.steps
        if step.problem
    ]
