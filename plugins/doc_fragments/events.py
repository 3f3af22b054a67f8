# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  table:
    description:
      - Name of the audited table, or C(schema.table); what stands before the first dot is the schema, on MariaDB and
        MySQL the database. Names are written as the log holds them, without quotes.
    type: str
  record_id:
    description:
      - Key of the changed row, as the log's C(record_id) holds it. Give O(table) with it, so that the index on both is
        used.
    type: str
  changed_by:
    description: Who made the change, as the application has said it, or else the login.
    type: str
  db_user:
    description: The login that made the change.
    type: str
  transaction_id:
    description: The transaction that the change belongs to, as an event has it.
    type: str
  actions:
    description:
      - What was done, in upper or lower case. Of rows V(INSERT), V(UPDATE), V(DELETE) and V(TRUNCATE); beside them
        V(DDL), V(LOGIN), and V(EVENT) for what an application has reported.
    type: list
    elements: str
  values:
    description:
      - What columns of the audited table held, before or after the change, by the columns' names. Where several are
        named, each must hold its value, on whichever side of the change.
      - Values are compared as text, in the log's spelling (V("1.10") is not V("1.1")). Redacted columns match nothing.
      - No index helps here; narrow the search with O(since), O(table) or O(changed_by).
    type: dict
  since:
    description:
      - The earliest time, included. A date or date-time of ISO 8601 (V(2026-11-01), V(2026-11-01T08:30:00+01:00)), in
        UTC where it names no zone, or an interval back from now on the host that runs the module, in seconds, minutes,
        hours, days or weeks (V(30s), V(90m), V(24h), V(7d), V(4w)).
      - Partitions of the log that lie outside O(since) and O(until) are not read.
    type: str
  until:
    description: The time, in the same forms, at which the range ends; an event at that very time is left out.
    type: str
  order:
    description: Whether the oldest or the latest events come first. Those of the same time are ordered by their ids.
    type: str
    choices: [asc, desc]
    default: asc
  limit:
    description: How many events to return at most, 1 to 10000. An export has no limit.
    type: int
    default: 100
  after:
    description:
      - Return only events behind this one in O(order), which is RV(next) of the page before, or C(changed_at,id) of any
        event. Pages neither skip nor repeat an event, whatever is added meanwhile; but an event is dated when its
        change was made, and a transaction that commits late can add some before a place that was read already.
    type: str
  count:
    description: Whether to count all events that match, in a second query, and return RV(total).
    type: bool
    default: false
  dest:
    description:
      - Path of a file on the host that runs the module, to write all events that match to, instead of returning them.
        Its directory must exist.
      - The file can be read by its owner alone (mode 0600) from its first byte, and appears under its name when it is
        complete and on disk; one that holds the same already is left alone. Memory use does not grow with the number
        of events.
    type: path
  format:
    description:
      - Format of O(dest). V(jsonl) is one JSON object a line and exact; documents are the server's own text. One that
        only MariaDB reads (C([1e])) is a text.
      - V(csv) is RFC 4180 with a header; documents are JSON text, NULL is nothing and an empty text C(""). A text that
        a spreadsheet would calculate (one that begins with C(=), C(+), C(-), C(@), a tab or a carriage return and is no
        plain number) gets an apostrophe in front.
    type: str
    choices: [jsonl, csv]
    default: jsonl
notes:
  - The login needs SELECT on the view C(audit_log) and no more, as those have that are among the C(readers) of the
    trail.
  - A task shows nothing while it runs. With C(async) and C(poll), Ansible prints a line at every poll.
"""
