# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rollouts on servers that are at work: replacing, drift, locks, other people's triggers, amounts of work."""

from __future__ import annotations

import contextlib
import threading
import time

import pymysql
import pytest
import running
from cutting import MysqlCutter
from mysql_auditing import audit, records, refusal, rollout, verification
from mysql_databases import Schema, connect, fetch


@pytest.fixture
def people(shop: Schema) -> Schema:
    """Return a database with one audited table."""
    shop.execute("CREATE TABLE people (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(20))")
    audit(shop)
    return shop


class Writers:
    """Sessions that insert rows into a table, each in transactions of its own, until they are told to end."""

    def __init__(self, schema: Schema, table: str, number: int = 4) -> None:
        self.schema, self.table = schema, table
        self.made = 0
        self.slowest = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _number in range(number)]
        self.errors: list[Exception] = []

    def _work(self) -> None:
        with contextlib.closing(connect(self.schema.server, database=self.schema.name)) as connection:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    fetch(connection, f"INSERT INTO {self.table} (name) VALUES ('x')")
                except pymysql.err.MySQLError as error:
                    self.errors.append(error)
                    return
                with self._lock:
                    self.made += 1
                    self.slowest = max(self.slowest, time.monotonic() - began)

    def __enter__(self) -> Writers:
        """Let them begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Let them end."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_replacing_triggers_under_four_writers_loses_nothing_and_doubles_nothing(people):
    with Writers(people, "people") as writers:
        for number in range(20):
            audit(people, classification=f"version {number}")
    assert writers.errors == []
    assert writers.made > 100
    rows = people.execute(
        "SELECT COUNT(*), COUNT(DISTINCT record_id), COUNT(DISTINCT policy_id) FROM audit.audit_log "
        "WHERE schema_name = %s",
        people.name,
    )[0]
    assert rows[:2] == (writers.made, writers.made)
    assert rows[2] >= 20


def test_a_table_that_stays_locked_is_left_as_it_was_and_the_rest_is_done(people):
    people.execute("CREATE TABLE others (id INT PRIMARY KEY)")
    people.execute("INSERT INTO people (name) VALUES ('ann')")
    holder = people.connect(autocommit=False)
    fetch(holder, "SELECT * FROM people")
    began = time.monotonic()
    result = audit(people, classification="secret", lock_timeout=1, lock_retries=1, may_fail=True)
    assert result.failed
    assert time.monotonic() - began < 20
    assert [entry["table"] for entry in result["failed_tables"]] == [f"{people.name}.people"]
    assert "locked by another session" in result.msg
    assert result["changed_tables"] == [f"{people.name}.others"]
    holder.rollback()
    people.execute("INSERT INTO people (name) VALUES ('bea')")
    assert len(records(people, "people")) == 2
    assert audit(people, classification="secret")["changed_tables"] == [f"{people.name}.people"]


def test_others_go_on_writing_while_a_long_transaction_keeps_us_from_a_table(people):
    people.execute("CREATE TABLE others (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(20))")
    audit(people)
    holder = people.connect(autocommit=False)
    fetch(holder, "INSERT INTO others (name) VALUES ('long')")
    # The server tells when a transaction began to the second: only from two on it is surely a long one.
    time.sleep(2.1)
    with Writers(people, "people", 2) as writers:
        options = {"purge": False, "lock_timeout": 2, "lock_retries": 1, "may_fail": True}
        result = audit(people, "people", classification="secret", **options)
    holder.rollback()
    assert writers.errors == []
    if people.server.is_mariadb:
        # Locking a table locks no other there.
        assert not result.failed
    else:
        assert [entry["table"] for entry in result["failed_tables"]] == [f"{people.name}.people"]
    assert writers.slowest < 1.8
    assert len(records(people, "people")) == writers.made


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ("ADD COLUMN age INT", "is not the one of this policy and these columns"),
        ("DROP COLUMN name", "is not the one of this policy and these columns"),
        ("RENAME COLUMN name TO title", "is not the one of this policy and these columns"),
        ("MODIFY COLUMN name VARBINARY(20)", "is not the one of this policy and these columns"),
    ],
)
def test_a_changed_column_is_reported_and_repaired(people, change, detail):
    people.execute(f"ALTER TABLE people {change}")
    policy = {"tables": [f"{people.name}.*"]}
    found = verification(people, policy)["problems"]
    assert {problem["type"] for problem in found} == {"altered"}
    assert all(detail in problem["detail"] for problem in found)
    assert rollout(people, policy)["changed_tables"] == [f"{people.name}.people"]
    people.execute("INSERT INTO people (id) VALUES (7)")
    columns = people.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = 'people'",
        people.name,
    )
    assert set(records(people)[-1].new_values) == {name for (name,) in columns}
    assert not rollout(people, policy).changed


@pytest.mark.parametrize("change", ["DROP COLUMN name", "RENAME COLUMN name TO title"])
def test_a_column_that_is_gone_stops_writes_or_is_itself_on_record(people, change):
    """With abort, no change goes through without its record; with warn, the failure is the record."""
    people.execute(f"ALTER TABLE people {change}")
    with pytest.raises(pymysql.err.OperationalError) as caught:
        people.execute("INSERT INTO people (id) VALUES (1)")
    assert caught.value.args[0] == 1054
    assert "name" in caught.value.args[1]
    assert people.value("SELECT COUNT(*) FROM people") == 0
    audit(people)
    people.execute("CREATE TABLE calm (id INT PRIMARY KEY, name VARCHAR(20))")
    audit(people, on_failure="warn")
    people.execute(f"ALTER TABLE calm {change}")
    people.execute("INSERT INTO calm (id) VALUES (1)")
    (record,) = records(people, "calm")
    assert (record.action, record.new_values["event"], record.new_values["operation"]) == (
        *("EVENT", "audit_failure", "INSERT"),
    )
    assert record.new_values["code"] == 1054


def test_an_added_column_is_missing_from_records_until_the_next_run(people):
    people.execute("ALTER TABLE people ADD COLUMN age INT")
    people.execute("INSERT INTO people VALUES (1, 'ann', 30)")
    assert records(people)[0].new_values == {"id": 1, "name": "ann"}


def test_a_renamed_table_keeps_its_records_and_is_brought_in_line(people):
    people.execute("RENAME TABLE people TO persons")
    people.execute("INSERT INTO persons (name) VALUES ('ann')")
    assert records(people)[0].table_name == "people"
    assert audit(people)["changed_tables"] == [f"{people.name}.persons"]
    people.execute("INSERT INTO persons (name) VALUES ('bea')")
    assert [record.table_name for record in records(people)] == ["people", "persons"]


def test_other_peoples_triggers_are_never_touched(people):
    people.execute("CREATE TABLE counted (number INT)")
    people.execute("CREATE TRIGGER theirs AFTER UPDATE ON people FOR EACH ROW INSERT INTO counted VALUES (1)")
    before = people.execute("SHOW CREATE TRIGGER theirs")
    for policies in ([{"tables": [f"{people.name}.*"], "update_image": "changed"}], []):
        rollout(people, *policies)
    assert people.execute("SHOW CREATE TRIGGER theirs") == before
    left = people.execute("SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = %s", people.name)
    assert left == [("theirs",)]


def test_a_table_that_no_policy_names_loses_its_triggers_only_with_purge(people):
    people.execute("CREATE TABLE others (id INT PRIMARY KEY)")
    kept = audit(people, "others", purge=False)
    assert kept["changed_tables"] == [f"{people.name}.others"]
    assert audit(people, "others").changed
    people.execute("INSERT INTO people (name) VALUES ('ann')")
    assert records(people) == []


def test_check_mode_shows_the_statements_of_the_real_run_and_executes_none(people):
    policy = {"tables": [f"{people.name}.*"], "update_image": "changed"}
    predicted = rollout(people, policy, check_mode=True, diff_mode=True)
    again = rollout(people, policy, check_mode=True)
    assert predicted["statements"] == again["statements"] != []
    assert "-- " in predicted["diff"]["after"]
    done = rollout(people, policy)
    assert done["statements"] == predicted["statements"]
    last = rollout(people, policy)
    assert (last.changed, last["statements"]) == (False, [])


def test_two_runs_at_once_do_the_work_once(shop):
    for number in range(20):
        shop.execute(f"CREATE TABLE t{number} (id INT PRIMARY KEY)")
    arguments = {**shop.login, "policies": [{"tables": [f"{shop.name}.*"]}]}
    processes = [running.start_module("mysql_audit_triggers", **arguments) for _number in range(2)]
    results = [running.finish_module(process, may_fail=False) for process in processes]
    assert sum(len(result["changed_tables"]) for result in results) == 20
    shop.execute("INSERT INTO t3 VALUES (1)")
    assert len(records(shop, "t3")) == 1


def test_foreign_keys_that_change_audited_rows_unseen_are_warned_of(shop):
    shop.execute("CREATE TABLE parents (id INT PRIMARY KEY)")
    shop.execute(
        "CREATE TABLE children (id INT PRIMARY KEY, parent INT, "
        "CONSTRAINT of_parent FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE)"
    )
    result = audit(shop)
    assert "of_parent (ON DELETE CASCADE, from parents)" in str(result["warnings"])
    shop.execute("INSERT INTO parents VALUES (1)")
    shop.execute("INSERT INTO children VALUES (1, 1)")
    shop.execute("DELETE FROM parents")
    assert [record.action for record in records(shop, "children")] == ["INSERT"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"operations": ["insert", "truncate"]}, "no trigger sees TRUNCATE here"),
        ({"capture": "statement"}, "triggers here see single rows only"),
        ({"auto_attach": True}, "nothing here runs when a table is created"),
        ({"columns": {"redact": ["nmae"]}}, "column 'nmae' is in none of its tables"),
        ({"when": "NEW.nmae = 1"}, "Unknown column 'NEW.nmae'"),
        ({"when": "NEW.name = OLD.name"}, "`when` does not fit INSERT on"),
        ({"when": "NEW.name = 'a) THEN END IF; DROP TABLE people; --"}, "`when` does not fit"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_changed(people, keys, words):
    before = people.execute("SELECT COUNT(*) FROM audit.policy")
    assert words in refusal(people, {"tables": [f"{people.name}.*"], **keys})
    assert people.execute("SELECT COUNT(*) FROM audit.policy") == before


def test_a_view_is_skipped_by_a_wildcard_and_refused_by_name(people):
    people.execute("CREATE VIEW seen AS SELECT * FROM people")
    assert audit(people)["skipped_tables"] == [
        {"table": f"{people.name}.seen", "reason": "a view: audit the tables below it"}
    ]
    assert "which cannot be audited: a view" in refusal(people, {"tables": [f"{people.name}.seen"]})


def test_an_engine_without_transactions_is_warned_of(shop):
    shop.execute("CREATE TABLE quick (id INT PRIMARY KEY) ENGINE = MyISAM")
    assert "engine MyISAM knows no transactions" in str(audit(shop)["warnings"])


def test_exceptions_are_left_out_and_reported(people):
    entry = {"table": f"{people.name}.people", "reason": "load", "approved_by": "dpo", "until": "2020-01-31"}
    result = audit(people, exceptions=[entry])
    assert result["exceptions"] == [{**entry, "expired": True}]
    people.execute("INSERT INTO people (name) VALUES ('ann')")
    assert records(people) == []


def test_round_trips_do_not_grow_with_the_number_of_tables(shop):
    policy = {"tables": [f"{shop.name}.*"]}
    counts = []
    for first, last in ((0, 5), (5, 105)):
        for number in range(first, last):
            shop.execute(f"CREATE TABLE t{number} (id INT PRIMARY KEY, name VARCHAR(20))")
        for _run in range(2):
            cutter = MysqlCutter(shop.server)
            running.run_module("mysql_audit_triggers", policies=[policy], **cutter.login)
            cutter.close()
            counts.append(cutter.statements)
    assert counts[1] > 5
    assert counts[:2] == counts[2:]
