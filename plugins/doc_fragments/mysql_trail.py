# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  readers:
    description:
      - Accounts or roles that may read the log, as V(compliance@%), or V(compliance) for the same. They must exist.
    type: list
    elements: str
    default: []
  applications:
    description:
      - Accounts or roles that may call C(audit.set_context()) and C(audit.log_event()), and nothing else. To set
        C(@audit_user) and C(@audit_context), nobody needs any right.
    type: list
    elements: str
    default: []
  events:
    description:
      - What is recorded in the log besides the changes of rows.
      - V(app) lets O(applications) call C(audit.log_event()).
      - V(ddl) and V(login) are refused, because the server tells no trigger of them; MariaDB's server_audit records
        both in the server's own log (M(dbfleet.audit.mysql_audit_plugin)).
    type: list
    elements: str
    choices: [ddl, login, app]
    default: [app]
  indexes:
    description:
      - Indexes of the log, each of which every audited change has to write.
      - V(record) serves the history of one record, V(changed_by) what one user did, V(changed_at) time ranges within a
        partition, V(transaction) finds what one transaction changed.
      - An index that is taken off the list stays; drop it by hand.
    type: list
    elements: str
    choices: [record, changed_by, changed_at, transaction]
    default: [record]
"""
