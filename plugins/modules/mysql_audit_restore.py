#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mysql_audit_restore
short_description: Put the rows of an archive into a table beside the audit log of a MariaDB or MySQL server
description:
  - Reads an archive that M(dbfleet.audit.mysql_audit_archive) has written, compares every row with the ledger, and
    only then writes them into a table of the trail's database with the log's columns. Each row has the same canonical
    text there as in the archive, which the server compares while it loads them.
  - The log itself is not touched, and the seals say nothing of the table. Whoever may read the log may read it. Drop it
    when nobody needs it any more.
  - A run that was cut off is begun again by the next one.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.mysql
  - dbfleet.audit.schema
  - dbfleet.audit.restoring
options: {}
seealso:
  - module: dbfleet.audit.mysql_audit_archive
    description: Writes archives.
"""

EXAMPLES = r"""
- name: Look into October 2025 once more
  dbfleet.audit.mysql_audit_restore:
    url: /mnt/archive
    archive: audit_log_2025_10
    ledger: "/var/lib/dbfleet/ledger/{{ inventory_hostname }}.jsonl"
    public_key: [/etc/dbfleet/seal.pub]
"""

RETURN = r"""
table:
  description: Name of the table, in the trail's database.
  returned: success
  type: str
  sample: restored_audit_log_2025_10
rows:
  description: Number of rows in it.
  returned: success
  type: int
  sample: 182044
first_day:
  description: First day of the archive's period, UTC.
  returned: success
  type: str
  sample: "2025-10-01"
end_day:
  description: The first day after it.
  returned: success
  type: str
  sample: "2025-11-01"
seconds:
  description: How long the task ran, all calls of the host together, in seconds.
  returned: always
  type: float
  sample: 8.3
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.restore_step import RESTORE_SPEC, run
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.module import MysqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.restore_store import RestoreStore


def main() -> None:
    MysqlModule({**SCHEMA_SPEC, **RESTORE_SPEC}).run(
        lambda module, session: run(module, session, RestoreStore(session, module.params["schema"]))
    )


if __name__ == "__main__":
    main()
