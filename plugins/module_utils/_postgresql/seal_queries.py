# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What sealing and verifying ask of the server, where the log's rows stay. ``{schema}`` is the trail's schema."""

from __future__ import annotations

#: Without sequential scans, because statistics of a log that only grows are always behind: the index on ids is right.
#: What the ledger has, a crash of the server must not take from the database: its commits wait for the disk.
SESSION = """
SELECT set_config('enable_seqscan', 'off', false) AS seqscan, set_config('work_mem', '64MB', false) AS work_mem,
       set_config('jit', 'off', false) AS jit, set_config('lock_timeout', '60s', false) AS lock_timeout,
       set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'local'
         ELSE current_setting('synchronous_commit') END, false) AS synchronous_commit
"""

#: The lock of sealing runs; the one of _postgresql/session.py is taken by whoever moves rows between partitions.
LOCK = "SELECT pg_advisory_lock({lock_class}, 2)"

#: Whether nobody moves rows of the catch-all now, during which they cannot be seen; and keeps them from starting, until
#: this call ends. Whether somebody has between two calls, the catch-all shows: they make another one.
STEADY = """
SELECT pg_try_advisory_lock_shared({lock_class}, {lock_object})
   AND to_regclass({moving}) IS NULL AS steady, to_regclass({catch_all})::oid::text AS catch_all
"""

#: A sequence is read as it is, not as it was for the snapshot: no row that a statement sees has a higher id than this,
#: asked in the same statement.
LAST_ID = """(SELECT CASE WHEN q.is_called THEN q.last_value ELSE q.last_value - 1 END
        FROM {schema}.audit_log_id_seq AS q)"""

STATE = """
SELECT s.chain::text AS chain, s.watermark, s.marked_at::text AS marked_at, s.marks, clock_timestamp()::text AS now,
       {last_id} AS last_id,
       (SELECT jsonb_build_object('number', c.number, 'digest', c.digest)
        FROM {schema}.seal AS c WHERE c.signature IS NOT NULL ORDER BY c.number DESC LIMIT 1) AS last
FROM {schema}.seal_state AS s
"""

# Whoever adds a row has locked the log before it takes an id, and keeps the lock until it ends; a prepared transaction
# too. A transaction's number would not do: one that records an event takes its id before it has a number.
HOLDERS = """
SELECT coalesce(jsonb_agg(DISTINCT l.virtualtransaction), '[]') AS holders
FROM pg_locks AS l
WHERE l.relation = {log}::regclass AND l.mode = 'RowExclusiveLock' AND l.granted
  AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
"""

# Another run may have been faster, and further.
ADVANCE = """
UPDATE {schema}.seal_state SET watermark = {watermark}, marked_at = {marked_at}, marks = {marks}
WHERE watermark = {began}
"""

_HEADER = """
c.number, c.kind, c.period::text AS period, c.row_count AS rows, encode(c.root, 'hex') AS root, c.attested,
       to_char(c.sealed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS sealed_at,
       c.previous, c.digest, c.key, c.signature,
       (SELECT jsonb_agg(jsonb_build_array(lower(u.r), upper(u.r) - 1)) FROM unnest(c.ids) AS u (r)) AS ids
"""

PENDING = (
    "SELECT "
    + _HEADER
    + """
FROM {schema}.seal AS c WHERE c.signature IS NULL ORDER BY c.number LIMIT {limit}
"""
)

HEADERS = (
    "SELECT "
    + _HEADER
    + """, c.root IS NOT DISTINCT FROM sha256(c.leaves) AND coalesce(length(c.leaves), 0) = 32 * c.row_count AS whole
FROM {schema}.seal AS c WHERE c.number > {after} ORDER BY c.number LIMIT {limit}
"""
)

#: Who listens here hears of the numbers of seals as they are signed. Never from where changes are recorded: a NOTIFY
#: there would have all transactions of the server commit one after the other.
CHANNEL = "dbfleet_audit_seal"

# A chain goes on from what the controller has seen: the predecessor is the one that it names, or is not here at all,
# after a restore that the key's holder has acknowledged.
SIGN = f"""
WITH signed AS (
  UPDATE {{schema}}.seal AS c
  SET previous = n.previous, digest = n.digest, key = n.key, signature = n.signature
  FROM jsonb_to_recordset({{signed}})
    AS n (number bigint, sealed_at text, root text, previous text, digest text, key text, signature text)
  WHERE c.number = n.number AND c.signature IS NULL AND encode(c.root, 'hex') IS NOT DISTINCT FROM n.root
    AND to_char(c.sealed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') = n.sealed_at
  RETURNING c.number
)
SELECT pg_notify('{CHANNEL}', max(s.number)::text) FROM signed AS s HAVING count(*) > 0
"""

UNSIGNED = """
SELECT min(n.number) AS number
FROM jsonb_to_recordset({signed}) AS n (number bigint, digest text)
LEFT JOIN {schema}.seal AS c ON c.number = n.number
WHERE c.digest IS DISTINCT FROM n.digest
"""

DISCARD = "DELETE FROM {schema}.seal AS c WHERE c.signature IS NULL"

#: What waits from a seal of objects on, and what that one says.
WITHDRAW = """
WITH gone AS (
  DELETE FROM {schema}.seal AS c
  WHERE c.signature IS NULL AND c.number >= (
    SELECT min(w.number) FROM {schema}.seal AS w WHERE w.signature IS NULL AND w.kind = 'catalog')
  RETURNING c.number, c.kind, c.attested
)
SELECT g.kind, g.attested FROM gone AS g ORDER BY g.number
"""

NEXT_NUMBER = "SELECT coalesce(max(c.number), 0) + 1 AS number FROM {schema}.seal AS c"

ADD = """
INSERT INTO {schema}.seal (number, kind, attested) VALUES (coalesce({number}, ({next_number})), {kind}, {attested})
"""

# BRIN knows nothing of the pages that were added since the last VACUUM, so that every search would read them all.
# Whoever holds a table against this now is VACUUM, which does it too, or at work on partitions, and is not waited for.
SUMMARIZE = """
SELECT count(brin_summarize_new_values(i.indexrelid::regclass)) AS indexes
FROM pg_inherits AS h
JOIN pg_index AS i ON i.indexrelid = h.inhrelid
JOIN pg_class AS c ON c.oid = i.indrelid
WHERE h.inhparent = to_regclass({id_index}) AND pg_has_role(c.relowner, 'USAGE') AND NOT EXISTS (
  SELECT FROM pg_locks AS l
  WHERE l.relation = i.indrelid AND l.granted AND l.pid <> pg_backend_pid()
    AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
    AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                   'AccessExclusiveLock'))
"""

#: Seals the rows of ids after `after` up to `until` that are in no seal yet, one block a day. Of rows with the same id,
#: which only a tamperer can make, one is sealed. What was imported from another log is history and no row that came too
#: late; how much there is of it, the seal says. By a policy that was in force at any time, nothing was imported.
SEAL = """
WITH sealed AS MATERIALIZED (
  SELECT coalesce(range_agg(u.r), '{}') AS ids
  FROM (SELECT unnest(c.ids) AS r FROM {schema}.seal AS c
        WHERE upper(c.ids) > {after} + 1 AND lower(c.ids) <= {until}) AS u
), import AS MATERIALIZED (
  SELECT coalesce(array_agg(p.policy_id), '{}') AS policies FROM {schema}.policy AS p
  WHERE p.definition ? 'imported' AND p.valid_to = p.valid_from
), candidate AS MATERIALIZED (
  SELECT DISTINCT ON (r.id) r.id, r.changed_at, {leaf} AS leaf, r.policy_id = ANY (i.policies) AS imported
  FROM {schema}.audit_log_data AS r CROSS JOIN sealed AS s CROSS JOIN import AS i
  WHERE r.id > {after} AND r.id <= {until} AND NOT r.id <@ s.ids
  ORDER BY r.id, r.changed_at
), block AS (
  SELECT (n.changed_at AT TIME ZONE 'UTC')::date AS period, min(n.id) AS first_id,
         range_agg(int8range(n.id, n.id, '[]')) AS ids, count(*) AS row_count,
         string_agg(n.leaf, '' ORDER BY n.id) AS leaves,
         jsonb_agg(jsonb_build_object('id', n.id, 'changed_at', n.changed_at, 'after', {marked_at}::timestamptz))
           FILTER (WHERE n.changed_at < {marked_at}::timestamptz - interval '1 minute'
                     AND n.imported IS NOT TRUE) AS backdated,
         nullif(count(*) FILTER (WHERE n.imported), 0) AS imported
  FROM candidate AS n
  GROUP BY 1
)
INSERT INTO {schema}.seal (number, kind, period, ids, row_count, leaves, root, attested)
SELECT (SELECT coalesce(max(c.number), 0) FROM {schema}.seal AS c) + row_number() OVER (ORDER BY b.first_id),
       'rows', b.period, b.ids, b.row_count, b.leaves, sha256(b.leaves),
       jsonb_strip_nulls(jsonb_build_object(
         'backdated', b.backdated, 'imported', b.imported, 'watermark', {watermark}::bigint,
         'marked_at', to_char({marked_at}::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')))
FROM block AS b
"""

BOUNDS = """
SELECT upper(c.ids) - 1 AS last_id, c.row_count AS rows
FROM {schema}.seal AS c
WHERE c.kind = 'rows' AND upper(c.ids) - 1 > {after}
ORDER BY upper(c.ids)
"""

# What the seals say of the ids after `after` up to `until`, and what the log has.
_BOTH_SIDES = """
WITH seal AS MATERIALIZED (
  SELECT c.number, c.ids, c.leaves || ''::bytea AS leaves, c.number <@ {exempt}::int8multirange AS exempt
  FROM {schema}.seal AS c
  WHERE c.kind = 'rows' AND upper(c.ids) > {after} + 1 AND lower(c.ids) <= {until}
), expected AS (
  SELECT s.number, s.exempt, e.id, substring(s.leaves FROM ((e.nr - 1) * 32 + 1)::int FOR 32) AS leaf
  FROM seal AS s
  CROSS JOIN LATERAL (SELECT i AS id, row_number() OVER () AS nr
                      FROM unnest(s.ids) AS u (r), generate_series(lower(u.r), upper(u.r) - 1) AS i) AS e
  WHERE e.id > {after} AND e.id <= {until}
), actual AS (
  SELECT r.id, r.changed_at, {leaf} AS leaf
  FROM {rows} AS r
  WHERE r.id > {after} AND r.id <= {until}
)
"""

COUNT = (
    _BOTH_SIDES
    + """
SELECT count(a.id) AS rows,
       count(*) FILTER (WHERE a.leaf = e.leaf) AS same,
       count(*) FILTER (WHERE a.id IS NULL AND NOT e.exempt) AS missing,
       count(e.id) - (SELECT count(*) FROM expected) AS doubled,
       count(*) FILTER (WHERE e.id IS NULL AND a.id > {watermark} AND a.id <= {last_id}) AS unsealed,
       min(a.changed_at) FILTER (WHERE e.id IS NULL AND a.id > {watermark} AND a.id <= {last_id})::text AS oldest
FROM actual AS a FULL JOIN expected AS e ON e.id = a.id
"""
)

FINDINGS = (
    _BOTH_SIDES
    + """
, one AS (
  SELECT a.id, count(*) AS copies, (array_agg(a.leaf ORDER BY a.changed_at))[1] AS leaf FROM actual AS a GROUP BY a.id
)
SELECT CASE WHEN o.copies > 1 THEN 'duplicate_id' WHEN o.id IS NULL THEN 'deleted_row'
            WHEN e.id IS NULL THEN 'inserted_row' ELSE 'modified_row' END AS type,
       coalesce(o.id, e.id) AS id, encode(o.leaf, 'hex') AS leaf,
       coalesce(e.number, (SELECT c.number FROM {schema}.seal AS c
                           WHERE c.kind = 'rows' AND upper(c.ids) > o.id ORDER BY upper(c.ids) LIMIT 1)) AS block
FROM one AS o FULL JOIN expected AS e ON e.id = o.id
WHERE (o.copies > 1 OR o.leaf IS DISTINCT FROM e.leaf)
  AND NOT coalesce(o.id IS NULL AND e.exempt, false)
  AND NOT coalesce(e.id IS NULL AND o.copies = 1 AND o.id > {watermark} AND o.id <= {last_id}, false)
ORDER BY 2
LIMIT {limit}
"""
)
