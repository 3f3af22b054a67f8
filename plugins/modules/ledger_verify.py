#!/usr/bin/python
# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ledger_verify
short_description: Verify a ledger of seals, and archives and shipped copies of the rows, without a database
description:
  - Compares a ledger's chain and signatures with public keys, and archives with the ledger. It needs these files and
    nothing else, so an auditor can run it years after the database is gone.
  - An archive has the canonical text of a row in each line, in the order of their ids, compressed with gzip or not.
    Each is read once; no more of it is kept in memory than one hash for each seal.
  - A ledger has one hash for all rows of a seal. Lines that were changed are named by their seal, lines that are
    missing or were added by their id as well.
version_added: 0.1.0
author:
  - dbfleet.audit contributors (@dbfleet)
attributes:
  check_mode:
    description: It only reads, in check mode too.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
options:
  ledger:
    description: Ledger of one log.
    type: path
    required: true
  public_key:
    description:
      - Ed25519 public keys, PEM files as C(openssl pkey -pubout) makes them. One is enough after changes of the key.
    type: list
    elements: path
    required: true
  archives:
    description:
      - Archives of the same log, or directories that have them, by their names. Without any, the ledger alone is
        verified.
      - The rows of a day are in one of them, or in several that are named in the order of their ids.
    type: list
    elements: path
    default: []
  shipped:
    description:
      - Rows of the same log as they were shipped, by M(dbfleet.audit.postgresql_audit_ship) or its twin for MariaDB and
        MySQL. Directories or URLs (V(s3://bucket/trail/pg3/shop)) that seals were shipped to, or files of what a
        collector has exported, one JSON object a line, compressed with gzip or not.
      - What counts in a line is C(seal), C(row), C(leaf) and C(chain), in the object itself or one level deeper
        (C(_source), C(result)). Lines may come in any order and more than once. Those of other logs are left out, and
        counted.
      - All rows of the seals from the first that has any to the last must be there, and there must be some. About 33
        bytes of memory are needed for each row.
      - A URL needs C(fsspec) in the Python of the host that runs this, with C(s3fs) or C(adlfs), and credentials in its
        environment.
    type: list
    elements: path
    default: []
  first_day:
    description:
      - First day, in UTC, of which all rows must be there, as V(2026-10-01); that of the first row in the archives
        unless given. With O(shipped), the first day of which seals must be there whatever came.
    type: str
  last_day:
    description: Last day of which all rows must be there; that of the last row in the archives unless given.
    type: str
  digest:
    description:
      - Digest of a seal that was noted at some time. The ledger must have it, or its end was cut off since, or all of
        it was made anew.
    type: str
  fail_on_problem:
    description: Whether a problem makes the module fail. Either way it returns them.
    type: bool
    default: true
requirements:
  - cryptography
seealso:
  - module: dbfleet.audit.postgresql_audit_verify
    description: Compares the ledger with the database itself, and names each row.
"""

EXAMPLES = r"""
- name: Verify last year without a database
  dbfleet.audit.ledger_verify:
    ledger: /mnt/copy/pg3/shop.jsonl
    public_key: [/mnt/copy/seal.pub]
    archives:
      - /mnt/archive/pg3/shop/audit_log_2025_01.jsonl.gz
      - /mnt/archive/pg3/shop/audit_log_2025_02.jsonl.gz
    first_day: "2025-01-01"
    last_day: "2025-02-28"

- name: Verify what the SIEM has kept of last week
  dbfleet.audit.ledger_verify:
    ledger: /mnt/copy/pg3/shop.jsonl
    public_key: [/mnt/copy/seal.pub]
    shipped: [/tmp/siem-export.jsonl]
"""

RETURN = r"""
valid:
  description: Whether no problem was found.
  returned: always
  type: bool
  sample: true
problems:
  description:
    - What is not as it was. C(type) is one of those of M(dbfleet.audit.postgresql_audit_verify), or V(unreadable_line).
      C(block) is the number of the seal, C(id) that of a row, where they are known.
  returned: always
  type: list
  elements: dict
  sample: [{"type": "modified_row", "block": 7, "detail": "seal 7: a row of these is not what was sealed: 501-730"}]
seals:
  description: Number of the ledger's seals.
  returned: always
  type: int
  sample: 812
shipped:
  description:
    - What came of O(shipped). C(rows) were compared with a seal, C(duplicates) of them had come before,
      C(of_other_logs) were left out. C(whole_seals) are the numbers of the seals all of whose rows are there and what
      was sealed, as pairs of first and last. C(accepted_seals) are those of which a resync has accepted changed or
      missing rows, so that the ledger cannot prove the others any more. C(absent_seals) are those before the first and
      after the last that anything came of.
  returned: with O(shipped)
  type: dict
  sample:
    rows: 1204
    duplicates: 3
    of_other_logs: 0
    whole_seals: [[812, 814]]
    accepted_seals: []
    absent_seals: [[1, 811]]
rows_checked:
  description: Number of lines that were compared with a seal.
  returned: always
  type: int
  sample: 1820441
last_digest:
  description: Digest of the last seal; null without any.
  returned: always
  type: str
  sample: 5f0b2c1d9f0e4a4c8e2f6b9d8a7c5e3f1b0d2c4e6f8a9b7c5d3e1f0a2b4c6d8e
last_sealed_at:
  description: When it was made, UTC; null without any.
  returned: always
  type: str
  sample: "2026-11-20T19:03:07.123456Z"
seconds:
  description: How long the module ran, in seconds.
  returned: always
  type: float
  sample: 4.2
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dbfleet.audit.plugins.module_utils._core.ledger_module import LEDGER_SPEC, check


def main() -> None:
    check(AnsibleModule(LEDGER_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
