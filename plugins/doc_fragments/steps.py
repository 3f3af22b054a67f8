# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  async:
    description: The work is cut into calls that each end in time, see O(call_seconds).
    support: none
options:
  call_seconds:
    description: Seconds of work that one call of the host may take; long work is as many calls as it needs.
    type: float
    default: 20.0
  step:
    description: What the action plugin asks of the host; not for playbooks.
    type: dict
"""
