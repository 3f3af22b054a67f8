# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  checks:
    description:
      - Checks of your own. Each is asked in a transaction that cannot write, for 60 seconds at most; one that fails is
        not ok, and leaves the others.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What the result calls it.
        type: str
        required: true
      query:
        description:
          - One SELECT that gives one number. It names tables with their schemas, for nothing but the server's own
            catalogue is on its path.
        type: str
        required: true
      threshold:
        description: The largest number that is ok. NaN and infinity are never ok, as a threshold either.
        type: float
        required: true
      databases:
        description:
          - Names or glob patterns of the databases to ask it in, of those that are asked at all. A MariaDB or MySQL
            server is asked once, whatever stands here.
          - A pattern that matches none of them is reported as a check that is not ok, so that a misspelt name is seen.
            Give a check for one database to those hosts that have it.
        type: list
        elements: str
        default: ["*"]
"""
