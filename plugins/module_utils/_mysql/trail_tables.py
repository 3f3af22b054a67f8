# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The trail's tables, guards and views, as SQL. ``{schema}`` is the trail's database."""

from __future__ import annotations

#: The comment of the log's table.
MARK = "dbfleet.audit"

LOG = "audit_log_data"
SEQUENCE = "audit_log_id_seq"

# MariaDB hands an AUTO_INCREMENT out again once the partition with the highest is gone; a sequence it does not.
IDS = {"mariadb": "DEFAULT NEXTVAL({schema}.audit_log_id_seq)", "mysql": "AUTO_INCREMENT"}

#: Column and value of an INSERT in a trigger or routine, which must not leave the id to its default: in prepared
#: statements and procedures, MariaDB (10.11.19, 11.8.6) crashes on a default from a sequence once another session uses
#: the log, too, or its table was opened anew.
NAMED_ID = {"mariadb": ("id, ", "NEXTVAL({schema}.audit_log_id_seq), "), "mysql": ("", "")}

_AS_LOG = "ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"

#: In the order in which they are made.
TABLES = {
    SEQUENCE: "CREATE SEQUENCE IF NOT EXISTS {schema}.audit_log_id_seq CACHE 1000 ENGINE = InnoDB",
    LOG: """
CREATE TABLE IF NOT EXISTS {schema}.audit_log_data (
  id               BIGINT       NOT NULL {ids},
  changed_at       DATETIME(6)  NOT NULL,
  transaction_id   VARCHAR(64),
  action           VARCHAR(16)  NOT NULL,
  schema_name      VARCHAR(64),
  table_name       VARCHAR(255),
  record_id        TEXT,
  old_values       JSON,
  new_values       JSON,
  changed_columns  JSON,
  changed_by       VARCHAR(512) NOT NULL,
  db_user          VARCHAR(128) NOT NULL,
  client_ip        VARCHAR(255),
  application_name VARCHAR(255),
  context          JSON,
  policy_id        INT,
  PRIMARY KEY (id, changed_at)
) """
    + _AS_LOG
    + """ COMMENT = {comment}
PARTITION BY RANGE COLUMNS (changed_at) (PARTITION p_future VALUES LESS THAN (MAXVALUE))
""",
    "policy": """
CREATE TABLE IF NOT EXISTS {schema}.policy (
  policy_id      INT          NOT NULL PRIMARY KEY,
  name           TEXT         NOT NULL,
  position       INT          NOT NULL,
  patterns       JSON         NOT NULL,
  definition     JSON         NOT NULL,
  classification TEXT,
  retention      TEXT,
  tags           JSON         NOT NULL,
  valid_from     DATETIME(6)  NOT NULL,
  valid_to       DATETIME(6)
) """
    + _AS_LOG,
    "setting": """
CREATE TABLE IF NOT EXISTS {schema}.setting (
  name  VARCHAR(64) NOT NULL PRIMARY KEY,
  value TEXT        NOT NULL
) """
    + _AS_LOG,
    # The two pads of RFC 2104 rather than the key, so that a digest costs two calls of SHA2().
    "hash_key": """
CREATE TABLE IF NOT EXISTS {schema}.hash_key (
  id        TINYINT    NOT NULL PRIMARY KEY,
  inner_pad BINARY(64) NOT NULL,
  outer_pad BINARY(64) NOT NULL
) """
    + _AS_LOG,
    # What the server made of a view, whose text it does not keep.
    "definition": """
CREATE TABLE IF NOT EXISTS {schema}.definition (
  object        VARCHAR(64) NOT NULL PRIMARY KEY,
  source_digest CHAR(64)    NOT NULL,
  server_digest CHAR(64)    NOT NULL
) """
    + _AS_LOG,
    # The chain (_core/seal.py). A seal without a signature waits for the controller's. `ids` are pairs of first and
    # last, `leaves` 32 bytes a row in the order of their ids.
    "seal": """
CREATE TABLE IF NOT EXISTS {schema}.seal (
  number     BIGINT      NOT NULL PRIMARY KEY,
  kind       VARCHAR(16) NOT NULL,
  period     DATE,
  ids        JSON,
  first_id   BIGINT,
  last_id    BIGINT,
  row_count  BIGINT      NOT NULL,
  leaves     LONGBLOB,
  root       BINARY(32),
  attested   JSON        NOT NULL,
  sealed_at  DATETIME(6) NOT NULL,
  previous   CHAR(64),
  digest     CHAR(64),
  key_name   CHAR(16),
  signature  CHAR(128),
  KEY last_id (last_id, first_id)
) """
    + _AS_LOG,
    # One row. Every row of the log up to `watermark` is in a seal: who could have added one had ended by `marked_at`.
    # `marks` are ids that the watermark may move up to as soon as the transactions that had written then have ended.
    "seal_state": """
CREATE TABLE IF NOT EXISTS {schema}.seal_state (
  id        TINYINT     NOT NULL PRIMARY KEY,
  chain     CHAR(36)    NOT NULL,
  watermark BIGINT      NOT NULL,
  marked_at DATETIME(6),
  marks     JSON        NOT NULL
) """
    + _AS_LOG,
    # Triggers, routines and events of ours at the last seal that says how they are, and at the one that waits for a
    # signature; `version` is when each was made or altered on `server`.
    "seal_inventory": """
CREATE TABLE IF NOT EXISTS {schema}.seal_inventory (
  seal        BIGINT       NOT NULL,
  object      VARCHAR(300) NOT NULL,
  schema_name VARCHAR(64)  NOT NULL,
  table_name  VARCHAR(64)  NOT NULL,
  definition  CHAR(64)     NOT NULL,
  version     VARCHAR(32)  NOT NULL,
  server      TEXT         NOT NULL,
  PRIMARY KEY (seal, object)
) """
    + _AS_LOG,
    # Carries capture triggers like any audited table: verify's probe changes it and finds itself in the log.
    "probe": """
CREATE TABLE IF NOT EXISTS {schema}.probe (
  id    INT NOT NULL PRIMARY KEY,
  value TEXT
) """
    + _AS_LOG,
}

DEFAULT_SETTINGS = "INSERT IGNORE INTO {schema}.setting (name, value) VALUES {rows}"

#: 32 random bytes, known to nobody. RANDOM_BYTES() is in MySQL, and in MariaDB from 10.10.
RANDOM_KEY = "RANDOM_BYTES(32)"
OLD_RANDOM_KEY = """
UNHEX(SHA2(CONCAT(UUID(), RAND(), RAND(), SYSDATE(6), CONNECTION_ID(), (
  SELECT GROUP_CONCAT(variable_name, variable_value ORDER BY RAND()) FROM information_schema.global_status)), 256))"""

# A byte string is exclusive-ored with a pad half by half as numbers of 64 bits: 0x36 and 0x5c in every byte.
HASH_KEY = """
INSERT IGNORE INTO {schema}.hash_key (id, inner_pad, outer_pad)
SELECT 1,
       CONCAT({inner}, UNHEX(REPEAT('36', 32))),
       CONCAT({outer}, UNHEX(REPEAT('5C', 32)))
FROM (SELECT HEX({random}) AS digits) AS secret
"""
XOR_WORD = "UNHEX(LPAD(HEX(CAST(CONV(SUBSTRING(digits, {start}, 16), 16, 10) AS UNSIGNED) ^ {pad}), 16, '0'))"
PADS = {"inner": "0x3636363636363636", "outer": "0x5C5C5C5C5C5C5C5C"}

#: What `indexes` may ask for; each is one more that every audited change has to write.
INDEXES = {
    "record": "CREATE INDEX record ON {schema}.audit_log_data (table_name, record_id(190))",
    "changed_by": "CREATE INDEX changed_by ON {schema}.audit_log_data (changed_by(190), changed_at)",
    "changed_at": "CREATE INDEX changed_at ON {schema}.audit_log_data (changed_at)",
    "transaction": "CREATE INDEX transaction ON {schema}.audit_log_data (transaction_id)",
}

CHAIN = """
INSERT IGNORE INTO {schema}.seal_state (id, chain, watermark, marks) VALUES (1, UUID(), 0, '[]')
"""

GUARDS = ("UPDATE", "DELETE")
# A block, because MySQL keeps the semicolon after a single statement, on which a dump of the trigger breaks.
GUARD_BODY = "BEGIN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'audit: the log takes no {event}'; END"

VIEWS = {
    "audit_log": """
SELECT d.id, d.changed_at, d.transaction_id, d.action, d.schema_name, d.table_name, d.record_id,
       d.old_values, d.new_values, d.changed_columns,
       d.changed_by, d.db_user, d.client_ip, d.application_name, d.context, d.policy_id
FROM {schema}.audit_log_data AS d
""",
    "audit_history": """
SELECT d.id, d.changed_at, d.action, d.schema_name, d.table_name, d.record_id,
       d.old_values AS row_before,
       CASE d.action WHEN 'UPDATE' THEN {schema}.overlay(d.old_values, d.new_values) ELSE d.new_values END AS row_after,
       d.changed_columns,
       d.changed_by, d.db_user, d.client_ip, d.application_name, d.context, d.policy_id,
       {digest} AS record_hash
FROM {schema}.audit_log_data AS d
""",
    "audit_logs": """
SELECT d.id, d.changed_at AS created_at, d.changed_by AS user_id, d.action, d.schema_name, d.table_name,
       d.record_id, d.old_values AS old_data, d.new_values AS new_data, d.changed_columns AS changed_fields,
       d.client_ip AS ip_address, d.application_name, d.context AS metadata
FROM {schema}.audit_log_data AS d
""",
}

CREATE_VIEW = "CREATE OR REPLACE DEFINER = {definer} SQL SECURITY INVOKER VIEW {view} AS {query}"

#: Keeps what the server made of a view.
REMEMBER_VIEW = """
REPLACE INTO {schema}.definition (object, source_digest, server_digest)
SELECT {name}, {digest}, SHA2(v.view_definition, 256)
FROM information_schema.views AS v
WHERE v.table_schema = {schema_name} AND v.table_name = {name}
"""
