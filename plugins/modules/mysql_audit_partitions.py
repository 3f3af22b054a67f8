#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mysql_audit_partitions
short_description: Keep partitions of the audit log ahead of time on MariaDB and MySQL
description:
  - Makes the partitions of the log for the current and the coming periods. A partition before the first period and a
    catch-all after the last one take every other row, so that no write ever fails for want of a partition.
  - The catch-all is divided while it is empty. Rows that it holds all the same move into the periods that are made for
    them, with their ids; writers wait while they do.
  - The interval and the number of periods ahead are kept in the database, where C(CALL audit.maintain_partitions())
    follows them, so that a fleet left alone does not run out.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.attributes
  - dbfleet.audit.mysql
  - dbfleet.audit.schema
  - dbfleet.audit.locking
  - dbfleet.audit.partitions
  - dbfleet.audit.mysql_partitions
seealso:
  - module: dbfleet.audit.mysql_audit_trail
"""

EXAMPLES = r"""
- name: Monthly partitions, half a year ahead
  dbfleet.audit.mysql_audit_partitions:
    interval: month
    ahead: 6
"""

RETURN = r"""
statements:
  description: The SQL that was executed, or in check mode would be, statement by statement.
  returned: always
  type: list
  elements: str
  sample: ["DROP EVENT `audit`.`maintain_partitions`"]
partitions:
  description: All partitions of the log after the run; bounds are UTC, MINVALUE or MAXVALUE.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "p2026_11", "from": "2026-11-01 00:00:00", "to": "2026-12-01 00:00:00"}]
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.2
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import LOCK_SPEC, SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.module import MysqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.partitions_module import PARTITION_SPEC, reconcile


def main() -> None:
    MysqlModule({**SCHEMA_SPEC, **LOCK_SPEC, **PARTITION_SPEC}).run(reconcile)


if __name__ == "__main__":
    main()
