#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgresql_audit_partitions
short_description: Keep partitions of the audit log ahead of time on PostgreSQL
description:
  - Makes the partitions of the log for the current and the coming periods. Two catch-all partitions, before the first
    and after the last period, take every other row, so that no write ever fails for want of a partition.
  - Rows that had fallen into the catch-all of the future are moved into the period that is made for them, with their
    ids.
  - The interval and the number of periods ahead are kept in the database, where C(CALL audit.maintain_partitions())
    follows them; a timer on the host calls it, so that a fleet left alone does not run out.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.attributes
  - dbfleet.audit.postgresql
  - dbfleet.audit.schema
  - dbfleet.audit.locking
  - dbfleet.audit.partitions
seealso:
  - module: dbfleet.audit.postgresql_audit_trail
"""

EXAMPLES = r"""
- name: Monthly partitions, half a year ahead
  dbfleet.audit.postgresql_audit_partitions:
    login_db: shop
    interval: month
    ahead: 6
"""

RETURN = r"""
statements:
  description: The SQL that was executed, or in check mode would be, statement by statement.
  returned: always
  type: list
  elements: str
  sample: ["CREATE TABLE audit.audit_log_2027_01 (LIKE audit.audit_log_data INCLUDING ALL)"]
partitions:
  description: All partitions of the log after the run; bounds are UTC, MINVALUE or MAXVALUE.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "audit_log_2026_11", "from": "2026-11-01 00:00:00+00", "to": "2026-12-01 00:00:00+00"}]
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.2
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import LOCK_SPEC, SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.module import PostgresqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.partitions_module import (
    PARTITION_SPEC,
    reconcile,
)


def main() -> None:
    PostgresqlModule({**SCHEMA_SPEC, **LOCK_SPEC, **PARTITION_SPEC}).run(reconcile)


if __name__ == "__main__":
    main()
