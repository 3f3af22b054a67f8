# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one shape of everything that was recorded, wherever it comes from: a log's row or a line of a server's log."""

from __future__ import annotations

#: The keys of an event, in the order in which it is written out. A source that cannot know one says None.
EVENT_FIELDS = (
    "id",
    "changed_at",
    "transaction_id",
    "action",
    "schema_name",
    "table_name",
    "record_id",
    "old_values",
    "new_values",
    "changed_columns",
    "changed_by",
    "db_user",
    "client_ip",
    "application_name",
    "context",
    "policy_id",
)
