# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A row as it is shipped: one line of JSON, in ASCII, which holds the row's canonical text as a text.

As a text, because what a collector makes of an object has other blanks, another order, other numbers, and another hash.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .seal import Seal

#: What is beside the text once more, to be searched for without parsing it.
SEARCHED = ("changed_at", "action", "schema_name", "table_name", "record_id", "changed_by", "db_user")

#: What files of a shipped seal are called, with its number.
FILE = "seal_{:012d}.jsonl.gz"
FILE_PREFIX, FILE_SUFFIX = "seal_", ".jsonl.gz"

# Where a row's documents begin, which all come after what is searched for: not within a text, whose quotes are escaped.
_DOCUMENTS = re.compile(rb',"(?:changed_columns|hidden_changes|context|old_values|new_values)(?:_text)?":')


class Message(NamedTuple):
    """A row on its way.

    :ivar id: the row's.
    :ivar changed_at: UTC, as the canonical text has it; empty where that cannot be parsed.
    :ivar text: the line of JSON.
    """

    id: int
    changed_at: str
    action: str
    text: str


class Shipped(NamedTuple):
    """What a line says that was shipped.

    :ivar seal: number of the seal that the row is said to be in.
    :ivar leaf: SHA-256 (hex) that the row is said to have.
    :ivar row: its canonical text.
    """

    chain: str
    seal: int
    leaf: str
    row: bytes


def message(number: int, line: bytes, seal: Seal, origin: Mapping[str, str]) -> Message:
    """Return a row as it is shipped.

    :param number: the row's id.
    :param line: its canonical text.
    :param origin: `server` and `database`, as people call them.
    """
    row = _parsed(line)
    fields = {
        **origin,
        "chain": seal.chain,
        "seal": seal.number,
        "id": number,
        **{name: row[name] for name in SEARCHED if name in row},
        "leaf": hashlib.sha256(line).hexdigest(),
        # A database that takes any bytes has rows that are no UTF-8.
        "row": line.decode(errors="surrogateescape"),
    }
    text = json.dumps(fields, separators=(",", ":"))
    return Message(number, str(row.get("changed_at", "")), str(row.get("action", "")), text)


def _parsed(line: bytes) -> dict[str, Any]:
    """Return what is in a row's canonical text before its documents; nothing when that is none.

    The documents are left out because some are what only MariaDB reads, and because they are nearly all of the line.
    """
    documents = _DOCUMENTS.search(line)
    if documents:
        line = line[: documents.start()] + b"}"
    try:
        row = json.loads(line.decode(errors="surrogateescape"))
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def parse(line: bytes) -> Shipped | None:
    """Return what a line says, or None when it is none that was shipped.

    Collectors wrap what they export: `_source`, `result`, `event`. What is one level deeper is found too.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    fields = _fields(found)
    if fields is None:
        return None
    try:
        row = fields["row"].encode(errors="surrogateescape")
        return Shipped(str(fields.get("chain", "")), int(fields["seal"]), str(fields.get("leaf", "")), row)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None


def _fields(found: Any) -> Mapping[str, Any] | None:
    """Return the object that has `seal` and `row`, here or one level deeper."""
    if not isinstance(found, dict):
        return None
    for fields in (found, *found.values()):
        if isinstance(fields, dict) and "seal" in fields and "row" in fields:
            return fields
    return None
