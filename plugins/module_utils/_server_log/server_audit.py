# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""MariaDB's server_audit: a line a connection, statement or table."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from .._core.event import EVENT_FIELDS
from .clock import Clock
from .files import Reading
from .statement import class_of, command_of, without_secrets

#: Refusals for want of a right: to a database, a login, KILL, a table, a column, an account, a global right, a view's
#: tables, a routine, GRANT, a routine with the binary log, a login by socket.
_DENIED = (1044, 1045, 1095, 1142, 1143, 1211, 1227, 1345, 1370, 1410, 1419, 1698)

#: A table's name is not escaped, and may have commas and quotes.
LINE = re.compile(
    r"(?P<date>\d{8}) (?P<time>\d\d:\d\d:\d\d),(?P<server>[^,]*),(?P<user>.*?),(?P<host>[^,]*),"
    r"(?P<connection>\d+),(?P<query>\d+),(?P<operation>[A-Z_]+),(?P<database>[^,]*),(?P<object>.*),(?P<code>\d*)"
)

_LOGINS = ("CONNECT", "FAILED_CONNECT", "PROXY_CONNECT")
_TABLES = {"READ": "READ", "WRITE": "WRITE", "CREATE": "DDL", "ALTER": "DDL", "RENAME": "DDL", "DROP": "DDL"}

_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}

#: How many tables wait for the statement that has used them: its line comes after theirs.
_WAITING = 10_000


class ServerAuditEvents:
    """Makes events of lines, in the order of the log."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: OrderedDict[tuple[str, str], list[dict[str, Any]]] = OrderedDict()
        self._number = 0

    def events(self, lines: Iterable[str], reading: Reading) -> Iterator[dict[str, Any]]:
        """Yield the events: a table's with the statement that has used it, where that is logged."""
        for line in lines:
            match = LINE.fullmatch(line, 0, len(line) - 1)
            try:
                found = list(self._events(match)) if match else None
            except ValueError:
                found = None
            if found is None:
                reading.refuse(line)
                continue
            reading.records += 1
            yield from found
        while self._waiting:
            yield from self._oldest()

    def _events(self, match: re.Match[str]) -> Iterator[dict[str, Any]]:
        operation = match["operation"]
        if operation in _TABLES:
            self._number += 1
            self._waiting.setdefault((match["connection"], match["query"]), []).append(self._table(match))
            if self._number > _WAITING:
                yield from self._oldest()
            return
        if operation in _LOGINS:
            yield self._login(match)
        elif operation == "DISCONNECT":
            yield self._event(match, "LOGOUT", {"event": "logout", "statement": None, "success": True})
        elif operation == "QUERY":
            statement = _text(match["object"])
            for event in self._taken((match["connection"], match["query"])):
                event["new_values"].update(statement=statement, success=not _code(match))
                event["context"].update(_failure(match))
                yield event
            yield self._statement(match, statement)

    def _taken(self, key: tuple[str, str]) -> list[dict[str, Any]]:
        events = self._waiting.pop(key, [])
        self._number -= len(events)
        return events

    def _oldest(self) -> list[dict[str, Any]]:
        return self._taken(next(iter(self._waiting)))

    def _table(self, match: re.Match[str]) -> dict[str, Any]:
        name, told = match["object"], {"event": match["operation"], "statement": None, "success": not _code(match)}
        if match["operation"] == "RENAME":
            name, _bar, told["renamed_to"] = name.rpartition("|")
        event = self._event(match, _TABLES[match["operation"]], told, audit_type="OBJECT")
        event.update(schema_name=match["database"], table_name=name)
        return event

    def _login(self, match: re.Match[str]) -> dict[str, Any]:
        failed = match["operation"] == "FAILED_CONNECT"
        told = {"event": "login", "statement": None, "success": not failed and not _code(match)}
        if not told["success"]:
            told["failure_reason"] = f"error {match['code']}"
        return self._event(match, "LOGIN", told)

    def _statement(self, match: re.Match[str], statement: str) -> dict[str, Any]:
        code = _code(match)
        told = {"event": command_of(statement), "statement": statement, "success": not code}
        if code:
            told["failure_reason"] = f"error {code}"
        action = "DENIED" if code in _DENIED else class_of(statement)
        return self._event(match, action, told, audit_type="SESSION")

    def _event(
        self, match: re.Match[str], action: str, told: dict[str, Any], audit_type: str | None = None
    ) -> dict[str, Any]:
        date, user = match["date"], match["user"] or None
        values: dict[str, Any] = dict.fromkeys(EVENT_FIELDS)
        values.update(
            changed_at=self._clock.utc(f"{date[:4]}-{date[4:6]}-{date[6:]} {match['time']}"),
            action=action,
            new_values=told,
            changed_by=user,
            db_user=user,
            client_ip=match["host"] or None,
            context={
                "source": "server_audit",
                **({"audit_type": audit_type} if audit_type else {}),
                **({"database": match["database"]} if match["database"] else {}),
                "server_host": match["server"],
                "process_id": int(match["connection"]),
                **({"statement_id": int(match["query"])} if match["query"] != "0" else {}),
                **_failure(match),
            },
        )
        return values


def _code(match: re.Match[str]) -> int:
    return int(match["code"] or 0)


def _failure(match: re.Match[str]) -> dict[str, int]:
    return {"error_code": _code(match)} if _code(match) else {}


def _text(quoted: str) -> str:
    """Return a statement as it was sent, but for its secrets."""
    text = quoted[1:-1] if quoted.startswith("'") else quoted
    return without_secrets(_ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), text))
