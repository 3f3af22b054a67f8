# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rows of archives as Parquet, in folders that Spark, DuckDB and Hive read as columns: `host=`, `db=`, `month=`.

What is evidence is the compressed file of lines. These files are made of the lines that are read back from it, and are
for questions that are put to a whole fleet: their columns are the same for all engines and all servers.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timezone
from types import ModuleType
from typing import Any, Optional

from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive import Manifest
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.json_text import is_readable
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_place import Place, place_at
from ansible_collections.dbfleet.audit.plugins.plugin_utils._seals import file_name

PARQUET_SUFFIX = ".parquet"

#: A row group is complete with so many rows, or bytes of their lines: what is in memory while a file is written.
GROUP_ROWS, GROUP_BYTES = 50_000, 32 << 20

#: Lines that are looked at by column together: what Python makes of a line takes many times its size.
_TOGETHER_ROWS, _TOGETHER_BYTES = 5_000, 4 << 20

#: Columns and their kinds, in the order of the canonical text, which is the same on all engines.
COLUMNS = {
    "id": "int64",
    "changed_at": "timestamp",
    "transaction_id": "text",
    "action": "text",
    "changed_by": "text",
    "db_user": "text",
    "client_ip": "text",
    "application_name": "text",
    "schema_name": "text",
    "table_name": "text",
    "record_id": "text",
    "policy_id": "int32",
    "hidden_changes": "names",
    "changed_columns": "names",
    "context": "document",
    "old_values": "document",
    "new_values": "document",
}
_PLACES = {name: place for place, name in enumerate(COLUMNS)}
_CHANGED_AT = _PLACES["changed_at"]
_OF_CHANGES = [_PLACES[name] for name in ("action", "changed_columns", "hidden_changes", "old_values", "new_values")]

#: Neither values that repeat, nor a smallest and a largest one, are of any use here.
_IMAGES = ("old_values", "new_values")

#: What a document's key ends with when somebody had MariaDB store there what is no JSON: its value is the text.
_TEXT = "_text"

# Nothing is tried twice (*+, ++), which would take memory for every step.
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_PLAIN = r'[^][{}",]++'
# Few documents are deeper than this; what is, _scan() takes.
_NESTED = ""
for _ in range(4):
    _NESTED = rf'[\[{{](?:[^][{{}}"]++|{_STRING}{_NESTED and "|" + _NESTED})*+[\]}}]'
_JSON = rf"({_NESTED}|{_STRING}|{_PLAIN})"
_VALUES = {"int64": r"(\d++)", "int32": r"(\d++)", "timestamp": r'"([^"\\]++)"', "names": _JSON, "document": _JSON}
_VALUES["text"] = r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'

_ROW = re.compile(
    r"\{" + "".join(rf'(?:,?"{name}":{_VALUES[kind]})?+' for name, kind in COLUMNS.items()) + r"\}", re.DOTALL
)
_MEMBER = re.compile(rf'\s*+[{{,]\s*+"(\w+)":\s*+({_STRING}|{_PLAIN})?', re.DOTALL)
_BETWEEN_BRACKETS = re.compile(rf'(?:[^][{{}}"]++|{_STRING})*+', re.DOTALL)

_LENIENT = json.JSONDecoder(strict=False)
#: Has numbers as they are written, for 1.0 and 1.00 are two values; as bytes, for "1" is another one than 1.
_IN_WORDS = json.JSONDecoder(parse_int=str.encode, parse_float=str.encode, strict=False)

#: Of a row, in the order of the columns, what is in its canonical text: of a text, what is between the quotes.
Row = Sequence[Optional[str]]


class ParquetCopies:
    """Makes the Parquet files of one log's archives; to be called with a manifest, it is an Archiving's `copy`.

    :param url: of all archives, as place_at() takes it.
    :raises AuditError: when there is no pyarrow.
    """

    def __init__(
        self, url: str, server: str, database: str, storage: Mapping[str, Any], options: Mapping[str, Any]
    ) -> None:
        self._arrow = _pyarrow()
        self._url = url.rstrip("/")
        self._log = f"host={file_name(server)}/db={file_name(database)}"
        # A lock is for what is evidence; a copy can be made anew, and has to go when another month's fails.
        self._storage = {name: value for name, value in storage.items() if name != "lock"}
        self._options = options

    @contextlib.contextmanager
    def __call__(self, manifest: Manifest) -> Iterator[ParquetCopy]:
        """Give what takes the lines of an archive; its files are there when the block ends without an error."""
        copy = ParquetCopy(self, manifest)
        try:
            with copy.files:
                yield copy
                copy.finish()
        except BaseException:
            copy.remove()
            raise

    @property
    def arrow(self) -> ModuleType:
        """The library."""
        return self._arrow

    def folder(self, month: str) -> str:
        """Return the path of a month's folder, below the URL."""
        return f"{self._log}/month={month}"

    def place(self, month: str) -> Place:
        """Return a month's folder."""
        return place_at(f"{self._url}/{self.folder(month)}", self._storage, self._options)


class ParquetCopy:
    """The Parquet files of one archive, one of each month (UTC) that it has rows of.

    :ivar paths: of the files, below the URL of all archives.
    """

    def __init__(self, of: ParquetCopies, manifest: Manifest) -> None:
        self.files = contextlib.ExitStack()
        self._of = of
        self._manifest = manifest
        self._months: dict[str, _Month] = {}
        self._places: dict[str, Place] = {}

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(f"{self._of.folder(month)}/{self._name}" for month in sorted(self._months))

    def add(self, line: bytes) -> None:
        """Take the canonical text of a row.

        :raises AuditError: when it is none.
        """
        try:
            row = parse(line.decode())
            month = (row[_CHANGED_AT] or "")[:7]
            if month not in self._months:
                date.fromisoformat(f"{month}-01")
        except ValueError:
            raise AuditError(f"{self._manifest.name}: the line {_start(line)} is not the text of a row") from None
        if month not in self._months:
            self._months[month] = self._open(month)
        self._months[month].add(row, len(line))

    def finish(self) -> None:
        """Write what is left."""
        for month in self._months.values():
            month.close()

    def remove(self) -> None:
        """Have no file, not even one that was complete before another one failed."""
        for place in self._places.values():
            with contextlib.suppress(AuditError):
                place.delete(self._name)

    @property
    def _name(self) -> str:
        return self._manifest.name + PARQUET_SUFFIX

    def _open(self, month: str) -> _Month:
        place = self._places[month] = self._of.place(month)
        until = self._manifest.expires and datetime.fromisoformat(self._manifest.expires).replace(tzinfo=timezone.utc)
        file = self.files.enter_context(place.writing(self._name, until or None))
        # Which evidence it is a copy of.
        origin = {"dbfleet.audit.archive": self._manifest.name, "dbfleet.audit.sha256": self._manifest.sha256}
        made = _Month(self._of.arrow, file, origin)
        self.files.callback(made.abandon)
        return made


class _Month:
    """One Parquet file in the making."""

    def __init__(self, arrow: ModuleType, file: Any, origin: Mapping[str, str]) -> None:
        from pyarrow.parquet import ParquetWriter

        self._arrow = arrow
        self._types = _types(arrow)
        self._schema = arrow.schema(list(self._types.items()), metadata=dict(origin))
        self._writer = ParquetWriter(
            file,
            self._schema,
            compression="zstd",
            use_dictionary=[_path(name) for name in COLUMNS if name not in (*_IMAGES, "id", "changed_at")],
            write_statistics=[_path(name) for name in COLUMNS if name not in _IMAGES],
        )
        self._rows: list[Row] = []
        self._batches: list[Any] = []
        self._together = self._group = self._group_rows = 0

    def add(self, row: Row, size: int) -> None:
        """Take a row whose line had that many bytes."""
        self._rows.append(row)
        self._together += size
        self._group += size
        self._group_rows += 1
        if len(self._rows) >= _TOGETHER_ROWS or self._together >= _TOGETHER_BYTES:
            self._batch()
        if self._group_rows >= GROUP_ROWS or self._group >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the rest, and what a Parquet file ends with."""
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Be done with the file, which is about to be discarded unless it is closed already."""
        # Its own destructor would write to the file when that is closed.
        with contextlib.suppress(OSError, ValueError, self._arrow.ArrowException):
            self._writer.close()

    def _flush(self) -> None:
        """Write a row group."""
        self._batch()
        if self._batches:
            table = self._arrow.Table.from_batches(self._batches, self._schema)
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._batches, self._group, self._group_rows = [], 0, 0

    def _batch(self) -> None:
        """Turn rows into columns."""
        if self._rows:
            try:
                columns = [self._column(name, values) for name, values in zip(COLUMNS, zip(*self._rows))]
            except (self._arrow.ArrowException, ValueError, OverflowError, RecursionError) as error:
                raise AuditError(f"rows from id {self._rows[0][0]} on do not go into Parquet: {error}") from None
            self._batches.append(self._arrow.RecordBatch.from_arrays(columns, schema=self._schema))
        self._rows, self._together = [], 0

    def _column(self, name: str, values: Sequence[str | None]) -> Any:
        kind, final = COLUMNS[name], self._types[name]
        if name == "changed_columns":
            return self._arrow.array([changed_columns(row) for row in self._rows], final)
        if kind == "names":
            return self._arrow.array([text if text is None else _names(text) for text in values], final)
        if kind == "text":
            values = [_unescaped(text) if text and "\\" in text else text for text in values]
        column = self._arrow.array(values, self._arrow.string())
        # The text is of UTC and does not say so.
        return (column.cast(self._arrow.timestamp("us")) if kind == "timestamp" else column).cast(final)


def parse(line: str) -> Row:
    """Return what is in a row's canonical text, as it is there.

    What a parser would make of a document is not what was stored: it has numbers that no float holds.

    :raises ValueError: when it is no such text.
    """
    found = _ROW.fullmatch(line)
    row = found.groups() if found else _scan(line)
    if row[0] is None or row[_CHANGED_AT] is None:
        raise ValueError("not the text of a row")
    return row


def changed_columns(row: Row) -> list[str | None] | None:
    """Return what the view audit_log calls so: on PostgreSQL it is computed from the images."""
    action, stored, hidden, old, new = (row[place] for place in _OF_CHANGES)
    if stored is not None:
        return _names(stored)
    if action != "UPDATE" or new is None:
        return None
    named = _names(hidden) if hidden else ()
    try:
        before, after = (_IN_WORDS.raw_decode(text)[0] for text in (old or "{}", new))
        return sorted(name for name in after if name in named or name not in before or before[name] != after[name])
    except (RecursionError, TypeError, ValueError):
        # Deeper than Python goes, or no objects, or what only MariaDB reads.
        return None


def _scan(line: str) -> Row:
    """Return the same of a text of any keys, and documents of any depth."""
    row: list[str | None] = [None] * len(COLUMNS)
    position = 0
    while (member := _MEMBER.match(line, position)) is not None:
        name, text = member.groups()
        position = member.end()
        if text is None:
            position = _end_of_brackets(line, position)
            text = line[member.end() : position]
        if name not in COLUMNS:
            # What could not stand in the line as it is. What a later release has added is left out.
            name, text = name.removesuffix(_TEXT), _document(text)
        if name in COLUMNS:
            row[_PLACES[name]] = text[1:-1] if COLUMNS[name] in ("text", "timestamp") else text
    if line[position:].strip() != "}":
        raise ValueError("not the text of a row")
    return row


def _document(text: str) -> str:
    """Return what a quoted document says, or if it is none, the quoted text: one string, where one is expected."""
    try:
        document = str(_LENIENT.decode(text))
        _LENIENT.decode(document)
    except (ValueError, RecursionError):
        return text
    return document


def _unescaped(text: str) -> str:
    return str(_LENIENT.decode(f'"{text}"'))


def _names(text: str) -> list[str | None]:
    """Return names of columns, or as one name what is no list of them."""
    found = _LENIENT.decode(text) if text.startswith("[") and is_readable(text) else text
    if isinstance(found, list) and all(name is None or isinstance(name, str) for name in found):
        return found
    return [text]


def _end_of_brackets(line: str, position: int) -> int:
    """Return where the object or array that begins there has ended, however deep it is."""
    depth = 0
    while True:
        position = _BETWEEN_BRACKETS.match(line, position).end()  # type: ignore[union-attr]
        if line[position : position + 1] in ("", '"'):
            raise ValueError("a bracket or a string does not end")
        depth += 1 if line[position] in "[{" else -1
        position += 1
        if depth <= 0:
            return position


def _types(arrow: ModuleType) -> dict[str, Any]:
    types = {
        "int64": arrow.int64(),
        "int32": arrow.int32(),
        "timestamp": arrow.timestamp("us", "UTC"),
        "names": arrow.list_(arrow.string()),
    }
    return {name: types.get(kind, arrow.string()) for name, kind in COLUMNS.items()}


def _path(name: str) -> str:
    """Return what Parquet calls the column that has the values of one of ours."""
    return f"{name}.list.element" if COLUMNS[name] == "names" else name


def _start(line: bytes) -> str:
    """Return a line's id, and none of what anybody may not read."""
    found = re.match(rb'\{"id": ?(\d{1,20})', line)
    return f"of id {found[1].decode()}" if found else "without an id"


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise AuditError(f"format: parquet needs the Python package pyarrow on the controller ({error})") from None
    return pyarrow
