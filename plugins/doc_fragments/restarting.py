# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Says that it would restart the server, and does not.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
options:
  process:
    description: Number of the server's process.
    type: int
    required: true
  ready:
    description: Command, as a list, that exits with 0 as soon as the server takes connections.
    type: list
    elements: str
    required: true
  logs:
    description:
      - Paths of files that the server logs into, to show what it says when it fails. The file behind its standard
        error, and the journal of its unit, are looked at anyway.
    type: list
    elements: path
    default: []
  timeout:
    description: How long the server may take to come up, in seconds.
    type: float
    default: 60.0
"""
