# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  action:
    description: Keys and ledger stay on the controller; the host only sees signatures.
    support: full
  check_mode:
    description: Says how many ids there are to look through; seals and signs nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
options:
  ledger:
    description:
      - Path on the controller of the file that seals are added to, one line each. Must be given; made, with its
        directory, when it is missing.
      - Or a URL (V(s3://bucket/ledger/pg3/shop), V(abfs://...)) below which every addition becomes an object; the
        controller's Python then needs C(fsspec) with C(s3fs) or C(adlfs). A bucket that locks its objects makes the
        ledger one that nobody can cut. Of two controllers that seal one log at the same moment, one is refused.
      - Whoever can change both the database and this file can still not sign. Who can cut the ends off both can make
        the last seals be forgotten, so copy the file to where nobody can.
    type: str
  resync:
    description:
      - A reason. Accepts the database as it is now, with a signed entry that says so. For a restore to an earlier time,
        a failover that lost the last seals, or rows that were taken out on purpose.
      - Every problem that there is at this moment is named in the entry; verification reports it no more. Others it
        does.
    type: str
"""
