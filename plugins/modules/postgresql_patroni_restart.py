#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgresql_patroni_restart
short_description: Have Patroni restart a PostgreSQL server, and put its old settings back when it does not come up
description:
  - Restarts one member of a Patroni cluster through its REST API. Patroni stays in charge of it all the time.
  - When the server does not take connections again within O(timeout) seconds, the settings in O(running) are put back
    into the configuration of the cluster, with which Patroni starts it once more. The module then fails, with what the
    server has written into its log.
  - All of this happens on the member's host, so that it is carried through when the connection to the controller
    breaks. It has no login to the server. Run it as root, for the log.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.patroni
  - dbfleet.audit.restarting
options:
  running:
    description:
      - Settings that the restart would change, with the values that the server runs with. Those that the cluster's
        configuration has are put back when the server does not come up.
    type: dict
    default: {}
seealso:
  - module: dbfleet.audit.postgresql_audit_info
  - module: dbfleet.audit.postgresql_patroni_settings
"""

EXAMPLES = r"""
- name: Ask the server what a restart needs to know
  dbfleet.audit.postgresql_audit_info:
  register: server

- name: Restart it
  dbfleet.audit.postgresql_patroni_restart:
    url: http://pg1.example.com:8008
    url_username: admin
    url_password: "{{ vault_patroni_password }}"
    process: "{{ server.restart.process }}"
    ready: "{{ server.restart.ready }}"
    running: "{{ server.restart.running }}"
    logs: "{{ server.restart.logs }}"
  become: true
"""

RETURN = r"""
parameters:
  description: What was put back into the configuration of the cluster; a parameter without a value was taken out.
  returned: failure
  type: dict
  sample: {"shared_preload_libraries": null}
restored:
  description: Whether the server takes connections again.
  returned: failure
  type: bool
  sample: true
log:
  description: What the server has written into its log.
  returned: failure
  type: str
  sample: 'FATAL:  could not access file "pgaudit": No such file or directory'
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.patroni_restart import (
    PATRONI_RESTART_SPEC,
    restart,
)


def main() -> None:
    restart(AnsibleModule(PATRONI_RESTART_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
