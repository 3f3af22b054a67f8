# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recorded values as SQL: the way back from what column.py writes into a record. Needs no server but its quoting."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from .._core.json_text import end_of_value, is_readable
from .._core.sql import Quoter
from .column import BINARY, GEOMETRIES, NUMBERS, Column

_DECODER = json.JSONDecoder()
_GAP = re.compile(r"[\s,:]*")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_GEOMETRY = re.compile(r"SRID=(\d+);(.*)", re.ASCII | re.DOTALL)
_DIGEST = re.compile(r"hmac-sha256:[0-9a-f]{64}", re.ASCII)

_NUMERIC = (*NUMBERS, "float", "double", "bit", "year")
_DOCUMENTS = ("json", "json_text")


def members(document: str) -> dict[str, str]:
    """Return the members of a JSON object, each value as the text that stands there, to the last digit."""
    found = {}
    place = _GAP.match(document, 1).end()  # type: ignore[union-attr]
    while document[place] != "}":
        name, place = _DECODER.raw_decode(document, place)
        start = _GAP.match(document, place).end()  # type: ignore[union-attr]
        place = end_of_value(document, start)
        found[name] = document[start:place]
        place = _GAP.match(document, place).end()  # type: ignore[union-attr]
    return found


def scalars(array: str) -> list[str]:
    """Return the elements of a JSON array of scalars as texts, numbers as they are written."""
    return [str(value) for value in json.loads(array, parse_int=str, parse_float=str)]


def masked(value: str) -> str | None:
    """Return why a recorded value, as JSON text, is not the one that the table had, or None."""
    if value == '"[REDACTED]"':
        return "redacted"
    if _DIGEST.fullmatch(value[1:-1]):
        return "hashed"
    if value.startswith("{") and is_readable(value):
        document = json.loads(value)
        if document.get("omitted") == "too large" and "sha256" in document:
            return "too large"
    return None


def same(column: Column, one: str, other: str) -> bool:
    """Tell whether two recorded values, as JSON text, are the same."""
    if one == other:
        return True
    return column.kind in _DOCUMENTS and _exactly(one) == _exactly(other)


def literal(column: Column, value: str, quoter: Quoter) -> str:
    """Return a recorded value, as JSON text, as the SQL that gives the column the same value."""
    if value == "null":
        return "NULL"
    if column.kind in _DOCUMENTS:
        return quoter.literal(value)
    text = json.loads(value) if value.startswith('"') else value
    if column.kind in _NUMERIC and _NUMBER.fullmatch(text):
        return text
    if column.kind in BINARY:
        return f"FROM_BASE64({quoter.literal(text)})"
    geometry = _GEOMETRY.fullmatch(text) if column.kind in GEOMETRIES else None
    if geometry:
        return f"ST_GeomFromText({quoter.literal(geometry.group(2))}, {geometry.group(1)})"
    return quoter.literal(text)


def condition(column: Column, value: str, quoter: Quoter, is_key: bool) -> str:
    """Return the condition that a column holds a value, given as :func:`literal` has written it.

    Text is compared byte by byte, because a collation calls `a` and `A` equal; in the key it is, for the index.
    """
    name = quoter.identifier(column.name)
    if is_key:
        return f"{name} = {value}"
    if column.kind == "json":
        return f"{name} <=> CAST({value} AS JSON)"
    if column.kind == "json_text":
        return f"JSON_COMPACT({name}) <=> JSON_COMPACT({value})"
    if column.charset:
        return f"CAST(CONVERT({name} USING utf8mb4) AS BINARY) <=> CAST({value} AS BINARY)"
    return f"{name} <=> {value}"


def image_of(document: str) -> Mapping[str, str | None]:
    """Return the columns of an image, each with the reason why its value cannot be restored, or None."""
    return {name: masked(value) for name, value in members(document).items()}


def _exactly(value: str) -> Any:
    # What only MariaDB reads, and numbers, as marked texts: 1.0 is not 1, and neither is "1".
    if not is_readable(value):
        return ("unreadable", value)
    return json.loads(value, parse_int=lambda digits: ("number", digits), parse_float=lambda digits: ("number", digits))
