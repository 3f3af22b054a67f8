# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Compares as always; the self-test, which changes nothing that stays, is left out.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
options:
  self_test:
    description: Make the probe changes and the attempts to tamper.
    type: bool
    default: true
  fail_on_problem:
    description: Fail when there are problems.
    type: bool
    default: true
"""
