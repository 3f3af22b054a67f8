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
  - dbfleet.audit.verify
options: {}
"""

EXAMPLES = r"""
- name: Is everything in shop still audited?
  dbfleet.audit.mysql_audit_verify:
    policies:
      - tables: ["shop.*"]
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
  returned: when the trail is installed
  type: list
  elements: dict
  sample:
    - {"type": "missing", "detail": "shop.users: the trigger for AFTER UPDATE is missing", "table": "shop.users"}
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

from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.rollout import TRIGGER_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.verification import VERIFY_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.module import MysqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.partitions_module import PARTITION_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.trail_module import TRAIL_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.verify import verify


def main() -> None:
    MysqlModule({**SCHEMA_SPEC, **TRAIL_SPEC, **PARTITION_SPEC, **TRIGGER_SPEC, **VERIFY_SPEC}).run(verify)


if __name__ == "__main__":
    main()
