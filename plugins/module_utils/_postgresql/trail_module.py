# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options, planning and results of postgresql_audit_trail, shared with verify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core.adoption_module import adopt
from .._core.errors import AuditError
from .._core.plan import Plan, refuse_failures
from .._core.schema_version import SCHEMA_VERSION
from . import trail_catalog
from .adoption import read_foreign_logs
from .adoption_import import plan_adoption
from .login import limitations
from .module import PostgresqlModule
from .roles import OWNER, ROLES
from .session import Session
from .trail import plan_trail
from .trail_functions import DEFAULT_CONTEXT
from .trail_options import EVENTS, TrailOptions
from .trail_removal import plan_removal
from .trail_tables import INDEXES

TRAIL_SPEC: dict[str, Any] = {
    "readers": {"type": "list", "elements": "str", "default": []},
    "applications": {"type": "list", "elements": "str", "default": []},
    "context": {"type": "dict", "default": {}},
    "tablespace": {"type": "str"},
    "events": {"type": "list", "elements": "str", "choices": list(EVENTS), "default": ["ddl", "app"]},
    "indexes": {"type": "list", "elements": "str", "choices": list(INDEXES), "default": ["record"]},
}


def trail_options(params: Mapping[str, Any]) -> TrailOptions:
    return TrailOptions(
        params["schema"],
        tuple(params["readers"]),
        tuple(params["applications"]),
        _context(params["context"]),
        params["tablespace"],
        tuple(params["indexes"]),
        tuple(params["events"]),
        # Verification has no such option.
        params.get("allow_downgrade", False),
    )


def _context(wanted: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the defaults with the user's keys put over them; an empty list turns a source off."""
    context = dict(DEFAULT_CONTEXT)
    for key, names in wanted.items():
        if not isinstance(names, list) or not all(isinstance(name, str) and "." in name for name in names):
            raise AuditError(f"context: {key!r} takes a list of settings such as 'app.user', not {names!r}")
        context[key] = names
    return {key: names for key, names in context.items() if names}


def present(module: PostgresqlModule, session: Session) -> None:
    options = trail_options(module.params)

    def planner(open_session: Session) -> Plan:
        catalog = trail_catalog.read(open_session, options.schema, options.roles())
        module.results["schema_version"] = catalog.schema_version
        plan = plan_trail(options, catalog, open_session)
        module.results["limitations"] = limitations(catalog.login, catalog.guarded, options.events)
        return plan

    failures = module.reconcile(session, planner)
    module.results["schema_version"] = SCHEMA_VERSION
    refuse_failures(failures, session.database)
    adopt(
        module,
        session,
        lambda: read_foreign_logs(session, module.params["adopt_columns"]),
        lambda logs: plan_adoption(session, options.schema, logs),
        installed=bool(trail_catalog.read(session, options.schema, []).installed),
    )


def absent(module: PostgresqlModule, session: Session) -> None:
    schema, drop_log = module.params["schema"], module.params["drop_log"]
    roles = TrailOptions(schema, (), (), {}, None, ()).roles()

    def planner(open_session: Session) -> Plan:
        catalog = trail_catalog.read(open_session, schema, roles)
        plan = plan_removal(catalog, drop_log, open_session)
        if plan and drop_log and not catalog.login.may_drop(OWNER):
            module.warn(f"the roles {', '.join(ROLES)} stay: the login {catalog.login.name!r} may not drop them")
        return plan

    module.reconcile(session, planner)
