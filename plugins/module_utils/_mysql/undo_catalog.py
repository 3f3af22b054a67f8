# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table that an undo writes to, as it is now: four queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core.errors import AuditError
from .._core.sql import Joined, Literal, Sql, sql
from .._core.undo import UndoColumn, UndoTable
from .column import JSON_CHECKS, Column
from .session import Session
from .trail_tables import LOG
from .trigger_catalog import TRANSACTIONAL, unique_keys

# GENERATED alone says nothing: MySQL calls a default that is an expression DEFAULT_GENERATED.
_COLUMNS = """
SELECT t.table_schema AS `schema`, t.table_name AS `table`, t.table_type AS type, COALESCE(t.engine, '') AS engine,
       c.column_name AS name, LOWER(c.data_type) AS kind, c.character_set_name AS charset,
       c.is_nullable = 'NO' AND c.column_default IS NULL AND c.extra NOT LIKE '%auto_increment%' AS required,
       c.extra LIKE 'VIRTUAL%' OR c.extra LIKE 'STORED%' OR c.extra LIKE 'PERSISTENT%' AS `generated`,
       LOWER(c.extra) LIKE '%on update current_timestamp%' AS renewed
FROM information_schema.tables AS t
JOIN information_schema.columns AS c ON c.table_schema = t.table_schema AND c.table_name = t.table_name
WHERE {names}
ORDER BY t.table_schema, t.table_name, c.ordinal_position
"""

_KEYS = """
SELECT t.table_schema AS `schema`, t.table_name AS `table`, t.index_name AS name, t.column_name AS `column`,
       t.nullable = 'YES' AS nullable, t.sub_part IS NOT NULL AS partial
FROM information_schema.statistics AS t
WHERE t.non_unique = 0 AND ({names})
ORDER BY t.index_name, t.seq_in_index
"""

_TRIGGERS = """
SELECT COUNT(*) AS found
FROM information_schema.triggers AS g
WHERE g.event_object_schema = {schema} AND g.event_object_table = {table}
  AND LOCATE({log}, g.action_statement) > 0
"""


@dataclass(frozen=True)
class MysqlUndoTable(UndoTable):
    """The table as MariaDB or MySQL has it.

    :ivar typed: its columns by name, as they are recorded.
    """

    typed: Mapping[str, Column]
    engine: str

    @property
    def is_transactional(self) -> bool:
        return self.engine.upper() in TRANSACTIONAL


def read_table(session: Session, title: str, trail: str) -> MysqlUndoTable:
    """Read the table ``database.table``, names as the catalogue has them.

    :param trail: the trail's database.
    :raises AuditError: when there is none, or none whose changes could be undone.
    """
    splits = [(title[:place], title[place + 1 :]) for place, letter in enumerate(title) if letter == "."]
    # The catalogue of some servers compares names without regard to case.
    rows = [row for row in _ask(session, _COLUMNS, splits) if f"{row['schema']}.{row['table']}" == title]
    if len({(row["schema"], row["table"]) for row in rows}) != 1:
        what = "names more than one table" if rows else "names no table"
        raise AuditError(f"table: {title!r} {what} of {session.database}; give database.table, without quotes")
    first = rows[0]
    if "VIEW" in first["type"]:
        raise AuditError(f"table: {title!r} is a view; name the table below it, which is audited")
    place = (first["schema"], first["table"])
    key = unique_keys(_ask(session, _KEYS, [place])).get(place)
    if not key:
        raise AuditError(f"{title}: has no primary key, by which its records could be found; add one")
    checks = session.all(JSON_CHECKS) if session.is_mariadb else []
    documents = {row["clause"].lower() for row in checks if (row["schema"], row["table"]) == place}
    typed = {row["name"]: _typed(row, documents, session) for row in rows}
    return MysqlUndoTable(
        *place,
        tuple(
            UndoColumn(
                row["name"],
                typed[row["name"]].kind,
                bool(row["required"]),
                bool(row["generated"]),
                renewed=bool(row["renewed"]),
            )
            for row in rows
        ),
        tuple(key),
        _is_audited(session, place, trail),
        typed,
        first["engine"],
    )


def _is_audited(session: Session, table: tuple[str, str], trail: str) -> bool:
    names = {"schema": Literal(table[0]), "table": Literal(table[1])}
    log = Literal(session.identifier(trail) + "." + LOG)
    return bool(session.one(sql(_TRIGGERS, log=log, **names).render(session))["found"])


def _typed(row: Mapping[str, Any], documents: set[str], session: Session) -> Column:
    is_document = f"json_valid({session.identifier(row['name'])})".lower() in documents
    return Column(row["name"], "json_text" if is_document else row["kind"], row["charset"])


def _ask(session: Session, query: str, names: list[tuple[str, str]]) -> list[dict[str, Any]]:
    tests: list[Sql] = [
        sql("t.table_schema = {schema} AND t.table_name = {table}", schema=Literal(schema), table=Literal(table))
        for schema, table in names
    ]
    wanted = Joined(" OR ", tuple(tests) or (sql("FALSE"),))
    return session.all(sql(query, names=wanted).render(session))
