# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of one log's archive: written from the parts that a host sends, and read back. Nothing here asks a host."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import IO, Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive import Manifest
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.ledger_archive import (
    MANIFEST_SUFFIX,
    ArchiveCheck,
    split,
)
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import Entry, ranges
from ansible_collections.dbfleet.audit.plugins.module_utils._core.transport import received
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_place import CHUNK, Place


class Upload:
    """A file in the making.

    :ivar name: that it will have.
    :ivar sha256: of what was written.
    :ivar after: the last id in it.
    """

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name = name
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = self.rows = 0
        self.after = -(2**63)
        self.complete = False

    def add(self, part: Mapping[str, Any]) -> None:
        """Take the part that a host has sent."""
        data = received(part["data"])
        self._file.write(data)
        self.sha256.update(data)
        self.size += len(data)
        self.rows += part["rows"]
        self.after, self.complete = part["after"], part["complete"]


class _Hashed(io.RawIOBase):
    """A file that is read once, and the hash of what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self.sha256.update(data)
        buffer[: len(data)] = data
        return len(data)


def read_manifest(place: Place, name: str) -> Manifest | None:
    """Return the manifest of the archive of that name, or None when there is none."""
    try:
        with place.reading(name + MANIFEST_SUFFIX) as file:
            return Manifest.parse(file.read().decode(errors="replace"), name, f"{place.url}/{name}{MANIFEST_SUFFIX}")
    except FileNotFoundError:
        return None


def write_manifest(place: Place, manifest: Manifest, until: datetime | None) -> None:
    """Write a manifest."""
    with place.writing(manifest.name + MANIFEST_SUFFIX, until) as file:
        file.write(manifest.text().encode())


def lines_of(file: IO[bytes]) -> Iterator[bytes]:
    """Give the lines of a compressed file, without their ends."""
    with gzip.GzipFile(fileobj=io.BufferedReader(file, CHUNK)) as text:  # type: ignore[type-var]
        yield from split(text)


#: Takes the canonical texts of rows, one by one.
Lines = Callable[[bytes], Any]


def check_file(
    place: Place, of: Manifest, entries: Sequence[Entry], also: Lines | None = None
) -> tuple[tuple[int, int], ...]:
    """Read an archive back, and compare it with what it should be and every row with the ledger.

    :param entries: of the ledger, all signed as they have to be, without seals whose rows are in other archives.
    :param also: gets every line as well.
    :raises AuditError: naming what differs.
    :return: the numbers of the seals that its rows make up, as pairs of first and last.
    """
    where = f"{place.url}/{of.file}"
    check = ArchiveCheck(entries, entries)
    try:
        with place.reading(of.file) as file:
            hashed = _Hashed(file)
            lines = lines_of(hashed)
            check.take(lines if also is None else _shown(lines, also), of.file)
            while hashed.read(CHUNK):
                # What follows the last member is part of the file too.
                pass
    except FileNotFoundError:
        raise AuditError(f"{where} is not there") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise AuditError(f"{where}, read back, is not what was written: {error}") from None
    if hashed.sha256.hexdigest() != of.sha256:
        raise AuditError(f"{where}, read back, is not what was written: its SHA-256 is {hashed.sha256.hexdigest()}")
    check.finish(of.first_day, day_before(of.end_day))
    if (check.last_day or "") >= of.end_day:
        raise AuditError(f"{where} has rows of {check.last_day}, and its period ends before {of.end_day}")
    if check.problems:
        more = f" (and {len(check.problems) - 1} more)" if len(check.problems) > 1 else ""
        raise AuditError(f"{where} is not what was sealed: {check.problems[0].detail}{more}")
    if check.rows != of.rows:
        raise AuditError(f"{where} has {check.rows} rows and not {of.rows}")
    return tuple(ranges(check.seals))


def _shown(lines: Iterator[bytes], also: Lines) -> Iterator[bytes]:
    for line in lines:
        also(line)
        yield line


def day_before(day: str) -> str:
    """Return the last day of a period that ends before a day."""
    return (date.fromisoformat(day) - timedelta(days=1)).isoformat()
