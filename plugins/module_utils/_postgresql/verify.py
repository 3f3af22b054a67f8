# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verification: what a rollout would change is what is wrong now, and the self-test proves the rest by doing."""

from __future__ import annotations

from .._core.errors import AuditError
from .._core.module import SCHEMA_SPEC
from .._core.plan import Plan
from .._core.rollout import TRIGGER_SPEC, trigger_options
from .._core.seal_step import SEALED_SPEC
from .._core.seal_step import run as run_step
from .._core.verification import VERIFY_SPEC, Problem, differences, expired, report
from .catalog_snapshot import catalog_changes
from .login import limitations
from .module import PostgresqlModule
from .partitions_module import PARTITION_SPEC, plan_partitions
from .roles import OWNER, WRITER
from .seal_store import SealStore
from .self_test import self_test
from .session import Session
from .trail import plan_trail
from .trail_catalog import TrailCatalog
from .trail_module import TRAIL_SPEC, trail_options
from .triggers import plan_triggers
from .triggers_module import read

#: The module's options but those of the connection; its action plugin checks them on the controller too.
SPEC = {**SCHEMA_SPEC, **TRAIL_SPEC, **PARTITION_SPEC, **TRIGGER_SPEC, **VERIFY_SPEC, **SEALED_SPEC}


def verify(module: PostgresqlModule, session: Session) -> None:
    """Compare the database with what the options ask for, try it out, and report."""
    params = module.params
    if params["step"]:
        run_step(module, SealStore(session, params["schema"]))
        return
    trail, triggers = trail_options(params), trigger_options(params, session.database)
    everything = read(session, trail.schema, trail.roles())
    catalog = everything.trail
    if not catalog.installed:
        raise AuditError(f"{session.database}: no audit trail in schema {trail.schema!r}; run playbooks/site.yml first")
    module.results["limitations"] = limitations(catalog.login, catalog.guarded, trail.events)
    module.results["catalog_changes"] = catalog_changes(session, trail.schema) if "ddl" in trail.events else []
    problems = differences(lambda: plan_trail(trail, catalog, session))

    def table_plan() -> Plan:
        result = plan_triggers(triggers, everything, session)
        problems.extend(expired(result.selection))
        module.results.update(audited=len(result.selection.policies), auditable=result.selection.auditable)
        module.results["limitations"] += result.limitations
        return result.plan

    problems += differences(table_plan)
    if not session.in_recovery:
        problems += differences(lambda: plan_partitions(session, trail.schema, params["interval"], params["ahead"]))
    probe = params["self_test"] and not (session.in_recovery or module.check_mode or _broken(problems))
    obstacle = _obstacle(session, catalog)
    if probe and obstacle:
        problems.append(Problem("not_probed", f"{obstacle}, so that no probe could be made"))
        probe = False
    problems += self_test(session, trail.schema, triggers.policies) if probe else []
    report(module, problems, len(triggers.policies) if probe else None, session.database)


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
