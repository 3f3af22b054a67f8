#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mysql_audit_plugin
short_description: Log connections and statements with MariaDB's server_audit
description:
  - Loads MariaDB's plugin C(server_audit), sets all of its variables, and keeps both in an option file of the server,
    so that they survive a restart. Nothing is restarted.
  - The option file comes first and C(INSTALL SONAME) second, since loading a plugin makes the server read its option
    files (MariaDB documentation, INSTALL SONAME). So C(FORCE_PLUS_PERMANENT) counts at once and nobody can unload the
    plugin. A plugin that was loaded otherwise becomes permanent by the next restart; see RV(ignore:restart_required).
  - Works on replicas too. The plugin and its variables are not replicated, each server has its own.
  - MySQL Community has no such plugin. The audit logs of Percona Server and of MySQL Enterprise are recognised, not
    managed; see O(allow_unavailable).
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.attributes
  - dbfleet.audit.mysql
  - dbfleet.audit.option_file
options:
  state:
    description:
      - V(present) loads, sets and persists.
      - V(absent) ends logging, removes the option file and unloads the plugin. A server does not unload one that is
        permanent before it restarts; it stays, and logs nothing. Log files are kept.
    type: str
    choices: [present, absent]
    default: present
  settings:
    description:
      - Variables of the plugin, without the C(server_audit_) that their names begin with, such as C(events),
        C(excl_users), C(file_path) or C(syslog_facility). Those that the server has are legal, with the values that it
        takes; anything else is refused before anything is changed.
      - "Unless said otherwise: C(logging=true), C(events=[CONNECT, QUERY_DDL, QUERY_DCL]), C(file_rotate_size=100M),
        C(file_rotations=20), C(query_log_limit=64K), which takes up to 2.1 GB of disk: the plugin's own default keeps
        10 MB. Every other variable has the plugin's default, as have these when they are null."
      - C(events), C(incl_users) and C(excl_users) may be lists. Users are names without a host; connections are
        logged for all of them, listed or not. C(incl_users) and C(excl_users) exclude each other.
      - C(file_rotate_size) (bytes) and C(query_log_limit) (characters) may end with K, M or G, by 1024. C(file_path) is
        relative to the data directory, and its directory has to be there.
      - Which class a statement belongs to is the plugin's decision. C(QUERY_DDL) and C(QUERY_DCL) leave out ALTER USER,
        SET PASSWORD and SET GLOBAL, as measured on MariaDB 10.11 and 11.8; C(QUERY) leaves out nothing.
    type: dict
    default: {}
  allow_unavailable:
    description:
      - Whether a server that cannot have the plugin is no failure, but RV(ignore:available=false) with a
        RV(ignore:reason); so are rights that the login lacks. Nothing is changed then.
    type: bool
    default: false
notes:
  - Needs the privileges SUPER, and INSERT on C(mysql.plugin) to load the plugin, DELETE to unload it, BINLOG ADMIN to
    forget a permanent one; on a C(read_only) server from MariaDB 10.11 on READ_ONLY ADMIN as well.
  - The option file is written by the account that the module runs as, root in general.
  - The plugin masks passwords in CREATE USER, ALTER USER, GRANT, SET PASSWORD, CHANGE MASTER and CREATE SERVER. With
    C(QUERY) it logs those in a statement that it cannot parse, in PREPARE and EXECUTE IMMEDIATE, in compound statements
    and in any other statement in clear. So protect the log as you protect the data.
seealso:
  - name: MariaDB Audit Plugin
    description: The plugin's variables, events and log format.
    link: https://mariadb.com/docs/server/reference/plugins/mariadb-audit-plugin
  - module: dbfleet.audit.mysql_audit_triggers
"""

EXAMPLES = r"""
- name: Log logins, DDL, GRANT and the like, but not what the monitoring does
  dbfleet.audit.mysql_audit_plugin:
    login_unix_socket: /run/mysqld/mysqld.sock
    settings:
      events: [CONNECT, QUERY_DDL, QUERY_DCL]
      excl_users: [monitor]
      file_rotate_size: 100M
      file_rotations: 50
"""

RETURN = r"""
statements:
  description: The SQL that was executed, or in check mode would be, statement by statement.
  returned: always
  type: list
  elements: str
  sample: ["INSTALL SONAME 'server_audit'"]
available:
  description: Whether this server and login can have the plugin.
  returned: always
  type: bool
  sample: true
reason:
  description: Why they cannot; empty where they can.
  returned: always
  type: str
  sample: ""
settings:
  description: Every variable of the plugin, without its prefix, with its value now, or in check mode after a real run.
  returned: when O(state=present) and RV(available=true)
  type: dict
  sample: {"events": "CONNECT,QUERY_DDL,QUERY_DCL", "file_rotate_size": "104857600", "logging": "ON"}
log:
  description: Path of the file that is logged to, or V(syslog).
  returned: when O(state=present) and RV(available=true)
  type: str
  sample: /var/lib/mysql/server_audit.log
option_file:
  description: Path of the option file that keeps it; empty where there is none.
  returned: when O(state=present) and RV(available=true)
  type: str
  sample: /etc/mysql/mariadb.conf.d/zz-dbfleet-audit.cnf
restart_required:
  description: Whether the server has to restart before the plugin is permanent, or gone.
  returned: always
  type: bool
  sample: false
restart:
  description: What M(dbfleet.audit.server_restart) takes to do that; none where there is no need, or not from here.
  returned: always
  type: dict
  sample: {"process": 4711, "ready": ["/usr/bin/mariadb-admin", "--no-defaults", "--socket=/run/mysqld/mysqld.sock",
    "ping"], "restore": [{"path": "/etc/mysql/mariadb.conf.d/zz-dbfleet-audit.cnf"}]}
differences:
  description: What was not as asked, in words.
  returned: when O(state=present) and RV(available=true)
  type: list
  elements: str
  sample: ["logging is 'OFF' and is to be 'ON'"]
limitations:
  description: What this server, login or choice of settings leaves open.
  returned: always
  type: list
  elements: str
  sample: []
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.3
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.audit_plugin_module import PLUGIN_SPEC, run
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.module import MysqlModule


def main() -> None:
    MysqlModule(PLUGIN_SPEC).run(run)


if __name__ == "__main__":
    main()
