# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Events out of the log of a MariaDB or MySQL server, for whoever may read its view."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from .._core import event_sql
from .._core.event_export import Sink
from .._core.event_query import EventQuery
from .._core.events import answer, no_rights, no_trail
from .module import MysqlModule
from .session import Session, pymysql

DIALECT = event_sql.Dialect(
    columns="""
       CAST(e.id AS CHAR),
       CONCAT(REPLACE(CAST(e.changed_at AS CHAR), ' ', 'T'), 'Z'),
       e.transaction_id, e.action, e.schema_name, e.table_name, e.record_id,
       e.old_values, e.new_values, e.changed_columns,
       e.changed_by, e.db_user, e.client_ip, e.application_name, e.context, CAST(e.policy_id AS CHAR)
""",
    value="""%(value_{n})s IN (JSON_UNQUOTE(JSON_EXTRACT(e.old_values, %(key_{n})s)),
                         JSON_UNQUOTE(JSON_EXTRACT(e.new_values, %(key_{n})s)))""",
    key=lambda column: "$." + json.dumps(column, ensure_ascii=False),
)

# No such table, no such database.
_MISSING = (1146, 1049)
# No SELECT on it, no rights in its database, and rights on a view but none on the table behind it.
_REFUSED = (1142, 1044, 1356)


class MysqlEvents:
    """The log of one server."""

    def __init__(self, session: Session, schema: str) -> None:
        self.session = session
        self.name = f"{schema}.audit_log"
        self.log = session.identifier(schema, "audit_log")

    def read(self, query: EventQuery, sink: Sink) -> None:
        """Hand the rows over one by one."""
        with self._explained():
            # Rows stay on the server until they are asked for. No `with`: a file that cannot be written would have to
            # wait until the cursor has read the rest.
            cursor = self.session.connection.cursor(pymysql.cursors.SSCursor)
            cursor.execute(*event_sql.select(DIALECT, self.log, query))
            for row in cursor:
                sink(row)
            cursor.close()

    def count(self, query: EventQuery) -> int:
        """Return how many there are."""
        with self._explained():
            return int(self.session.one(*event_sql.count(DIALECT, self.log, query))["total"])

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except pymysql.MySQLError as error:
            code = error.args[0] if error.args else None
            if code in _MISSING:
                raise no_trail(self.session.database, self.name) from None
            if code in _REFUSED:
                raise no_rights(self.session.database, self.name, self.session.account) from None
            raise


def gather(module: MysqlModule, session: Session) -> None:
    """Put the events that the options ask for into the module's results, or into a file."""
    answer(module, MysqlEvents(session, module.params["schema"]))
