#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mysql_audit_info
short_description: Read what a MariaDB or MySQL server is
description:
  - Read-only facts that the roles need before they change anything.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.audit.mysql
  - dbfleet.audit.schema
attributes:
  check_mode:
    description: Reads only, in check mode too.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
options: {}
"""

EXAMPLES = r"""
- name: Which server is this?
  dbfleet.audit.mysql_audit_info:
  register: server
"""

RETURN = r"""
version:
  description: Version and maker of the server; C(vendor) is V(mariadb) or V(mysql).
  returned: always
  type: dict
  sample: {"full": "11.8.6-MariaDB-0+deb13u1 from Debian", "major": "11.8", "vendor": "mariadb"}
read_only:
  description: Whether the server takes no writes, as a replica does.
  returned: always
  type: bool
  sample: false
event_scheduler:
  description: Whether the server runs events.
  returned: always
  type: bool
  sample: true
installed:
  description: Whether the audit trail is there.
  returned: always
  type: bool
  sample: true
limitations:
  description: Guarantees that this login or server cannot give.
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

from ansible_collections.dbfleet.audit.plugins.module_utils._core.module import SCHEMA_SPEC
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.info import gather
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.module import MysqlModule


def main() -> None:
    MysqlModule({**SCHEMA_SPEC}).run(gather)


if __name__ == "__main__":
    main()
