# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Partitions of the log: made ahead, kept up by the server itself, filled up late without loss."""

from __future__ import annotations

import datetime
import threading
import time
import typing as t

import pymysql
import pytest
import running
from mysql_auditing import audit, install_trail, records
from mysql_databases import MysqlServer, Schema, fetch

CHANGED_AT = "changed_at, action, changed_by, db_user, schema_name"


@pytest.fixture
def shop(without_trail: MysqlServer) -> t.Iterator[Schema]:
    """Return a database on a server of this test's own, with a trail that has no partitions yet."""
    with Schema(without_trail) as made:
        running.run_module("mysql_audit_trail", **made.login)
        yield made


def partitions(schema: Schema, **options: t.Any) -> running.ModuleResult:
    return running.run_module("mysql_audit_partitions", **{**schema.login, **options})


def names(schema: Schema) -> list[str]:
    rows = schema.execute(
        "SELECT partition_name FROM information_schema.partitions "
        "WHERE table_schema = 'audit' AND table_name = 'audit_log_data' ORDER BY partition_ordinal_position"
    )
    return [name for (name,) in rows]


def add_record(schema: Schema, moment: str) -> int:
    schema.execute(f"INSERT INTO audit.audit_log_data ({CHANGED_AT}) VALUES (%s, 'EVENT', 'x', 'x', 'x')", moment)
    return int(schema.value("SELECT MAX(id) FROM audit.audit_log_data"))


def months(first: datetime.date, number: int) -> list[str]:
    index = first.year * 12 + first.month - 1
    return [f"p{(index + step) // 12}_{(index + step) % 12 + 1:02}" for step in range(number)]


def today(schema: Schema) -> datetime.date:
    return t.cast("datetime.date", schema.value("SELECT UTC_DATE()"))


def test_the_current_month_and_three_more_are_made_and_a_second_run_does_nothing(shop):
    assert names(shop) == ["p_future"]
    result = partitions(shop)
    assert names(shop) == ["p_past", *months(today(shop), 4), "p_future"]
    assert [entry["name"] for entry in result["partitions"]] == names(shop)
    assert (result["partitions"][0]["from"], result["partitions"][-1]["to"]) == ("MINVALUE", "MAXVALUE")
    again = partitions(shop)
    assert (again.changed, again["statements"]) == (False, [])


def test_check_mode_predicts_the_statements_and_makes_nothing(shop):
    predicted = partitions(shop, check_mode=True)
    assert names(shop) == ["p_future"]
    assert partitions(shop)["statements"] == predicted["statements"]


def test_weeks_and_days_and_a_change_between_them(shop):
    partitions(shop, interval="day", ahead=2)
    days = [(today(shop) + datetime.timedelta(days=step)).strftime("p%Y_%m_%d") for step in range(3)]
    assert names(shop) == ["p_past", *days, "p_future"]
    partitions(shop, interval="week", ahead=3)
    assert set(days) < set(names(shop))
    assert names(shop)[-2].startswith(f"p{(today(shop) + datetime.timedelta(weeks=3)).isocalendar()[0]}_w")
    assert not partitions(shop, interval="week", ahead=3).changed


def test_a_record_of_any_time_has_a_place(shop):
    partitions(shop)
    for moment in ("1999-01-01", "2026-11-30 23:59:59.999999", "2999-12-31"):
        add_record(shop, moment)
    assert shop.value("SELECT COUNT(*) FROM audit.audit_log_data") == 3


def test_rows_in_the_catch_all_move_into_their_periods_with_their_ids_while_writers_wait(shop):
    shop.execute("CREATE TABLE people (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(20))")
    audit(shop)
    shop.execute("INSERT INTO people (name) VALUES ('ann')")
    stop, made, errors = threading.Event(), [], []

    def write() -> None:
        connection = shop.connect()
        try:
            while not stop.is_set():
                made.append(fetch(connection, "INSERT INTO people (name) VALUES ('x')"))
        except pymysql.err.MySQLError as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _number in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert partitions(shop)["changed"]
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    ids = [record.id for record in records(shop)]
    assert len(ids) == len(set(ids)) == len(made) + 1
    assert shop.value("SELECT COUNT(*) FROM audit.audit_log_data PARTITION (p_future)") == 0


@pytest.mark.parametrize("restart", [False, pytest.param(True, marks=pytest.mark.own_server)])
def test_ids_never_repeat_after_the_newest_partition_was_dropped(shop, restart):
    partitions(shop)
    last = add_record(shop, "2999-01-01")
    shop.execute("ALTER TABLE audit.audit_log_data TRUNCATE PARTITION p_future")
    newest = months(today(shop), 4)[-1]
    shop.execute(f"ALTER TABLE audit.audit_log_data DROP PARTITION {newest}")
    assert add_record(shop, "2026-11-01") > last
    if restart:
        shop.server.restart()
    with Schema(shop.server) as after:
        assert add_record(after, "2026-11-02") > last + 1


def test_the_event_scheduler_keeps_partitions_up(shop):
    """By the event's own statement, at a moment half a year from now."""
    partitions(shop)
    body, definer, status = shop.execute(
        "SELECT event_definition, definer, status FROM information_schema.events WHERE event_schema = 'audit'"
    )[0]
    assert (definer, status) == ("audit_owner@localhost", "ENABLED")
    assert body.rstrip(";") == "CALL `audit`.maintain_partitions()"
    shop.execute("CALL audit.maintain_partitions_at(%s)", f"{today(shop).year + 1}-06-15")
    assert f"p{today(shop).year + 1}_09" in names(shop)
    before = names(shop)
    shop.execute("CALL audit.maintain_partitions()")
    assert names(shop) == before


def test_the_event_runs_although_nobody_can_log_in_as_its_definer(shop):
    partitions(shop)
    newest = names(shop)[-2]
    shop.execute(f"ALTER TABLE audit.audit_log_data DROP PARTITION {newest}")
    shop.execute("ALTER EVENT audit.maintain_partitions ON SCHEDULE EVERY 1 SECOND")
    deadline = time.monotonic() + 20
    while newest not in names(shop):
        assert time.monotonic() < deadline, names(shop)
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("definer", "change"),
    [
        ("CURRENT_USER", "ENABLE"),
        ("audit_owner@localhost", "DISABLE"),
        ("audit_owner@localhost", "DO SELECT 1"),
        ("audit_owner@localhost", "ON SCHEDULE EVERY 1 YEAR"),
        ("audit_owner@localhost", "ON SCHEDULE EVERY 100 DAY"),
    ],
)
def test_an_event_that_somebody_changed_is_put_back(shop, definer, change):
    partitions(shop)
    shop.execute(f"ALTER DEFINER = {definer} EVENT audit.maintain_partitions {change}")
    assert partitions(shop).changed
    assert not partitions(shop).changed


def test_without_the_event_there_is_none(shop):
    partitions(shop)
    partitions(shop, event=False)
    assert shop.execute("SELECT event_name FROM information_schema.events WHERE event_schema = 'audit'") == []
    assert not partitions(shop, event=False).changed


@pytest.mark.thorough
def test_a_log_that_stays_locked_fails_in_time_and_the_next_run_makes_the_partitions(shop):
    holder = shop.connect(autocommit=False)
    fetch(holder, "SELECT COUNT(*) FROM audit.audit_log_data")
    result = partitions(shop, lock_timeout=1, lock_retries=0, may_fail=True)
    assert result.failed
    assert "locked by another session" in result.msg
    holder.rollback()
    assert partitions(shop).changed


def test_without_a_trail_it_says_what_is_missing(without_trail):
    with Schema(without_trail) as schema:
        result = partitions(schema, may_fail=True)
        assert "run mysql_audit_trail first" in result.msg
        install_trail(schema)
