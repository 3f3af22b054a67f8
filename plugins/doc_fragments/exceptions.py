# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  exceptions:
    description: Tables that are deliberately not audited. They are reported, as expired once their last day is over.
    type: list
    elements: dict
    default: []
    suboptions:
      table:
        description:
          - Pattern on C(schema.table). M(dbfleet.audit.postgresql_audit_info), which asks several databases, takes
            patterns on C(database.schema.table).
        type: str
        required: true
      reason:
        description: Why the table is not audited.
        type: str
        required: true
      approved_by:
        description: Who decided so.
        type: str
        required: true
      until:
        description: Last day of the exception, as V(2027-03-31).
        type: str
"""
