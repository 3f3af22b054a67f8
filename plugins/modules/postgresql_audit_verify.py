#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgresql_audit_verify
short_description: Prove that auditing works on a PostgreSQL database
description:
  - Compares functions, guards, triggers, grants, owners and partitions with what the same options would install;
    every difference is a problem.
  - Makes a probe change through the capture function of every policy and finds it in the log with its user, then
    tries to change the log and has to be refused. All of it is rolled back and leaves nothing behind.
  - With O(ledger) and O(public_key), which are files on the controller, checks every seal and every row of the log
    against what was signed, and names the rows that are not what they were.
  - On a standby, only the comparisons are made.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.postgresql
  - dbfleet.audit.schema
  - dbfleet.audit.trail
  - dbfleet.audit.partitions
  - dbfleet.audit.policies
  - dbfleet.audit.exceptions
  - dbfleet.audit.verify
  - dbfleet.audit.seals
  - dbfleet.audit.steps
options: {}
"""

EXAMPLES = r"""
- name: Is everything in shop still audited?
  dbfleet.audit.postgresql_audit_verify:
    login_db: shop
    policies:
      - tables: ["public.*"]

- name: And is what was recorded what it was?
  dbfleet.audit.postgresql_audit_verify:
    login_db: shop
    policies:
      - tables: ["public.*"]
    public_key: [/etc/dbfleet/seal.pub]
    ledger: "/var/lib/dbfleet/ledger/{{ inventory_hostname }}/shop.jsonl"
"""

RETURN = r"""
valid:
  description: Whether there are no problems.
  returned: when the trail is installed
  type: bool
  sample: true
problems:
  description:
    - What is not as it has to be. C(type) is V(missing), V(altered), V(disabled), V(grant), V(refused),
      V(exception_expired), V(not_recorded), V(not_refused) or V(not_probed) (the database is read-only,
      guarded from this login by a superuser's event triggers, or in reach of others who could run code as this one).
      C(table) is what a rollout would call the place.
    - Of seals V(modified_row), V(deleted_row), V(inserted_row), V(duplicate_id), V(backdated_row), V(altered_block),
      V(missing_block), V(not_in_ledger), V(broken_chain), V(bad_signature), V(unknown_key), V(altered_between_seals)
      and V(unsealed), with C(block), the number of the seal, and C(id) of the row.
  returned: when the trail is installed
  type: list
  elements: dict
  sample:
    - {"type": "missing", "detail": "public.users: dbfleet_audit_update is missing", "table": "public.users"}
rows_checked:
  description: Number of rows of the log that were compared.
  returned: with O(ledger)
  type: int
  sample: 182044
blocks_checked:
  description: Number of seals that were compared with the ledger.
  returned: with O(ledger)
  type: int
  sample: 12
first_tampered_id:
  description: The lowest id of a row that is not what was sealed, or none.
  returned: with O(ledger)
  type: int
  sample: null
unsealed:
  description: Number of rows that are in no seal yet.
  returned: with O(ledger)
  type: int
  sample: 311
seal_state:
  description: What a sealing run that was cut off has left to the next one; empty when there is nothing. No problem.
  returned: with O(ledger)
  type: str
  sample: "seal 12 is in the ledger, but not yet signed in the database; the next sealing run completes it"
probes:
  description: Number of policies whose capture was proven by a probe change.
  returned: when the trail is installed
  type: int
  sample: 3
recorded:
  description: Whether every probe change was found in the log with its user.
  returned: when the trail is installed
  type: bool
  sample: true
tampering_refused:
  description: Whether every attempt to change the log was refused.
  returned: when the trail is installed
  type: bool
  sample: true
audited:
  description: Number of tables that the policies audit.
  returned: when the trail is installed
  type: int
  sample: 42
auditable:
  description: Number of tables that could be audited.
  returned: when the trail is installed
  type: int
  sample: 45
catalog_changes:
  description:
    - What no event trigger sees and has changed since the last snapshot (roles, databases, tablespaces, settings,
      event triggers), with the state before and after; C(audit.record_catalog_changes()) writes it into the log.
    - None of it is a problem.
  returned: when the trail is installed
  type: list
  elements: dict
  sample: [{"object_type": "role", "object": "temp_admin", "change": "appeared", "before": null,
    "after": {"superuser": true, "login": true}, "since": "2026-11-20T03:12:44Z"}]
limitations:
  description: Guarantees that this login or server cannot give; none of them is a problem.
  returned: when the trail is installed
  type: list
  elements: str
  sample: []
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.2
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.module import PostgresqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.verify import SPEC, verify


def main() -> None:
    PostgresqlModule(SPEC).run(verify)


if __name__ == "__main__":
    main()
