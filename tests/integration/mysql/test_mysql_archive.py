# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Old partitions of the log of MariaDB and MySQL become verified archives, and leave it without losing a row."""

from __future__ import annotations

import json
import pathlib
import threading
import time
import typing as t

import pytest
import running
from archiving import months_ago, period
from cutting import MysqlCutter
from mysql_archiving import MysqlArchiver, add_old, count, exchange, name_of, old_log, partitions, sides
from mysql_databases import MysqlServer, Schema, fetch


@pytest.fixture
def log(trail: MysqlServer) -> t.Iterator[Schema]:
    """Return a database on a server with a log of six months."""
    with old_log(trail) as schema:
        yield schema


@pytest.fixture
def archiver(log: Schema, tmp_path: pathlib.Path) -> MysqlArchiver:
    """Return what archives it."""
    return MysqlArchiver(log, tmp_path)


def of_rows(archiver: MysqlArchiver) -> list[t.Any]:
    """Return what verification finds, but that rows which a test has added have the time of an earlier month."""
    return [problem for problem in archiver.problems() if problem[0] != "backdated_row"]


def guards(log: Schema) -> list[t.Any]:
    """Return the triggers of the log."""
    return log.execute(
        "SELECT trigger_name, created FROM information_schema.triggers "
        "WHERE event_object_schema = 'audit' AND event_object_table = 'audit_log_data' ORDER BY 1"
    )


def growth(log: Schema) -> list[str]:
    """Return the months that the log is said to have grown in."""
    (found,) = running.run_module("mysql_audit_info", **log.login, gather=["partitions"])["trails"]
    assert {key for entry in found["partitions"]["list"] for key in entry} == {"name", "from", "to", "rows", "bytes"}
    return [month["month"] for month in found["partitions"]["growth"]]


def test_a_partition_past_its_time_becomes_an_archive_and_leaves_the_log(log: Schema, archiver: MysqlArchiver) -> None:
    add_old(log, 5, rows=250)
    add_old(log, 4, rows=30)
    add_old(log, 3, rows=7)
    log.execute("INSERT INTO item VALUES (1, 'now')")
    before = guards(log)
    first = archiver.run()
    assert [made["name"] for made in first["archived"]] == [period(5), period(4)]
    assert first["dropped"] == [name_of(ago) for ago in (6, 5, 4)]
    assert set(partitions(log)) & {name_of(ago) for ago in (6, 5, 4)} == set()
    assert len(archiver.archived(period(5))) == 250
    assert (count(log, "audit_log_data"), sides(log)) == (8, [])
    assert growth(log) == [months_ago(ago).isoformat()[:7] for ago in (3, 2, 1, 0)]
    assert guards(log) == before
    assert archiver.problems() == []
    again = archiver.run()
    assert not again["changed"]
    assert (again["archived"], again["dropped"], again["kept"], again["statements"]) == ([], [], [], [])


def test_check_mode_predicts_the_statements_and_does_nothing(log: Schema, archiver: MysqlArchiver) -> None:
    add_old(log, 5)
    log.execute("INSERT INTO item VALUES (1, 'now')")
    was = partitions(log)
    predicted = archiver.run(_check_mode=True)
    assert (predicted["due"], predicted["dropped"]) == ([name_of(5)], [name_of(ago) for ago in (6, 5, 4)])
    assert (partitions(log), archiver.files()) == (was, [])
    assert archiver.run()["statements"] == predicted["statements"]


def test_without_drop_the_rows_stay(log: Schema, archiver: MysqlArchiver) -> None:
    add_old(log, 5)
    was = partitions(log)
    assert archiver.run(drop=False)["changed"]
    assert not archiver.run(drop=False)["changed"]
    assert (partitions(log), count(log, "audit_log_data")) == (was, 5)
    assert archiver.problems() == []


def test_a_hold_keeps_a_partition(log: Schema, archiver: MysqlArchiver) -> None:
    add_old(log, 5, table="patient")
    add_old(log, 4, table="payment")
    hold = {"reason": "case 4711", "table": f"{log.name}.pat*", "record_id": "3"}
    kept = archiver.run(holds=[hold])
    assert kept["kept"] == [{"name": name_of(5), "reason": "legal hold: case 4711"}]
    assert count(log, "audit_log_data") == 5
    nobody = archiver.run(holds=[{**hold, "record_id": "99"}])
    assert nobody["dropped"] == [name_of(5)]
    assert archiver.problems() == []


def test_a_row_that_comes_late_is_not_lost(log: Schema, archiver: MysqlArchiver) -> None:
    add_old(log, 5)
    archiver.before("release", lambda: add_old(log, 5, rows=1, first=6))
    result = archiver.run()
    assert [kept["name"] for kept in result["kept"]] == [name_of(5)]
    assert "has 6 rows and its archive 5" in result["kept"][0]["reason"]
    assert (count(log, "audit_log_data"), sides(log)) == (6, [])
    assert archiver.run()["dropped"] == [name_of(5)]
    assert len(archiver.archived(period(5))) == 6
    assert of_rows(archiver) == []


def test_a_row_whose_transaction_ends_while_the_partition_leaves_is_not_lost(
    log: Schema, archiver: MysqlArchiver
) -> None:
    add_old(log, 5)
    late = log.connect(autocommit=False)
    add_old(log, 5, rows=1, first=6, connection=late)
    ends = threading.Timer(2.5, late.commit)
    archiver.before("release", ends.start)
    result = archiver.run(older_than="4mo")
    ends.join()
    assert [kept["name"] for kept in result["kept"]] == [name_of(5)]
    assert "has 6 rows and its archive 5" in result["kept"][0]["reason"]
    assert (count(log, "audit_log_data"), sides(log)) == (6, [])
    assert archiver.run(older_than="4mo")["dropped"] == [name_of(5)]
    assert len(archiver.archived(period(5))) == 6
    assert archiver.problems() == []


@pytest.mark.parametrize("more", [False, True])
def test_late_rows_that_a_run_that_was_cut_off_left_beside_the_log_are_put_back(
    log: Schema, archiver: MysqlArchiver, more: bool
) -> None:
    add_old(log, 5)
    archiver.run(drop=False)
    add_old(log, 5, rows=1, first=6)
    exchange(log, 5)
    if more:
        add_old(log, 5, rows=2, first=7)
    assert count(log, "audit_log_data") == (2 if more else 0)
    result = archiver.run()
    assert name_of(5) in result["dropped"]
    assert sides(log) == []
    assert len(archiver.ids()) == (8 if more else 6)
    assert of_rows(archiver) == []


class Writer(threading.Thread):
    """Makes audited changes one after the other, until told to end."""

    def __init__(self, log: Schema) -> None:
        super().__init__()
        self.connection = log.connect()
        self.over = threading.Event()
        self.slowest, self.made = 0.0, 0

    def run(self) -> None:
        """Note how long the slowest took."""
        while not self.over.is_set():
            began = time.monotonic()
            fetch(self.connection, f"INSERT INTO item VALUES ({1000 + self.made}, 'x')")
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.made += 1
            time.sleep(0.002)

    def stop(self) -> float:
        """Return how long the slowest change took, in seconds."""
        self.over.set()
        self.join()
        return self.slowest


@pytest.mark.thorough
def test_a_transaction_that_stays_open_keeps_the_partition_and_no_writer_waits(
    log: Schema, archiver: MysqlArchiver
) -> None:
    add_old(log, 5)
    archiver.run(drop=False)
    holder = log.connect(autocommit=False)
    fetch(holder, "INSERT INTO payment VALUES (1, 'open')")
    time.sleep(1.5)
    writer = Writer(log)
    writer.start()
    result = archiver.run(lock_timeout=1, lock_retries=1)
    slowest = writer.stop()
    kept = {kept["name"]: kept["reason"] for kept in result["kept"]}
    assert set(kept) == {name_of(ago) for ago in (6, 5, 4)}
    assert f"connection {holder.thread_id()} of " in kept[name_of(5)]
    assert "nothing was dropped" in kept[name_of(5)]
    assert set(kept) < set(partitions(log))
    print(f"slowest of {writer.made}: {slowest:.3f} s")
    assert slowest < (0.6 if log.server.is_mariadb else 1.2)
    holder.commit()
    assert archiver.run()["dropped"] == [name_of(ago) for ago in (6, 5, 4)]
    assert (count(log, "audit_log_data"), sides(log)) == (1 + writer.made, [])
    assert archiver.problems() == []


def test_writers_hardly_wait_while_partitions_leave(log: Schema, archiver: MysqlArchiver) -> None:
    add_old(log, 5, rows=500)
    writer = Writer(log)
    writer.start()
    result = archiver.run()
    slowest = writer.stop()
    print(f"slowest of {writer.made}: {slowest:.3f} s")
    assert result["dropped"] == [name_of(ago) for ago in (6, 5, 4)]
    assert slowest < 1
    archiver.seal()
    assert archiver.problems() == []


def test_a_prepared_transaction_keeps_the_partition_with_its_row(log: Schema, archiver: MysqlArchiver) -> None:
    add_old(log, 5)
    session = log.connect()
    fetch(session, "XA START 'late'")
    add_old(log, 5, rows=1, first=6, connection=session)
    for statement in ("XA END 'late'", "XA PREPARE 'late'"):
        fetch(session, statement)
    session.close()
    try:
        result = archiver.run(lock_timeout=1, lock_retries=0)
        kept = {kept["name"]: kept["reason"] for kept in result["kept"]}
        assert name_of(5) in kept
        assert name_of(5) in partitions(log)
    finally:
        log.execute("XA COMMIT 'late'")
    assert count(log, "audit_log_data") == 6
    assert name_of(5) in archiver.run()["dropped"]
    assert len(archiver.archived(period(5))) == 6
    assert archiver.problems() == []


@pytest.mark.thorough
def test_odd_values_are_archived_as_they_were_sealed(log: Schema, archiver: MysqlArchiver) -> None:
    log.execute(
        "CREATE TABLE odd (id INT PRIMARY KEY, data VARBINARY(64), note LONGTEXT, amount DECIMAL(30, 10), "
        "share DOUBLE, document JSON)"
    )
    policy = {"tables": [f"{log.name}.odd"], "name": "odd"}
    archiver.rollout["policies"] = [policy]
    running.run_module("mysql_audit_triggers", **log.login, policies=[policy])
    connection = log.connect()
    rows = [
        (
            1,
            bytes(range(64)),
            "tab\t newline\n return\r nul\0 \u2028 \x7f \\ \" ' {} 😀é\u0301",
            "1.5000000000",
            0.1,
            "{}",
        ),
        (2, None, "", None, 1e300, '{"a": 1.50, "b": "\\n😀", "c": [null, 1e2]}'),
        (3, b"", "x" * 700_000, "12345678901234567890.0123456789", -0.0, '[{"deep": {"er": "\\u0000"}}]'),
        (4, b"\xff\xfe", "ÿ" * 300_000, "0", 5e-324, '{  "spaces":\t1 }'),
    ]
    with connection.cursor() as cursor:
        for row in rows:
            cursor.execute("INSERT INTO odd VALUES (%s, %s, %s, %s, %s, %s)", row)
    log.execute(
        "INSERT INTO audit.audit_log_data (changed_at, action, schema_name, table_name, record_id, new_values, "
        "changed_by, db_user, context) SELECT CAST(%s AS DATETIME(6)) + INTERVAL d.id MICROSECOND, d.action, "
        "d.schema_name, d.table_name, CONCAT(d.record_id, CHAR(10), CHAR(0 USING utf8mb4)), d.new_values, 'x\\ny', "
        "'\\\\', d.new_values FROM audit.audit_log_data AS d WHERE d.table_name = 'odd'",
        months_ago(5),
    )
    wanted = log.execute("SELECT id, new_values FROM audit.audit_log_data WHERE changed_by = 'x\\ny' ORDER BY id")
    archiver.run()
    found = archiver.archived(period(5))
    assert [(row["id"], row["new_values"]) for row in found] == [(number, json.loads(text)) for number, text in wanted]
    assert found[0]["changed_by"] == "x\ny"
    assert archiver.problems() == []


def test_a_document_of_several_lines_is_one_line_of_an_archive(log: Schema, archiver: MysqlArchiver) -> None:
    text = '{\n  "a":\r\n\t[1,\n2]\n}'
    log.execute(
        "INSERT INTO audit.audit_log_data (changed_at, action, new_values, changed_by, db_user) "
        "VALUES (%s, 'EVENT', %s, 'x', 'x')",
        months_ago(5),
        text,
    )
    assert name_of(5) in archiver.run()["dropped"]
    (row,) = archiver.archived(period(5))
    # MariaDB keeps a document as it was written.
    assert row.get("new_values_text") == text if log.server.is_mariadb else row["new_values"] == json.loads(text)
    assert archiver.problems() == []


def test_ids_are_not_handed_out_again_after_the_highest_has_left(log: Schema, archiver: MysqlArchiver) -> None:
    add_old(log, 5, rows=20)
    last = log.value("SELECT MAX(id) FROM audit.audit_log_data")
    archiver.run()
    assert count(log, "audit_log_data") == 0
    # The server reads the counter anew.
    log.execute("FLUSH TABLES")
    log.execute("INSERT INTO item VALUES (1, 'new')")
    assert log.value("SELECT MIN(id) FROM audit.audit_log_data") > last
    archiver.seal()
    assert archiver.problems() == []


def _archived_only(archiver: MysqlArchiver) -> list[dict[str, t.Any]]:
    """Have everything archived, and signed to leave the log; return the periods as the host would be given them."""

    def gone() -> None:
        raise ConnectionAbortedError("the controller is gone")

    archiver.before("release", gone)
    with pytest.raises(ConnectionAbortedError):
        archiver.run(parallel=100)
    return [period for period in archiver.calls[-1]["step"]["periods"] if period["rows"]]


def _release(login: dict[str, t.Any], found: dict[str, t.Any], **options: t.Any) -> running.ModuleResult:
    step = {"do": "release", "periods": [found], "tidy": False}
    return running.run_module("mysql_audit_archive", **login, step=step, **options)


def _complete(log: Schema, name: str) -> None:
    """Do what the next run does with one partition."""
    step = {"do": "periods", "before": "9999-12-31", "holds": []}
    answer = running.run_module("mysql_audit_archive", **log.login, step=step)["answer"]
    for found in answer["periods"]:
        if found["name"] == name:
            assert _release(log.login, found)["answer"]["periods"][0]["kept"] == ""


@pytest.mark.thorough
def test_a_release_that_is_cut_off_anywhere_is_completed_without_losing_a_row(
    trail: MysqlServer, tmp_path: pathlib.Path
) -> None:
    months = 64
    with old_log(trail, months) as log:
        archiver = MysqlArchiver(log, tmp_path)
        for ago in range(4, months + 1):
            add_old(log, ago, rows=3)
        statements, left = 0, set()
        for found in _archived_only(archiver):
            statements += 1
            name, side = found["name"], f"audit_log_{found['name'][1:]}"
            cutter = MysqlCutter(trail, after=statements)
            _release(cutter.login, found, may_fail=True)
            cutter.close()
            # The server has ended what it was told.
            assert log.value("SELECT GET_LOCK('dbfleet.audit', 60)") == 1
            log.execute("DO RELEASE_LOCK('dbfleet.audit')")
            attached = count(log, f"audit_log_data PARTITION ({name})") if name in partitions(log) else 0
            beside = count(log, side) if side in sides(log) else 0
            left.add((name in partitions(log), attached, side in sides(log), beside))
            assert attached + beside == 3 or (name, attached, beside) not in partitions(log)
            _complete(log, name)
            assert name not in partitions(log)
            assert sides(log) == []
            if cutter.statements < statements:
                break
        print(statements, sorted(left))
        assert cutter.statements < statements, "more months are needed"
        # Attached, with an empty table beside it, exchanged, only the table, nothing.
        assert {(True, 3, False, 0), (True, 3, True, 0), (True, 0, True, 3), (False, 0, True, 3)} <= left
        archiver.run()
        assert count(log, "audit_log_data") == 0
        archives = [file for file in archiver.files() if file.endswith(".gz")]
        assert len(archives) == months - 3
        assert all(len(archiver.archived(file.partition(".")[0])) == 3 for file in archives)
        assert archiver.problems() == []
