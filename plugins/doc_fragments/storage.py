# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  storage:
    description:
      - How object storage is to keep files.
    type: dict
    default: {}
    suboptions:
      encryption:
        description: Server-side encryption of S3, V(AES256) or V(aws:kms).
        type: str
      encryption_key:
        description: Identifier of the KMS key, of S3.
        type: str
      storage_class:
        description:
          - Of S3, for example V(STANDARD_IA) or V(GLACIER_IR); of Azure the tier, V(Hot), V(Cool) or V(Cold). One that
            has to be restored before it is read is refused, for it could not be read back.
        type: str
      lock:
        description:
          - V(governance) or V(compliance), to have the storage refuse that a file is deleted before its time is over.
            On S3 the bucket needs Object Lock. On Azure it is an immutability policy, unlocked or locked, and the
            container needs version-level immutability.
        type: str
      lifecycle:
        description:
          - Whether the bucket is to delete files itself when their time is over, by rules that this module
            adds to those it has, and a tag. Of S3. Files that a hold may apply to lose the tag.
        type: bool
  storage_options:
    description: Options of the storage's library, for example V(endpoint_url) or credentials.
    type: dict
    default: {}
"""
