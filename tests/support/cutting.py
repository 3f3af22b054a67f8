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
from mysql_databases import MysqlServer


class Cutter:
    """A way to a server on a port of its own, that ends behind the n-th statement; 0 never ends.

    What is counted is what clients send: a round trip each, however many statements are in it.
    """

    #: A message begins with so many bytes, in which its size is.
    header = 0

    def __init__(self, server: t.Any, after: int = 0) -> None:
        self.statements = 0
        self.server = server
        self._after = after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return int(self._listener.getsockname()[1])

    def target(self) -> socket.socket:
        """Return a new connection to the server itself."""
        raise NotImplementedError

    def size(self, header: bytes) -> int:
        """Return the size of the message that begins so, all of it."""
        raise NotImplementedError

    def is_statement(self, message: bytes) -> bool:
        """Tell whether a message holds SQL."""
        raise NotImplementedError

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
                server = self.target()
                for work in (self._to_server, self._to_client):
                    self._threads.append(threading.Thread(target=work, args=(client, server), daemon=True))
                    self._threads[-1].start()

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        """Pass messages on one by one."""
        pending = b""
        with _both_ends(client, server):
            self._begin(client, server)
            while data := client.recv(65536):
                pending += data
                while len(pending) >= self.header and len(pending) >= self.size(pending[: self.header]):
                    size = self.size(pending[: self.header])
                    message, pending = pending[:size], pending[size:]
                    self.statements += self.is_statement(message)
                    server.sendall(message)
                    if self._is_cut():
                        return

    def _to_client(self, client: socket.socket, server: socket.socket) -> None:
        with _both_ends(client, server):
            client.sendall(self._first(server.recv(65536)))
            # A quick server's answer to the last statement may be here before the connection has been cut.
            while (data := server.recv(65536)) and not self._is_cut():
                client.sendall(data)

    def _begin(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what comes before the first message."""

    def _first(self, answer: bytes) -> bytes:
        """Return what the client is to see of what the server says first."""
        return answer

    def _is_cut(self) -> bool:
        return 0 < self._after <= self.statements


class PostgresqlCutter(Cutter):
    """To PostgreSQL: a message is its type, one byte, and its length, four, which count themselves (protocol 3)."""

    header = 5
    server: LocalPostgresql

    @property
    def login(self) -> dict[str, t.Any]:
        """The options that bring a module through here; the database is the caller's to add."""
        return {"login_host": "127.0.0.1", "login_port": self.port, "login_user": "postgres", "ssl_mode": "disable"}

    def target(self) -> socket.socket:
        """Connect to its socket."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.server.socket_dir / f".s.PGSQL.{self.server.port}"))
        return connection

    def size(self, header: bytes) -> int:
        """Return the length in the header, and what it leaves out."""
        return 1 + int.from_bytes(header[1:], "big")

    def is_statement(self, message: bytes) -> bool:
        """Tell whether it is a simple query."""
        return message[0] == ord("Q")

    def _begin(self, client: socket.socket, server: socket.socket) -> None:
        # The first message of a connection has no type.
        server.sendall(client.recv(65536))


class MysqlCutter(Cutter):
    """To MariaDB or MySQL: a packet is its length, three bytes, its number, one, and what it is about."""

    header = 4
    server: MysqlServer

    @property
    def login(self) -> dict[str, t.Any]:
        """The options that bring a module through here."""
        login = {"login_user": self.server.user, "login_password": self.server.password}
        return {**login, "login_host": "127.0.0.1", "login_port": self.port}

    def target(self) -> socket.socket:
        """Connect to its port."""
        return socket.create_connection((self.server.host, self.server.port))

    def size(self, header: bytes) -> int:
        """Return the length in the header, and what it leaves out."""
        return 4 + int.from_bytes(header[:3], "little")

    def is_statement(self, message: bytes) -> bool:
        """Tell whether it is a query."""
        # The first packet of a command, and the command COM_QUERY.
        return message[3:5] == b"\x00\x03"

    def _first(self, answer: bytes) -> bytes:
        # Nobody can count what is encrypted: the offer of it (CLIENT_SSL, 2048) is taken out of the greeting. The flags
        # stand behind the version, the number of the connection (4 bytes), a part of the salt (8) and a filler (1).
        flags = answer.index(b"\0", self.header + 1) + 1 + 4 + 8 + 1
        return answer[: flags + 1] + bytes([answer[flags + 1] & ~0x08]) + answer[flags + 2 :]


@contextlib.contextmanager
def _both_ends(*sockets: socket.socket) -> t.Iterator[None]:
    """Hang up on both sides at the end; closing alone would leave the other thread waiting in recv()."""
    with contextlib.suppress(OSError):
        yield
    for end in sockets:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
