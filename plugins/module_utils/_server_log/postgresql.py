# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A record of PostgreSQL's log, whatever the format, and the event that it is."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from .._core.event import EVENT_FIELDS
from .clock import Clock
from .pgaudit import PREFIX as PGAUDIT
from .pgaudit import AuditEntry, Pgaudit
from .statement import command_of, without_secrets

_DENIED = "42501"
_BAD_LOGINS = ("28P01", "28000")

# What tells a kind of message where there is no SQLSTATE, in the server's own language.
_DENIED_TEXT = re.compile(
    r"permission denied\b|must be (?:owner|superuser|member|able)\b|.* violates row-level security policy"
)
_BAD_LOGIN_TEXT = re.compile(
    r'\w+ authentication failed for user |no pg_hba\.conf entry for |pg_hba\.conf rejects |role ".*" does not exist$'
    r'|role ".*" is not permitted to log in$'
)
_DENIED_TABLE = re.compile(
    r"(?:permission denied for|must be owner of) (?:table|relation|(?:materialized )?view|foreign table) (?P<plain>.+)"
    r'|.* violates row-level security policy .*for table "(?P<quoted>.+)"',
    re.DOTALL,
)
_WHO = re.compile(r'(?:user|role) "([^"]*)"')
AUTHORIZED_BEGINNINGS = ("connection authorized: ", "replication connection authorized: ")
AUTHORIZED = re.compile(
    r"(?:replication )?connection authorized: user=(?P<user>.*?)(?: database=(?P<database>.*?))?"
    r"(?: application_name=(?P<application>.*?))?(?: SSL enabled \(.*| GSS \(.*)?",
    re.DOTALL,
)
_ENDED = re.compile(
    r"disconnection: session time: (?P<hours>\d+):(?P<minutes>\d\d):(?P<seconds>[\d.]+) "
    r"user=(?P<user>.*) database=(?P<database>.*) host=(?P<host>\S+)(?: port=\d+)?",
    re.DOTALL,
)
_ERRORS = ("ERROR", "FATAL", "PANIC")
_BEGINNINGS = (PGAUDIT, *AUTHORIZED_BEGINNINGS, "disconnection: ")


class LogRecord(NamedTuple):
    """What a format says of a record; None where it says nothing."""

    time: str
    severity: str
    message: str
    #: The number of its first line in the file.
    line: int
    user: str | None = None
    database: str | None = None
    client: str | None = None
    application: str | None = None
    process_id: int | None = None
    session_id: str | None = None
    transaction_id: str | None = None
    command: str | None = None
    sqlstate: str | None = None
    statement: str | None = None


def may_be_event(severity: str, sqlstate: str | None, message: str) -> bool:
    """Tell, at little cost, whether a record is worth a closer look: most of a log is not."""
    if message.startswith(_BEGINNINGS):
        return True
    return sqlstate == _DENIED or sqlstate in _BAD_LOGINS if sqlstate else severity in _ERRORS


class PostgresqlEvents:
    """Makes events of records, in the order of the log."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pgaudit = Pgaudit()

    def event(self, record: LogRecord) -> dict[str, Any] | None:
        """Return the event that a record is, or None for one that is none.

        :raises ValueError: for a record that should be one, and is not whole.
        """
        message = record.message
        if message.startswith(PGAUDIT):
            return self._audited(record, self._pgaudit.read(message, record.session_id or record.process_id))
        if message.startswith("disconnection: "):
            return self._logout(record)
        if message.startswith(AUTHORIZED_BEGINNINGS):
            return self._login(record)
        if _is_denied(record):
            return self._denied(record)
        if _is_bad_login(record):
            return self._bad_login(record)
        return None

    def _audited(self, record: LogRecord, entry: AuditEntry) -> dict[str, Any]:
        schema, table = entry.relation
        told = _told(entry.command, entry.statement, True)
        told.update(_known(parameters=entry.parameters, rows=entry.rows))
        context = {
            "source": "pgaudit",
            "audit_type": entry.audit_type,
            "statement_id": entry.statement_id,
            "substatement_id": entry.substatement_id,
            **_known(object_type=entry.object_type, object_name=entry.object_name),
        }
        return self._event(record, entry.statement_class, told, context, schema, table)

    def _login(self, record: LogRecord) -> dict[str, Any] | None:
        match = AUTHORIZED.fullmatch(record.message)
        if not match:
            return None
        named = {key: value for key, value in match.groupdict().items() if value}
        return self._event(record._replace(**named), "LOGIN", _told("login", None, True))

    def _logout(self, record: LogRecord) -> dict[str, Any] | None:
        match = _ENDED.fullmatch(record.message)
        if not match:
            return None
        session = int(match["hours"]) * 3600 + int(match["minutes"]) * 60 + float(match["seconds"])
        host = {} if record.client else {"client": match["host"]}
        told = {**_told("logout", None, True), "session_seconds": round(session, 3)}
        record = record._replace(user=match["user"], database=match["database"], **host)
        return self._event(record, "LOGOUT", told)

    def _bad_login(self, record: LogRecord) -> dict[str, Any]:
        who = _WHO.search(record.message)
        if not record.user and who:
            record = record._replace(user=who[1])
        told = {**_told("login", None, False), "failure_reason": record.message}
        return self._event(record, "LOGIN", told)

    def _denied(self, record: LogRecord) -> dict[str, Any]:
        table = _DENIED_TABLE.fullmatch(record.message)
        # Refused before there was a statement, as with a database that one may not connect to.
        command = "login" if record.severity == "FATAL" else record.command or command_of(record.statement or "")
        told = {**_told(command, record.statement, False), "failure_reason": record.message}
        return self._event(record, "DENIED", told, table=(table["plain"] or table["quoted"]) if table else None)

    def _event(
        self,
        record: LogRecord,
        action: str,
        told: dict[str, Any],
        context: dict[str, Any] | None = None,
        schema: str | None = None,
        table: str | None = None,
    ) -> dict[str, Any]:
        values: dict[str, Any] = dict.fromkeys(EVENT_FIELDS)
        values.update(
            changed_at=self._clock.utc(record.time),
            transaction_id=record.transaction_id,
            action=action,
            schema_name=schema,
            table_name=table,
            new_values=told,
            changed_by=record.user,
            db_user=record.user,
            client_ip=None if record.client == "[local]" else record.client,
            application_name=record.application,
            context={
                **(context or {"source": "server log"}),
                **_known(
                    database=record.database,
                    process_id=record.process_id,
                    session_id=record.session_id,
                    sqlstate=record.sqlstate if record.sqlstate != "00000" else None,
                ),
            },
        )
        return values


def _is_denied(record: LogRecord) -> bool:
    if record.sqlstate:
        return record.sqlstate == _DENIED
    return record.severity in _ERRORS and bool(_DENIED_TEXT.match(record.message))


def _is_bad_login(record: LogRecord) -> bool:
    if record.sqlstate:
        return record.sqlstate in _BAD_LOGINS
    return record.severity == "FATAL" and bool(_BAD_LOGIN_TEXT.match(record.message))


def _told(command: str | None, statement: str | None, success: bool) -> dict[str, Any]:
    text = without_secrets(statement) if statement else None
    return {"event": command, "statement": text, "success": success}


def _known(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
