#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mysql_audit_triggers
short_description: Bring every table of a MariaDB or MySQL server under its audit policy
description:
  - Reconciles the audit triggers of all tables of all databases in one call, in a number of round trips that does not
    depend on the number of tables.
  - The triggers of a table are replaced while it is locked against changes for the moment that this takes, so that no
    change goes unrecorded and none is recorded twice. A table that stays locked by others is left as it was and named;
    the rest is done, and the module fails at the end.
  - A trigger names the columns that its table has. When those change, the next run replaces it.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.attributes
  - dbfleet.audit.mysql
  - dbfleet.audit.schema
  - dbfleet.audit.locking
  - dbfleet.audit.policies
  - dbfleet.audit.exceptions
seealso:
  - module: dbfleet.audit.mysql_audit_trail
"""

EXAMPLES = r"""
- name: Audit users and everything in billing, never with a password in clear
  dbfleet.audit.mysql_audit_triggers:
    policies:
      - tables: ["shop.users", "billing.*"]
        exclude: ["billing.import_*"]
        columns:
          hash: [ssn]
        classification: restricted
        retention: financial
        tags: [GDPR, SOX]

- name: Take all audit triggers off the server's tables, the log stays
  dbfleet.audit.mysql_audit_triggers:
    policies: []
"""

RETURN = r"""
statements:
  description: The SQL that was executed, or in check mode would be, statement by statement.
  returned: always
  type: list
  elements: str
  sample: ["LOCK TABLES `shop`.`users` WRITE"]
audited:
  description: Number of tables that are audited now (in check mode, would be).
  returned: success, and when tables stayed locked
  type: int
  sample: 42
auditable:
  description: Number of tables of the server that could be audited.
  returned: success, and when tables stayed locked
  type: int
  sample: 45
changed_tables:
  description: Tables whose triggers were changed, as schema.table.
  returned: success, and when tables stayed locked
  type: list
  elements: str
  sample: ["shop.users"]
skipped_tables:
  description: What a wildcard met and cannot audit, with the reason.
  returned: success, and when tables stayed locked
  type: list
  elements: dict
  sample: [{"table": "shop.active_users", "reason": "a view: audit the tables below it"}]
failed_tables:
  description: Tables that were left as they were, with the reason.
  returned: success, and when tables stayed locked
  type: list
  elements: dict
  sample: []
exceptions:
  description: Tables that O(exceptions) keeps out of auditing, and whether the exception has expired.
  returned: success, and when tables stayed locked
  type: list
  elements: dict
  sample:
    - {"table": "shop.tmp_load", "reason": "load", "approved_by": "dpo", "until": "2027-03-31", "expired": false}
limitations:
  description: Guarantees that cannot be given for single tables.
  returned: success, and when tables stayed locked
  type: list
  elements: str
  sample: []
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.3
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import LOCK_SPEC, SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.rollout import TRIGGER_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.module import MysqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.triggers_module import reconcile


def main() -> None:
    MysqlModule({**SCHEMA_SPEC, **LOCK_SPEC, **TRIGGER_SPEC}).run(reconcile)


if __name__ == "__main__":
    main()
