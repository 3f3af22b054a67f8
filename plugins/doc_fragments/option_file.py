# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  option_file:
    description:
      - Where a MariaDB server gets all this from when it starts.
      - V(auto) is a file of the module's own, whose name begins with C(zz-dbfleet-audit), in the directory that the
        running server reads last, which its command line and C(my_print_defaults) tell; C(/etc/mysql/mariadb.conf.d)
        on Debian, C(/etc/my.cnf.d) on Red Hat and SUSE. For an O(login_host) elsewhere, there is none, which is said
        under RV(ignore:limitations).
      - A path names another file. The server has to read it, as one that it includes, or in a directory that it
        includes.
      - V(none) goes without, so that a restart undoes everything.
    type: str
    default: auto
"""
