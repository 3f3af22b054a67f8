# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an undo asks of the log and of the table, and how it is carried out, as SQL. ``{schema}`` is the trail's."""

from __future__ import annotations

# The settings under which records are made (see capture.py), so that the values of the table read as they do in the
# log; and no row that a policy hides is taken for one that is gone.
SETTINGS = """
SELECT set_config('IntervalStyle', 'postgres', false) AS interval_style,
       set_config('extra_float_digits', '1', false) AS float_digits,
       set_config('bytea_output', 'hex', false) AS bytea_output,
       set_config('lc_monetary', 'C', false) AS monetary,
       set_config('row_security', 'off', false) AS row_security
"""

SINCE_TIME = "d.changed_at > {to}"
SINCE_TRANSACTION = """d.id >= (
      SELECT min(s.id) FROM {schema}.audit_log AS s
      WHERE s.transaction_id = {transaction_id} AND s.schema_name = {schema_name} AND s.table_name = {table_name})"""

TIME = """to_char({time} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

TRUNCATION = """
SELECT {time} AS changed_at, d.changed_by
FROM {schema}.audit_log AS d
WHERE d.schema_name = {schema_name} AND d.table_name = {table_name} AND d.action = 'TRUNCATE' AND {since}
ORDER BY d.id DESC
LIMIT 1
"""

# Values of the key in the new image, of which an update may record what it has changed and no more.
NEW_VALUE = "coalesce(d.new_values -> {name}, d.old_values -> {name})"
OLD_VALUE = "d.old_values -> {name}"
KEY = "CASE WHEN ({parts}) IS NOT NULL THEN jsonb_build_array({parts})::text END"

#: Where only the first change of a record is looked at, later ones count for the columns that no image can restore.
MASKED_CHANGES = """
CASE WHEN d.old_values::text ~ 'REDACTED|hmac-sha256:|too large' THEN d.changed_columns END"""

# An update of the key is the end of one record and the beginning of another. The id of a record is made of the key as
# it is now, in the way of the capture functions, so that records of policies with and without the key's columns meet.
# Where the first change alone counts, all of its transaction are read: the log may have another one before it.
CHANGES = """
WITH change AS MATERIALIZED (
  SELECT d.id, d.changed_at, d.transaction_id, d.action, d.changed_by, d.record_id, {changed} AS changed_columns,
         {wanted} AS wanted, {old_key} AS old_key, {new_key} AS new_key
  FROM {schema}.audit_log AS d
  WHERE d.schema_name = {schema_name} AND d.table_name = {table_name}
    AND d.action IN ('INSERT', 'UPDATE', 'DELETE') AND {since}
), part AS (
  SELECT k.id, k.changed_at, k.transaction_id, k.changed_by, k.record_id AS recorded, k.changed_columns, k.wanted,
         p.action, p.key, p.moved, {record} AS made
  FROM change AS k
  CROSS JOIN LATERAL (
    SELECT k.action, coalesce(k.new_key, k.old_key) AS key, false AS moved
    WHERE k.action <> 'UPDATE' OR k.old_key IS NOT DISTINCT FROM k.new_key
    UNION ALL
    SELECT 'DELETE', k.old_key, true WHERE k.action = 'UPDATE' AND k.old_key <> k.new_key
    UNION ALL
    SELECT 'INSERT', k.new_key, true WHERE k.action = 'UPDATE' AND k.old_key <> k.new_key
  ) AS p
), named AS (
  SELECT p.*, CASE
           WHEN octet_length(p.made) > 2000 THEN 'sha256:' || encode(sha256(convert_to(p.made, {digested_as})), 'hex')
           ELSE coalesce(p.made, p.recorded)
         END AS record_id
  FROM part AS p
), fact AS (
  SELECT n.*, min(n.id) FILTER (WHERE n.wanted) OVER record AS first_id, max(n.id) OVER record AS last_id,
         first_value(n.transaction_id) OVER history AS first_transaction,
         lead(n.id) OVER history AS next_id, lead(n.action) OVER history AS next_action
  FROM named AS n
  WHERE {records}
  WINDOW record AS (PARTITION BY n.record_id), history AS (PARTITION BY n.record_id ORDER BY n.id)
), touched AS (
  SELECT f.record_id, array_agg(DISTINCT c.name) AS columns
  FROM fact AS f
  CROSS JOIN LATERAL unnest(f.changed_columns) AS c (name)
  GROUP BY f.record_id
), total AS (
  SELECT count(DISTINCT coalesce(f.record_id, '')) AS records FROM fact AS f WHERE f.wanted
)
SELECT n.records, f.id, f.record_id, f.action, f.key, f.wanted, f.moved, f.changed_by, {time} AS changed_at,
       coalesce(CASE WHEN {every} THEN f.changed_columns ELSE t.columns END, '{}') AS changed_columns, f.last_id,
       f.transaction_id, f.next_id, f.next_action
FROM total AS n
LEFT JOIN fact AS f ON n.records <= {limit} AND f.id >= f.first_id
  AND ({every} OR f.transaction_id = f.first_transaction)
LEFT JOIN touched AS t ON t.record_id = f.record_id
ORDER BY f.record_id, f.id
"""

#: What a change has left: an update may record what it has changed and no more.
NEW_IMAGE = "coalesce(d.old_values || d.new_values, d.new_values)"

# By their ids, which are few: images are too large to be sorted with everything else.
IMAGES = """
SELECT d.id, d.old_values::text AS old_values, {old_columns} AS old_columns, {new_columns} AS new_columns
FROM {schema}.audit_log AS d
WHERE d.schema_name = {schema_name} AND d.table_name = {table_name} AND {since} AND d.id IN ({ids})
"""
_MASK = """CASE
           WHEN e.value = '"[REDACTED]"' THEN 'redacted'
           WHEN e.value #>> '{}' ~ '^hmac-sha256:[0-9a-f]{64}$' THEN 'hashed'
           WHEN e.value @> '{"omitted": "too large"}' AND e.value ? 'sha256' THEN 'too large'
         END"""
COLUMNS = f"""(
  SELECT jsonb_object_agg(e.key, {_MASK})
  FROM jsonb_each({{image}}) AS e)"""

# The several changes that a transaction has made of a record, where one did not find what the one before it in the log
# had left, or where they end where they began, so that any could have been the first (see _core/undo_order.py). A step
# is [history, place, place of the next one, id, action]; the last one's next is the first. What comes after the
# transaction has no place. Values stay in the server: equal ones have equal digests.
STEPS = """
WITH step AS MATERIALIZED (
  SELECT (s.value ->> 0)::int AS history, (s.value ->> 1)::int AS place, (s.value ->> 2)::int AS next,
         (s.value ->> 3)::bigint AS id, s.value ->> 4 AS action
  FROM jsonb_array_elements({steps}) AS s
), image AS MATERIALIZED (
  SELECT s.history, s.place, s.next, s.action <> 'INSERT' AS found, s.action <> 'DELETE' AS left,
         CASE WHEN s.action <> 'INSERT' THEN coalesce({old_digests}, '{}') END AS before,
         CASE WHEN s.action <> 'DELETE' THEN coalesce({new_digests}, '{}') END AS after
  FROM step AS s
  JOIN {schema}.audit_log AS d ON d.id = s.id
  WHERE d.schema_name = {schema_name} AND d.table_name = {table_name} AND {since} AND d.id IN ({ids})
), pair AS (
  SELECT a.history, a.next = 0 AS closing,
         a.left = b.found AND NOT EXISTS (
           SELECT FROM jsonb_each(a.after) AS l JOIN jsonb_each(b.before) AS f USING (key) WHERE l.value <> f.value
         ) AS meets
  FROM image AS a
  JOIN image AS b ON b.history = a.history AND b.place = a.next
)
SELECT i.history, i.place, i.before, i.after
FROM image AS i
WHERE i.history IN (SELECT p.history FROM pair AS p WHERE p.meets = p.closing)
ORDER BY i.history, i.place
"""
DIGESTS = f"""(
  SELECT jsonb_object_agg(e.key, encode(sha256(convert_to(e.value::text, getdatabaseencoding())), 'hex'))
  FROM jsonb_each({{image}}) AS e
  WHERE {_MASK} IS NULL)"""

# Rows are compared as the log holds them: what cannot be told from a record (bounds of an array, spacing of json) is no
# difference. `wanted` and `seen` hold a literal for each column that is asked for, in the order of the columns.
COMPARE = """
WITH item AS MATERIALIZED (
  SELECT (i.value ->> 'number')::int AS number, (i.value ->> 'key')::jsonb AS key,
         (i.value ->> 'exists')::boolean AS exists, i.value -> 'checked' AS checked, i.value -> 'images' AS images
  FROM jsonb_array_elements({items}) AS i
), image AS MATERIALIZED (
  SELECT i.number, jsonb_object_agg(c.name, v.image -> c.name) FILTER (WHERE c.name IS NOT NULL) AS image
  FROM item AS i
  LEFT JOIN LATERAL jsonb_array_elements(i.images) AS p ON true
  LEFT JOIN LATERAL (SELECT (p.value ->> 0)::jsonb AS image OFFSET 0) AS v ON true
  LEFT JOIN LATERAL jsonb_array_elements_text(p.value -> 1) AS c (name) ON true
  GROUP BY i.number
)
SELECT i.number, t.tableoid IS NOT NULL AS present,
       ARRAY[{keys}] AS key,
       ARRAY[{wanted}]::text[] AS wanted,
       ARRAY[{seen}]::text[] AS seen
FROM item AS i
JOIN image AS m USING (number)
CROSS JOIN LATERAL jsonb_to_record(jsonb_build_object({key_values})) AS k({key_types})
LEFT JOIN {relation} AS t ON {same_key}
LEFT JOIN LATERAL (SELECT to_jsonb(t) AS now WHERE t.tableoid IS NOT NULL) AS n ON true
LEFT JOIN LATERAL (SELECT r.* FROM jsonb_populate_record(t, m.image) AS r WHERE i.exists) AS w ON true
ORDER BY i.number
"""
DIFFERS = "(m.image -> {name})::text IS DISTINCT FROM (n.now -> {name})::text"
WANTED = "CASE WHEN m.image ? {name} AND {differs} THEN {literal} END"
SEEN = "CASE WHEN t.tableoid IS NOT NULL AND (i.checked ? {name} OR m.image ? {name} AND {differs}) THEN {literal} END"
LITERAL = "quote_nullable({row}.{column}::text)"
# The text of an amount of money depends on lc_monetary, on the server that reads it too.
MONEY = "quote_nullable({row}.{column}::numeric::text) || '::numeric::money'"

# All or nothing, and nothing blind: a statement that meets another number of records than one takes everything back.
EXECUTE = """
DO $dbfleet$
DECLARE
  v_plan    CONSTANT jsonb := current_setting('dbfleet.undo')::jsonb;
  v_step    jsonb;
  v_rows    bigint;
  v_failure jsonb;
  v_state   text;
  v_message text;
  v_detail  text;
BEGIN
  FOR v_attempt IN 0 .. (v_plan ->> 'lock_retries')::int LOOP
    v_failure := NULL;
    BEGIN
      PERFORM set_config('lock_timeout', v_plan ->> 'lock_timeout', true),
              set_config(v_plan ->> 'context_setting', v_plan ->> 'context', true);
      FOR v_step IN SELECT value FROM jsonb_array_elements(v_plan -> 'steps') LOOP
        EXECUTE v_step ->> 'statement';
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        IF v_rows <> 1 THEN
          RAISE EXCEPTION 'it was changed in the meantime, or a trigger or rule of the table refused it'
            USING ERRCODE = 'triggered_action_exception';
        END IF;
      END LOOP;
      v_step := NULL;
      SET CONSTRAINTS ALL IMMEDIATE;
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT, v_detail = PG_EXCEPTION_DETAIL;
      v_failure := jsonb_build_object('record_id', v_step -> 'record_id', 'restore', v_step -> 'restore',
        'sqlstate', v_state, 'message', v_message, 'detail', v_detail);
    END;
    EXIT WHEN v_failure IS NULL OR v_state NOT IN ('55P03', '40P01') OR v_attempt = (v_plan ->> 'lock_retries')::int;
    PERFORM pg_sleep(least(0.2 * (v_attempt + 1), 2));
  END LOOP;
  PERFORM set_config('dbfleet.undo', '', false),
          set_config('dbfleet.undo_failure', coalesce(v_failure, 'null')::text, false);
END
$dbfleet$
"""
