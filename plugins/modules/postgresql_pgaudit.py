#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgresql_pgaudit
short_description: Configure pgaudit on a PostgreSQL server, in its databases and for its roles
description:
  - Brings C(pgaudit.*) to what the options say, for the whole server, for single databases and for single roles. What
    C(ALTER SYSTEM), C(ALTER DATABASE) and C(ALTER ROLE) have set besides goes, so that nobody is quietly exempt.
  - Values are compared by what they mean. C(write,ddl) is C(ddl, write), so nothing is changed for it.
  - Lines that a person has written into a configuration file stay. The module overrides them where it sets the same,
    and names them in a warning where it does not.
  - Settings take effect at once, by a reload. The library itself has to be loaded when the server starts, which is
    M(dbfleet.audit.postgresql_preload_libraries)'s work; until then the settings wait for it, and extensions too.
  - Where Patroni runs the server, the settings of the whole server are compared and not written.
    RV(patroni_parameters) has what M(dbfleet.audit.postgresql_patroni_settings) is to bring into the configuration of
    the cluster.
  - On a standby only the settings of the whole server are managed. The rest comes from its primary.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.attributes
  - dbfleet.audit.postgresql
options:
  state:
    description:
      - With V(absent), all of C(pgaudit.*) that C(ALTER SYSTEM), C(ALTER DATABASE) and C(ALTER ROLE) have set goes, and
        so do the grants and the role of object auditing, and the extensions in O(extension_databases). What there was
        of all this before the first run with V(present) comes back, or stays; the server keeps it as
        C(dbfleet.pgaudit_before). Of O(log_connections), O(log_disconnections) and O(log_line_prefix), those that are
        given go back in the same way. Where that run never was, nothing is changed.
      - A login that is no superuser, and a member of a Patroni cluster, keep nothing, so that nothing comes back there.
    type: str
    choices: [present, absent]
    default: present
  settings:
    description:
      - Settings for the whole server, by their name with or without C(pgaudit.). They are checked against those that
        the installed version has.
      - C(log) takes a list of classes, C(ddl), C(function), C(misc), C(misc_set), C(read), C(role), C(write), C(all)
        and C(none); a minus before a class takes it out. C(role) names the role for object auditing, C(audit_objects)
        unless given.
    type: dict
    default: {}
  databases:
    description: Settings of single databases, by the database's name; they override O(settings).
    type: dict
    default: {}
  roles:
    description:
      - "Settings of single roles, by the role's name; they override O(settings) and O(databases). C({log: []}) exempts
        a role from session auditing."
    type: dict
    default: {}
  objects:
    description:
      - What is audited by object, whatever the classes say, reads of sensitive columns for example. pgaudit records
        what is done by a right that C(pgaudit.role) was granted, so that role gets these rights, and loses all others
        that it has on tables.
      - The role is made where it is missing. It can never log in and has no members, so nobody gets these rights.
    type: list
    elements: dict
    default: []
    suboptions:
      database:
        description: Name of the database.
        type: str
        required: true
      table:
        description:
          - Pattern on C(schema.table), as in C(clinic.patients) or C(billing.*). Views and foreign tables count.
        type: str
        required: true
      columns:
        description: Names of columns; without them, the whole table. Relations that a pattern matches may lack them.
        type: list
        elements: str
      privileges:
        description: What is recorded. V(delete) is never limited to columns. V(select) unless given.
        type: list
        elements: str
        choices: [select, insert, update, delete]
  extension_databases:
    description:
      - Names or glob patterns of databases that get the extension, with which a record of DDL names the objects that it
        changed. It is updated to the installed version where it is older.
    type: list
    elements: str
    default: []
  extension_schema:
    description: Schema of the extension's two functions.
    type: str
    default: public
  log_connections:
    description: Whether the server logs every connection, who was let in, and how. Left out, it stays as it is.
    type: bool
  log_disconnections:
    description: Whether the server logs the end of every session and how long it was. Left out, it stays as it is.
    type: bool
  log_line_prefix:
    description:
      - What every line of the server's log begins with, as in C(%m [%p] %q%u@%d %h %a ). Left out, it stays as it is.
    type: str
  self_test:
    description:
      - Whether a statement of every class that is logged for the login is really made, in a transaction that is rolled
        back, and found in what pgaudit logs. A class that is not found is among RV(differences). Only by a superuser,
        not on a standby, and not before the library is loaded.
    type: bool
    default: false
  assume_loaded:
    description:
      - Whether to plan as though the library were loaded already, to predict in check mode what comes after a restart.
    type: bool
    default: false
seealso:
  - module: dbfleet.audit.postgresql_preload_libraries
  - module: dbfleet.audit.postgresql_patroni_settings
  - name: pgaudit
    description: The extension, its settings and classes.
    link: https://github.com/pgaudit/pgaudit
"""

EXAMPLES = r"""
- name: DDL and role changes everywhere, reads of two columns, nothing of the monitoring
  dbfleet.audit.postgresql_pgaudit:
    settings: {log: [ddl, role], log_catalog: false}
    databases:
      billing: {log: [ddl, role, write]}
    roles:
      monitoring: {log: []}
    objects:
      - {database: clinic, table: clinic.patients, columns: [ssn, diagnosis], privileges: [select, update]}
    extension_databases: ["*"]
    log_connections: true
    log_disconnections: true
"""

RETURN = r"""
loaded:
  description: Whether the library runs.
  returned: success
  type: bool
  sample: true
settings:
  description: Settings of the whole server, as they are after the run.
  returned: success
  type: dict
  sample: {"pgaudit.log": "ddl, role", "pgaudit.log_catalog": "off"}
extensions:
  description:
    - Version of the extension by database; a database that waits for the library is not in it.
    - With O(state=absent), the databases of the whole server that keep it, if the login is a superuser. The library has
      to stay loaded for these, or no DDL works in them.
  returned: success
  type: dict
  sample: {"clinic": "1.7"}
objects:
  description: Number of tables, views and foreign tables that are audited by object.
  returned: success
  type: int
  sample: 1
limitations:
  description: What this login cannot do, in words.
  returned: success
  type: list
  elements: str
  sample: []
patroni_parameters:
  description:
    - What the configuration of the Patroni cluster has to have, by name. A parameter without a value is not to be
      there. Empty where no Patroni runs the server.
  returned: success
  type: dict
  sample: {}
recorded:
  description: Classes of which a statement was found in what pgaudit logs, with O(self_test).
  returned: success
  type: list
  elements: str
  sample: ["ddl", "role"]
differences:
  description: What was not as asked, in words.
  returned: success
  type: list
  elements: str
  sample: ["pgaudit.log of role app is 'none', and not asked for"]
statements:
  description: The SQL that was executed, or in check mode would be, statement by statement.
  returned: always
  type: list
  elements: str
  sample: ["ALTER SYSTEM SET pgaudit.log = 'ddl, role'", "SELECT pg_reload_conf()"]
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.05
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.module import PostgresqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.pgaudit_module import reconcile
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.pgaudit_options import PGAUDIT_SPEC


def main() -> None:
    PostgresqlModule(PGAUDIT_SPEC).run(reconcile)


if __name__ == "__main__":
    main()
