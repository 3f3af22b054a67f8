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
from . import trail_catalog, trigger_catalog
from .module import MysqlModule
from .partitions_module import PARTITION_SPEC, plan_partitions
from .seal_store import SealStore
from .self_test import self_test
from .session import Session
from .trail import plan_trail
from .trail_module import TRAIL_SPEC, trail_options
from .trail_options import limitations
from .triggers import LIMITS, plan_triggers

#: The module's options but those of the connection; its action plugin checks them on the controller too.
SPEC = {**SCHEMA_SPEC, **TRAIL_SPEC, **PARTITION_SPEC, **TRIGGER_SPEC, **VERIFY_SPEC, **SEALED_SPEC}


def verify(module: MysqlModule, session: Session) -> None:
    """Compare the server with what the options ask for, try it out, and report."""
    params = module.params
    if params["step"]:
        run_step(module, SealStore(session, params["schema"]))
        return
    options, triggers = trail_options(params), trigger_options(params, session.database, LIMITS)
    trail = trail_catalog.read(session, options.schema)
    if not trail.installed:
        raise AuditError(
            f"{session.database}: no audit trail in database {options.schema!r}; run playbooks/site.yml first"
        )
    module.results["limitations"] = limitations(trail, session)
    problems = differences(lambda: plan_trail(options, trail, session))

    def table_plan() -> Plan:
        result = plan_triggers(triggers, trigger_catalog.read(session, trail), session)
        problems.extend(expired(result.selection))
        module.results.update(audited=len(result.selection.policies), auditable=result.selection.auditable)
        return result.plan

    problems += differences(table_plan)
    if not session.read_only:
        problems += differences(
            lambda: plan_partitions(session, options.schema, params["interval"], params["ahead"], params["event"])
        )
    probe = params["self_test"] and not (session.read_only or module.check_mode or _broken(problems))
    if probe:
        problems += self_test(session, options.schema)
    report(module, problems, 1 if probe else None, session.database)


def _broken(problems: list[Problem]) -> bool:
    """Tell whether something is missing that the self-test would use."""
    return any(problem.type == "missing" and problem.detail.startswith(("function", "table")) for problem in problems)
