# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The trail's tables, indexes and views, as SQL. ``{schema}`` is the trail's schema."""

from __future__ import annotations

SEQUENCE = "CREATE SEQUENCE {schema}.audit_log_id_seq"

# nextval() as a default and no identity column: PostgreSQL 17 refuses to ATTACH a table to a parent that has one.
# No CHECK: the server reads one out of the catalogue as text for every INSERT, a third of what a record then costs. Who
# writes here is functions of ours alone, and they look at the length of what they write.
LOG = """
CREATE TABLE {schema}.audit_log_data (
  id               bigint      NOT NULL DEFAULT nextval({sequence}),
  changed_at       timestamptz NOT NULL,
  transaction_id   xid8        NOT NULL,
  action           text        NOT NULL,
  schema_name      text,
  table_name       text,
  record_id        text,
  old_values       jsonb,
  new_values       jsonb,
  hidden_changes   text[],
  changed_by       text        NOT NULL,
  db_user          text        NOT NULL,
  client_ip        inet,
  application_name text,
  context          jsonb,
  policy_id        int
) PARTITION BY RANGE (changed_at)
"""

#: Constraints that earlier versions put on the log.
RETIRED_CONSTRAINTS = ("audit_log_image_length",)

LOG_COMMENT = """
COMMENT ON COLUMN {schema}.audit_log_data.hidden_changes IS
  'redacted columns that this UPDATE changed: their stored values cannot show it'
"""

CATCH_ALL = "CREATE TABLE {schema}.audit_log_future (LIKE {schema}.audit_log_data INCLUDING ALL)"

ATTACH_CATCH_ALL = """
ALTER TABLE {schema}.audit_log_data
  ATTACH PARTITION {schema}.audit_log_future FOR VALUES FROM (MINVALUE) TO (MAXVALUE)
"""

STATEMENT_GUARD = """
CREATE OR REPLACE TRIGGER dbfleet_audit_guard
  BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
  FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse_change()
"""

ROW_GUARD = """
CREATE OR REPLACE TRIGGER dbfleet_audit_row_guard
  BEFORE UPDATE OR DELETE ON {table}
  FOR EACH ROW EXECUTE FUNCTION {schema}.refuse_change()
"""

TABLES = {
    "policy": """
CREATE TABLE {schema}.policy (
  policy_id      int         PRIMARY KEY,
  name           text        NOT NULL,
  position       int         NOT NULL,
  function       text        NOT NULL,
  patterns       jsonb       NOT NULL,
  definition     jsonb       NOT NULL,
  classification text,
  retention      text,
  tags           text[]      NOT NULL,
  valid_from     timestamptz NOT NULL DEFAULT clock_timestamp(),
  valid_to       timestamptz
)
""",
    "setting": """
CREATE TABLE {schema}.setting (
  name  text PRIMARY KEY,
  value text NOT NULL
)
""",
    # The two pads of RFC 2104 rather than the key, so that a digest costs two calls of sha256().
    "hash_key": """
CREATE TABLE {schema}.hash_key (
  inner_pad bytea NOT NULL,
  outer_pad bytea NOT NULL
)
""",
    # What the server made of a definition whose text it does not keep (views, WHEN conditions).
    "definition": """
CREATE TABLE {schema}.definition (
  object        text PRIMARY KEY,
  source_digest text NOT NULL,
  server_digest text NOT NULL
)
""",
    # The chain (_core/seal.py). A seal without a signature waits for the controller's.
    "seal": """
CREATE TABLE {schema}.seal (
  number     bigint PRIMARY KEY,
  kind       text        NOT NULL,
  period     date,
  ids        int8multirange,
  row_count  bigint      NOT NULL DEFAULT 0,
  leaves     bytea,
  root       bytea,
  attested   jsonb       NOT NULL DEFAULT '{}',
  sealed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  previous   text,
  digest     text,
  key        text,
  signature  text
)
""",
    # One row. Every row of the log up to `watermark` is in a seal: who could have added one had ended by `marked_at`.
    # `marks` are ids that the watermark may move up to as soon as the transactions that held the log then have ended.
    "seal_state": """
CREATE TABLE {schema}.seal_state (
  chain     uuid        NOT NULL DEFAULT gen_random_uuid(),
  watermark bigint      NOT NULL DEFAULT 0,
  marked_at timestamptz,
  marks     jsonb       NOT NULL DEFAULT '[]'
)
""",
    # Triggers and functions of ours at the last seal that says how they are, and at the one that waits for a signature;
    # `version` is the row's xmin in the catalogue, `relation` the OID of a trigger's table.
    "seal_inventory": """
CREATE TABLE {schema}.seal_inventory (
  seal        bigint NOT NULL,
  object      text   NOT NULL,
  schema_name text,
  table_name  text   NOT NULL,
  relation    bigint NOT NULL,
  definition  text   NOT NULL,
  version     bigint NOT NULL,
  cluster     text   NOT NULL,
  PRIMARY KEY (seal, object)
)
""",
    # What no event trigger sees, as it was at `seen_at`.
    "catalog_snapshot": """
CREATE TABLE {schema}.catalog_snapshot (
  kind    text        NOT NULL,
  name    text        NOT NULL,
  state   jsonb       NOT NULL,
  seen_at timestamptz NOT NULL,
  PRIMARY KEY (kind, name)
)
""",
}

#: What a new table gets besides its columns, with the reason.
AFTER_TABLE = {
    "audit_log_data": {"what hidden_changes means": LOG_COMMENT},
    "seal": {
        "hashes do not compress": "ALTER TABLE {schema}.seal ALTER COLUMN leaves SET STORAGE EXTERNAL",
        "a sealing run reads the latest seals": "CREATE INDEX seal_last_id_idx ON {schema}.seal (upper(ids))",
        "every run asks which seals are not signed": (
            "CREATE INDEX seal_pending_idx ON {schema}.seal (number) WHERE signature IS NULL"
        ),
    },
}

CHAIN = "INSERT INTO {schema}.seal_state DEFAULT VALUES"

#: A random 32-byte key, known to nobody: two UUIDs carry 244 random bits.
HASH_KEY = """
WITH secret AS (
  SELECT sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')) AS key
), pads AS (
  SELECT string_agg(decode(lpad(to_hex(get_byte(key, i) # 54), 2, '0'), 'hex'), '' ORDER BY i)
           || decode(repeat('36', 32), 'hex') AS inner_pad,
         string_agg(decode(lpad(to_hex(get_byte(key, i) # 92), 2, '0'), 'hex'), '' ORDER BY i)
           || decode(repeat('5c', 32), 'hex') AS outer_pad
  FROM secret, generate_series(0, 31) AS i
)
INSERT INTO {schema}.hash_key SELECT inner_pad, outer_pad FROM pads
"""

#: Leads from an id to the few pages that can hold it; next to nothing for writers, for ids ascend as rows are added.
ID_INDEX = {"id": "CREATE INDEX audit_log_id_idx ON {schema}.audit_log_data USING brin (id)"}

#: What `indexes` may ask for; each is one btree that every audited change has to write.
INDEXES = {
    "record": "CREATE INDEX audit_log_record_idx ON {schema}.audit_log_data (table_name, record_id)",
    "changed_by": "CREATE INDEX audit_log_changed_by_idx ON {schema}.audit_log_data (changed_by, changed_at)",
    "changed_at": "CREATE INDEX audit_log_changed_at_idx ON {schema}.audit_log_data USING brin (changed_at)",
    "transaction": "CREATE INDEX audit_log_transaction_idx ON {schema}.audit_log_data (transaction_id)",
}

# Compared as text: jsonb holds 1.0 and 1.00 apart but calls them equal.
_CHANGED_COLUMNS = """
         CASE d.action WHEN 'UPDATE' THEN
           ARRAY(SELECT n.key FROM jsonb_each(d.new_values) AS n
                 WHERE n.value::text IS DISTINCT FROM (d.old_values -> n.key)::text OR n.key = ANY (d.hidden_changes)
                 ORDER BY 1)
         END"""

VIEWS = {
    "audit_log": """
CREATE OR REPLACE VIEW {schema}.audit_log AS
  SELECT d.id, d.changed_at, d.transaction_id, d.action, d.schema_name, d.table_name, d.record_id,
         d.old_values, d.new_values,"""
    + _CHANGED_COLUMNS
    + """ AS changed_columns,
         d.changed_by, d.db_user, d.client_ip, d.application_name, d.context, d.policy_id
  FROM {schema}.audit_log_data AS d
""",
    "audit_history": """
CREATE OR REPLACE VIEW {schema}.audit_history AS
  SELECT d.id, d.changed_at, d.action, d.schema_name, d.table_name, d.record_id,
         d.old_values AS row_before,
         CASE d.action WHEN 'UPDATE' THEN d.old_values || d.new_values ELSE d.new_values END AS row_after,"""
    + _CHANGED_COLUMNS
    + """ AS changed_columns,
         d.changed_by, d.db_user, d.client_ip, d.application_name, d.context, d.policy_id,
         encode({leaf}, 'hex') AS record_hash
  FROM {schema}.audit_log_data AS d
""",
    "audit_logs": """
CREATE OR REPLACE VIEW {schema}.audit_logs AS
  SELECT d.id, d.changed_at AS created_at, d.changed_by AS user_id, d.action, d.schema_name, d.table_name,
         d.record_id, d.old_values AS old_data, d.new_values AS new_data,"""
    + _CHANGED_COLUMNS
    + """ AS changed_fields,
         d.client_ip AS ip_address, d.application_name, d.context AS metadata
  FROM {schema}.audit_log_data AS d
""",
}

#: Keeps what the server made of a view, because it does not keep our text.
REMEMBER_VIEW = """
INSERT INTO {schema}.definition (object, source_digest, server_digest)
VALUES ({object}, {digest}, md5(pg_get_viewdef({view}::regclass)))
ON CONFLICT (object) DO UPDATE
  SET source_digest = excluded.source_digest, server_digest = excluded.server_digest
"""
