# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows to an HTTP endpoint: a POST of lines of JSON (NDJSON), compressed, for as many rows as a batch holds."""

from __future__ import annotations

import base64
import gzip
import http.client
import re
import ssl
import time
import urllib.error
from collections.abc import Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from ansible.module_utils.urls import Request

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import Seal
from ansible_collections.dbfleet.audit.plugins.module_utils._core.shipped import Message
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_destination import (
    LEVEL,
    Messages,
    Patience,
    fingerprint,
    slug,
    split_url,
    tls_context,
)

SCHEMES = ("http", "https")

#: Seconds that one request may take.
_REQUEST_SECONDS = 60.0

#: Of 4xx, those that a later try may do without; all of 5xx may.
_AGAIN = (408, 425, 429)

#: Characters of what is too short to be a secret.
_SHORT = 5

#: Characters of an answer that a message quotes.
_QUOTED = 200

#: Bytes of an answer that are read.
_ANSWER = 1 << 16


class Http:
    """An endpoint that takes NDJSON.

    :param collector: how it is to be reached: token, username, password, headers, ca_cert, client_cert, client_key,
        batch_bytes.
    :param timeout: seconds for which a batch is tried again.
    """

    def __init__(self, url: str, collector: Mapping[str, Any], timeout: float) -> None:
        parts = split_url(url, SCHEMES)
        place = f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"
        # Paths and queries are where some collectors want their tokens.
        self.title = f"{parts.scheme}://{place}"
        self.name = f"{slug(self.title)}-{fingerprint(url)}"
        self._url = url
        self._collector = collector
        self._timeout = timeout
        # With a context for all requests: making one reads all certificates of the system, for 60 ms.
        self._request = Request(
            url_username=collector["username"],
            url_password=collector["password"],
            force_basic_auth=bool(collector["username"]),
            follow_redirects="none",
            http_agent="dbfleet.audit",
            use_netrc=False,
            decompress=False,
            context=tls_context(collector),
        )

    def deliver(self, seal: Seal, messages: Messages) -> None:
        for batch in batches(messages(), int(self._collector["batch_bytes"])):
            self._post(seal, batch)

    def _post(self, seal: Seal, batch: list[Message]) -> None:
        body = gzip.compress("".join(f"{message.text}\n" for message in batch).encode(), LEVEL, mtime=0)
        headers = {
            "Content-Type": "application/x-ndjson",
            "Content-Encoding": "gzip",
            "Idempotency-Key": f"{seal.chain}-{seal.number}-{batch[0].id}-{batch[-1].id}",
        }
        if self._collector["token"]:
            headers["Authorization"] = f"Bearer {self._collector['token']}"
        headers.update({name: str(value) for name, value in self._collector["headers"].items()})
        patience = Patience(self.title, self._timeout)
        while (refused := self._try(body, headers, min(patience.left(), _REQUEST_SECONDS))) is not None:
            patience.wait(*refused)

    def _try(self, body: bytes, headers: Mapping[str, str], seconds: float) -> tuple[str, float | None] | None:
        """Send a batch once; return why it was not taken and how many seconds to wait, or None when it was.

        :raises AuditError: when there is no use in trying again.
        """
        try:
            with self._request.open("POST", self._url, data=body, headers=headers, timeout=seconds) as response:
                _read(response, time.monotonic() + seconds)
            return None
        except urllib.error.HTTPError as error:
            with error:
                reason = self._reason(error)
            if error.code < 500 and error.code not in _AGAIN:
                raise AuditError(f"{self.title} refuses what is shipped: {reason}") from None
            return reason, _retry_after(error.headers.get("Retry-After"))
        except (ValueError, http.client.InvalidURL):
            # With the header that is wrong, and that may be a secret.
            raise AuditError("a header of the collector, or url, has characters that HTTP does not allow") from None
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise AuditError(
                    f"{self.title} is not trusted: {cause.verify_message}; collector: ca_cert names who vouches for it"
                ) from None
            return self._text(str(cause)) or type(cause).__name__, None

    def _reason(self, error: urllib.error.HTTPError) -> str:
        """Return status and what the answer says."""
        try:
            said = self._text(error.read(_QUOTED * 4).decode(errors="replace"))[:_QUOTED]
        except (OSError, http.client.HTTPException):
            said = ""
        return f"HTTP status {error.code}{said and f' ({said})'}"

    def _text(self, text: str) -> str:
        """Return a text in one line, without what is secret. Where a path has a token, answers have it, too."""
        given, parts = self._collector, urlsplit(self._url)
        basic = base64.b64encode(f"{given['username']}:{given['password']}".encode()).decode()
        secrets = [str(one) for one in (given["token"], given["password"], basic, *given["headers"].values())]
        secrets += [self._url, parts.path, parts.query, *re.split("[/=&]", f"{parts.path}&{parts.query}")]
        for secret in sorted({*secrets, *map(unquote, secrets)}, key=len, reverse=True):
            # What is shorter is in every other text.
            text = text.replace(secret, "***") if len(secret) > _SHORT else text
        return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def _read(response: http.client.HTTPResponse, until: float) -> None:
    """Read an answer: one that breaks off counts for nothing. What does not end says no more than its status has."""
    left = _ANSWER
    while left > 0 and time.monotonic() < until:
        said = response.read1(left)
        left -= len(said)
        if not said:
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
            return


def batches(messages: Iterable[Message], size: int) -> Iterator[list[Message]]:
    """Give messages in batches of so many bytes at most, or of one message that is larger."""
    batch: list[Message] = []
    length = 0
    for message in messages:
        more = len(message.text) + 1
        if batch and length + more > size:
            yield batch
            batch, length = [], 0
        batch.append(message)
        length += more
    if batch:
        yield batch


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or a time."""
    if not value:
        return None
    try:
        return float(value) if value.strip().isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
    except (TypeError, ValueError):
        return None
