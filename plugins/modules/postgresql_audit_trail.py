#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgresql_audit_trail
short_description: Install, repair or remove the audit trail of a PostgreSQL database
description:
  - Makes the append-only log with its views, functions, guards and grants in one database.
  - A second run changes nothing; what somebody altered by hand (a function, a guard, a grant, an owner) is put back
    and named.
  - The roles C(audit_owner), C(audit_writer) and C(audit_reader) are made once for the cluster. None of them can
    log in.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.attributes
  - dbfleet.audit.postgresql
  - dbfleet.audit.schema
  - dbfleet.audit.locking
  - dbfleet.audit.expect_pgaudit
  - dbfleet.audit.trail
  - dbfleet.audit.adoption
  - dbfleet.audit.downgrade
options:
  state:
    description:
      - V(present) installs and repairs.
      - V(absent) removes functions, guards and views, and keeps the log with all its rows, readable through the view
        C(audit_log), unless O(drop_log=true). It refuses while tables still carry audit triggers.
    type: str
    choices: [present, absent]
    default: present
  drop_log:
    description:
      - With O(state=absent), drop the log and every row in it, and the roles unless another database uses them.
      - What somebody else has put into the schema or built on the log is named, and then nothing is dropped.
    type: bool
    default: false
seealso:
  - module: dbfleet.audit.postgresql_audit_triggers
  - module: dbfleet.audit.postgresql_audit_partitions
"""

EXAMPLES = r"""
- name: The trail of the database shop, readable for the compliance role
  dbfleet.audit.postgresql_audit_trail:
    login_db: shop
    readers: [compliance]
    applications: [shop_app]
"""

RETURN = r"""
statements:
  description: The SQL that was executed, or in check mode would be, statement by statement.
  returned: always
  type: list
  elements: str
  sample: ["CREATE SCHEMA \"audit\" AUTHORIZATION \"audit_owner\""]
limitations:
  description: Guarantees that this login or server cannot give.
  returned: when O(state=present)
  type: list
  elements: str
  sample: []
schema_version:
  description:
    - The version of what the trail consists of, as C(audit.schema_version()) tells it. A trail from before it had one
      is 0.
    - With O(state=present), that of this release; after a failure, the one that was found.
  returned: when O(state=present) and the trail could be read
  type: int
  sample: 1
foreign_auditing:
  description:
    - Logs of changes that triggers of somebody else's write, with their number of C(rows) as the server estimates it,
      and why a log that is not C(importable) is not (C(obstacle)).
  returned: when O(state=present)
  type: list
  elements: dict
  sample: [{"kind": "home_made", "log": "public.audit_log", "tables": ["public.users"], "triggers": 1, "rows": 1200,
    "importable": true, "obstacle": null}]
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.2
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._core.adoption import ADOPT_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import LOCK_SPEC, SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.schema_version import DOWNGRADE_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.module import EXPECT_SPEC, PostgresqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.trail_module import TRAIL_SPEC, absent, present


def main() -> None:
    module = PostgresqlModule(
        {
            **SCHEMA_SPEC,
            **LOCK_SPEC,
            **TRAIL_SPEC,
            **ADOPT_SPEC,
            **DOWNGRADE_SPEC,
            **EXPECT_SPEC,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "drop_log": {"type": "bool", "default": False},
        }
    )
    module.run(present if module.params["state"] == "present" else absent)


if __name__ == "__main__":
    main()
