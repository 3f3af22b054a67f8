# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Leaves of rows made into blocks, and compared with those of blocks. Pure: the server has done the hashing."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from .._core.seal import ranges

#: Bytes of a leaf.
LEAF = 32

_RECORD = struct.Struct(f">qq{LEAF}s")
_EPOCH = datetime(1970, 1, 1)
_DAY = 86_400_000_000


class Row(NamedTuple):
    """What of a row leaves the server.

    :ivar changed_at: microseconds since 1970-01-01, UTC.
    :ivar leaf: the SHA-256 of its text.
    """

    id: int
    changed_at: int
    leaf: bytes


def unpack(packed: bytes) -> list[Row]:
    """Return the rows of one packed value, by id."""
    return sorted(map(Row._make, _RECORD.iter_unpack(packed)))


def microseconds(text: str) -> int:
    """Return a time in ISO 8601, without a zone, as microseconds since 1970."""
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


def moment(changed_at: int) -> datetime:
    """Return microseconds since 1970 as the time that they are."""
    return _EPOCH + timedelta(microseconds=changed_at)


@dataclass(frozen=True)
class NewBlock:
    """Rows of one day that are to be sealed."""

    period: str
    ids: list[tuple[int, int]]
    leaves: bytes
    #: Rows whose time is before that of the last mark.
    backdated: list[Row]

    @property
    def root(self) -> bytes:
        return hashlib.sha256(self.leaves).digest()

    @property
    def rows(self) -> int:
        return len(self.leaves) // LEAF


def new_blocks(rows: Iterable[Row], earliest: int | None) -> list[NewBlock]:
    """Return the blocks of rows given by id, one a day. Of rows with the same id, the first is sealed.

    :param earliest: the time before which no row can have been recorded, in microseconds, if it is known.
    """
    days: dict[int, list[Row]] = {}
    last = None
    for row in rows:
        if row.id != last:
            days.setdefault(row.changed_at // _DAY, []).append(row)
        last = row.id
    return [
        NewBlock(
            moment(day * _DAY).strftime("%Y-%m-%d"),
            ranges(row.id for row in found),
            b"".join(row.leaf for row in found),
            [row for row in found if earliest is not None and row.changed_at < earliest],
        )
        for day, found in days.items()
    ]


def unsealed(ids: Iterable[int], sealed: Sequence[Sequence[int]]) -> list[int]:
    """Return the ids, given in order, that no pair of first and last has in it."""
    pairs = sorted((first, last) for first, last in sealed)
    missing, position = [], 0
    for number in ids:
        while position < len(pairs) and pairs[position][1] < number:
            position += 1
        if position == len(pairs) or number < pairs[position][0]:
            missing.append(number)
    return missing


class Sealed(NamedTuple):
    """What a block says of one row."""

    leaf: bytes
    block: int
    exempt: bool


def sealed_rows(
    blocks: Iterable[tuple[int, Sequence[Sequence[int]], bytes]],
    after: int,
    until: int,
    exempt: Sequence[Sequence[int]],
) -> dict[int, Sealed]:
    """Return what blocks (number, ids, leaves) say of the ids after one up to another.

    :param exempt: pairs of first and last number of blocks whose rows have left the log.
    """
    found = {}
    for number, ids, leaves in blocks:
        gone = any(first <= number <= last for first, last in exempt)
        position = 0
        for first, last in ids:
            for row in range(max(first, after + 1), min(last, until) + 1):
                place = (position + row - first) * LEAF
                found[row] = Sealed(leaves[place : place + LEAF], number, gone)
            position += last - first + 1
    return found


@dataclass
class Comparison:
    """Rows of the log beside what blocks say of them.

    :ivar watermark: the id up to which every row is in a block.
    :ivar rows: how many were compared.
    :ivar waiting: rows above the watermark that are in no block, by id.
    :ivar findings: type, id, leaf (hex) and block of each row that is not as it was sealed.
    """

    sealed: dict[int, Sealed]
    watermark: int
    rows: int = 0
    waiting: list[Row] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)

    def add(self, rows: Sequence[Row]) -> None:
        """Compare rows, given by id; all rows with one id come at once."""
        self.rows += len(rows)
        doubled = _doubled(rows)
        last = None
        for row in rows:
            known = None if row.id == last else self.sealed.pop(row.id, None)
            if row.id == last:
                continue
            last = row.id
            if row.id in doubled:
                self._found("duplicate_id", row, known)
            elif known is None and row.id > self.watermark:
                self.waiting.append(row)
            elif known is None:
                self._found("inserted_row", row, None)
            elif known.leaf != row.leaf:
                self._found("modified_row", row, known)

    def end(self, next_id: int) -> None:
        """Say that there are no more rows, and which id has not been handed out."""
        for row in self.waiting:
            if row.id >= next_id:
                self._found("inserted_row", row, None)
        self.waiting = [row for row in self.waiting if row.id < next_id]
        for number, known in self.sealed.items():
            if not known.exempt:
                self.findings.append({"type": "deleted_row", "id": number, "leaf": None, "block": known.block})
        self.findings.sort(key=lambda finding: finding["id"])

    def _found(self, kind: str, row: Row, known: Sealed | None) -> None:
        block = known.block if known else None
        self.findings.append({"type": kind, "id": row.id, "leaf": row.leaf.hex(), "block": block})


def _doubled(rows: Sequence[Row]) -> Collection[int]:
    return {row.id for row, following in zip(rows, rows[1:]) if row.id == following.id}
