# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A ledger as a file: one signed seal a line."""

from __future__ import annotations

import os

from .errors import AuditError
from .seal import Entry


def read_ledger(path: str, must_exist: bool = False) -> tuple[list[Entry], list[str]]:
    """Return all entries, and what each line calls its own digest. A line that a crash has cut off is no line.

    :raises AuditError: when a line is none of a ledger, or when there is no file and there must be one.
    """
    entries: list[Entry] = []
    digests: list[str] = []
    if not (must_exist or os.path.exists(path)):
        return entries, digests
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.endswith("\n"):
                    entry, digest = Entry.parse(line, f"line {number} of {path}")
                    entries.append(entry)
                    digests.append(digest)
    except OSError as error:
        raise AuditError(f"the ledger {path} cannot be read: {error.strerror}") from None
    return entries, digests
