# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives in a directory of the controller. See Place in _archive_place.py, which says what each method is for."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import time
from collections.abc import Iterator
from datetime import datetime
from typing import IO

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError

DIRECTORY_MODE, MODE = 0o750, 0o640

#: Files in the making, and the seconds without a byte after which nobody is making them any more. That is long: of
#: partitions that are archived together, the file of a small one waits for that of a large one.
_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part")
_STALE = 86400

#: What file systems say that have no links, or no more for this file.
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)


class Directory:
    """A directory of the controller, mounted or not."""

    deletes = False

    def __init__(self, path: str) -> None:
        self.url = path

    @contextlib.contextmanager
    def writing(self, name: str, until: datetime | None, new: bool = False) -> Iterator[IO[bytes]]:
        del until
        with self._explained():
            os.makedirs(self.url, mode=DIRECTORY_MODE, exist_ok=True)
            temporary = os.path.join(self.url, f".{name}.{secrets.token_hex(4)}.part")
            try:
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE), "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                self._publish(temporary, name, new)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise
            self._sync()

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[IO[bytes]]:
        with open(os.path.join(self.url, name), "rb") as file:
            yield file

    def _publish(self, temporary: str, name: str, new: bool) -> None:
        path = os.path.join(self.url, name)
        if new:
            try:
                os.link(temporary, path)
            except OSError as error:
                # Not every file system that can be mounted has links.
                if error.errno not in _NO_LINKS:
                    raise
            else:
                os.unlink(temporary)
                return
            if os.path.exists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.replace(temporary, path)

    def sizes(self) -> dict[str, int]:
        with contextlib.suppress(FileNotFoundError), self._explained():
            found = sorted(os.scandir(self.url), key=lambda entry: entry.name)
            return {entry.name: entry.stat().st_size for entry in found if not entry.name.startswith(".")}
        return {}

    def names(self) -> list[str]:
        return list(self.sizes())

    def require(self) -> None:
        if not os.path.isdir(self.url):
            raise AuditError(f"url: the directory {self.url} does not exist; create it, or is it not mounted?")

    def sweep(self, folder: str = "") -> None:
        with contextlib.suppress(FileNotFoundError), self._explained():
            with os.scandir(os.path.join(self.url, folder)) as entries:
                parts = [entry for entry in entries if _PART.fullmatch(entry.name)]
            for part in parts:
                if part.stat().st_mtime < time.time() - _STALE:
                    os.unlink(part.path)

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._explained():
            os.unlink(os.path.join(self.url, name))
            self._sync()

    def keep(self, name: str, until: datetime | None) -> None:
        # Nothing is deleted here by a rule.
        pass

    def _sync(self) -> None:
        handle = os.open(self.url, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise AuditError(f"the archive {self.url} on the controller: {error.strerror or error}") from error
