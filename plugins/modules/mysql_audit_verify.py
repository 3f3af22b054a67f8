#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mysql_audit_verify
short_description: Prove that auditing works on a MariaDB or MySQL server
description:
  - Compares routines, guards, triggers, grants, accounts and partitions with what the same options would install; every
    difference is a problem.
  - Changes a table of the trail's that carries the same triggers as audited tables, finds the changes in the log with
    their user, then tries to change the log and has to be refused. All of it is rolled back and leaves nothing behind.
  - With O(ledger) and O(public_key), which are files on the controller, checks every seal and every row of the log
    against what was signed, and names the rows that are not what they were.
  - On a read-only server, only the comparison is made.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.mysql
  - dbfleet.audit.schema
  - dbfleet.audit.mysql_trail
  - dbfleet.audit.partitions
  - dbfleet.audit.mysql_partitions
  - dbfleet.audit.policies
  - dbfleet.audit.exceptions
  - dbfleet.audit.verify
  - dbfleet.audit.seals
  - dbfleet.audit.steps
options: {}
"""

EXAMPLES = r"""
- name: Is everything in shop still audited?
  dbfleet.audit.mysql_audit_verify:
    policies:
      - tables: ["shop.*"]

- name: And is what was recorded what it was?
  dbfleet.audit.mysql_audit_verify:
    policies:
      - tables: ["shop.*"]
    public_key: [/etc/dbfleet/seal.pub]
    ledger: "/var/lib/dbfleet/ledger/{{ inventory_hostname }}/server.jsonl"
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
      V(exception_expired), V(not_recorded) or V(not_refused).
      C(table) is what a rollout would call the place.
    - Of seals V(modified_row), V(deleted_row), V(inserted_row), V(duplicate_id), V(backdated_row), V(altered_block),
      V(missing_block), V(not_in_ledger), V(broken_chain), V(bad_signature), V(unknown_key), V(altered_between_seals)
      and V(unsealed), with C(block), the number of the seal, and C(id) of the row.
  returned: when the trail is installed
  type: list
  elements: dict
  sample:
    - {"type": "missing", "detail": "shop.users: the trigger for AFTER UPDATE is missing", "table": "shop.users"}
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
  description: 1 when capture was proven by changes of the probe table, else 0.
  returned: when the trail is installed
  type: int
  sample: 1
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

from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.module import MysqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.verify import SPEC, verify


def main() -> None:
    MysqlModule(SPEC).run(verify)


if __name__ == "__main__":
    main()
