#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mysql_audit_seal
short_description: Seal the audit log of a MariaDB or MySQL server against tampering
description:
  - Puts every committed row of the log that is in no seal yet into one. A seal holds the SHA-256 of each of its rows
    and the digest of the seal before it, and is signed on the controller with a key that never leaves it.
  - Rows stay in the server, which hashes them; the signed seals go into a ledger, a file on the controller.
  - Writers never wait for it. A row whose transaction ends late lands in a later seal.
  - A run that was cut off is completed by the next one.
  - The login needs the privilege PROCESS, to see which transactions have not ended.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.mysql
  - dbfleet.audit.schema
  - dbfleet.audit.sealing
  - dbfleet.audit.signing
  - dbfleet.audit.steps
options: {}
seealso:
  - module: dbfleet.audit.mysql_audit_verify
    description: Finds what was changed since.
"""

EXAMPLES = r"""
- name: Seal what was recorded
  dbfleet.audit.mysql_audit_seal:
    signing_key: /etc/dbfleet/seal.pem
    ledger: "/var/lib/dbfleet/ledger/{{ inventory_hostname }}/server.jsonl"

- name: The server was restored to yesterday evening
  dbfleet.audit.mysql_audit_seal:
    signing_key: /etc/dbfleet/seal.pem
    ledger: "/var/lib/dbfleet/ledger/{{ inventory_hostname }}/server.jsonl"
    resync: restored to 2026-11-20 20:00 after the disk failure, change 4711
"""

RETURN = r"""
seals:
  description: Seals that this run has added to the ledger. C(kind) is V(rows), V(catalog), V(key) or V(resync).
  returned: success
  type: list
  elements: dict
  sample: [{"number": 12, "kind": "rows", "period": "2026-11-20", "rows": 4211,
    "digest": "5f0b2c1d9f0e4a4c8e2f6b9d8a7c5e3f1b0d2c4e6f8a9b7c5d3e1f0a2b4c6d8e"}]
rows:
  description: Number of rows in them.
  returned: success
  type: int
  sample: 4211
unsealed:
  description:
    - How many ids lie above the one up to which everything is sealed for good, transactions in progress included.
  returned: success
  type: int
  sample: 0
number:
  description: Number of the ledger's last seal, 0 when it has none.
  returned: when not in check mode
  type: int
  sample: 12
digest:
  description: Its digest. Who knows it can tell whether anything before it was changed, ledger included.
  returned: when not in check mode
  type: str
  sample: 5f0b2c1d9f0e4a4c8e2f6b9d8a7c5e3f1b0d2c4e6f8a9b7c5d3e1f0a2b4c6d8e
key:
  description: Name of the key, the first 16 hex digits of the SHA-256 of the public key.
  returned: when not in check mode
  type: str
  sample: 3b1f0a2b4c6d8e5f
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal_step import SEAL_SPEC, run
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.module import MysqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.seal_store import SealStore


def main() -> None:
    MysqlModule({**SCHEMA_SPEC, **SEAL_SPEC}).run(
        lambda module, session: run(module, SealStore(session, module.params["schema"]))
    )


if __name__ == "__main__":
    main()
