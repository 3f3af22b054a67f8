# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A ledger that is no file but objects below a URL, one for each time that seals were added: s3://, abfs://, file://.

Objects are only ever made, never written over: a bucket that locks its objects keeps every seal for as long as it is
told to. Credentials are those of the storage's own library, from its environment variables and files.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterator, Sequence

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import Entry, check_next

#: Seals whose objects stand below one folder, so that the last one is found without listing all.
_FOLDER = 10_000

#: Objects that are read at once.
_TOGETHER = 500


class ObjectLedger:
    """One log's ledger, below a URL."""

    def __init__(self, url: str) -> None:
        self.path = url.rstrip("/")
        try:
            import fsspec

            self._fs, self._root = fsspec.core.url_to_fs(self.path, skip_instance_cache=True)
        except (ImportError, ValueError) as error:
            raise AuditError(
                f"ledger: {url} needs the Python package fsspec on the controller, with s3fs for s3:// or adlfs for "
                f"abfs:// ({error})"
            ) from None

    def entries(self) -> tuple[list[Entry], list[str]]:
        """Return all entries, and what each line calls its own digest."""
        entries, digests = [], []
        paths = [path for folder in self._folders() for path in self._objects(folder)]
        for start in range(0, len(paths), _TOGETHER):
            chunk = paths[start : start + _TOGETHER]
            found = self._fs.cat(chunk)
            for path in chunk:
                for line in _lines(found[path]):
                    entry, digest = Entry.parse(line, path)
                    entries.append(entry)
                    digests.append(digest)
        return entries, digests

    def last(self) -> Entry | None:
        """Return the last entry."""
        tail = self.tail(1)
        return tail[-1] if tail else None

    def tail(self, number: int) -> list[Entry]:
        """Return the last entries, oldest first."""
        entries: list[Entry] = []
        for folder in reversed(self._folders()):
            for path in reversed(self._objects(folder)):
                lines = _lines(self._fs.cat_file(path))
                entries = [*(Entry.parse(line, path)[0] for line in lines), *entries]
                if len(entries) >= number:
                    return entries[-number:]
        return entries

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Do nothing: two that add the same seal make the same object, and the storage refuses the second."""
        yield

    @contextlib.contextmanager
    def alone(self, work: str) -> Iterator[None]:
        """Do the work: there is no lock here, and a second run is told when it adds to the ledger."""
        del work
        yield

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries as one object.

        :raises AuditError: when they do not follow the last one, or somebody else has just added them.
        """
        if not entries:
            return
        check_next(entries, self.last())
        number = entries[0].seal.number
        path = posixpath.join(self._root, f"{number // _FOLDER:08d}", f"{number:012d}.jsonl")
        try:
            if "file" in self._fs.protocol:
                self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
            with self._fs.open(path, "xb") as file:
                file.write("".join(entry.line() + "\n" for entry in entries).encode())
        except FileExistsError:
            raise AuditError(
                f"seal {number} was added to {self.path} by another run at this moment; run again"
            ) from None

    def mark(self) -> str | None:
        """Return what set_mark() has kept, or None."""
        path = posixpath.join(self._root, "verified.json")
        return self._fs.cat_file(path).decode() if self._fs.exists(path) else None

    def set_mark(self, text: str) -> None:
        """Keep a text beside the entries."""
        self._fs.pipe_file(posixpath.join(self._root, "verified.json"), text.encode())

    def _folders(self) -> list[str]:
        return [name for name in self._names(self._root) if posixpath.basename(name).isdigit()]

    def _objects(self, folder: str) -> list[str]:
        return [name for name in self._names(folder) if name.endswith(".jsonl")]

    def _names(self, folder: str) -> list[str]:
        try:
            return sorted(name.rstrip("/") for name in self._fs.ls(folder, detail=False, refresh=True))
        except FileNotFoundError:
            return []


def _lines(data: bytes) -> list[str]:
    """Return the lines of an object. Not by splitlines(), which also splits at characters that a line may hold."""
    return data.decode().split("\n")[:-1]
