# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fresh databases, accounts and connections on a MariaDB or MySQL server, for tests."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import typing as t

import pymysql
import pymysql.connections
from databases import unique
from local_mysql import LocalMysql

from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.session import Connection

VARIABLE = "DBFLEET_TEST_MYSQL"

#: Of every account that a test makes; validate_password, which some servers have, wants all of this in one.
ACCOUNT_PASSWORD = "Secret-of-the-4-tests"


@dataclasses.dataclass(frozen=True)
class ExternalMysql:
    """A server that somebody else runs, reached over TCP; for tests it is what LocalMysql is."""

    host: str
    port: int
    user: str
    password: str = dataclasses.field(repr=False)
    socket: t.ClassVar[None] = None

    @classmethod
    def from_environment(cls) -> ExternalMysql | None:
        """Return the server that the environment describes, if it describes one."""
        text = os.environ.get(VARIABLE)
        if not text:
            return None
        names = [field.name for field in dataclasses.fields(cls)]
        form = f"{VARIABLE} must be a JSON object of {', '.join(names)}"
        try:
            given = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{form}: {error}") from None
        if not isinstance(given, dict) or sorted(given) != sorted(names):
            # Not the value: it may hold a password.
            raise ValueError(form)
        return cls(**{**given, "port": int(given["port"])})

    @functools.cached_property
    def _version(self) -> str:
        with contextlib.closing(connect(self)) as connection:
            return str(fetch(connection, "SELECT VERSION()")[0][0])

    @property
    def is_mariadb(self) -> bool:
        """Whether it is MariaDB and not MySQL."""
        return "mariadb" in self._version.lower()

    @property
    def version(self) -> str:
        """The release as numbers with dots between."""
        # An old MariaDB, or one behind a proxy, puts what clients of old replication expect before its own release.
        return re.match(r"(?:5\.5\.5-)?([\d.]+)", self._version).group(1)


MysqlServer = t.Union[LocalMysql, ExternalMysql]


def connect(
    server: MysqlServer,
    user: str | None = None,
    password: str | None = None,
    database: str | None = None,
    autocommit: bool = True,
    **options: t.Any,
) -> pymysql.connections.Connection:
    """Connect as root, or as an account of a test, whose password is known.

    It goes through the server's socket where there is one; ``host="127.0.0.1"`` insists on TCP.
    """
    user = user or server.user
    if password is None:
        password = server.password if user == server.user else ACCOUNT_PASSWORD
    if server.socket and "host" not in options:
        # Which does not need TLS; tests connect by the thousand.
        options = {"unix_socket": str(server.socket), "ssl_disabled": True, **options}
    else:
        options = {"host": server.host, "port": server.port, **options}
    options.setdefault("charset", "utf8mb4")
    return Connection(user=user, password=password, database=database, autocommit=autocommit, **options)


class Schema:
    """A database of its own for one test. Everything made through it is gone after the test."""

    def __init__(self, server: MysqlServer, name: str | None = None) -> None:
        self.server = server
        self.name = name or unique("t")
        self._accounts: list[str] = []
        self._connections: list[pymysql.connections.Connection] = []
        self._own: pymysql.connections.Connection | None = None
        # A run that was killed leaves what it had on a server that others run, and its process id comes again.
        self._on_server(f"DROP DATABASE IF EXISTS {quote_name(self.name)}")
        self._on_server(f"CREATE DATABASE {quote_name(self.name)} CHARACTER SET utf8mb4")

    def __enter__(self) -> Schema:
        """Return the database, which is there already."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Drop it."""
        self.drop()

    @property
    def login(self) -> dict[str, t.Any]:
        """The options that bring a module to this server as root."""
        login = {"login_user": self.server.user, "login_password": self.server.password}
        if self.server.socket:
            return {**login, "login_unix_socket": str(self.server.socket)}
        return {**login, "login_host": self.server.host, "login_port": self.server.port}

    def connect(
        self, user: str | None = None, autocommit: bool = True, **options: t.Any
    ) -> pymysql.connections.Connection:
        """Return a new connection, closed after the test; ``options`` go to :func:`connect`."""
        options.setdefault("database", self.name)
        connection = connect(self.server, user, autocommit=autocommit, **options)
        self._connections.append(connection)
        return connection

    def execute(self, statement: str, *args: t.Any, user: str | None = None) -> list[tuple[t.Any, ...]]:
        """Execute SQL in a transaction of its own and return the rows, if it has any.

        root's statements share one connection; another user's each get their own, as a pool would give them.
        """
        if user and user != self.server.user:
            with contextlib.closing(connect(self.server, user, database=self.name)) as connection:
                return fetch(connection, statement, *args)
        if self._own is None or not self._own.open:
            self._own = self.connect()
        return fetch(self._own, statement, *args)

    def value(self, statement: str, *args: t.Any, user: str | None = None) -> t.Any:
        """Return the first column of the first row."""
        return self.execute(statement, *args, user=user)[0][0]

    def create_account(self, prefix: str = "app", grants: str | None = None) -> str:
        """Create an account that may log in from anywhere, dropped after the test, and return its name.

        ``grants`` are its privileges on this database: all of them, unless said; none where it is empty.
        """
        name = unique(prefix)
        account = f"{_quote_text(name)}@'%'"
        self._on_server(f"DROP USER IF EXISTS {account}")
        self._on_server(f"CREATE USER {account} IDENTIFIED BY {_quote_text(ACCOUNT_PASSWORD)}")
        self._accounts.append(account)
        grants = "ALL PRIVILEGES" if grants is None else grants
        if grants:
            # In a grant, _ and % of a database's name are wildcards.
            pattern = re.sub(r"([_%])", r"\\\1", self.name)
            self._on_server(f"GRANT {grants} ON {quote_name(pattern)}.* TO {account}")
        return name

    def drop(self) -> None:
        """Drop the database and the accounts."""
        for connection in self._connections:
            if connection.open:
                connection.close()
        self._on_server(f"DROP DATABASE IF EXISTS {quote_name(self.name)}")
        for account in reversed(self._accounts):
            self._on_server(f"DROP USER IF EXISTS {account}")

    def _on_server(self, statement: str) -> None:
        # A session that a test has forgotten may hold a lock; a test that hangs for a day would say less than an error.
        with contextlib.closing(connect(self.server, init_command="SET SESSION lock_wait_timeout = 60")) as connection:
            fetch(connection, statement)


def quote_name(name: str) -> str:
    """Return an identifier as SQL wants it."""
    return "`" + name.replace("`", "``") + "`"


def _quote_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def fetch(connection: pymysql.connections.Connection, statement: str, *args: t.Any) -> list[tuple[t.Any, ...]]:
    """Execute SQL on a connection and return the rows, if it has any; ``%`` is literal when there are no args."""
    with connection.cursor() as cursor:
        cursor.execute(statement, args or None)
        return list(cursor.fetchall())


def wait_for_replica(primary: LocalMysql, replica: LocalMysql, seconds: int = 30) -> None:
    """Wait until a replica has replayed what its primary has written by now."""
    old_words = primary.is_mariadb or tuple(int(part) for part in primary.version.split(".")) < (8, 4)
    status, wait = (
        ("SHOW MASTER STATUS", "SELECT MASTER_POS_WAIT(%s, %s, %s)")
        if old_words
        else ("SHOW BINARY LOG STATUS", "SELECT SOURCE_POS_WAIT(%s, %s, %s)")
    )
    with contextlib.closing(connect(primary)) as connection:
        file, position = fetch(connection, status)[0][:2]
    with contextlib.closing(connect(replica)) as connection:
        answer = fetch(connection, wait, file, position, seconds)[0][0]
        if answer is None or answer < 0:
            # NULL: replication does not run, and this says why.
            command = "SHOW SLAVE STATUS" if replica.is_mariadb else "SHOW REPLICA STATUS"
            raise AssertionError(f"the replica on port {replica.port} is behind: {fetch(connection, command)}")
