# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fresh databases, roles and connections on a private server, for tests."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import typing as t

import psycopg2
import psycopg2.extensions
import psycopg2.sql
from local_postgresql import LocalPostgresql

_serial = itertools.count(1)


def unique(prefix: str) -> str:
    """Return a name that no other test of this run uses: roles belong to the server, which tests share."""
    return f"{prefix}_{os.getpid()}_{next(_serial)}"


def connect(
    server: LocalPostgresql, database: str, user: str = "postgres", autocommit: bool = True, **options: t.Any
) -> psycopg2.extensions.connection:
    """Connect through the server's socket, where every role may log in without a password."""
    options.setdefault("host", str(server.socket_dir))
    connection = psycopg2.connect(dbname=database, user=user, port=server.port, **options)
    connection.autocommit = autocommit
    return connection


class Database:
    """A database of its own for one test. Everything made through it is gone after the test."""

    def __init__(self, server: LocalPostgresql, name: str | None = None, template: str | None = "template1") -> None:
        """Create the database from a template; with ``template=None`` it is there already."""
        self.server = server
        self.name = name or unique("t")
        self._connections: list[psycopg2.extensions.connection] = []
        self._roles: list[str] = []
        if template:
            self._on_server("CREATE DATABASE {} TEMPLATE {}", self.name, template)
        self._own: psycopg2.extensions.connection | None = None

    @property
    def login(self) -> dict[str, t.Any]:
        """The options that bring a module to this database as the superuser."""
        return {
            "login_unix_socket": str(self.server.socket_dir),
            "login_port": self.server.port,
            "login_user": "postgres",
            "login_db": self.name,
        }

    def connect(
        self, user: str = "postgres", autocommit: bool = True, **options: t.Any
    ) -> psycopg2.extensions.connection:
        """Return a new connection, closed after the test; ``options`` go to libpq."""
        connection = connect(self.server, self.name, user, autocommit, **options)
        self._connections.append(connection)
        return connection

    def execute(self, statement: str, *args: t.Any, user: str = "postgres") -> list[tuple[t.Any, ...]]:
        """Execute SQL in a transaction of its own and return the rows, if it has any.

        A superuser's statements share one connection; another user's each get their own, as a pool would give them.
        """
        if user != "postgres":
            with contextlib.closing(connect(self.server, self.name, user)) as connection:
                return fetch(connection, statement, *args)
        if self._own is None or self._own.closed:
            self._own = self.connect()
        return fetch(self._own, statement, *args)

    def value(self, statement: str, *args: t.Any, user: str = "postgres") -> t.Any:
        """Return the first column of the first row."""
        return self.execute(statement, *args, user=user)[0][0]

    def create_role(self, prefix: str = "role", options: str = "LOGIN") -> str:
        """Create a role with a name of its own, dropped after the test, and return the name."""
        name = unique(prefix)
        self._on_server("CREATE ROLE {} " + options, name)
        self._roles.append(name)
        return name

    def disconnect(self) -> None:
        """Close every connection, which a database that is to be copied must not have."""
        for connection in self._connections:
            connection.close()

    def drop(self) -> None:
        """Drop the database and the roles."""
        self.disconnect()
        self._on_server("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)
        for role in reversed(self._roles):
            self._on_server("DROP OWNED BY {}", role)
            self._on_server("DROP ROLE {}", role)

    def _on_server(self, statement: str, *identifiers: str) -> None:
        """Execute a statement on identifiers in the maintenance database."""
        names = [psycopg2.sql.Identifier(name) for name in identifiers]
        with contextlib.closing(connect(self.server, "postgres")) as connection, connection.cursor() as cursor:
            cursor.execute(psycopg2.sql.SQL(statement).format(*names))


def fetch(connection: psycopg2.extensions.connection, statement: str, *args: t.Any) -> list[tuple[t.Any, ...]]:
    """Execute SQL on a connection and return the rows, if it has any; ``%`` is literal when there are no args."""
    with connection.cursor() as cursor:
        cursor.execute(statement, args or None)
        return cursor.fetchall() if cursor.description else []


def wait_for_replay(primary: LocalPostgresql, standby: LocalPostgresql, seconds: float = 30) -> None:
    """Wait until a standby has replayed what its primary has written by now."""
    with contextlib.closing(connect(primary, "postgres")) as connection:
        # A record of our own: the end of the last one may lie behind a page's edge that no replay reports.
        target = fetch(connection, "SELECT pg_logical_emit_message(false, '', '')")[0][0]
    deadline = time.monotonic() + seconds
    with contextlib.closing(connect(standby, "postgres")) as connection:
        while not fetch(connection, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", target)[0][0]:
            if time.monotonic() > deadline:
                raise AssertionError(f"the standby on port {standby.port} is still behind {target}")
            time.sleep(0.05)
