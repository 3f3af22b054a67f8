# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  interval:
    description: Length of a partition. Periods begin and end in UTC.
    type: str
    choices: [month, week, day]
    default: month
  ahead:
    description: How many whole periods after the current one are made ahead of time.
    type: int
    default: 3
"""
