# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where alerts arrive: a webhook and a mail server, on this machine."""

from __future__ import annotations

import email
import email.message
import email.policy
import http.server
import json
import socketserver
import threading
import typing as t


class Webhook:
    """A server that keeps what is posted to it.

    :ivar status: what it answers with.
    """

    def __init__(self, status: int = 204) -> None:
        sink = self
        self.status = status
        self.posts: list[tuple[dict[str, str], dict[str, t.Any]]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            """Keeps each post."""

            def do_POST(self) -> None:
                """Keep it."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sink.posts.append((dict(self.headers), json.loads(body)))
                self.send_response(sink.status)
                if sink.status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def do_GET(self) -> None:
                """Be pleased with anything, as a login page is."""
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_arguments: t.Any) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def close(self) -> None:
        """Stop; nobody listens any more."""
        self._server.shutdown()
        self._server.server_close()


class MailServer:
    """An SMTP server that keeps the mails that it takes."""

    def __init__(self) -> None:
        sink = self
        self.mails: list[email.message.EmailMessage] = []

        class Handler(socketserver.StreamRequestHandler):
            """One connection, as RFC 5321 has it, without extensions."""

            def handle(self) -> None:
                """Talk until the client says good-bye."""
                self._say("220 sink")
                for line in self.rfile:
                    word = line.split()[0].upper() if line.split() else b""
                    if word == b"DATA":
                        self._say("354 go on")
                        sink.mails.append(self._mail())
                    elif word == b"QUIT":
                        self._say("221 bye")
                        return
                    self._say("250 ok")

            def _mail(self) -> t.Any:
                lines = []
                for line in self.rfile:
                    if line == b".\r\n":
                        break
                    lines.append(line[1:] if line.startswith(b"..") else line)
                return email.message_from_bytes(b"".join(lines), policy=email.policy.default)

            def _say(self, text: str) -> None:
                self.wfile.write(f"{text}\r\n".encode())

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
