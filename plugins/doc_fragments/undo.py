# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Returns the statements and never executes them, whatever O(execute) says.
    support: full
  diff_mode:
    description: Shows the statements.
    support: full
options:
  table:
    description:
      - The audited table, as V(schema.table), on MariaDB and MySQL V(database.table). Names are written as the log
        holds them, without quotes.
    type: str
    required: true
  to:
    description:
      - The time to go back to; changes made later are undone. A date or date-time of ISO 8601 (V(2026-11-01),
        V(2026-11-01T08:30:00+01:00)), in UTC where it names no zone, or an interval back from now on the host that runs
        the module, in seconds, minutes, hours, days or weeks (V(90m), V(24h), V(7d)).
      - Required unless O(transaction_id) is given. A change has the time at which it was made, which is before the time
        at which its transaction was committed.
    type: str
  record_ids:
    description:
      - Only these records, named as in the log's C(record_id), which is the key's value as text; of a key of several
        columns, a JSON array such as V(["eu", 7]).
    type: list
    elements: str
  changed_by:
    description:
      - Undo only what this user has changed, as in the log's C(changed_by). A record is skipped if somebody else has
        changed the same columns later.
    type: str
  transaction_id:
    description:
      - Undo only what this transaction has changed, as in the log's C(transaction_id). A record is skipped if another
        transaction has changed the same columns later.
    type: str
  execute:
    description:
      - Execute the statements, all of them in one transaction. Should one fail, or meet a record that is not as it was
        when it was read, nothing is changed.
      - The log records these changes like any other, with C(business_process) V(audit undo) in their context.
    type: bool
    default: false
  limit:
    description: Refuse to undo more records than this, at least 1. Memory use grows with the records that are undone.
    type: int
    default: 1000
notes:
  - The login needs SELECT on the view C(audit_log), as the C(readers) of the trail have, SELECT on the table, and to
    execute, INSERT, UPDATE and DELETE on it.
  - The statements hold values of the table in clear, those that policies mask excepted. Give the task C(no_log) where
    its output must not hold them.
  - What the log does not hold cannot be restored, namely columns that a policy redacts, hashes or leaves out, and
    values too large for it. A comment above the statement names them. A record that could not be inserted without one
    is skipped.
  - Rows lost by TRUNCATE are not in the log. On PostgreSQL the module refuses to go back to a time before one. On
    MariaDB and MySQL no trigger sees it, so that rows which had not been changed otherwise are
    missing without a word.
  - The server runs triggers, checks and casts of the table as it does for every change by this login. Run the module as
    the table's owner and not as a superuser where its owner is not trusted.
"""
