# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading and planning of postgresql_audit_triggers, shared with verify."""

from __future__ import annotations

from .._core import rollout
from .._core.errors import AuditError
from .._core.plan import Failure
from .._core.rollout import TriggerOptions, TriggerPlan, trigger_options
from .._core.schema_version import refuse_newer
from . import trail_catalog
from .adoption import read_foreign_logs
from .conditions import refused_conditions
from .module import PostgresqlModule
from .policy_versions import TriggerCatalog
from .session import Session
from .trigger_catalog import read_policies, read_tables
from .triggers import UNUSED, plan_triggers

_DEPENDENT_OBJECTS = "2BP01"


def read(session: Session, schema: str, roles: list[str] | None = None) -> TriggerCatalog:
    trail = trail_catalog.read(session, schema, roles or [])
    stored = []
    if "policy" in trail.relations:
        trail.login.require()
        stored = read_policies(session, schema)
    tables = read_tables(session, schema)
    # What is audited already stays so, whatever somebody else's triggers write to it by now.
    logs = {
        log.key
        for log in read_foreign_logs(session)
        if log.repeats and log.key in tables and not tables[log.key].triggers
    }
    return TriggerCatalog(trail, tables, stored, session.encoding, logs)


def reconcile(module: PostgresqlModule, session: Session) -> None:
    """Bring every table under its policy and report what a person wants to know."""
    options = trigger_options(module.params, session.database)

    def planner() -> TriggerPlan:
        catalog = read(session, options.schema)
        result = plan_triggers(options, catalog, session)
        if result.plan:
            session.require_writable()
            refuse_newer(f"{options.database}: the trail in schema {options.schema!r}", catalog.trail.schema_version)
            _require_trail(module, catalog, options)
        return result

    result, failures = rollout.reconcile(module, session, planner, refused_conditions)
    rollout.report(module, result, _without_echo(failures), options.database)


def _require_trail(module: PostgresqlModule, catalog: TriggerCatalog, options: TriggerOptions) -> None:
    # In check mode of a first rollout the trail is only predicted, and so are the triggers.
    if options.policies and not catalog.trail.installed and not module.check_mode:
        raise AuditError(
            f"{options.database}: no audit trail in schema {options.schema!r}; run postgresql_audit_trail first"
        )


def _without_echo(failures: list[Failure]) -> list[Failure]:
    """Leave out that an unused function could not go because a table that failed still uses it."""
    echo = [failure for failure in failures if failure.subject == UNUSED and failure.code == _DEPENDENT_OBJECTS]
    return [failure for failure in failures if failure not in echo] if len(failures) > len(echo) else failures
