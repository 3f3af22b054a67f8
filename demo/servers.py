# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The servers of the demo's fleet, one class for each database system: their programs, and ways to talk to them."""

from __future__ import annotations

import abc
import contextlib
import json
import pathlib
import re
import shutil
import string
import subprocess
import typing as t

import psycopg2
import psycopg2.extras
import pymysql
import pymysql.cursors
from local_mysql import LocalMysql
from local_postgresql import LocalPostgresql
from local_server import AnyPath, LocalServer
from running import CACHE, ROOT, private_environment

SQL = ROOT / "demo" / "sql"
HOME = CACHE / "demo"
LOGS = HOME / "logs"

#: Of every server's scripts, the one that makes its database.
SCHEMA = "schema.sql"

Row = dict[str, t.Any]


class DemoError(Exception):
    """A step failed; ``log`` has the details."""

    def __init__(self, message: str, log: pathlib.Path | None = None) -> None:
        super().__init__(message)
        self.log = log


class Load(t.NamedTuple):
    """What a foreign client program did in one run."""

    transactions: int
    rate: float


class Server(abc.ABC):
    """One server of the fleet. ``password`` is what its accounts log in with, the superuser apart."""

    LOCAL: t.ClassVar[type[LocalServer]]
    SUPERUSER: t.ClassVar[str]
    #: What the driver raises.
    ERROR: t.ClassVar[type[Exception]]
    #: The database that a client can connect to before there is any other.
    FIRST: t.ClassVar[str]
    #: The foreign client program, and where in its output it says how many transactions, and how many a second.
    LOAD_PROGRAM: t.ClassVar[str]
    LOAD_RESULT: t.ClassVar[str]

    def __init__(self, name: str, password: str, while_pid: int | None) -> None:
        self.name = name
        self.password = password
        self.local = self.LOCAL.create(HOME / name, while_pid=while_pid)

    # -- what differs -------------------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def product(self) -> str:
        """The name of the database system."""

    @property
    @abc.abstractmethod
    def socket(self) -> pathlib.Path:
        """What a client has to be told to connect through the socket."""

    @abc.abstractmethod
    def run_script(self, script: str, user: str | None = None, **values: str) -> None:
        """Run a file of this server's in demo/sql: as the superuser by the socket, or as an application over TCP."""

    @abc.abstractmethod
    def client_command(self, user: str) -> str:
        """Return how a person connects."""

    @abc.abstractmethod
    def prepare_load(self, database: str) -> None:
        """Let the foreign client program make its tables."""

    @abc.abstractmethod
    def _run_load(self, database: str, seconds: int) -> str:
        """Let the foreign client program work, and return what it printed."""

    @abc.abstractmethod
    def _connect(self, user: str) -> t.Any:
        """Return a connection whose rows are dictionaries."""

    @abc.abstractmethod
    def _words(self, error: t.Any) -> str:
        """Return the server's words from an error of the driver."""

    # -- what does not ------------------------------------------------------------------------------------------

    def places(self) -> dict[str, str]:
        """Return what the inventory says of this server, as YAML."""
        values = {"port": self.local.port, "socket": str(self.socket), "password": self.local.password}
        return {f"{self.name}_{name}": json.dumps(value) for name, value in values.items()}

    def ask(self, query: str, user: str | None = None, **values: t.Any) -> list[Row]:
        """Return the rows of a query."""
        connection = self._connect(user or self.SUPERUSER)
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(query, values)
            return [dict(row) for row in cursor.fetchall()]

    def refusal(self, statement: str, user: str) -> str:
        """Try a statement that must fail, and return the server's words."""
        connection = self._connect(user)
        with contextlib.closing(connection), connection.cursor() as cursor:
            try:
                cursor.execute(statement)
            except self.ERROR as error:
                return self._words(error)
            connection.rollback()
        raise DemoError(f"{user} was not refused: {statement}")

    def load(self, database: str, seconds: int) -> Load:
        """Let the foreign client program work, and return what it did."""
        match = re.search(self.LOAD_RESULT, self._run_load(database, seconds), flags=re.MULTILINE | re.DOTALL)
        if not match:
            raise DemoError(f"{self.LOAD_PROGRAM} printed no result", LOGS / f"{self.LOAD_PROGRAM}.log")
        return Load(int(match[1]), float(match[2]))

    def queries(self) -> dict[str, str]:
        """Return the queries of the report by name."""
        text = (SQL / self.name / "report.sql").read_text("utf-8")
        parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2]))

    def _home(self, script: str) -> str:
        """Return the database that a script starts in."""
        return self.FIRST if script == SCHEMA else self.name

    def _run(self, program: AnyPath, *options: str, text: str = "", **environment: str) -> str:
        """Run a program with its output in a log, and return that."""
        done = subprocess.run(
            [program, *options],
            env={**private_environment(), **environment},
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        name = pathlib.Path(program).name
        log = LOGS / f"{name}.log"
        with log.open("a", encoding="utf-8") as file:
            file.write(done.stdout)
        if done.returncode:
            raise DemoError(f"{name} ended with {done.returncode}", log)
        return done.stdout


class PostgresqlServer(Server):
    """A PostgreSQL server; on its socket it believes everybody."""

    LOCAL = LocalPostgresql
    SUPERUSER = "postgres"
    ERROR = psycopg2.Error
    FIRST = "postgres"
    LOAD_PROGRAM = "pgbench"
    LOAD_RESULT = r"^number of transactions actually processed: (\d+).*^tps = ([\d.]+)"
    SCALE = 5

    @property
    def product(self) -> str:
        """The name of the database system."""
        return f"PostgreSQL {self.local.version}"

    @property
    def socket(self) -> pathlib.Path:
        """The directory of the socket."""
        return self.local.socket_dir

    def run_script(self, script: str, user: str | None = None, **values: str) -> None:
        """Run a file with psql, whose variables the values are."""
        values["app_password"] = self.password
        settings = [f"--set={name}={value}" for name, value in values.items()]
        host = "127.0.0.1" if user else str(self.socket)
        file = str(SQL / self.name / script)
        # Notices that only say what a script asked for stay out.
        environment = {"PGOPTIONS": "-c client_min_messages=warning"}
        # Who comes with psql as a person is psql in the logs.
        if user == f"{self.name}_app":
            environment["PGAPPNAME"] = f"{self.name}-web"
        options = ("-X", "-q", "-v", "ON_ERROR_STOP=1", *settings, "-f", file)
        self._run_postgresql("psql", host, user or self.SUPERUSER, self._home(script), *options, **environment)

    def client_command(self, user: str) -> str:
        """Return how a person connects."""
        return f"{self.local.binaries}/psql -h {self.socket} -p {self.local.port} -U {user} {self.name}"

    def prepare_load(self, database: str) -> None:
        """Let pgbench make its tables."""
        self._pgbench(database, "-i", "-q", "-s", str(self.SCALE))

    def _run_load(self, database: str, seconds: int) -> str:
        return self._pgbench(database, "-T", str(seconds))

    def _pgbench(self, database: str, *options: str) -> str:
        # What is measured must not be the machine's disk.
        no_wait = "-c synchronous_commit=off"
        where = (str(self.socket), "bank_app", database)
        return self._run_postgresql("pgbench", *where, "-n", *options, PGOPTIONS=no_wait)

    def _run_postgresql(
        self, program: str, host: str, user: str, database: str, *options: str, **environment: str
    ) -> str:
        where = ("-h", host, "-p", str(self.local.port), "-U", user)
        path = self.local.binaries / program
        return self._run(path, *where, *options, database, PGPASSWORD=self.password, **environment)

    def _connect(self, user: str) -> psycopg2.extensions.connection:
        return psycopg2.connect(
            host=str(self.socket),
            port=self.local.port,
            user=user,
            dbname=self.name,
            cursor_factory=psycopg2.extras.RealDictCursor,
        )

    def _words(self, error: psycopg2.Error) -> str:
        return f"ERROR {error.diag.sqlstate}: {error.diag.message_primary}"


class MysqlServer(Server):
    """A MariaDB or MySQL server, whichever the machine has; everybody has a password."""

    LOCAL = LocalMysql
    SUPERUSER = "root"
    ERROR = pymysql.Error
    FIRST = "mysql"
    LOAD_PROGRAM = "sysbench"
    LOAD_RESULT = r"^ +transactions: +(\d+) +\(([\d.]+) per sec"
    LOAD = ("oltp_write_only", "--db-driver=mysql", "--table-size=10000", "--threads=1")

    def __init__(self, name: str, password: str, while_pid: int | None) -> None:
        super().__init__(name, password, while_pid)
        # As every distribution has one: a directory for the option files of others.
        folder = self.local.socket_dir / "conf.d"
        folder.mkdir(mode=0o755)
        with self.local.option_file.open("a", encoding="utf-8") as file:
            file.write(f"!includedir {folder}\n")

    @property
    def product(self) -> str:
        """The name of the database system."""
        return f"{'MariaDB' if self.local.is_mariadb else 'MySQL'} {self.local.version}"

    @property
    def socket(self) -> pathlib.Path:
        """The socket."""
        return self.local.socket

    def run_script(self, script: str, user: str | None = None, **values: str) -> None:
        """Run a file with the client program, the values filled in."""
        text = string.Template((SQL / self.name / script).read_text("utf-8"))
        login = self._login(user or self.SUPERUSER, tcp=bool(user))
        statements = text.safe_substitute(values, app_password=self.password)
        self._run(self._client(), f"--defaults-file={login}", self._home(script), text=statements)

    def client_command(self, user: str) -> str:
        """Return how a person connects."""
        return f"{self._client()} --defaults-file={self._login(user)}"

    def prepare_load(self, database: str) -> None:
        """Let sysbench make its tables."""
        self._sysbench(database, "prepare")

    def _run_load(self, database: str, seconds: int) -> str:
        return self._sysbench(database, f"--time={seconds}", "run")

    def _sysbench(self, database: str, *options: str) -> str:
        login = {f"mysql-{name}": value for name, value in self._account("sysbench").items()}
        file = _option_file("sysbench", login)
        return self._run("sysbench", *self.LOAD, f"--config-file={file}", f"--mysql-db={database}", *options)

    def _account(self, user: str, tcp: bool = False) -> dict[str, str]:
        password = self.local.password if user == self.SUPERUSER else self.password
        place = {"host": "127.0.0.1", "port": str(self.local.port)} if tcp else {"socket": str(self.socket)}
        return {"user": user, "password": password, **place}

    def _login(self, user: str, tcp: bool = False) -> pathlib.Path:
        """Write the option file of an account; on a command line, everybody could read its password."""
        return _option_file(user, self._account(user, tcp), "[client]\n")

    def _client(self) -> str:
        # MariaDB's client also has MySQL's name.
        return shutil.which("mariadb" if self.local.is_mariadb else "mysql") or "mysql"

    def _connect(self, user: str) -> pymysql.connections.Connection:
        login = self._login(user)
        return pymysql.connect(read_default_file=str(login), charset="utf8mb4", cursorclass=pymysql.cursors.DictCursor)

    def _words(self, error: pymysql.Error) -> str:
        return "ERROR {}: {}".format(*error.args)


def _option_file(name: str, options: t.Mapping[str, str], head: str = "") -> pathlib.Path:
    """Write options that only we may read."""
    path = HOME / f"{name}.cnf"
    path.touch(mode=0o600)
    path.write_text(head + "".join(f"{option}={value}\n" for option, value in options.items()), "utf-8")
    return path
