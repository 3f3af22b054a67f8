#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgresql_audit_cdc
short_description: Set up change data capture of PostgreSQL tables for which a trigger is too much
description:
  - Publishes tables for logical decoding, has the WAL keep whole old rows of them, and makes the replication slot that
    a consumer reads from. The consumer is yours; C(docs/examples/cdc) has one to begin with.
  - Limits how much WAL a slot may keep, so that a consumer that does not come back cannot fill the disk, and says how
    far the consumer is behind.
  - Prefer triggers (M(dbfleet.audit.postgresql_audit_triggers)) where they are possible; C(docs/cdc.md) says what
    change data capture cannot give.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.attributes
  - dbfleet.audit.postgresql
  - dbfleet.audit.schema
  - dbfleet.audit.locking
  - dbfleet.audit.cdc
options:
  state:
    description:
      - V(present) makes the publication hold O(tables) and no others, and the slot.
      - V(absent) drops the slot, unless it is in use, takes the tables out of the publication, gives them the replica
        identity that they had, and drops the publication, and with the last one C(emit_context()). Settings of the
        server stay.
    type: str
    choices: [present, absent]
    default: present
  publication:
    description: Name of the publication. One that this module has not made is refused.
    type: str
    default: audit_cdc
  tables:
    description:
      - What to publish, as patterns on C(schema.table) such as C(public.orders) or C(billing.*); a half in double
        quotes is an exact name. Needed for O(state=present).
      - A partitioned table is published under its own name, partitions to come included. An inheritance child goes with
        its parent.
      - Views, foreign and unlogged tables, partitioned ones without a primary key, tables of others, and with
        O(replica_identity=full) those with virtual generated columns, are skipped where a pattern meets them, and
        refused where they are named.
    type: list
    elements: str
    default: []
  slot:
    description:
      - Name of the replication slot; empty for a publication without one. A slot of another database or plugin is
        refused.
      - A slot that is new has every change from then on, and waits for the transactions that run, a minute at most.
    type: str
    default: audit_cdc
  plugin:
    description: Output plugin of the slot. One that the server has not is refused, naming its package.
    type: str
    choices: [pgoutput, wal2json]
    default: pgoutput
  replica_identity:
    description:
      - V(full) has the WAL keep the whole old row of each UPDATE and DELETE (C(REPLICA IDENTITY FULL)). What a table
        had before is kept in the publication's comment.
      - V(keep) leaves that as it is, and the old values are the key's alone. A table that has no key is refused, since
        the server would refuse its UPDATE and DELETE once it is published.
    type: str
    choices: [full, keep]
    default: full
  max_slot_wal_keep_size:
    description:
      - How much WAL the slots of this server may keep, such as V(10GB). A slot that needs more is lost, and the server
        goes on. Set by C(ALTER SYSTEM) where it differs, for all slots of the server, those of standbys too.
      - Needed for a new slot, unless the server has a limit already.
    type: str
  max_lag:
    description: How much WAL the consumer may be behind before it is a problem, in bytes or as V(500M), V(1G).
    type: bytes
    default: 1G
  fail_on_lag:
    description:
      - Whether RV(problems) fail the module, those of a slot that this very run has made excepted. It is for
        monitoring, in check mode.
    type: bool
    default: false
  emit_context:
    description:
      - Whether the trail in O(schema) gets the function C(emit_context()), which writes what C(current_context())
        knows, user, client and program, into the WAL. An application calls it once per transaction, before its changes,
        having said its context as ever.
      - Those who may call C(set_context()) may call it, the C(applications) of
        M(dbfleet.audit.postgresql_audit_trail). Left out, the function stays as it is.
    type: bool
notes:
  - Needs a superuser, or the owner of the tables with CREATE on the database and the attribute REPLICATION
    (C(rds_replication) on RDS). O(configure) and O(max_slot_wal_keep_size) need a superuser.
  - With O(configure=true), C(wal_level) becomes C(logical), C(max_replication_slots) grows where none is free, and
    C(max_wal_senders) where it is 0. They count from the next start of the server; run the module again after it, for
    the slot.
seealso:
  - module: dbfleet.audit.postgresql_audit_triggers
  - module: dbfleet.audit.mysql_audit_cdc
  - name: Logical decoding in the documentation of PostgreSQL
    description: What slots and output plugins are.
    link: https://www.postgresql.org/docs/current/logicaldecoding.html
"""

EXAMPLES = r"""
- name: Stream the tables that no trigger is to slow down
  dbfleet.audit.postgresql_audit_cdc:
    login_db: telemetry
    tables: ["public.reading", "billing.*"]
    max_slot_wal_keep_size: 10GB
    emit_context: true

- name: Fail when the consumer is dead or far behind
  dbfleet.audit.postgresql_audit_cdc:
    login_db: telemetry
    tables: ["public.reading", "billing.*"]
    emit_context: true
    max_lag: 500M
    fail_on_lag: true
  check_mode: true
"""

RETURN = r"""
statements:
  description: The SQL that was executed, or in check mode would be, statement by statement.
  returned: always
  type: list
  elements: str
  sample: ["ALTER PUBLICATION \"audit_cdc\" ADD TABLE ONLY \"public\".\"reading\""]
publication:
  description: Name of the publication, and the tables that it has now, as C(schema.table).
  returned: when O(state=present), unless an option was refused
  type: dict
  sample: {"name": "audit_cdc", "tables": ["public.reading"]}
slot:
  description:
    - The slot as C(pg_replication_slots) has it now; none where there is none. C(lag_bytes) is how much WAL the
      consumer has not confirmed, C(retained_bytes) how much the slot keeps, C(safe_wal_size) how much may yet be
      written before it is lost, all in bytes.
  returned: when O(state=present), unless an option was refused
  type: dict
  sample: {"name": "audit_cdc", "plugin": "pgoutput", "database": "telemetry", "active": true, "active_pid": 4711,
    "wal_status": "reserved", "safe_wal_size": 10720641024, "restart_lsn": "0/1A2B3C4", "confirmed_flush_lsn":
    "0/1A2B3FC", "lag_bytes": 56, "retained_bytes": 112}
skipped_tables:
  description: Tables that a pattern met and that cannot be published, with the reason.
  returned: when O(state=present), unless an option was refused
  type: list
  elements: dict
  sample: [{"table": "public.scratch", "reason": "it is unlogged: its changes are in no WAL"}]
problems:
  description:
    - What is wrong with the slot now. C(type) is V(missing), V(lost), V(unreserved), V(inactive), V(lag), V(unlimited),
      or V(restart) for a slot that waits for a restart of the server.
  returned: always
  type: list
  elements: dict
  sample: [{"type": "inactive", "detail": "slot audit_cdc: no consumer is connected"}]
limitations:
  description: What a consumer does not get with these options.
  returned: always
  type: list
  elements: str
  sample: []
restart_required:
  description: Whether the server has to restart before the slot can be made.
  returned: always
  type: bool
  sample: false
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.2
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import LOCK_SPEC, SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.cdc_module import POSTGRESQL_CDC_SPEC, reconcile
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.module import PostgresqlModule


def main() -> None:
    PostgresqlModule({**SCHEMA_SPEC, **LOCK_SPEC, **POSTGRESQL_CDC_SPEC}).run(reconcile)


if __name__ == "__main__":
    main()
