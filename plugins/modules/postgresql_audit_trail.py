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
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.2
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import LOCK_SPEC, SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.module import EXPECT_SPEC, PostgresqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.trail_module import TRAIL_SPEC, absent, present


def main() -> None:
    module = PostgresqlModule(
        {
            **SCHEMA_SPEC,
            **LOCK_SPEC,
            **TRAIL_SPEC,
            **EXPECT_SPEC,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "drop_log": {"type": "bool", "default": False},
        }
    )
    module.run(present if module.params["state"] == "present" else absent)


if __name__ == "__main__":
    main()
