# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The roles that every audit trail of a cluster belongs to. None of them can log in."""

from __future__ import annotations

OWNER = "audit_owner"
WRITER = "audit_writer"
READER = "audit_reader"

#: What COMMENT ON ROLE says of each, in the order in which they are made.
ROLES = {
    OWNER: "owns the audit trail",
    WRITER: "owns the capture functions; may only add to the log",
    READER: "may read the audit trail",
}
