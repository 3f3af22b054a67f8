#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: server_restart
short_description: Restart a database server, and bring it back with its old settings when it does not come up
description:
  - Restarts a server through whatever runs it. That is O(command) where it is given, else the systemd unit whose main
    process the server is, else O(fallback).
  - A server that does not take connections again within O(timeout) seconds gets O(restore) and is restarted once more.
    The module then fails, with what the server has written into its log. All of this happens on the host, so that it
    is carried through when the connection to the controller breaks.
  - It has no login and needs none. Run it as root, or where there is no systemd as the account of the server.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.restarting
options:
  command:
    description: Command, as a list, that restarts the server, for one that something else than systemd looks after.
    type: list
    elements: str
    default: []
  fallback:
    description:
      - Command, as a list, for a server that no systemd unit runs. It is run as the server's account. An element
        C({output}) stands for the file behind the server's standard error, or where it has none for the last of
        O(logs).
    type: list
    elements: str
    default: []
  restore:
    description: What gives the server its old settings back.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path of a configuration file.
        type: path
        required: true
      lines:
        description: Lines that are added to its end. Without any, the file is deleted.
        type: list
        elements: str
        default: []
seealso:
  - module: dbfleet.audit.postgresql_audit_info
"""

EXAMPLES = r"""
- name: Restart a server that systemd runs
  dbfleet.audit.server_restart:
    process: 4711
    ready: [pg_isready, -q, -h, /run/postgresql, -p, "5432"]
    restore:
      - path: /var/lib/postgresql/17/main/postgresql.auto.conf
        lines: ["shared_preload_libraries = 'pg_stat_statements'"]
"""

RETURN = r"""
command:
  description: What restarted the server.
  returned: always
  type: list
  elements: str
  sample: ["systemctl", "restart", "postgresql@17-main.service"]
restored:
  description: Whether the server runs with its old settings again.
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

from ansible_collections.dbfleet.audit.plugins.module_utils._core.restart import RESTART_SPEC, restart


def main() -> None:
    restart(AnsibleModule(RESTART_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
