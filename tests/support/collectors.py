# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Collectors of a SIEM on this machine: one that takes HTTP, one that takes syslog over TLS."""

from __future__ import annotations

import datetime
import gzip
import http.server
import ipaddress
import json
import pathlib
import socket
import socketserver
import ssl
import struct
import threading
import time
import typing as t

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class HttpCollector:
    """A server that keeps the lines that are posted to it.

    :ivar answers: what the next requests are answered with instead of 200: a status, and headers.
    :ivar posts: headers of the requests that were taken.
    :ivar times: when each line came, by its id.
    :ivar asked: when each request came, taken or not.
    """

    def __init__(self) -> None:
        collector = self
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.posts: list[dict[str, str]] = []
        self.lines: list[dict[str, t.Any]] = []
        self.times: dict[int, float] = {}
        self.asked: list[float] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            """Keeps each line."""

            def do_POST(self) -> None:
                """Keep them, unless something else is to be answered."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.asked.append(time.monotonic())
                status, headers = collector.answers.pop(0) if collector.answers else (200, {})
                if status == 200:
                    collector.take(dict(self.headers), gzip.decompress(body))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(f"you said {self.headers.get('Authorization')}".encode())

            def log_message(self, *_arguments: t.Any) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, headers: dict[str, str], body: bytes) -> None:
        """Keep what was posted."""
        self.posts.append(headers)
        for line in body.decode().splitlines():
            self.lines.append(json.loads(line))
            self.times[self.lines[-1]["id"]] = time.monotonic()

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/ingest/path-token"

    def export(self, path: pathlib.Path) -> pathlib.Path:
        """Write all that came as a file of lines."""
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return path

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


class SyslogCollector:
    """A server of syslog over TLS.

    :param asks: whether it refuses whoever does not show its own certificate.
    :ivar messages: what came, without the lengths.
    :ivar resets: how many of the next connections are reset with half of what was sent unread.
    """

    def __init__(self, directory: pathlib.Path, asks: bool = False) -> None:
        collector = self
        self.messages: list[str] = []
        self.resets = 0
        self.certificate = directory / "collector.crt"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, _make_certificate(self.certificate))
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.certificate)

        class Handler(socketserver.BaseRequestHandler):
            """One connection."""

            def handle(self) -> None:
                """Read until the other side ends it."""
                try:
                    connection = context.wrap_socket(self.request, server_side=True)
                except OSError:
                    return
                if collector.resets:
                    collector.resets -= 1
                    connection.recv(100)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()
                    return
                with connection, connection.makefile("rb") as file:
                    while length := file_length(file):
                        collector.messages.append(file.read(length).decode())

        class Server(socketserver.ThreadingTCPServer):
            """Does not wait for connections that somebody else keeps open."""

            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where to send."""
        return f"syslog+tls://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


def file_length(file: t.BinaryIO) -> int:
    """Return the length that stands before the next message, 0 at the end."""
    digits = b""
    while (digit := file.read(1)) not in (b" ", b""):
        digits += digit
    return int(digits or 0)


def _make_certificate(path: pathlib.Path) -> pathlib.Path:
    """Write a certificate for this machine, which vouches for itself; return the path of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "collector")])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = path.with_suffix(".key")
    plain = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return private
