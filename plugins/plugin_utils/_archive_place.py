# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where archives are: a directory of the controller, or object storage. A file is under its name whole or not at all."""

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError

DIRECTORY_MODE, MODE = 0o750, 0o640

#: Bytes that are read or sent at once.
CHUNK = 8 << 20

_OPTIONS = ("encryption", "encryption_key", "storage_class", "lock")
_LOCKS = ("governance", "compliance")


class Place(Protocol):
    """One folder of an archive."""

    #: What messages call it.
    url: str

    def writing(self, name: str, until: datetime | None) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Make a file, which is there when the block ends without an error; one of the name that was there is gone.

        :param until: before which nobody may delete it, where the storage can see to that.
        """

    def reading(self, name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Open a file; FileNotFoundError when there is none."""

    def names(self) -> list[str]:
        """Return the names of its files."""

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""


def place_at(url: str, storage: Mapping[str, Any], options: Mapping[str, Any]) -> Place:
    """Return the place of a URL, or of an absolute path.

    :param storage: how files are to be stored: encryption, encryption_key, storage_class, lock.
    :param options: of the storage's own library.
    :raises AuditError: naming what is wrong with them.
    """
    unknown = sorted(set(storage) - set(_OPTIONS))
    if unknown:
        raise AuditError(f"storage has {', '.join(map(repr, unknown))}; it may have {', '.join(_OPTIONS)}")
    scheme = urlsplit(url).scheme if "://" in url else ""
    given = {name: value for name, value in storage.items() if value not in (None, "")}
    if scheme in ("", "file"):
        path = os.path.expanduser(url.removeprefix("file://"))
        if not os.path.isabs(path):
            raise AuditError(
                f"url is {url!r}; give an absolute path on the controller, or a URL such as s3://bucket/audit"
            )
        if given:
            raise AuditError(f"storage has {', '.join(sorted(given))}, which a directory has not; leave it out")
        return Directory(path)
    if given.get("lock", _LOCKS[0]) not in _LOCKS:
        raise AuditError(f"storage: lock is {given['lock']!r}, and can be {' or '.join(_LOCKS)}")
    return Objects(url, given, options)


class Directory:
    """A directory of the controller, mounted or not."""

    def __init__(self, path: str) -> None:
        self.url = path

    @contextlib.contextmanager
    def writing(self, name: str, until: datetime | None) -> Iterator[IO[bytes]]:
        del until
        with self._explained():
            os.makedirs(self.url, mode=DIRECTORY_MODE, exist_ok=True)
            temporary = os.path.join(self.url, f".{name}.{secrets.token_hex(4)}.part")
            try:
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE), "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, os.path.join(self.url, name))
            except BaseException:
                os.unlink(temporary)
                raise
            self._sync()

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[IO[bytes]]:
        with open(os.path.join(self.url, name), "rb") as file:
            yield file

    def names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.url) if not name.startswith("."))
        except FileNotFoundError:
            return []

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._explained():
            os.unlink(os.path.join(self.url, name))
            self._sync()

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


class Objects:
    """A folder of object storage, through fsspec."""

    def __init__(self, url: str, storage: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.url = url.rstrip("/")
        self._storage = storage
        try:
            import fsspec

            self._fs, self._root = fsspec.core.url_to_fs(self.url, skip_instance_cache=True, **options)
        except (ImportError, ValueError) as error:
            raise AuditError(
                f"url: {url} needs the Python package fsspec on the controller, with s3fs for s3:// or adlfs for "
                f"abfs:// ({error})"
            ) from None

    @contextlib.contextmanager
    def writing(self, name: str, until: datetime | None) -> Iterator[IO[bytes]]:
        with self._explained():
            file = self._fs.open(self._path(name), "wb", block_size=CHUNK, **self._put_options(until))
            try:
                yield file
            except BaseException:
                # Closing would put what there is under the name.
                file.closed = True
                file.discard()
                raise
            file.close()
        self._fs.invalidate_cache()

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[IO[bytes]]:
        with self._explained(), self._fs.open(self._path(name), "rb", block_size=CHUNK, cache_type="readahead") as file:
            yield file

    def names(self) -> list[str]:
        with self._explained():
            try:
                return sorted(posixpath.basename(path) for path in self._fs.ls(self._root, detail=False, refresh=True))
            except FileNotFoundError:
                return []

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._explained():
            self._fs.rm_file(self._path(name))

    def _put_options(self, until: datetime | None) -> dict[str, Any]:
        """Return what the storage is asked to do with a file, in its own words."""
        asked = {
            "ServerSideEncryption": self._storage.get("encryption"),
            "SSEKMSKeyId": self._storage.get("encryption_key"),
            "StorageClass": self._storage.get("storage_class"),
        }
        if until and "lock" in self._storage:
            asked.update(ObjectLockMode=self._storage["lock"].upper(), ObjectLockRetainUntilDate=until)
        return {name: value for name, value in asked.items() if value}

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise AuditError(f"the archive {self.url}: {error}") from error
