# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  configure:
    description:
      - Whether the module sets what the server lacks for change data capture. Otherwise a server that lacks it is an
        error that says what to set. Nothing is restarted, see RV(ignore:restart_required).
    type: bool
    default: false
"""
