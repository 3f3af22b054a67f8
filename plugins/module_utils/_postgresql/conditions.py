# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tries a policy's `when` on the server before any table is touched."""

from __future__ import annotations

from collections.abc import Sequence

from .._core.errors import AuditError
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


def check_conditions(triggers: Sequence[Trigger], session: Session) -> None:
    """Refuse a condition that the server will not take.

    :raises AuditError: naming table, operation and condition, with the server's words.
    """
    for trigger in triggers:
        table = session.identifier(trigger.table.schema, trigger.table.name)
        statement = _TRY.replace("{table}", table).replace("{event}", trigger.operation.upper())
        try:
            session.execute(statement.replace("{condition}", trigger.when or ""))
        except psycopg2.Error as error:
            message = (error.diag.message_primary or str(error)).strip()
            raise AuditError(
                f"{session.database}: `when` does not fit {trigger.operation.upper()} on {trigger.table.title}: "
                f"{trigger.when} -- {message}; correct it, or narrow `operations` (INSERT has no OLD, DELETE no NEW)"
            ) from None
        finally:
            session.execute("ROLLBACK")
