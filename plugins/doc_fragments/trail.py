# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  readers:
    description: Roles that may read the log in this database. Members of C(audit_reader) always may.
    type: list
    elements: str
    default: []
  applications:
    description:
      - Roles that may call C(audit.set_context()), C(audit.log_event()) and, for tables that they own,
        C(audit.add_table()), and nothing else.
    type: list
    elements: str
    default: []
  context:
    description:
      - Which session settings feed a record, as a dictionary of context keys to lists of settings; the first setting
        that is not empty wins. The key C(user) becomes C(changed_by), C(ip_address) becomes C(client_ip), C(json)
        lists settings that hold a whole JSON object, every other key lands in C(context).
      - Given keys replace the defaults key by key; an empty list turns one off. The defaults are C(user) from
        C(app.user) and C(app.user_id), C(ip_address) from C(app.ip_address), C(business_process) from
        C(app.business_process), and C(json) from C(app.audit_context), C(app.current_user) and
        C(request.jwt.claims).
    type: dict
    default: {}
  events:
    description:
      - What is recorded in the log besides the changes of rows.
      - V(ddl) records every command that changes or drops an object, with the object and the statement's text, in which
        passwords are masked, and, where it is more than that one command, every literal. What no event trigger sees
        (roles, databases, tablespaces, configuration, event triggers) is compared with a snapshot, which
        C(audit.record_catalog_changes()) records and renews.
      - V(login) records every login from PostgreSQL 17 on; on older servers it is returned as a limitation. A login
        that cannot be recorded is not refused.
      - V(app) lets O(applications) call C(audit.log_event()).
      - Event triggers need a login that is a superuser; for others V(ddl) and V(login) are a limitation.
    type: list
    elements: str
    choices: [ddl, login, app]
    default: [ddl, app]
  tablespace:
    description: Tablespace for new partitions of the log. Existing partitions stay where they are.
    type: str
  indexes:
    description:
      - Indexes of the log, each of which every audited change has to write.
      - V(record) serves the history of one record, V(changed_by) what one user did, V(changed_at) is a small BRIN
        index for time ranges within a partition, V(transaction) finds what one transaction changed.
      - An index that is taken off the list stays; drop it by hand.
    type: list
    elements: str
    choices: [record, changed_by, changed_at, transaction]
    default: [record]
"""
