# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Auditing of a server that is not ours: a fixed number of queries, whatever the number of tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .._core.adoption import ForeignLog, Name, Relation, Writer, recognise, written
from .._core.adoption_columns import disorder
from .accounts import WRITER
from .column import JSON_CHECKS
from .session import Session
from .trigger import PREFIX

_WRITERS = """
SELECT t.trigger_schema AS `schema`, t.event_object_table AS `table`, t.action_statement AS source
FROM information_schema.triggers AS t
WHERE t.trigger_name NOT LIKE %(pattern)s AND t.definer <> %(writer)s
  AND t.trigger_schema NOT IN ('mysql', 'sys')
ORDER BY t.trigger_schema, t.event_object_table, t.trigger_name
"""

_COLUMNS = """
SELECT c.table_schema AS `schema`, c.table_name AS `table`, c.column_name AS name, LOWER(c.data_type) AS kind,
       c.is_nullable = 'YES' AS nullable, c.column_key AS `key`,
       c.extra LIKE '%%auto_increment%%' OR COALESCE(c.column_default, '') LIKE 'nextval(%%' AS counted,
       t.table_rows AS `rows`
FROM information_schema.tables AS t
JOIN information_schema.columns AS c ON c.table_schema = t.table_schema AND c.table_name = t.table_name
WHERE t.table_type = 'BASE TABLE' AND (t.table_schema, t.table_name) IN %(names)s
ORDER BY c.table_schema, c.table_name, c.ordinal_position
"""

_KINDS = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint"), "number"),
    "datetime": "time",
    "timestamp": "zoned",
    "json": "json",
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), "binary"),
}


def read_foreign_logs(session: Session, given: Mapping[str, Mapping[str, str]] | None = None) -> list[ForeignLog]:
    """Return the logs that triggers write which are not ours.

    :param given: the option adopt_columns.
    """
    places = {"pattern": PREFIX.replace("_", "\\_") + "%", "writer": str(WRITER)}
    writers = [
        Writer(row["source"], ((row["schema"], row["table"]),), 1, (row["schema"],))
        for row in session.all(_WRITERS, places)
    ]
    names = {name for writer in writers for candidates in written(writer, str) for name in candidates}
    return recognise(writers, _relations(session, sorted(names)) if names else {}, str, given)


def _relations(session: Session, names: Iterable[Name]) -> dict[Name, Relation]:
    checks = set()
    if session.is_mariadb:
        checks = {(row["schema"], row["table"], row["clause"].lower()) for row in session.all(JSON_CHECKS)}
    columns: dict[Name, dict[str, str]] = {}
    rows: dict[Name, Any] = {}
    numbers: dict[Name, dict[str, dict[str, Any]]] = {}
    found_columns = session.all(_COLUMNS, {"names": [tuple(name) for name in names]})
    of_key = Counter((row["schema"], row["table"]) for row in found_columns if row["key"] == "PRI")
    for row in found_columns:
        key = (row["schema"], row["table"])
        is_json = (*key, f"json_valid({session.identifier(row['name'])})".lower()) in checks
        columns.setdefault(key, {})[row["name"]] = "json" if is_json else _KINDS.get(row["kind"], "other")
        if columns[key][row["name"]] == "number":
            unique = row["key"] == "UNI" or (row["key"] == "PRI" and of_key[key] == 1)
            number = {name: bool(row[name]) for name in ("nullable", "counted")}
            numbers.setdefault(key, {})[row["name"]] = {**number, "unique": unique, "unsteady": None}
        rows[key] = row["rows"]
    return {
        key: Relation(*key, found, int(rows[key] or 0), disorder(numbers.get(key, {}).items()))
        for key, found in columns.items()
    }
