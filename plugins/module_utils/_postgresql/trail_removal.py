# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that takes the trail out again: capture first, and the rows only when told so."""

from __future__ import annotations

from .._core.errors import AuditError
from .._core.plan import Plan, Transaction
from .._core.sql import Identifier, sql
from .event_triggers import EVENT_TRIGGERS
from .login import Login
from .roles import OWNER, READER, WRITER
from .rollout_record import removal
from .trail_catalog import TrailCatalog
from .trail_options import MARK
from .trail_tables import VIEWS

#: What stays while the log stays: the guard of its partitions.
_KEPT_FUNCTIONS = ("refuse_change",)

_PROCEDURES = ("maintain_partitions", "record_catalog_changes")

# A role may still own objects or hold grants in another database of the cluster; then it stays for that one.
_DROP_ROLE = """
DO $dbfleet$
BEGIN
  DROP ROLE {role};
EXCEPTION WHEN dependent_objects_still_exist THEN
  NULL;
END
$dbfleet$
"""


def plan_removal(catalog: TrailCatalog, drop_log: bool) -> Plan:
    """Return what removes the trail.

    :raises AuditError: while tables still carry audit triggers, or when the schema is not ours.
    """
    plan = Plan()
    if catalog.schema is None or not (catalog.schema["comment"] or "").startswith(MARK):
        return plan
    if catalog.table_triggers:
        raise AuditError(
            f"{len(catalog.table_triggers)} triggers still write to the log (first: {catalog.table_triggers[0]}); "
            "remove them first: postgresql_audit_triggers with `policies: []` and `purge: true`"
        )
    catalog.login.require()
    steps = plan.transaction(f"trail {catalog.schema_name}", required=True)
    schema = Identifier.of(catalog.schema_name)
    if not drop_log and "seal_inventory" in catalog.relations and "record_event" in catalog.functions:
        steps.add(removal(catalog.schema_name, _KEPT_FUNCTIONS), "the log gets a record of it, if it is sealed")
    for name in EVENT_TRIGGERS:
        if catalog.event_triggers.get(name, {}).get("ours"):
            steps.add(sql("DROP EVENT TRIGGER {trigger}", trigger=Identifier.of(name)), f"event trigger {name} goes")
    if drop_log:
        _drop_everything(steps, schema, catalog.login)
    else:
        _keep_rows(steps, catalog)
    return plan


def _drop_everything(steps: Transaction, schema: Identifier, login: Login) -> None:
    steps.add(sql("DROP SCHEMA {schema} CASCADE", schema=schema), "the log and its rows go, as asked (drop_log)")
    if not login.may_drop(OWNER):
        return
    for role in (READER, WRITER, OWNER):
        steps.add(sql(_DROP_ROLE, role=Identifier.of(role)), f"role {role} goes unless another database needs it")


def _keep_rows(steps: Transaction, catalog: TrailCatalog) -> None:
    for name in VIEWS:
        if name != "audit_log" and name in catalog.relations:
            steps.add(sql("DROP VIEW {view}", view=Identifier.of(catalog.schema_name, name)), f"view {name} goes")
    for name in sorted(catalog.functions):
        if name not in _KEPT_FUNCTIONS:
            kind = "PROCEDURE" if name in _PROCEDURES else "FUNCTION"
            function = Identifier.of(catalog.schema_name, name)
            steps.add(sql(f"DROP {kind} {{function}}", function=function), f"{name} goes")
