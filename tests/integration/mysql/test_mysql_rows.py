# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every way in which a statement changes rows is on record as what it really did."""

from __future__ import annotations

import contextlib

import pymysql
import pytest
from mysql_auditing import audit, changes, records
from mysql_databases import Schema, fetch


@pytest.fixture
def people(shop: Schema) -> Schema:
    """Return a database with one audited table."""
    shop.execute("CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(20), age INT)")
    audit(shop)
    return shop


def test_insert_update_and_delete_are_recorded_with_both_images(people):
    people.execute("INSERT INTO people VALUES (1, 'ann', 30)")
    people.execute("UPDATE people SET name = 'bea' WHERE id = 1")
    people.execute("DELETE FROM people WHERE id = 1")
    before, after = {"id": 1, "name": "ann", "age": 30}, {"id": 1, "name": "bea", "age": 30}
    assert changes(people, "people") == [("INSERT", None, before), ("UPDATE", before, after), ("DELETE", after, None)]
    assert [record.changed_columns for record in records(people)] == [None, ["name"], None]
    assert {record.record_id for record in records(people)} == {"1"}


def test_a_record_names_the_login_and_the_client_and_not_the_definer(people):
    user = people.create_account()
    people.execute("INSERT INTO people VALUES (1, 'ann', 30)", user=user)
    (record,) = records(people)
    assert (record.db_user, record.changed_by) == (user, user)
    assert record.client_ip == people.value("SELECT SUBSTRING_INDEX(USER(), '@', -1)", user=user)
    assert record.client_ip


def test_every_row_of_a_statement_has_its_record(people):
    people.execute("INSERT INTO people VALUES (1, 'ann', 1), (2, 'bea', 2), (3, 'cat', 3)")
    people.execute("UPDATE people SET age = age + 1 WHERE id > 1")
    assert [(record.action, record.record_id) for record in records(people)] == [
        *(("INSERT", "1"), ("INSERT", "2"), ("INSERT", "3")),
        *(("UPDATE", "2"), ("UPDATE", "3")),
    ]


def test_an_update_that_changes_nothing_leaves_no_record(people):
    people.execute("INSERT INTO people VALUES (1, 'ann', NULL)")
    people.execute("UPDATE people SET name = 'ann', age = NULL")
    assert len(records(people)) == 1


@pytest.mark.parametrize(("old", "new"), [("a", "A"), ("a", "a "), ("a", "á"), ("", None), (None, "")])
def test_a_change_that_a_collation_hides_is_recorded(people, old, new):
    people.execute("INSERT INTO people VALUES (1, %s, 1)", old)
    people.execute("UPDATE people SET name = %s", new)
    assert changes(people, "people")[1:] == [
        ("UPDATE", {"id": 1, "name": old, "age": 1}, {"id": 1, "name": new, "age": 1})
    ]


def test_what_is_rolled_back_leaves_no_record(people):
    connection = people.connect(autocommit=False)
    connection.cursor().execute("INSERT INTO people VALUES (1, 'ann', 1)")
    connection.rollback()
    assert records(people) == []


def test_a_composite_key_is_a_list_and_a_table_without_a_key_has_none(shop):
    shop.execute("CREATE TABLE positions (invoice INT, line VARCHAR(5), amount INT, PRIMARY KEY (invoice, line))")
    shop.execute("CREATE TABLE notes (text VARCHAR(20))")
    shop.execute("CREATE TABLE codes (code VARCHAR(5) NOT NULL UNIQUE, other INT UNIQUE)")
    result = audit(shop)
    assert f"{shop.name}.notes has no key" in str(result["warnings"])
    shop.execute("INSERT INTO positions VALUES (7, 'a', 1)")
    shop.execute("INSERT INTO notes VALUES ('x')")
    shop.execute("INSERT INTO codes VALUES ('c1', NULL)")
    assert [record.record_id for record in records(shop)] == ['[7, "a"]', None, "c1"]


def test_replace_is_recorded_as_the_delete_and_insert_that_it_is(people):
    people.execute("INSERT INTO people VALUES (1, 'ann', 1)")
    people.execute("REPLACE INTO people VALUES (1, 'bea', 2), (2, 'cat', 3)")
    assert [record.action for record in records(people)] == ["INSERT", "DELETE", "INSERT", "INSERT"]


def test_an_upsert_is_recorded_as_the_insert_or_update_that_it_became(people):
    for age in (1, 2):
        people.execute("INSERT INTO people VALUES (1, 'ann', %s) ON DUPLICATE KEY UPDATE age = VALUES(age)", age)
    people.execute("INSERT IGNORE INTO people VALUES (1, 'zoe', 9)")
    assert [(record.action, record.new_values["age"]) for record in records(people)] == [("INSERT", 1), ("UPDATE", 2)]


def test_changes_of_several_tables_by_one_statement_are_recorded(people):
    people.execute("CREATE TABLE cars (id INT PRIMARY KEY, owner INT)")
    audit(people)
    people.execute("INSERT INTO people VALUES (1, 'ann', 1)")
    people.execute("INSERT INTO cars VALUES (5, 1)")
    people.execute("UPDATE people JOIN cars ON cars.owner = people.id SET people.age = 2, cars.owner = 3")
    people.execute("DELETE people, cars FROM people, cars WHERE people.id = 1 AND cars.id = 5")
    assert [record.action for record in records(people, "cars")] == ["INSERT", "UPDATE", "DELETE"]
    assert [record.action for record in records(people, "people")] == ["INSERT", "UPDATE", "DELETE"]


def test_load_data_is_recorded_row_by_row(people, tmp_path):
    if people.value("SELECT @@global.local_infile") != 1:
        people.execute("SET GLOBAL local_infile = 1")
    file = tmp_path / "people.tsv"
    file.write_text("1\tann\t1\n2\tbea\t2\n", encoding="utf-8")
    with people.connect(local_infile=True).cursor() as cursor:
        cursor.execute(f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE people")
    assert [record.new_values["name"] for record in records(people)] == ["ann", "bea"]


def test_rows_of_partitions_are_recorded(shop):
    shop.execute(
        "CREATE TABLE sales (id INT, year INT, PRIMARY KEY (id, year)) PARTITION BY RANGE (year) "
        "(PARTITION p1 VALUES LESS THAN (2026), PARTITION p2 VALUES LESS THAN MAXVALUE)"
    )
    audit(shop)
    shop.execute("INSERT INTO sales VALUES (1, 2025)")
    shop.execute("UPDATE sales SET year = 2027")
    shop.execute("DELETE FROM sales PARTITION (p2)")
    assert [record.action for record in records(shop)] == ["INSERT", "UPDATE", "DELETE"]


def test_a_session_with_lock_tables_is_recorded_or_refused(people):
    """MariaDB may refuse it with 1442: it takes a cached handle of the log for one that the statement uses."""
    connection = people.connect()
    fetch(connection, "LOCK TABLES people WRITE")
    if people.server.is_mariadb:
        with contextlib.suppress(pymysql.err.OperationalError):
            fetch(connection, "INSERT INTO people VALUES (1, 'ann', 1)")
    else:
        fetch(connection, "INSERT INTO people VALUES (1, 'ann', 1)")
    fetch(connection, "UNLOCK TABLES")
    assert len(records(people)) == people.value("SELECT COUNT(*) FROM people")


def test_the_time_cannot_be_backdated(people):
    with people.connect().cursor() as cursor:
        cursor.execute("SET timestamp = 1000000000.5")
        cursor.execute("INSERT INTO people VALUES (1, 'ann', 1)")
    assert (
        people.value(
            "SELECT ABS(TIMESTAMPDIFF(SECOND, changed_at, UTC_TIMESTAMP(6))) FROM audit.audit_log "
            "WHERE schema_name = %s",
            people.name,
        )
        < 60
    )


def test_the_time_is_utc_whatever_the_session_thinks(people):
    with people.connect().cursor() as cursor:
        cursor.execute("SET time_zone = '+09:00'")
        cursor.execute("INSERT INTO people VALUES (1, 'ann', 1)")
    (record,) = records(people)
    now = people.value("SELECT UTC_TIMESTAMP(6)")
    assert abs((now - record.changed_at).total_seconds()) < 60


def test_triggers_of_the_application_keep_working_and_ours_come_last(shop):
    shop.execute("CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(20))")
    shop.execute("CREATE TABLE counted (number INT)")
    shop.execute("INSERT INTO counted VALUES (0)")
    shop.execute("CREATE TRIGGER shout BEFORE INSERT ON people FOR EACH ROW SET NEW.name = UPPER(NEW.name)")
    shop.execute("CREATE TRIGGER tally AFTER INSERT ON people FOR EACH ROW UPDATE counted SET number = number + 1")
    audit(shop)
    shop.execute("INSERT INTO people VALUES (1, 'ann')")
    assert shop.value("SELECT number FROM counted") == 1
    assert records(shop, "people")[0].new_values["name"] == "ANN"
    order = shop.execute(
        "SELECT trigger_name FROM information_schema.triggers WHERE event_object_schema = %s "
        "AND event_object_table = 'people' AND event_manipulation = 'INSERT' AND action_timing = 'AFTER' "
        "ORDER BY action_order",
        shop.name,
    )
    assert order[0] == ("tally",)
    assert order[1][0].startswith("dbfleet_audit_insert_")
    assert len(order) == 2
