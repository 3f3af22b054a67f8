# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archived rows in a table of their own, beside the log of one MariaDB or MySQL server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from .._core.errors import AuditError
from .._core.json_text import end_of_value
from .._core.sql import Identifier, Literal, Sql, Verbatim, sql
from .canonical import digest
from .session import Session

_COMMENT = """
SELECT t.table_name AS name, t.table_comment AS comment
FROM information_schema.tables AS t
WHERE t.table_schema = {schema_name} AND t.table_name IN ('audit_log_data', {table_name})
"""

_DROP = "DROP TABLE IF EXISTS {table}"
_CREATE = "CREATE TABLE {table} LIKE {schema}.audit_log_data"
_PLAIN = "ALTER TABLE {table} REMOVE PARTITIONING"
_SET_COMMENT = "ALTER TABLE {table} COMMENT = {comment}"

#: Whoever may read the log.
_READERS = """
SELECT DISTINCT p.grantee
FROM information_schema.table_privileges AS p
WHERE p.table_schema = {schema_name} AND p.table_name = 'audit_log' AND p.privilege_type = 'SELECT'
"""
_GRANT = "GRANT SELECT ON {table} TO {grantee}"

_COLUMNS = (
    *("id", "changed_at", "transaction_id", "action", "schema_name", "table_name", "record_id"),
    *("old_values", "new_values", "changed_columns"),
    *("changed_by", "db_user", "client_ip", "application_name", "context", "policy_id"),
)
#: What goes into the table as it stands in the line.
_DOCUMENTS = ("old_values", "new_values", "changed_columns", "context")

_INSERT = "INSERT INTO {table} ({columns}) VALUES "
_VALUES = f"({', '.join(['%s'] * len(_COLUMNS))})"

_DIGESTS = "SELECT r.id, {digest} AS digest FROM {table} AS r WHERE r.id BETWEEN {first} AND {last}"
_COUNT = "SELECT COUNT(*) AS number FROM {table}"


class RestoreStore:
    """See _core/restore_step.py, which says what each method is for."""

    def __init__(self, session: Session, schema: str) -> None:
        self.session = session
        self.schema = schema

    def comment(self, table: str) -> str | None:
        rows = self.session.all(self._text(_COMMENT, table, table_name=Literal(table)))
        comments = {row["name"]: row["comment"] for row in rows}
        if "audit_log_data" not in comments:
            raise AuditError(f"{self.session.database}: no audit trail in database {self.schema!r}; run site.yml first")
        return comments.get(table)

    def make(self, table: str, comment: str) -> None:
        for template in (_DROP, _CREATE, _SET_COMMENT, _PLAIN):
            self.session.execute(self._text(template, table, comment=Literal(comment)))
        for row in self.session.all(self._text(_READERS, table)):
            self.session.execute(self._text(_GRANT, table, grantee=Verbatim(row["grantee"])))

    def load(self, table: str, lines: Sequence[str]) -> int:
        self.session.execute("START TRANSACTION")
        rows = [_values(line) for line in lines]
        columns = Verbatim(", ".join(_COLUMNS))
        with self.session.connection.cursor() as cursor:
            cursor.executemany(self._text(_INSERT, table, columns=columns) + _VALUES, rows)
        ids = [row[0] for row in rows]
        ends = {"first": Literal(min(ids)), "last": Literal(max(ids))}
        found = self.session.all(self._text(_DIGESTS, table, digest=digest("r", self.session.vendor), **ends))
        digests = {row["id"]: row["digest"] for row in found}
        same = [digests.get(number) == hashlib.sha256(line.encode()).hexdigest() for number, line in zip(ids, lines)]
        self.session.execute("COMMIT" if all(same) else "ROLLBACK")
        return same.count(False)

    def finish(self, table: str, comment: str) -> int:
        self.session.execute(self._text(_SET_COMMENT, table, comment=Literal(comment)))
        return int(self.session.one(self._text(_COUNT, table))["number"])

    def _text(self, template: str, table: str, **places: Any) -> str:
        names = {
            "schema": Identifier.of(self.schema),
            "schema_name": Literal(self.schema),
            "table": Identifier.of(self.schema, table),
        }
        statement: Sql = sql(template, **names, **places)
        return statement.render(self.session)


def _values(line: str) -> list[Any]:
    """Return a row's values by the order of the columns."""
    found = {name: text if name in _DOCUMENTS else json.loads(text) for name, text in _members(line)}
    # What could not stand in the line as it is, stands there as a text.
    found.update({name: found[f"{name}_text"] for name in _DOCUMENTS if f"{name}_text" in found})
    found["changed_at"] = found["changed_at"].replace("T", " ")
    return [found.get(name) for name in _COLUMNS]


def _members(line: str) -> Iterator[tuple[str, str]]:
    """Give the keys of a JSON object, and their values as they are written, blanks included."""
    decoder, position = json.JSONDecoder(), 1
    while position < len(line):
        key, colon = decoder.raw_decode(line, position)
        end = end_of_value(line, _after_blanks(line, colon + 1))
        end = _after_blanks(line, end)
        yield key, line[colon + 1 : end]
        position = end + 1


def _after_blanks(line: str, position: int) -> int:
    while line[position] in " \t\r\n":
        position += 1
    return position
