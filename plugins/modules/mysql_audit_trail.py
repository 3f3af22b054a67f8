#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mysql_audit_trail
short_description: Install, repair or remove the audit trail of a MariaDB or MySQL server
description:
  - Makes the append-only log with its views, routines, guards and grants in a database of its own. One server has one
    trail.
  - A second run changes nothing; what somebody altered by hand (a routine, a guard, a grant, a definer) is put back and
    named.
  - The accounts C(audit_writer@localhost) and C(audit_owner@localhost), which define the triggers and what makes
    partitions, are locked; nobody can log in as them.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.attributes
  - dbfleet.audit.mysql
  - dbfleet.audit.schema
  - dbfleet.audit.locking
  - dbfleet.audit.mysql_trail
  - dbfleet.audit.adoption
  - dbfleet.audit.downgrade
options:
  state:
    description:
      - V(present) installs and repairs.
      - V(absent) removes routines, the event and views, and keeps the log with all its rows and its guards, readable
        through the view C(audit_log), unless O(drop_log=true). It refuses while tables still carry audit triggers.
    type: str
    choices: [present, absent]
    default: present
  drop_log:
    description:
      - With O(state=absent), drop the log and every row in it, and the accounts.
      - What somebody else has put into the trail's database is named, and then nothing is dropped.
    type: bool
    default: false
seealso:
  - module: dbfleet.audit.mysql_audit_triggers
  - module: dbfleet.audit.mysql_audit_partitions
"""

EXAMPLES = r"""
- name: The trail of this server, readable for the compliance account
  dbfleet.audit.mysql_audit_trail:
    login_unix_socket: /run/mysqld/mysqld.sock
    readers: ["compliance@%"]
    applications: ["shop_app@%"]
"""

RETURN = r"""
statements:
  description: The SQL that was executed, or in check mode would be, statement by statement.
  returned: always
  type: list
  elements: str
  sample: ["CREATE USER IF NOT EXISTS 'audit_writer'@'localhost' ACCOUNT LOCK"]
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
  sample: [{"kind": "home_made", "log": "shop.audit_log", "tables": ["shop.users"], "triggers": 1, "rows": 1200,
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
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.module import MysqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.trail_module import TRAIL_SPEC, absent, present


def main() -> None:
    module = MysqlModule(
        {
            **SCHEMA_SPEC,
            **LOCK_SPEC,
            **TRAIL_SPEC,
            **ADOPT_SPEC,
            **DOWNGRADE_SPEC,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "drop_log": {"type": "bool", "default": False},
        }
    )
    module.run(present if module.params["state"] == "present" else absent)


if __name__ == "__main__":
    main()
