# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the facts about a trail are read with. ``{schema}`` is the trail's schema, quoted; values are bound."""

from __future__ import annotations

# The session (docs/investigations.md): changed_columns makes queries look expensive enough for the compiler, which then
# costs more than they do. Nobody waits for facts, and facts for nobody.
SESSION = """
SELECT set_config('jit', 'off', false) AS jit, set_config('lock_timeout', '5s', false) AS lock_timeout,
       set_config('work_mem', greatest(pg_size_bytes(current_setting('work_mem')), 67108864) / 1024 || 'kB', false)
         AS work_mem
"""

#: Sizes and counts of tables with their partitions, as the server estimates them, without a lock on any. Until a table
#: has been vacuumed or analysed once, its number of live rows is all that there is.
TABLES = """
WITH relation AS (
  SELECT c.oid, CASE WHEN c.relispartition THEN pg_partition_root(c.oid) ELSE c.oid END AS root,
         CASE WHEN c.reltuples < 0 THEN pg_stat_get_live_tuples(c.oid) ELSE c.reltuples END AS rows,
         c.relpages, c.reltoastrelid
  FROM pg_class AS c
  WHERE c.relkind = 'r' AND c.relpersistence <> 't'
    AND c.relnamespace NOT IN (SELECT n.oid FROM pg_namespace AS n
                               WHERE n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast', %(schema)s))
), index_size AS (
  SELECT i.indrelid, sum(c.relpages) AS pages FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid GROUP BY 1
), tree AS (
  SELECT r.root, sum(r.rows) AS rows,
         sum(r.relpages + coalesce(x.pages, 0) + coalesce(t.relpages, 0) + coalesce(y.pages, 0)) AS pages,
         sum(pg_stat_get_tuples_inserted(r.oid)) AS inserted, sum(pg_stat_get_tuples_updated(r.oid)) AS updated,
         sum(pg_stat_get_tuples_deleted(r.oid)) AS deleted
  FROM relation AS r
  LEFT JOIN pg_class AS t ON t.oid = r.reltoastrelid
  LEFT JOIN index_size AS x ON x.indrelid = r.oid
  LEFT JOIN index_size AS y ON y.indrelid = t.oid
  GROUP BY r.root
), attribute AS (
  SELECT a.attrelid, count(*) AS columns, sum(octet_length(a.attname::text)) AS name_bytes,
         sum(coalesce(s.avg_width * (1 - s.null_frac), CASE WHEN a.attlen > 0 THEN a.attlen ELSE 32 END)) AS width,
         CASE WHEN %(types)s THEN jsonb_agg(jsonb_build_array(a.attname, format_type(a.atttypid, a.atttypmod))
                                            ORDER BY a.attnum) END AS types
  FROM pg_attribute AS a
  JOIN pg_class AS c ON c.oid = a.attrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_stats AS s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
    AND s.inherited = (c.relkind = 'p')
  WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', %(schema)s)
  GROUP BY a.attrelid
)
SELECT n.nspname AS schema, c.relname AS name, coalesce(t.rows, 0)::bigint AS rows,
       coalesce(t.pages, 0)::bigint * current_setting('block_size')::int AS bytes,
       coalesce(t.inserted, 0)::bigint AS inserted, coalesce(t.updated, 0)::bigint AS updated,
       coalesce(t.deleted, 0)::bigint AS deleted, a.columns, a.name_bytes, a.width::float8 AS width, a.types
FROM attribute AS a
JOIN pg_class AS c ON c.oid = a.attrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN tree AS t ON t.root = c.oid
"""

# When nobody has reset the statistics of the database, they begin with the database, or with the crash or the initdb
# that has left the cluster without any: the server dates that, and its own start is no earlier.
COUNTED = """
SELECT to_char(coalesce(d.stats_reset, least(b.stats_reset, pg_postmaster_start_time())) AT TIME ZONE 'UTC',
               'YYYY-MM-DD"T"HH24:MI:SS') AS since,
       current_setting('track_counts')::boolean AS counts
FROM pg_stat_database AS d CROSS JOIN pg_stat_bgwriter AS b
WHERE d.datname = current_database()
"""

#: In the order of time, the rows from before the first period at the beginning.
PARTITIONS = """
SELECT p.name, left(nullif(p.lower, 'MINVALUE'), 10) AS lower, left(nullif(p.upper, 'MAXVALUE'), 10) AS upper,
       p.rows::bigint AS rows, p.bytes
FROM (
  SELECT c.relname AS name,
         substring(pg_get_expr(c.relpartbound, c.oid) FROM 'FROM \\(''?([^'')]+)') AS lower,
         substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \\(''?([^'')]+)') AS upper,
         greatest(c.reltuples, pg_stat_get_live_tuples(c.oid)) AS rows, pg_total_relation_size(c.oid) AS bytes
  FROM pg_class AS l
  JOIN pg_namespace AS n ON n.oid = l.relnamespace
  JOIN pg_inherits AS i ON i.inhparent = l.oid
  JOIN pg_class AS c ON c.oid = i.inhrelid
  WHERE n.nspname = %(schema)s AND l.relname = 'audit_log_data'
) AS p
ORDER BY p.lower <> 'MINVALUE', p.lower
"""

#: Two ranges, each of which leaves all other partitions out.
CATCH_ALL = """
SELECT least(%(limit)s, (SELECT count(*) FROM (SELECT FROM {schema}.audit_log_data AS r
                                               WHERE r.changed_at < %(first)s LIMIT %(limit)s) AS e)
                      + (SELECT count(*) FROM (SELECT FROM {schema}.audit_log_data AS r
                                               WHERE r.changed_at >= %(last)s LIMIT %(limit)s) AS e)) AS rows
"""

SETTINGS = "SELECT s.name, s.value FROM {schema}.setting AS s"

# One scan of the period's partitions: groupings are hashed, or sorted where there are too many groups, which is quicker
# by bytes than by a language's rules.
ACTIVITY = """
WITH change AS (
  SELECT e.action COLLATE "C" AS action, e.action IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE') AS of_row, e.changed_at,
         e.changed_by COLLATE "C" AS changed_by, e.application_name COLLATE "C" AS application, e.transaction_id,
         concat(e.schema_name || '.', e.table_name) COLLATE "C" AS table_name, e.changed_by = e.db_user AS without_user,
         CASE WHEN e.action = 'EVENT' THEN
           CASE WHEN e.new_values ->> 'event' = 'audit_failure' THEN 'failure'
                WHEN e.new_values ->> 'event' = 'login' AND e.new_values ->> 'success' = 'false' THEN 'refused_login'
           END END AS kind,
         e.changed_at AT TIME ZONE %(time_zone)s AS local
  FROM {schema}.audit_log AS e
  WHERE e.changed_at >= %(since)s AND e.changed_at < %(until)s
), clock AS (
  SELECT c.*, extract(ISODOW FROM c.local) IN (6, 7) OR NOT CASE WHEN %(over_midnight)s
           THEN c.minute >= %(opens)s OR c.minute < %(closes)s
           ELSE c.minute >= %(opens)s AND c.minute < %(closes)s END AS off,
         c.local::date AS day, extract(HOUR FROM c.local)::int AS hour
  FROM (SELECT h.*, extract(HOUR FROM h.local) * 60 + extract(MINUTE FROM h.local) AS minute FROM change AS h) AS c
), grouped AS (
  SELECT CASE WHEN grouping(c.day) = 0 THEN 'time' WHEN grouping(c.transaction_id) = 0 THEN 'bulk'
              WHEN grouping(c.changed_by) = 0 THEN 'user' WHEN grouping(c.table_name) = 0 THEN 'table'
              ELSE 'application' END AS part,
         c.day, c.hour, c.action, c.kind, c.changed_by, c.table_name, c.application,
         c.transaction_id::text AS transaction_id, min(c.changed_at) AS at,
         CASE WHEN grouping(c.day) = 0 THEN count(*) ELSE count(*) FILTER (WHERE c.of_row) END AS changes,
         count(*) FILTER (WHERE c.of_row AND c.off) AS off_hours,
         count(*) FILTER (WHERE c.of_row AND c.without_user) AS without_user
  FROM clock AS c
  GROUP BY GROUPING SETS ((c.day, c.hour, c.action, c.kind), (c.changed_by), (c.table_name), (c.application),
                          (c.transaction_id, c.table_name, c.action, c.changed_by, c.application))
  HAVING grouping(c.transaction_id) = 1 OR c.action = 'TRUNCATE'
    OR count(*) FILTER (WHERE c.of_row) >= %(bulk_rows)s
), ranked AS (
  SELECT g.*,
         row_number() OVER (PARTITION BY g.part, g.action = 'TRUNCATE' ORDER BY g.changes DESC, g.at DESC) AS rank,
         row_number() OVER (PARTITION BY g.part ORDER BY g.off_hours DESC) AS off_rank,
         count(*) FILTER (WHERE g.action = 'DELETE') OVER (PARTITION BY g.part) AS bulk_deletes
  FROM grouped AS g
)
SELECT r.part, r.day, r.hour, r.action, r.kind, r.changed_by, r.table_name, r.application, r.transaction_id,
       to_char(r.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS at, r.changes, r.off_hours, r.without_user,
       r.bulk_deletes
FROM ranked AS r
WHERE r.part = 'time' OR (r.changes > 0 AND (r.rank <= 50 OR (r.part = 'user' AND r.off_rank <= 10)))
"""

# A row that was added late, under an id before the last sealed one, waits for the next run and is not counted.
SEALS = """
SELECT s.chain::text AS chain, greatest(s.watermark, c.last_id) AS last_id, c.rows_sealed::bigint AS rows_sealed,
       c.last_number, c.unsigned,
       to_char(c.last_sealed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS last_sealed_at
FROM {schema}.seal_state AS s
CROSS JOIN (SELECT coalesce(sum(l.row_count), 0) AS rows_sealed, coalesce(max(l.number), 0) AS last_number,
                   count(*) FILTER (WHERE l.signature IS NULL) AS unsigned,
                   coalesce(max(upper(l.ids)) - 1, 0) AS last_id,
                   max(l.sealed_at) FILTER (WHERE l.signature IS NOT NULL) AS last_sealed_at
            FROM {schema}.seal AS l) AS c
"""

#: The index on ids leads to what is new; the planner, whose statistics of a growing log are old, does not know it.
BY_ID = "SELECT set_config('enable_seqscan', %(value)s, false) AS seqscan"

UNSEALED = """
SELECT count(*) AS rows, to_char(min(e.changed_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS oldest
FROM (SELECT r.changed_at FROM {schema}.audit_log_data AS r WHERE r.id > %(last_id)s LIMIT %(limit)s) AS e
"""

#: Of the server, what decides over what is recorded, of whom, and where it goes.
SERVER_SETTINGS = """
SELECT s.name, s.setting
FROM pg_settings AS s
WHERE s.name ~ '^pgaudit\\.' OR s.name IN (
  'log_connections', 'log_disconnections', 'log_statement', 'log_min_duration_statement', 'log_line_prefix',
  'log_destination', 'log_hostname', 'log_replication_commands', 'log_timezone', 'logging_collector', 'log_file_mode',
  'shared_preload_libraries', 'password_encryption', 'ssl', 'ssl_min_protocol_version', 'track_counts', 'fsync',
  'wal_level', 'session_replication_role')
ORDER BY s.name
"""
