# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""No value is too large to be written: what does not fit into the log is there as its size and digest."""

from __future__ import annotations

import hashlib
import typing as t

import pytest
from mysql_auditing import left, rollout
from mysql_databases import MysqlServer, Schema

IMAGES = ("full", "changed")
TEXTS = 60
SIZES = "body LONGTEXT, raw LONGBLOB, doc JSON, sixteen LONGTEXT CHARACTER SET utf16, title VARCHAR(20), n INT"


@pytest.fixture(scope="module")
def shop(trail: MysqlServer) -> t.Iterator[Schema]:
    """Return a database with all tables audited."""
    texts = ", ".join(f"c{number} TEXT" for number in range(TEXTS))
    with Schema(trail) as made:
        # MySQL sorts whole rows, as large as they are.
        made.execute("SET sort_buffer_size = 1024 * 1024 * 1024")
        for image in IMAGES:
            made.execute(f"CREATE TABLE sizes_{image} (id INT PRIMARY KEY, {SIZES})")
            made.execute(f"CREATE TABLE texts_{image} (id INT PRIMARY KEY, {texts})")
        rollout(
            made,
            {"tables": [f"{made.name}.*_changed"], "update_image": "changed"},
            {"tables": [f"{made.name}.*"]},
        )
        yield made


def omission(found: t.Any, content: bytes) -> bool:
    """Tell whether a record says of a value that it is too large, and of these bytes."""
    return found == {"omitted": "too large", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("image", IMAGES)
def test_a_value_that_is_too_large_is_recorded_as_its_size_and_digest(shop, image):
    size = shop.value("SELECT @@max_allowed_packet") // 8
    table = f"sizes_{image}"
    log = left(
        shop,
        table,
        f"INSERT INTO {table} (id, body, raw, doc, title) VALUES (1, 'small', x'00', '[1]', 'it')",
        f"UPDATE {table} SET body = REPEAT('é', {size // 2})",
        f"UPDATE {table} SET raw = REPEAT(x'01', {size}), n = 1",
        f"UPDATE {table} SET doc = CONCAT('[\"', REPEAT('x', {size}), '\"]')",
        f"UPDATE {table} SET sixteen = REPEAT(CHAR(1 USING utf8mb4), {size // 2})",
        f"UPDATE {table} SET title = 'of it'",
        f"UPDATE {table} SET body = 'small again', raw = NULL, doc = '[2]', sixteen = 'x'",
        f"UPDATE {table} SET body = CONCAT(body, '!')",
        f"DELETE FROM {table}",
    )
    contents = {
        "body": ("é" * (size // 2)).encode(),
        "raw": b"\x01" * size,
        "doc": f'["{"x" * size}"]'.encode(),
        "sixteen": b"\0\x01" * (size // 2),
    }
    insert, *larger, title, smaller, small, delete = log
    assert insert.new_values["body"] == "small"
    for record, (name, content) in zip(larger, contents.items()):
        assert omission(record.new_values[name], content), name
        assert record.changed_columns == ([name, "n"] if name == "raw" else [name])
    assert larger[1].new_values["n"] == 1
    if image == "full":
        assert title.new_values == {**title.old_values, "title": "of it"}
        assert (title.old_values["id"], title.old_values["title"], title.old_values["n"]) == (1, "it", 1)
    assert all(omission(smaller.old_values[name], content) for name, content in contents.items())
    after = {name: smaller.new_values[name] for name in contents}
    assert after == {"body": "small again", "raw": None, "doc": [2], "sixteen": "x"}
    assert (small.new_values["body"], delete.old_values["body"]) == ("small again!", "small again!")


@pytest.mark.parametrize("image", IMAGES)
def test_no_value_that_the_server_takes_is_too_large_for_the_log(shop, image):
    packet = shop.value("SELECT @@max_allowed_packet")
    table, most = f"sizes_{image}", packet - 1024
    log = left(
        shop,
        table,
        f"INSERT INTO {table} (id, body, raw) VALUES (2, REPEAT('\x01', {most}), REPEAT('x', {most}))",
        f"UPDATE {table} SET body = REPEAT(CHAR(2), {packet} DIV 17), raw = NULL",
        f"UPDATE {table} SET body = REPEAT(CHAR(2), {packet} DIV 32), raw = REPEAT(x'01', {packet} DIV 33)",
        f"DELETE FROM {table}",
    )
    assert len(log) == 4
    assert len(log[1].new_values["body"]) == packet // 17
    assert (len(log[2].new_values["body"]), type(log[2].new_values["raw"])) == (packet // 32, str)


@pytest.mark.parametrize("image", IMAGES)
def test_many_texts_that_are_too_large_together(shop, image):
    """Control characters are written as six: 60 columns of 64 kB make an image of 23 MB."""
    table = f"texts_{image}"
    every = ", ".join(f"c{number} = REPEAT(CHAR(1), 65535)" for number in range(1, TEXTS))
    _insert, update, delete = left(
        shop,
        table,
        f"INSERT INTO {table} (id, c0) VALUES (1, 'kept')",
        f"UPDATE {table} SET {every}",
        f"DELETE FROM {table}",
    )
    texts = {name: value for name, value in delete.old_values.items() if name not in ("id", "c0")}
    assert (len(texts), delete.old_values["c0"]) == (TEXTS - 1, "kept")
    assert all(value == "\x01" * 65535 or omission(value, b"\x01" * 65535) for value in texts.values())
    assert len(update.changed_columns) == TEXTS - 1
    assert update.new_values.items() >= texts.items()
