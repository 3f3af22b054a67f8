# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Values of every type are recorded exactly, and their changes are seen."""

from __future__ import annotations

import base64
import json
import struct
import typing as t

import pytest
from mysql_auditing import left, records, rollout
from mysql_databases import MysqlServer, Schema, fetch, quote_name


class Differing(t.NamedTuple):
    """What the two servers make of one value."""

    mariadb: t.Any
    mysql: t.Any


class Kind(t.NamedTuple):
    """A type, two values of it as SQL, and what a record holds of them.

    ``only`` is the server that has the type, and the release it has it from.
    """

    type: str
    values: tuple[str, str]
    recorded: tuple[t.Any, t.Any]
    only: tuple[str, tuple[int, ...]] = ("", ())


ODD_TEXT = "a\0\\'\"\n\t\x1f😀 é%s{x}"
ODD_SQL = f"CONVERT(x'{ODD_TEXT.encode().hex()}' USING utf8mb4)"
LONG_BYTES = bytes(range(256)) * 2
DEEP = '{"k": [1, {"ü😀": null}], "s": "a\\"b\\\\c\\n", "b": true}'
DEEPEST = Differing(31, 100)


def single(value: float) -> float:
    """Return what a FLOAT keeps of a number."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


KINDS = {
    "boolean": Kind("BOOLEAN", ("TRUE", "FALSE"), (1, 0)),
    "tinyint": Kind("TINYINT UNSIGNED", ("255", "0"), (255, 0)),
    "bigint": Kind("BIGINT", ("-9223372036854775808", "9007199254740993"), (-(2**63), 2**53 + 1)),
    "unsigned": Kind("BIGINT UNSIGNED", ("18446744073709551615", "9223372036854775808"), (2**64 - 1, 2**63)),
    "zerofill": Kind("INT(6) ZEROFILL", ("42", "7"), (42, 7)),
    "zerofill_double": Kind("DOUBLE(9,2) ZEROFILL", ("2.5", "0"), (2.5, 0.0)),
    "zerofill_decimal": Kind("DECIMAL(9,2) ZEROFILL", ("2.5", "0"), ("2.50", "0.00")),
    "widest": Kind(
        "DECIMAL(65,30)",
        (f"-{'9' * 35}.{'9' * 30}", f"{'9' * 35}.{'9' * 29}8"),
        (f"-{'9' * 35}.{'9' * 30}", f"{'9' * 35}.{'9' * 29}8"),
    ),
    "decimal": Kind(
        "DECIMAL(30,10)",
        ("12345678901234567890.0123456789", "12345678901234567890.0123456788"),
        ("12345678901234567890.0123456789", "12345678901234567890.0123456788"),
    ),
    "float": Kind("FLOAT", ("0.1", "16777217e10"), (single(0.1), single(16777217e10))),
    "double": Kind("DOUBLE", ("0.1e0 + 0.2e0", "2.2250738585072014e-308"), (0.1 + 0.2, 2.2250738585072014e-308)),
    "bit1": Kind("BIT(1)", ("b'1'", "b'0'"), (1, 0)),
    "bit9": Kind("BIT(9)", ("b'100000001'", "b'1'"), (257, 1)),
    "bit64": Kind("BIT(64)", ("18446744073709551615", "1"), (2**64 - 1, 1)),
    "year": Kind("YEAR", ("2155", "0"), (2155, 0)),
    "enum": Kind("ENUM('a b', 'it''s \"é\"')", ("'a b'", "'it''s \"é\"'"), ("a b", 'it\'s "é"')),
    "enum_error": Kind("ENUM('', 'x')", ("'wrong'", "'x'"), ("", "x")),
    "set": Kind("SET('a', 'b', 'ü') CHARACTER SET latin1", ("'a,ü'", "''"), ("a,ü", "")),
    "char": Kind("CHAR(10)", ("'ab'", "'ab c'"), ("ab", "ab c")),
    "varchar": Kind("VARCHAR(60)", (ODD_SQL, "'x '"), (ODD_TEXT, "x ")),
    "tinytext": Kind("TINYTEXT", (ODD_SQL, "''"), (ODD_TEXT, "")),
    "text": Kind("TEXT", (ODD_SQL, "'[1, \"x\"]'"), (ODD_TEXT, '[1, "x"]')),
    "longtext": Kind("LONGTEXT", ("'null'", ODD_SQL), ("null", ODD_TEXT)),
    "binary_collation": Kind("TEXT COLLATE utf8mb4_bin", ("'a'", "'a '"), ("a", "a ")),
    "latin1": Kind("VARCHAR(9) CHARACTER SET latin1", ("'é€'", "'É€'"), ("é€", "É€")),
    "utf16": Kind("VARCHAR(9) CHARACTER SET utf16", ("'é😀'", "'é😁'"), ("é😀", "é😁")),
    "utf32": Kind("MEDIUMTEXT CHARACTER SET utf32", ("'😀'", "'😀 '"), ("😀", "😀 ")),
    "ucs2": Kind("VARCHAR(9) CHARACTER SET ucs2", ("'名'", "'前'"), ("名", "前")),
    "sjis": Kind("VARCHAR(9) CHARACTER SET sjis", ("'表ソ'", "'表'"), ("表ソ", "表")),
    "utf8mb3": Kind("VARCHAR(9) CHARACTER SET utf8mb3", ("'€'", "'€€'"), ("€", "€€")),
    "binary": Kind("BINARY(4)", ("x'00FF'", "x'00FF20'"), ("AP8AAA==", "AP8gAA==")),
    "varbinary": Kind("VARBINARY(9)", ("x'00FF27'", "x'00FF2720'"), ("AP8n", "AP8nIA==")),
    "blob": Kind("BLOB", (f"x'{LONG_BYTES.hex()}'", "''"), (base64.b64encode(LONG_BYTES).decode(), "")),
    "longblob": Kind("LONGBLOB", ("x'00'", "x'0000'"), ("AA==", "AAA=")),
    "json": Kind(
        "JSON",
        (f"'{DEEP}'".replace("\\", "\\\\"), """'[1.50, 12345678901234567, "1"]'"""),
        (json.loads(DEEP), Differing(["1.50", 12345678901234567, "1"], ["1.5", 12345678901234567, "1"])),
    ),
    "json_null": Kind("JSON", ("'null'", "'\"null\"'"), (None, "null")),
    "json_decimal": Kind(
        "JSON",
        ("JSON_ARRAY(CAST('1234567890123456789.10' AS DECIMAL(30,2)))", "JSON_ARRAY(1, '1')"),
        (["1234567890123456789.10"], [1, "1"]),
    ),
    "point": Kind(
        "POINT",
        ("ST_GeomFromText('POINT(0.1 0.30000000000000004)', 4326)", "ST_GeomFromText('POINT(0.1 0.3)', 4326)"),
        ("SRID=4326;POINT(0.1 0.30000000000000004)", "SRID=4326;POINT(0.1 0.3)"),
    ),
    "geometry": Kind(
        "GEOMETRY",
        ("ST_GeomFromText('LINESTRING(0 0,1 1)')", "ST_GeomFromText('LINESTRING(0 0,1 1)', 4326)"),
        ("SRID=0;LINESTRING(0 0,1 1)", "SRID=4326;LINESTRING(0 0,1 1)"),
    ),
    # Coordinates that do not exist: only a copy of bytes can bring them in, and ST_SRID() refuses them.
    "nowhere": Kind(
        "GEOMETRY",
        (
            "CONCAT(x'E6100000', ST_AsWKB(ST_GeomFromText('POINT(500 600)')))",
            "CONCAT(x'3F420F00', ST_AsWKB(ST_GeomFromText('POINT(5 6)')))",
        ),
        (Differing("SRID=4326;POINT(500 600)", "SRID=4326;POINT(600 500)"), "SRID=999999;POINT(5 6)"),
    ),
    "date": Kind("DATE", ("'2024-02-29'", "'0000-00-00'"), ("2024-02-29", "0000-00-00")),
    "half_date": Kind("DATE", ("'2024-00-00'", "'2024-01-00'"), ("2024-00-00", "2024-01-00")),
    "datetime": Kind(
        "DATETIME(6)",
        ("'9999-12-31 23:59:59.999999'", "'0000-00-00'"),
        ("9999-12-31 23:59:59.999999", "0000-00-00 00:00:00.000000"),
    ),
    "time": Kind("TIME(3)", ("'-838:59:58.999'", "'00:00:00.001'"), ("-838:59:58.999", "00:00:00.001")),
    "timestamp": Kind(
        "TIMESTAMP NULL", ("'2038-01-19 03:14:07'", "'0000-00-00'"), ("2038-01-19 03:14:07", "0000-00-00 00:00:00")
    ),
    "fraction": Kind(
        "TIMESTAMP(6) NULL",
        ("'1970-01-01 00:00:01.5'", "'2001-02-03 04:05:06.000001'"),
        ("1970-01-01 00:00:01.500000", "2001-02-03 04:05:06.000001"),
    ),
    "uuid": Kind(
        "UUID",
        ("'123e4567-e89b-12d3-a456-426655440000'", "'00000000-0000-0000-0000-000000000000'"),
        ("123e4567-e89b-12d3-a456-426655440000", "00000000-0000-0000-0000-000000000000"),
        only=("mariadb", (10, 7)),
    ),
    "inet6": Kind("INET6", ("'2001:db8::1'", "'::'"), ("2001:db8::1", "::"), only=("mariadb", (10, 5))),
    "inet4": Kind("INET4", ("'192.0.2.1'", "'0.0.0.0'"), ("192.0.2.1", "0.0.0.0"), only=("mariadb", (10, 10))),
    "vector": Kind(
        "VECTOR(2)",
        ("x'0000803F00000040'", "x'0000803F00000041'"),
        ("AACAPwAAAEA=", "AACAPwAAAEE="),
        only=("mysql", (9, 0)),
    ),
    "maria_vector": Kind(
        "VECTOR(2)",
        ("x'0000803F00000040'", "x'0000803F00000041'"),
        ("AACAPwAAAEA=", "AACAPwAAAEE="),
        only=("mariadb", (11, 7)),
    ),
    "late": Kind(
        "TIMESTAMP NULL",
        ("'2106-02-07 06:28:15'", "'2039-01-01'"),
        ("2106-02-07 06:28:15", "2039-01-01 00:00:00"),
        only=("mariadb", (11, 5)),
    ),
}

IMAGES = ("full", "changed")


def release(server: MysqlServer) -> tuple[str, tuple[int, ...]]:
    """Return the server's name and release."""
    return "mariadb" if server.is_mariadb else "mysql", tuple(int(part) for part in server.version.split(".")[:2])


def is_there(kind: Kind, server: MysqlServer) -> bool:
    name, version = release(server)
    return not kind.only[0] or (kind.only[0] == name and version >= kind.only[1])


def expected(value: t.Any, server: MysqlServer) -> t.Any:
    return getattr(value, release(server)[0]) if isinstance(value, Differing) else value


ODD_NAMES = (
    *("select", "order", "key", "old", "NEW", "two words", "it's", 'x"y', "back\\slash", "tick`tick", "Größe", "名前"),
    *("%s", "{place}", "$.a", "a.b", "v_changed", "v_user", "v_message", "[*]", "x" * 64, "?", "#", "--x"),
)
WIDE = 300


def tables(server: MysqlServer) -> list[str]:
    kinds = ", ".join(f"`{name}` {kind.type}" for name, kind in KINDS.items() if is_there(kind, server))
    odd = ", ".join(f"{quote_name(name)} TEXT" for name in ODD_NAMES)
    wide = ", ".join(f"c{number} INT" for number in range(1, WIDE))
    made = []
    for image in IMAGES:
        made += [
            f"CREATE TABLE kinds_{image} (id INT PRIMARY KEY, {kinds})",
            f"CREATE TABLE odd_{image} (id INT PRIMARY KEY, {odd})",
            f"CREATE TABLE made_{image} (id INT PRIMARY KEY, n INT, hidden INT INVISIBLE, "
            "twice INT AS (n * 2) VIRTUAL, thrice INT AS (n * 3) STORED)",
        ]
    return [
        *made,
        f"CREATE TABLE wide_full (id INT PRIMARY KEY, {wide})",
        "CREATE TABLE moments_full (id INT PRIMARY KEY, at TIMESTAMP NULL, other TIMESTAMP NULL)",
        "CREATE TABLE keys_binary (raw VARBINARY(90) PRIMARY KEY)",
    ]


def policies(shop: Schema) -> list[dict[str, t.Any]]:
    return [{"tables": [f"{shop.name}.*_changed"], "update_image": "changed"}, {"tables": [f"{shop.name}.*"]}]


@pytest.fixture(scope="module")
def shop(trail: MysqlServer) -> t.Iterator[Schema]:
    """Return a database with all tables audited; its own connection takes any date."""
    with Schema(trail) as made:
        # MySQL sorts whole rows, as large as they are.
        made.execute(
            "SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00', sort_buffer_size = 1024 * 1024 * 1024"
        )
        for statement in tables(trail):
            made.execute(statement)
        rollout(made, *policies(made))
        yield made
        invalid = " OR ".join(
            f"NOT JSON_VALID({column})" for column in ("old_values", "new_values", "changed_columns", "context")
        )
        assert made.value(f"SELECT COUNT(*) FROM audit.audit_log_data WHERE {invalid}") == 0
        assert not rollout(made, *policies(made)).changed


def test_kinds_are_those_of_this_server(shop):
    """A type that a release has got or lost would otherwise go untested without a word."""
    there = [name for name, kind in KINDS.items() if is_there(kind, shop.server)]
    assert len(there) >= len(KINDS) - 6


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("name", KINDS)
def test_a_value_of_every_type_and_its_changes_are_recorded_exactly(shop, name, image):
    kind = KINDS[name]
    if not is_there(kind, shop.server):
        pytest.skip(f"{kind.type} is {kind.only[0]}'s")
    table, column = f"kinds_{image}", f"`{name}`"
    first, second = (expected(value, shop.server) for value in kind.recorded)
    log = left(
        shop,
        table,
        f"DELETE FROM {table}",
        f"INSERT INTO {table} (id, {column}) VALUES (1, {kind.values[0]})",
        f"UPDATE {table} SET {column} = {kind.values[0]}",
        f"UPDATE {table} SET {column} = {column}",
        f"UPDATE {table} SET {column} = {kind.values[1]}",
        f"UPDATE {table} SET {column} = NULL",
        f"UPDATE {table} SET {column} = {kind.values[0]}",
        f"DELETE FROM {table}",
    )
    log = [record for record in log if record.action != "DELETE" or record is log[-1]]
    insert, *updates, delete = log
    assert same(insert.new_values[name], first)
    assert [update.changed_columns for update in updates] == [[name]] * 3
    pairs = [(update.old_values[name], update.new_values[name]) for update in updates]
    assert all(map(same, sum(pairs, ()), (first, second, second, None, None, first))), pairs
    assert same(delete.old_values[name], first)
    if image == "changed":
        assert {tuple(update.new_values) for update in updates} == {(name,)}
    else:
        assert len(updates[0].new_values) == 1 + sum(is_there(kind, shop.server) for kind in KINDS.values())


def same(found: t.Any, value: t.Any) -> bool:
    """Tell whether a record's value is this one and of its type; fractions come as they are written."""
    return (float(found) if isinstance(value, float) else found) == value and not isinstance(found, bool)


def test_json_that_is_only_written_differently_is_a_change_where_the_server_keeps_it_apart(shop):
    log = left(
        shop,
        "kinds_full",
        """INSERT INTO kinds_full (id, json) VALUES (5, '{"b": 1, "a": [1, 2]}')""",
        """UPDATE kinds_full SET json = '{"a":[1,2],   "b":1}' WHERE id = 5""",
    )
    assert len(log) == (2 if shop.server.is_mariadb else 1)
    assert log[-1].new_values["json"] == {"a": [1, 2], "b": 1}


@pytest.mark.parametrize("image", IMAGES)
def test_json_as_deep_as_the_server_takes_it_is_recorded_as_text(shop, image):
    depth = expected(DEEPEST, shop.server)
    document, shallower = (("[" * levels) + ("]" * levels) for levels in (depth, depth - 1))
    table = f"kinds_{image}"
    log = left(
        shop,
        table,
        f"INSERT INTO {table} (id, json) VALUES (6, '{shallower}')",
        f"UPDATE {table} SET json = '{document}' WHERE id = 6",
    )
    assert [record.new_values["json"] for record in log] == [json.loads(shallower), document]


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_column_may_have_any_name(shop, name, image):
    table = f"odd_{image}"
    log = left(
        shop,
        table,
        f"REPLACE INTO {table} (id, {quote_name(name)}) VALUES ({ODD_NAMES.index(name)}, 'a')",
        f"UPDATE {table} SET {quote_name(name)} = 'b' WHERE id = {ODD_NAMES.index(name)}",
    )
    assert (log[1].old_values[name], log[1].new_values[name], log[1].changed_columns) == ("a", "b", [name])
    assert set(log[0].new_values) == {"id", *ODD_NAMES}
    assert len(log[1].new_values) == (1 if image == "changed" else len(ODD_NAMES) + 1)


@pytest.mark.parametrize("image", IMAGES)
def test_generated_and_invisible_columns_are_recorded(shop, image):
    table = f"made_{image}"
    insert, update, unseen = left(
        shop,
        table,
        f"INSERT INTO {table} (id, n, hidden) VALUES (1, 2, 9)",
        f"UPDATE {table} SET n = 3",
        f"UPDATE {table} SET hidden = 8",
    )
    assert insert.new_values == {"id": 1, "n": 2, "hidden": 9, "twice": 4, "thrice": 6}
    assert update.old_values == insert.new_values
    assert sorted(update.changed_columns) == ["n", "thrice", "twice"]
    assert (update.new_values["twice"], update.new_values["thrice"]) == (6, 9)
    assert unseen.changed_columns == ["hidden"]


def test_three_hundred_columns(shop):
    insert, update = left(
        shop, "wide_full", "INSERT INTO wide_full (id, c8) VALUES (1, 5)", "UPDATE wide_full SET c299 = 1"
    )
    row = {"id": 1, **{f"c{number}": None for number in range(1, WIDE)}, "c8": 5}
    assert (insert.new_values, update.changed_columns, update.new_values) == (row, ["c299"], {**row, "c299": 1})


def test_a_timestamp_is_the_instant_that_is_stored_whatever_the_sessions_clock_shows(shop, summer_time):
    """At the end of daylight saving time the clock shows 02:30 twice, and both are one value to it."""
    shop.execute("INSERT INTO moments_full VALUES (1, '2024-10-27 00:30:00', '2024-10-27 01:30:00')")
    with shop.connect() as connection:
        # With NO_ZERO_DATE, MySQL itself would copy what its clock shows and not the instant.
        fetch(connection, f"SET sql_mode = '', time_zone = '{summer_time}'")
        fetch(connection, "INSERT INTO moments_full VALUES (2, '2024-07-01 12:00:00', NULL)")
        fetch(connection, "UPDATE moments_full SET at = other WHERE id = 1")
        shown = fetch(connection, "SELECT DATE_FORMAT(at, '%H:%i') FROM moments_full WHERE id = 1")
    _first, summer, update = records(shop, "moments_full")
    assert shown == [("02:30",)]
    assert summer.new_values["at"] == "2024-07-01 10:00:00"
    assert (update.old_values["at"], update.new_values["at"]) == ("2024-10-27 00:30:00", "2024-10-27 01:30:00")
    assert update.changed_columns == ["at"]


@pytest.fixture
def summer_time(shop: Schema) -> t.Iterator[str]:
    """Return a time zone of our own, for servers that have no named ones: from 31 March to 27 October 2024 UTC+2."""
    name, number = f"dbfleet/{shop.name}", 90001
    tables = ("time_zone", "time_zone_name", "time_zone_transition", "time_zone_transition_type")

    def remove() -> None:
        for table in tables:
            shop.execute(f"DELETE FROM mysql.{table} WHERE Time_zone_id = {number}")

    remove()
    shop.execute(f"INSERT INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES ({number}, 'N')")
    shop.execute(f"INSERT INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('{name}', {number})")
    shop.execute(
        "INSERT INTO mysql.time_zone_transition_type (Time_zone_id, Transition_type_id, `Offset`, Is_DST, Abbreviation)"
        f" VALUES ({number}, 0, 3600, 0, 'W'), ({number}, 1, 7200, 1, 'S')"
    )
    shop.execute(
        "INSERT INTO mysql.time_zone_transition (Time_zone_id, Transition_time, Transition_type_id) "
        f"VALUES ({number}, 1711846800, 1), ({number}, 1729990800, 0)"
    )
    yield name
    remove()
