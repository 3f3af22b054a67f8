# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What keeps the log and its triggers from those who own the audited tables."""

from __future__ import annotations

from .._core.sql import Literal, sql
from .function import PLAIN_STRINGS, SAFE_PATH, Function
from .roles import OWNER

_REFUSE_CHANGE = """
BEGIN
  RAISE EXCEPTION 'the audit log is append-only: % on %.% is refused', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege',
          HINT = 'Rows are only ever added to it.';
END
"""

# Not session_user: autovacuum and a superuser's ANALYZE run the functions of a table's indexes in the owner's name, but
# in the superuser's session. The owner of the log makes and guards its partitions.
_TRUSTED = "current_user = {owner} OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"

_GUARD_DDL = """
DECLARE
  v_problem text;
BEGIN
  IF {trusted} THEN
    RETURN;
  END IF;
  IF TG_TAG = 'CREATE CAST' THEN
    SELECT format('a cast from %s to %s would run %s inside the audit functions',
                  format_type(k.castsource, NULL), format_type(k.casttarget, NULL), k.castfunc::regprocedure)
    INTO v_problem
    FROM pg_event_trigger_ddl_commands() AS d
    JOIN pg_cast AS k ON k.oid = d.objid AND d.classid = 'pg_cast'::regclass
    WHERE k.casttarget IN ('json'::regtype, 'jsonb'::regtype) AND k.castfunc <> 0;
  ELSE
    SELECT format('trigger %s on %s would no longer record every change', t.tgname, t.tgrelid::regclass)
    INTO v_problem
    FROM pg_event_trigger_ddl_commands() AS d
    JOIN pg_trigger AS t ON (d.classid = 'pg_class'::regclass AND t.tgrelid = d.objid)
                         OR (d.classid = 'pg_trigger'::regclass AND t.oid = d.objid)
    JOIN pg_proc AS p ON p.oid = t.tgfoid
    CROSS JOIN LATERAL (SELECT p.pronamespace = quote_ident({schema_text})::regnamespace AS ours,
                               t.tgname LIKE 'dbfleet\\_audit\\_%' AS named) AS mark
    WHERE (mark.ours OR mark.named) AND NOT (mark.ours AND mark.named AND t.tgenabled = 'A');
    -- Which child is new is not reported, hence all of them.
    IF v_problem IS NULL THEN
      SELECT format('%s is audited by statement, which sees nothing of what is written through a parent',
                    t.tgrelid::regclass)
      INTO v_problem
      FROM pg_trigger AS t JOIN pg_inherits AS i ON t.tgrelid IN (i.inhrelid, i.inhparent)
      WHERE (t.tgoldtable IS NOT NULL OR t.tgnewtable IS NOT NULL) AND t.tgname LIKE 'dbfleet\\_audit\\_%'
        AND EXISTS (SELECT FROM pg_event_trigger_ddl_commands() AS d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid IN (i.inhrelid, i.inhparent))
      LIMIT 1;
    END IF;
  END IF;
  IF v_problem IS NOT NULL THEN
    RAISE EXCEPTION '% is refused: %', TG_TAG, v_problem
      USING ERRCODE = 'insufficient_privilege', HINT = 'A superuser may do it; verify.yml will report it.';
  END IF;
END
"""

_GUARD_DROP = """
DECLARE
  v_object text;
BEGIN
  IF {trusted} THEN
    RETURN;
  END IF;
  SELECT d.object_identity INTO v_object
  FROM pg_event_trigger_dropped_objects() AS d
  WHERE d.schema_name = {schema_text}
     OR (d.object_type = 'trigger' AND d.address_names[3] LIKE 'dbfleet\\_audit\\_%'
         AND NOT EXISTS (SELECT FROM pg_event_trigger_dropped_objects() AS t
                         WHERE t.object_type = 'table' AND t.address_names = d.address_names[1:2]))
  LIMIT 1;
  IF v_object IS NOT NULL THEN
    RAISE EXCEPTION '% is refused: % is part of the audit trail', TG_TAG, v_object
      USING ERRCODE = 'insufficient_privilege', HINT = 'A superuser may do it; verify.yml will report it.';
  END IF;
END
"""


def guard_functions(schema: str) -> list[Function]:
    """Return the function of the log's guards and those of the event triggers that refuse.

    The latter run in the sessions of superusers, so that no other role, not even the owner of the log, may own them.
    """
    place = {"schema_text": Literal(schema), "trusted": sql(_TRUSTED, owner=Literal(OWNER))}
    settings = (SAFE_PATH, PLAIN_STRINGS)
    return [
        Function("refuse_change", sql(_REFUSE_CHANGE)),
        Function("guard_ddl", sql(_GUARD_DDL, **place), returns="event_trigger", owner=None, settings=settings),
        Function("guard_drop", sql(_GUARD_DROP, **place), returns="event_trigger", owner=None, settings=settings),
    ]
