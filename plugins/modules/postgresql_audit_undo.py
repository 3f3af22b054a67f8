#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgresql_audit_undo
short_description: Restore deleted or changed records of an audited table on PostgreSQL
description:
  - Writes the SQL that takes records of one table back to what they were at a point in time, as the audit log knows
    them, or that takes back what one user or one transaction has done. Deleted records are inserted, changed ones
    updated in the columns that differ, inserted ones deleted.
  - Nothing is written unless O(execute) is set. The statements are returned for review and can be run later as they
    are. Each UPDATE and DELETE has the values that were seen in its condition, so that it finds no record, and thus
    overwrites nothing, if somebody has changed the record since.
  - A record that is already as it has to be needs no statement, so that a second run finds nothing to do.
  - Reads in a fixed number of queries, whatever the number of records.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.postgresql
  - dbfleet.audit.schema
  - dbfleet.audit.locking
  - dbfleet.audit.undo
options: {}
seealso:
  - module: dbfleet.audit.postgresql_audit_triggers
"""

EXAMPLES = r"""
- name: What would bring back the users that were deleted or changed today?
  dbfleet.audit.postgresql_audit_undo:
    login_db: shop
    table: public.users
    to: 24h
  register: undo

- name: Keep the SQL for review
  ansible.builtin.copy:
    content: "{{ undo.statements | join('\n') }}\n"
    dest: /root/undo-users.sql
    mode: "0600"

- name: Take back what one transaction did to two records
  dbfleet.audit.postgresql_audit_undo:
    login_db: shop
    table: public.users
    transaction_id: "4711"
    record_ids: ["17", "18"]
    execute: true
"""

RETURN = r"""
statements:
  description:
    - The SQL that restores the records, each statement complete with its semicolon, in an order that works. Empty where
      nothing has to be done.
  returned: success
  type: list
  elements: str
  sample:
    - |-
      UPDATE "public"."users"
      SET "email" = 'ann@example.com'
      WHERE "id" = '17'::integer
        AND "email" = 'eve@example.com'::text;
records:
  description:
    - The records that the statements restore, in the same order. C(now) is what has become of the record since,
      V(changed), V(deleted) or V(inserted), and C(restore) what takes it back, V(UPDATE), V(INSERT) or V(DELETE).
  returned: success
  type: list
  elements: dict
  sample: [{"record_id": "17", "now": "changed", "restore": "UPDATE"}]
skipped:
  description: Records that cannot be restored, or that O(record_ids) names in vain, and why.
  returned: success
  type: list
  elements: dict
  sample: [{"record_id": "18", "reason": "changed again by bob at 2026-11-21T19:03:07.123456Z"}]
executed:
  description: Whether the statements were executed.
  returned: success
  type: bool
  sample: false
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.1
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import LOCK_SPEC, SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.undo_module import UNDO_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.module import PostgresqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.undo import run


def main() -> None:
    PostgresqlModule({**SCHEMA_SPEC, **LOCK_SPEC, **UNDO_SPEC}).run(run)


if __name__ == "__main__":
    main()
