# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  gather:
    description:
      - What to tell of the audit trails, as RV(trails).
      - V(coverage) is which tables are audited, and what auditing the others would add to the log; V(partitions) how
        far the log's partitions reach and how it grows; V(activity) who changed what between O(since) and O(until);
        V(seals) how far the log is sealed; V(grants) who may do what with the trail; V(settings) what decides, in the
        trail and on the server, over what is recorded.
      - A fixed number of queries a database, whatever the number of its tables. Sizes and numbers of rows are the
        server's estimates; V(activity) alone reads the log, and of it the partitions of that time.
    type: list
    elements: str
    choices: [coverage, partitions, activity, seals, grants, settings]
    default: []
  discover:
    description:
      - Whether to look, among the tables that are not audited, for those whose columns look like personal, financial or
        health data, credentials or access control, and to propose a policy for each. No value of a row is looked at.
    type: bool
    default: false
  since:
    description:
      - Where the time of V(activity) begins. A date or date-time of ISO 8601, in UTC where it names no zone, or an
        interval back from now in seconds, minutes, hours, days or weeks (V(24h), V(7d)).
    type: str
    default: 30d
  until:
    description: The time, in the same forms, at which it ends; a change at that very time is left out. V(0s) is now.
    type: str
    default: 0s
  office_hours:
    description:
      - Hours outside of which changes are made off-hours, in O(time_zone). Saturdays and Sundays are off-hours all day.
      - Hours that end before they begin go over midnight (V(22:00-06:00)).
    type: str
    default: "07:00-19:00"
  time_zone:
    description: Zone of O(office_hours), of days and of hours of the day, as V(Europe/Berlin).
    type: str
    default: UTC
  bulk_rows:
    description:
      - From how many changes of one table in one transaction on they are a bulk change; a TRUNCATE always is. On
        MariaDB and MySQL, where an application has not called C(audit.set_context()), changes of one minute by one user
        stand for a transaction.
    type: int
    default: 1000
notes:
  - The login need not be a superuser. What it may not read is none, and named in RV(limitations). A reader of the trail
    reads everything that is asked of it.
"""
