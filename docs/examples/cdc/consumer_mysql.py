# SPDX-License-Identifier: 0BSD
"""Land the row changes of a binary log as JSON lines in the shape of audit.audit_log, at least once.

    python consumer_mysql.py --defaults-file /etc/cdc.cnf --schema shop /var/lib/cdc/shop.jsonl

Needs the package mysql-replication, a server as the module mysql_audit_cdc sets it up, and an account with REPLICATION
SLAVE and REPLICATION CLIENT (MariaDB: REPLICATION SLAVE, BINLOG MONITOR), which the section [client] of the option file
names. The position is stored after the events are on disk: whoever kills this process loses nothing, and may get
events of the last transaction twice, with the same `id`.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import pymysql
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.constants import NONE_SOURCE
from pymysqlreplication.event import (
    GtidEvent,
    MariadbGtidEvent,
    NotImplementedEvent,
    QueryEvent,
    XAPrepareEvent,
    XidEvent,
)
from pymysqlreplication.gtid import Gtid, GtidSet
from pymysqlreplication.row_event import DeleteRowsEvent, PartialUpdateRowsEvent, UpdateRowsEvent, WriteRowsEvent

HEARTBEAT = 30  # seconds; a server that says nothing for longer is gone
SENSITIVE = re.compile("password|passwd|secret|token|api_key|apikey|cvv|card_number|cardnumber")
REDACTED = "[REDACTED]"
UNKNOWN = ("changed_by", "db_user", "client_ip", "application_name", "context")

_NAME = r"(`(?:[^`]|``)+`|[\w$]+)"
TRUNCATE = re.compile(rf"\s*(?:/\*.*?\*/\s*)*TRUNCATE\s+(?:TABLE\s+)?(?:{_NAME}\s*\.\s*)?{_NAME}", re.I | re.S)
DML = re.compile(r"\s*(?:/\*.*?\*/\s*)*(?:INSERT|UPDATE|DELETE|REPLACE|LOAD|WITH)\b", re.I | re.S)
BEGIN = re.compile(r"\s*(BEGIN|XA\s+START)\b", re.I)
END = re.compile(r"\s*(COMMIT|ROLLBACK)\s*", re.I)
STANDALONE = 1  # flag of a GTID on MariaDB: one statement follows, and no end
ROWS = (WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent)
#: Events that hold changes which the package cannot read: compressed transactions on MySQL, rows on MariaDB.
COMPRESSED = (40, *range(165, 172))


class Position:
    """The transactions that are on disk, kept in a file beside the events."""

    def __init__(self, path: str, mariadb: bool) -> None:
        self.path, self.mariadb, self.text = path, mariadb, ""
        if os.path.exists(path):
            with open(path, encoding="ascii") as file:
                self.text = file.read().strip()

    def start(self, connection: Any) -> None:
        """Begin with what the server writes from now on, if there is no earlier position."""
        if not os.path.exists(self.path):
            with connection.cursor() as cursor:
                cursor.execute("SELECT @@gtid_binlog_pos" if self.mariadb else "SELECT @@gtid_executed")
                self.text = cursor.fetchone()[0].replace("\n", "")
            self.store()

    def add(self, gtid: str) -> None:
        """Count a transaction in. MariaDB goes by the last one of each domain, MySQL by the set of all."""
        if self.mariadb:
            last = {entry.split("-")[0]: entry for entry in self.text.split(",") if entry}
            last[gtid.split("-")[0]] = gtid
            self.text = ",".join(last.values())
        else:
            self.text = str(GtidSet(self.text) + Gtid(gtid))

    def store(self) -> None:
        """Put the position on disk, whole."""
        with open(f"{self.path}.new", "w", encoding="ascii") as file:
            file.write(self.text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{self.path}.new", self.path)
        directory = os.open(os.path.dirname(os.path.abspath(self.path)), os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)


class Decoder:
    """Turns the events of the binary log into events of the trail."""

    def __init__(self, schemas: list[str]) -> None:
        self.schemas = schemas
        self.gtid = ""
        self.number = 0
        self.inside = False  # a transaction of several statements

    def ends(self, event: Any) -> bool:
        """Tell whether a transaction ends with this event."""
        if isinstance(event, (GtidEvent, MariadbGtidEvent)):
            # MariaDB has no BEGIN after it, MySQL does.
            self.inside = isinstance(event, MariadbGtidEvent) and not event.flags & STANDALONE
        elif isinstance(event, QueryEvent) and BEGIN.match(event.query):
            self.inside = True
        elif isinstance(event, QueryEvent):
            return END.fullmatch(event.query) is not None if self.inside else bool(self.gtid)
        return isinstance(event, (XidEvent, XAPrepareEvent))

    def decode(self, event: Any) -> Iterator[str]:
        """Yield the events of the trail, each as a line."""
        if isinstance(event, (GtidEvent, MariadbGtidEvent)):
            self.gtid, self.number = event.gtid, 0
        elif isinstance(event, QueryEvent):
            yield from self._statement(event)
        elif isinstance(event, PartialUpdateRowsEvent):
            yield self._missed(event, "an UPDATE with parts of JSON documents (binlog_row_value_options)")
        elif isinstance(event, NotImplementedEvent):
            if event.event_type in COMPRESSED:
                yield self._missed(event, "compressed (log_bin_compress, binlog_transaction_compression)")
        elif isinstance(event, ROWS):
            key = [event.primary_key] if isinstance(event.primary_key, str) else list(event.primary_key or ())
            for row in event.rows:
                yield self._row(event, [column for column in key if column], row)

    def _statement(self, event: Any) -> Iterator[str]:
        own = os.fsdecode(event.schema)
        match = TRUNCATE.match(event.query)
        schema = match and (_bare(match[1]) or own)
        if match and schema in self.schemas:
            yield self._line(event, "TRUNCATE", schema, _bare(match[2]), [], None, None)
        elif DML.match(event.query) and any(name == own or name in event.query for name in self.schemas):
            yield self._missed(event, "a statement, of a session with another binlog_format than ROW")

    def _missed(self, event: Any, reason: str) -> str:
        """Return an event that says that there are changes that cannot be landed: a gap that is seen."""
        print(f"{self.gtid}: changes are missing: {reason}", file=sys.stderr, flush=True)
        line = self._line(event, "MISSED", None, None, [], None, None)
        return json.dumps({**json.loads(line), "context": {"reason": reason}}, ensure_ascii=False) + "\n"

    def _row(self, event: Any, key: list[str], row: dict[str, Any]) -> str:
        if isinstance(event, WriteRowsEvent):
            action, old, new = "INSERT", None, _told(row["values"], row["none_sources"])
        elif isinstance(event, DeleteRowsEvent):
            action, old, new = "DELETE", _told(row["values"], row["none_sources"]), None
        else:
            action, old = "UPDATE", _told(row["before_values"], row["before_none_sources"])
            new = _told(row["after_values"], row["after_none_sources"])
        return self._line(event, action, event.schema, event.table, key, old, new)

    def _line(
        self, event: Any, action: str, schema: str | None, table: str | None, key: list[str], old: Any, new: Any
    ) -> str:
        self.number += 1
        row = _image({**(old or {}), **(new or {})}) or {}
        values = [row[column] for column in key] if all(column in row for column in key) else []
        record = None
        if values:
            record = str(values[0]) if len(values) == 1 else json.dumps(values, ensure_ascii=False)
        moment = datetime.datetime.fromtimestamp(event.timestamp, datetime.timezone.utc)
        changed = None
        if old and new and old.keys() == new.keys():
            changed = sorted(column for column in new if new[column] != old[column])
        return (
            json.dumps(
                {
                    "id": f"{self.gtid}:{self.number}",
                    "changed_at": moment.isoformat(),
                    "transaction_id": self.gtid,
                    "action": action,
                    "schema_name": schema,
                    "table_name": table,
                    "record_id": record,
                    "old_values": _image(old),
                    "new_values": _image(new),
                    "changed_columns": changed,
                    **dict.fromkeys(UNKNOWN),
                },
                ensure_ascii=False,
            )
            + "\n"
        )


def _bare(name: str | None) -> str:
    return name[1:-1].replace("``", "`") if name and name.startswith("`") else name or ""


def _told(values: dict[str, Any], sources: dict[str, str]) -> dict[str, Any]:
    """Return a row without columns that the log has not, and without NULLs that are none.

    :param sources: why the package has None for a column.
    """
    row = {column: value for column, value in values.items() if sources.get(column) != NONE_SOURCE.COLS_BITMAP}
    for column in row:
        source = sources.get(column, NONE_SOURCE.NULL)
        if source != NONE_SOURCE.NULL:
            row[column] = "" if source == NONE_SOURCE.EMPTY_SET else source
    return row


def _image(row: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a row for JSON, without what nobody is to read."""
    if row is None:
        return None
    return {column: REDACTED if SENSITIVE.search(column.lower()) else _plain(value) for column, value in row.items()}


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it; numbers with a fraction, times and the like are text."""
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        plain = [(os.fsdecode(key) if isinstance(key, bytes) else key, _plain(item)) for key, item in items]
        return dict(plain) if isinstance(value, dict) else [item for _index, item in plain]
    if isinstance(value, datetime.timedelta):
        return _time(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (set, frozenset)):
        return ",".join(sorted(value))
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


def _time(value: datetime.timedelta) -> str:
    """Return a TIME as the server writes it."""
    seconds, fraction = divmod(abs(value) // datetime.timedelta(microseconds=1), 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return ("-" if value < datetime.timedelta() else "") + text + (f".{fraction:06}" if fraction else "")


def open_file(path: str) -> Any:
    """Open the file to append to, without the part of a line that an earlier end may have left."""
    with open(path, "a+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        whole = sum(len(line) for line in file if line.endswith(b"\n"))
        if whole != size:
            file.truncate(whole)
    return open(path, "ab")


def consume(options: dict[str, Any], path: str, schemas: list[str], server_id: int) -> None:
    """Land changes until the connection breaks or the process ends."""
    connection = pymysql.connect(**options)
    mariadb = "mariadb" in connection.get_server_info().lower()
    position = Position(f"{path}.position", mariadb)
    position.start(connection)
    connection.close()
    stream = BinLogStreamReader(
        connection_settings={**options, "read_timeout": 2 * HEARTBEAT},
        server_id=server_id,
        blocking=True,
        auto_position=position.text,
        is_mariadb=mariadb,
        slave_heartbeat=HEARTBEAT,
        only_schemas=schemas,
        only_events=[
            *(GtidEvent, MariadbGtidEvent, QueryEvent, XidEvent, XAPrepareEvent),
            *(*ROWS, PartialUpdateRowsEvent, NotImplementedEvent),
        ],
        filter_non_implemented_events=False,
    )
    decoder, file = Decoder(schemas), open_file(path)
    for event in stream:
        for line in decoder.decode(event):
            file.write(line.encode())
        if decoder.ends(event):
            file.flush()
            os.fsync(file.fileno())
            position.add(decoder.gtid)
            position.store()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Land the row changes of a binary log as JSON lines.")
    parser.add_argument("file", help="where the events go, one a line; the position goes to FILE.position")
    parser.add_argument("--defaults-file", required=True, help="option file with the section [client]")
    parser.add_argument("--schema", action="append", required=True, help="a database; may be repeated")
    parser.add_argument("--server-id", type=int, default=900001, help="one that no server or replica has")
    given = parser.parse_args()
    options = {"read_default_file": given.defaults_file, "charset": "utf8mb4"}
    consume(options, given.file, given.schema, given.server_id)


if __name__ == "__main__":
    main()
