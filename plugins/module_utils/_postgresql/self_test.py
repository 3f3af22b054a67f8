# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proves capture and protection by doing: a probe change through every policy's function, attempts to tamper."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .._core.policy import Policy
from .._core.sql import Identifier, Literal, Sql, sql
from .._core.verification import Problem
from .capture import capture_name
from .session import Session

PROBE_USER = "dbfleet.audit verify"

# All of it happens in a subtransaction that is always rolled back, on a temporary table: the proof leaves no row, no
# object and no lock behind. UPDATE and DELETE with WHERE false still fire the log's statement guards, and take no lock
# that a writer would have to wait for; TRUNCATE would, so its guard is checked in the catalogue instead.
_SELF_TEST = """
DO $dbfleet$
DECLARE
  v_probes   CONSTANT jsonb := {probes};
  v_probe    jsonb;
  v_table    text;
  v_command  text;
  v_message  text;
  v_problems jsonb := '[]';
BEGIN
  PERFORM set_config('lock_timeout', '2s', true);
  BEGIN
    PERFORM set_config('audit.context', {context}, true);
    FOR v_probe IN SELECT value FROM jsonb_array_elements(v_probes) LOOP
      CREATE TEMPORARY TABLE dbfleet_audit_probe (dbfleet_probe_id int PRIMARY KEY, dbfleet_probe_value text);
      FOR v_command IN SELECT value FROM jsonb_array_elements_text(v_probe -> 'triggers') LOOP
        EXECUTE v_command;
      END LOOP;
      INSERT INTO pg_temp.dbfleet_audit_probe VALUES (1, 'before');
      UPDATE pg_temp.dbfleet_audit_probe SET dbfleet_probe_value = 'after';
      DELETE FROM pg_temp.dbfleet_audit_probe;
      SELECT string_agg(action, ' ' ORDER BY id) INTO v_message
      FROM {schema}.audit_log_data
      WHERE transaction_id = pg_current_xact_id() AND table_name = 'dbfleet_audit_probe'
        AND changed_at > now() - interval '1 hour' AND changed_by = {user} AND db_user = session_user
        AND policy_id = (SELECT policy_id FROM {schema}.policy WHERE name = v_probe ->> 'policy' AND valid_to IS NULL);
      IF v_message IS DISTINCT FROM v_probe ->> 'expected' THEN
        v_problems := v_problems || jsonb_build_object('type', 'not_recorded', 'detail', format(
          'policy %s: a probe change left "%s" in the log instead of "%s"',
          v_probe ->> 'policy', coalesce(v_message, 'nothing'), v_probe ->> 'expected'));
      END IF;
      DROP TABLE pg_temp.dbfleet_audit_probe;
    END LOOP;
    FOR v_table IN
      SELECT format('%s.%I', {schema_text}, c.relname)
      FROM pg_class AS c
      WHERE c.relnamespace = {schema_text}::regnamespace AND (c.relname = 'audit_log_data' OR c.oid IN (
        SELECT inhrelid FROM pg_inherits WHERE inhparent = '{schema}.audit_log_data'::regclass))
    LOOP
      FOREACH v_command IN ARRAY ARRAY['UPDATE %s SET action = action WHERE false', 'DELETE FROM %s WHERE false'] LOOP
        BEGIN
          EXECUTE format(v_command, v_table);
          v_problems := v_problems || jsonb_build_object('type', 'not_refused', 'detail',
            format(v_command, v_table) || ' was not refused');
        EXCEPTION WHEN insufficient_privilege THEN
          NULL;
        END;
      END LOOP;
    END LOOP;
    RAISE EXCEPTION USING ERRCODE = 'DBF01', MESSAGE = v_problems::text;
  EXCEPTION WHEN SQLSTATE 'DBF01' THEN
    GET STACKED DIAGNOSTICS v_message = MESSAGE_TEXT;
  END;
  PERFORM set_config('dbfleet.problems', v_message, false);
END
$dbfleet$
"""

_ROW_TRIGGER = """
CREATE TRIGGER dbfleet_probe AFTER INSERT OR UPDATE OR DELETE ON pg_temp.dbfleet_audit_probe
  FOR EACH ROW EXECUTE FUNCTION {function}('dbfleet_probe_id')
"""

_STATEMENT_TRIGGER = """
CREATE TRIGGER dbfleet_probe_{operation} AFTER {event} ON pg_temp.dbfleet_audit_probe REFERENCING {transition}
  FOR EACH STATEMENT EXECUTE FUNCTION {function}('dbfleet_probe_id')
"""

_TRANSITIONS = {
    "insert": "NEW TABLE AS new_rows",
    "update": "OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "OLD TABLE AS old_rows",
}


def self_test(session: Session, schema: str, policies: Sequence[Policy]) -> list[Problem]:
    """Try every policy's capture function and the guards of every partition; return what failed."""
    keys = {"user", *(key for policy in policies for key in policy.require_context if key != "changed_by")}
    context = {key: "192.0.2.1" if key == "client_ip" else PROBE_USER for key in keys}
    context["ip_address"] = "192.0.2.1"
    statement = sql(
        _SELF_TEST,
        schema=Identifier.of(schema),
        schema_text=Literal(session.identifier(schema)),
        user=Literal(PROBE_USER),
        context=Literal(json.dumps(context)),
        probes=Literal(json.dumps([_probe(policy, schema, session) for policy in policies])),
    )
    session.execute(statement.render(session))
    found = json.loads(session.one("SELECT current_setting('dbfleet.problems')")[0])
    return [Problem(entry["type"], entry["detail"]) for entry in found]


def _probe(policy: Policy, schema: str, session: Session) -> dict[str, object]:
    function = Identifier.of(schema, capture_name(policy))
    triggers: list[Sql] = []
    if policy.capture == "row":
        triggers.append(sql(_ROW_TRIGGER, function=function))
    else:
        for operation, transition in _TRANSITIONS.items():
            places = {"operation": sql(operation), "event": sql(operation.upper()), "transition": sql(transition)}
            triggers.append(sql(_STATEMENT_TRIGGER, function=function, **places))
    # With `only`, the probe's column is none that the policy watches, and its UPDATE is silent by design.
    expected = "INSERT DELETE" if policy.only else "INSERT UPDATE DELETE"
    return {
        "policy": policy.name,
        "triggers": [trigger.render(session) for trigger in triggers],
        "expected": expected,
    }
