#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgresql_audit_ship
short_description: Ship the sealed rows of the audit log of a PostgreSQL database
description:
  - Sends every row that is sealed to a directory, object storage, an HTTP endpoint or a syslog collector, in the order
    of the seals and within one in the order of ids, each as its canonical text. So whoever has received rows can prove
    with nothing but the ledger that none was changed and none is missing, see M(dbfleet.audit.ledger_verify).
  - Each row is compared with the ledger before it is sent. One that is not what was sealed fails the task, named.
  - How far a destination has come is kept in a file on the controller, written once a seal was taken as a whole. So a
    seal is sent at least once, and again by the next run where one was cut off. Rows are the same when C(server),
    C(database), C(id) and C(changed_at) are.
  - A destination that takes nothing is tried again for a while, then the task fails. The log is the queue; nothing is
    ever left out, and no writer of the database waits.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.postgresql
  - dbfleet.audit.schema
  - dbfleet.audit.shipping
  - dbfleet.audit.storage
  - dbfleet.audit.signing
  - dbfleet.audit.steps
options:
  logs:
    description:
      - Logs of several databases of the server, four at a time, or all of them with O(follow). Each is shipped by a
        process of its own on the controller. What each does not say is as for one. One that cannot be shipped fails the
        task, once the others are done.
    type: list
    elements: dict
    suboptions:
      login_db:
        description: Name of the database.
        type: str
        required: true
      schema:
        description: As O(schema).
        type: str
      ledger:
        description: As O(ledger); each log needs a ledger of its own.
        type: str
      cursor:
        description: As O(cursor).
        type: path
seealso:
  - module: dbfleet.audit.postgresql_audit_seal
    description: Seals rows, as this module does before it ships when it is given a signing key.
  - module: dbfleet.audit.ledger_verify
    description: Verifies what was shipped, or what a collector has kept, against the ledger.
"""

EXAMPLES = r"""
- name: Ship what was sealed to a collector
  dbfleet.audit.postgresql_audit_ship:
    login_db: shop
    url: https://siem.example.com/ingest
    collector:
      token: "{{ siem_token }}"
      ca_cert: /etc/dbfleet/siem-ca.pem
    public_key: /etc/dbfleet/seal.pub
    ledger: "/var/lib/dbfleet/ledger/{{ inventory_hostname }}/shop.jsonl"

- name: Seal and ship for five minutes, each seal at the moment it is there, to storage that nobody can delete it from
  dbfleet.audit.postgresql_audit_ship:
    login_db: shop
    url: s3://acme-audit/trail
    storage: {lock: compliance}
    keep: 7y
    follow: 300
    signing_key: /etc/dbfleet/seal.pem
    ledger: "/var/lib/dbfleet/ledger/{{ inventory_hostname }}/shop.jsonl"
"""

RETURN = r"""
results:
  description: The same for each log, and its C(login_db), in the order of O(logs).
  returned: with O(logs)
  type: list
  elements: dict
  sample: [{"login_db": "shop", "rows": 1204, "behind": 0, "seconds": 0.812}]
destination:
  description: Where it was shipped to, without what may be secret in O(url).
  returned: success
  type: str
  sample: https://siem.example.com
seals:
  description: Number of the seals that were shipped, or in check mode would be.
  returned: success
  type: int
  sample: 3
rows:
  description: Rows in them.
  returned: success
  type: int
  sample: 1204
bytes:
  description: Bytes of the lines that they became, before they were compressed; 0 for a seal whose file was there.
  returned: success
  type: int
  sample: 842113
first_seal:
  description: Number of the first of them; null without any.
  returned: success
  type: int
  sample: 812
last_seal:
  description: Number of the last of them; null without any.
  returned: success
  type: int
  sample: 814
behind:
  description: >-
    How many seals with rows the ledger has beyond what was shipped; null when ledger or cursor do not tell.
  returned: success
  type: int
  sample: 0
behind_since:
  description: When the first of them was made, UTC; null without any.
  returned: success
  type: str
  sample: "2026-11-20T19:03:07.123456Z"
seconds:
  description: How long the task ran, all calls of the host together, in seconds.
  returned: always
  type: float
  sample: 0.812
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.ship_step import SHIP_LOGS_SPEC, SHIP_SPEC, run
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.module import PostgresqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.ship_store import stores


def main() -> None:
    PostgresqlModule({**SCHEMA_SPEC, **SHIP_SPEC, **SHIP_LOGS_SPEC}).run(
        lambda module, session: run(module, session, lambda session: stores(session, module.params))
    )


if __name__ == "__main__":
    main()
