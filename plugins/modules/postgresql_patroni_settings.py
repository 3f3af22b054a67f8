#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgresql_patroni_settings
short_description: Bring PostgreSQL parameters into the configuration of a Patroni cluster
description:
  - Merges parameters into C(postgresql.parameters) of the dynamic configuration that all members of a Patroni cluster
    have in common, through Patroni's REST API. What is not among O(parameters) stays as it is.
  - Values are compared by what they mean. C(write,ddl) is C(ddl, write), so nothing is changed for it.
  - After a change, waits until Patroni has written the parameters into the configuration of the server that the login
    leads to. Where it does not, because the member's own C(patroni.yml) or C(ALTER SYSTEM) overrides them, the change
    is taken back and the module fails, naming the file and the line.
  - Nothing is restarted; that is M(dbfleet.audit.postgresql_patroni_restart)'s work.
  - Without O(parameters), only tells what the cluster is.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.postgresql
  - dbfleet.audit.patroni
attributes:
  check_mode:
    description: Tells what would be changed, and changes nothing.
    support: full
  diff_mode:
    description: Shows the parameters that are changed, before and after.
    support: full
options:
  parameters:
    description: Values by the parameter's name. A parameter without a value (C(null)) is taken out.
    type: dict
    default: {}
  timeout:
    description: Seconds that Patroni may take to write the parameters.
    type: float
    default: 60.0
seealso:
  - module: dbfleet.audit.postgresql_pgaudit
  - module: dbfleet.audit.postgresql_preload_libraries
  - name: Dynamic configuration in the documentation of Patroni
    description: What is configured for all members, and what overrides it.
    link: https://patroni.readthedocs.io/en/latest/dynamic_configuration.html
"""

EXAMPLES = r"""
- name: Log who connects, on all members
  dbfleet.audit.postgresql_patroni_settings:
    url: http://pg1.example.com:8008
    url_username: admin
    url_password: "{{ vault_patroni_password }}"
    parameters: {log_connections: true, log_disconnections: true}
"""

RETURN = r"""
cluster:
  description: Name of the cluster.
  returned: success
  type: str
  sample: shop
member:
  description: Name of the member whose API was asked.
  returned: success
  type: str
  sample: pg1
leader:
  description: Whether it is the one that the others follow.
  returned: success
  type: bool
  sample: true
members:
  description: All members of the cluster.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "pg1", "leader": true, "state": "running", "url": "http://pg1.example.com:8008"}]
system_identifier:
  description: What all servers of the cluster have in common, and no other server has.
  returned: success
  type: str
  sample: "7710646618817234105"
url:
  description: Address of the API.
  returned: success
  type: str
  sample: http://pg1.example.com:8008
parameters:
  description: The parameters that were changed, or in check mode would be, with their new values.
  returned: success
  type: dict
  sample: {"log_connections": "on"}
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.7
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.module import PostgresqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.patroni_module import PATRONI_SPEC, reconcile


def main() -> None:
    PostgresqlModule(PATRONI_SPEC).run(reconcile)


if __name__ == "__main__":
    main()
