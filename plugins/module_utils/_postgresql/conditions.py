# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tries a policy's `when` on the server before any table is touched."""

from __future__ import annotations

from collections.abc import Sequence

from .._core.plan import Failure
from .._core.sql import Identifier, Verbatim, sql
from .apply import failure
from .session import Session
from .trigger import Trigger

# The literal in `NEW.tags @> '{a}'` is read as soon as the condition is parsed, element by element, which runs the
# CHECK of a domain inside the array or range: the table owner's code, with the rights of whoever parses.
HIDDEN_DOMAIN = """
WITH RECURSIVE part (type, inside) AS (
  SELECT atttypid, false FROM pg_attribute
  WHERE attrelid = {relation} AND attnum > 0 AND NOT attisdropped
  UNION
  SELECT s.type, p.inside OR s.inside
  FROM part AS p JOIN pg_type AS y ON y.oid = p.type
  CROSS JOIN LATERAL (
    SELECT y.typbasetype, false
    UNION ALL SELECT y.typelem, true
    UNION ALL SELECT rngsubtype, true FROM pg_range WHERE y.oid IN (rngtypid, rngmultitypid)
    UNION ALL SELECT atttypid, true FROM pg_attribute
      WHERE attrelid = y.typrelid AND y.typrelid <> 0 AND attnum > 0 AND NOT attisdropped
  ) AS s (type, inside)
  WHERE s.type <> 0
)
SELECT min(p.type::regtype::text)
FROM part AS p JOIN pg_type AS y ON y.oid = p.type JOIN pg_roles AS r ON r.oid = y.typowner
WHERE p.inside AND y.typtype = 'd' AND NOT r.rolsuper AND y.typnamespace <> 'information_schema'::regnamespace
"""

# A temporary copy of the table gets the trigger, and all of it is rolled back: the application's table is only read
# in the catalogue, and the server itself says whether it takes the condition (subqueries, types, OLD in an INSERT).
# The copy's columns are nobody's to change between the look for hidden domains and the trigger.
_TRY = """
DO $dbfleet$
DECLARE
  v_trials  CONSTANT jsonb := current_setting('dbfleet.trials')::jsonb;
  v_trial   jsonb;
  v_domain  text;
  v_state   text;
  v_message text;
  v_refused jsonb := '[]';
BEGIN
  PERFORM set_config('lock_timeout', '2s', true);
  FOR v_trial IN SELECT jsonb_array_elements(v_trials) LOOP
    v_domain := NULL;
    BEGIN
      EXECUTE v_trial ->> 'copy';
      v_domain := ({hidden_domain});
      IF v_domain IS NOT NULL THEN
        RAISE EXCEPTION '%, a domain inside an array, range or row, would run its owner''s code with the rights of '
            'this login; give the domain to a superuser, or leave `when` out for this table', v_domain
          USING ERRCODE = 'insufficient_privilege';
      END IF;
      EXECUTE v_trial ->> 'trigger';
      RAISE EXCEPTION USING ERRCODE = 'DB001', MESSAGE = 'it fits';
    EXCEPTION
      WHEN SQLSTATE 'DB001' THEN NULL;
      WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
        v_refused := v_refused || jsonb_build_object(
          'subject', v_trial ->> 'subject', 'sqlstate', v_state, 'message', (v_trial ->> 'what') || v_message
          || CASE WHEN v_domain IS NOT NULL THEN ''
                  WHEN v_state = '42501' THEN '; grant the login SELECT on it, or leave `when` out for this table'
                  ELSE '; correct it, or narrow `operations` (INSERT has no OLD, DELETE no NEW)' END);
    END;
  END LOOP;
  PERFORM set_config('dbfleet.trials', '', false), set_config('dbfleet.refused', v_refused::text, false);
END
$dbfleet$
"""

_COPY = "CREATE TEMPORARY TABLE dbfleet_audit_try (LIKE {table})"
_TRIGGER = """
CREATE TRIGGER dbfleet_audit_try AFTER {event} ON pg_temp.dbfleet_audit_try
  FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()
"""


def refused_conditions(triggers: Sequence[Trigger], session: Session) -> list[Failure]:
    """Return the conditions that the server will not take, one a table, in the server's words."""
    if not triggers:
        return []
    trials = [_trial(trigger, session) for trigger in triggers]
    hidden_domain = sql(HIDDEN_DOMAIN, relation=sql("'pg_temp.dbfleet_audit_try'::regclass"))
    block = sql(_TRY, hidden_domain=hidden_domain).render(session)
    refused = session.run_block(block, "dbfleet.trials", trials, "dbfleet.refused")
    first = {entry["subject"]: failure(**entry) for entry in reversed(refused)}
    return [first[subject] for subject in dict.fromkeys(entry["subject"] for entry in refused)]


def _trial(trigger: Trigger, session: Session) -> dict[str, str]:
    operation, condition = trigger.operation.upper(), trigger.when or ""
    statement = sql(_TRIGGER, event=sql(operation), condition=sql("{text}", text=Verbatim(condition)))
    return {
        "subject": trigger.table.title,
        "what": f"`when` does not fit {operation} on {trigger.table.title}: {condition} -- ",
        "copy": sql(_COPY, table=Identifier.of(trigger.table.schema, trigger.table.name)).render(session),
        "trigger": statement.render(session),
    }
