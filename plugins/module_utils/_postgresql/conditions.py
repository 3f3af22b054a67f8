# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tries a policy's `when` on the server before any table is touched."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .._core.errors import AuditError
from .._core.sql import Identifier, Literal, Verbatim, sql
from .session import Session, psycopg2
from .trigger import Trigger

# A temporary copy of the table gets the trigger, and all of it is rolled back: the application's table is only read
# in the catalogue, and the server itself says whether it takes the condition (subqueries, types, OLD in an INSERT).
_TRY = """
BEGIN;
SET LOCAL lock_timeout = '2s';
CREATE TEMPORARY TABLE dbfleet_audit_try (LIKE {table});
CREATE TRIGGER dbfleet_audit_try AFTER {event} ON pg_temp.dbfleet_audit_try
  FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()
"""

# The literal in `NEW.tags @> '{a}'` is read as soon as the condition is parsed, element by element, which runs the
# CHECK of a domain inside the array or range: the table owner's code, with the rights of whoever parses.
HIDDEN_DOMAIN = """
WITH RECURSIVE part (relation, type, inside) AS (
  SELECT attrelid, atttypid, false FROM pg_attribute
  WHERE attrelid = ANY ({relations}) AND attnum > 0 AND NOT attisdropped
  UNION
  SELECT p.relation, s.type, p.inside OR s.inside
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
SELECT min(format('%s (type %s)', p.relation::regclass, p.type::regtype))
FROM part AS p JOIN pg_type AS y ON y.oid = p.type JOIN pg_roles AS r ON r.oid = y.typowner
WHERE p.inside AND y.typtype = 'd' AND NOT r.rolsuper AND y.typnamespace <> 'information_schema'::regnamespace
"""

_TABLES = "ARRAY(SELECT to_regclass(name)::oid FROM json_array_elements_text({names}) AS t (name))"


def check_conditions(triggers: Sequence[Trigger], session: Session) -> None:
    """Refuse a condition that the server will not take.

    :raises AuditError: naming table, operation and condition, with the server's words.
    """
    _refuse_hidden_domains(triggers, session)
    for trigger in triggers:
        statement = sql(
            _TRY,
            table=Identifier.of(trigger.table.schema, trigger.table.name),
            event=sql(trigger.operation.upper()),
            condition=sql("{text}", text=Verbatim(trigger.when or "")),
        )
        try:
            session.execute(statement.render(session))
        except psycopg2.Error as error:
            message = (error.diag.message_primary or str(error)).strip()
            raise AuditError(
                f"{session.database}: `when` does not fit {trigger.operation.upper()} on {trigger.table.title}: "
                f"{trigger.when} -- {message}; correct it, or narrow `operations` (INSERT has no OLD, DELETE no NEW)"
            ) from None
        finally:
            session.execute("ROLLBACK")


def _refuse_hidden_domains(triggers: Sequence[Trigger], session: Session) -> None:
    names = [session.identifier(trigger.table.schema, trigger.table.name) for trigger in triggers if trigger.when]
    if not names:
        return
    relations = sql(_TABLES, names=Literal(json.dumps(names)))
    found = session.one(sql(HIDDEN_DOMAIN, relations=relations).render(session))[0]
    if found:
        raise AuditError(
            f"{session.database}: `when` on {found}: a domain inside an array, range or row would run its owner's "
            "code with the rights of this login; give the domain to a superuser, or leave `when` out for this table"
        )
