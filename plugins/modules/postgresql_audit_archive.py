#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgresql_audit_archive
short_description: Archive old partitions of the audit log of a PostgreSQL database, and drop them
description:
  - Writes each partition whose time in the log is over as a compressed file of its rows' canonical texts, with a
    manifest, into a directory or object storage. Such a file is verified against the ledger without a database, see
    M(dbfleet.audit.ledger_verify).
  - With O(drop), a partition is then detached without making writers wait, and dropped. Not before the file was read
    back and every row of it is what was sealed, and never while a legal hold applies.
  - A run that was cut off is completed by the next one; no row is ever in neither place.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.postgresql
  - dbfleet.audit.schema
  - dbfleet.audit.locking
  - dbfleet.audit.archiving
  - dbfleet.audit.storage
  - dbfleet.audit.signing
  - dbfleet.audit.steps
options:
  logs:
    description:
      - Logs of several databases of the server, O(parallel) of them at a time, each by a process of its own on the
        controller. What each does not say is as for one. One that cannot be archived fails the task, once the others
        are done.
    type: list
    elements: dict
    suboptions:
      login_db:
        description: Name of the database.
        type: str
        required: true
      schema:
        description: As O(schema).
        type: str
      ledger:
        description: As O(ledger); each log needs a ledger of its own.
        type: str
seealso:
  - module: dbfleet.audit.postgresql_audit_seal
    description: Seals rows, as this module does with all that are in no seal yet.
  - module: dbfleet.audit.ledger_verify
    description: Verifies archives against the ledger.
"""

EXAMPLES = r"""
- name: Archive what is older than 13 months, and drop it
  dbfleet.audit.postgresql_audit_archive:
    login_db: shop
    url: /mnt/archive
    older_than: 13mo
    retention:
      financial: {database: 13mo, archive: 7y}
      hipaa: 6y
    drop: true
    signing_key: /etc/dbfleet/seal.pem
    ledger: "/var/lib/dbfleet/ledger/{{ inventory_hostname }}/shop.jsonl"

- name: Archive the logs of several databases, two at a time
  dbfleet.audit.postgresql_audit_archive:
    logs:
      - {login_db: shop, ledger: /var/lib/dbfleet/ledger/pg3/shop.jsonl}
      - {login_db: crm, ledger: /var/lib/dbfleet/ledger/pg3/crm.jsonl}
    parallel: 2
    url: /mnt/archive
    drop: true
    signing_key: /etc/dbfleet/seal.pem
"""

RETURN = r"""
results:
  description: The same for each log, and its C(login_db), in the order of O(logs).
  returned: with O(logs)
  type: list
  elements: dict
  sample: [{"login_db": "shop", "dropped": ["audit_log_2025_10"], "seconds": 12.412}]
archived:
  description:
    - Archives that this run has written. C(file) is the whole path or URL, C(manifest) the SHA-256 of the manifest,
      which the ledger names once rows were dropped; the rest is what the manifest says.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "audit_log_2025_10", "file": "/mnt/archive/pg3/shop/audit_log_2025_10.jsonl.gz", "rows": 182044,
    "size": 19441220, "first_id": 1, "last_id": 182044, "expires": "2032-11-01"}]
due:
  description: In check mode, partitions that would be archived.
  returned: success
  type: list
  elements: str
  sample: [audit_log_2025_10]
dropped:
  description: Partitions that have left the log, or in check mode would.
  returned: success
  type: list
  elements: str
  sample: [audit_log_2025_10]
expired:
  description: Archives that were deleted because their time is over, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: [audit_log_2018_10]
missing:
  description: Archives that the ledger names, and that are not there or not what it says.
  returned: success
  type: list
  elements: str
  sample: [audit_log_2025_08]
kept:
  description: Partitions whose time is over and that were not dropped, and why.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "audit_log_2025_09", "reason": "legal hold: case 4711"}]
statements:
  description: What the server has executed to drop them, or in check mode would.
  returned: success
  type: list
  elements: str
  sample: ['ALTER TABLE "audit".audit_log_data DETACH PARTITION "audit"."audit_log_2025_10" CONCURRENTLY']
seconds:
  description: How long the task ran, all calls of the host together, in seconds.
  returned: always
  type: float
  sample: 12.412
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive_step import ARCHIVE_SPEC, LOGS_SPEC, run
from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.archive_store import stores
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.module import PostgresqlModule


def main() -> None:
    PostgresqlModule({**SCHEMA_SPEC, **ARCHIVE_SPEC, **LOGS_SPEC}).run(
        lambda module, session: run(module, session, lambda session: stores(session, module.params))
    )


if __name__ == "__main__":
    main()
