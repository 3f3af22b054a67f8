# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  action:
    description: The controller reads and verifies the archive; the host only gets its rows.
    support: full
  async:
    description: The work is cut into calls that each end in time.
    support: none
  check_mode:
    description: Reads and verifies the archive, and makes no table.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
options:
  url:
    description: Where archives are, as the module that wrote them was told. Must be given.
    type: str
  server:
    description: Name of the server in paths; the host's name in the inventory unless given.
    type: str
  archive:
    description: Name of the archive, that of its files without what follows the dot. Must be given.
    type: str
  table:
    description: Name of the table to make; C(restored_) and the archive's name unless given.
    type: str
  ledger:
    description: The log's ledger, a path on the controller or a URL. Must be given.
    type: str
  public_key:
    description: Ed25519 public keys on the controller, PEM files. This, or O(public_key_content), must be given.
    type: list
    elements: path
    default: []
  public_key_content:
    description: Public keys as text.
    type: list
    elements: str
    default: []
  storage_options:
    description: Options of the storage's library, for example V(endpoint_url) or credentials.
    type: dict
    default: {}
  step:
    description: What the action plugin asks of the host; not for playbooks.
    type: dict
"""
