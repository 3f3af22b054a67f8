# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  action:
    description: Files, keys and ledger are the controller's; the host only sends rows, and drops what it is told to.
    support: full
  check_mode:
    description: Names what is due and the statements that would drop it. Neither seals nor writes anything.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
options:
  url:
    description:
      - Where archives go, a directory of the controller that exists (an absolute path, or V(file:///mnt/archive)) or
        object storage (V(s3://bucket/audit), V(abfs://container@account.dfs.core.windows.net/audit)). Must be given.
      - The files of a log are in C(SERVER/DATABASE) below it; what is no letter, digit, C(_), C(-), C(.) or C(~) in a
        name is percent-encoded, as is a dot at its beginning.
      - Object storage needs C(fsspec) in the controller's Python, with C(s3fs) or C(adlfs). Credentials are those of
        these libraries, from the environment of the controller or its files, or in O(storage_options).
    type: str
  server:
    description: Name of the server in paths; the host's name in the inventory unless given.
    type: str
  older_than:
    description:
      - How long rows stay in the log whose category says nothing else, counted from the end of their partition's
        period. A number of days, weeks, months or years, as V(90d), V(26w), V(13mo), V(7y).
      - V(0d) archives every row, of whatever category, and the present period too. It is refused until auditing was
        taken out, for nothing could be written to the log afterwards.
    type: str
    default: 13mo
  retention:
    description:
      - Ages by category, which is what RV(ignore:retention) of a policy says. Either an age, after which the archive
        deletes rows (they stay in the log for O(older_than), if that is shorter), or C(database) and C(archive), each
        an age; without C(archive) they are never deleted. V(default) is the category of rows that have none.
      - A partition's rows go together, so that the longest age of all categories in it counts.
      - Once there are any, a category that rows have and that is not in it fails the task.
    type: dict
    default: {}
  holds:
    description:
      - Legal holds. While one applies to a row, its partition is not dropped and its archive not deleted, and the
        result says so. Rows are held that have all of what the hold names.
    type: list
    elements: dict
    default: []
    suboptions:
      reason:
        description: For which case it is. Must be given.
        type: str
      table:
        description: Pattern of C(schema.table), as in a policy.
        type: str
      record_id:
        description: As in the log.
        type: str
      changed_by:
        description: As in the log; compared with C(db_user) too.
        type: str
  drop:
    description: Whether to drop a partition once its archive is there, read back and found to be what was sealed.
    type: bool
    default: false
  format:
    description:
      - V(parquet) writes, beside each archive, the same rows as Parquet for analytics engines, in
        C(host=SERVER/db=DATABASE/month=YYYY-MM) below O(url). Needs C(pyarrow) in the controller's Python. Evidence is
        the archive itself, which is written whatever this says.
    type: str
    choices: [jsonl, parquet]
    default: jsonl
  parallel:
    description: Partitions that are exported at once, each by a connection of its own; of all logs of the task.
    type: int
    default: 2
  ledger:
    description:
      - The log's ledger, a path on the controller or a URL. Must be given, and O(signing_key) or
        O(signing_key_content) with it; that rows leave the log is signed, into the ledger.
    type: str
"""
