# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A connection that is cut off at a chosen statement: what a killed controller, a crashed host or a lost network leave.

The server gets the statement, and works on it, but nobody is there any more to hear the answer.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import typing as t

from local_postgresql import LocalPostgresql

_QUERY = ord("Q")
_HEADER = 5  # a message is its type, one byte, and its length, four, which count themselves (protocol 3)


class Cutter:
    """A way to a server on a port of its own, that ends behind the n-th statement; 0 never ends."""

    def __init__(self, server: LocalPostgresql, after: int = 0) -> None:
        self.statements = 0
        self._target = str(server.socket_dir / f".s.PGSQL.{server.port}")
        self._after = after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    @property
    def login(self) -> dict[str, t.Any]:
        """The options that bring a module through here; the database is the caller's to add."""
        port = self._listener.getsockname()[1]
        return {"login_host": "127.0.0.1", "login_port": port, "login_user": "postgres", "ssl_mode": "disable"}

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=30)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
                for work in (self._to_server, self._to_client):
                    self._threads.append(threading.Thread(target=work, args=(client, server), daemon=True))
                    self._threads[-1].start()

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        """Pass messages on one by one; the first of a connection, which has no type, as it is."""
        pending = b""
        with _both_ends(client, server):
            server.sendall(client.recv(65536))
            while data := client.recv(65536):
                pending += data
                while len(pending) >= _HEADER and len(pending) > int.from_bytes(pending[1:_HEADER], "big"):
                    size = 1 + int.from_bytes(pending[1:_HEADER], "big")
                    message, pending = pending[:size], pending[size:]
                    self.statements += message[0] == _QUERY
                    server.sendall(message)
                    if self._is_cut():
                        return

    def _to_client(self, client: socket.socket, server: socket.socket) -> None:
        with _both_ends(client, server):
            # A quick server's answer to the last statement may be here before the connection has been cut.
            while (data := server.recv(65536)) and not self._is_cut():
                client.sendall(data)

    def _is_cut(self) -> bool:
        return 0 < self._after <= self.statements


@contextlib.contextmanager
def _both_ends(*sockets: socket.socket) -> t.Iterator[None]:
    """Hang up on both sides at the end; closing alone would leave the other thread waiting in recv()."""
    with contextlib.suppress(OSError):
        yield
    for end in sockets:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
