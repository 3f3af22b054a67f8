# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a ledger, and archives of the rows that it speaks of, are what they were: without a database.

An archive's lines are rows' canonical texts, in the order of their ids. They are read once, and no more of them is kept
than one hash for each seal.
"""

from __future__ import annotations

import bisect
import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from . import ledger_check
from .errors import AuditError
from .seal import ROWS, Entry, Seal, in_words, ranges, within
from .verification import Problem

#: What the names of an archive's file and of its manifest end with.
FILE_SUFFIX = ".jsonl.gz"
MANIFEST_SUFFIX = ".manifest.json"

#: Ids that a problem names.
NAMED = 20

#: Problems of rows that a run tells of, all archives together.
MOST = 1000

#: Problems that, accepted, make the hash of a seal's rows another one.
_OF_ROWS = ("modified_row", "deleted_row", "inserted_row", "duplicate_id")

_GZIP = b"\x1f\x8b"

#: Bytes of lines that are looked at together.
_PIECE = 1 << 18

#: How the canonical text of a row begins, on every engine.
ROW_ID = re.compile(rb'\{"id": ?(\d+)[,}]')


class Block:
    """A seal's rows, as lines come in.

    :ivar rows: lines that were read.
    :ivar next: the id that comes next, None after the last.
    :ivar missing: ids that were not there, the first of them.
    """

    def __init__(self, seal: Seal) -> None:
        self.seal = seal
        self.rows = self.absent = 0
        self.missing: list[int] = []
        self._root = hashlib.sha256()
        self._pairs = iter(seal.ids)
        self.next, self._last = next(self._pairs, (None, 0))

    def add(self, number: int, line: bytes) -> bool:
        """Take the line of an id; tell whether it is the first one of that id, in the order of ids."""
        while self.next is not None and self.next < number:
            self._pass(self.next)
        if self.next != number:
            return False
        self._root.update(hashlib.sha256(line).digest())
        self.rows += 1
        self._go_on(number)
        return True

    def finish(self) -> None:
        """Count what did not come."""
        while self.next is not None:
            self._pass(self.next)

    def intact(self) -> bool:
        """Tell whether the lines are those that were sealed."""
        return not self.absent and self._root.hexdigest() == self.seal.root

    def _pass(self, number: int) -> None:
        if len(self.missing) < NAMED:
            self.missing.append(number)
        self.absent += 1
        self._go_on(number)

    def _go_on(self, number: int) -> None:
        if number < self._last:
            self.next = number + 1
        else:
            self.next, self._last = next(self._pairs, (None, 0))


class ArchiveCheck:
    """The comparison of archives with a ledger.

    :param vouched: those of the ledger's entries that may explain or accept anything.
    :ivar rows: lines that were compared.
    """

    def __init__(self, entries: Sequence[Entry], vouched: Sequence[Entry]) -> None:
        self.rows = 0
        self.problems: list[Problem] = []
        self._accepted = ledger_check.accepted(vouched)
        self._blocks: dict[int, Block] = {}
        # After a restore, ids of seals that it took away are given to other rows.
        lost = ledger_check.lost_seals(vouched)
        self._seals = {
            entry.seal.number: entry.seal
            for entry in entries
            if entry.seal.kind == ROWS and not within(entry.seal.number, lost)
        }
        owned = sorted((first, last, seal.number) for seal in self._seals.values() for first, last in seal.ids)
        self._firsts = [first for first, _last, _number in owned]
        self._owned = owned

    def read(self, path: str) -> None:
        """Compare an archive's lines.

        :raises AuditError: when it cannot be read to its end.
        """
        self.take(lines_of(path), path)

    def take(self, lines: Iterable[bytes], name: str) -> None:
        """Compare lines, without their ends, of an archive of that name."""
        block: Block | None = None
        for position, line in enumerate(lines, 1):
            found = ROW_ID.match(line)
            if found and block and int(found[1]) == block.next:
                # As nearly always: the next row of the same seal.
                block.add(block.next, line)
                self.rows += 1
            else:
                block = self._line(line, f"line {position} of {name}")

    @property
    def seals(self) -> list[int]:
        """The numbers of the seals of rows that came, or had to come."""
        return sorted(self._blocks)

    @property
    def last_day(self) -> str | None:
        """The last day of rows that came, or had to come."""
        return max((block.seal.period or "" for block in self._blocks.values()), default=None)

    def finish(self, first_day: str | None, last_day: str | None) -> None:
        """Compare what came with what there must be: all rows of the days that the archives speak of.

        :param first_day: the first of these days, as YYYY-MM-DD; that of the archives unless given.
        :param last_day: the last of them.
        """
        days = [block.seal.period or "" for block in self._blocks.values()]
        first, last = first_day or min(days, default="9"), last_day or max(days, default="0")
        for number, seal in self._seals.items():
            if first <= (seal.period or "") <= last and number not in self._blocks:
                self._blocks[number] = Block(seal)
        accepted = {known.get("block") for known in self._accepted if known["type"] in _OF_ROWS}
        for number in sorted(self._blocks):
            block = self._blocks[number]
            block.finish()
            # What the key's holder has accepted is not what was sealed, so the hash of all rows says nothing any more.
            if number not in accepted and not block.intact():
                self._tell(_problem(block))

    def _line(self, line: bytes, where: str) -> Block | None:
        """Compare a line; return the seal that it belongs to, if it does."""
        found = ROW_ID.match(line)
        if not found:
            self._tell(Problem("unreadable_line", f"{where} is not the canonical text of a row"))
            return None
        number = int(found[1])
        block = self._block(number)
        if block is None:
            self._tell(Problem("inserted_row", f"{where}: row {number} is in no seal", id=number))
            return None
        self.rows += 1
        if not block.add(number, line):
            self._tell(
                Problem(
                    "duplicate_id",
                    f"seal {block.seal.number}: {where}: row {number} was there before, or comes after a higher id",
                    block=block.seal.number,
                    id=number,
                )
            )
        return block

    def _block(self, number: int) -> Block | None:
        index = bisect.bisect_right(self._firsts, number) - 1
        if index < 0 or self._owned[index][1] < number:
            return None
        seal = self._seals[self._owned[index][2]]
        if seal.number not in self._blocks:
            self._blocks[seal.number] = Block(seal)
        return self._blocks[seal.number]

    def _tell(self, problem: Problem) -> None:
        if len(self.problems) < MOST:
            self.problems.append(problem)


def verify_archives(
    entries: Sequence[Entry], vouched: Sequence[Entry], archives: Iterable[str], days: tuple[Any, Any]
) -> tuple[list[Problem], int]:
    """Return what is wrong with archives, and how many lines were compared.

    :param vouched: those of the ledger's entries that may explain or accept anything.
    :param days: the first and the last day of which all rows must be there, or None for those of the archives.
    """
    check = ArchiveCheck(entries, vouched)
    given = False
    for path in files_of(archives):
        given = True
        check.read(path)
    if given:
        check.finish(*days)
    return check.problems, check.rows


def files_of(paths: Iterable[str]) -> Iterator[str]:
    """Give the archives of paths; of a directory, those that its manifests name, by time.

    :raises AuditError: when a directory has none.
    """
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        listed = sorted(name for name in os.listdir(path) if not name.startswith("."))
        names = [_file_of(os.path.join(path, name)) for name in listed if name.endswith(MANIFEST_SUFFIX)]
        if not names:
            raise AuditError(f"{path} has no archive in it, no file that ends with {MANIFEST_SUFFIX}")
        yield from (os.path.join(path, os.path.basename(name)) for name in names)


def _file_of(manifest: str) -> str:
    try:
        with open(manifest, encoding="utf-8") as file:
            return str(json.load(file)["file"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AuditError(f"{manifest} is not the manifest of an archive: {error!r}") from None


def lines_of(path: str) -> Iterator[bytes]:
    """Give the lines of a file, compressed with gzip or not, without their ends.

    :raises AuditError: when it cannot be read to its end.
    """
    try:
        with open(path, "rb") as probe:
            compressed = probe.read(2) == _GZIP
        with gzip.open(path) if compressed else open(path, "rb") as file:
            yield from split(file)
    except (OSError, EOFError, zlib.error) as error:
        raise AuditError(f"{path} cannot be read to its end: {error}") from None


def split(file: IO[bytes]) -> Iterator[bytes]:
    """Give the lines of an open file, without their ends. In pieces, which is faster than line by line."""
    begun: list[bytes] = []
    while text := file.read(_PIECE):
        first, *others = text.split(b"\n")
        begun.append(first)
        if others:
            yield b"".join(begun)
            yield from others[:-1]
            begun = [others[-1]]
    if last := b"".join(begun):
        yield last


def _problem(block: Block) -> Problem:
    seal = block.seal
    if block.absent:
        named = in_words(ranges(block.missing))
        more = f" and {block.absent - len(block.missing)} more" if block.absent > len(block.missing) else ""
        detail = f"seal {seal.number}: rows that were sealed are missing ({block.absent}): {named}{more}"
        return Problem("deleted_row", detail, block=seal.number, id=block.missing[0])
    among = in_words(seal.ids[:NAMED])
    return Problem(
        "modified_row", f"seal {seal.number}: a row of these is not what was sealed: {among}", block=seal.number
    )
