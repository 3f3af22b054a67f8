#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mysql_audit_info
short_description: Read what a MariaDB or MySQL server is
description:
  - Read-only facts that the roles need before they change anything, and that the report is made of.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.mysql
  - dbfleet.audit.schema
  - dbfleet.audit.info
  - dbfleet.audit.exceptions
  - dbfleet.audit.user_checks
attributes:
  check_mode:
    description: Reads only, in check mode too.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
options: {}
"""

EXAMPLES = r"""
- name: Which server is this?
  dbfleet.audit.mysql_audit_info:
  register: server

- name: Which tables are not audited, and which of them ought to be?
  dbfleet.audit.mysql_audit_info:
    gather: [coverage]
    discover: true
  register: server
"""

RETURN = r"""
version:
  description: Version and maker of the server; C(vendor) is V(mariadb) or V(mysql).
  returned: always
  type: dict
  sample: {"full": "11.8.6-MariaDB-0+deb13u1 from Debian", "major": "11.8", "vendor": "mariadb"}
read_only:
  description: Whether the server takes no writes, as a replica does.
  returned: always
  type: bool
  sample: false
event_scheduler:
  description: Whether the server runs events.
  returned: always
  type: bool
  sample: true
logs:
  description:
    - The log that C(server_audit) writes, with its C(path) and C(format), or the C(program) of its lines in syslog.
      Empty for a server without the plugin.
  returned: always
  type: list
  elements: dict
  sample: [{"path": "/var/lib/mysql/server_audit.log", "format": "server_audit"}]
installed:
  description: Whether the audit trail is there.
  returned: always
  type: bool
  sample: true
server_audit:
  description:
    - The settings of MariaDB's server_audit that somebody has set, whoever it was, with the option file, or how
      (C(config), C(command-line), C(sql)). Empty on MySQL.
  returned: always
  type: list
  elements: dict
  sample: [{"name": "server_audit_logging", "value": "ON", "place": "/etc/mysql/mariadb.conf.d/99-audit.cnf"}]
limitations:
  description: Guarantees that this login or server cannot give, and what of the trail the login cannot read.
  returned: always
  type: list
  elements: str
  sample: []
trails:
  description:
    - The one trail of the server, as a list. docs/discovery.md tells each field.
    - With RV(trails[].installed) false, there are coverage, estimate and discovery alone.
  returned: when O(gather) or O(discover) asks for it
  type: list
  elements: dict
  contains:
    database:
      description: The trail's database.
      returned: always
      type: str
      sample: audit
    schema:
      description: The same.
      returned: always
      type: str
      sample: audit
    installed:
      description: Whether there is a trail.
      returned: success
      type: bool
      sample: true
    schema_version:
      description: The version of what the trail consists of; 0 before it had one, none where the login does not see it.
      returned: success
      type: int
      sample: 1
    error:
      description: Why it could not be read, or none. Nothing else is there then.
      returned: always
      type: str
      sample: null
    limitations:
      description: What this login may not read.
      returned: success
      type: list
      elements: str
      sample: []
    coverage:
      description:
        - Every table that can be audited, ordered by name, how many are, and how many are not by an exception that has
          not expired. C(exception) is the one of O(exceptions) that names a table.
      returned: when asked for
      type: dict
      sample: {"auditable": 2, "audited": 1, "excepted": 0, "tables": [{"table": "shop.users", "audited": true,
        "policy": "users", "classification": "restricted", "retention": "financial", "tags": ["GDPR"],
        "operations": ["insert", "update", "delete"], "rows": 1200, "bytes": 81920, "inserted": 10, "updated": 5,
        "deleted": 0, "problem": null, "exception": null}]}
    foreign_auditing:
      description:
        - Logs of changes that triggers of somebody else's write (docs/adoption.md). C(rows) is an estimate of the
          server's; C(obstacle) says why a log is not C(importable). They are no part of the coverage, unless audited.
      returned: with coverage
      type: list
      elements: dict
      sample: [{"kind": "home_made", "log": "shop.audit_log", "tables": ["shop.users"], "triggers": 1,
        "rows": 1200, "importable": true, "obstacle": null}]
    estimate:
      description:
        - What auditing the tables that are neither audited nor excepted would add to the log, and what this was
          computed from.
      returned: with coverage or discovery
      type: dict
      sample: {"counted_since": "2026-10-01T00:00:00Z", "rows_per_day": 120.0, "bytes_per_day": 48000,
        "basis": "6240 rows written to 3 tables that are not audited, counted in performance_schema, over 52.0 days"}
    partitions:
      description:
        - The log's partitions, how far they reach, and how the log grows; C(projected_bytes) is its size in twelve
          months if nothing is archived. V(1000001) rows in the catch-all mean more than a million.
      returned: when asked for and installed
      type: dict
      sample: {"interval": "month", "until": "2027-03-01", "ahead": 3, "catch_all_rows": 0, "bytes": 123456,
        "list": [{"name": "p2026_11", "from": "2026-11-01", "to": "2026-12-01", "rows": 100, "bytes": 8192}],
        "growth": [{"month": "2026-11", "rows": 100, "bytes": 8192}], "projected_bytes": 221760}
    activity:
      description:
        - Who has changed what, when and by which application. C(without_user) counts all changes that name no user of
          the application, C(bulk_deletes) all deletions of bulk size and every TRUNCATE, listed or not. A TRUNCATE in
          C(bulk) has no number of C(rows).
      returned: when asked for and installed
      type: dict
      sample: {"since": "2026-10-23T10:00:00Z", "until": "2026-11-22T10:00:00Z", "changes": 100,
        "without_user": 3, "by_action": {"DELETE": 10, "INSERT": 90}, "by_day": [{"day": "2026-11-01", "changes": 100}],
        "by_hour": [0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        "users": [{"name": "ann", "changes": 100}], "tables": [{"name": "shop.users", "changes": 100}],
        "off_hours": {"changes": 100, "users": [{"name": "ann", "changes": 100}]}, "bulk": [],
        "bulk_deletes": 0, "applications": [{"name": "shop", "changes": 100, "without_user": 3}], "failures": 0,
        "ddl": 3, "logins": 10, "refused_logins": null}
    seals:
      description: How far the log is sealed. V(1000001) unsealed rows mean more than a million.
      returned: when asked for and installed
      type: dict
      sample: {"rows_sealed": 10, "unsealed_rows": 5, "last_sealed_at": "2026-11-22T03:00:00Z", "last_number": 7,
        "unsigned": 0, "oldest_unsealed_at": "2026-11-22T03:00:10Z", "chain": "6f1f4f0e-0b1c-4b29-9d6e-3f1e7b1f2a55"}
    grants:
      description: Every privilege on the trail, and whether a trail is meant to give such a one.
      returned: when asked for and installed
      type: list
      elements: dict
      sample: [{"grantee": "compliance@%", "object": "audit_log", "privileges": ["SELECT"], "expected": true}]
    settings:
      description: What decides, in the trail and on the server, over what is recorded, by name.
      returned: when asked for and installed
      type: dict
      sample: {"events": ["app"], "binlog_format": "ROW", "server_audit_logging": "ON"}
    discovery:
      description:
        - Tables that look as if they had to be audited, and a policy for each; the likeliest first.
        - None when there is a table of which the login does not see whether it is audited.
      returned: when O(discover) is true
      type: list
      elements: dict
      sample: [{"table": "shop.patients", "score": 95, "categories": ["health", "personal"],
        "columns": {"ssn": "national identifier", "diagnosis": "diagnosis"}, "rows": 1200,
        "policy": {"tables": ["shop.patients"], "operations": ["insert", "update", "delete"],
        "columns": {"hash": ["ssn"]}, "classification": "restricted", "tags": ["GDPR", "HIPAA"]}}]
    proposal:
      description: The same policies as YAML, or none as well, to be pasted below C(mysql_audit_policies).
      returned: when O(discover) is true
      type: str
      sample: |
        - tables: ["shop.patients"]
          operations: [insert, update, delete]
          columns:
            hash: [ssn]
          classification: restricted
          tags: [GDPR, HIPAA]
checks:
  description:
    - What each of O(checks) has found. C(value) is none, and C(error) says why, where it could not be asked. An error
      never quotes a value.
  returned: with O(checks)
  type: list
  elements: dict
  sample: [{"name": "orphans", "database": "", "value": 3, "threshold": 0, "ok": false, "error": null}]
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.2
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._core.info import INFO_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.user_checks import CHECKS_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.info import gather
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.module import MysqlModule


def main() -> None:
    MysqlModule({**SCHEMA_SPEC, **INFO_SPEC, **CHECKS_SPEC}).run(gather)


if __name__ == "__main__":
    main()
