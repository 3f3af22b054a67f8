# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading and planning of mysql_audit_triggers, shared with verify."""

from __future__ import annotations

from collections.abc import Sequence

from .._core import rollout
from .._core.errors import AuditError
from .._core.plan import Failure
from .._core.rollout import TriggerPlan, trigger_options
from .._core.schema_version import refuse_newer
from .._core.sql import Identifier, Sql, Verbatim, sql
from . import trail_catalog, trigger_catalog
from .module import MysqlModule
from .session import Session
from .trail_options import check_login
from .trigger import Trigger
from .triggers import LIMITS, plan_triggers

# The rows of a trigger as two tables of their names, which are never read.
_TRY = "SELECT ({condition}) AS fits FROM {rows} LIMIT 0"
_ROWS = {
    "insert": "{table} AS `NEW`",
    "update": "{table} AS `OLD` JOIN {table} AS `NEW`",
    "delete": "{table} AS `OLD`",
}


def reconcile(module: MysqlModule, session: Session) -> None:
    """Bring every table under its policy and report what a person wants to know."""
    options = trigger_options(module.params, session.database, LIMITS)

    def planner() -> TriggerPlan:
        trail = trail_catalog.read(session, options.schema)
        result = plan_triggers(options, trigger_catalog.read(session, trail), session)
        if result.plan:
            session.require_writable()
            check_login(trail, session)
            refuse_newer(f"{options.database}: the trail in database {options.schema!r}", trail.schema_version)
            # In check mode of a first rollout the trail is only predicted, and so are the triggers.
            if options.policies and not trail.installed and not module.check_mode:
                raise AuditError(
                    f"{options.database}: no audit trail in database {options.schema!r}; run mysql_audit_trail first"
                )
        return result

    result, failures = rollout.reconcile(module, session, planner, refused_conditions)
    rollout.report(module, result, failures, options.database)


def refused_conditions(triggers: Sequence[tuple[Trigger, str]], session: Session) -> list[Failure]:
    """Return the conditions that the server will not take, one a table, in the server's words."""
    trials = [(trigger, condition, _trial(trigger, condition).render(session)) for trigger, condition in triggers]
    refused: dict[str, Failure] = {}
    while trials:
        done, error = session.execute_many([trial for _trigger, _condition, trial in trials])
        if error is None:
            break
        trigger, condition, _trial_text = trials[done]
        title = ".".join(trigger.table)
        number, message = error.args
        words = f"`when` does not fit {trigger.operation.upper()} on {title}: {condition} -- {message}"
        refused.setdefault(title, Failure(title, str(number), words))
        trials = trials[done + 1 :]
    return list(refused.values())


def _trial(trigger: Trigger, condition: str) -> Sql:
    rows = sql(_ROWS[trigger.operation], table=Identifier.of(*trigger.table))
    return sql(_TRY, condition=Verbatim(condition), rows=rows)
