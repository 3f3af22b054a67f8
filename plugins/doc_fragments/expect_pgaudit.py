# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  expect_pgaudit:
    description:
      - Whether to plan as though pgaudit were loaded, or listed in C(shared_preload_libraries), which the module
        otherwise finds out. Only for predicting in check mode what comes after pgaudit has been configured.
    type: bool
    default: false
"""
