# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One connection to one MariaDB or MySQL server: connecting, asking, quoting."""

from __future__ import annotations

import json
import os
import re
import ssl
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from .._core.errors import AuditError

try:
    import pymysql
    import pymysql.connections
    import pymysql.constants.CLIENT
    import pymysql.cursors

    PYMYSQL_ERROR = None
    _DriverConnection = pymysql.connections.Connection
except ImportError:
    pymysql = None
    PYMYSQL_ERROR = traceback.format_exc()
    _DriverConnection = object

MINIMUM_MARIADB = (10, 6)
MINIMUM_MYSQL = (8, 0)

#: Where distributions put the server's socket: Debian, RHEL and SUSE, built from source.
SOCKETS = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/run/mysql/mysql.sock", "/tmp/mysql.sock")

#: The modes that triggers and routines are made with, and thus run in, whatever the application's session has: a
#: record is never cut short in silence, and text means what it meant when the plan was made.
SQL_MODE = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"

_SESSION = f"SET SESSION sql_mode = '{SQL_MODE}', time_zone = '+00:00', group_concat_max_len = 16777216"

_VARIABLES = """
SHOW GLOBAL VARIABLES WHERE variable_name IN ('version', 'read_only', 'log_bin', 'log_bin_trust_function_creators',
  'binlog_format', 'event_scheduler', 'partial_revokes', 'enable_cascade_triggers', 'max_allowed_packet')
"""

#: With --sysdate-is-now the clock stands still within a statement.
_CLOCK = """
SELECT SLEEP(0.001) AS pause, SYSDATE(6) > NOW(6) AS runs, CURRENT_USER() AS account, CURRENT_ROLE() AS role
"""

#: The user lock of one server that every change of ours is made under, whichever schema the trail is in.
LOCK = "dbfleet.audit"
LOCK_WAIT = 60

_LOCK_HOLDER = """
SELECT CONCAT('connection ', p.id, ' of ', p.user, '@', p.host)
FROM information_schema.processlist AS p
WHERE p.id = IS_USED_LOCK(%(name)s)
"""


class Connection(_DriverConnection):
    """The driver's connection, in a tenth of a second less."""

    def _create_ssl_ctx(self, sslp: Any) -> ssl.SSLContext:
        """Return how TLS is done; where nobody asks for a check, without reading the authorities to check against."""
        if sslp:
            return super()._create_ssl_ctx(sslp)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context


class Session:
    """An open connection, used by catalog (ask) and apply (change)."""

    def __init__(self, connection: Any, place: str) -> None:
        self.connection = connection
        #: What messages call this server.
        self.database = place
        self.execute(_SESSION)
        self.variables = {row["Variable_name"].lower(): row["Value"] for row in self.all(_VARIABLES)}
        self.version: str = self.variables["version"]
        #: `mariadb` or `mysql`.
        self.vendor = "mariadb" if "mariadb" in self.version.lower() else "mysql"
        self.version_number = tuple(int(part) for part in re.findall(r"\d+", self.version)[:3])
        self._require_version()
        clock = self.one(_CLOCK)
        self.clock_runs = bool(clock["runs"])
        self.account: str = clock["account"]
        self.role: str = clock["role"] or ""

    def _require_version(self) -> None:
        name, minimum = ("MariaDB", MINIMUM_MARIADB) if self.is_mariadb else ("MySQL", MINIMUM_MYSQL)
        if self.version_number < tuple(minimum):
            needed = ".".join(str(part) for part in minimum)
            raise AuditError(
                f"{self.database}: {name} {self.version} is too old: dbfleet.audit needs {name} {needed} or newer"
            )

    @property
    def is_mariadb(self) -> bool:
        return self.vendor == "mariadb"

    @property
    def read_only(self) -> bool:
        """Whether the server takes no writes, as a replica does."""
        return self.variables["read_only"] != "OFF"

    def on(self, variable: str) -> bool:
        """Tell whether a global variable is ON; one that this server does not have is not."""
        return self.variables.get(variable) in ("ON", "1")

    def all(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return all rows as dictionaries."""
        with self.connection.cursor() as cursor:
            cursor.execute(query, parameters)
            return list(cursor.fetchall())

    def one(self, query: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the first row."""
        return self.all(query, parameters)[0]

    def execute(self, statement: str) -> None:
        """Execute one statement."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement)

    def execute_many(self, statements: Sequence[str]) -> tuple[int, Any]:
        """Execute statements in one round trip, up to the first that fails.

        Return how many the server has done, and the driver's error of the one that failed, or None. That the connection
        is gone is raised: nobody knows then what was done.
        """
        done = 0
        with self.connection.cursor() as cursor:
            try:
                cursor.execute(";\n".join(statements))
                done = 1
                while cursor.nextset():
                    done += 1
            except pymysql.err.InterfaceError:
                raise
            except pymysql.MySQLError as error:
                if is_lost(error):
                    raise
                return done, error
        return done, None

    def require_writable(self) -> None:
        """Stop before writing where nothing is meant to be written.

        :raises AuditError: with the way to a server that takes it.
        """
        if self.read_only:
            raise AuditError(
                f"{self.database}: this server is read_only, as a replica is; run against its source, from which it "
                "gets log and triggers, or set read_only = OFF if it has none"
            )

    def lock(self) -> None:
        """Keep other runs out of this server until the connection ends.

        :raises AuditError: when another run still works on it after a minute.
        """
        taken = self.one("SELECT GET_LOCK(%(name)s, %(wait)s) AS taken", {"name": LOCK, "wait": LOCK_WAIT})["taken"]
        if taken == 1:
            return
        holders = [next(iter(row.values())) for row in self.all(_LOCK_HOLDER, {"name": LOCK})]
        raise AuditError(
            f"{self.database}: another dbfleet.audit run has been changing this server for more than {LOCK_WAIT} s: "
            f"{', '.join(holders) or 'it has just ended'}; wait for it to end, or end it if it is none (KILL)"
        )

    def identifier(self, *parts: str) -> str:
        return ".".join("`" + part.replace("`", "``") + "`" for part in parts)

    def literal(self, value: Any) -> str:
        if isinstance(value, (dict, list, tuple)):
            value = json.dumps(value, sort_keys=True, ensure_ascii=False)
        return self.connection.literal(value)

    def close(self) -> None:
        self.connection.close()


def connect(options: Mapping[str, Any]) -> Session:
    """Open a session with the module's connection options.

    :raises AuditError: naming host and user, when the server refuses or cannot be reached.
    """
    arguments = _connect_arguments(options)
    place = arguments.get("unix_socket") or f"{arguments['host']}:{arguments['port']}"
    try:
        connection = Connection(**arguments)
    except (pymysql.MySQLError, OSError) as error:
        user = arguments.get("user") or "the user of the option file"
        raise AuditError(f"cannot connect to {place} as {user}: {describe(error)}") from error
    return Session(connection, place)


def describe(error: Exception) -> str:
    """Return an error of the driver as the server's client prints it."""
    if len(error.args) == 2:
        return f"{error.args[1]} ({error.args[0]})"
    return str(error)


def is_lost(error: Any) -> bool:
    """Tell whether the connection is gone."""
    # 2006 and 2013: the connection broke (MySQL, errmsg.h). 1053, 1927, 3169: a shutdown or KILL ended it.
    return error.args[:1] in ((2006,), (2013,), (1053,), (1927,), (3169,), (0,))


def same_mode(sql_mode: str) -> bool:
    """Tell whether an sql_mode is :data:`SQL_MODE`, in whatever order the server names its parts."""
    return set(sql_mode.split(",")) == set(SQL_MODE.split(","))


def _connect_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "charset": "utf8mb4",
        "autocommit": True,
        "cursorclass": pymysql.cursors.DictCursor,
        "client_flag": pymysql.constants.CLIENT.MULTI_STATEMENTS,
        "program_name": "dbfleet.audit",
        "connect_timeout": options["connect_timeout"],
        "host": options["login_host"] or "localhost",
        "port": options["login_port"],
    }
    config = os.path.expanduser(options["config_file"]) if options["config_file"] else ""
    if config and os.path.exists(config):
        arguments["read_default_file"] = config
    elif not options["login_user"]:
        arguments["user"] = "root"
    socket = options["login_unix_socket"]
    if not (socket or options["login_host"] or "read_default_file" in arguments):
        socket = next((path for path in SOCKETS if os.path.exists(path)), None)
    optional = {
        "unix_socket": socket,
        "user": options["login_user"],
        "password": options["login_password"],
        "ssl_ca": options["ca_cert"],
        "ssl_cert": options["client_cert"],
        "ssl_key": options["client_key"],
    }
    arguments.update((key, value) for key, value in optional.items() if value)
    if options["ca_cert"]:
        arguments.update(ssl_verify_cert=True, ssl_verify_identity=options["check_hostname"] is not False)
    return arguments
