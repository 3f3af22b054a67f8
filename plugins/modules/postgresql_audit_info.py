#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgresql_audit_info
short_description: Read what a PostgreSQL server is and which databases it has
description:
  - Read-only facts that the roles need before they change anything, and that the report is made of.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.postgresql
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
options:
  databases:
    description:
      - Names or glob patterns of databases to look for. Templates and databases that refuse connections never match.
    type: list
    elements: str
    default: ["*"]
  schemas:
    description: The schema of the trail by database, for those where it is not O(schema).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Which tenants does this server have?
  dbfleet.audit.postgresql_audit_info:
    databases: ["tenant_*"]
  register: server

- name: Which tables of which tenant are not audited, and which of them ought to be?
  dbfleet.audit.postgresql_audit_info:
    databases: ["tenant_*"]
    gather: [coverage]
    discover: true
  register: tenants

- name: What has happened in the last week, by office hours in Berlin?
  dbfleet.audit.postgresql_audit_info:
    databases: [shop]
    gather: [activity]
    since: 7d
    time_zone: Europe/Berlin
  register: week
"""

RETURN = r"""
version:
  description: Version of the server.
  returned: always
  type: dict
  sample: {"full": "17.6 (Debian 17.6-0+deb13u1)", "major": 17}
in_recovery:
  description: Whether the server is a standby.
  returned: always
  type: bool
  sample: false
superuser:
  description: Whether the login is a superuser.
  returned: always
  type: bool
  sample: true
databases:
  description: Names of all databases that match, sorted.
  returned: always
  type: list
  elements: str
  sample: ["tenant_a", "tenant_b"]
matches:
  description: The same by pattern.
  returned: always
  type: dict
  sample: {"tenant_*": ["tenant_a", "tenant_b"]}
unmatched:
  description: Patterns that match no database.
  returned: always
  type: list
  elements: str
  sample: []
unlisted:
  description:
    - Names of the databases that no pattern matches, of all that accept connections. Templates, C(postgres) and
      databases that a managed service keeps for itself are left out.
  returned: always
  type: list
  elements: str
  sample: ["scratch"]
pgaudit:
  description:
    - Version of pgaudit that is installed on the host, none where there is none, and whether it is loaded.
    - C(settings) are those that somebody has set, whoever it was, with the line of the file (C(postgresql.auto.conf) is
      that of ALTER SYSTEM), or the database and the role that they are set for. Files are named to superusers alone.
  returned: always
  type: dict
  sample: {"installed": "17.0", "loaded": true, "settings": [{"name": "pgaudit.log", "value": "ddl, role",
    "place": "/var/lib/postgresql/17/main/postgresql.auto.conf:4"}]}
patroni:
  description: Name of the Patroni cluster that the server is a member of. None elsewhere, and for other logins.
  returned: always
  type: str
  sample: null
restart:
  description:
    - What a restart needs to know, for M(dbfleet.audit.server_restart), which takes C(process), C(ready), C(fallback),
      C(restore) and C(logs), and for M(dbfleet.audit.postgresql_patroni_restart), which takes C(running) instead of
      C(fallback) and C(restore).
    - C(pending) names the settings, beside C(shared_preload_libraries), that a restart would change; C(errors) the
      lines of configuration files that would keep the server from starting. Standbys have their primary's
      C(system_identifier). None for a login that is no superuser.
  returned: always
  type: dict
  sample: {"process": 4711, "running": {"shared_preload_libraries": ""}, "pending": [],
    "errors": [], "system_identifier": "7710646618817234105",
    "ready": ["/usr/lib/postgresql/17/bin/pg_isready", "-q", "-h", "/run/postgresql", "-p", "5432"],
    "fallback": ["pg_ctlcluster", "17", "main", "restart"],
    "restore": [{"path": "/var/lib/postgresql/17/main/postgresql.auto.conf",
    "lines": ["shared_preload_libraries = ''"]}],
    "logs": ["/var/log/postgresql/postgresql-17-main.log"]}
logs:
  description:
    - The log that the server writes, with its C(path), a glob where names have the time in them, and its C(format), or
      the C(program) by which its lines in syslog are known. Of several formats, the one that says most (C(jsonlog),
      then C(csvlog)). Empty where it cannot be told. None for a login that is no superuser.
  returned: always
  type: list
  elements: dict
  sample: [{"path": "/var/log/postgresql/postgresql-17-main.log", "format": "stderr"}]
pending_restart:
  description: Names of the settings that wait for a restart, of those that this login may see.
  returned: always
  type: list
  elements: str
  sample: ["max_connections"]
catalog_changes:
  description:
    - What no event trigger sees and has changed since the last snapshot (roles, databases, tablespaces, settings,
      event triggers), with the state before and after; C(audit.record_catalog_changes()) writes it into the log.
    - Of the trail in O(login_db); empty where there is none.
  returned: always
  type: list
  elements: dict
  sample: [{"object_type": "role", "object": "temp_admin", "change": "appeared", "before": null,
    "after": {"superuser": true, "login": true}, "since": "2026-11-20T03:12:44Z"}]
limitations:
  description: Guarantees that this login cannot give, and what of the trails it cannot read.
  returned: always
  type: list
  elements: str
  sample: []
trails:
  description:
    - The trail of each of RV(databases), and of each name in O(databases) that the login may not connect to.
    - docs/discovery.md tells each field.
    - With RV(trails[].installed) false, there are coverage, estimate and discovery alone.
  returned: when O(gather) or O(discover) asks for it
  type: list
  elements: dict
  contains:
    database:
      description: The database.
      returned: always
      type: str
      sample: shop
    schema:
      description: Schema of the trail.
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
      sample: {"auditable": 2, "audited": 1, "excepted": 0, "tables": [{"table": "public.users", "audited": true,
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
      sample: [{"kind": "home_made", "log": "public.audit_log", "tables": ["public.users"], "triggers": 1,
        "rows": 1200, "importable": true, "obstacle": null}]
    estimate:
      description:
        - What auditing the tables that are neither audited nor excepted would add to the log, and what this was
          computed from.
      returned: with coverage or discovery
      type: dict
      sample: {"counted_since": "2026-10-01T00:00:00Z", "rows_per_day": 120.0, "bytes_per_day": 48000,
        "basis": "6240 rows written to 3 tables that are not audited, counted in pg_stat_user_tables, over 52.0 days"}
    partitions:
      description:
        - The log's partitions, how far they reach, and how the log grows; C(projected_bytes) is its size in twelve
          months if nothing is archived. V(1000001) rows in the catch-all mean more than a million.
      returned: when asked for and installed
      type: dict
      sample: {"interval": "month", "until": "2027-03-01", "ahead": 3, "catch_all_rows": 0, "bytes": 123456,
        "list": [{"name": "audit_log_2026_11", "from": "2026-11-01", "to": "2026-12-01", "rows": 100, "bytes": 8192}],
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
        "users": [{"name": "ann", "changes": 100}], "tables": [{"name": "public.users", "changes": 100}],
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
      sample: [{"grantee": "audit_reader", "object": "audit_log", "privileges": ["SELECT"], "expected": true}]
    settings:
      description: What decides, in the trail and on the server, over what is recorded, by name.
      returned: when asked for and installed
      type: dict
      sample: {"events": ["ddl", "app"], "partition_interval": "month", "log_connections": "on",
        "pgaudit.log": "ddl, role"}
    discovery:
      description:
        - Tables that look as if they had to be audited, and a policy for each; the likeliest first.
        - None when there is a table of which the login does not see whether it is audited.
      returned: when O(discover) is true
      type: list
      elements: dict
      sample: [{"table": "public.patients", "score": 95, "categories": ["health", "personal"],
        "columns": {"ssn": "national identifier", "diagnosis": "diagnosis"}, "rows": 1200,
        "policy": {"tables": ["public.patients"], "operations": ["insert", "update", "delete", "truncate"],
        "columns": {"hash": ["ssn"]}, "classification": "restricted", "tags": ["GDPR", "HIPAA"]}}]
    proposal:
      description:
        - The same policies as YAML, or none as well, to be pasted below C(policies) in C(postgresql_audit_databases).
      returned: when O(discover) is true
      type: str
      sample: |
        - tables: ["public.patients"]
          operations: [insert, update, delete, truncate]
          columns:
            hash: [ssn]
          classification: restricted
          tags: [GDPR, HIPAA]
checks:
  description:
    - What each of O(checks) has found in each database that it is for. C(value) is none, and C(error) says why, where
      it could not be asked. An error never quotes a value.
    - Where no database matches one of its patterns, C(database) is the pattern, and the check is not ok.
  returned: with O(checks)
  type: list
  elements: dict
  sample: [{"name": "orphans", "database": "shop", "value": 3, "threshold": 0, "ok": false, "error": null}]
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.05
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._core.info import INFO_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._core.user_checks import CHECKS_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.info import gather
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.module import PostgresqlModule


def main() -> None:
    which = {
        "databases": {"type": "list", "elements": "str", "default": ["*"]},
        "schemas": {"type": "dict", "default": {}},
    }
    PostgresqlModule({**SCHEMA_SPEC, **INFO_SPEC, **CHECKS_SPEC, **which}).run(gather)


if __name__ == "__main__":
    main()
