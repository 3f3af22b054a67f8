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

_BINARY = ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector")
_NUMBERS = ("tinyint", "smallint", "mediumint", "int", "bigint", "decimal")
_GEOMETRIES = (
    *("geometry", "point", "linestring", "polygon"),
    *("multipoint", "multilinestring", "multipolygon", "geometrycollection", "geomcollection"),
)

#: Types whose values can be larger than 64 kB, so that a few of them could exceed max_allowed_packet.
_LONG = ("mediumblob", "longblob", "mediumtext", "longtext", "json", "json_text", *_GEOMETRIES)

# FLOAT alone would be written with six digits; as a DOUBLE it keeps all that it has. TIMESTAMP is shown in the time
# zone of the session: what is stored is the number of seconds, which is turned into UTC (0 is the zero date).
_VALUES = {
    "float": "CAST({column} AS DOUBLE)",
    "double": "{column}",
    "bit": "CAST({column} AS UNSIGNED)",
    "year": "CAST({column} AS UNSIGNED)",
    "json": "{column}",
    "json_text": "JSON_COMPACT({column})",
    "timestamp": "IF(UNIX_TIMESTAMP({column}) = 0, '0000-00-00 00:00:00', "
    "CAST(TIMESTAMP'1970-01-01 00:00:00' + INTERVAL UNIX_TIMESTAMP({column}) SECOND AS CHAR))",
    **dict.fromkeys(_NUMBERS, "{column}"),
    **dict.fromkeys(_BINARY, "TO_BASE64({column})"),
    **dict.fromkeys(_GEOMETRIES, "CONCAT('SRID=', ST_SRID({column}), ';', ST_AsText({column}))"),
}
_TEXT_VALUE = "CONVERT({column} USING utf8mb4)"
_OTHER_VALUE = "CAST({column} AS CHAR)"

# A collation may call 'a' and 'A' equal, and even a binary one ignores spaces at the end.
_SAME_TEXT = (
    "({old} COLLATE {charset}_bin <=> {new} COLLATE {charset}_bin AND OCTET_LENGTH({old}) <=> OCTET_LENGTH({new}))"
)
_SAME_JSON = "CAST({old} AS CHAR) COLLATE utf8mb4_bin <=> CAST({new} AS CHAR) COLLATE utf8mb4_bin"
_SAME = "{old} <=> {new}"


@dataclass(frozen=True)
class Column:
    """A column as the catalogue shows it.

    :ivar kind: the type's name in lower case; `json_text` is MariaDB's JSON, a text with a check.
    :ivar charset: the character set of a text, or None.
    """

    name: str
    kind: str
    charset: str | None

    @property
    def is_long(self) -> bool:
        return self.kind in _LONG

    def reference(self, row: str) -> Sql:
        """Return OLD.name or NEW.name."""
        return sql(f"{row}.{{name}}", name=Identifier.of(self.name))

    def value(self, row: str, unless: Sql | None = None) -> Sql:
        """Return the value as JSON_OBJECT() takes it, or NULL where a condition holds."""
        template = _VALUES.get(self.kind) or (_TEXT_VALUE if self.charset else _OTHER_VALUE)
        column = self.reference(row)
        if unless:
            column = sql("IF({unless}, NULL, {column})", unless=unless, column=column)
        return sql(template, column=column)

    def text_value(self, row: str) -> Sql:
        """Return the value as text, for a key or a digest."""
        return sql("CAST({value} AS CHAR)", value=self.value(row))

    def same(self) -> Sql:
        """Return the condition that OLD and NEW hold the same value."""
        template = _SAME
        if self.kind == "json":
            template = _SAME_JSON
        elif self.charset:
            template = _SAME_TEXT
        return sql(template, old=self.reference("OLD"), new=self.reference("NEW"), charset=Verbatim(self.charset or ""))

    def size(self, row: str) -> Sql:
        """Return the length in bytes, or NULL."""
        return sql("OCTET_LENGTH({column})", column=self.reference(row))

    def omission(self, row: str) -> Sql:
        """Return what a record holds in place of a value that is too large for it."""
        return sql(
            "JSON_OBJECT('omitted', 'too large', 'bytes', {size}, 'sha256', SHA2({column}, 256))",
            size=self.size(row),
            column=self.reference(row),
        )

    def key(self) -> Sql:
        """Return the column's name as a text literal."""
        return text(self.name)

    def quoted_key(self, after: str = "") -> Sql:
        """Return the column's name as a JSON string, in a text literal."""
        return text(json.dumps(self.name, ensure_ascii=False) + after)
