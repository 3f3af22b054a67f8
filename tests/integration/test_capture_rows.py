# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every way in which a statement changes rows of an ordinary table is on record as what it really did."""

from __future__ import annotations

import io
import json
import typing as t

import pytest
from auditing import changes, records, rollout, trail_database, wanted
from databases import Database, fetch
from local_postgresql import LocalPostgresql

# Each test has tables of its own, all of them audited by one rollout.
TABLES = """
CREATE TABLE plain (id int PRIMARY KEY, name text);
CREATE TABLE emptied (id int PRIMARY KEY);
CREATE TABLE parent_cut (id int PRIMARY KEY);
CREATE TABLE child_cut (id int PRIMARY KEY, parent int REFERENCES parent_cut);
CREATE TABLE loaded (id int PRIMARY KEY, name text);
CREATE TABLE merged (id int PRIMARY KEY, amount int);
CREATE TABLE upserted (id int PRIMARY KEY, name text);
CREATE TABLE idle (id int PRIMARY KEY, name text, document json, tags text[]);
CREATE TABLE money (id int PRIMARY KEY, amount numeric);
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE TABLE typed (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tags text[], document jsonb, plain json, moods mood[],
  price numeric(10, 2), doubled numeric GENERATED ALWAYS AS (price * 2) STORED,
  at timestamptz, day date, span interval, raw bytea, ratio float8);
CREATE TABLE boss (id int PRIMARY KEY);
CREATE TABLE owned (id int PRIMARY KEY, boss int REFERENCES boss ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE lent (id int PRIMARY KEY, boss int REFERENCES boss ON DELETE SET NULL ON UPDATE CASCADE);
CREATE TABLE two_keys (region text, number int, name text, PRIMARY KEY (region, number));
CREATE TABLE no_key (name text);
CREATE TABLE unique_key (code text NOT NULL UNIQUE, name text);
CREATE TABLE renumbered (id int PRIMARY KEY, name text);
CREATE TABLE replicated (id int PRIMARY KEY);
CREATE TABLE reshaped (id int PRIMARY KEY, name text, gone text);
CREATE TABLE nested (id int PRIMARY KEY);
CREATE TABLE "Odd ""x"" name" ("the id" int PRIMARY KEY, "a,b" text);
CREATE TABLE rolled_back (id int PRIMARY KEY);
"""


@pytest.fixture(scope="module")
def shop(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database whose tables are all audited by a policy without any option."""
    with trail_database(pg) as database:
        database.execute(TABLES)
        rollout(database, policies=[wanted("public.*")])
        yield database


def test_insert_update_and_delete_are_recorded_with_both_images(shop):
    shop.execute("INSERT INTO plain VALUES (1, 'ann')")
    shop.execute("UPDATE plain SET name = 'eve'")
    shop.execute("DELETE FROM plain")
    ann, eve = {"id": 1, "name": "ann"}, {"id": 1, "name": "eve"}
    assert changes(shop, "plain") == [("INSERT", None, ann), ("UPDATE", ann, eve), ("DELETE", eve, None)]
    assert [record.changed_columns for record in records(shop, "plain")] == [None, ["name"], None]
    assert {(record.schema_name, record.record_id) for record in records(shop, "plain")} == {("public", "1")}


def test_truncate_is_one_record_without_images(shop):
    shop.execute("INSERT INTO emptied VALUES (1), (2)")
    shop.execute("TRUNCATE emptied")
    assert changes(shop, "emptied")[2:] == [("TRUNCATE", None, None)]
    assert records(shop, "emptied")[2].record_id is None


def test_truncate_cascade_is_recorded_for_every_table_it_reaches(shop):
    shop.execute("INSERT INTO parent_cut VALUES (1)")
    shop.execute("INSERT INTO child_cut VALUES (1, 1)")
    shop.execute("TRUNCATE parent_cut CASCADE")
    assert [record.action for record in records(shop, "parent_cut")] == ["INSERT", "TRUNCATE"]
    assert [record.action for record in records(shop, "child_cut")] == ["INSERT", "TRUNCATE"]


def test_copy_records_every_row(shop):
    with shop.connect().cursor() as cursor:
        cursor.copy_expert("COPY loaded FROM STDIN", io.StringIO("1\tann\n2\t\\N\n3\teve\n"))
    rows = [{"id": 1, "name": "ann"}, {"id": 2, "name": None}, {"id": 3, "name": "eve"}]
    assert changes(shop, "loaded") == [("INSERT", None, row) for row in rows]


def test_merge_is_recorded_as_what_it_did_to_each_row(shop):
    if shop.value("SHOW server_version_num") < "150000":
        pytest.skip("MERGE came with PostgreSQL 15")
    shop.execute("INSERT INTO merged VALUES (1, 10), (2, 20), (3, 30)")
    shop.execute(
        "MERGE INTO merged m USING (VALUES (1, 11), (2, 0), (3, 30), (4, 40)) s (id, amount) ON m.id = s.id "
        "WHEN MATCHED AND s.amount = 0 THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET amount = s.amount "
        "WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.amount)"
    )
    done = sorted((record.record_id, record.action) for record in records(shop, "merged")[3:])
    assert done == [("1", "UPDATE"), ("2", "DELETE"), ("4", "INSERT")]


def test_upserts_are_recorded_as_the_insert_or_update_they_became(shop):
    upsert = "INSERT INTO upserted VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET name = excluded.name"
    shop.execute(upsert, 1, "ann")
    shop.execute(upsert, 1, "eve")
    shop.execute(upsert, 1, "eve")
    shop.execute("INSERT INTO upserted VALUES (1, 'zoe') ON CONFLICT DO NOTHING")
    ann, eve = {"id": 1, "name": "ann"}, {"id": 1, "name": "eve"}
    assert changes(shop, "upserted") == [("INSERT", None, ann), ("UPDATE", ann, eve)]


def test_an_update_that_changes_nothing_is_silent(shop):
    shop.execute("""INSERT INTO idle VALUES (1, 'ann', '{"a": 1}', '{x,y}')""")
    shop.execute("UPDATE idle SET name = name, document = document, tags = tags")
    shop.execute("""UPDATE idle SET document = '{"a": 1}', tags = ARRAY['x', 'y']""")
    assert [record.action for record in records(shop, "idle")] == ["INSERT"]


def test_a_value_of_the_same_size_but_another_scale_is_a_change(shop):
    shop.execute("INSERT INTO money VALUES (1, 1.0)")
    shop.execute("UPDATE money SET amount = 1.00")
    assert records(shop, "money")[1].changed_columns == ["amount"]
    texts = "SELECT old_values ->> 'amount', new_values ->> 'amount' FROM audit.audit_log WHERE table_name = 'money'"
    assert shop.execute(texts + " AND action = 'UPDATE'") == [("1.0", "1.00")]


def test_values_of_every_type_are_recorded_the_same_in_every_session(shop):
    session = shop.connect()
    fetch(
        session,
        "SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601'; "
        "SET bytea_output = 'escape'; SET extra_float_digits = -5; SET quote_all_identifiers = on",
    )
    fetch(
        session,
        """INSERT INTO typed (tags, document, plain, moods, price, at, day, span, raw, ratio) VALUES
        ('{a,"b c",NULL}', '{"k": [1, null]}', '[true]', '{sad,glad}', 1.50, '2026-03-04 05:06:07.5+00',
         '2026-03-04', '1 day 02:00:00', '\\x00ff', 0.1)""",
    )
    expected = {
        "id": 1,
        "tags": ["a", "b c", None],
        "document": {"k": [1, None]},
        "plain": [True],
        "moods": ["sad", "glad"],
        "price": 1.5,
        "doubled": 3.0,
        "at": "2026-03-04T05:06:07.5+00:00",
        "day": "2026-03-04",
        "span": "1 day 02:00:00",
        "raw": "\\x00ff",
        "ratio": 0.1,
    }
    assert changes(shop, "typed") == [("INSERT", None, expected)]


def test_what_a_foreign_key_does_to_other_tables_is_recorded(shop):
    shop.execute("INSERT INTO boss VALUES (1), (2)")
    shop.execute("INSERT INTO owned VALUES (10, 1), (20, 2)")
    shop.execute("INSERT INTO lent VALUES (10, 1)")
    shop.execute("DELETE FROM boss WHERE id = 1")
    shop.execute("UPDATE boss SET id = 3 WHERE id = 2")
    assert changes(shop, "owned")[2:] == [
        ("DELETE", {"id": 10, "boss": 1}, None),
        ("UPDATE", {"id": 20, "boss": 2}, {"id": 20, "boss": 3}),
    ]
    assert changes(shop, "lent")[1:] == [("UPDATE", {"id": 10, "boss": 1}, {"id": 10, "boss": None})]
    assert records(shop, "lent")[1].changed_columns == ["boss"]


def test_a_composite_key_is_a_json_array_in_the_order_of_the_key(shop):
    shop.execute("INSERT INTO two_keys (number, region) VALUES (7, 'eu, \"west\"')")
    assert json.loads(records(shop, "two_keys")[0].record_id) == ['eu, "west"', 7]


def test_a_table_without_a_key_has_no_record_id(shop):
    shop.execute("INSERT INTO no_key VALUES ('ann')")
    assert [(record.record_id, record.new_values) for record in records(shop, "no_key")] == [(None, {"name": "ann"})]


def test_a_unique_column_that_cannot_be_null_serves_as_the_key(shop):
    shop.execute("INSERT INTO unique_key VALUES ('x1', 'ann')")
    assert records(shop, "unique_key")[0].record_id == "x1"


def test_a_changed_key_shows_the_old_and_the_new_one(shop):
    shop.execute("INSERT INTO renumbered VALUES (1, 'ann')")
    shop.execute("UPDATE renumbered SET id = 2")
    record = records(shop, "renumbered")[1]
    assert (record.old_values["id"], record.new_values["id"], record.record_id) == (1, 2, "2")
    assert record.changed_columns == ["id"]


def test_changes_in_a_replica_session_are_recorded(shop):
    session = shop.connect()
    fetch(session, "SET session_replication_role = replica")
    fetch(session, "INSERT INTO replicated VALUES (1)")
    fetch(session, "UPDATE replicated SET id = 2")
    fetch(session, "DELETE FROM replicated")
    fetch(session, "TRUNCATE replicated")
    assert [record.action for record in records(shop, "replicated")] == ["INSERT", "UPDATE", "DELETE", "TRUNCATE"]


def test_columns_may_come_go_and_change_their_names(shop):
    shop.execute("ALTER TABLE reshaped ADD COLUMN fresh int; ALTER TABLE reshaped RENAME name TO title")
    shop.execute("ALTER TABLE reshaped DROP COLUMN gone")
    shop.execute("INSERT INTO reshaped VALUES (1, 'ann', 5)")
    assert changes(shop, "reshaped") == [("INSERT", None, {"id": 1, "title": "ann", "fresh": 5})]


def test_names_of_tables_and_columns_may_hold_anything(shop):
    shop.execute('INSERT INTO "Odd ""x"" name" VALUES (1, \'x\')')
    (record,) = records(shop, 'Odd "x" name')
    assert (record.record_id, record.new_values) == ("1", {"the id": 1, "a,b": "x"})


def test_a_change_that_is_rolled_back_leaves_no_record(shop):
    session = shop.connect(autocommit=False)
    fetch(session, "INSERT INTO rolled_back VALUES (1)")
    fetch(session, "SAVEPOINT s")
    fetch(session, "INSERT INTO rolled_back VALUES (2)")
    fetch(session, "ROLLBACK TO s")
    session.commit()
    fetch(session, "INSERT INTO rolled_back VALUES (3)")
    session.rollback()
    assert [record.record_id for record in records(shop, "rolled_back")] == ["1"]


def test_changes_made_by_a_function_and_by_triggers_are_recorded(shop):
    shop.execute(
        "CREATE FUNCTION renumber() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.id := NEW.id * 10; "
        "RETURN NEW; END$$"
    )
    shop.execute("CREATE TRIGGER renumber BEFORE INSERT ON nested FOR EACH ROW EXECUTE FUNCTION renumber()")
    shop.execute("DO $$BEGIN INSERT INTO nested SELECT g FROM generate_series(1, 2) g; END$$")
    assert changes(shop, "nested") == [("INSERT", None, {"id": 10}), ("INSERT", None, {"id": 20})]


def test_a_json_value_that_jsonb_cannot_hold_breaks_no_write(trail):
    """A defined fallback keeps the record."""
    trail.execute("CREATE TABLE odd (id int PRIMARY KEY, document json)")
    rollout(trail, policies=[wanted("public.odd")])
    trail.execute("INSERT INTO odd VALUES (1, %s)", '"\\u0000"')
    assert [(record.action, record.record_id) for record in records(trail, "odd")] == [("INSERT", "1")]
