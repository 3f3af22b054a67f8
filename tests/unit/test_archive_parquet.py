# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lines of an archive become Parquet files, one a month, or none; what was stored is in them as it was."""

from __future__ import annotations

import contextlib
import datetime
import gc
import json
import pathlib
import subprocess
import sys
import typing as t

import pyarrow
import pyarrow.parquet
import pytest
import running
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive import Manifest
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.plugin_utils import _archive_parquet
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_directory import Directory
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_parquet import COLUMNS, ParquetCopies, parse
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_place import Place

#: What the database makes of a row; NULL is left out.
POSTGRESQL = (
    r'{"id":7,"changed_at":"2026-04-30T23:59:59.5","transaction_id":"901","action":"UPDATE","changed_by":"\"\\ \u00fc",'
    r'"db_user":"shop","client_ip":"192.0.2.7","application_name":"psql","schema_name":"public","table_name":"T 日本",'
    r'"record_id":"[1, \"a\"]","policy_id":3,"hidden_changes":["password", "a\"b"],"context":null,'
    r'"old_values":{"n": 1.0, "x": [{"y": "},\"old_values\":"}], "password": "[REDACTED]", "same": "1"},'
    r'"new_values":{"n": 1.00, "x": null, "password": "[REDACTED]", "same": "1",'
    r' "a\"b": 12345678901234567890.123456789}}'
)
MYSQL = (
    '{"id":8,"changed_at":"2026-05-01T00:00:00.000001","transaction_id":"ab-1","action":"UPDATE","changed_by":"bo",'
    '"db_user":"shop@%","schema_name":"shop","table_name":"item","record_id":"8","changed_columns":["n", "m"],'
    '"context":{"a":1,"old_values":2} ,"old_values":{"n": [[[1, 2]]]},"new_values":{"n":{"k":{"k":{"k":"\\\\"}}}}}'
)


def manifest(name: str = "audit_log_2026_04_27", expires: str | None = None) -> Manifest:
    return Manifest(
        chain="c",
        name=name,
        file=f"{name}.jsonl.gz",
        first_day="2026-04-27",
        end_day="2026-05-04",
        size=1,
        sha256="ab" * 32,
        rows=2,
        first_id=7,
        last_id=8,
        first_at="",
        last_at="",
        seals=(),
        categories=(),
        tables={},
        expires=expires,
    )


def copies(directory: pathlib.Path, server: str = "pg3", database: str = "shop") -> ParquetCopies:
    return ParquetCopies(str(directory), server, database, {}, {})


def write(directory: pathlib.Path, *lines: str, **names: str) -> list[dict[str, t.Any]]:
    """Return what is in the files that lines become, by month."""
    with copies(directory, **names)(manifest()) as copy:
        for line in lines:
            copy.add(line.encode())
    tables = [pyarrow.parquet.ParquetFile(directory / path).read() for path in copy.paths]
    return [row for table in tables for row in table.to_pylist()]


def write_both(to: ParquetCopies, error: AuditError | None = None) -> None:
    """Write rows of two months, and end with an error."""
    with to(manifest()) as copy:
        copy.add(POSTGRESQL.encode())
        copy.add(MYSQL.encode())
        if error:
            raise error


def files(directory: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_a_row_is_in_its_columns_as_it_was(tmp_path: pathlib.Path):
    first, second = write(tmp_path, POSTGRESQL, MYSQL)
    utc = datetime.timezone.utc
    assert first["changed_at"] == datetime.datetime(2026, 4, 30, 23, 59, 59, 500000, utc)
    assert second["changed_at"] == datetime.datetime(2026, 5, 1, 0, 0, 0, 1, utc)
    for row, line in ((first, POSTGRESQL), (second, MYSQL)):
        plain = json.loads(line)
        texts = [name for name, kind in COLUMNS.items() if kind not in ("timestamp", "names", "document")]
        assert {name: row[name] for name in texts} == {name: plain.get(name) for name in texts}
    assert first["old_values"] == POSTGRESQL[POSTGRESQL.index('{"n": 1.0,') : POSTGRESQL.index(',"new_values"')]
    assert first["new_values"] == POSTGRESQL[POSTGRESQL.index('{"n": 1.00') : -1]
    assert second["context"] == '{"a":1,"old_values":2}'
    assert second["old_values"] == '{"n": [[[1, 2]]]}'
    assert second["new_values"] == '{"n":{"k":{"k":{"k":"\\\\"}}}}'


def test_only_an_unusual_row_takes_the_long_way():
    assert _archive_parquet._ROW.fullmatch(POSTGRESQL)
    # A blank after a document, which MariaDB keeps.
    assert not _archive_parquet._ROW.fullmatch(MYSQL)
    assert _archive_parquet._ROW.fullmatch(MYSQL.replace(" ,", ","))


def test_null_of_json_is_not_a_missing_value(tmp_path: pathlib.Path):
    first, second = write(tmp_path, POSTGRESQL, '{"id":1,"changed_at":"2026-05-02T00:00:00","action":"TRUNCATE"}')
    assert first["context"] == "null"
    assert second["context"] is None
    assert second["changed_columns"] is None


def test_changed_columns_are_those_of_the_view_on_both_engines(tmp_path: pathlib.Path):
    first, second = write(tmp_path, POSTGRESQL, MYSQL)
    assert first["hidden_changes"] == ["password", 'a"b']
    assert first["changed_columns"] == ['a"b', "n", "password", "x"]
    assert (second["hidden_changes"], second["changed_columns"]) == (None, ["n", "m"])


def test_what_is_no_json_in_mariadb_is_one_text(tmp_path: pathlib.Path):
    line = (
        '{"id":1,"changed_at":"2026-05-01T00:00:00.000000","action":"UPDATE",'
        '"changed_columns_text":"\\"a\\", b","context_text":"}\\"","old_values":7,"later":[{}],"new_values":"x"}'
    )
    [row] = write(tmp_path, line)
    assert json.loads(row["context"]) == '}"'
    assert (row["old_values"], row["new_values"]) == ("7", '"x"')
    assert row["changed_columns"] == ['"\\"a\\", b"']


def test_what_only_mariadb_calls_json_is_kept_as_it_is(tmp_path: pathlib.Path):
    # The second is what somebody has written into the log.
    image = '{"a": [11e, -], "b": "\\q"}'
    start = '{"id":1,"changed_at":"2026-05-01T00:00:00.000000","action":"UPDATE",'
    first, second, third = write(
        tmp_path,
        f'{start}"changed_columns":["a"],"context":{image},"old_values":{image},"new_values":{image}}}',
        f'{start}"changed_columns":[1e],"new_values":{image}}}',
        f'{start}"old_values":{{}},"new_values":{image}}}',
    )
    assert first["context"] == first["old_values"] == first["new_values"] == image
    assert [row["changed_columns"] for row in (first, second, third)] == [["a"], ["[1e]"], None]


def test_a_document_of_several_lines_in_mariadb_is_a_document(tmp_path: pathlib.Path):
    document = '{\n "n": 12345678901234567890.10\n}'
    line = (
        '{"id":1,"changed_at":"2026-05-01T00:00:00.000000","action":"INSERT",'
        f'"context":{{"a":1}},"new_values_text":{json.dumps(document)}}}'
    )
    [row] = write(tmp_path, line)
    assert (row["new_values"], row["context"]) == (document, '{"a":1}')


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{}",
        "{nonsense",
        '{"id":1}',
        '{"id":"1","changed_at":"2026-05-01T00:00:00"}',
        '{"id":1,"changed_at":"../../../etc"}',
        '{"id":1,"changed_at":"2026-05-01T00:00:00","context":{"a":1}',
        '{"id":1,"changed_at":"2026-05-01T00:00:00","context":{"a":"1}}',
        '{"id":1,"changed_at":"2026-05-01T00:00:00","action":"\\x"}',
        '{"id":1,"changed_at":"2026-05-01 noon"}',
        '{"id":1,"changed_at":"2026-05-01T00:00:00","policy_id":99999999999}',
        '{"id":99999999999999999999,"changed_at":"2026-05-01T00:00:00"}',
        '{"id":1,"changed_at":"2026-05-01T00:00:00","action":"\\ud800"}',
    ],
)
def test_what_is_no_row_is_an_error_and_leaves_nothing(tmp_path: pathlib.Path, line: str):
    with pytest.raises(AuditError, match=r"^audit_log_2026_04_27: the line|^rows from id"):
        write(tmp_path, POSTGRESQL, MYSQL, line)
    assert files(tmp_path) == []


_TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\r"))
_DOCUMENT = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries({name: st.none() | _TEXT for name, kind in COLUMNS.items() if kind == "text"}),
    st.fixed_dictionaries({name: _DOCUMENT for name, kind in COLUMNS.items() if kind == "document"}),
    st.booleans(),
    st.booleans(),
)
def test_both_ways_of_reading_a_text_find_the_same(
    texts: dict[str, str | None], documents: dict[str, t.Any], ascii_only: bool, compact: bool
):
    separators = (",", ":") if compact else (", ", ": ")
    given_texts = {name: json.dumps(text, ensure_ascii=ascii_only) for name, text in texts.items() if text is not None}
    stored = {
        name: json.dumps(document, ensure_ascii=ascii_only, separators=separators)
        for name, document in documents.items()
    }
    parts = {"id": "5", "changed_at": '"2026-05-01T00:00:00"', **given_texts, **stored}
    line = "{" + ",".join(f'"{name}":{parts[name]}' for name in COLUMNS if name in parts) + "}"
    row = dict(zip(COLUMNS, parse(line)))
    assert tuple(_archive_parquet._scan(line)) == tuple(row.values())
    assert {name: row[name] for name in stored} == stored
    assert {name: row[name] for name in texts} == {
        name: given_texts[name][1:-1] if name in given_texts else None for name in texts
    }


def test_a_document_may_be_as_deep_and_a_number_as_long_as_the_database_lets_it(tmp_path: pathlib.Path):
    deep, long = "[" * 20_000 + "]" * 20_000, "9" * 100_000
    line = f'{{"id":1,"changed_at":"2026-05-01T00:00:00","action":"UPDATE","new_values":{{"a": {deep}, "b": {long}}}}}'
    [row] = write(tmp_path, line)
    assert row["new_values"] == f'{{"a": {deep}, "b": {long}}}'


def test_a_week_of_two_months_becomes_two_files_in_folders_of_their_months(tmp_path: pathlib.Path):
    lines = [
        f'{{"id":{n},"changed_at":"2026-0{4 + n % 2}-{"01" if n % 2 else "30"}T00:00:00","action":"INSERT"}}'
        for n in range(1, 8)
    ]
    write(tmp_path, *lines, server="pg/3", database=".shöp=1")
    below = "host=pg%2F3/db=%2Esh%C3%B6p%3D1"
    assert files(tmp_path) == [f"{below}/month=2026-0{month}/audit_log_2026_04_27.parquet" for month in (4, 5)]
    april, may = (pyarrow.parquet.ParquetFile(tmp_path / path).read() for path in files(tmp_path))
    assert april["id"].to_pylist() == [2, 4, 6]
    assert may["id"].to_pylist() == [1, 3, 5, 7]


def test_an_archive_without_lines_becomes_no_file(tmp_path: pathlib.Path):
    with copies(tmp_path)(manifest()) as copy:
        pass
    assert copy.paths == ()
    assert files(tmp_path) == []


def test_every_file_has_the_same_columns_and_says_which_archive_it_is_a_copy_of(tmp_path: pathlib.Path):
    write(tmp_path, POSTGRESQL)
    file = pyarrow.parquet.ParquetFile(next(tmp_path.rglob("*.parquet")))
    types = {field.name: str(field.type) for field in file.schema_arrow}
    kinds = {
        "timestamp": "timestamp[us, tz=UTC]",
        "names": "list<element: string>",
        "text": "string",
        "document": "string",
    }
    assert types == {name: kinds.get(kind, kind) for name, kind in COLUMNS.items()}
    assert file.schema_arrow.metadata[b"dbfleet.audit.archive"] == b"audit_log_2026_04_27"
    assert file.schema_arrow.metadata[b"dbfleet.audit.sha256"] == b"ab" * 32
    group = file.metadata.row_group(0)
    assert {group.column(number).compression for number in range(group.num_columns)} == {"ZSTD"}


def test_row_groups_end_after_rows_or_bytes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_archive_parquet, "GROUP_ROWS", 7)
    monkeypatch.setattr(_archive_parquet, "GROUP_BYTES", 1000)
    line = '{{"id":{},"changed_at":"2026-05-01T00:00:00","context":"{}"}}'
    write(tmp_path, *(line.format(n, "x" * (1000 if n > 20 else 1)) for n in range(24)))
    metadata = pyarrow.parquet.ParquetFile(next(tmp_path.rglob("*.parquet"))).metadata
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [7, 7, 7, 1, 1, 1]


def test_an_error_while_rows_are_read_leaves_no_file(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]):
    with pytest.raises(AuditError, match="not what was sealed"):
        write_both(copies(tmp_path), AuditError("it is not what was sealed"))
    assert files(tmp_path) == []
    # Nor does a destructor try to write to it.
    gc.collect()
    assert capfd.readouterr().err == ""


class NoSpace:
    """A file that takes everything, and for which there is no room in the end."""

    def __init__(self, file: contextlib.AbstractContextManager[t.IO[bytes]]) -> None:
        self.file = file

    def __enter__(self) -> t.IO[bytes]:
        """Open it."""
        return self.file.__enter__()

    def __exit__(self, *_error: object) -> None:
        """Have it discarded, and fail."""
        full = AuditError("no space left")
        with contextlib.suppress(AuditError):
            self.file.__exit__(AuditError, full, None)
        raise full


class Full(Directory):
    """A directory of such files."""

    def writing(self, name: str, until: datetime.datetime | None) -> t.Any:
        return NoSpace(super().writing(name, until))


@pytest.mark.parametrize("full", ["2026-04", "2026-05"])
def test_one_month_that_fails_takes_the_other_with_it(tmp_path: pathlib.Path, full: str):
    class Half(ParquetCopies):
        """Copies, one of whose months does not fit."""

        def place(self, month: str) -> Place:
            place = super().place(month)
            return Full(place.url) if month == full else place

    write(tmp_path, POSTGRESQL, MYSQL)
    with pytest.raises(AuditError, match="no space left"):
        write_both(Half(str(tmp_path), "pg3", "shop", {}, {}))
    assert files(tmp_path) == []


_MANY = """
import json, resource, sys, tempfile
sys.path[:0] = json.loads(sys.argv[1])
import test_archive_parquet as tests
line = ('{{"id":{0},"changed_at":"2026-04-30T00:00:00.{1:03}","transaction_id":"{0}","action":"INSERT",'
        '"changed_by":"u","table_name":"item","record_id":"{0}","new_values":{{"id": {0}, "name": "{2}"}}}}')
with tempfile.TemporaryDirectory() as directory, tests.copies(directory)(tests.manifest()) as copy:
    for n in range(300_000):
        copy.add(line.format(n, n % 1000, "x" * 50).encode())
        if n % 100_000 == 99_999:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_archive():
    paths = [str(running.COLLECTIONS), str(pathlib.Path(__file__).parent), str(pathlib.Path(running.__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", _MANY, json.dumps(paths)], capture_output=True, text=True, check=True, timeout=300
    )
    after_100_000, _after_200_000, after_300_000 = map(int, done.stdout.split())
    assert after_300_000 - after_100_000 < 25, done.stdout


def test_without_pyarrow_the_message_says_so(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(AuditError, match="format: parquet needs the Python package pyarrow on the controller"):
        copies(tmp_path)
