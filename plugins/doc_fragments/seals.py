# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  action:
    description: A part of this runs on the controller, where keys and ledgers are.
    support: full
options:
  ledger:
    description:
      - Path on the controller of the file, or the URL, that the seals of this log were added to.
      - Together with O(public_key) or O(public_key_content); without them, seals are not looked at.
    type: str
  public_key:
    description:
      - Ed25519 public keys on the controller, PEM files as C(openssl pkey -pubout) makes them.
      - One key is enough after changes of the key; the ledger leads from each to the next.
    type: list
    elements: path
    default: []
  public_key_content:
    description: Public keys as text.
    type: list
    elements: str
    default: []
  scope:
    description: All seals, or those since the last verification that found no problem (kept beside the ledger).
    type: str
    choices: [all, new]
    default: all
  from_id:
    description: Compare rows with this id or a higher one.
    type: int
    default: 0
  max_unsealed_hours:
    description: Hours that a row may be without a seal before this is a problem.
    type: float
    default: 24.0
"""
