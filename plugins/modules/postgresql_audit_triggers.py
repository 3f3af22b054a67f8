#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgresql_audit_triggers
short_description: Bring every table of a PostgreSQL database under its audit policy
description:
  - Reconciles the audit triggers of all tables of one database in one call, in a number of round trips that does not
    depend on the number of tables.
  - Every table is changed in a transaction of its own under O(lock_timeout). A table that stays locked is left as it
    was and named; the rest is done, and the module fails at the end.
  - A changed policy never leaves a moment without auditing.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.attributes
  - dbfleet.audit.postgresql
  - dbfleet.audit.schema
  - dbfleet.audit.locking
  - dbfleet.audit.expect_pgaudit
  - dbfleet.audit.policies
  - dbfleet.audit.exceptions
seealso:
  - module: dbfleet.audit.postgresql_audit_trail
"""

EXAMPLES = r"""
- name: Audit users and everything in billing, never with a password in clear
  dbfleet.audit.postgresql_audit_triggers:
    login_db: shop
    policies:
      - tables: ["public.users", "billing.*"]
        exclude: ["billing.import_*"]
        columns:
          hash: [ssn]
        classification: restricted
        retention: financial
        tags: [GDPR, SOX]

- name: Take all audit triggers out of the database, the log stays
  dbfleet.audit.postgresql_audit_triggers:
    login_db: shop
    policies: []
"""

RETURN = r"""
statements:
  description: The SQL that was executed, or in check mode would be, statement by statement.
  returned: always
  type: list
  elements: str
  sample: ["ALTER TABLE \"public\".\"users\" ENABLE ALWAYS TRIGGER \"dbfleet_audit_insert\""]
audited:
  description: Number of tables that are audited now (in check mode, would be).
  returned: success, and when tables stayed locked
  type: int
  sample: 42
auditable:
  description: Number of tables of the database that could be audited; partitions count with their root.
  returned: success, and when tables stayed locked
  type: int
  sample: 45
changed_tables:
  description: Tables whose triggers were changed, as schema.table.
  returned: success, and when tables stayed locked
  type: list
  elements: str
  sample: ["public.users"]
skipped_tables:
  description: What a wildcard met and cannot audit, with the reason.
  returned: success, and when tables stayed locked
  type: list
  elements: dict
  sample: [{"table": "public.active_users", "reason": "a view: audit the tables below it"}]
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
    - {"table": "public.tmp_load", "reason": "load", "approved_by": "dpo", "until": "2027-03-31", "expired": false}
limitations:
  description: Guarantees that this login cannot give for tables that it has no full rights on.
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
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.module import EXPECT_SPEC, PostgresqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.triggers_module import reconcile


def main() -> None:
    PostgresqlModule({**SCHEMA_SPEC, **LOCK_SPEC, **TRIGGER_SPEC, **EXPECT_SPEC}).run(reconcile)


if __name__ == "__main__":
    main()
