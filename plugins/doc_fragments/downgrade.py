# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  allow_downgrade:
    description:
      - A trail that a newer release of the collection has made is refused, because its functions would be put back to
        those of this release. V(true) does just that. No row is lost, and columns and tables that only the newer
        release knows stay.
    type: bool
    default: false
"""
