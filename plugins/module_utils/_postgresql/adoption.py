# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Auditing of a database that is not ours: two queries, whatever the number of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._core.adoption import ForeignLog, Name, Relation, Writer, recognise, written
from .._core.adoption_columns import disorder
from .session import Session

# The functions of a trail of ours are known by their schema, whichever that is. Of a function in C, the arguments of
# each trigger say where it writes to.
_WRITERS = """
SELECT coalesce(p.prosrc, '') AS source, l.lanname AS language, pn.nspname AS schema, count(*) AS triggers,
       jsonb_agg(DISTINCT jsonb_build_array(n.nspname, c.relname)) AS tables,
       string_to_array(min(encode(t.tgargs, 'escape')) FILTER (WHERE l.lanname = 'c'), '\\000') AS arguments
FROM pg_trigger AS t
JOIN pg_proc AS p ON p.oid = t.tgfoid
JOIN pg_language AS l ON l.oid = p.prolang
JOIN pg_namespace AS pn ON pn.oid = p.pronamespace
JOIN pg_class AS c ON c.oid = t.tgrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND t.tgparentid = 0
  AND coalesce(obj_description(pn.oid, 'pg_namespace'), '') !~ '^dbfleet\\.audit( |$)'
GROUP BY p.oid, l.lanname, pn.nspname, CASE WHEN l.lanname = 'c' THEN t.tgrelid END,
         CASE WHEN l.lanname = 'c' THEN t.tgargs END
"""

# A type that somebody else has made is `other`: its casts and its functions would run with the rights of this login.
_RELATIONS = """
SELECT n.nspname AS schema, c.relname AS name,
       greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)::bigint AS rows,
       (SELECT jsonb_object_agg(a.attname, CASE
                 WHEN a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN 'number'
                 WHEN a.atttypid = 'timestamp'::regtype THEN 'time'
                 WHEN a.atttypid = 'timestamptz'::regtype THEN 'zoned'
                 WHEN a.atttypid IN ('json'::regtype, 'jsonb'::regtype) THEN a.atttypid::regtype::text
                 ELSE coalesce(e.extname, 'other') END)
        FROM pg_attribute AS a
        LEFT JOIN pg_depend AS d ON d.classid = 'pg_type'::regclass AND d.objid = a.atttypid AND d.deptype = 'e'
        LEFT JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'hstore'
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       (SELECT jsonb_object_agg(a.attname, jsonb_build_object(
                 'nullable', NOT a.attnotnull,
                 'unique', EXISTS (
                   SELECT FROM pg_index AS i
                   WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                     AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum),
                 'counted', s.counted, 'unsteady', s.unsteady))
        FROM pg_attribute AS a
        CROSS JOIN LATERAL (
          SELECT count(*) > 0 AS counted,
                 min(q.seqrelid::regclass::text) FILTER (WHERE q.seqcache > 1 OR q.seqincrement < 1) AS unsteady
          FROM pg_sequence AS q
          WHERE q.seqrelid IN (
            SELECT d.refobjid FROM pg_attrdef AS f
            JOIN pg_depend AS d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
            WHERE f.adrelid = c.oid AND f.adnum = a.attnum AND d.refclassid = 'pg_class'::regclass
            UNION ALL
            SELECT d.objid FROM pg_depend AS d
            WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = a.attnum
              AND d.classid = 'pg_class'::regclass)
        ) AS s
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)) AS numbers,
       ARRAY(WITH RECURSIVE above AS (
               SELECT i.inhparent FROM pg_inherits AS i WHERE i.inhrelid = c.oid
               UNION SELECT i.inhparent FROM above JOIN pg_inherits AS i ON i.inhrelid = above.inhparent)
             SELECT ARRAY[pn.nspname, p.relname]::text[]
             FROM above JOIN pg_class AS p ON p.oid = above.inhparent JOIN pg_namespace AS pn ON pn.oid = p.relnamespace
            ) AS ancestors
FROM jsonb_to_recordset(%(names)s) AS wanted (schema text, name text)
JOIN pg_namespace AS n ON n.nspname = wanted.schema
JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.name
WHERE c.relkind IN ('r', 'p')
"""

#: Triggers in C: those of temporal_tables and of table_log.
_VERSIONING = "versioning"
_TABLE_LOG = ("table_log", "table_log_basic")


def read_foreign_logs(session: Session, given: Mapping[str, Mapping[str, str]] | None = None) -> list[ForeignLog]:
    """Return the logs that triggers write which are not ours.

    :param given: the option adopt_columns.
    """
    writers = [_writer(row) for row in session.all(_WRITERS)]
    names = {name for writer in writers for candidates in written(writer, str.lower) for name in candidates}
    relations: dict[Name, Relation] = {}
    if names:
        wanted = session.literal(tuple({"schema": one, "name": name} for one, name in sorted(names)))
        for row in session.all(_RELATIONS.replace("%(names)s", f"{wanted}::jsonb")):
            relations[(row.schema, row.name)] = Relation(
                row.schema,
                row.name,
                row.columns or {},
                row.rows,
                disorder((row.numbers or {}).items()),
                frozenset((schema, name) for schema, name in row.ancestors),
            )
    return recognise(writers, relations, str.lower, given)


def _writer(row: Any) -> Writer:
    on = tuple((schema, name) for schema, name in row.tables)
    places = tuple(dict.fromkeys([row.schema, *(schema for schema, _name in on), "public"]))
    source = row.source
    if row.language == "c":
        target = _target(row.source, row.arguments or [], on[0][1])
        source = f"INSERT INTO {target}" if target else ""
        # Its own schema is that of the extension.
        places = places[1:]
    return Writer(source, on, row.triggers, places)


def _target(function: str, arguments: Sequence[str], table: str) -> str | None:
    """Return the table that a trigger in C writes to, as SQL, or None."""
    if function == _VERSIONING and len(arguments) > 1:
        return arguments[1]
    if function not in _TABLE_LOG:
        return None
    # Name of the log, whether the user is logged, schema of the log: each may be left out.
    given = [*arguments, "", "", ""]
    parts = [part for part in (given[2], given[0] or f"{table}_log") if part]
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)
