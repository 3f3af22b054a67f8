# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A row of the log as the server writes it, and as an event for people, programs and spreadsheets.

A row has a text, or None, for each of :data:`EVENT_FIELDS`; documents are the server's own JSON text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from .event import EVENT_FIELDS
from .json_text import is_readable

Row = Sequence[Optional[str]]

#: Fields whose text is JSON, and fields whose text is a number.
DOCUMENTS = frozenset({"old_values", "new_values", "changed_columns", "context"})
NUMBERS = frozenset({"id", "policy_id"})

#: What Ansible's own reading of a result takes without trouble; a document from an application may be anything.
MAXIMUM_DEPTH = 64
MAXIMUM_DIGITS = 1000

CSV_HEADER = ",".join(EVENT_FIELDS) + "\r\n"

_KEYS = tuple(json.dumps(name) for name in EVENT_FIELDS)
_VERBATIM = tuple(name in DOCUMENTS or name in NUMBERS for name in EVENT_FIELDS)
_encode = json.JSONEncoder(ensure_ascii=False).encode

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_SPECIAL = re.compile(r'[",\r\n]')
_FORMULA = re.compile(r"[=+\-@\t\r]")
_PLAIN_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


def as_event(row: Row) -> dict[str, Any]:
    """Return a row as an event.

    A number with a fraction stays a text, with all its digits: Ansible would round it. So does a whole number of more
    than 1,000 digits, and a document that is nested more than 64 deep or that only MariaDB reads.
    """
    return {name: _value(name, text) for name, text in zip(EVENT_FIELDS, row)}


def as_row(event: Mapping[str, Any]) -> Row:
    """Return an event as a row, for an export of what no server has written as one."""
    return [_text(name, event[name]) for name in EVENT_FIELDS]


def as_json(row: Row) -> str:
    """Return a row as a line of JSON in which documents are the server's text, unaltered.

    One that only MariaDB reads stands there as a text, for nobody could read the line otherwise.
    """
    values = ("null" if text is None else _json(text, verbatim) for text, verbatim in zip(row, _VERBATIM))
    return "{" + ", ".join(f"{key}: {value}" for key, value in zip(_KEYS, values)) + "}\n"


def as_csv(row: Row) -> str:
    """Return a row as a line of RFC 4180: documents as JSON text, NULL as nothing, an empty text as two quotes.

    A text that a spreadsheet would calculate gets an apostrophe in front of it.
    """
    return ",".join("" if text is None else _cell(text) for text in row) + "\r\n"


def _value(name: str, text: str | None) -> Any:
    if text is None:
        return None
    if name in NUMBERS:
        return int(text)
    if name in DOCUMENTS and _depth(text) <= MAXIMUM_DEPTH and is_readable(text):
        return json.loads(text, parse_float=str, parse_int=_whole)
    return text


def _text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if name in DOCUMENTS:
        return _encode(value)
    return str(value) if name in NUMBERS else value


def _whole(digits: str) -> int | str:
    # Python refuses to read very long ones.
    return int(digits) if len(digits) <= MAXIMUM_DIGITS else digits


def _depth(text: str) -> int:
    """Return how deep a document is nested; without looking closer, where it has few brackets, how deep at most."""
    at_most = text.count("[") + text.count("{")
    if at_most <= MAXIMUM_DEPTH:
        return at_most
    depth = deepest = 0
    for token in _TOKEN.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token.group(), 0)
        deepest = max(depth, deepest)
    return deepest


def _json(text: str, verbatim: bool) -> str:
    if not verbatim or not is_readable(text):
        return _encode(text)
    # Inside JSON, a line break is white space: MariaDB keeps documents as they were given.
    return text.replace("\r", " ").replace("\n", " ")


def _cell(text: str) -> str:
    if _FORMULA.match(text) and not _PLAIN_NUMBER.fullmatch(text):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if not text or _SPECIAL.search(text) else text
