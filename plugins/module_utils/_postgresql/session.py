# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One connection to one database: connecting, asking, quoting."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from typing import Any

from .._core.errors import AuditError
from .._core.sql import Literal, sql

try:
    import psycopg2
    import psycopg2.extensions
    import psycopg2.extras
    import psycopg2.sql

    PSYCOPG2_ERROR = None
except ImportError:
    psycopg2 = None
    PSYCOPG2_ERROR = traceback.format_exc()

MINIMUM_VERSION = 140000

#: The first server version that fires event triggers at a login.
LOGIN_EVENTS_VERSION = 170000

#: What a session must not inherit from the role or the database: a path on which others can shadow functions,
#: timeouts that would end a run in the middle, another place for tables, other ways to write a time or a definition.
_SESSION = """
SELECT set_config('search_path', 'pg_catalog', false) AS path,
       set_config('statement_timeout', '0', false) AS statement_timeout,
       set_config('lock_timeout', '0', false) AS lock_timeout,
       set_config('idle_in_transaction_session_timeout', '0', false) AS idle_timeout,
       set_config('TimeZone', 'UTC', false) AS time_zone,
       set_config('DateStyle', 'ISO', false) AS date_style,
       set_config('client_min_messages', 'warning', false) AS messages,
       set_config('default_tablespace', '', false) AS tablespace,
       set_config('quote_all_identifiers', 'off', false) AS quoting,
       current_setting('server_version_num')::int AS version_number,
       pg_is_in_recovery() AS in_recovery,
       current_setting('default_transaction_read_only')::boolean AS read_only,
       current_setting('server_version') AS version
"""

#: The advisory lock of one database that every change of ours is made under ("dbfl" in ASCII, then our objects).
LOCK_KEY = (0x6462666C, 1)
LOCK_PLACES = {"lock_class": Literal(LOCK_KEY[0]), "lock_object": Literal(LOCK_KEY[1])}
LOCK_WAIT = "60s"

#: Anybody can take an advisory lock: who waits for it in vain must learn from whom.
LOCK_HOLDERS = """
SELECT string_agg(format('process %s of %s (%s)', l.pid, a.usename, a.application_name), ', ')
FROM pg_catalog.pg_locks AS l LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = {lock_class} AND l.objid = {lock_object} AND l.objsubid = 2
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
"""


class Session:
    """An open connection, used by catalog (ask) and apply (change)."""

    def __init__(self, connection: Any, database: str, expects_pgaudit: bool = False) -> None:
        self.connection = connection
        self.database = database
        #: The server is about to load pgaudit, whatever it says itself.
        self.expects_pgaudit = expects_pgaudit
        row = self.one(_SESSION)
        self.version_number: int = row.version_number
        self.version: str = row.version
        self.in_recovery: bool = row.in_recovery
        self.read_only: bool = row.read_only
        if self.version_number < MINIMUM_VERSION:
            raise AuditError(
                f"PostgreSQL {self.version} is too old: dbfleet.audit needs 14 or newer "
                "(CREATE OR REPLACE TRIGGER, DETACH CONCURRENTLY)"
            )

    @property
    def superuser(self) -> bool:
        """Whether the login is a superuser, as the server has said when it let us in."""
        return bool(self.connection.get_parameter_status("is_superuser") == "on")

    @property
    def encoding(self) -> str:
        """The database's encoding, as Python names it."""
        return psycopg2.extensions.encodings[self.connection.get_parameter_status("server_encoding")]

    def all(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        """Return all rows, as named tuples."""
        with self.connection.cursor() as cursor:
            cursor.execute(query, parameters)
            return cursor.fetchall()

    def one(self, query: str, parameters: Mapping[str, Any] | None = None) -> Any:
        return self.all(query, parameters)[0]

    def execute(self, statement: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(statement)

    def run_block(self, block: str, question: str, document: Any, answer: str) -> Any:
        """Run a DO block on a document and return its answer; both are JSON in settings, for it has no parameters.

        :raises AuditError: when the settings did not survive until the block ran.
        """
        self.one("SELECT set_config(%(name)s, %(value)s, false)", {"name": question, "value": json.dumps(document)})
        try:
            self.execute(block)
        except psycopg2.errors.UndefinedObject:
            raise AuditError(
                f"{self.database}: the server forgot this session between two statements, as a pooler in transaction "
                "mode does (pgbouncer); give login_host and login_port of the server itself"
            ) from None
        return json.loads(self.one("SELECT current_setting(%(name)s)", {"name": answer})[0])

    def require_writable(self) -> None:
        """Stop before writing where nothing can, or is meant to, be written.

        :raises AuditError: with the way to a server that takes it.
        """
        if self.in_recovery:
            raise AuditError(
                f"{self.database}: this server is a standby; run against its primary, from which it gets the trail"
            )
        if self.read_only:
            raise AuditError(
                f"{self.database}: the database is read-only; reset default_transaction_read_only for the server, the "
                "database or the login (pg_db_role_setting shows where it is set), or leave the database out"
            )

    def lock(self) -> None:
        """Keep other runs out of this database until the connection ends.

        :raises AuditError: when another run still works on it after a minute.
        """
        try:
            self.one("SELECT set_config('lock_timeout', %(wait)s, false)", {"wait": LOCK_WAIT})
            self.one("SELECT pg_advisory_lock(%(a)s, %(b)s)", {"a": LOCK_KEY[0], "b": LOCK_KEY[1]})
        except psycopg2.errors.LockNotAvailable:
            holders = self.one(sql(LOCK_HOLDERS, **LOCK_PLACES).render(self))[0]
            raise AuditError(
                f"{self.database}: another dbfleet.audit run has been changing this database for more than "
                f"{LOCK_WAIT}: {holders or 'it has just ended'}; wait for it to end, or end it if it is none "
                "(pg_terminate_backend)"
            ) from None
        self.one("SELECT set_config('lock_timeout', '0', false)")

    def identifier(self, *parts: str) -> str:
        return ".".join(psycopg2.extensions.quote_ident(part, self.connection) for part in parts)

    def literal(self, value: Any) -> str:
        if isinstance(value, (dict, tuple)):
            value = json.dumps(value, sort_keys=True, ensure_ascii=False)
        return psycopg2.sql.Literal(value).as_string(self.connection)

    def close(self) -> None:
        self.connection.close()


def connect(options: Mapping[str, Any]) -> Session:
    """Open a session with the module's connection options.

    :raises AuditError: naming host, database and user, when the server refuses or cannot be reached.
    """
    arguments = _connect_arguments(options)
    try:
        connection = psycopg2.connect(cursor_factory=psycopg2.extras.NamedTupleCursor, **arguments)
        if connection.get_parameter_status("standard_conforming_strings") == "off":
            # The driver quotes for the rest of a connection as it finds this at its beginning.
            connection.close()
            arguments["options"] = f"{arguments.get('options', '')} -c standard_conforming_strings=on"
            connection = psycopg2.connect(cursor_factory=psycopg2.extras.NamedTupleCursor, **arguments)
    except psycopg2.OperationalError as error:
        place = arguments.get("host") or "the local socket"
        raise AuditError(
            f"cannot connect to database {arguments['dbname']!r} on {place}, port {arguments['port']}, "
            f"as {arguments['user']!r}: {str(error).strip()}"
        ) from error
    connection.autocommit = True
    connection.set_client_encoding("UTF8")
    return Session(connection, arguments["dbname"], bool(options.get("expect_pgaudit")))


def _connect_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    arguments = dict(options.get("connect_params") or {})
    arguments.setdefault("application_name", "dbfleet.audit")
    arguments.update(
        dbname=options["login_db"],
        user=options["login_user"],
        port=options["login_port"],
    )
    host = options["login_unix_socket"] if not options["login_host"] else options["login_host"]
    optional = {
        "host": host,
        "password": options["login_password"],
        "sslmode": options["ssl_mode"],
        "sslrootcert": options["ca_cert"],
        "sslcert": options["ssl_cert"],
        "sslkey": options["ssl_key"],
    }
    arguments.update((key, value) for key, value in optional.items() if value)
    return arguments
