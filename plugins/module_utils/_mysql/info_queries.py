# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the facts about a trail are read with. ``{schema}`` is the trail's database, quoted; values are bound."""

from __future__ import annotations

from collections.abc import Sequence

_SYSTEM = "('mysql', 'information_schema', 'performance_schema', 'sys')"

#: Sizes and numbers of rows as the server estimates them.
TABLES = f"""
SELECT t.table_schema AS `schema`, t.table_name AS name, t.table_type AS type, t.engine AS engine,
       t.table_rows AS `rows`, t.data_length + t.index_length AS bytes, t.avg_row_length AS width
FROM information_schema.tables AS t
WHERE t.table_schema NOT IN {_SYSTEM} AND t.table_schema <> %(schema)s
  AND t.table_type NOT IN ('SEQUENCE', 'TEMPORARY')
"""

COLUMNS = f"""
SELECT c.table_schema AS `schema`, c.table_name AS `table`, c.column_name AS name, c.column_type AS type
FROM information_schema.columns AS c
WHERE c.table_schema NOT IN {_SYSTEM} AND c.table_schema <> %(schema)s
ORDER BY c.table_schema, c.table_name, c.ordinal_position
"""

#: Whose triggers the server shows: where the login holds TRIGGER, by patterns of databases; a table's name is one.
VISIBLE = """
SELECT '%%' AS `schema`, NULL AS name, p.privilege_type AS privilege
FROM information_schema.user_privileges AS p WHERE p.grantee IN %(login)s
UNION ALL
SELECT p.table_schema, NULL, p.privilege_type
FROM information_schema.schema_privileges AS p WHERE p.grantee IN %(login)s
UNION ALL
SELECT p.table_schema, p.table_name, p.privilege_type
FROM information_schema.table_privileges AS p WHERE p.grantee IN %(login)s
"""

#: Nothing, where performance_schema is off: its tables are empty then.
INSTRUMENTED = """
SELECT i.name
FROM performance_schema.setup_instruments AS i
JOIN performance_schema.setup_consumers AS c ON c.name = 'global_instrumentation' AND c.enabled = 'YES'
WHERE i.name = 'wait/io/table/sql/handler' AND i.enabled = 'YES'
"""
UPTIME = "SHOW GLOBAL STATUS WHERE variable_name = 'Uptime'"

WRITES = f"""
SELECT w.object_schema AS `schema`, w.object_name AS name, w.count_insert AS inserted, w.count_update AS updated,
       w.count_delete AS deleted
FROM performance_schema.table_io_waits_summary_by_table AS w
WHERE w.object_schema NOT IN {_SYSTEM}
"""

INSTALLED = """
SELECT COUNT(*) AS number FROM information_schema.tables AS t
WHERE t.table_schema = %(schema)s AND t.table_name IN ('audit_log_data', 'audit_log')
"""

PARTITIONS = """
SELECT p.partition_name AS name, p.partition_description AS bound, p.table_rows AS `rows`,
       p.data_length + p.index_length AS bytes
FROM information_schema.partitions AS p
WHERE p.table_schema = %(schema)s AND p.table_name = 'audit_log_data' AND p.partition_name IS NOT NULL
ORDER BY p.partition_ordinal_position
"""

#: Two ranges, each of which leaves all other partitions out.
CATCH_ALL = """
SELECT LEAST(%(limit)s, (SELECT COUNT(*) FROM (SELECT 1 FROM {schema}.audit_log_data AS r
                                               WHERE r.changed_at < %(first)s LIMIT %(limit)s) AS e)
                      + (SELECT COUNT(*) FROM (SELECT 1 FROM {schema}.audit_log_data AS r
                                               WHERE r.changed_at >= %(last)s LIMIT %(limit)s) AS e)) AS `rows`
"""

SETTINGS = "SELECT s.name, s.value FROM {schema}.setting AS s"

#: What is grouped stays in memory, as long as it is less than this. CAST, for MySQL takes a DECIMAL from GREATEST().
SESSION = """
SET SESSION tmp_table_size = CAST(GREATEST(@@SESSION.tmp_table_size, 134217728) AS UNSIGNED),
            max_heap_table_size = CAST(GREATEST(@@SESSION.max_heap_table_size, 134217728) AS UNSIGNED)
"""

# One scan of the period's partitions. There are no grouping sets: each record is put into five groups as it is read.
# STRAIGHT_JOIN, so that the log is read once and not once for each of the five. Groups are kept by 64 bits of what they
# have in common, which is looked up afterwards in one record of each: with texts in it, the temporary table would go to
# disk. Without a transaction's name, what one user does to a table within a minute stands for it.
_ACTIVITY = """
SELECT r.part, IF(r.part = 'time', DATE(e.changed_at + INTERVAL ({offset}) SECOND), NULL) AS day,
       IF(r.part = 'time', HOUR(e.changed_at + INTERVAL ({offset}) SECOND), NULL) AS hour,
       IF(r.part IN ('time', 'bulk'), e.action, NULL) AS action, IF(r.part = 'time', {kind}, NULL) AS kind,
       e.changed_by, CONCAT_WS('.', e.schema_name, e.table_name) AS table_name, e.application_name AS application,
       e.transaction_id, DATE_FORMAT(r.at, '%%Y-%%m-%%dT%%H:%%i:%%sZ') AS at, r.changes, r.off_hours, r.without_user,
       r.bulk_deletes
FROM (
  SELECT g.*, SUM(g.is_delete) OVER (PARTITION BY g.part) AS bulk_deletes,
         ROW_NUMBER() OVER (PARTITION BY g.part ORDER BY g.changes DESC) AS place,
         ROW_NUMBER() OVER (PARTITION BY g.part ORDER BY g.off_hours DESC) AS off_place
  FROM (
    SELECT STRAIGHT_JOIN p.part, MIN(c.id) AS first_id, MIN(c.changed_at) AS at, COUNT(*) AS changes,
           SUM(IF(c.of_row AND p.part IN ('time', 'user'), WEEKDAY(c.local) IN (5, 6) OR NOT IF(%(over_midnight)s,
             c.minute >= %(opens)s OR c.minute < %(closes)s, c.minute >= %(opens)s AND c.minute < %(closes)s), 0))
             AS off_hours,
           SUM(c.of_row AND c.without_user) AS without_user, MAX(c.action = 'DELETE') AS is_delete
    FROM (
      SELECT e.id, e.changed_at, e.action, e.action IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE') AS of_row,
             e.changed_by, e.changed_by = e.db_user AS without_user, e.schema_name, e.table_name,
             COALESCE(e.application_name, '') AS application, {kind} AS kind,
             COALESCE(e.transaction_id, FLOOR(TIMESTAMPDIFF(SECOND, '1970-01-01', e.changed_at) / 60)) AS unit,
             e.changed_at + INTERVAL ({offset}) SECOND AS local,
             HOUR(e.changed_at + INTERVAL ({offset}) SECOND) * 60 + MINUTE(e.changed_at + INTERVAL ({offset}) SECOND)
               AS minute
      FROM {schema}.audit_log AS e
      WHERE e.changed_at >= %(since)s AND e.changed_at < %(until)s
    ) AS c
    JOIN (SELECT 'time' AS part UNION ALL SELECT 'user' UNION ALL SELECT 'table' UNION ALL SELECT 'application'
          UNION ALL SELECT 'bulk') AS p ON p.part = 'time' OR c.of_row
    GROUP BY p.part, CRC32({key}), CRC32(REVERSE({key}))
    HAVING p.part <> 'bulk' OR COUNT(*) >= %(bulk_rows)s
  ) AS g
) AS r
STRAIGHT_JOIN {schema}.audit_log AS e ON e.id = r.first_id AND e.changed_at >= %(since)s AND e.changed_at < %(until)s
WHERE r.part = 'time' OR r.place <= 50 OR (r.part = 'user' AND r.off_place <= 10)
"""
#: What records of a group have in common.
_KEY = """CASE p.part
      WHEN 'time' THEN CONCAT_WS('|', DATE(c.local), HOUR(c.local), c.action, c.kind)
      WHEN 'user' THEN c.changed_by
      WHEN 'table' THEN CONCAT_WS('.', c.schema_name, c.table_name)
      WHEN 'application' THEN c.application
      ELSE CONCAT_WS('|', c.unit, c.action, c.schema_name, c.table_name, c.changed_by, c.application) END"""
_KIND = """CASE WHEN e.action <> 'EVENT' THEN NULL
         WHEN JSON_UNQUOTE(JSON_EXTRACT(e.new_values, '$.event')) = 'audit_failure' THEN 'failure'
         WHEN JSON_UNQUOTE(JSON_EXTRACT(e.new_values, '$.event')) = 'login'
           AND JSON_CONTAINS(e.new_values, 'false', '$.success') THEN 'refused_login' END"""

# A row that was added late, under an id before the last sealed one, waits for the next run and is not counted.
SEALS = """
SELECT s.chain, GREATEST(s.watermark, c.last_id) AS last_id, c.rows_sealed, c.last_number, c.`unsigned`,
       DATE_FORMAT(c.last_sealed_at, '%%Y-%%m-%%dT%%H:%%i:%%sZ') AS last_sealed_at
FROM {schema}.seal_state AS s
CROSS JOIN (SELECT COALESCE(SUM(l.row_count), 0) AS rows_sealed, COALESCE(MAX(l.number), 0) AS last_number,
                   COUNT(*) - COUNT(l.signature) AS `unsigned`, COALESCE(MAX(l.last_id), 0) AS last_id,
                   MAX(IF(l.signature IS NULL, NULL, l.sealed_at)) AS last_sealed_at
            FROM {schema}.seal AS l) AS c
"""

UNSEALED = """
SELECT COUNT(*) AS `rows`, DATE_FORMAT(MIN(e.changed_at), '%%Y-%%m-%%dT%%H:%%i:%%sZ') AS oldest
FROM (SELECT r.changed_at FROM {schema}.audit_log_data AS r WHERE r.id > %(last_id)s LIMIT %(limit)s) AS e
"""

#: Of the server, what decides over what is recorded, of whom, and where it goes.
SERVER_SETTINGS = """
SHOW GLOBAL VARIABLES
WHERE variable_name LIKE 'server\\_audit\\_%%' OR variable_name LIKE 'audit\\_log\\_%%' OR variable_name IN (
  'binlog_format', 'event_scheduler', 'general_log', 'have_ssl', 'init_connect', 'local_infile', 'log_bin',
  'log_bin_trust_function_creators', 'log_output', 'performance_schema', 'read_only', 'require_secure_transport',
  'secure_file_priv', 'sql_mode', 'system_time_zone', 'tls_version')
"""

#: Of MariaDB's plugin for statements, what somebody has set, and where.
SERVER_AUDIT = """
SELECT LOWER(v.variable_name) AS name, v.global_value AS value,
       COALESCE(v.global_value_path, LOWER(v.global_value_origin)) AS place
FROM information_schema.system_variables AS v
WHERE v.variable_name LIKE 'SERVER\\_AUDIT\\_%' AND v.global_value_origin <> 'COMPILE-TIME'
ORDER BY v.variable_name
"""


def activity(offsets: Sequence[int]) -> str:
    """Return the query for what has happened.

    :param offsets: seconds that local time is ahead of UTC, each until `end_0`, `end_1`, ... of the bound values.
    """
    spans = "".join(f" WHEN e.changed_at < %(end_{number})s THEN {seconds}" for number, seconds in enumerate(offsets))
    offset = f"CASE{spans} END" if len(offsets) > 1 else str(offsets[0])
    return _ACTIVITY.replace("{key}", _KEY).replace("{kind}", _KIND).replace("{offset}", offset)
