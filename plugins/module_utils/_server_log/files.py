# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of logs: which there are, in the order in which they were written, and their lines."""

from __future__ import annotations

import glob
import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from .._core.errors import AuditError
from .statement import without_secrets

_GZIP = b"\x1f\x8b"
#: How many lines that could not be read are shown, and how much of each.
SAMPLES = 10
_SAMPLE_LENGTH = 500


@dataclass
class Reading:
    """What the reading of one file has come to."""

    path: str
    format: str
    lines: int = 0
    records: int = 0
    events: int = 0
    unparsed: int = 0
    #: The last record was cut off: the server was about to write it.
    incomplete: bool = False
    samples: list[dict[str, object]] = field(default_factory=list)

    def refuse(self, text: str, line: int | None = None) -> None:
        """Count a line that is none of the format."""
        self.unparsed += 1
        if len(self.samples) < SAMPLES:
            sample = without_secrets(text.rstrip("\n"))[:_SAMPLE_LENGTH]
            self.samples.append({"path": self.path, "line": line or self.lines, "text": sample})

    def complete_lines(self, stream: TextIO) -> Iterator[str]:
        """Yield the lines that have an end; a last one without is what the server is writing."""
        for line in stream:
            if not line.endswith("\n"):
                self.incomplete = True
                return
            self.lines += 1
            yield line

    def summary(self) -> dict[str, object]:
        """Return what a user wants to know of it."""
        keys = ("path", "format", "lines", "events", "unparsed", "incomplete")
        return {key: getattr(self, key) for key in keys}


def find_files(paths: Sequence[str]) -> list[str]:
    """Return the files that paths and globs name, the one that was written to last at the end.

    :raises AuditError: naming a path that is no file and a glob that matches none.
    """
    found: dict[str, tuple[int, str]] = {}
    for path in paths:
        matches = [path] if os.path.exists(path) else glob.glob(path, recursive=True)
        files = [match for match in matches if os.path.isfile(match)]
        if not files:
            raise AuditError(f"paths: {path}: {_nothing(path, bool(matches))}")
        for file in files:
            found.setdefault(os.path.realpath(file), (os.stat(file).st_mtime_ns, file))
    return [file for _time, file in sorted(found.values())]


@contextmanager
def open_log(path: str) -> Iterator[TextIO]:
    """Open a log, compressed or not; a byte that is no UTF-8 is shown as an escape.

    :raises AuditError: naming the file, when it cannot be read.
    """
    try:
        with open(path, "rb") as probe:
            opener = gzip.open if probe.read(2) == _GZIP else open
        opened = opener(path, "rt", encoding="utf-8", errors="backslashreplace", newline="\n")
    except OSError as error:
        remedy = "; run the module as an account that may read the log" if isinstance(error, PermissionError) else ""
        raise AuditError(f"{path}: cannot be read: {error.strerror}{remedy}") from error
    with opened as stream:
        try:
            yield stream
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise AuditError(
                f"{path}: the compressed file is damaged, or still being written: {error}; leave it out of paths"
            ) from error


def _nothing(path: str, exists: bool) -> str:
    if exists:
        return f"is no file; name the files in it, as {path.rstrip('/')}/*.log"
    if glob.has_magic(path):
        return "matches no file that this account can see"
    return "there is no such file, or this account cannot see it"
