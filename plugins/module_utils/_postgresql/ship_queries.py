# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What shipping asks of the server. ``{schema}`` is the trail's schema."""

from __future__ import annotations

from .seal_queries import CHANNEL

#: By the day as well as by ids, so that no more partitions are read than the one that the day lies in.
OF_DAY = """(
  SELECT * FROM {rows} AS d
  WHERE d.changed_at >= {day}::timestamp AT TIME ZONE 'UTC'
    AND d.changed_at < ({day}::timestamp + interval '1 day') AT TIME ZONE 'UTC')"""

LEAVES = """
SELECT c.number, c.leaves FROM {schema}.seal AS c WHERE c.kind = 'rows' AND c.number = ANY ({numbers}::bigint[])
"""

#: Rows that are being moved cannot be seen; whoever moves them has to end first.
STILL = "SELECT pg_advisory_lock_shared({lock_class}, {lock_object})"
MOVING = "SELECT to_regclass({moving}) IS NOT NULL AS moving"

LISTEN = f"LISTEN {CHANNEL}"
LAST = "SELECT coalesce(max(c.number), 0) AS number FROM {schema}.seal AS c WHERE c.signature IS NOT NULL"
