# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An export is exact, private, and there whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import pathlib
import resource
import stat
import typing as t

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core import event_export
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.event import EVENT_FIELDS
from ansible_collections.dbfleet.audit.plugins.module_utils._core.event_export import Exported, export
from ansible_collections.dbfleet.audit.plugins.module_utils._core.event_row import (
    CSV_HEADER,
    Row,
    as_csv,
    as_event,
    as_json,
)


def row(**fields: str) -> Row:
    """Return a row with an id; what is not given is NULL."""
    return [{"id": "7", **fields}.get(name) for name in EVENT_FIELDS]


def exported(path: pathlib.Path, *rows: Row, form: str = "jsonl", check_mode: bool = False) -> Exported:
    def read(sink: t.Callable[[Row], None]) -> None:
        for each in rows:
            sink(each)

    return export(read, str(path), form, check_mode)


@pytest.fixture(params=["unnamed", "named"])
def folder(request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Return a directory, on a file system with and without files that have no name."""
    if request.param == "named":
        monkeypatch.setattr(event_export, "_OPEN_FILES", "/nowhere")
    return tmp_path


def test_a_document_passes_into_a_line_of_json_unaltered():
    text = '{"price": 1.10, "big": 12345678901234567890, "tiny": 1E-400, "a": "\\u0000\\n"}'
    line = as_json(row(new_values=text, changed_by='o"neil\n', policy_id="3"))
    assert f'"new_values": {text}, ' in line
    assert line.count("\n") == 1
    event = json.loads(line, parse_float=str)
    assert list(event) == list(EVENT_FIELDS)
    assert (event["id"], event["policy_id"], event["changed_by"], event["old_values"]) == (7, 3, 'o"neil\n', None)


def test_a_document_on_several_lines_becomes_one():
    assert as_json(row(context='{"a":\r\n 1}')).count("\n") == 1


@pytest.mark.parametrize("text", ['{"a": [11e]}', '{"a": "\\q"}', "[-,\r\n1]"])
def test_a_document_that_only_mariadb_reads_is_a_text(text):
    assert as_event(row(context=text, new_values="[1]"))["context"] == text
    event = json.loads(as_json(row(context=text, new_values="[1]")))
    assert (event["context"], event["new_values"]) == (text, [1])


def test_an_event_keeps_every_digit():
    text = '{"price": 1.10, "big": 12345678901234567890, "e": 1e5, "long": ' + "9" * 5000 + "}"
    values = as_event(row(new_values=text))["new_values"]
    assert values == {"price": "1.10", "big": 12345678901234567890, "e": "1e5", "long": "9" * 5000}


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("[" * 100000 + "]" * 100000, False),
        ("[" * 65 + "]" * 65, False),
        ("[" * 64 + "]" * 64, True),
        ('{"a": "' + "[{" * 200 + '"}', True),
        ('{"a": "\\"' + "[" * 200 + '"}', True),
        ("[" + ", ".join(["[]"] * 200) + "]", True),
    ],
)
def test_a_document_that_is_nested_too_deep_stays_text(text, parsed):
    context = as_event(row(context=text))["context"]
    assert context == (json.loads(text) if parsed else text)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+49 30", "'+49 30"),
        ("-a,b", '"\'-a,b"'),
        ("\tx", "'\tx"),
        ("-17", "-17"),
        ("+1.5", "+1.5"),
        ("a=1", "a=1"),
        ('say "hi"', '"say ""hi"""'),
        ("two\nlines", '"two\nlines"'),
        (" x", " x"),
        ("", '""'),
    ],
)
def test_a_cell_is_quoted_where_it_must_and_never_a_formula(text, cell):
    line = as_csv(row(changed_by=text))
    assert line == f"7,,,,,,,,,,{cell},,,,,\r\n"
    read = next(csv.reader(io.StringIO(line, newline="")))[EVENT_FIELDS.index("changed_by")]
    assert read.removeprefix("'") == text


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_file_is_private_and_described_by_its_digest(folder, form):
    path = folder / "events"
    result = exported(path, row(), row(action="INSERT"), form=form)
    content = path.read_bytes()
    assert (result.written, result.size, result.changed) == (2, len(content), True)
    assert result.sha256 == hashlib.sha256(content).hexdigest()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert content.decode().startswith(CSV_HEADER if form == "csv" else '{"id": 7')
    assert os.listdir(folder) == ["events"]


def test_the_same_content_is_left_alone_and_a_file_that_others_may_read_is_not(folder):
    path = folder / "events"
    exported(path, row())
    inode = path.stat().st_ino
    assert not exported(path, row()).changed
    assert path.stat().st_ino == inode
    path.chmod(0o640)
    assert exported(path, row()).changed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert exported(path, row(), row()).changed


def test_check_mode_predicts_and_writes_nothing(folder):
    path = folder / "events"
    predicted = exported(path, row(), check_mode=True)
    assert os.listdir(folder) == []
    assert exported(path, row()) == predicted
    assert not exported(path, row(), check_mode=True).changed
    assert exported(path, row(), row(), check_mode=True).changed


def test_what_ends_in_the_middle_leaves_the_old_file_and_no_other(folder):
    path = folder / "events"
    exported(path, row())
    before = path.read_bytes()

    def read(sink: t.Callable[[Row], None]) -> None:
        for _number in range(100000):
            sink(row(changed_by="half"))
        raise AuditError("the server is gone")

    with pytest.raises(AuditError, match="the server is gone"):
        export(read, str(path), "jsonl", check_mode=False)
    assert path.read_bytes() == before
    assert os.listdir(folder) == ["events"]


def test_where_no_file_can_be_put_nothing_is_read(tmp_path):
    def read(_sink: t.Callable[[Row], None]) -> None:
        raise AssertionError("it was read")

    (tmp_path / "link").symlink_to("/etc/passwd")
    for name, words in {
        "missing/events": "the directory .*/missing does not exist",
        "link": "no ordinary file",
        "": "no ordinary file",
    }.items():
        with pytest.raises(AuditError, match=f"dest: .*{words}"):
            export(read, str(tmp_path / name), "jsonl", check_mode=False)


def test_a_file_that_cannot_be_written_to_its_end_is_named_and_nothing_is_left(folder):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, old[1]))
    try:
        with pytest.raises(AuditError, match="events was not written: File too large; nothing is left"):
            exported(folder / "events", *(row(changed_by="x" * 1000) for _number in range(3000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert os.listdir(folder) == []
