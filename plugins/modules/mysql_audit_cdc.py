#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mysql_audit_cdc
short_description: Set up the binary log of MariaDB or MySQL for change data capture
description:
  - Has the binary log hold every row before and after its change, with the names of the columns and a GTID for each
    transaction, so that a consumer can land them as events, and carry on where it was. The consumer is yours;
    C(docs/examples/cdc) has one to begin with.
  - Sets C(binlog_format=ROW), C(binlog_row_image=FULL), C(binlog_row_metadata=FULL), on MariaDB C(gtid_strict_mode=ON),
    C(log_bin_compress=OFF), and on MySQL C(enforce_gtid_consistency=ON), C(gtid_mode=ON), step by step,
    C(binlog_transaction_compression=OFF) and no C(binlog_row_value_options). MariaDB gets them by C(SET GLOBAL) and an
    option file, MySQL by C(SET PERSIST).
  - All databases of the server are in its one binary log; which ones matter is the consumer's choice.
  - Prefer triggers (M(dbfleet.audit.mysql_audit_triggers)) where they are possible; C(docs/cdc.md) says what change
    data capture cannot give.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.attributes
  - dbfleet.audit.mysql
  - dbfleet.audit.cdc
  - dbfleet.audit.option_file
options:
  binlog_expire_logs_seconds:
    description:
      - For how many seconds binary logs are kept, which is how long a consumer may be away. Left out, the server's own
        time stays; one of 0, for ever, is refused, since it fills the disk.
    type: int
  account:
    description:
      - Account of the consumer, as C(cdc) or C(cdc@10.0.0.5); its host is C(%) unless given. It must hold C(REPLICATION
        SLAVE), and on MariaDB C(BINLOG MONITOR), on MySQL C(REPLICATION CLIENT). That it reads no binary log now is
        one of RV(problems).
    type: str
notes:
  - C(SET) needs the privileges SUPER and BINLOG ADMIN on MariaDB, SYSTEM_VARIABLES_ADMIN on MySQL.
  - Sessions that were there before keep their C(binlog_format) and C(binlog_row_image); they count for new ones. End
    them, connection pools above all, or what they write by statement is in no stream.
  - MySQL refuses C(gtid_mode=ON) while transactions without a GTID are under way; run it again then. On a server with
    replicas, follow its manual, which has the replicas go first.
seealso:
  - module: dbfleet.audit.mysql_audit_triggers
  - module: dbfleet.audit.postgresql_audit_cdc
"""

EXAMPLES = r"""
- name: Have the binary log ready for a consumer that may be away for a week
  dbfleet.audit.mysql_audit_cdc:
    login_unix_socket: /run/mysqld/mysqld.sock
    binlog_expire_logs_seconds: 604800
    account: cdc
    configure: true
"""

RETURN = r"""
statements:
  description: The SQL that was executed, or in check mode would be, statement by statement.
  returned: always
  type: list
  elements: str
  sample: ["SET GLOBAL `binlog_format` = 'ROW'"]
differences:
  description: What was not as needed, in words.
  returned: always
  type: list
  elements: str
  sample: ["binlog_format is 'MIXED' and has to be 'ROW'"]
settings:
  description: The variables that matter, with their values now, or in check mode after a real run.
  returned: success
  type: dict
  sample: {"binlog_format": "ROW", "binlog_row_image": "FULL", "log_bin": "ON"}
position:
  description: Where the binary log is now, as a GTID of each domain on MariaDB, as the set of all on MySQL.
  returned: success
  type: str
  sample: 0-1-4711
binary_logs:
  description: How many files of it there are, and their size in bytes.
  returned: success
  type: dict
  sample: {"files": 3, "bytes": 214748364}
problems:
  description:
    - What a consumer loses changes by. C(type) is V(restart) for a binary log that waits for a restart, V(filtered) for
      databases that it leaves out, V(replica) for a replica that does not log what it gets from its source, V(inactive)
      for an O(account) that is not connected.
  returned: always
  type: list
  elements: dict
  sample: [{"type": "inactive", "detail": "account cdc: no consumer is connected"}]
option_file:
  description: Path of the option file that keeps the settings of a MariaDB server; empty where there is none.
  returned: always
  type: str
  sample: /etc/mysql/mariadb.conf.d/zz-dbfleet-audit-cdc.cnf
restart_required:
  description: Whether the server has to restart before there is a binary log.
  returned: always
  type: bool
  sample: false
restart:
  description: What M(dbfleet.audit.server_restart) takes to do that; none where there is no need, or not from here.
  returned: always
  type: dict
  sample: {"process": 4711, "ready": ["/usr/bin/mariadb-admin", "--no-defaults", "--socket=/run/mysqld/mysqld.sock",
    "ping"], "restore": [{"path": "/etc/mysql/mariadb.conf.d/zz-dbfleet-audit-cdc.cnf"}]}
limitations:
  description: What a consumer does not get from this server.
  returned: always
  type: list
  elements: str
  sample: []
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.2
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.cdc_module import MYSQL_CDC_SPEC, run
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.module import MysqlModule


def main() -> None:
    MysqlModule(MYSQL_CDC_SPEC).run(run)


if __name__ == "__main__":
    main()
