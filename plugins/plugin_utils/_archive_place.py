# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where archives are: a directory of the controller, or object storage. A file is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import IO, Any, ClassVar, Protocol, cast
from urllib.parse import urlsplit

from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_directory import Directory

#: Bytes that are read or sent at once.
CHUNK = 8 << 20

#: What may stand in `storage`.
_STORAGE = ("encryption", "encryption_key", "storage_class", "lock", "lifecycle")
_LOCKS = ("governance", "compliance")

#: What has to be brought back for hours before it is read: nobody could look whether it is what was written.
_FROZEN = ("ARCHIVE", "GLACIER", "DEEP_ARCHIVE")

#: Names of options and variables whose values are nobody's business.
_SECRET = re.compile(r"key|secret|token|password|credential|connection_string", re.IGNORECASE)

#: What is as secret in a URL: who logs in, and the signature of a link.
_SECRET_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)|(?<=sig=)[^&\s]+")


class Place(Protocol):
    """One folder of an archive."""

    #: What messages call it.
    url: str

    #: Whether a rule of the storage may have deleted files whose time is over.
    deletes: bool

    def writing(
        self, name: str, until: datetime | None, new: bool = False
    ) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Make a file, which is there when the block ends without an error; one of the name that was there is gone.

        :param until: before which nobody may delete it, where the storage can see to that.
        :param new: whether one of the name that is there by then is an error, and stays.
        """

    def reading(self, name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Open a file; FileNotFoundError when there is none."""

    def sizes(self) -> dict[str, int]:
        """Return the bytes of its files, by their names."""

    def names(self) -> list[str]:
        """Return the names of its files."""

    def require(self) -> None:
        """Refuse a place that cannot be meant, such as a directory that is not mounted."""

    def delete(self, name: str) -> None:
        """Delete a file, if it is there, and whatever the storage has kept of its past.

        :raises AuditError: when it is locked; it is there then.
        """

    def sweep(self, folder: str = "") -> None:
        """Delete what writers that were killed have left, here or in a folder of it, once nobody can be writing it."""

    def keep(self, name: str, until: datetime | None) -> None:
        """See to it that no rule of the storage deletes a file; lengthen its lock, if it has one that ends before."""


def place_at(url: str, storage: Mapping[str, Any], options: Mapping[str, Any]) -> Place:
    """Return the place of a URL, or of an absolute path.

    :param storage: how files are to be stored: encryption, encryption_key, storage_class, lock, lifecycle.
    :param options: of the storage's own library.
    :raises AuditError: naming what is wrong with them.
    """
    given = _checked(storage)
    scheme = urlsplit(url).scheme if "://" in url else ""
    if scheme in ("", "file"):
        path = os.path.expanduser(url.removeprefix("file://"))
        if not os.path.isabs(path):
            raise AuditError(
                f"url is {url!r}; give an absolute path on the controller, or a URL such as s3://bucket/audit"
            )
        if given:
            raise AuditError(f"storage has {', '.join(sorted(given))}, which a directory has not; leave it out")
        return Directory(path)
    if urlsplit(url).password or urlsplit(url).query:
        raise AuditError(
            f"url begins with {scheme}:// and has a password or a query in it; credentials belong into the environment "
            "of the controller, or into storage_options"
        )
    kind = _objects(scheme)
    if set(given) - set(kind.takes):
        raise AuditError(
            f"storage has {', '.join(sorted(set(given) - set(kind.takes)))}, which {scheme}:// has not; leave it out"
        )
    return kind(url, given, options)


def _checked(storage: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is asked of the storage, without what is empty or off."""
    unknown = sorted(set(storage) - set(_STORAGE))
    if unknown:
        raise AuditError(f"storage has {', '.join(map(repr, unknown))}; it may have {', '.join(_STORAGE)}")
    given = {name: value for name, value in storage.items() if value not in (None, "")}
    if given.get("lock", _LOCKS[0]) not in _LOCKS:
        raise AuditError(f"storage: lock is {given['lock']!r}, and can be {' or '.join(_LOCKS)}")
    if str(given.get("storage_class", "")).upper() in _FROZEN:
        raise AuditError(
            f"storage: storage_class {given['storage_class']} cannot be read back at once, and what is not read back "
            "does not leave the log; take one that can, such as GLACIER_IR of S3 or Cold of Azure"
        )
    try:
        lifecycle = boolean(given.pop("lifecycle", False))
    except TypeError:
        raise AuditError(f"storage: lifecycle is {storage['lifecycle']!r}, and can be true or false") from None
    return {**given, "lifecycle": True} if lifecycle else given


def _objects(scheme: str) -> type[Objects]:
    """Return the class for a scheme."""
    # Each is derived from what is here.
    from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_azure import Azure
    from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_s3 import S3

    return {"s3": S3, "s3a": S3, "abfs": Azure, "abfss": Azure, "az": Azure}.get(scheme, Objects)


class Objects:
    """A folder of object storage, through fsspec. Subclasses know what is special about one.

    :cvar package: the Python package that fsspec needs for it.
    :cvar takes: what may stand in `storage`.
    :cvar variables: of the environment, that credentials may be in.
    """

    package: ClassVar[str] = "fsspec"
    takes: ClassVar[tuple[str, ...]] = ()
    variables: ClassVar[str] = "its library's variables"

    def __init__(self, url: str, storage: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.url = url.rstrip("/")
        self._storage = storage
        self.deletes = bool(storage.get("lifecycle"))
        self._options = options
        self._errors: tuple[type[Exception], ...] = (OSError,)
        try:
            import fsspec

            # A listing that is kept would not show what somebody else has done meanwhile, nor always what we did.
            options = {"use_listings_cache": False, **options}
            self._fs, self._root = fsspec.core.url_to_fs(self.url, skip_instance_cache=True, **options)
        except ImportError as error:
            raise AuditError(
                f"url: {url} needs the Python package {self.package} on the controller ({error})"
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise AuditError(
                f"url: {url}: {self._text(error)}; check storage_options, or {self.variables} in the environment"
            ) from None

    @contextlib.contextmanager
    def writing(self, name: str, until: datetime | None, new: bool = False) -> Iterator[IO[bytes]]:
        with self._explained(missing=False):
            mode = "xb" if new else "wb"
            file = self._fs.open(self._path(name), mode, block_size=CHUNK, **self._prepared(until))
        try:
            yield cast(IO[bytes], _Watched(file, lambda: self._explained(missing=False)))
            with self._explained(missing=False):
                file.close()
        except BaseException:
            # Closing would put what there is under the name.
            file.closed = True
            with contextlib.suppress(*self._errors):
                file.discard()
            raise
        try:
            with self._explained(missing=False):
                self._finish(name, until)
        except BaseException:
            # It would be there without its lock.
            with contextlib.suppress(AuditError):
                self.delete(name)
            raise

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[IO[bytes]]:
        with self._explained():
            file = self._fs.open(self._path(name), "rb", block_size=CHUNK, cache_type="readahead")
        with file:
            yield cast(IO[bytes], _Watched(file, self._explained))

    def sizes(self) -> dict[str, int]:
        with contextlib.suppress(FileNotFoundError), self._explained():
            found = {one["name"]: one["size"] for one in self._fs.ls(self._root, detail=True) if one["type"] == "file"}
            # Some libraries also list what is in a folder whose name only begins like this one's.
            here = sorted(path for path in found if posixpath.dirname(path) == self._root)
            return {posixpath.basename(path): found[path] for path in here}
        return {}

    def names(self) -> list[str]:
        return list(self.sizes())

    def require(self) -> None:
        # What is wrong with a bucket, the first call says.
        pass

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._explained():
            self._fs.rm_file(self._path(name))

    def keep(self, name: str, until: datetime | None) -> None:
        # Nothing is deleted here by a rule.
        pass

    def sweep(self, folder: str = "") -> None:
        # What was sent of a file that was never whole has no name; the storage deletes it, by a rule of its own.
        pass

    def _prepared(self, until: datetime | None) -> dict[str, Any]:
        """Have the storage ready for a file; return what it is to do with it, in its library's words."""
        del until
        return {}

    def _finish(self, name: str, until: datetime | None) -> None:
        """Do what can only be done to a file that is there."""

    def _locks(self, until: datetime | None) -> bool:
        """Tell whether a file is to be locked; a time that is over is none to lock it for."""
        return "lock" in self._storage and until is not None and until > datetime.now(timezone.utc)

    def _refuse_until(self, name: str, until: datetime | None) -> None:
        """Raise an error about a file that is locked until then, if that is not over."""
        if until and until > datetime.now(timezone.utc):
            end = until.astimezone(timezone.utc)
            raise AuditError(
                f"{self.url}/{name} is locked until {end:%Y-%m-%d %H:%M:%S} UTC, and was not deleted; run again after "
                "that"
            )

    def _remedy(self, error: Exception) -> str | None:
        """Return what is to be done about an error, if that is known. A file that is not there is none."""
        del error

    def _refused(self, error: Exception) -> str:
        return (
            f"the storage refuses the credentials, or what they may do ({self._text(error)}); they come from "
            f"storage_options, or from the controller's environment: {self.variables}"
        )

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    @contextlib.contextmanager
    def _explained(self, missing: bool = True) -> Iterator[None]:
        """Explain what the storage says.

        :param missing: whether a file that is not there is nothing to explain.
        """
        try:
            yield
        except self._errors as error:
            remedy = self._remedy(error)
            if missing and remedy is None and isinstance(error, FileNotFoundError):
                raise
            # Whoever prints where an error comes from would print what the library has said, with all that is in it.
            raise AuditError(f"the archive {self.url}: {remedy or self._text(error)}") from None

    def _text(self, error: Exception) -> str:
        """Return the first line of what an error says, without credentials."""
        text = (str(error) or repr(error)).splitlines()[0]
        variables = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "AZURE_"))}
        for secret in sorted({*_secrets(self._options), *_secrets(variables)}, key=len, reverse=True):
            text = text.replace(secret, "***")
        return _SECRET_IN_URL.sub("***", text)


class _Watched:
    """A file whose own errors are explained; those of whoever uses it remain what they are."""

    def __init__(self, file: IO[bytes], explained: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._file = file
        self._explained = explained

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        with self._explained():
            return self._file.read(size)

    def write(self, data: bytes) -> int:
        with self._explained():
            return self._file.write(data)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and those that it comes from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _secrets(options: Mapping[str, Any], named: bool = False) -> Iterator[str]:
    """Give the values that stand under names of secrets, and the values in connection strings."""
    for name, value in options.items():
        secret = named or _SECRET.search(name) is not None
        if isinstance(value, Mapping):
            yield from _secrets(value, secret)
        # What is shorter is in every other text.
        elif secret and isinstance(value, str) and len(value) > 5:
            yield value
            yield from (part for part in (pair.partition("=")[2] for pair in value.split(";")) if len(part) > 20)
