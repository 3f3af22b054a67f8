# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whatever a table holds, and whatever it is called, comes back exactly, or is named as what cannot."""

from __future__ import annotations

from auditing import rollout, wanted
from undoing import audited, kinds, now, psql, refusal, rows, undo

ODD = 'Weird ""Table" {x} %s; --\nend'


#: Type -> a value that is hard to write down, and another one. Column names are the types.
VALUES = {
    "bigint": ("-9223372036854775808", "9007199254740993"),
    "numeric": ("1.00", "1.0"),
    "numeric(38, 20)": ("123456789012345678.12345678901234567890", "'NaN'"),
    "real": ("0.1", "'NaN'"),
    "double precision": ("0.1::float8 + 0.2::float8", "'-Infinity'"),
    "money": ("'1234.56'::numeric::money", "'-0.01'::numeric::money"),
    "text": ("e'it''s \\\\ \"x\" {} %s \\n\\x01\\u00e9\\U0001F600'", "''"),
    "char(5)": ("'abc'", "'abcd'"),
    '"char"': ("'a'", "'b'"),
    "bytea": (r"'\x00ff5c27'", r"'\x'"),
    "date": ("'0044-03-15 BC'", "'infinity'"),
    "timetz": ("'23:59:59.5+05:30'", "'00:00-15:59'"),
    "timestamp": ("'2024-02-03 04:05:06.789'", "'-infinity'"),
    "timestamptz": ("'2024-02-03 04:05:06.789+00'", "'4713-01-01 00:00+00 BC'"),
    "interval": ("'1 year -2 mons 3 days -04:05:06.7'", "'-1 year'"),
    "boolean": ("true", "false"),
    "bit varying": ("B'101'", "B''"),
    "inet": ("'192.0.2.1/24'", "'2001:db8::1'"),
    "uuid": ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "NULL"),
    "xml": ("'<a>&amp;</a>'", "'<b/>'"),
    "json": ("""'{"a": [1, 1.00, null]}'""", "'[]'"),
    "jsonb": ("""'{"a": [1, 1.00, null, "\\u00e9"]}'""", """'"null"'"""),
    "tsvector": ("'a:1A fat:2B cat'", "'rat'"),
    "point": ("'(0.1,1e300)'", "'(NaN,Infinity)'"),
    "box": ("'(1,1),(0,0.3)'", "'(2,2),(0,0.15)'"),
    "polygon": ("'((0,0),(1,0.1),(1,0))'", "'((0,0),(1,1))'"),
    "numrange": ("'[1.0,1.00]'", "'empty'"),
    "tstzmultirange": ("'{[2024-02-03 04:05+00,2024-05-06 07:08+00)}'", "'{}'"),
    "text[]": ("""'{"a,b","NULL",NULL,"x\\"y"}'""", "'{{a},{b}}'"),
    "json[]": ("""ARRAY['{"a": 1}'::json]""", "'{}'"),
    "bytea[]": (r"ARRAY['\x00ff'::bytea]", "'{}'"),
    "float8[]": ("ARRAY[0.1::float8 + 0.2::float8]", "'{NaN}'"),
    "regclass": ("'public.\"Odd table\"'", "'pg_catalog.pg_class'"),
    "mood": ("'so \"glad\"'", "'sad'"),
    "even": ("2", "4"),
    "place": ('\'(a,"2024-02-03 04:05:06+00","(1,2)")\'', "'(,,)'"),
    "place[]": ("ARRAY[ROW('a', '2024-02-03 04:05:06+00', NULL)::place]", "'{}'"),
    "citext": ("'Straße'", "'STRASSE'"),
    "ltree": ("'a.b.c'", "'a'"),
}
#: Settings of a session that would read values in another way, were they not written to be read in one way only.
FOREIGN = (
    "-c TimeZone=Asia/Kathmandu -c DateStyle=German,DMY -c IntervalStyle=sql_standard -c bytea_output=escape "
    "-c extra_float_digits=-15 -c search_path=pg_catalog -c backslash_quote=off"
)


def test_values_of_every_type_come_back_exactly(trail):
    names = ", ".join('"' + name.replace('"', '""') + '"' for name in VALUES)
    columns = ", ".join('"{}" {}'.format(name.replace('"', '""'), name) for name in VALUES)
    first, second = (", ".join(pair[number] for pair in VALUES.values()) for number in (0, 1))
    at = audited(
        trail,
        f"""
        CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION hstore;
        CREATE TABLE "Odd table" (id int);
        CREATE TYPE mood AS ENUM ('sad', 'so "glad"');
        CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0);
        CREATE TYPE place AS (name text, at timestamptz, spot point);
        CREATE TABLE kinds (id ltree PRIMARY KEY, opaque hstore, {columns});
        """,
        f"INSERT INTO kinds (id, {names}) VALUES ('a', {first}), ('b', {second}), ('c', {first}), ('d', {second})",
        "INSERT INTO kinds (id) VALUES ('e')",
    )
    before = rows(trail, "kinds")
    trail.execute("DELETE FROM kinds WHERE id IN ('a', 'b')")
    assert undo(trail, "public.kinds", to=at)["statements"][0].startswith(
        "-- not restored: opaque (recorded as its cast"
    )
    trail.execute(f"UPDATE kinds SET ({names}) = ({first}) WHERE id IN ('d', 'e')")
    trail.execute(f"UPDATE kinds SET ({names}) = ({second}) WHERE id = 'c'")
    trail.execute(f"INSERT INTO kinds (id, {names}) VALUES ('f', {first}), ('g', {second})")
    statements = undo(trail, "public.kinds", to=at)["statements"]
    assert "0" not in psql(trail, statements, FOREIGN).replace("INSERT 0 1", "").split()
    assert rows(trail, "kinds") == before
    assert undo(trail, "public.kinds", to=at)["statements"] == []


MASKED = """
CREATE TABLE staff (id int PRIMARY KEY, name text, ssn text, pin text, note text NOT NULL DEFAULT 'n');
CREATE TABLE strict (id int PRIMARY KEY, name text, ssn text NOT NULL);
"""


def test_what_the_log_does_not_hold_is_named_and_left_alone(trail):
    at = audited(
        trail,
        MASKED,
        "INSERT INTO staff VALUES (1, 'Ann', '1', '11', 'x'), (2, 'Bob', '2', '22', 'y'), (3, 'Cat', '3', '33', 'z')",
        "INSERT INTO strict VALUES (1, 'Ann', '1'), (2, 'Bob', '2')",
        hash=["ssn"],
        redact=["pin"],
        exclude=["note"],
    )
    trail.execute("DELETE FROM staff WHERE id = 1")
    trail.execute("UPDATE staff SET name = 'Eve', ssn = '9' WHERE id = 2")
    trail.execute("UPDATE staff SET pin = '99' WHERE id = 3")
    result = undo(trail, "public.staff", to=at, execute=True)
    update, insert = result["statements"]
    assert update.startswith("-- not restored: ssn (hashed)\nUPDATE")
    assert insert.startswith("-- not restored: ssn (hashed), pin (redacted), note (not recorded)\nINSERT")
    reason = "only what the log does not hold was changed: pin (redacted)"
    assert result["skipped"] == [{"record_id": "3", "reason": reason}]
    assert rows(trail, "staff") == ["(1,Ann,,,n)", "(2,Bob,9,22,y)", "(3,Cat,3,99,z)"]
    trail.execute("DELETE FROM strict WHERE id = 1")
    trail.execute("INSERT INTO strict VALUES (3, 'Dan', 'secret number')")
    result = undo(trail, "public.strict", to=at)
    reason = "an INSERT needs what the log does not hold: ssn (hashed)"
    assert result["skipped"] == [{"record_id": "1", "reason": reason}]
    assert "secret number" not in str(result)


def test_keys_of_every_form(trail):
    long = "k" * 2500
    at = audited(
        trail,
        """
        CREATE TABLE pairs (region text, number numeric(5, 2), name text, PRIMARY KEY (number, region));
        CREATE TABLE long_keys (id text PRIMARY KEY, name text);
        ALTER TABLE long_keys ALTER COLUMN id SET STORAGE PLAIN;
        CREATE TABLE moved (id int PRIMARY KEY, name text, secret text);
        """,
        "INSERT INTO pairs VALUES ('eu', 1.50, 'a'), ('us', 1.50, 'b')",
        f"INSERT INTO long_keys VALUES ('{long}', 'a'), ('short', 'b')",
        "INSERT INTO moved VALUES (1, 'a', 's1'), (2, 'b', 's2'), (3, 'c', 's3')",
        redact=["secret"],
    )
    before = {name: rows(trail, name) for name in ("pairs", "long_keys", "moved")}
    trail.execute("DELETE FROM pairs WHERE region = 'us'")
    trail.execute("UPDATE pairs SET name = 'x'")
    trail.execute("UPDATE long_keys SET name = 'x'")
    trail.execute("UPDATE moved SET id = 10, name = 'z' WHERE id = 1")
    trail.execute("UPDATE moved SET name = 'y' WHERE id = 10")
    trail.execute("UPDATE moved SET id = 1 WHERE id = 2")
    result = undo(trail, "public.pairs", to=at, execute=True)
    assert kinds(result) == [('[1.50, "eu"]', "changed", "UPDATE"), ('[1.50, "us"]', "deleted", "INSERT")]
    result = undo(trail, "public.long_keys", to=at, execute=True)
    assert {entry["record_id"][:7] for entry in result["records"]} == {"short", "sha256:"}
    assert {name: rows(trail, name) for name in ("pairs", "long_keys")} == {
        name: before[name] for name in ("pairs", "long_keys")
    }
    undo(trail, "public.moved", to=at, execute=True, record_ids=["3"])
    trail.execute("UPDATE moved SET id = 30 WHERE id = 3")
    result = undo(trail, "public.moved", to=at, record_ids=["3", "30"], execute=True)
    assert kinds(result) == [("3", "changed", "UPDATE")]
    assert "\"id\" = '3'" in result["statements"][0]
    assert "(3,c,s3)" in rows(trail, "moved")


def test_odd_names_partitions_inheritance_identity_and_generated_columns(trail):
    odd = '"' + ODD.replace('"', '""') + '"'
    at = audited(
        trail,
        f"""
        CREATE TABLE {odd} ({odd} int PRIMARY KEY, "a b" text);
        CREATE TABLE parts (id int, day date, name text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
        CREATE TABLE mother (id int PRIMARY KEY, name text);
        CREATE TABLE daughter (PRIMARY KEY (id)) INHERITS (mother);
        CREATE TABLE made (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int, twice int
          GENERATED ALWAYS AS (n * 2) STORED);
        """,
        f"INSERT INTO {odd} VALUES (1, 'a'), (2, 'b')",
        "INSERT INTO parts VALUES (1, '2026-02-03', 'a'), (2, '2026-02-03', 'b')",
        "INSERT INTO mother VALUES (1, 'mother')",
        "INSERT INTO daughter VALUES (1, 'daughter')",
        "INSERT INTO made (n) VALUES (5), (6)",
    )
    tables = {ODD: odd, "parts": "parts", "mother": "ONLY mother", "daughter": "daughter", "made": "made"}
    before = {name: rows(trail, place) for name, place in tables.items()}
    trail.execute(f"DELETE FROM {odd} WHERE \"a b\" = 'a'")
    trail.execute(f"UPDATE {odd} SET \"a b\" = 'x'")
    trail.execute("DELETE FROM parts WHERE id = 1")
    trail.execute("UPDATE parts SET name = 'x'")
    trail.execute("UPDATE mother SET name = name || '!'")
    trail.execute("DELETE FROM made WHERE n = 5")
    trail.execute("UPDATE made SET n = 7")
    for name in tables:
        undo(trail, f"public.{name}", to=at, execute=True)
    assert {name: rows(trail, place) for name, place in tables.items()} == before
    assert "is a partition of public.parts" in refusal(trail, "public.parts_1", to=at)


def test_a_policy_that_records_only_one_column(trail):
    trail.execute("CREATE TABLE pay (id int PRIMARY KEY, name text, salary int)")
    rollout(trail, policies=[wanted("public.pay", columns={"only": ["salary"]}, update_image="changed")])
    trail.execute("INSERT INTO pay VALUES (1, 'Ann', 10)")
    at = now(trail)
    trail.execute("UPDATE pay SET salary = 20, name = 'Eve'")
    undo(trail, "public.pay", to=at, execute=True)
    assert rows(trail, "pay") == ["(1,Eve,10)"]
