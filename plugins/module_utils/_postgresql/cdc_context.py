# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""audit.emit_context(): says into the WAL on whose behalf a transaction works, for consumers of changes.

A function of its own, and not a part of audit.set_context(): whoever has triggers and no consumer pays nothing for it.
"""

from __future__ import annotations

from .._core.errors import AuditError
from .._core.plan import Plan
from .._core.sql import Identifier, Quoter, sql
from .function import Function, plan_functions
from .roles import WRITER
from .trail_catalog import TrailCatalog

NAME = "emit_context"

# The same keys, and the same values, as a record of a trigger has.
_BODY = """
DECLARE
  v_context jsonb;
BEGIN
  IF current_setting('wal_level') <> 'logical' OR pg_is_in_recovery() THEN
    RETURN;
  END IF;
  v_context := {schema}.current_context();
  -- The message goes out as it is, and what the consumer gets otherwise is UTF-8 in every database.
  PERFORM pg_logical_emit_message(true, 'dbfleet.audit', convert_to(jsonb_build_object(
    'changed_by', coalesce(v_context ->> 'user', session_user),
    'db_user', session_user,
    'client_ip', host(coalesce({schema}.try_inet(v_context ->> 'ip_address'), inet_client_addr())),
    'application_name', current_setting('application_name'),
    'context', nullif(v_context - ARRAY['user', 'ip_address'], '{}'))::text,
    CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END));
END
"""


def plan_context(schema: str, wanted: bool | None, catalog: TrailCatalog, quoter: Quoter, plan: Plan) -> None:
    """Add what makes the function, for those who may call set_context(), or takes it out.

    :param wanted: None leaves it as it is.
    :raises AuditError: where there is no trail that it could be a part of.
    """
    if wanted is None or (not wanted and NAME not in catalog.functions):
        return
    if "set_context" not in catalog.functions:
        raise AuditError(f"emit_context: no audit trail in schema {schema!r}; run postgresql_audit_trail first")
    catalog.login.require()
    place = {"schema": Identifier.of(schema)}
    transaction = plan.transaction(f"{schema}.{NAME}", required=True)
    if not wanted:
        name = Identifier.of(schema, NAME)
        transaction.add(sql("DROP FUNCTION {name}", name=name), f"{NAME} is there and is not to be", "altered")
        return
    callers = tuple(sorted(role for role, *_rest in catalog.functions["set_context"]["acl"] or [] if role != "PUBLIC"))
    function = Function(
        NAME,
        sql(_BODY, **place),
        returns="void",
        definer=True,
        owner=WRITER,
        executors=callers,
    )
    plan_functions(transaction, schema, [function], catalog, quoter)
