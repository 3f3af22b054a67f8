# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where rows are shipped to. A destination takes the rows of a seal, and returns once it has acknowledged them all."""

from __future__ import annotations

import gzip
import hashlib
import re
import ssl
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timezone
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.ledger_archive import split
from ansible_collections.dbfleet.audit.plugins.module_utils._core.retention import Age
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import Entry, Seal
from ansible_collections.dbfleet.audit.plugins.module_utils._core.shipped import FILE, Message
from ansible_collections.dbfleet.audit.plugins.module_utils._core.shipped_check import ShippedCheck
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive import moment
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_place import Place, place_at

#: Gives the rows of a seal, as often as it is called.
Messages = Callable[[], Iterator[Message]]

#: Seconds between two tries: the first pause, and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0

#: Characters of a URL in a file's name, which a database's name is in as well.
_LONGEST_SLUG = 40

#: Of gzip, as archives have it: a little larger than with its usual 6, in much less time.
LEVEL = 4


class Destination(Protocol):
    """What takes rows.

    :ivar title: what people are told of it; nothing secret is in it.
    :ivar name: the same as a part of a file's name, which no other destination has.
    """

    title: str
    name: str

    def deliver(self, seal: Seal, messages: Messages) -> None:
        """Have the rows of a seal taken.

        :raises AuditError: when they were not, for as long as the options say.
        """


class Patience:
    """The tries of one delivery.

    :param seconds: for how long to try again.
    """

    def __init__(self, title: str, seconds: float) -> None:
        self._title = title
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self._pause = _FIRST_PAUSE

    def wait(self, reason: str, pause: float | None = None) -> None:
        """Wait before the next try.

        :param pause: seconds that the destination has asked for.
        :raises AuditError: when there is no time left for one.
        """
        wanted = self._pause if pause is None else max(pause, _FIRST_PAUSE)
        if time.monotonic() + wanted > self._until:
            asked = "" if pause is None else f", which asks for the next try in {wanted:.0f} s"
            raise AuditError(
                f"{self._title} does not take what is shipped: {reason}{asked}; tried for {self._seconds:g} s "
                "(timeout). The next run goes on where this one stopped"
            )
        time.sleep(wanted)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def left(self) -> float:
        """Return how many seconds one try may take."""
        return max(self._until - time.monotonic(), 1.0)


class Files:
    """A directory of the controller or object storage: a file for each seal.

    :param entries: returns the ledger's entries.
    :param keep: for how long files are locked, or kept by a rule of the storage.
    """

    def __init__(
        self,
        url: str,
        folder: Sequence[str],
        storage: tuple[Mapping[str, Any], Mapping[str, Any]],
        keep: Age | None,
        entries: Callable[[], Sequence[Entry]],
    ) -> None:
        place_at(url, *storage).require()
        self._place: Place = place_at("/".join([url.rstrip("/"), *folder]), *storage)
        self._entries = entries
        self._keep = keep
        self.title = url.rstrip("/")
        self.name = f"{slug(url)}-{fingerprint(self.title)}"

    def deliver(self, seal: Seal, messages: Messages) -> None:
        name = FILE.format(seal.number)
        # Where files are locked, writing it over would keep both.
        if self._has(name, seal):
            return
        until = moment(self._keep.after(_today())) if self._keep else None
        with self._place.writing(name, until) as file, gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as packed:
            for message in messages():
                packed.write(message.text.encode() + b"\n")

    def _has(self, name: str, seal: Seal) -> bool:
        """Tell whether there is the file of a seal, with all of its rows and nothing else.

        :raises AuditError: when it is a file of another log of the same name, as of a database that was made anew.
        """
        try:
            with self._place.reading(name) as file, gzip.GzipFile(fileobj=file) as packed:
                check = ShippedCheck([seal], self._entries())
                check.take(split(packed), name)
        except (FileNotFoundError, EOFError, gzip.BadGzipFile, zlib.error):
            return False
        check.finish(None, None)
        if check.others:
            raise AuditError(
                f"{self._place.url}/{name} is of another log than this one (chain {seal.chain}), and writing it over "
                "would be its end: move it away, or ship this log to another url or under another name of the server"
            )
        return bool(check.whole) and not (check.problems or check.others or check.duplicates)


def tls_context(collector: Mapping[str, Any]) -> ssl.SSLContext:
    """Return how TLS connections to a collector are made.

    :raises AuditError: when a certificate of the options cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=collector["ca_cert"])
        if collector["client_cert"]:
            context.load_cert_chain(collector["client_cert"], collector["client_key"])
    except OSError as error:
        raise AuditError(f"collector: a certificate or key cannot be used: {error.strerror or error}") from None
    return context


def slug(text: str) -> str:
    """Return a text as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.")[:_LONGEST_SLUG]


def split_url(url: str, schemes: Sequence[str]) -> SplitResult:
    """Return the parts of a URL of a collector.

    :raises AuditError: naming what is wrong with it, and nothing that may be secret.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise AuditError("url has a port that is none") from None
    if parts.scheme not in schemes or not host or port == 0:
        raise AuditError(f"url begins with {parts.scheme}:// and names no host")
    if parts.username or parts.password:
        raise AuditError(f"url: {parts.scheme}://{host} has credentials in it; they belong into `collector`")
    return parts


def fingerprint(url: str) -> str:
    """Return what tells URLs apart that have the same slug, and those of one host whose paths may be secret."""
    return hashlib.sha256(url.encode()).hexdigest()[:8]


def _today() -> date:
    return datetime.now(timezone.utc).date()
