# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A column of an audited table: how its value is written into a record, and how a change of it is seen.

What a record says must not depend on the session that made the change, nor lose a digit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from .._core.sql import Identifier, Sql, Verbatim, sql
from .text import text

#: MariaDB's JSON columns: a text whose check is that it is JSON.
JSON_CHECKS = """
SELECT c.constraint_schema AS `schema`, c.table_name AS `table`, c.check_clause AS clause
FROM information_schema.check_constraints AS c
WHERE c.check_clause LIKE 'json_valid(%'
"""

BINARY = ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector")
NUMBERS = ("tinyint", "smallint", "mediumint", "int", "bigint", "decimal")
TEXTS = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext")
GEOMETRIES = (
    *("geometry", "point", "linestring", "polygon"),
    *("multipoint", "multilinestring", "multipolygon", "geometrycollection", "geomcollection"),
)

#: Types whose values count for nothing in the 64 kB that a row may have, so that some could exceed max_allowed_packet.
_LONG = (
    *("blob", "mediumblob", "longblob", "text", "mediumtext", "longtext", "json", "json_text", "vector"),
    *GEOMETRIES,
)

# A value as deep as JSON may be does not fit into an image, which is one deeper: it is recorded as text.
_JSON = "IF(JSON_DEPTH({column}) >= 100, JSON_EXTRACT(JSON_ARRAY(CAST({column} AS CHAR)), '$[0]'), {column})"
_JSON_TEXT = """JSON_COMPACT(IF(JSON_VALID(CONCAT('[', CONVERT({column} USING utf8mb4), ']')),
        CONVERT({column} USING utf8mb4), JSON_QUOTE(CONVERT({column} USING utf8mb4))))"""

# ST_SRID() refuses coordinates that a column takes from elsewhere; the first four bytes are the same number.
_GEOMETRY = "CONCAT('SRID=', CONV(HEX(REVERSE(LEFT({column}, 4))), 16, 10), ';', ST_AsText({column}))"

# TIMESTAMP is shown in the time zone of the session: what is stored is the number of seconds, which is turned into UTC.
# Of the zero timestamp in a trigger, it is 0 in MySQL and NULL in MariaDB.
_TIMESTAMP = """IF({column} IS NULL, NULL, COALESCE(
        CAST(TIMESTAMP'1970-01-01 00:00:00' + INTERVAL NULLIF(UNIX_TIMESTAMP({column}), 0) SECOND AS CHAR),
        '0000-00-00 00:00:00'))"""

# TO_BASE64() breaks the line after 76 characters.
_BASE64 = "REPLACE(TO_BASE64({column}), CONVERT(x'0A' USING utf8mb4), '')"

# FLOAT alone would be written with six digits; as a DOUBLE it keeps all that it has.
_VALUES = {
    "float": "CAST({column} AS DOUBLE)",
    "double": "CAST({column} AS DOUBLE)",
    "bit": "CAST({column} AS UNSIGNED)",
    "year": "CAST({column} AS UNSIGNED)",
    "json": _JSON,
    "json_text": _JSON_TEXT,
    "timestamp": _TIMESTAMP,
    **dict.fromkeys(BINARY, _BASE64),
    **dict.fromkeys(GEOMETRIES, _GEOMETRY),
}
# What is ZEROFILL, MariaDB would write as 0042, which is no JSON; the sum of it is 42, as exact as it was.
_PADDED_VALUE = "{column} + 0"
_PLAIN_VALUE = "{column}"
_TEXT_VALUE = "CONVERT({column} USING utf8mb4)"
_OTHER_VALUE = "CAST({column} AS CHAR)"

# A collation may call 'a' and 'A' equal, and even a binary one ignores spaces at the end, but for those of MariaDB that
# every character set has for this. A cast to BINARY would be NULL, and so no change, above max_allowed_packet.
_SAME_TEXT_MARIADB = "{old} COLLATE {charset}_nopad_bin <=> {new}"
_SAME_TEXT_MYSQL = (
    "({old} COLLATE {charset}_bin <=> {new} COLLATE {charset}_bin AND OCTET_LENGTH({old}) <=> OCTET_LENGTH({new}))"
)
_SAME_JSON = "CAST({old} AS CHAR) COLLATE utf8mb4_bin <=> CAST({new} AS CHAR) COLLATE utf8mb4_bin"
# In the hour that the end of daylight saving time repeats, the session's clock shows two instants alike.
_SAME_INSTANT = "({old} <=> {new} AND UNIX_TIMESTAMP({old}) <=> UNIX_TIMESTAMP({new}))"
_SAME = "{old} <=> {new}"


@dataclass(frozen=True)
class Column:
    """A column as the catalogue shows it.

    :ivar kind: the type's name in lower case; `json_text` is MariaDB's JSON, a text with a check.
    :ivar charset: the character set of a text, or None.
    :ivar zerofill: whether a number may be shown with zeros in front.
    """

    name: str
    kind: str
    charset: str | None
    zerofill: bool = True

    @property
    def is_long(self) -> bool:
        return self.kind in _LONG

    def reference(self, row: str) -> Sql:
        """Return OLD.name or NEW.name."""
        return sql(f"{row}.{{name}}", name=Identifier.of(self.name))

    def value(self, row: str, unless: Sql | None = None) -> Sql:
        """Return the value as JSON_OBJECT() takes it, or NULL where a condition holds."""
        column = self.reference(row)
        if unless:
            column = sql("IF({unless}, NULL, {column})", unless=unless, column=column)
        return sql(self._template(), column=column)

    def _template(self) -> str:
        if self.kind in NUMBERS:
            return _PADDED_VALUE if self.zerofill else _PLAIN_VALUE
        if self.kind in TEXTS and self.charset == "utf8mb4":
            return _PLAIN_VALUE
        return _VALUES.get(self.kind) or (_TEXT_VALUE if self.charset else _OTHER_VALUE)

    def text_value(self, row: str, unless: Sql | None = None) -> Sql:
        """Return the value as text, for a key or a digest, or NULL where a condition holds."""
        return sql("CAST({value} AS CHAR)", value=self.value(row, unless))

    def same(self, is_mariadb: bool) -> Sql:
        """Return the condition that OLD and NEW hold the same value."""
        template = _SAME
        if self.kind == "json":
            template = _SAME_JSON
        elif self.kind == "timestamp":
            template = _SAME_INSTANT
        elif self.charset:
            template = _SAME_TEXT_MARIADB if is_mariadb else _SAME_TEXT_MYSQL
        return sql(template, old=self.reference("OLD"), new=self.reference("NEW"), charset=Verbatim(self.charset or ""))

    def size(self, row: str) -> Sql:
        """Return the length in bytes, or NULL."""
        return sql("OCTET_LENGTH({column})", column=self.reference(row))

    def digest(self, row: str) -> Sql:
        """Return the SHA-256 of the value's bytes, or NULL."""
        return sql("SHA2({column}, 256)", column=self.reference(row))

    def omission(self, row: str) -> Sql:
        """Return what a record holds in place of a value that is too large for it."""
        return sql(
            "JSON_OBJECT('omitted', 'too large', 'bytes', {size}, 'sha256', {digest})",
            size=self.size(row),
            digest=self.digest(row),
        )

    def key(self) -> Sql:
        """Return the column's name as a text literal."""
        return text(self.name)

    def quoted_key(self, after: str = "") -> Sql:
        """Return the column's name as a JSON string, in a text literal."""
        return text(json.dumps(self.name, ensure_ascii=False) + after)

    def path(self) -> Sql:
        """Return the JSON path of the column in an image, in a text literal."""
        return text("$." + json.dumps(self.name, ensure_ascii=False))
