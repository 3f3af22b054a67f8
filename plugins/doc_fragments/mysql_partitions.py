# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  event:
    description:
      - Whether an event of the server keeps the partitions up, once a day, by C(CALL audit.maintain_partitions()). It
        runs where C(event_scheduler) is on; turn this off where a timer of the host does it instead.
    type: bool
    default: true
"""
