# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What archiving asks of the server, and how a partition leaves the log. ``{schema}`` is the trail's schema."""

from __future__ import annotations

#: Whether a partition is in the log, still or again.
_STATE = "CASE WHEN i.inhrelid IS NULL THEN 'detached' WHEN i.inhdetachpending THEN 'detaching' ELSE 'attached' END"

#: The names of what a run that was cut off has detached are those that partitions are made with.
PERIODS = """
SELECT c.relname AS name, c.relname AS archive, pg_total_relation_size(c.oid) AS bytes, {state} AS state,
       substring(b.bounds FROM 'FROM \\(''(\\d{4}-\\d\\d-\\d\\d)') AS first_day,
       substring(b.bounds FROM 'TO \\(''(\\d{4}-\\d\\d-\\d\\d)') AS end_day
FROM pg_class AS c
LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bounds) AS b
WHERE c.relnamespace = {schema_name}::regnamespace AND c.relkind = 'r'
  AND c.relname ~ '^audit_log_\\d{4}_(\\d\\d|w\\d\\d|\\d\\d_\\d\\d)$'
  AND (i.inhparent = {log}::regclass OR i.inhparent IS NULL)
ORDER BY c.relname
""".replace("{state}", _STATE)

GROUPS = """
SELECT p.retention AS category, r.schema_name, r.table_name, count(*) AS rows,
       min(r.id) AS first_id, max(r.id) AS last_id,
       to_char(min(r.changed_at), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS first_at,
       to_char(max(r.changed_at), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS last_at
FROM {partition} AS r LEFT JOIN {schema}.policy AS p ON p.policy_id = r.policy_id
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
"""

HELD = """
SELECT EXISTS (
  SELECT FROM {partition} AS r
  WHERE ({tables}::jsonb IS NULL
         OR {tables}::jsonb @> jsonb_build_array(jsonb_build_array(r.schema_name, r.table_name)))
    AND ({record_id}::text IS NULL OR r.record_id = {record_id})
    AND ({changed_by}::text IS NULL OR {changed_by} IN (r.changed_by, r.db_user))
) AS held
"""

BOUNDS = """
SELECT upper(c.ids) - 1 AS last_id, c.row_count AS rows
FROM {schema}.seal AS c
WHERE c.kind = 'rows' AND upper(c.ids) - 1 > {after}
  AND ({first_day}::date IS NULL OR c.period >= {first_day}) AND ({end_day}::date IS NULL OR c.period < {end_day})
ORDER BY upper(c.ids)
"""

#: Row by row with one row in memory, however large; in a database that takes any bytes, as they are.
COPY = """
COPY (SELECT {text} FROM {partition} AS r WHERE r.id > {after} AND r.id <= {until} ORDER BY r.id)
TO STDOUT (ENCODING '{encoding}')
"""

#: Whether there is what puts anything into the log.
WRITTEN = "SELECT to_regproc({function}) IS NOT NULL AS written"

ANY = "SELECT EXISTS (SELECT FROM {partition}) AS found"

COUNT = "SELECT count(*) AS rows FROM {partition} AS r"

STATE = """
SELECT {state} AS state
FROM pg_class AS c LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
WHERE c.oid = to_regclass({name})
""".replace("{state}", _STATE)

#: Writers of the log never wait for it: it waits for those who have begun, without a lock that others would wait for.
DETACH = "ALTER TABLE {schema}.audit_log_data DETACH PARTITION {partition} CONCURRENTLY"
FINALIZE = "ALTER TABLE {schema}.audit_log_data DETACH PARTITION {partition} FINALIZE"
ATTACH = "ALTER TABLE {schema}.audit_log_data ATTACH PARTITION {partition} FOR VALUES FROM ({lower}) TO ({upper})"
DROP = "DROP TABLE {partition}"

#: Whoever has a transaction that DETACH waits for.
HOLDERS = """
SELECT string_agg(DISTINCT format('process %s of %s (%s), in a transaction since %sZ', a.pid, a.usename,
                                  a.application_name, date_trunc('second', a.xact_start)::timestamp), '; ') AS holders
FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.granted AND l.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL
  AND l.relation IN (to_regclass({log}), to_regclass({name}))
  AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
"""

#: Where the place for rows from before the first period ends, where the first period begins, and whether it is there.
GAP = """
WITH leaf AS (
  SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds, i.inhdetachpending AS pending
  FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
  WHERE i.inhparent = {log}::regclass AND c.relname <> ALL ({gone}::text[])
)
SELECT min(substring(l.bounds FROM 'FROM \\(''([^'']+)')::timestamptz) FILTER (WHERE NOT l.pending)::text AS first,
       max(substring(l.bounds FROM 'TO \\(''([^'']+)')::timestamptz) FILTER (WHERE l.name = 'audit_log_past')::text
         AS past_ends,
       coalesce(bool_or(l.pending) FILTER (WHERE l.name = 'audit_log_past'), false) AS pending,
       to_regclass({past}) IS NOT NULL AS made
FROM leaf AS l
"""

#: Detached, it has got a constraint that keeps it from what it held.
FREE_PAST = "ALTER TABLE {schema}.audit_log_past DROP CONSTRAINT IF EXISTS audit_log_past_changed_at_check"
ATTACH_PAST = """
ALTER TABLE {schema}.audit_log_data ATTACH PARTITION {schema}.audit_log_past FOR VALUES FROM (MINVALUE) TO ({upper})
"""
