# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Values of every type are recorded exactly, the same in every session, however large they are."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import typing as t

import pytest
from auditing import records, rollout, trail_database, wanted
from databases import Database, fetch
from local_postgresql import LocalPostgresql

CAPTURES = ("row", "statement")
EXTENSIONS = ("citext", "hstore", "ltree")

#: type -> two values, as SQL that means the same under every setting.
VALUES: dict[str, tuple[str, str]] = {
    "smallint": ("-32768", "32767"),
    "integer": ("-2147483648", "2147483647"),
    "bigint": ("-9223372036854775808", "9007199254740993"),
    "numeric": ("1.0", "1.00"),
    "numeric(38, 20)": ("123456789012345678.12345678901234567890", "'NaN'"),
    "decimal": ("'NaN'", "'-Infinity'"),
    "real": ("0.1", "'NaN'"),
    "double precision": ("0.1::float8 + 0.2::float8", "'-Infinity'"),
    "money": ("'1234.56'::numeric::money", "'-0.01'::numeric::money"),
    "text": ("'it''s \\ \"x\" {} %s'", "e'\\x01\\t\\u00e9\\U0001F600'"),
    "varchar(5)": ("'abc'", "''"),
    "char(5)": ("'abc'", "'abcd'"),
    '"char"': ("'a'", "'b'"),
    "name": ("'a name'", "'Another'"),
    "bytea": (r"'\x00ff5c27'", r"'\x'"),
    "date": ("'2024-02-03'", "'0044-03-15 BC'"),
    "time": ("'23:59:59.999999'", "'24:00'"),
    "timetz": ("'23:59:59.5+05:30'", "'00:00-15:59'"),
    "timestamp": ("'2024-02-03 04:05:06.789'", "'infinity'"),
    "timestamptz": ("'2024-02-03 04:05:06.789+00'", "'4713-01-01 00:00+00 BC'"),
    "interval": ("'1 year -2 mons 3 days -04:05:06.7'", "'0'"),
    "boolean": ("true", "false"),
    "bit(3)": ("B'101'", "B'010'"),
    "bit varying": ("B''", "B'1'"),
    "inet": ("'192.0.2.1/24'", "'2001:db8::1'"),
    "cidr": ("'192.0.2.0/24'", "'2001:db8::/32'"),
    "macaddr": ("'08:00:2b:01:02:03'", "'08:00:2b:01:02:04'"),
    "macaddr8": ("'08:00:2b:01:02:03:04:05'", "'08:00:2b:01:02:03:04:06'"),
    "uuid": ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'00000000-0000-0000-0000-000000000000'"),
    "xml": ("'<a>&amp;</a>'", "'<b/>'"),
    "jsonb": ("""'{"a": [1, 1.0, 1.00, null]}'""", """'"null"'"""),
    "jsonpath": ("'$.a ? (@ > 1)'", "'strict $'"),
    "tsvector": ("'a:1A fat:2B cat'", "'rat'"),
    "tsquery": ("'fat & (rat | !cat)'", "'cat'"),
    "point": ("'(0.1,1e300)'", "'(NaN,Infinity)'"),
    "line": ("'{1,2,3}'", "'{0.1,2,3}'"),
    "lseg": ("'[(0,0),(1,0.1)]'", "'[(0,0),(1,2)]'"),
    "box": ("'(1,1),(0,0.3)'", "'(2,2),(0,0)'"),
    "path": ("'[(0,0),(1,0.1)]'", "'((0,0),(1,1))'"),
    "polygon": ("'((0,0),(1,0.1),(1,0))'", "'((0,0),(1,1))'"),
    "circle": ("'<(0.1,0),3>'", "'<(0,0),0>'"),
    "int4range": ("'[1,5)'", "'empty'"),
    "int8range": ("'[1,)'", "'(,)'"),
    "numrange": ("'[1.0,1.00]'", "'(0,1.5)'"),
    "tsrange": ("'[2024-02-03 04:05,infinity)'", "'empty'"),
    "tstzrange": ("'[2024-02-03 04:05+00,2024-05-06 07:08+00)'", "'(,)'"),
    "daterange": ("'[2024-02-03,2024-03-04)'", "'[0044-03-15 BC,)'"),
    "int4multirange": ("'{[1,3),[5,7)}'", "'{}'"),
    "nummultirange": ("'{[1.0,2.0)}'", "'{}'"),
    "tstzmultirange": ("'{[2024-02-03 04:05+00,2024-05-06 07:08+00)}'", "'{}'"),
    "datemultirange": ("'{[2024-02-03,2024-03-04)}'", "'{}'"),
    "integer[]": ("'[0:1][2:3]={{1,2},{3,NULL}}'", "'{}'"),
    "text[]": ("""'{"a,b","NULL",NULL,"x\\"y"}'""", "'{{a},{b}}'"),
    "timestamptz[]": ("'{2024-02-03 04:05:06+00,infinity}'", "'{}'"),
    "bytea[]": ("ARRAY['\\x00ff'::bytea]", "ARRAY[''::bytea]"),
    "interval[]": ("'{1 day 02:03:04,NULL}'", "'{1 mon}'"),
    "float8[]": ("ARRAY[0.1::float8 + 0.2::float8]", "'{NaN}'"),
    "regclass": ("'public.\"Odd table\"'", "'pg_catalog.pg_class'"),
    "regtype": ("'public.mood'", "'int4'"),
    "regproc": ("'pg_catalog.now'", "'pg_catalog.clock_timestamp'"),
    "oid": ("4294967295", "1"),
    "pg_lsn": ("'16/B374D848'", "'0/0'"),
    "xid8": ("'18446744073709551615'", "'1'"),
    "xid": ("'4294967295'", "'1'"),
    "mood": ("'sad'", "'so \"glad\"'"),
    "even": ("2", "4"),
    "place": ('\'(a,"2024-02-03 04:05:06+00","(1,2)")\'', "'(,,)'"),
    "place[]": ("ARRAY[ROW('a', '2024-02-03 04:05:06+00', NULL)::place]", "'{}'"),
    "citext": ("'Straße'", "'STRASSE'"),
    "hstore": ("'a=>1, b=>NULL'", "''"),
    "ltree": ("'a.b.c'", "'a'"),
    "unset": ("NULL", "1"),
    "reset": ("1", "NULL"),
}
#: What the log says of the first value where reading it back is not the measure: jsonb has no place for an array's
#: lower bounds, and hstore comes with a cast to json that is not what it reads.
RECORDED: dict[str, t.Any] = {"integer[]": [[1, 2], [3, None]], "hstore": {"a": "1", "b": None}}

PREPARE = """
CREATE TABLE "Odd table" (id int);
CREATE TYPE mood AS ENUM ('sad', 'so "glad"');
CREATE DOMAIN even AS int CHECK (VALUE %% 2 = 0);
CREATE DOMAIN unset AS int; CREATE DOMAIN reset AS int;
CREATE TYPE place AS (name text, at timestamptz, spot point);
""".replace("%%", "%")

SESSIONS: tuple[dict[str, str], ...] = (
    {},
    {
        "TimeZone": "Asia/Kathmandu",
        "DateStyle": "German, DMY",
        "IntervalStyle": "sql_standard",
        "bytea_output": "escape",
        "extra_float_digits": "-15",
        "quote_all_identifiers": "on",
        "search_path": "public, pg_catalog",
        "xmlbinary": "hex",
        "default_text_search_config": "german",
    },
    {
        "TimeZone": "America/St_Johns",
        "DateStyle": "SQL, MDY",
        "IntervalStyle": "iso_8601",
        "extra_float_digits": "3",
        "search_path": "",
    },
)
KEY = "at timestamptz, span interval, raw bytea, ratio float8, day date"


def quoted(name: str) -> str:
    """Return the name of a type's column as it is written in SQL."""
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture(scope="module")
def shop(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database with a table of all types, twice audited and once not."""
    with trail_database(pg) as database:
        for extension in EXTENSIONS:
            database.execute(f"CREATE EXTENSION {extension}")
        database.execute(PREPARE)
        columns = ", ".join(f"{quoted(name)} {name}" for name in VALUES)
        keyed = f"id int, {KEY}, {columns}, hashed timestamptz, PRIMARY KEY (id, at, span, raw, ratio, day)"
        database.execute(f"CREATE TABLE source ({keyed})")
        for number in (0, 1):
            values = ", ".join(pair[number] for pair in VALUES.values())
            database.execute(
                f"INSERT INTO source SELECT {number}, '2024-02-03 04:05+00', '1 day 02:00', '\\x00ff', 1e-7, "
                f"'2024-02-03', {values}, '2024-02-0{number + 1} 00:00+00'"
            )
        database.execute("CREATE TABLE documents (id int PRIMARY KEY, document json, other json, n int)")
        for capture in CAPTURES:
            database.execute(f"CREATE TABLE {capture} (LIKE source INCLUDING ALL)")
            database.execute(f"CREATE TABLE {capture}_documents (LIKE documents INCLUDING ALL)")
        policies = [
            wanted(f"public.{capture}", f"public.{capture}_documents", capture=capture, columns={"hash": ["hashed"]})
            for capture in CAPTURES
        ]
        rollout(database, policies=policies)
        yield database


def text_of_records(db: Database, capture: str, number: int) -> list[tuple[t.Any, ...]]:
    """Return what a session of this number left, as text that does not depend on ours."""
    return db.execute(
        "SELECT action, record_id, old_values::text, new_values::text, changed_columns::text FROM audit.audit_log "
        "WHERE table_name = %s AND application_name = %s ORDER BY id",
        capture,
        f"session {number}",
    )


@pytest.fixture(scope="module")
def written(shop: Database) -> Database:
    """Return the database after each session has made the same changes to both tables."""
    names = ", ".join(map(quoted, VALUES))
    for number, settings in enumerate(SESSIONS):
        session = shop.connect(application_name=f"session {number}")
        for name, value in settings.items():
            fetch(session, "SELECT pg_catalog.set_config(%s, %s, false)", name, value)
        for capture in CAPTURES:
            fetch(session, f"INSERT INTO public.{capture} SELECT * FROM public.source WHERE id = 0")
            changed = f"SELECT hashed, {names} FROM public.source WHERE id = 1"
            fetch(session, f"UPDATE public.{capture} SET (hashed, {names}) = ({changed})")
            fetch(session, f"DELETE FROM public.{capture}")
    return shop


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize("number", range(1, len(SESSIONS)))
def test_no_setting_of_a_session_shows_in_its_records(written, capture, number):
    plain = text_of_records(written, capture, 0)
    assert [row[0] for row in plain] == ["INSERT", "UPDATE", "DELETE"]
    assert text_of_records(written, capture, number) == plain


def test_both_captures_record_the_same(written):
    assert text_of_records(written, "row", 0) == text_of_records(written, "statement", 0)


@pytest.mark.parametrize("capture", CAPTURES)
def test_records_give_back_the_very_rows(written, capture):
    """The server reads every value out of the record again, byte for byte what was in the table."""
    insert, update, delete = [record for record in records(written, capture) if record.application_name == "session 0"]
    images = [
        (insert, "new_values", 0),
        (update, "old_values", 0),
        (update, "new_values", 1),
        (delete, "old_values", 1),
    ]
    for record, image, row in images:
        for name in VALUES.keys() - RECORDED.keys():
            column = quoted(name)
            found, original = written.execute(
                f"SELECT r.{column}::text, s.{column}::text "
                "FROM audit.audit_log AS l, source AS s, "
                f"jsonb_populate_record(NULL::source, jsonb_build_object(%s, l.{image} -> %s)) AS r "
                "WHERE l.id = %s AND s.id = %s",
                *(name, name, record.id, row),
            )[0]
            assert found == original, (name, image)
    assert {name: insert.new_values[name] for name in RECORDED} == RECORDED


@pytest.mark.parametrize("capture", CAPTURES)
def test_changed_columns_are_all_that_were_changed(written, capture):
    update = records(written, capture)[1]
    assert update.changed_columns == sorted([*VALUES, "hashed"], key=str.encode)


def test_the_key_is_in_the_record_as_every_session_would_find_it(written):
    """ISO dates in UTC, hexadecimal bytes, shortest exact floats: as PostgreSQL's documentation writes them."""
    key = '[0, "2024-02-03T04:05:00+00:00", "1 day 02:00:00", "\\\\x00ff", 1e-07, "2024-02-03"]'
    assert {record.record_id for record in records(written, "row")} == {key.replace("1e-07", "0.0000001")}


@pytest.mark.parametrize("capture", CAPTURES)
def test_negative_zero_is_a_change_on_record(shop, capture):
    """There is no negative zero in jsonb, so the values are equal; that somebody wrote the row is not lost."""
    before = len(records(shop, capture))
    shop.execute(f"INSERT INTO {capture} SELECT * FROM source WHERE id = 0")
    shop.execute(f'UPDATE {capture} SET "double precision" = 0.0')
    shop.execute(f'UPDATE {capture} SET "double precision" = -0.0::float8')
    shop.execute(f"DELETE FROM {capture}")
    assert [r.action for r in records(shop, capture)[before:]] == ["INSERT", "UPDATE", "UPDATE", "DELETE"]


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize(
    ("written_text", "recorded"),
    [
        (r'{"a": 1, "a": 2}', {"a": 2}),
        (r'{"a":   [1.0,  1e3]}', {"a": [1.0, 1000]}),
        (r'"a\u0000b"', r"a\u0000b"),
        (r'{"k\u0000": "\\u0000\\\u0000", "t": "\t"}', {r"k\u0000": "\\u0000\\\\u0000", "t": "\t"}),
        (r'"half a pair: \ud83d"', r"half a pair: \ud83d"),
    ],
)
def test_json_that_jsonb_does_not_take_keeps_its_record(shop, capture, written_text, recorded):
    """What jsonb cannot hold is kept as it is written; the other columns of the row are not touched by that."""
    table = f"{capture}_documents"
    other = '{"é": "\\u00e9 \\\\u0041 \\""}'
    before = len(records(shop, table))
    shop.execute(f"INSERT INTO {table} VALUES (1, %s, %s, 0)", written_text, other)
    shop.execute(f"UPDATE {table} SET n = 1")
    shop.execute(f"DELETE FROM {table}")
    insert, update, delete = records(shop, table)[before:]
    row = {"id": 1, "document": recorded, "other": {"é": 'é \\u0041 "'}, "n": 0}
    assert (insert.new_values, update.old_values, delete.old_values) == (row, row, {**row, "n": 1})
    assert (update.changed_columns, {insert.record_id, update.record_id, delete.record_id}) == (["n"], {"1"})


@pytest.mark.parametrize("capture", CAPTURES)
def test_null_and_jsons_null_are_one_in_the_log_but_the_change_is_on_record(shop, capture):
    table = f"{capture}_documents"
    before = len(records(shop, table))
    shop.execute(f"INSERT INTO {table} VALUES (2, NULL, 'null', 0)")
    shop.execute(f"UPDATE {table} SET document = 'null', other = NULL")
    shop.execute(f"DELETE FROM {table}")
    row = {"id": 2, "document": None, "other": None, "n": 0}
    found = [(record.action, record.old_values, record.new_values) for record in records(shop, table)[before:]]
    assert found == [("INSERT", None, row), ("UPDATE", row, row), ("DELETE", row, None)]


PATTERN, REPEATS = "00ff", 70 * 1024 * 1024


def digest(text: str) -> dict[str, t.Any]:
    """Return what stands in the log in place of a text that is too large for it."""
    return {"omitted": "too large", "characters": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.thorough
def test_bytes_beyond_jsonbs_limit_are_recorded_by_length_and_digest(trail, capture):
    trail.execute("CREATE TABLE files (id int PRIMARY KEY, content bytea, document json, name text)")
    trail.execute("ALTER TABLE files ALTER content SET STORAGE EXTERNAL")
    rollout(trail, policies=[wanted("public.files", capture=capture)])
    content = "SELECT string_agg(decode(repeat(%s, %s), 'hex'), '') FROM generate_series(1, 10)"
    trail.execute(f"INSERT INTO files SELECT 1, ({content}), NULL, 'a'", PATTERN, REPEATS // 10)
    assert trail.value("SELECT octet_length(content) FROM files") == REPEATS * 2
    (insert,) = records(trail, "files")
    row = {"id": 1, "content": digest("\\x" + PATTERN * REPEATS), "document": None, "name": "a"}
    assert (insert.record_id, insert.new_values) == ("1", row)
    if capture == "row":  # once: a minute of the server's time
        trail.execute("UPDATE files SET name = e'b\\x01'")
        update = records(trail, "files")[-1]
        assert (update.record_id, update.old_values, update.new_values) == ("1", row, {**row, "name": "b\x01"})
        assert update.changed_columns == ["name"]


@pytest.mark.parametrize("capture", CAPTURES)
def test_a_large_value_next_to_an_escape_that_jsonb_does_not_take_is_digested_as_it_was(trail, capture):
    trail.execute("CREATE TABLE files (id int PRIMARY KEY, content text, document json)")
    rollout(trail, policies=[wanted("public.files", capture=capture)])
    text = 'a\\b\\\\u0041"\t\x01é' * 200_000
    document = '["' + "x\\u0000\\\\" * 300_000 + '"]'
    trail.execute("INSERT INTO files VALUES (1, %s, %s)", text, document)
    (record,) = records(trail, "files")
    assert record.new_values == {"id": 1, "content": digest(text), "document": digest(document)}


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.thorough
def test_what_is_short_as_jsonb_and_long_as_text_is_digested(trail, capture):
    """Nobody could read or seal a row whose text does not fit into 1 GB."""
    trail.execute("CREATE TABLE documents (id int PRIMARY KEY, document jsonb)")
    rollout(trail, policies=[wanted("public.documents", capture=capture)])
    number = "1e100000"
    trail.execute("INSERT INTO documents SELECT 1, jsonb_agg(%s::jsonb) FROM generate_series(1, 2800)", number)
    (record,) = records(trail, "documents")
    text = "[" + ", ".join(["1" + "0" * 100000] * 2800) + "]"
    assert record.new_values == {"id": 1, "document": digest(text)}


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.thorough
def test_a_hundred_megabytes_of_text_fit_into_a_record(trail, capture):
    trail.execute("CREATE TABLE files (id int PRIMARY KEY, content text, n int)")
    rollout(trail, policies=[wanted("public.files", capture=capture)])
    trail.execute("INSERT INTO files SELECT 1, repeat('0123456789', 10000000), 1")
    trail.execute("UPDATE files SET n = 2")
    same = "(l.{0} ->> 'content') = (SELECT content FROM files)"
    query = f"SELECT {same.format('new_values')}, {same.format('old_values')} FROM audit.audit_log AS l "
    assert trail.execute(query + "WHERE action <> 'DDL' ORDER BY id") == [(True, None), (True, True)]


@pytest.fixture(scope="module")
def german() -> t.Iterator[LocalPostgresql]:
    """Return a server that knows the locale de_DE, made for it alone, so that the machine need not have it."""
    if not shutil.which("localedef") or not pathlib.Path("/usr/share/i18n/locales/de_DE").exists():
        pytest.skip("localedef and the source of de_DE are not here (Debian: package locales)")
    with tempfile.TemporaryDirectory(prefix="dbfleet-locales-") as scratch:
        locales = pathlib.Path(scratch)
        subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", str(locales / "de_DE.utf8")], check=True)
        for path in pathlib.Path("/usr/lib/locale").glob("C.*"):
            (locales / path.name).symlink_to(path)
        server = LocalPostgresql.create(f"{scratch}.server", while_pid=os.getpid())
        try:
            wrapper = locales / "postgres"
            wrapper.write_text(f'#!/bin/sh\nLOCPATH={locales} exec {server.binaries}/postgres "$@"\n')
            wrapper.chmod(0o755)
            locales.chmod(0o755)
            server.stop()
            done = server._pg_ctl("start", "-w", "-p", wrapper, "-l", server.log)
            assert done.returncode == 0, done.stdout
            yield server
        finally:
            server.remove()


@pytest.mark.parametrize("capture", CAPTURES)
def test_money_is_recorded_alike_whatever_the_sessions_locale(german, capture):
    with trail_database(german) as db:
        db.execute("CREATE TABLE prices (price money PRIMARY KEY, offers money[])")
        rollout(db, policies=[wanted("public.prices", capture=capture)])
        db.execute("SET lc_monetary TO 'de_DE.UTF-8'")
        db.execute("INSERT INTO prices VALUES ('1.234,56 €', '{\"1,50 €\"}')")
        assert db.value("SELECT price::text FROM prices") == "1.234,56 €"
        (record,) = records(db, "prices")
        assert (record.record_id, record.new_values) == ("$1,234.56", {"price": "$1,234.56", "offers": ["$1.50"]})
