# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What sealing and verifying ask of the server, where the log's rows stay. ``{schema}`` is the trail's database."""

from __future__ import annotations

LOCK = "SELECT GET_LOCK('dbfleet.audit.seal', 60) AS taken"

INSTALLED = """
SELECT COUNT(*) AS number FROM information_schema.tables AS t
WHERE t.table_schema = {schema_name} AND t.table_name IN ('audit_log_data', 'seal', 'seal_state', 'seal_inventory')
"""

#: The id that has not been handed out yet, nor any above it. MySQL's counter follows whatever id anybody puts in.
NEXT_ID = {
    "mariadb": "(SELECT q.next_not_cached_value FROM {schema}.audit_log_id_seq AS q)",
    "mysql": "9223372036854775807",
}

STATE = """
SELECT s.chain, s.watermark, DATE_FORMAT(s.marked_at, '%Y-%m-%dT%H:%i:%s.%f') AS marked_at, s.marks,
       DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%f') AS now,
       COALESCE((SELECT MAX(r.id) FROM {schema}.audit_log_data AS r WHERE r.id < {next_id}), 0) AS last_id,
       (SELECT c.number FROM {schema}.seal AS c
        WHERE c.signature IS NOT NULL ORDER BY c.number DESC LIMIT 1) AS last_number,
       (SELECT c.digest FROM {schema}.seal AS c
        WHERE c.signature IS NOT NULL ORDER BY c.number DESC LIMIT 1) AS last_digest
FROM {schema}.seal_state AS s
"""

LIMIT = "SELECT {next_id} AS next_id"

#: What tells servers apart; not all have all of it.
SERVER = """
SHOW GLOBAL VARIABLES WHERE variable_name IN ('server_uuid', 'server_uid', 'hostname', 'port', 'datadir')
"""

# InnoDB shows what it has last noted for as long as somebody asks again within 100 ms. That it has been noted for this
# query is certain where the query itself is in it. Below 2^48 are the numbers of transactions that have written.
BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT"
TRANSACTIONS = """
SELECT t.trx_id AS id, COALESCE(t.trx_mysql_thread_id = CONNECTION_ID() AND t.trx_query LIKE {token}, FALSE) AS own
FROM information_schema.innodb_trx AS t
WHERE t.trx_id BETWEEN 1 AND 281474976710655 OR t.trx_mysql_thread_id = CONNECTION_ID()
"""

# Another run may have been faster, and further.
ADVANCE = """
UPDATE {schema}.seal_state SET watermark = {watermark}, marked_at = {marked_at}, marks = {marks}
WHERE watermark = {began}
"""

_HEADER = """
SELECT c.number, c.kind, DATE_FORMAT(c.period, '%Y-%m-%d') AS period, c.ids, c.row_count AS `rows`,
       LOWER(HEX(c.root)) AS root, c.attested, DATE_FORMAT(c.sealed_at, '%Y-%m-%dT%H:%i:%s.%fZ') AS sealed_at,
       c.previous, c.digest, c.key_name AS `key`, c.signature, c.first_id, c.last_id
"""

PENDING = (
    _HEADER
    + """
FROM {schema}.seal AS c WHERE c.signature IS NULL ORDER BY c.number LIMIT {limit}
"""
)

HEADERS = (
    _HEADER
    + """, c.root <=> UNHEX(SHA2(c.leaves, 256)) AND COALESCE(LENGTH(c.leaves), 0) = 32 * c.row_count AS whole
FROM {schema}.seal AS c WHERE c.number > {after} ORDER BY c.number LIMIT {limit}
"""
)

# A chain goes on from what the controller has seen: the predecessor is the one that it names, or is not here at all,
# after a restore that the key's holder has acknowledged.
_SIGNED = """
JSON_TABLE({signed}, '$[*]' COLUMNS (
  number BIGINT PATH '$.number', sealed_at CHAR(27) PATH '$.sealed_at', root CHAR(64) PATH '$.root',
  previous CHAR(64) PATH '$.previous',
  digest CHAR(64) PATH '$.digest', key_name CHAR(16) PATH '$.key', signature CHAR(128) PATH '$.signature')) AS n
"""

SIGN = (
    "UPDATE {schema}.seal AS c JOIN "
    + _SIGNED
    + """ON n.number = c.number
SET c.previous = n.previous, c.digest = n.digest, c.key_name = n.key_name, c.signature = n.signature
WHERE c.signature IS NULL AND c.root <=> UNHEX(n.root)
  AND DATE_FORMAT(c.sealed_at, '%Y-%m-%dT%H:%i:%s.%fZ') = n.sealed_at
"""
)

UNSIGNED = (
    "SELECT MIN(n.number) AS number FROM "
    + _SIGNED
    + """LEFT JOIN {schema}.seal AS c ON c.number = n.number
WHERE NOT UNHEX(c.digest) <=> UNHEX(n.digest)
"""
)

DISCARD = "DELETE FROM {schema}.seal WHERE signature IS NULL"

#: What waits from a seal of objects on.
WAITING = """
SELECT c.number, c.kind, c.attested FROM {schema}.seal AS c
WHERE c.signature IS NULL AND c.number >= (
  SELECT MIN(w.number) FROM {schema}.seal AS w WHERE w.signature IS NULL AND w.kind = 'catalog')
ORDER BY c.number
"""

WITHDRAW = "DELETE FROM {schema}.seal WHERE number >= {number} AND signature IS NULL"

NEXT_NUMBER = "SELECT COALESCE(MAX(c.number), 0) + 1 AS number FROM {schema}.seal AS c"

ADD = """
INSERT INTO {schema}.seal (number, kind, period, ids, first_id, last_id, row_count, leaves, root, attested, sealed_at)
SELECT COALESCE({number}, MAX(c.number) + 1, 1), {kind}, {period}, {ids}, {first_id}, {last_id}, {row_count}, {leaves},
       {root}, {attested}, UTC_TIMESTAMP(6)
FROM {schema}.seal AS c
"""

#: Of the blocks that speak of ids after `after` up to `until`, what they say.
BLOCKS = """
SELECT c.number, c.ids, c.leaves
FROM {schema}.seal AS c
WHERE c.last_id > {after} AND c.first_id <= {until}
ORDER BY c.number
"""
SEALED = """
SELECT c.ids FROM {schema}.seal AS c WHERE c.last_id > {after} AND c.first_id <= {until}
"""
NEXT_BLOCK = """
SELECT c.number FROM {schema}.seal AS c WHERE c.last_id >= {id} ORDER BY c.last_id LIMIT 1
"""

BOUNDS = """
SELECT c.last_id, c.row_count AS `rows` FROM {schema}.seal AS c WHERE c.last_id > {after} ORDER BY c.last_id
"""

# Sixteen bytes of a number are its eight in hex, whatever its sign. A row that has no digest must not be left out.
_PACKED = """
SELECT COUNT(*) AS number, COALESCE(GROUP_CONCAT(UNHEX(CONCAT(
         LPAD(HEX(k.id), 16, '0'),
         LPAD(HEX(COALESCE(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', k.changed_at), 0)), 16, '0'),
         COALESCE(k.digest, REPEAT('0', 64)))) SEPARATOR ''), '') AS packed
"""

#: The leaves of rows in the order of their ids, a chunk at a time, in one value.
LEAVES = (
    _PACKED
    + """FROM (
  SELECT r.id, r.changed_at, {digest} AS digest
  FROM {schema}.audit_log_data AS r
  WHERE r.id > {after} AND r.id <= {until} AND {which}
  ORDER BY r.id, r.changed_at
  LIMIT {limit}
) AS k
"""
)

#: As LEAVES, with no more than the ids: of rows most of which are sealed.
IDS = LEAVES.replace("{digest}", "NULL")

#: Rows after the last block, of which there may be any number: none of them is sealed.
REST = """
SELECT COUNT(*) AS `rows`, MIN(r.changed_at) AS oldest, COALESCE(SUM(r.id <= {watermark}), 0) AS below
FROM {schema}.audit_log_data AS r
WHERE r.id > {after} AND r.id <= {until}
"""

FOREIGN = """
SELECT r.id, {digest} AS digest
FROM {schema}.audit_log_data AS r
WHERE r.id > {after} AND r.id <= {until} AND (r.id <= {watermark} OR r.id >= {next_id})
ORDER BY r.id
LIMIT {limit}
"""

#: Rows that came from another log, of the ids between two. By a policy that was in force, nothing was imported.
IMPORTED = """
SELECT r.id
FROM {schema}.policy AS p JOIN {schema}.audit_log_data AS r ON r.policy_id = p.policy_id
WHERE JSON_CONTAINS_PATH(p.definition, 'one', '$.imported') AND p.valid_to = p.valid_from
  AND r.id BETWEEN {first} AND {last}
"""

#: What makes a leaf of nothing, or of a part only: a text longer than max_allowed_packet, a list that was cut off.
CUT_OFF = (1301, 1260)
