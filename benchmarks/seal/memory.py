# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The most memory that a module and its server process take."""

from __future__ import annotations

import contextlib
import os
import pathlib
import threading
import time
import typing as t

from databases import Database, connect, fetch

_EVERY = 0.02

_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name = 'dbfleet.audit'"


def highest_memory(db: Database, action: t.Callable[[], t.Any]) -> tuple[str, t.Any]:
    """Return how much memory of their own the server's processes and the modules have at most, and the result.

    Of the server, shared buffers do not count: a process maps more of them the more rows it reads.
    """
    most = {"server": 0, "module": 0}
    done = threading.Event()

    def watch() -> None:
        with contextlib.closing(connect(db.server, "postgres")) as connection:
            while not done.is_set():
                for (pid,) in fetch(connection, _BACKENDS, db.name):
                    most["server"] = max(most["server"], _kilobytes(pid, "RssAnon"))
                for pid in _descendants(os.getpid()):
                    most["module"] = max(most["module"], _kilobytes(pid, "VmHWM"))
                time.sleep(_EVERY)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    try:
        result = action()
    finally:
        done.set()
        watcher.join()
    seconds = time.monotonic() - began
    words = f"server {most['server'] / 1024:.0f}, module {most['module'] / 1024:.0f} ({seconds:.0f} s)"
    return words, result


def _kilobytes(pid: int, field: str) -> int:
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            name, _colon, value = line.partition(":")
            if name == field:
                return int(value.split()[0])
    return 0


def _descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    with contextlib.suppress(OSError):
        found: list[int] = []
        for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text(encoding="ascii").split():
                found += [int(child), *_descendants(int(child))]
        return found
    return []
