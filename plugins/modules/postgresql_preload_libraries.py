#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgresql_preload_libraries
short_description: Add libraries to shared_preload_libraries of a PostgreSQL server, or take them out
description:
  - Merges libraries into C(shared_preload_libraries) by C(ALTER SYSTEM). What is listed there already keeps its place,
    wherever it is configured; new libraries come to the end.
  - The list to merge into is the one that the server would read if it started now, with changes that wait for a
    restart.
  - Before anything is written, the server is asked to load every library of the new list once, into a session of its
    own. One that it cannot find would keep it from starting, so it is refused, whoever has put it on the list.
  - Nothing is restarted. The list counts from the next start of the server, so a change sets RV(restart_required).
  - A library that is taken out is taken out of what C(ALTER SYSTEM) has written; where a person's own configuration
    file lists nothing else, the module says which line to change.
  - Where Patroni runs the server, nothing is written. The libraries are checked, and RV(patroni_parameters) has what
    M(dbfleet.audit.postgresql_patroni_settings) is to bring into the configuration of the cluster.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.attributes
  - dbfleet.audit.postgresql
options:
  name:
    description:
      - Names of libraries, such as C(pgaudit). C(pgaudit), C(pgaudit.so) and C($libdir/pgaudit) are the same library.
    type: list
    elements: str
    required: true
  state:
    description: Whether the libraries are to be listed.
    type: str
    choices: [present, absent]
    default: present
  check_files:
    description:
      - Whether the server is asked to load the libraries first. Turn it off only to predict a run, in check mode, on a
        host whose packages are not installed yet.
    type: bool
    default: true
  keep_written:
    description:
      - With O(state=absent), whether a library stays that a person's own configuration file lists. Without, the module
        takes it out where it can, and else says which line to change. Patroni does not say who has listed what, so
        there it is taken out.
    type: bool
    default: false
seealso:
  - module: dbfleet.audit.postgresql_pgaudit
  - module: dbfleet.audit.postgresql_patroni_settings
  - name: shared_preload_libraries in the documentation of PostgreSQL
    description: What the setting does, and which form it has.
    link: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-SHARED-PRELOAD-LIBRARIES
"""

EXAMPLES = r"""
- name: Load pgaudit when the server starts
  dbfleet.audit.postgresql_preload_libraries:
    name: pgaudit
  register: preload

- name: Say that there is a restart to do
  ansible.builtin.debug:
    msg: "{{ inventory_hostname }} will load {{ preload.libraries | join(', ') }} from its next start on"
  when: preload.restart_required
"""

RETURN = r"""
libraries:
  description: What the server loads from its next start on, in order.
  returned: success
  type: list
  elements: str
  sample: ["pg_stat_statements", "pgaudit"]
running:
  description: What it has loaded at its last start.
  returned: success
  type: list
  elements: str
  sample: ["pg_stat_statements"]
restart_required:
  description: Whether the two differ.
  returned: success
  type: bool
  sample: true
patroni_parameters:
  description: What the configuration of the Patroni cluster has to have; empty where no Patroni runs the server.
  returned: success
  type: dict
  sample: {}
differences:
  description: What was not as asked, in words.
  returned: success
  type: list
  elements: str
  sample: ["shared_preload_libraries is empty (in no configuration file), to be pgaudit"]
statements:
  description: The SQL that was executed, or in check mode would be, statement by statement.
  returned: always
  type: list
  elements: str
  sample: ["ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements', 'pgaudit'"]
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 0.05
"""

from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.module import PostgresqlModule
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.preload_module import PRELOAD_SPEC, reconcile


def main() -> None:
    PostgresqlModule(PRELOAD_SPEC).run(reconcile)


if __name__ == "__main__":
    main()
