# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The canonical text of a row of the log: one line of JSON, which seals hash and archives keep.

It names the columns and depends on no setting of a session, so that it is the same in every session, on every server,
for as long as an archive is kept. A column without a value is left out: one that a later release adds leaves the text
of older rows as it was. No two rows have the same text: every text is quoted, and NULL is not the JSON value null.

MySQL keeps exact numbers in a document as exact ones, writes them as text into a dump, and reads them out of it as
floating ones. Its text has them as they are after that, with the 17 digits that both have.
"""

from __future__ import annotations

from .._core.sql import Identifier, Joined, Sql, sql

_CANONICAL = "CONCAT('{', CONCAT_WS(',', {parts}), '}')"

_NUMBER = """CONCAT('"{column}":', {row}.{column})"""
_TEXT = """CONCAT('"{column}":', JSON_QUOTE({row}.{column}))"""
_TIME = """CONCAT('"{column}":"', DATE_FORMAT({row}.{column}, '%Y-%m-%dT%H:%i:%s.%f'), '"')"""

_DOCUMENT = {
    # Whoever switches the column's check off can put in what is no JSON, and thus end one column and begin another. And
    # MariaDB keeps a document as it was written, which may be in several lines; an archive has a row in each.
    "mariadb": """IF(JSON_VALID({row}.{column}) AND LOCATE(x'0A', {row}.{column}) = 0,
      CONCAT('"{column}":', {row}.{column}), CONCAT('"{column}_text":', JSON_QUOTE({row}.{column})))""",
    "mysql": """CONCAT('"{column}":', CAST(CAST({row}.{column} AS CHAR) AS JSON))""",
}

# The two images come last: they are the largest.
_COLUMNS = {
    "id": _NUMBER,
    "changed_at": _TIME,
    "transaction_id": _TEXT,
    "action": _TEXT,
    "changed_by": _TEXT,
    "db_user": _TEXT,
    "client_ip": _TEXT,
    "application_name": _TEXT,
    "schema_name": _TEXT,
    "table_name": _TEXT,
    "record_id": _TEXT,
    "policy_id": _NUMBER,
    "changed_columns": None,
    "context": None,
    "old_values": None,
    "new_values": None,
}


def canonical(row: str, vendor: str) -> Sql:
    """Return the expression for the text of the row that a query calls `row`."""
    parts = tuple(
        sql(template or _DOCUMENT[vendor], row=Identifier.of(row), column=sql(column))
        for column, template in _COLUMNS.items()
    )
    return sql(_CANONICAL, parts=Joined(",\n    ", parts))


def digest(row: str, vendor: str) -> Sql:
    """Return the expression for the SHA-256 of the row's text, in hex."""
    return sql("SHA2(CONVERT({text} USING utf8mb4), 256)", text=canonical(row, vendor))
