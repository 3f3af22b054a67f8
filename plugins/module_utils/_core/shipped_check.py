# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether rows that were shipped are those that were sealed: what a collector has kept, in any order, once or twice.

A ledger has one hash for all rows of a seal. Lines name the hash of their own row too, so that a row that was changed
is told apart from the others of its seal once the hashes of all of them are there.
"""

from __future__ import annotations

import bisect
import gzip
import hashlib
import os
import posixpath
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from . import ledger_check
from .errors import AuditError
from .ledger_archive import MOST, NAMED, ROW_ID, lines_of, split
from .seal import ROWS, Entry, Seal, in_words, ranges, within
from .shipped import FILE_PREFIX, FILE_SUFFIX, Shipped, parse
from .verification import Problem

_EMPTY = bytes(32)


class Kept:
    """What was kept of one seal's rows: 33 bytes a row, whatever the order.

    :ivar changed: ids of rows that are not what their line says that they were.
    """

    def __init__(self, seal: Seal) -> None:
        self.seal = seal
        self.changed: set[int] = set()
        self._firsts = [first for first, _last in seal.ids]
        # Before each range, how many rows there are.
        self._before = [0]
        for first, last in seal.ids:
            self._before.append(self._before[-1] + last - first + 1)
        self._leaves = bytearray(32 * self._before[-1])
        self._there = bytearray(self._before[-1])

    def add(self, number: int, shipped: Shipped) -> bool | None:
        """Take a row; tell whether it was there before, or None when it is no row of this seal."""
        index = bisect.bisect_right(self._firsts, number) - 1
        if index < 0 or self.seal.ids[index][1] < number:
            return None
        position = self._before[index] + number - self._firsts[index]
        leaf = hashlib.sha256(shipped.row).digest()
        said = _leaf(shipped.leaf) or leaf
        if said != leaf:
            self.changed.add(number)
        place = slice(32 * position, 32 * position + 32)
        known = bool(self._there[position])
        if known and self._leaves[place] != said:
            # Two that differ: the hash of all rows says which of them can be right, and neither is believed.
            self.changed.add(number)
        if not known:
            self._leaves[place], self._there[position] = said, 1
        return known

    def missing(self) -> list[int]:
        """Return the ids of rows that did not come."""
        if self._there.find(0) < 0:
            return []
        numbers = (number for first, last in self.seal.ids for number in range(first, last + 1))
        return [number for number, there in zip(numbers, self._there) if not there]

    def proven(self) -> bool:
        """Tell whether the hashes are those of the rows that were sealed; they are not where one is missing."""
        return hashlib.sha256(self._leaves).hexdigest() == self.seal.root


class ShippedCheck:
    """The comparison of what was kept with a ledger.

    :param seals: of a ledger.
    :param vouched: those of the ledger's entries that may explain or accept anything.
    :ivar rows: lines that were compared.
    :ivar duplicates: how many of them had come before.
    :ivar others: lines of other logs, which were left out.
    :ivar whole: numbers of the seals all of whose rows are there and what was sealed.
    :ivar accepted: of those whose rows the ledger cannot prove any more, for the key's holder has accepted some of them
        as they are.
    :ivar absent: of those that nothing came of, before the first that something came of or after the last.
    """

    def __init__(self, seals: Sequence[Seal], vouched: Sequence[Entry]) -> None:
        self.rows = self.duplicates = self.others = 0
        self.problems: list[Problem] = []
        self.whole: list[int] = []
        self.accepted: list[int] = []
        self.absent: list[int] = []
        self._accepted = ledger_check.accepted_rows(vouched)
        self._lost = ledger_check.lost_seals(vouched)
        self._chain = seals[0].chain if seals else ""
        self._seals = {seal.number: seal for seal in seals if seal.kind == ROWS}
        self._kept: dict[int, Kept] = {}

    def take(self, lines: Iterable[bytes], name: str) -> None:
        """Compare the lines of a file of that name."""
        for position, line in enumerate(lines, 1):
            if line.strip():
                self._line(line, f"line {position} of {name}")

    def _line(self, line: bytes, where: str) -> None:
        shipped = parse(line)
        found = ROW_ID.match(shipped.row) if shipped else None
        if not (shipped and found):
            self._tell(Problem("unreadable_line", f"{where} has no `seal` with a `row` that is a canonical text"))
            return
        if shipped.chain and shipped.chain != self._chain:
            self.others += 1
            return
        number = int(found[1])
        seal = self._seals.get(shipped.seal)
        if seal and seal.number not in self._kept:
            self._kept[seal.number] = Kept(seal)
        known = self._kept[seal.number].add(number, shipped) if seal else None
        if known is None:
            self._tell(Problem("inserted_row", f"{where}: row {number} is not in seal {shipped.seal}", id=number))
            return
        self.rows += 1
        self.duplicates += known

    def finish(self, first_day: str | None, last_day: str | None) -> None:
        """Compare what came with what there must be: all rows of the seals from the first that came to the last.

        :param first_day: the first day, as YYYY-MM-DD, of which seals must be there whatever came.
        :param last_day: the last of them.
        """
        first, last = min(self._kept, default=0), max(self._kept, default=-1)
        for number, seal in self._seals.items():
            day = seal.period or ""
            asked = bool(first_day or last_day) and (first_day or "") <= day <= (last_day or "9")
            lost = within(number, self._lost)
            if number in self._kept or ((asked or first <= number <= last) and not lost):
                self._finish(self._kept.get(number) or Kept(seal), lost)
            elif not lost:
                self.absent.append(number)
        if self._seals and not (self.rows or self.problems):
            detail = f"nothing of it is of this log, whose seals are {min(self._seals)} to {max(self._seals)}"
            self._tell(Problem("deleted_row", f"{detail}; lines of other logs: {self.others}"))

    def _finish(self, kept: Kept, lost: bool) -> None:
        """Compare the rows of a seal.

        :param lost: whether it need not be there; what is there of it must be right.
        """
        number = kept.seal.number
        accepted = self._accepted.get(number, {})
        missing = [row for row in kept.missing() if accepted.get(row) != ""]
        if missing and not lost:
            named = in_words(ranges(missing[:NAMED]))
            more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
            detail = f"seal {number}: rows that were sealed are missing ({len(missing)}): {named}{more}"
            self._tell(Problem("deleted_row", detail, block=number, id=missing[0]))
        for row in sorted(kept.changed):
            detail = f"seal {number}: row {row} is not what was shipped"
            self._tell(Problem("modified_row", detail, block=number, id=row))
        proven = kept.proven()
        if not (missing or proven or accepted):
            among = in_words(kept.seal.ids[:NAMED])
            detail = f"seal {number}: a row of these is not what was sealed: {among}"
            self._tell(Problem("modified_row", detail, block=number))
        elif not (missing or kept.changed):
            (self.whole if proven else self.accepted).append(number)

    def spans(self, numbers: Iterable[int]) -> list[list[int]]:
        """Return numbers of seals of rows as pairs of first and last, over those of other seals between them."""
        every = sorted(self._seals)
        positions = (bisect.bisect_left(every, number) for number in sorted(numbers))
        return [[every[first], every[last]] for first, last in ranges(positions)]

    def _tell(self, problem: Problem) -> None:
        if len(self.problems) < MOST:
            self.problems.append(problem)


def verify_shipped(
    entries: Sequence[Entry], vouched: Sequence[Entry], shipped: Iterable[str], days: tuple[Any, Any]
) -> tuple[list[Problem], dict[str, Any]]:
    """Return what is wrong with rows that were shipped, and what came of them.

    :param shipped: paths or URLs of files, or of folders that seals were shipped to.
    :param days: the first and the last day of which all rows must be there, or None.
    """
    check = ShippedCheck([entry.seal for entry in entries], vouched)
    given = False
    for name, lines in _files(shipped):
        given = True
        check.take(lines, name)
    if given:
        check.finish(*days)
    counted: dict[str, Any] = {"rows": check.rows, "duplicates": check.duplicates, "of_other_logs": check.others}
    seals = {"whole_seals": check.whole, "accepted_seals": check.accepted, "absent_seals": check.absent}
    counted.update({name: check.spans(numbers) for name, numbers in seals.items()})
    return check.problems, counted


def _files(paths: Iterable[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Give names and lines of files; of a folder, those of the seals that were shipped to it.

    :raises AuditError: when a folder has none, or a file cannot be read to its end.
    """
    for path in paths:
        if "://" in path:
            yield from _objects(path)
        elif os.path.isdir(path):
            names = sorted(name for name in os.listdir(path) if _is_seal(name))
            yield from ((os.path.join(path, name), lines_of(os.path.join(path, name))) for name in names or _none(path))
        else:
            yield path, lines_of(path)


def _objects(url: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Give the files of a folder of object storage."""
    try:
        import fsspec

        storage, root = fsspec.core.url_to_fs(url.rstrip("/"))
        names = sorted(name for name in storage.ls(root, detail=False) if _is_seal(posixpath.basename(name)))
    except (ImportError, ValueError, OSError) as error:
        raise AuditError(
            f"shipped: {url} cannot be read: {error}; it needs the Python package fsspec with s3fs or adlfs, and "
            "credentials in the environment"
        ) from None
    for name in names or _none(url):
        with storage.open(name, "rb") as file:
            yield name, _lines(file, name)


def _lines(file: IO[bytes], name: str) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=file) as text:
            yield from split(text)
    except (OSError, EOFError, zlib.error) as error:
        raise AuditError(f"{name} cannot be read to its end: {error}") from None


def _is_seal(name: str) -> bool:
    return name.startswith(FILE_PREFIX) and name.endswith(FILE_SUFFIX)


def _none(place: str) -> list[str]:
    raise AuditError(f"{place} has nothing in it that was shipped, no file {FILE_PREFIX}*{FILE_SUFFIX}")


def _leaf(text: str) -> bytes | None:
    """Return the hash that a line names, if it is one."""
    try:
        leaf = bytes.fromhex(text)
    except ValueError:
        return None
    return leaf if len(leaf) == len(_EMPTY) else None
