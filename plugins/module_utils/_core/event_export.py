# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file that only its owner may read, and that stands under its name complete or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable

from .errors import AuditError
from .event_row import CSV_HEADER, Row, as_csv, as_json

MODE = 0o600

#: What stands at the head of a file of each format, and what a row becomes in it.
FORMATS: dict[str, tuple[str, Callable[[Row], str]]] = {"jsonl": ("", as_json), "csv": (CSV_HEADER, as_csv)}

_OPEN_FILES = "/proc/self/fd"
_CHUNK = 1 << 20

#: Takes rows one by one.
Sink = Callable[[Row], None]


@dataclass(frozen=True)
class Exported:
    """What was written, or in check mode would be."""

    written: int
    #: Bytes.
    size: int
    sha256: str
    #: Whether the file differs from the one that was there.
    changed: bool


def export(read: Callable[[Sink], None], dest: str, form: str, check_mode: bool) -> Exported:
    """Write all rows to a file, unless the file holds them already.

    :param read: reads the rows and hands each to what it is given.
    :param form: a key of :data:`FORMATS`.
    :param check_mode: read and compare, and write nothing.
    :raises AuditError: naming the file, or its directory, when it cannot be written; nothing is left of it then.
    """
    dest = os.path.abspath(dest)
    head, encode = FORMATS[form]
    try:
        current = _digest(dest)
        with _new_file(dest, check_mode) as file:
            file.write(head)
            read(lambda row: file.write(encode(row), 1))
            changed = current != file.sha256.digest()
            if changed and not check_mode:
                file.publish(dest)
    except OSError as error:
        raise AuditError(f"dest: {dest} was not written: {error.strerror}; nothing is left of the export") from error
    return Exported(file.rows, file.size, file.sha256.hexdigest(), changed)


class _File:
    """A file in the making, and the digest of what it holds."""

    def __init__(self, descriptor: int, name: str = "") -> None:
        self._file = os.fdopen(descriptor, "wb", buffering=_CHUNK)
        #: Where it has no name, it goes when this process does, whatever ends it.
        self._name = name
        self.sha256 = hashlib.sha256()
        self.size = 0
        self.rows = 0

    def write(self, text: str, rows: int = 0) -> None:
        # A database without an encoding may hold bytes that are no UTF-8; they pass as they are.
        data = text.encode("utf-8", "surrogateescape")
        self._file.write(data)
        self.sha256.update(data)
        self.size += len(data)
        self.rows += rows

    def publish(self, dest: str) -> None:
        """Put it under its name, on disk, in place of what was there."""
        self._file.flush()
        os.fsync(self._file.fileno())
        folder = os.open(os.path.dirname(dest), os.O_RDONLY)
        try:
            if not self._name:
                name = _temporary(dest)
                # With a directory given, link() follows the link that /proc has for an open file.
                os.link(f"{_OPEN_FILES}/{self._file.fileno()}", name, src_dir_fd=folder)
                self._name = name
            os.replace(self._name, dest)
            self._name = ""
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Drop it, unless it was published."""
        try:
            # What is still to be written does not matter by now, and there may be no room for it.
            with contextlib.suppress(OSError):
                self._file.close()
        finally:
            if self._name:
                os.unlink(self._name)


@contextlib.contextmanager
def _new_file(dest: str, check_mode: bool) -> Iterator[_File]:
    file = _File(os.open(os.devnull, os.O_WRONLY)) if check_mode else _open(dest)
    try:
        yield file
    finally:
        file.close()


def _open(dest: str) -> _File:
    flags = os.O_WRONLY | os.O_CLOEXEC
    if hasattr(os, "O_TMPFILE") and os.path.isdir(_OPEN_FILES):
        # Not every file system has files without a name.
        with contextlib.suppress(OSError):
            return _File(os.open(os.path.dirname(dest), flags | os.O_TMPFILE, MODE))
    name = _temporary(dest)
    return _File(os.open(name, flags | os.O_CREAT | os.O_EXCL, MODE), name)


def _temporary(dest: str) -> str:
    return os.path.join(os.path.dirname(dest), f".dbfleet-audit-{secrets.token_hex(8)}.tmp")


def _digest(dest: str) -> bytes | None:
    """Return the SHA-256 of the file that is there already; None where it has to be written anew.

    :raises AuditError: when no file can be put there.
    """
    folder = os.path.dirname(dest)
    if not os.path.isdir(folder):
        raise AuditError(f"dest: the directory {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AuditError(f"dest: the directory {folder} may not be written to by this user")
    if not os.path.lexists(dest):
        return None
    mode = os.lstat(dest).st_mode
    if not stat.S_ISREG(mode):
        raise AuditError(f"dest: {dest} is no ordinary file; give the path of a file")
    if stat.S_IMODE(mode) != MODE or not os.access(dest, os.R_OK):
        return None
    digest = hashlib.sha256()
    with open(dest, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()
