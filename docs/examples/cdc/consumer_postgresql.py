# SPDX-License-Identifier: 0BSD
"""Land the changes of a publication as JSON lines in the shape of audit.audit_log, at least once.

    python consumer_postgresql.py "host=db1 dbname=telemetry user=cdc" /var/lib/cdc/telemetry.jsonl

Needs psycopg2, and of PostgreSQL the publication and slot of the module postgresql_audit_cdc and a role with the
attribute REPLICATION. Nothing is confirmed to the server before it is on disk: whoever kills this process loses
nothing, and may get events of the last transaction twice, with the same `id`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import select
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg2
from psycopg2.extras import LogicalReplicationConnection

PREFIX = "dbfleet.audit"  # of the messages of audit.emit_context()
WAIT = 10  # seconds between two signs of life; the server's wal_sender_timeout is 60
EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)
SENSITIVE = re.compile("password|passwd|secret|token|api_key|apikey|cvv|card_number|cardnumber")
REDACTED = "[REDACTED]"
CONTEXT = ("changed_by", "db_user", "client_ip", "application_name", "context")

BOOL, JSON, JSONB, TIMESTAMP, TIMESTAMPTZ = 16, 114, 3802, 1114, 1184
NUMBERS = (20, 21, 23, 700, 701, 1700)

# What the stream does not say of a table: primary key, whether it is partitioned, and which types its domains are of.
FACTS = """
WITH RECURSIVE domain AS (
  SELECT t.oid, t.typbasetype AS base FROM pg_type AS t WHERE t.typtype = 'd' AND t.oid = ANY (%(types)s::oid[])
  UNION ALL
  SELECT d.oid, t.typbasetype FROM domain AS d JOIN pg_type AS t ON t.oid = d.base WHERE t.typtype = 'd'
)
SELECT (SELECT array_agg(a.attname::text ORDER BY k.position)
        FROM pg_index AS i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (attnum, position)
        JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE i.indrelid = %(table)s AND i.indisprimary AND k.position <= i.indnkeyatts),
       EXISTS (SELECT FROM pg_class AS c WHERE c.oid = %(table)s AND c.relkind = 'p'),
       (SELECT jsonb_object_agg(d.oid, d.base::bigint)
        FROM domain AS d JOIN pg_type AS t ON t.oid = d.base WHERE t.typtype <> 'd')
"""


class Facts(NamedTuple):
    """What the catalogue says of a table; domains as {type's oid: oid of the type below it}."""

    key: list[str]
    partitioned: bool
    domains: dict[int, int]


class Relation(NamedTuple):
    """A table, with its columns as (name, type's oid), those of its replica identity, and its primary key."""

    schema: str
    name: str
    columns: list[tuple[str, int]]
    identity: list[str]
    key: list[str]
    partitioned: bool


#: A column's text; None for NULL. A column that is not in the stream is not in the row.
Row = dict[str, "str | None"]


class Reader:
    """The fields of one message, one after the other (PostgreSQL, Logical Replication Message Formats)."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, form: str) -> Any:
        """Return the next number."""
        size = struct.calcsize(f">{form}")
        self.position += size
        return struct.unpack_from(f">{form}", self.data, self.position - size)[0]

    def bytes(self, size: int) -> bytes:
        """Return the next bytes."""
        self.position += size
        return self.data[self.position - size : self.position]

    def letter(self) -> str:
        """Return the next character."""
        return self.bytes(1).decode()

    def text(self) -> str:
        """Return the text up to the next zero."""
        end = self.data.index(b"\0", self.position)
        text = self.data[self.position : end].decode()
        self.position = end + 1
        return text

    def row(self, relation: Relation) -> Row:
        """Return the next row; a long value that did not change is not in it."""
        row: Row = {}
        for index in range(self.take("h")):
            kind = self.letter()
            if kind == "n":
                row[relation.columns[index][0]] = None
            elif kind == "t":
                row[relation.columns[index][0]] = self.bytes(self.take("i")).decode()
        return row


class Decoder:
    """Turns messages of pgoutput (protocol version 1) into events."""

    def __init__(self, read_facts: Any) -> None:
        self.read_facts = read_facts  # oid of a table, oids of its columns' types -> Facts
        self.relations: dict[int, Relation] = {}
        self.transaction: dict[str, Any] = {}
        self.context: dict[str, Any] = {}
        self.commit = ""
        self.number = 0
        self.flushed = 0  # where the transaction ends that the last message has committed

    def decode(self, data: bytes) -> Iterator[str]:
        """Yield the events of a message, each as a line."""
        reader = Reader(data)
        kind = reader.letter()
        if kind in "IUD":
            yield self._change(kind, reader)
        elif kind == "T":
            count, _options = reader.take("i"), reader.take("b")
            for _index in range(count):
                yield self._event("TRUNCATE", self.relations[reader.take("i")], None, None)
        elif kind == "B":
            self._begin(reader)
        elif kind == "C":
            _flags, _commit, self.flushed = reader.take("b"), reader.take("q"), reader.take("q")
            self.transaction = {}
        elif kind == "R":
            self._relation(reader)
        elif kind == "M":
            self._message(reader)

    def _begin(self, reader: Reader) -> None:
        place, microseconds, xid = reader.take("q"), reader.take("q"), reader.take("I")
        moment = EPOCH + datetime.timedelta(microseconds=microseconds)
        self.transaction = {"changed_at": moment.isoformat(), "transaction_id": str(xid)}
        self.commit, self.number, self.context = f"{place >> 32:X}/{place & 0xFFFFFFFF:X}", 0, {}

    def _relation(self, reader: Reader) -> None:
        oid, schema, name, _identity = reader.take("I"), reader.text(), reader.text(), reader.letter()
        columns, identity = [], []
        for _index in range(reader.take("h")):
            flags, column, kind, _modifier = reader.take("b"), reader.text(), reader.take("I"), reader.take("i")
            columns.append((column, kind))
            if flags & 1:
                identity.append(column)
        facts = self.read_facts(oid, [kind for _column, kind in columns])
        columns = [(column, facts.domains.get(kind, kind)) for column, kind in columns]
        self.relations[oid] = Relation(schema, name, columns, identity, facts.key, facts.partitioned)

    def _message(self, reader: Reader) -> None:
        """Take what an application has said by audit.emit_context(): it holds for what comes after it."""
        transactional, _place, prefix = reader.take("b"), reader.take("q"), reader.text()
        if transactional and prefix == PREFIX:
            self.context = _said(reader.bytes(reader.take("i"))) or self.context

    def _change(self, kind: str, reader: Reader) -> str:
        relation = self.relations[reader.take("I")]
        old = new = None
        part = reader.letter()
        if part in "KO":
            # Without REPLICA IDENTITY FULL, all other columns look like NULL here.
            old = {column: text for column, text in reader.row(relation).items() if column in relation.identity}
            old = _certain(old, relation)
            part = reader.letter() if kind == "U" else ""
        if part == "N":
            new = reader.row(relation)
        if kind == "U" and old and new is not None:
            new = {
                column: new.get(column, old.get(column)) for column, _kind in relation.columns if column in new | old
            }
        action = {"I": "INSERT", "U": "UPDATE", "D": "DELETE"}[kind]
        return self._event(action, relation, old, new)

    def _event(self, action: str, relation: Relation, old: Row | None, new: Row | None) -> str:
        self.number += 1
        changed = None
        if action == "UPDATE" and len(old or ()) == len(relation.columns):
            changed = sorted(column for column in new or {} if column in old and new[column] != old[column])
        values = {
            "id": json.dumps(f"{self.commit}:{self.number}"),
            **{key: json.dumps(value) for key, value in self.transaction.items()},
            "action": json.dumps(action),
            "schema_name": json.dumps(relation.schema),
            "table_name": json.dumps(relation.name),
            "record_id": _record_id(relation, new or old),
            "old_values": _image(relation, old),
            "new_values": _image(relation, new),
            "changed_columns": json.dumps(changed),
            **{key: json.dumps(self.context.get(key)) for key in CONTEXT},
        }
        return _object(values) + "\n"


def _said(content: bytes) -> dict[str, Any]:
    """Return what a message says; nothing, if it is none of audit.emit_context(), since any role may send one."""
    try:
        said = json.loads(content)
        json.dumps(said, allow_nan=False)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _certain(old: Row, relation: Relation) -> Row:
    """Return an old row without NULLs that may be none.

    A partition that came after the module's last run gives its key alone; the server says NULL for all the rest, as if
    it were the whole row.
    """
    if relation.partitioned and all(text is None for column, text in old.items() if column not in relation.key):
        return {column: text for column, text in old.items() if column in relation.key}
    return old


def _record_id(relation: Relation, row: Row | None) -> str:
    if not row or not relation.key or any(column not in row for column in relation.key):
        return "null"
    if len(relation.key) == 1:
        return json.dumps(REDACTED if SENSITIVE.search(relation.key[0].lower()) else row[relation.key[0]])
    values = _values(relation, row)
    return json.dumps(f"[{', '.join(values[column] for column in relation.key)}]")


def _image(relation: Relation, row: Row | None) -> str:
    return "null" if row is None else _object(_values(relation, row))


def _values(relation: Relation, row: Row) -> dict[str, str]:
    """Return a row's values as JSON, without what nobody is to read."""
    kinds = dict(relation.columns)
    return {
        column: json.dumps(REDACTED) if SENSITIVE.search(column.lower()) else _json(text, kinds[column])
        for column, text in row.items()
    }


def _object(values: dict[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in values.items()) + "}"


def _json(text: str | None, kind: int) -> str:
    """Return a value as to_jsonb() has it; arrays and all other types stay text."""
    if text is None:
        return "null"
    if kind in NUMBERS and text[-1].isdigit():
        return text
    if kind == BOOL:
        return "true" if text == "t" else "false"
    if kind in (JSON, JSONB):
        return text.replace("\n", " ").replace("\r", " ")
    if kind in (TIMESTAMP, TIMESTAMPTZ) and " " in text:
        # The session's zone is UTC, which the server writes without minutes.
        moment, era = (text[:-3], text[-3:]) if text.endswith(" BC") else (text, "")
        text = moment.replace(" ", "T", 1) + (":00" if kind == TIMESTAMPTZ else "") + era
    return json.dumps(text)


def open_file(path: str) -> Any:
    """Open the file to append to, without the part of a line that an earlier end may have left."""
    file = open(path, "a+b")  # noqa: SIM115 (for as long as the process lives)
    size = file.seek(0, os.SEEK_END)
    while size:
        start = max(0, size - 65536)
        file.seek(start)
        newline = file.read(size - start).rfind(b"\n")
        size = start + newline + 1
        if newline >= 0:
            break
    file.truncate(size)
    # A new file is one only when its directory says so.
    directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    return file


def consume(dsn: str, path: str, slot: str, publication: str) -> None:
    """Land changes until the connection breaks or the process ends."""
    catalog = psycopg2.connect(dsn)
    catalog.autocommit = True

    def read_facts(table: int, types: list[int]) -> Facts:
        with catalog.cursor() as question:
            question.execute(FACTS, {"table": table, "types": types})
            key, partitioned, domains = question.fetchone()
        return Facts(key or [], partitioned, {int(oid): base for oid, base in (domains or {}).items()})

    settings = "-c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=postgres -c extra_float_digits=1"
    stream = psycopg2.connect(
        dsn, connection_factory=LogicalReplicationConnection, options=settings, client_encoding="UTF8"
    )
    cursor = stream.cursor()
    quoted = publication.replace('"', '""')
    options = {"proto_version": "1", "publication_names": f'"{quoted}"', "messages": "true"}
    cursor.start_replication(slot_name=slot, decode=False, options=options)
    decoder, file = Decoder(read_facts), open_file(path)
    while True:
        message = cursor.read_message()
        if message is None:
            if not decoder.transaction:
                # All that the server has decoded so far was for others; it need not keep that for us.
                cursor.send_feedback(flush_lsn=max(cursor.wal_end, decoder.flushed), force=True)
            select.select([cursor], [], [], WAIT)
            continue
        committed = decoder.flushed
        for line in decoder.decode(message.payload):
            file.write(line.encode())
        if decoder.flushed != committed:
            file.flush()
            os.fsync(file.fileno())
            cursor.send_feedback(flush_lsn=decoder.flushed, force=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Land the changes of a publication as JSON lines.")
    parser.add_argument("dsn", help="connection string of libpq, without replication=")
    parser.add_argument("file", help="where the events go, one a line")
    parser.add_argument("--slot", default="audit_cdc")
    parser.add_argument("--publication", default="audit_cdc")
    given = parser.parse_args()
    consume(given.dsn, given.file, given.slot, given.publication)


if __name__ == "__main__":
    main()
