#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mysql_audit_events
short_description: Ask the audit log of a MariaDB or MySQL server what was changed
description:
  - Returns recorded events by table, row, person, action, value and time, page by page, or exports all of them to a
    file.
  - While it exports, the server's process list shows that the query runs, and not how far it has come.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.mysql
  - dbfleet.audit.schema
  - dbfleet.audit.events
attributes:
  check_mode:
    description:
      - Reads as always. With O(dest), what the file would hold is compared with the one that is there, and nothing is
        written.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
seealso:
  - module: dbfleet.audit.mysql_audit_trail
"""

EXAMPLES = r"""
- name: Who has changed this order?
  dbfleet.audit.mysql_audit_events:
    table: shop.orders
    record_id: "4711"
  register: history

- name: The latest deletions of this week, and how many there were
  dbfleet.audit.mysql_audit_events:
    actions: [delete, truncate]
    since: 7d
    order: desc
    count: true
  register: deletions

- name: The page behind it
  dbfleet.audit.mysql_audit_events:
    actions: [delete, truncate]
    since: 7d
    order: desc
    after: "{{ deletions.next }}"
  when: deletions.next is not none

- name: Everything that was recorded of a customer's data, into a file, with a sign of life every 15 seconds
  dbfleet.audit.mysql_audit_events:
    values: {customer_id: 17}
    since: "2026-01-01"
    dest: /var/tmp/customer-17.jsonl
  async: 3600
  poll: 15
"""

RETURN = r"""
events:
  description:
    - The events, in O(order). Times are UTC; C(client_ip) and C(transaction_id) are texts; a field that is not known is
      none.
    - In C(old_values), C(new_values) and C(context), numbers with a fraction are texts with all their digits, because
      Ansible would round them; so are whole numbers of more than 1000 digits. A document that is nested more than 64
      deep, or that only MariaDB reads, is returned as JSON text.
  returned: without O(dest)
  type: list
  elements: dict
  sample:
    - id: 4711
      changed_at: "2026-11-21T19:03:07.123456Z"
      transaction_id: "8f0c62e1"
      action: UPDATE
      schema_name: shop
      table_name: orders
      record_id: "17"
      old_values: {"id": 17, "total": "99.90", "state": "open"}
      new_values: {"id": 17, "total": "99.90", "state": "paid"}
      changed_columns: [state]
      changed_by: ann
      db_user: shop_app
      client_ip: 192.0.2.7
      application_name: shop
      context: {"business_process": "payment"}
      policy_id: 3
next:
  description: Cursor for O(after) that returns the next page; none where no more events match by now.
  returned: without O(dest)
  type: str
  sample: "2026-11-21T19:03:07.123456Z,4711"
total:
  description: How many events match, wherever O(after) makes a page begin.
  returned: with O(count)
  type: int
  sample: 1234
dest:
  description: Path of the file.
  returned: with O(dest)
  type: str
  sample: /var/tmp/customer-17.jsonl
written:
  description: How many events are in the file, or in check mode would be.
  returned: with O(dest)
  type: int
  sample: 1234
size:
  description: Size of the file, in bytes.
  returned: with O(dest)
  type: int
  sample: 987654
sha256:
  description: SHA-256 of the file, in hexadecimal digits.
  returned: with O(dest)
  type: str
  sample: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.05
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._core.event_query import EVENTS_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.events import gather
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.module import MysqlModule


def main() -> None:
    MysqlModule({**SCHEMA_SPEC, **EVENTS_SPEC}).run(gather)


if __name__ == "__main__":
    main()
