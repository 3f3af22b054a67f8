# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table that an undo writes to, as it is now, and what can be compared and read back in it: one query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._core.errors import AuditError
from .._core.undo import UndoColumn, UndoTable
from .session import Session
from .trigger_catalog import KEYS

# What a column's values are made of, below domains and arrays, decides how they are compared: by =, if pg_catalog has
# one that an index could use (json, xml and most geometric types have none, or one that compares areas). Types of an
# extension are compared byte by byte: their operators are not on every search path.
_TABLE = """
WITH RECURSIVE relation AS (
  SELECT c.oid, c.relkind, n.nspname, c.relname,
         CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::regclass::text END AS root,
         EXISTS (SELECT FROM pg_trigger AS t
                 JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_namespace AS s ON s.oid = p.pronamespace
                 WHERE t.tgrelid = c.oid AND s.nspname = %(schema)s AND t.tgenabled <> 'D') AS audited,
         EXISTS (SELECT FROM pg_inherits AS h WHERE h.inhparent = c.oid) AND c.relkind = 'r' AS has_children
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE n.nspname || '.' || c.relname = %(title)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
), attribute AS (
  SELECT a.*, t.typnotnull, t.typdefault, t.typcategory
  FROM pg_attribute AS a
  JOIN relation AS r ON r.oid = a.attrelid
  JOIN pg_type AS t ON t.oid = a.atttypid
  WHERE a.attnum > 0 AND NOT a.attisdropped
), element AS (
  SELECT a.attrelid, a.attnum, a.atttypid AS type FROM attribute AS a
  UNION
  SELECT e.attrelid, e.attnum, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END
  FROM element AS e
  JOIN pg_type AS t ON t.oid = e.type
  WHERE t.typtype = 'd' OR t.typcategory = 'A'
), leaf AS (
  SELECT e.attrelid, e.attnum, t.oid AS type,
         t.typtype IN ('e', 'r', 'm') OR t.typtype = 'b' AND t.typnamespace = 'pg_catalog'::regnamespace AND EXISTS (
           SELECT FROM pg_opclass AS o
           JOIN pg_am AS m ON m.oid = o.opcmethod AND m.amname IN ('btree', 'hash')
           WHERE o.opcdefault AND (o.opcintype = t.oid OR EXISTS (
             SELECT FROM pg_cast AS c
             WHERE c.castsource = t.oid AND c.casttarget = o.opcintype AND c.castmethod = 'b' AND c.castcontext = 'i'))
         ) AS comparable,
         t.typtype = 'b' AND EXISTS (
           SELECT FROM pg_cast AS c
           WHERE c.castsource = t.oid AND c.casttarget IN ('json'::regtype, 'jsonb'::regtype) AND c.castmethod = 'f'
             AND t.typnamespace <> 'pg_catalog'::regnamespace) AS opaque
  FROM element AS e
  JOIN pg_type AS t ON t.oid = e.type
  WHERE t.typtype <> 'd' AND t.typcategory <> 'A'
), key AS (
{keys}
)
SELECT r.nspname AS schema, r.relname AS name, r.relkind AS kind, r.root, r.has_children, r.audited,
       k.columns AS key,
       jsonb_agg(jsonb_build_object(
         'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
         'required', (a.attnotnull OR a.typnotnull) AND NOT a.atthasdef AND a.attidentity = '' AND a.typdefault IS NULL,
         'generated', a.attgenerated <> '', 'insert_only', a.attidentity = 'a',
         'comparable', l.comparable, 'opaque', l.opaque,
         'money', l.type = 'money'::regtype AND a.typcategory <> 'A') ORDER BY a.attnum) AS columns
FROM relation AS r
JOIN attribute AS a ON a.attrelid = r.oid
JOIN leaf AS l ON l.attrelid = r.oid AND l.attnum = a.attnum
LEFT JOIN key AS k ON k.indrelid = r.oid
GROUP BY r.nspname, r.relname, r.relkind, r.root, r.has_children, r.audited, k.columns
""".replace("{keys}", KEYS.replace("{which}", "IN (SELECT oid FROM relation)"))

_KINDS = {"v": "a view", "m": "a materialised view", "f": "a foreign table"}


@dataclass(frozen=True)
class PgUndoTable(UndoTable):
    """The table as PostgreSQL has it.

    :ivar has_children: whether others inherit from it, whose rows are not its own.
    :ivar money: columns of type money, whose text depends on lc_monetary.
    """

    has_children: bool
    money: frozenset[str]


def read_table(session: Session, title: str, schema: str) -> PgUndoTable:
    """Read the table ``schema.table``, names as the catalogue has them.

    :param schema: the trail's.
    :raises AuditError: when there is none, or none whose changes could be undone.
    """
    rows = session.all(_TABLE, {"title": title, "schema": schema})
    if len(rows) != 1:
        what = "names more than one table" if rows else "names no table"
        raise AuditError(f"table: {title!r} {what} of database {session.database!r}; give schema.table, without quotes")
    row = rows[0]
    if row.kind in _KINDS:
        raise AuditError(f"table: {title!r} is {_KINDS[row.kind]}; name the table below it, which is audited")
    if row.root:
        raise AuditError(
            f"table: {title!r} is a partition of {row.root}, under which its changes are on record: name that"
        )
    if not row.key:
        raise AuditError(f"{title}: has no primary key, by which its records could be found; add one")
    return PgUndoTable(
        row.schema,
        row.name,
        tuple(_column(entry) for entry in row.columns),
        tuple(row.key),
        row.audited,
        row.has_children,
        frozenset(entry["name"] for entry in row.columns if entry["money"]),
    )


def _column(entry: dict[str, Any]) -> UndoColumn:
    return UndoColumn(
        entry["name"],
        entry["type"],
        entry["required"],
        entry["generated"],
        entry["insert_only"],
        entry["comparable"],
        "recorded as its cast to json writes it" if entry["opaque"] else "",
    )
