# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PostgreSQL's csvlog and jsonlog."""

from __future__ import annotations

import csv
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from .files import Reading
from .postgresql import LogRecord, may_be_event

#: From PostgreSQL 14 on.
_COLUMNS = 26
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [^\s,]+")

#: A record that has no end by then was cut off, and what follows it is other records.
_RECORD_LENGTH = 64 * 1024 * 1024

#: How the lines of each format begin.
CSV_LINE = re.compile(rf"{_TIME.pattern},[^,]*,[^,]*,\d+,")
JSON_LINE = re.compile(r'\{"timestamp":"')


def csv_records(lines: Iterable[str], reading: Reading) -> Iterator[LogRecord]:
    """Yield the records of a csvlog; a field in quotes may go on over lines."""
    pending: deque[str] = deque()
    source = iter(lines)
    while True:
        taken, whole = _take(pending, source)
        if not taken:
            return
        first = reading.lines - len(pending) - len(taken) + 1
        row = _row("".join(taken)) if whole else None
        if row:
            reading.records += 1
            if may_be_event(row[11], row[12], row[13]):
                yield _csv_record(row, first)
        elif whole or any(CSV_LINE.match(line) for line in taken[1:]):
            # Something was cut off. What comes after its first line may well be records.
            pending.extendleft(reversed(taken[1:]))
            reading.refuse(taken[0], first)
        else:
            reading.incomplete = True
            return


def json_records(lines: Iterable[str], reading: Reading) -> Iterator[LogRecord]:
    """Yield the records of a jsonlog, one a line."""
    for line in lines:
        try:
            fields = json.loads(line)
            if "\\ud" in line:
                # Half of a surrogate pair, which no server writes, could not be passed on.
                json.dumps(fields, ensure_ascii=False).encode()
            record = _json_record(fields, reading.lines)
        except (ValueError, KeyError, TypeError, AttributeError):
            reading.refuse(line)
            continue
        reading.records += 1
        if may_be_event(record.severity, record.sqlstate, record.message):
            yield record


def _json_record(fields: dict[str, Any], line: int) -> LogRecord:
    return LogRecord(
        time=fields["timestamp"],
        severity=fields["error_severity"],
        message=fields.get("message", ""),
        line=line,
        user=fields.get("user"),
        database=fields.get("dbname"),
        client=fields.get("remote_host"),
        application=fields.get("application_name") or None,
        process_id=fields["pid"],
        session_id=fields.get("session_id"),
        transaction_id=str(fields["txid"]) if fields.get("txid") else None,
        command=fields.get("ps") or None,
        sqlstate=fields.get("state_code", "00000"),
        statement=fields.get("statement"),
    )


def _take(pending: deque[str], source: Iterator[str]) -> tuple[list[str], bool]:
    """Return the lines up to where all quotes are closed, and whether they are."""
    taken: list[str] = []
    length, is_open = 0, False
    while length <= _RECORD_LENGTH:
        line = pending.popleft() if pending else next(source, None)
        if line is None:
            break
        taken.append(line)
        length += len(line)
        is_open ^= line.count('"') % 2 == 1
        if not is_open:
            return taken, True
    return taken, False


def _row(text: str) -> list[str] | None:
    try:
        row = next(csv.reader([text], strict=True), [])
    except csv.Error:
        return None
    if len(row) != _COLUMNS or not _TIME.fullmatch(row[0]):
        return None
    return row


def _csv_record(row: list[str], line: int) -> LogRecord:
    return LogRecord(
        time=row[0],
        severity=row[11],
        message=row[13],
        line=line,
        user=row[1] or None,
        database=row[2] or None,
        # An address may have colons itself, its port has none.
        client=(row[4].rpartition(":")[0] or row[4]) or None,
        application=row[22] or None,
        process_id=int(row[3]),
        session_id=row[5] or None,
        transaction_id=row[10] if row[10] not in ("", "0") else None,
        command=row[7] or None,
        sqlstate=row[12] or None,
        statement=row[19] or None,
    )
