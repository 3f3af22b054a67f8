# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows to a syslog collector: messages of RFC 5424 by TCP or TLS, with their lengths before them (RFC 6587, RFC 5425).

Syslog acknowledges nothing. But whoever closes a connection in order has read what was sent on it until then, and one
that closes with something unread resets it. So each seal has a connection of its own, which we end first and which the
collector has to end in order.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import socket
import ssl
import struct
import sys
import termios
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import Seal
from ansible_collections.dbfleet.audit.plugins.module_utils._core.shipped import Message
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_destination import (
    Messages,
    Patience,
    fingerprint,
    slug,
    split_url,
    tls_context,
)

SCHEMES = ("syslog+tls", "syslog+tcp")
_PORTS = {"syslog+tls": 6514, "syslog+tcp": 601}

#: Facility 13 (log audit), severity 6 (informational).
_PRIORITY = 13 * 8 + 6

#: The number of a private enterprise that is reserved for examples: nobody else's.
_SD_ID = "dbfleet@32473"

#: Seconds that one step of a connection may take, and bytes that are sent at once.
_STEP_SECONDS = 30.0
_CHUNK = 1 << 16

#: Seconds between two looks whether all bytes were acknowledged.
_LOOK = 0.01


class Syslog:
    """A collector of syslog.

    :param collector: how it is to be reached: ca_cert, client_cert, client_key.
    :param timeout: seconds for which a seal is tried again.
    """

    def __init__(self, url: str, origin: Mapping[str, str], collector: Mapping[str, Any], timeout: float) -> None:
        parts = split_url(url, SCHEMES)
        self._address = (str(parts.hostname), parts.port or _PORTS[parts.scheme])
        self._context = tls_context(collector) if parts.scheme == "syslog+tls" else None
        self._origin = origin
        self._timeout = timeout
        self.title = f"{parts.scheme}://{self._address[0]}:{self._address[1]}"
        self.name = f"{slug(self.title)}-{fingerprint(self.title)}"

    def deliver(self, seal: Seal, messages: Messages) -> None:
        patience = Patience(self.title, self._timeout)
        while (refused := self._send(seal, messages, min(patience.left(), _STEP_SECONDS))) is not None:
            patience.wait(refused)

    def _send(self, seal: Seal, messages: Messages, seconds: float) -> str | None:
        """Send a seal's rows on one connection; return why nobody knows whether they were read, or None."""
        try:
            with contextlib.closing(self._connected(seconds)) as connection:
                waiting = bytearray()
                for message in messages():
                    waiting += framed(rfc5424(message, seal, self._origin))
                    if len(waiting) >= _CHUNK:
                        connection.sendall(waiting)
                        waiting.clear()
                connection.sendall(waiting)
                _end(connection)
        except ssl.SSLCertVerificationError as error:
            raise AuditError(
                f"{self.title} is not trusted: {error.verify_message}; collector: ca_cert names who vouches for it"
            ) from None
        except OSError as error:
            return error.strerror or str(error) or type(error).__name__
        return None

    def _connected(self, seconds: float) -> socket.socket:
        plain = socket.create_connection(self._address, seconds)
        if self._context is None:
            return plain
        try:
            return self._context.wrap_socket(plain, server_hostname=self._address[0])
        except OSError:
            plain.close()
            raise


def _end(connection: socket.socket) -> None:
    """End a connection and wait until the other side has, too.

    :raises OSError: when it ended it first, refuses us, resets it, or does not end it in time.
    """
    seconds = connection.gettimeout() or _STEP_SECONDS
    connection.settimeout(0)
    try:
        # What a collector says is nothing that syslog knows.
        while connection.recv(_CHUNK):
            pass
        raise ConnectionAbortedError(errno.ECONNABORTED, "it ended the connection before all was sent")
    except (BlockingIOError, ssl.SSLWantReadError):
        # It goes on reading.
        pass
    waits = isinstance(connection, ssl.SSLSocket) and _said_goodbye(connection, seconds)
    connection.settimeout(seconds)
    # By reading, which raises an alert as an error: unwrap() takes a refused certificate for a goodbye.
    with contextlib.suppress(ssl.SSLZeroReturnError):
        while waits and connection.recv(_CHUNK):
            pass
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(_CHUNK):
        pass
    _require_acknowledged(connection, seconds)


def _said_goodbye(connection: ssl.SSLSocket, seconds: float) -> bool:
    """End what we send by TLS; tell whether the other side's end of it is still to come."""
    while (waits := _goodbye(connection)) is None:
        if not select.select([], [connection], [], seconds)[1]:
            raise TimeoutError("timed out")
    return waits


def _goodbye(connection: ssl.SSLSocket) -> bool | None:
    """Try to; None when there is no room for it yet."""
    try:
        connection.unwrap()
    except ssl.SSLWantWriteError:
        return None
    except ssl.SSLWantReadError:
        return True
    except ssl.SSLEOFError:
        # It has ended the connection below TLS, as many do.
        return False
    return False


def _require_acknowledged(connection: socket.socket, seconds: float) -> None:
    """Wait until the other side's system has acknowledged all bytes: it may have ended before the last of them came.

    :raises OSError: when it never does.
    """
    until, failed = time.monotonic() + seconds, 0
    # Other systems do not tell.
    while sys.platform == "linux" and struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]:
        failed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed or time.monotonic() > until:
            break
        time.sleep(_LOOK)
    else:
        failed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not failed:
            return
    raise OSError(failed or errno.ETIMEDOUT, os.strerror(failed or errno.ETIMEDOUT))


def rfc5424(message: Message, seal: Seal, origin: Mapping[str, str]) -> bytes:
    """Return a row as a message of syslog. It is in ASCII, and so is the text of the row in it: no BOM is needed."""
    moment = f"{message.changed_at[:26]}Z" if message.changed_at else "-"
    data = {"chain": seal.chain, "database": origin["database"], "seal": seal.number, "id": message.id}
    structured = " ".join(f'{name}="{_parameter(str(value))}"' for name, value in data.items())
    header = f"<{_PRIORITY}>1 {moment} {_word(origin['server'], 255)} dbfleet.audit - {_word(message.action, 32)}"
    return f"{header} [{_SD_ID} {structured}] {message.text}".encode()


def framed(message: bytes) -> bytes:
    """Return a message with its length before it."""
    return b"%d %s" % (len(message), message)


def _word(text: str, longest: int) -> str:
    """Return a text as a field of the header: printable ASCII without blanks, or a dash."""
    return re.sub(r"[^!-~]", "_", text)[:longest] or "-"


def _parameter(text: str) -> str:
    return re.sub(r'(["\\\]])', r"\\\1", text)
