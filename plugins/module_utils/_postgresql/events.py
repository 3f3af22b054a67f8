# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Events out of the log of a PostgreSQL database, for whoever may read its view."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .._core import event_sql
from .._core.errors import AuditError
from .._core.event_export import Sink
from .._core.event_query import EventQuery
from .._core.event_row import Row
from .._core.events import answer, no_rights, no_trail
from .module import PostgresqlModule
from .session import Session, psycopg2

DIALECT = event_sql.Dialect(
    columns="""
       e.id,
       to_char(e.changed_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       e.transaction_id, e.action, e.schema_name, e.table_name, e.record_id,
       e.old_values, e.new_values, to_json(e.changed_columns),
       e.changed_by, e.db_user, host(e.client_ip), e.application_name, e.context, e.policy_id
""",
    value="%(value_{n})s IN (e.old_values ->> %(key_{n})s, e.new_values ->> %(key_{n})s)",
    key=str,
)

# Row by row with one row in memory, however large; a cursor would fetch a number of rows of any size at once.
_COPY = b"COPY (%s) TO STDOUT (ENCODING '%s')"

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

_MAXIMUM_XID8 = 2**64 - 1


class PostgresqlEvents:
    """The log of one database."""

    def __init__(self, session: Session, schema: str) -> None:
        self.session = session
        self.name = f"{schema}.audit_log"
        self.log = session.identifier(schema, "audit_log")

    def read(self, query: EventQuery, sink: Sink) -> None:
        """Hand the rows over one by one."""
        self._copy(*event_sql.select(DIALECT, self.log, query), _Rows(sink))

    def count(self, query: EventQuery) -> int:
        """Return how many there are."""
        rows: list[Row] = []
        self._copy(*event_sql.count(DIALECT, self.log, query), _Rows(rows.append))
        return int(rows[0][0] or 0)

    def _copy(self, text: str, parameters: Mapping[str, Any], rows: _Rows) -> None:
        _refuse_other_transaction_ids(parameters)
        connection = self.session.connection
        # Where a database takes any bytes, reading must not stop at those that are no UTF-8.
        encoding = b"SQL_ASCII" if connection.get_parameter_status("server_encoding") == "SQL_ASCII" else b"UTF8"
        with self._explained(), connection.cursor() as cursor:
            cursor.copy_expert(_COPY % (cursor.mogrify(text, parameters), encoding), rows)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName):
            raise no_trail(self.session.database, self.name) from None
        except psycopg2.errors.InsufficientPrivilege:
            login = self.session.connection.info.user
            raise no_rights(self.session.database, self.name, login) from None
        except psycopg2.DatabaseError as error:
            if error.pgcode is not None:
                raise
            # The server had no chance to say anything, and of the end of a COPY the driver hardly does.
            raise AuditError(
                f"{self.session.database}: the connection was lost while events were read; run it again"
            ) from error


class _Rows:
    """What COPY writes to: a line of its text format at a time."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, line: bytes) -> None:
        fields = line.decode("utf-8", "surrogateescape")[:-1].split("\t")
        self._sink([None if field == "\\N" else _plain(field) for field in fields])


def gather(module: PostgresqlModule, session: Session) -> None:
    """Put the events that the options ask for into the module's results, or into a file."""
    answer(module, PostgresqlEvents(session, module.params["schema"]))


def _plain(field: str) -> str:
    if "\\" not in field:
        return field
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match.group(1), match.group(1)), field)


def _refuse_other_transaction_ids(parameters: Mapping[str, Any]) -> None:
    # The server would take -1 and 12abc for numbers.
    text = parameters.get("transaction_id", "0")
    if not (text.isascii() and text.isdigit() and int(text) <= _MAXIMUM_XID8):
        raise AuditError(f"transaction_id: {text!r} is none of PostgreSQL's: give a number, as an event has it")
