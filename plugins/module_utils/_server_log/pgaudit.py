# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What pgaudit writes: ``AUDIT: `` and a line of CSV."""

from __future__ import annotations

import csv
import re
import sys
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

PREFIX = "AUDIT: "

#: Statements are logged as long as they are.
csv.field_size_limit(min(sys.maxsize, 2**31 - 1))

#: What stands in place of a statement or its parameters.
_NONE = ("", "<none>", "<not logged>")
_PREVIOUS = "<previously logged>"

#: Relations, and what may follow their name in that of a part of them.
_RELATIONS = ("TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE")
_PARTS = ("TABLE COLUMN", "VIEW COLUMN", "FOREIGN TABLE COLUMN", "TABLE CONSTRAINT")

_NAME = re.compile(r'"((?:[^"]|"")*)"|([^."]+)')

#: How many sessions' last statement is remembered, and how long one may be.
_SESSIONS = 1000
_STATEMENT_LENGTH = 100_000


class AuditEntry(NamedTuple):
    """The fields of an entry; texts that pgaudit has left out are None."""

    audit_type: str
    statement_id: int
    substatement_id: int
    statement_class: str
    command: str
    object_type: str | None
    object_name: str | None
    statement: str | None
    parameters: str | None
    rows: int | None

    @property
    def relation(self) -> tuple[str | None, str | None]:
        """Schema and name of the relation that the entry is about, if it is about one."""
        if self.object_type not in _RELATIONS + _PARTS or not self.object_name:
            return None, None
        names = [quoted.replace('""', '"') or plain for quoted, plain in _NAME.findall(self.object_name)]
        if len(names) == 1:
            return None, names[0]
        return names[0], names[1]


class Pgaudit:
    """Reads entries in the order of the log: with pgaudit.log_statement_once, some refer to the one before."""

    def __init__(self) -> None:
        self._last: OrderedDict[Any, tuple[tuple[int, int], str | None, str | None]] = OrderedDict()

    def read(self, message: str, session: Any) -> AuditEntry:
        """Return the entry of a message.

        :param session: what tells one session of the server from another.
        :raises ValueError: for what is no whole entry.
        """
        fields = list(_fields(message[len(PREFIX) :]))
        if len(fields) not in (9, 10):
            raise ValueError(f"{len(fields)} fields in an entry of pgaudit")
        audit_type, statement_id, substatement_id, kind, command, object_type, object_name, *texts = fields
        key = (int(statement_id), int(substatement_id))
        statement, parameters = self._texts(session, key, texts[0], texts[1])
        rows = int(texts[2]) if len(texts) > 2 and texts[2].isdigit() else None
        return AuditEntry(
            audit_type, *key, kind, command, object_type or None, object_name or None, statement, parameters, rows
        )

    def _texts(
        self, session: Any, key: tuple[int, int], statement: str, parameters: str
    ) -> tuple[str | None, str | None]:
        if statement == _PREVIOUS:
            last = self._last.get(session)
            return last[1:] if last and last[0] == key else (None, None)
        found = (None if statement in _NONE else statement, None if parameters in _NONE else parameters)
        self._last.pop(session, None)
        if len(statement) + len(parameters) <= _STATEMENT_LENGTH:
            self._last[session] = (key, *found)
        if len(self._last) > _SESSIONS:
            self._last.popitem(last=False)
        return found


def _fields(text: str) -> Iterator[str]:
    try:
        yield from next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise ValueError(f"an entry of pgaudit is not CSV: {error}") from None
