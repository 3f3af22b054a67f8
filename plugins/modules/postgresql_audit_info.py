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
  - Read-only facts that the roles need before they change anything.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.postgresql
  - dbfleet.audit.schema
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
"""

EXAMPLES = r"""
- name: Which tenants does this server have?
  dbfleet.audit.postgresql_audit_info:
    databases: ["tenant_*"]
  register: server
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
pgaudit:
  description: Version of pgaudit that is installed on the host, none where there is none, and whether it is loaded.
  returned: always
  type: dict
  sample: {"installed": "17.0", "loaded": true}
restart:
  description:
    - What a restart needs to know, for M(dbfleet.audit.server_restart), which takes C(process), C(ready), C(fallback),
      C(restore) and C(logs).
    - C(pending) names the settings, beside C(shared_preload_libraries), that a restart would change; C(errors) the
      lines of configuration files that would keep the server from starting. Standbys have their primary's
      C(system_identifier). None for a login that is no superuser.
  returned: always
  type: dict
  sample: {"process": 4711, "pending": [], "errors": [], "system_identifier": "7710646618817234105",
    "ready": ["/usr/lib/postgresql/17/bin/pg_isready", "-q", "-h", "/run/postgresql", "-p", "5432"],
    "fallback": ["pg_ctlcluster", "17", "main", "restart"],
    "restore": [{"path": "/var/lib/postgresql/17/main/postgresql.auto.conf",
    "lines": ["shared_preload_libraries = ''"]}],
    "logs": ["/var/log/postgresql/postgresql-17-main.log"]}
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
  description: Guarantees that this login cannot give.
  returned: always
  type: list
  elements: str
  sample: []
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.05
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.info import gather
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.module import PostgresqlModule


def main() -> None:
    PostgresqlModule({**SCHEMA_SPEC, "databases": {"type": "list", "elements": "str", "default": ["*"]}}).run(gather)


if __name__ == "__main__":
    main()
