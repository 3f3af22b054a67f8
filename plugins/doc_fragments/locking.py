# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  lock_timeout:
    description: How long a statement may wait for a lock, in seconds. Writers never wait longer than this for a change.
    type: float
    default: 2.0
  lock_retries:
    description: How often a transaction that did not get its locks is tried again.
    type: int
    default: 5
"""
