# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options, planning and results of postgresql_audit_cdc."""

from __future__ import annotations

from typing import Any

from .._core.cdc import CDC_SPEC, raise_failures, raise_problems
from .._core.errors import AuditError
from .._core.pattern import Pattern
from .._core.plan import Plan
from . import cdc_catalog, trail_catalog
from .cdc import CdcCatalog, CdcOptions, explained, plan_end, plan_leaving, plan_present, require_ours
from .cdc_context import NAME, plan_context
from .cdc_report import limitations, problems
from .cdc_settings import ServerCatalog, SettingOptions, plan_settings, require_rights
from .cdc_tables import Choice, choose, require_identities
from .module import PostgresqlModule
from .session import Session

POSTGRESQL_CDC_SPEC: dict[str, Any] = {
    **CDC_SPEC,
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "publication": {"type": "str", "default": "audit_cdc"},
    "tables": {"type": "list", "elements": "str", "default": []},
    "slot": {"type": "str", "default": "audit_cdc"},
    "plugin": {"type": "str", "choices": ["pgoutput", "wal2json"], "default": "pgoutput"},
    "replica_identity": {"type": "str", "choices": ["full", "keep"], "default": "full"},
    "max_slot_wal_keep_size": {"type": "str"},
    "max_lag": {"type": "bytes", "default": "1G"},
    "fail_on_lag": {"type": "bool", "default": False},
    "emit_context": {"type": "bool"},
}


class _Run:
    """One run: its options, and what the planner has found last."""

    server: ServerCatalog
    catalog: CdcCatalog
    choice: Choice
    emits: bool

    def __init__(self, module: PostgresqlModule) -> None:
        params = module.params
        self.module = module
        self.options = CdcOptions(*(params[key] for key in ("publication", "slot", "plugin", "replica_identity")))
        self.options.check()
        self.patterns = [Pattern.parse(text, "tables") for text in params["tables"]]

    @property
    def restart_required(self) -> bool:
        server = self.server
        no_slot = bool(self.options.slot) and self.catalog.slot is None
        return no_slot and not (server.decodes and server.has_room)

    def read(self, session: Session) -> None:
        self.server = cdc_catalog.read_server(session)
        ready = self.server.decodes and self.server.has_room
        self.catalog = cdc_catalog.read_database(session, self.options, self.module.params["schema"], ready)
        require_ours(self.options, self.catalog)

    def plan(self, session: Session) -> Plan:
        self.read(session)
        params, catalog = self.module.params, self.catalog
        whole_rows = self.options.replica_identity == "full"
        self.choice = choose(self.patterns, catalog.tables, catalog.identities, catalog.database, whole_rows)
        if not whole_rows:
            require_identities(self.choice, catalog.tables, catalog.identities)
        new_slot = bool(self.options.slot) and catalog.slot is None
        wanted = SettingOptions(params["max_slot_wal_keep_size"], params["configure"], new_slot)
        plan = Plan()
        require_rights(self.server, wanted, params["login_user"])
        self.module.results["restart_required"] = self.restart_required
        plan_settings(self.server, wanted, plan)
        if new_slot:
            cdc_catalog.require_plugin(session, self.options.plugin)
        trail = trail_catalog.read(session, params["schema"], [])
        self.emits = params["emit_context"] or (params["emit_context"] is None and NAME in trail.functions)
        plan_context(params["schema"], params["emit_context"], trail, session, plan)
        plan_present(self.options, catalog, self.choice, plan)
        return plan

    def plan_leaving(self, session: Session) -> Plan:
        self.read(session)
        slot = self.catalog.slot
        if slot and slot["active"]:
            raise AuditError(
                f"{session.database}: slot {self.options.slot} is in use (process {slot['active_pid']}); stop its "
                "consumer first"
            )
        plan = Plan()
        plan_leaving(self.options, self.catalog, plan)
        schema = self.module.params["schema"]
        plan_context(
            schema, None if self.catalog.others else False, trail_catalog.read(session, schema, []), session, plan
        )
        return plan

    def plan_end(self, session: Session) -> Plan:
        self.read(session)
        plan = Plan()
        plan_end(self.options, self.catalog, plan)
        return plan


def reconcile(module: PostgresqlModule, session: Session) -> None:
    """Bring publication and slot into their state, and report what a person wants to know."""
    if session.in_recovery:
        raise AuditError(f"{session.database}: this server is a standby; run against its primary")
    module.results.update(statements=[], restart_required=False, problems=[], limitations=[])
    run = _Run(module)
    if module.params["state"] == "absent":
        raise_failures(module.reconcile(session, run.plan_leaving), session.database)
        raise_failures(module.reconcile(session, run.plan_end), session.database)
        return
    if not run.patterns:
        raise AuditError(f"{session.database}: tables: name at least one, for example 'public.orders' or 'billing.*'")
    failures = module.reconcile(session, run.plan)
    fresh = run.catalog.slot is None
    if not module.check_mode:
        run.read(session)
    _report(run)
    raise_failures(explained(failures), session.database)
    if module.params["fail_on_lag"] and (module.check_mode or not fresh):
        raise_problems(_problems(run), session.database)


def _problems(run: _Run) -> list[Any]:
    if not run.options.slot:
        return []
    return problems(run.catalog.slot, run.options.slot, run.module.params["max_lag"], run.server)


def _report(run: _Run) -> None:
    catalog, choice = run.catalog, run.choice
    members = catalog.publication.members if catalog.publication else {}
    run.module.results.update(
        publication={"name": run.options.publication, "tables": [".".join(key) for key in sorted(members)]},
        slot={"name": run.options.slot, **catalog.slot} if catalog.slot else None,
        skipped_tables=[{"table": ".".join(key), "reason": reason} for key, reason in choice.skipped.items()],
        restart_required=run.restart_required,
        problems=[problem.as_result() for problem in _problems(run)],
        limitations=limitations(run.options, catalog, choice, run.emits),
    )
