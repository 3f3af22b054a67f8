# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options, planning and results of mysql_audit_trail, shared with verify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core.adoption_module import adopt
from .._core.plan import Plan
from .._core.schema_version import SCHEMA_VERSION
from . import trail_catalog
from .accounts import Account
from .adoption import read_foreign_logs
from .adoption_import import plan_adoption
from .module import MysqlModule
from .session import Session
from .trail import plan_trail
from .trail_options import TrailOptions, limitations
from .trail_removal import plan_removal
from .trail_tables import INDEXES

TRAIL_SPEC: dict[str, Any] = {
    "readers": {"type": "list", "elements": "str", "default": []},
    "applications": {"type": "list", "elements": "str", "default": []},
    "events": {"type": "list", "elements": "str", "choices": ["ddl", "login", "app"], "default": ["app"]},
    "indexes": {"type": "list", "elements": "str", "choices": list(INDEXES), "default": ["record"]},
}


def trail_options(params: Mapping[str, Any]) -> TrailOptions:
    return TrailOptions(
        params["schema"],
        tuple(Account.parse(name) for name in params["readers"]),
        tuple(Account.parse(name) for name in params["applications"]),
        tuple(params["indexes"]),
        tuple(params["events"]),
        # Verification has no such option.
        params.get("allow_downgrade", False),
    )


def present(module: MysqlModule, session: Session) -> None:
    options = trail_options(module.params)

    def planner(open_session: Session) -> Plan:
        catalog = trail_catalog.read(open_session, options.schema)
        module.results["schema_version"] = catalog.schema_version
        plan = plan_trail(options, catalog, open_session)
        module.results["limitations"] = limitations(catalog, open_session)
        return plan

    module.reconcile(session, planner)
    module.results["schema_version"] = SCHEMA_VERSION
    trail = trail_catalog.read(session, options.schema)
    adopt(
        module,
        session,
        lambda: read_foreign_logs(session, module.params["adopt_columns"]),
        lambda logs: plan_adoption(session, trail, logs),
        installed=trail.installed,
    )


def absent(module: MysqlModule, session: Session) -> None:
    schema, drop_log = module.params["schema"], module.params["drop_log"]
    module.reconcile(session, lambda s: plan_removal(trail_catalog.read(s, schema), drop_log, s))
