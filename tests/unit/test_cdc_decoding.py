# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The example's decoder of pgoutput, on messages as the server sends them."""

from __future__ import annotations

import json
import struct

import pytest
from cdc_consumers import example

ID, TEXT, JSON, TIMESTAMPTZ, NUMERIC = 23, 25, 114, 1184, 1700
COLUMNS = (("id", ID, True), ("body", TEXT, False), ("secret_token", TEXT, False))
UNCHANGED = object()


def text(value):
    return value.encode() + b"\0"


def row(*values):
    parts = [struct.pack(">h", len(values))]
    for value in values:
        if value is None or value is UNCHANGED:
            parts.append(b"u" if value is UNCHANGED else b"n")
        else:
            parts.append(b"t" + struct.pack(">i", len(value.encode())) + value.encode())
    return b"".join(parts)


def relation(columns, full):
    described = [
        struct.pack(">b", full or key) + text(name) + struct.pack(">Ii", kind, -1) for name, kind, key in columns
    ]
    identity = b"f" if full else b"d"
    return (
        b"R"
        + struct.pack(">I", 9)
        + text("public")
        + text("note")
        + identity
        + struct.pack(">h", len(columns))
        + (b"".join(described))
    )


def message(kind, *parts):
    return kind + struct.pack(">I", 9) + b"".join(parts)


def emitted(content, prefix="dbfleet.audit", transactional=1):
    return b"M" + struct.pack(">bq", transactional, 0) + text(prefix) + struct.pack(">i", len(content)) + content


BEGIN = b"B" + struct.pack(">qqI", 0x1_0000_00FF, 86_400_000_000, 745)


def decode(*messages, columns=COLUMNS, full=True, key=("id",), partitioned=False, domains=None):
    consumer = example("consumer_postgresql")
    facts = consumer.Facts(list(key), partitioned, domains or {})
    decoder = consumer.Decoder(lambda _table, _types: facts)
    lines = [line for data in (BEGIN, relation(columns, full), *messages) for line in decoder.decode(data)]
    return [json.loads(line) for line in lines]


def test_an_unchanged_long_value_comes_from_the_old_row_and_a_secret_is_named_but_not_told():
    old, new = row("1", "long", "before"), row("1", UNCHANGED, "after")
    event = decode(message(b"U", b"O", old, b"N", new))[0]
    assert event["new_values"] == event["old_values"] == {"id": 1, "body": "long", "secret_token": "[REDACTED]"}
    assert event["changed_columns"] == ["secret_token"]
    assert (event["id"], event["changed_at"], event["transaction_id"]) == (
        "1/FF:1",
        "2000-01-02T00:00:00+00:00",
        "745",
    )


def test_without_the_whole_old_row_nothing_is_made_up():
    moved = decode(message(b"U", b"K", row("1", None, None), b"N", row("2", UNCHANGED, "x")), full=False)[0]
    assert (moved["old_values"], moved["changed_columns"], moved["record_id"]) == ({"id": 1}, None, "2")
    assert moved["new_values"] == {"id": 2, "secret_token": "[REDACTED]"}
    kept = decode(message(b"U", b"N", row("1", "b", "x")), full=False)[0]
    assert (kept["old_values"], kept["changed_columns"]) == (None, None)


def test_what_is_emitted_holds_from_there_to_the_end_of_its_transaction():
    insert = message(b"I", b"N", row("1", None, None))
    said = emitted(b'{"changed_by": "ann", "db_user": "app", "context": {"request": 7}}')
    others = (emitted(b'{"changed_by": "eve"}', prefix="other"), emitted(b'{"changed_by": "eve"}', transactional=0))
    events = decode(insert, said, insert, *others, insert, b"C" + struct.pack(">bqqq", 0, 1, 2, 3), BEGIN, insert)
    assert [event["changed_by"] for event in events] == [None, "ann", "ann", None]
    assert events[1]["context"] == {"request": 7}
    assert [event["id"] for event in events] == ["1/FF:1", "1/FF:2", "1/FF:3", "1/FF:1"]


@pytest.mark.parametrize(
    "content",
    [b"no json", b"[1]", b'"eve"', b'{"changed_by": NaN}', b'{"context": 1e400}', b"\xfc", b"[" * 100_000],
)
def test_a_message_that_anybody_may_have_sent_stops_nothing_and_says_nothing(content):
    said = emitted(b'{"changed_by": "ann"}')
    events = decode(said, emitted(content), message(b"I", b"N", row("1", None, None)))
    assert [event["changed_by"] for event in events] == ["ann"]


def test_of_a_partition_that_gives_its_key_alone_no_null_is_made_up():
    moved = message(b"U", b"O", row("1", None, None), b"N", row("2", "b", "x"))
    events = decode(moved, message(b"D", b"O", row("2", None, None)), partitioned=True)
    assert [event["old_values"] for event in events] == [{"id": 1}, {"id": 2}]
    assert events[0]["changed_columns"] is None
    whole = decode(message(b"D", b"O", row("2", "b", None)), partitioned=True)[0]
    assert whole["old_values"] == {"id": 2, "body": "b", "secret_token": "[REDACTED]"}
    assert decode(message(b"D", b"O", row("2", None, None)))[0]["old_values"]["body"] is None


def test_a_secret_is_no_record_id():
    insert = message(b"I", b"N", row("1", "b", "s3cret"))
    assert decode(insert, key=("secret_token",))[0]["record_id"] == "[REDACTED]"
    assert decode(insert, key=("id", "secret_token"))[0]["record_id"] == '[1, "[REDACTED]"]'


def test_values_are_as_to_jsonb_has_them():
    columns = [
        ("a", NUMERIC, True),
        ("b", NUMERIC, True),
        ("c", JSON, False),
        ("d", TIMESTAMPTZ, False),
        ("e", 16, False),
    ]
    values = row(
        "12345678901234567890.10",
        "NaN",
        '{"x":\n 1e2}',
        "2026-11-22 20:00:00.5+00",
        "t",
        "0044-03-15 12:00:00+00 BC",
        "7",
        "f",
    )
    consumer = example("consumer_postgresql")
    domains = {70001: NUMERIC, 70002: 16}
    columns += [("f", TIMESTAMPTZ, False), ("g", 70001, False), ("h", 70002, False)]
    decoder = consumer.Decoder(lambda _table, _types: consumer.Facts(["a", "b"], False, domains))
    lines = [
        line for data in (BEGIN, relation(columns, True), message(b"I", b"N", values)) for line in decoder.decode(data)
    ]
    assert '"a": 12345678901234567890.10, "b": "NaN", "c": {"x":  1e2}' in lines[0]
    assert '"d": "2026-11-22T20:00:00.5+00:00", "e": true' in lines[0]
    assert '"f": "0044-03-15T12:00:00+00:00 BC", "g": 7, "h": false' in lines[0]
    assert json.loads(lines[0])["record_id"] == '[12345678901234567890.10, "NaN"]'
    assert lines[0].count("\n") == 1


@pytest.mark.parametrize("before", [b"", b"one\n", b"one\ntwo\n", b"x" * 70000 + b"\n"])
@pytest.mark.parametrize("torn", [b"", b'{"id"', b"y" * 200000])
def test_a_torn_line_is_cut_off(tmp_path, before, torn):
    path = tmp_path / "landed"
    path.write_bytes(before + torn)
    with example("consumer_postgresql").open_file(str(path)) as file:
        file.write(b"next\n")
    assert path.read_bytes() == before + b"next\n"
