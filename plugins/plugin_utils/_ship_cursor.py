# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far a log has been shipped to one destination: a small file on the controller, beside the ledger."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import Entry, Seal

_MODE = 0o640


@dataclass(frozen=True)
class Position:
    """What a destination has acknowledged last.

    :ivar chain: the log's own identifier.
    :ivar destination: its identifier.
    :ivar seal: number of the seal.
    :ivar digest: of that seal.
    """

    chain: str
    destination: str
    seal: int
    digest: str

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Position:
        """Return the position that a file describes; TypeError or ValueError when it describes none."""
        found = cls(**fields)
        return replace(found, seal=int(found.seal))

    def check(self, entries: Sequence[Entry], path: str) -> None:
        """Refuse a ledger that this is not a position in.

        :raises AuditError: with what to do about it.
        """
        last = entries[-1].seal if entries else None
        if last and last.chain != self.chain:
            raise AuditError(
                f"the cursor {path} is of another log (chain {self.chain}) than the ledger (chain {last.chain}): give "
                "this log a cursor of its own"
            )
        if last is None or last.number < self.seal:
            raise AuditError(
                f"the cursor {path} says that seal {self.seal} was shipped, and the ledger ends with "
                f"{last.number if last else 'none'}: its end was cut off, or it is an old copy. Put the right one in "
                "its place; from_seal ships from a seal on that there is"
            )
        found = next((entry.seal for entry in entries if entry.seal.number == self.seal), None)
        if found is None or found.digest() != self.digest:
            raise AuditError(
                f"seal {self.seal} of the ledger is not the one that was shipped, by the cursor {path}: the ledger was "
                "made anew since; find out by whom, then from_seal ships from a seal on that you trust"
            )


class Cursor:
    """A position in a file, which is there whole or not at all."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs from shipping by this cursor.

        :raises AuditError: when one does.
        """
        with self._writing():
            os.makedirs(os.path.dirname(self.path), mode=0o750, exist_ok=True)
            handle = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, _MODE)
        with open(handle, "rb"):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AuditError(f"another run ships by the cursor {self.path}; wait for it to end") from None
            yield

    def read(self) -> Position | None:
        """Return the position, or None when nothing was shipped yet.

        :raises AuditError: when it cannot be read.
        """
        try:
            with open(self.path, encoding="utf-8") as file:
                return Position.of(json.load(file))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise AuditError(
                f"the cursor {self.path} cannot be read ({error}); delete it, and say with from_seal where to begin: "
                "what is shipped twice can be told apart"
            ) from None

    def write(self, destination: str, seal: Seal) -> None:
        """Keep a position; on disk when this returns."""
        position = Position(seal.chain, destination, seal.number, seal.digest())
        # One name, so that a run that was killed leaves nothing behind for good; only who has the lock writes.
        temporary = f"{self.path}.new"
        with self._writing():
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE)
            with open(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(position), file)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
            self._sync()

    def remove(self) -> None:
        """Keep that nothing was shipped yet."""
        with self._writing():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            self._sync()

    def _sync(self) -> None:
        handle = os.open(os.path.dirname(self.path), os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise AuditError(
                f"the cursor {self.path} on the controller cannot be written: {error.strerror or error}"
            ) from None
