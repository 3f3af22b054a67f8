# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  signing_key:
    description: Ed25519 private key on the controller, a PEM file as C(openssl genpkey -algorithm ed25519) makes it.
    type: path
  signing_key_content:
    description: The private key as text, from a vault for example, instead of O(signing_key).
    type: str
  signing_key_passphrase:
    description: What the private key is encrypted with, if it is.
    type: str
  previous_signing_key:
    description: The old private key, needed once to change keys; both keys sign the change.
    type: path
  previous_signing_key_content:
    description: The old private key as text.
    type: str
  previous_signing_key_passphrase:
    description: What the old private key is encrypted with, if it is.
    type: str
  block_rows:
    description: Ids that one seal is made of at most.
    type: int
    default: 100000
"""
