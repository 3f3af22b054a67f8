# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Partitions of the log: always one for every row, named and bounded in UTC, and no row is lost on the way."""

from __future__ import annotations

import datetime
import threading
import time
import typing as t

import pytest
import running
from auditing import records, rollout, wanted
from databases import Database, fetch

UTC = datetime.timezone.utc
NAMES = {"month": "%Y_%m", "week": "%G_w%V", "day": "%Y_%m_%d"}


def partitions(db: Database, **options: t.Any) -> running.ModuleResult:
    return running.run_module("postgresql_audit_partitions", **{**db.login, **options})


def period_start(interval: str, moment: datetime.datetime) -> datetime.datetime:
    """Return when the period of a moment begins, in UTC."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if interval == "month":
        return day.replace(day=1)
    return day - datetime.timedelta(days=day.weekday()) if interval == "week" else day


def periods(interval: str, count: int, moment: datetime.datetime) -> list[tuple[str, str, str]]:
    """Return name, lower and upper bound of this many periods, that of the moment first."""
    starts = [period_start(interval, moment)]
    step = datetime.timedelta(days={"month": 32, "week": 7, "day": 1}[interval])
    for _unused in range(count):
        starts.append(period_start(interval, starts[-1] + step))
    texts = [f"{start:%Y-%m-%d} 00:00:00+00" for start in starts]
    names = [f"audit_log_{start.strftime(NAMES[interval])}" for start in starts]
    return list(zip(names, texts, texts[1:]))


def bounds(result: running.ModuleResult) -> list[tuple[str, str, str]]:
    """Return the partitions that a module reports, in the order of time."""
    rows = [(entry["name"], entry["from"], entry["to"]) for entry in result["partitions"]]
    return sorted(rows, key=lambda row: ("", row[0]) if row[1] == "MINVALUE" else (row[1], row[0]))


def add_row(db: Database, changed_at: datetime.datetime) -> int:
    """Put a row of that time into the log, as a restored or replayed change would be, and return its id."""
    return db.value(
        "INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, changed_by, db_user) "
        "VALUES (%s, pg_current_xact_id(), 'EVENT', 'test', 'test') RETURNING id",
        changed_at,
    )


def home(db: Database, row: int) -> str:
    """Return the partition in which a row lies."""
    return db.value("SELECT tableoid::regclass::text FROM audit.audit_log_data WHERE id = %s", row)


def maintain(db: Database, moment: datetime.datetime) -> None:
    """Do what a host's timer does, as if it were that time."""
    fetch(db.connect(), "CALL audit.maintain_partitions(%s)", moment)


def assert_guarded(db: Database) -> None:
    """Every partition must belong to the log's owner and refuse changes in every session."""
    rows = db.execute(
        "SELECT c.relname, pg_get_userbyid(c.relowner), "
        "array_agg(DISTINCT format('%s %s', t.tgname, t.tgenabled) ORDER BY format('%s %s', t.tgname, t.tgenabled)) "
        "FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid LEFT JOIN pg_trigger t ON t.tgrelid = c.oid "
        "WHERE i.inhparent = 'audit.audit_log_data'::regclass GROUP BY 1, 2"
    )
    assert len(rows) >= 3
    for name, owner, guards in rows:
        assert (owner, guards) == ("audit_owner", ["dbfleet_audit_guard A", "dbfleet_audit_row_guard A"]), name


@pytest.fixture
def bare(db: Database) -> Database:
    """Return a database with a trail that has the one catch-all partition only."""
    running.run_module("postgresql_audit_trail", **db.login)
    return db


@pytest.mark.parametrize("interval", NAMES)
def test_periods_are_ahead_between_two_catch_alls_whatever_the_servers_time_zone(bare, interval):
    bare.execute(f"ALTER DATABASE {bare.name} SET TimeZone = 'Pacific/Auckland'")
    bare.execute(f"ALTER DATABASE {bare.name} SET DateStyle = 'SQL, DMY'")
    result = partitions(bare, interval=interval, ahead=2)
    expected = periods(interval, 3, datetime.datetime.now(UTC))
    first, last = expected[0][1], expected[-1][2]
    assert bounds(result) == [("audit_log_past", "MINVALUE", first), *expected, ("audit_log_future", last, "MAXVALUE")]
    again = partitions(bare, interval=interval, ahead=2)
    assert (again.changed, bounds(again)) == (False, bounds(result))
    assert_guarded(bare)


def test_every_row_has_a_home_whatever_its_time(trail):
    now = datetime.datetime.now(UTC)
    years = {1970: "audit_log_past", 2999: "audit_log_future"}
    for year, name in years.items():
        assert home(trail, add_row(trail, now.replace(year=year, day=1))) == f"audit.{name}"
    assert home(trail, add_row(trail, now)) == f"audit.{periods('month', 1, now)[0][0]}"


def test_check_mode_predicts_the_statements_and_makes_none(trail):
    options = {"ahead": 5, "interval": "month"}
    before = bounds(partitions(trail, check_mode=True))
    predicted = partitions(trail, check_mode=True, **options)
    assert (predicted.changed, bounds(predicted)) == (True, before)
    done = partitions(trail, **options)
    assert done["statements"] == predicted["statements"]
    assert len(bounds(done)) == len(before) + 2


def test_without_a_trail_the_error_says_what_to_run_first(db):
    result = partitions(db, may_fail=True)
    assert result.failed
    assert "postgresql_audit_trail" in result.msg


@pytest.mark.parametrize(("first", "second"), [("month", "day"), ("day", "month"), ("month", "week"), ("week", "day")])
def test_another_interval_begins_where_the_old_periods_end(bare, first, second):
    ended = bounds(partitions(bare, interval=first, ahead=1))
    changed = bounds(partitions(bare, interval=second, ahead=70 if second == "day" else 12))
    assert changed[: len(ended) - 1] == ended[:-1]
    assert all(above[2] == below[1] for above, below in zip(changed, changed[1:]))
    full = [name for name, lower, _unused in changed[len(ended) :] if name != "audit_log_future"]
    assert set(full) <= {name for name, _unused, _unused in periods(second, 120, datetime.datetime.now(UTC))}
    assert bare.execute("SELECT name, value FROM audit.setting WHERE name = 'partition_interval'")[0][1] == second
    assert not partitions(bare, interval=second, ahead=70 if second == "day" else 12).changed


def test_a_year_of_months_leaves_no_row_in_the_catch_all(trail):
    now = datetime.datetime.now(UTC)
    months = periods("month", 14, now)
    for name, lower, _unused in months[1:13]:
        moment = datetime.datetime.fromisoformat(lower.replace("+00", "+00:00")) + datetime.timedelta(days=10)
        maintain(trail, moment)
        assert home(trail, add_row(trail, moment)) == f"audit.{name}"
        assert trail.value("SELECT count(*) FROM audit.audit_log_future") == 0
    assert_guarded(trail)


def test_rows_of_the_catch_all_move_into_their_period_with_their_ids(trail):
    """What happens when the timer was off for half a year."""
    months = periods("month", 9, datetime.datetime.now(UTC))
    moments = [datetime.datetime.fromisoformat(month[1].replace("+00", "+00:00")) for month in months[5:8]]
    rows = [add_row(trail, moment) for moment in moments]
    before = trail.execute("SELECT d::text FROM audit.audit_log_data d WHERE action <> 'DDL' ORDER BY id")
    assert {home(trail, row) for row in rows} == {"audit.audit_log_future"}
    maintain(trail, moments[-1])
    assert [home(trail, row) for row in rows] == [f"audit.{month[0]}" for month in months[5:8]]
    assert trail.execute("SELECT d::text FROM audit.audit_log_data d WHERE action <> 'DDL' ORDER BY id") == before
    assert trail.value("SELECT to_regclass('audit.audit_log_moving')") is None
    assert_guarded(trail)


def test_the_module_moves_rows_of_the_catch_all_too(bare):
    rows = [add_row(bare, datetime.datetime.now(UTC)) for _unused in range(3)]
    result = partitions(bare)
    current = periods("month", 1, datetime.datetime.now(UTC))[0][0]
    assert result.changed
    assert {home(bare, row) for row in rows} == {f"audit.{current}"}
    assert not partitions(bare).changed


@pytest.mark.parametrize("finish", ["module", "timer"])
def test_an_interrupted_move_is_finished_by_the_next_run(bare, finish):
    """Between the swap and the move the rows wait in a table of their own."""
    now = datetime.datetime.now(UTC)
    row = add_row(bare, now)
    plan = bare.value("SELECT audit.partition_plan('month', 3, now())")
    session = bare.connect(autocommit=False)
    for statement in plan[0]["statements"]:
        fetch(session, statement["sql"])
    session.commit()
    assert bare.value("SELECT count(*) FROM audit.audit_log_data WHERE action <> 'DDL'") == 0
    if finish == "module":
        assert partitions(bare).changed
    else:
        maintain(bare, now)
    assert home(bare, row) == f"audit.{periods('month', 1, now)[0][0]}"
    assert bare.value("SELECT to_regclass('audit.audit_log_moving')") is None
    assert not partitions(bare).changed


def test_writers_lose_nothing_while_the_catch_all_is_swapped(bare):
    bare.execute("CREATE TABLE things (id serial PRIMARY KEY, writer int)")
    rollout(bare, policies=[wanted("public.things")])
    stop, failures = threading.Event(), []

    def write(number: int, session: t.Any) -> None:
        try:
            while not stop.is_set():
                fetch(session, "INSERT INTO things (writer) VALUES (%s)", number)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is to show it
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number, bare.connect())) for number in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    partitions(bare)
    partitions(bare, ahead=6)
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    written = bare.value("SELECT count(*) FROM things")
    assert failures == []
    assert written > 50
    assert sorted(record.new_values["id"] for record in records(bare)) == list(range(1, written + 1))
    assert bare.value("SELECT count(DISTINCT id) FROM audit.audit_log_data WHERE action <> 'DDL'") == written
    assert bare.value("SELECT count(*) FROM audit.audit_log_future") == 0


def test_the_timer_follows_what_the_module_was_told(trail):
    partitions(trail, interval="day", ahead=1)
    names = [name for name, _unused, _unused in bounds(partitions(trail, interval="day", ahead=1, check_mode=True))]
    month_end = datetime.datetime.fromisoformat(
        periods("month", 4, datetime.datetime.now(UTC))[3][2][:10] + "T12:00+00:00"
    )
    maintain(trail, month_end)
    added = {
        name for name, _unused, _unused in bounds(partitions(trail, interval="day", ahead=1, check_mode=True))
    } - set(names)
    assert added == {name for name, _unused, _unused in periods("day", 2, month_end)}


def test_only_the_owner_of_the_log_may_run_the_maintenance(trail):
    role = trail.create_role("app")
    assert (
        trail.value("SELECT has_function_privilege(%s, 'audit.maintain_partitions(timestamptz)', 'EXECUTE')", role)
        is False
    )
