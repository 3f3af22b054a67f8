# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Predicts the statements that a real run executes, without executing any.
    support: full
  diff_mode:
    description: Shows the SQL of the run, each statement with the reason for it.
    support: full
options: {}
"""
