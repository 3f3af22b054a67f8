# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What archiving asks of the server, and how a partition leaves the log. ``{schema}`` is the trail's database.

``{rows}`` is where a period's rows are: a partition of the log, or the table beside it that it was exchanged with.
"""

from __future__ import annotations

#: What may take long here are counts; nothing waits for a lock for longer than the least that the server knows. MySQL
#: otherwise shows an id that it has remembered for a day.
BEGIN = {
    "mariadb": "SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 0, max_statement_time = 0",
    "mysql": """SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1, max_execution_time = 0,
  information_schema_stats_expiry = 0""",
}

PARTITIONS = """
SELECT p.partition_name AS name, p.partition_description AS bound, p.data_length + p.index_length AS bytes
FROM information_schema.partitions AS p
WHERE p.table_schema = {schema_name} AND p.table_name = 'audit_log_data' AND p.partition_name IS NOT NULL
ORDER BY p.partition_ordinal_position
"""

#: Made like the log, with its comment: not what somebody has restored beside it.
SIDES = """
SELECT t.table_name AS name, t.data_length + t.index_length AS bytes
FROM information_schema.tables AS t
WHERE t.table_schema = {schema_name} AND t.table_type = 'BASE TABLE' AND t.table_name LIKE 'audit\\_log\\_%'
  AND t.table_comment REGEXP '^dbfleet[.]audit( [0-9]+)?$'
"""

#: Without them, nothing gets into the log.
ROUTINES = """
SELECT r.routine_name AS name FROM information_schema.routines AS r WHERE r.routine_schema = {schema_name}
"""

IN_LOG = "{schema}.audit_log_data PARTITION ({partition})"

GROUPS = """
SELECT p.retention AS category, r.schema_name, r.table_name, COUNT(*) AS `rows`,
       MIN(r.id) AS first_id, MAX(r.id) AS last_id,
       DATE_FORMAT(MIN(r.changed_at), '%Y-%m-%dT%H:%i:%s.%fZ') AS first_at,
       DATE_FORMAT(MAX(r.changed_at), '%Y-%m-%dT%H:%i:%s.%fZ') AS last_at
FROM {rows} AS r LEFT JOIN {schema}.policy AS p ON p.policy_id = r.policy_id
GROUP BY p.retention, r.schema_name, r.table_name
ORDER BY p.retention, r.schema_name, r.table_name
"""

HELD = """
SELECT EXISTS (
  SELECT 1 FROM {rows} AS r
  WHERE ({any_table} OR (r.schema_name, r.table_name) IN ({tables}))
    AND ({record_id} IS NULL OR r.record_id = {record_id})
    AND ({changed_by} IS NULL OR {changed_by} IN (r.changed_by, r.db_user))
) AS held
"""

BOUNDS = """
SELECT c.last_id, c.row_count AS `rows`
FROM {schema}.seal AS c
WHERE c.kind = 'rows' AND c.last_id > {after}
  AND ({first_day} IS NULL OR c.period >= {first_day}) AND ({end_day} IS NULL OR c.period < {end_day})
ORDER BY c.last_id
"""

#: As bytes, so that what the driver hands over is what was hashed.
LINES = """
SELECT r.id, CAST(CONVERT({text} USING utf8mb4) AS BINARY) AS line
FROM {rows} AS r
WHERE r.id > {after} AND r.id <= {until}
ORDER BY r.id
LIMIT {limit}
"""

COUNT = "SELECT COUNT(*) AS `rows` FROM {rows} AS r"
#: Without an alias, which LOCK TABLES would have to name.
ANY = "SELECT EXISTS (SELECT 1 FROM {rows}) AS found"
SEALED = """
SELECT COALESCE(SUM(c.row_count), 0) AS `rows` FROM {schema}.seal AS c
WHERE c.kind = 'rows' AND c.period >= {first_day} AND c.period < {end_day}
"""

#: What a partition is exchanged with has to be made like the log, to the last index.
CREATE_SIDE = "CREATE TABLE {side} LIKE {schema}.audit_log_data"
MAKE_PLAIN = "ALTER TABLE {side} REMOVE PARTITIONING"
DROP_SIDE = "DROP TABLE {side}"

LOCK_BOTH = "LOCK TABLES {schema}.audit_log_data WRITE, {side} WRITE"
LOCK_LOG = "LOCK TABLES {schema}.audit_log_data WRITE"
UNLOCK = "UNLOCK TABLES"

EXCHANGE = "ALTER TABLE {schema}.audit_log_data EXCHANGE PARTITION {partition} WITH TABLE {side}"
DROP_PARTITION = "ALTER TABLE {schema}.audit_log_data DROP PARTITION {partition}"

# MySQL keeps the counter with the partitions. The one with the highest id takes it along when it is exchanged, and ids
# would be handed out again after a restart, unless all partitions have been told of it.
COUNTER = """
SELECT GREATEST(t.auto_increment, {last_id} + 1) AS next_id FROM information_schema.tables AS t
WHERE t.table_schema = {schema_name} AND t.table_name = 'audit_log_data'
"""
LAST_ID = "SELECT MAX(id) AS last_id FROM {rows}"
KEEP_COUNTER = "ALTER TABLE {schema}.audit_log_data AUTO_INCREMENT = {next_id}"

#: Has rows in the log again that are beside it, where the partition has others by now.
MERGE = """
INSERT INTO {schema}.audit_log_data
SELECT s.* FROM {side} AS s
WHERE NOT EXISTS (SELECT 1 FROM {schema}.audit_log_data AS r WHERE r.id = s.id AND r.changed_at = s.changed_at)
"""
UNMERGED = """
SELECT EXISTS (
  SELECT 1 FROM {side} AS s
  WHERE NOT EXISTS (SELECT 1 FROM {schema}.audit_log_data AS r WHERE r.id = s.id AND r.changed_at = s.changed_at)
) AS found
"""

# Both show when a transaction began in the time of the machine, whatever the session's is.
_SINCE = "TIMESTAMPDIFF(SECOND, x.trx_started, CONVERT_TZ(SYSDATE(), @@session.time_zone, 'SYSTEM'))"

#: Whoever has a transaction that the log waits for; MariaDB does not say of which tables one is.
HOLDERS = {
    "mysql": f"""
SELECT DISTINCT t.processlist_id AS id, CONCAT(t.processlist_user, '@', t.processlist_host) AS account,
       {_SINCE} AS seconds
FROM performance_schema.metadata_locks AS l
JOIN performance_schema.threads AS t ON t.thread_id = l.owner_thread_id
LEFT JOIN information_schema.innodb_trx AS x ON x.trx_mysql_thread_id = t.processlist_id
WHERE l.object_schema = {{schema_name}} AND l.object_name IN ('audit_log_data', {{side_name}})
  AND l.lock_status = 'GRANTED' AND t.processlist_id <> CONNECTION_ID()
ORDER BY t.processlist_id
""",
    "mariadb": f"""
SELECT x.trx_mysql_thread_id AS id, CONCAT(p.user, '@', p.host) AS account, {_SINCE} AS seconds
FROM information_schema.innodb_trx AS x
LEFT JOIN information_schema.processlist AS p ON p.id = x.trx_mysql_thread_id
WHERE x.trx_mysql_thread_id <> CONNECTION_ID()
ORDER BY x.trx_started
""",
}
