# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that takes the trail out again: capture first, and the rows only when told so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .._core.errors import AuditError
from .._core.plan import Plan, Transaction
from .._core.sql import Identifier, Joined, Literal, sql
from .capture import is_capture
from .event_triggers import EVENT_TRIGGERS
from .grants import plan_grants
from .login import Login
from .roles import OWNER, READER, WRITER
from .rollout_record import removal
from .session import Session
from .trail_catalog import TrailCatalog
from .trail_functions import DEFAULT_CONTEXT, trail_functions
from .trail_options import MARK, TrailOptions
from .trail_tables import TABLES, VIEWS

#: What stays while the log stays: the guard of its partitions.
_KEPT_FUNCTIONS = ("refuse_change",)

_SEQUENCE = "audit_log_id_seq"

#: The log, and what was a partition of it or is to be one.
_LOG = re.compile(r"audit_log_(data|past|future|moving|\d{4}_[\dw_]+)")

#: What postgresql_audit_restore has made, which is no part of the trail's catalogue.
_RESTORED = """
SELECT c.relname::text AS name
FROM pg_class AS c
WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relkind = 'r'
  AND obj_description(c.oid, 'pg_class') ~ '^dbfleet\\.audit: (being )?restored from '
ORDER BY 1
"""

# What the role was granted for the whole server goes with it. It may still own objects or hold grants in another
# database of the cluster; then it stays for that one, as it is.
_DROP_ROLE = """
DO $dbfleet$
DECLARE
  v_revoke text;
BEGIN
  FOR v_revoke IN
    SELECT format('REVOKE ALL ON TABLESPACE %I FROM {role}', t.spcname)
    FROM pg_tablespace AS t JOIN pg_shdepend AS d ON d.objid = t.oid
    WHERE d.classid = 'pg_tablespace'::regclass AND d.refobjid = to_regrole({name}) AND d.deptype = 'a'
{parameters}  LOOP
    EXECUTE v_revoke;
  END LOOP;
  DROP ROLE IF EXISTS {role};
EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
  NULL;
END
$dbfleet$
"""

#: Parameters have grants since PostgreSQL 15.
_PARAMETERS = """
    UNION ALL
    SELECT format('REVOKE ALL ON PARAMETER %s FROM {role}', p.parname)
    FROM pg_parameter_acl AS p JOIN pg_shdepend AS d ON d.objid = p.oid
    WHERE d.classid = 'pg_parameter_acl'::regclass AND d.refobjid = to_regrole({name}) AND d.deptype = 'a'
"""


def plan_removal(catalog: TrailCatalog, drop_log: bool, session: Session) -> Plan:
    """Return what removes the trail.

    :raises AuditError: while tables still carry audit triggers.
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
    if not drop_log and "seal_inventory" in catalog.relations and "record_event" in catalog.functions:
        steps.add(removal(catalog.schema_name, _KEPT_FUNCTIONS), "the log gets a record of it, if it is sealed")
    for name in EVENT_TRIGGERS:
        if catalog.event_triggers.get(name, {}).get("ours"):
            steps.add(sql("DROP EVENT TRIGGER {trigger}", trigger=Identifier.of(name)), f"event trigger {name} goes")
    if drop_log:
        _drop_everything(steps, catalog, session)
    else:
        _keep_rows(steps, catalog, session)
    return plan


def _drop_everything(steps: Transaction, catalog: TrailCatalog, session: Session) -> None:
    """Drop what is ours by name: what somebody else has put there, or built on it, makes the server refuse."""
    reason = "the log and its rows go, as asked (drop_log)"
    _drop_views(steps, catalog, list(VIEWS))
    _drop_functions(steps, catalog, session, _KEPT_FUNCTIONS)
    restored = [row.name for row in session.all(_RESTORED, {"schema": session.identifier(catalog.schema_name)})]
    tables = [name for name, relation in catalog.relations.items() if _is_our_table(name, relation)] + restored
    if tables:
        names = Joined(", ", tuple(Identifier.of(catalog.schema_name, name) for name in tables))
        steps.add(sql("DROP TABLE {names}", names=names), reason)
    if _SEQUENCE in catalog.relations:
        steps.add(sql("DROP SEQUENCE {name}", name=Identifier.of(catalog.schema_name, _SEQUENCE)), reason)
    for name in _KEPT_FUNCTIONS:
        if name in catalog.functions:
            steps.add(sql("DROP FUNCTION {name}", name=Identifier.of(catalog.schema_name, name)), f"{name} goes")
    steps.add(sql("DROP SCHEMA {schema}", schema=Identifier.of(catalog.schema_name)), reason)
    if catalog.login.may_drop(OWNER):
        for role in (READER, WRITER, OWNER):
            _drop_role(steps, role, catalog.login)


def _is_our_table(name: str, relation: Mapping[str, Any]) -> bool:
    """Tell whether a table is the trail's own; a partition goes with its log."""
    return relation["kind"] in ("r", "p") and not relation["partition"] and bool(name in TABLES or _LOG.fullmatch(name))


def _keep_rows(steps: Transaction, catalog: TrailCatalog, session: Session) -> None:
    _drop_views(steps, catalog, [name for name in VIEWS if name != "audit_log"])
    _drop_functions(steps, catalog, session, _KEPT_FUNCTIONS)
    _keep_readers(steps, catalog)
    # Once: where another database still needs it, the role stays, and each run would try again.
    if steps.steps and WRITER in catalog.roles and catalog.login.may_drop(WRITER):
        _drop_role(steps, WRITER, catalog.login)


def _drop_views(steps: Transaction, catalog: TrailCatalog, names: list[str]) -> None:
    for name in names:
        if name in catalog.relations:
            steps.add(sql("DROP VIEW {view}", view=Identifier.of(catalog.schema_name, name)), f"view {name} goes")


def _drop_functions(steps: Transaction, catalog: TrailCatalog, session: Session, kept: tuple[str, ...]) -> None:
    options = TrailOptions(catalog.schema_name, (), (), DEFAULT_CONTEXT, None, ())
    ours = {function.name: function.procedure for function in trail_functions(options, session.version_number)}
    for name in sorted(catalog.functions):
        if name not in kept and (name in ours or is_capture(name)):
            kind = "PROCEDURE" if ours.get(name) else "FUNCTION"
            function = Identifier.of(catalog.schema_name, name)
            steps.add(sql(f"DROP {kind} {{function}}", function=function), f"{name} goes")


def _keep_readers(steps: Transaction, catalog: TrailCatalog) -> None:
    """Leave rights to those who may read the log: nobody writes to it any more, or calls anything in it."""
    readers = {role for role, privilege, _grantable in (catalog.relations.get("audit_log") or {}).get("acl") or []}
    current = (catalog.schema or {}).get("acl") or []
    target = sql("SCHEMA {schema}", schema=Identifier.of(catalog.schema_name))
    wanted = {role: "USAGE" for role, _privilege, _grantable in current if role in readers}
    plan_grants(steps, target, f"schema {catalog.schema_name}", wanted, current)
    for name, relation in catalog.relations.items():
        held = [entry for entry in relation["acl"] or [] if entry[0] == WRITER]
        kind = "SEQUENCE" if relation["kind"] == "S" else "TABLE"
        target = sql(f"{kind} {{name}}", name=Identifier.of(catalog.schema_name, name))
        plan_grants(steps, target, name, {}, held)


def _drop_role(steps: Transaction, role: str, login: Login) -> None:
    name = Identifier.of(role)
    places = {"role": name, "name": Literal(role)}
    parameters = sql(_PARAMETERS if login.version_number >= 150000 else "", **places)
    statement = sql(_DROP_ROLE, parameters=parameters, **places)
    steps.add(statement, f"role {role} goes unless another database needs it")
