# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ledger: a file on the controller that only ever grows, one signed seal a line. Outside of every database."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from typing import IO

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.ledger_file import read_ledger
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import Entry, check_next
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ledger_objects import ObjectLedger

MODE = 0o640

#: Seconds that a run waits for another one with the same ledger.
WAIT = 60.0
_BLOCK = 1 << 16


def ledger_at(place: str) -> Ledger | ObjectLedger:
    """Return the ledger of an option: a path, or a URL."""
    return ObjectLedger(place) if "://" in place else Ledger(place)


class Ledger:
    """One log's ledger. What is read was written whole: a line that a crash has cut off is no line."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))

    def exists(self) -> bool:
        return os.path.exists(self.path)

    def entries(self) -> tuple[list[Entry], list[str]]:
        """Return all entries, and what each line calls its own digest."""
        return read_ledger(self.path)

    def last(self) -> Entry | None:
        """Return the last entry without reading the others."""
        tail = self.tail(1)
        return tail[-1] if tail else None

    def tail(self, number: int) -> list[Entry]:
        """Return the last entries, oldest first."""
        if not self.exists():
            return []
        with open(self.path, "rb") as file:
            text = _end_of(file, number)
        # Not splitlines(), which also splits at characters that a line may hold.
        lines = text.split(b"\n")[:-1][-number:]
        return [Entry.parse(line.decode(errors="replace"), f"the end of {self.path}")[0] for line in lines]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this machine from adding entries.

        :raises AuditError: when it cannot be written, or another run does not end.
        """
        with self._writing():
            os.makedirs(os.path.dirname(self.path), mode=0o750, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, MODE)
        with open(handle, "rb+") as file:
            self._lock(file)
            with self._writing():
                _drop_half_line(file)
            yield

    @contextlib.contextmanager
    def alone(self, work: str) -> Iterator[None]:
        """Keep other runs of this machine from the same work with this ledger, for as long as the block takes.

        :param work: a word for it.
        :raises AuditError: when one is at it.
        """
        with self._writing():
            os.makedirs(os.path.dirname(self.path), mode=0o750, exist_ok=True)
            handle = os.open(f"{self.path}.{work}.lock", os.O_RDWR | os.O_CREAT, MODE)
        with open(handle, "rb") as file:
            if not _try_lock(file):
                raise AuditError(f"another run does the same ({work}) with the ledger {self.path}; wait for it to end")
            yield

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries, in one write, and wait until they are on disk. To be called under the lock.

        :raises AuditError: when they do not follow the last one.
        """
        if not entries:
            return
        check_next(entries, self.last())
        text = "".join(entry.line() + "\n" for entry in entries)
        with self._writing("; the next run completes it"):
            _append(self.path, text.encode())
            _sync_directory(self.path)

    @contextlib.contextmanager
    def _writing(self, then: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise AuditError(f"the ledger {self.path} on the controller cannot be written: {reason}{then}") from None

    def _lock(self, file: IO[bytes]) -> None:
        deadline = time.monotonic() + WAIT
        while not _try_lock(file):
            if time.monotonic() > deadline:
                raise AuditError(f"another run has been sealing into {self.path} for {WAIT:g} s; wait for it to end")
            time.sleep(0.1)

    def mark(self) -> str | None:
        """Return what set_mark() has kept, or None."""
        try:
            with open(f"{self.path}.verified", encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def set_mark(self, text: str) -> None:
        """Keep a text beside the ledger."""
        temporary = f"{self.path}.verified.new"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, f"{self.path}.verified")


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _append(path: str, text: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        view = memoryview(text)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _end_of(file: IO[bytes], lines: int) -> bytes:
    """Return at least the last whole lines of a file, read from its end."""
    file.seek(0, os.SEEK_END)
    position, text = file.tell(), b""
    while position and text.count(b"\n") <= lines:
        step = min(_BLOCK, position)
        position -= step
        file.seek(position)
        text = file.read(step) + text
    if position:
        text = text[text.index(b"\n") + 1 :]
    return text[: text.rfind(b"\n") + 1]


def _drop_half_line(file: IO[bytes]) -> None:
    """Cut off what a crash has left of a line; nobody has acted upon it, for it was never on disk as a whole."""
    file.seek(0, os.SEEK_END)
    size = file.tell()
    start = size
    while start:
        step = min(_BLOCK, start)
        file.seek(start - step)
        end = file.read(step).rfind(b"\n")
        if end >= 0:
            start = start - step + end + 1
            break
        start -= step
    if start != size:
        file.truncate(start)


def _sync_directory(path: str) -> None:
    handle = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
