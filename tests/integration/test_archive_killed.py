# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An archive run that ends where it should not: no row is ever in neither place, and the next run completes it."""

from __future__ import annotations

import itertools
import pathlib
import threading
import time
import typing as t

import pytest
import running
from archiving import OF_OTHERS, Archiver, add_old, ids, months_ago, old_log, partitions, period
from cutting import PostgresqlCutter
from databases import Database, fetch
from killing import After, AtCall, AtStep, FullDisk, Instead, killed, start
from local_postgresql import LocalPostgresql

from ansible_collections.dbfleet.audit.plugins.module_utils._core.ledger_archive import MANIFEST_SUFFIX
from ansible_collections.dbfleet.audit.plugins.plugin_utils import _ledger

MONTHS = 60


@pytest.fixture
def log(log: Database) -> Database:
    """Return a database with a log of six months, with rows in two that are due."""
    add_old(log, 5, 40)
    add_old(log, 4, 7)
    return log


def in_database(log: Database) -> set[int]:
    """Return the ids of changes in the log, and in what was detached from it."""
    tables = log.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'audit'::regnamespace AND relkind = 'r' "
        r"AND relname ~ '^audit_log_(\d{4}_|past|future)'"
    )
    ids_of = [f"SELECT id FROM {name} WHERE {OF_OTHERS}" for (name,) in tables]
    return {number for (number,) in log.execute(" UNION ALL ".join(ids_of))}


def in_archives(archiver: Archiver) -> set[int]:
    """Return the ids in archives that have a manifest."""
    whole = [name.split(".")[0] for name in archiver.files() if name.endswith(MANIFEST_SUFFIX)]
    return {row["id"] for name in whole for row in archiver.archived(name)}


def assert_completed(log: Database, archiver: Archiver, everything: set[int]) -> None:
    """Have the next run complete what there is: each row is in one place, each archive in the ledger once."""
    archiver.meanwhile = None
    done = archiver.run()
    assert not done.get("failed"), done
    assert {period(5), period(4)} & set(partitions(log)) == set()
    assert ids(log) | archiver.ids() == everything
    assert not ids(log) & archiver.ids()
    entries = _ledger.Ledger(str(archiver.ledger)).entries()[0]
    named = [said["name"] for entry in entries for said in entry.seal.attested.get("archives", ())]
    assert sorted(named) == [period(5), period(4)]
    assert log.value("SELECT count(*) FROM audit.seal WHERE signature IS NULL") == 0
    assert not archiver.run()["changed"]
    assert archiver.problems() == []
    leftover = log.execute(
        "SELECT relname FROM pg_class AS c WHERE relnamespace = 'audit'::regnamespace AND relkind = 'r' "
        "AND relname LIKE 'audit\\_log\\_20%' AND NOT EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = c.oid)"
    )
    assert leftover == []


@pytest.mark.thorough
def test_the_controller_is_killed_before_any_call_of_the_host(log: Database, archiver: Archiver) -> None:
    everything, reached = ids(log), 0
    while killed(archiver, AtCall(reached)):
        assert in_database(log) | in_archives(archiver) >= everything
        reached += 1
    # Each run began where the one before was killed, and got one call further.
    assert reached > 5
    assert_completed(log, archiver, everything)


@pytest.mark.parametrize(
    "trouble",
    [
        Instead("plugin_utils._archive_known:check_file"),
        After("plugin_utils._archive_known:check_file"),
        After("plugin_utils._archive:write_manifest"),
        Instead("plugin_utils._ledger:_append"),
        After("plugin_utils._ledger:_append"),
    ],
    ids=["uploaded", "read back", "manifest", "before the ledger", "after the ledger"],
)
@pytest.mark.thorough
def test_the_controller_is_killed_between_two_of_its_own_steps(
    log: Database, archiver: Archiver, trouble: Instead
) -> None:
    archiver.seal()
    everything = ids(log)
    assert killed(archiver, trouble)
    assert in_database(log) | in_archives(archiver) >= everything
    assert_completed(log, archiver, everything)


def release(archiver: Archiver, log: Database, name: str, **login: t.Any) -> running.ModuleResult:
    """Have the host take a partition out of the log that is in the archive."""
    found = running.run_module(
        "postgresql_audit_archive", **log.login, step={"do": "periods", "before": "2000-01-01", "holds": []}
    )
    (described,) = [one for one in found["answer"]["periods"] if one["name"] == name]
    described["rows"] = archiver.manifest(name)["rows"]
    step = {"do": "release", "periods": [described], "tidy": True}
    return running.run_module("postgresql_audit_archive", **{**log.login, **login}, step=step, may_fail=True)


def wait_for_server(log: Database) -> None:
    """Wait until the server has noticed that nobody is there to hear its answer."""
    while log.value(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbfleet.audit' AND datname = %s", log.name
    ):
        time.sleep(0.01)


@pytest.mark.thorough
def test_the_connection_is_lost_at_any_statement_that_takes_a_partition_out(
    pg: LocalPostgresql, tmp_path: pathlib.Path
) -> None:
    with old_log(pg, MONTHS) as log:
        for month in range(4, MONTHS + 1):
            add_old(log, month, 1)
        everything = ids(log)
        archiver = Archiver(log, tmp_path)
        archiver.run(drop=False)
        archived = archiver.ids()
        states = set()
        for month, statements in zip(range(MONTHS, 3, -1), itertools.count(1)):
            cutter = PostgresqlCutter(pg, statements)
            whole = not release(archiver, log, period(month), **cutter.login).failed
            cutter.close()
            if whole:
                break
            name = period(month)
            wait_for_server(log)
            gone = log.value("SELECT to_regclass(%s) IS NULL", f"audit.{name}")
            states.add((name in partitions(log), gone))
            assert in_database(log) | archived == everything
            if not gone:
                assert not release(archiver, log, name).failed
        assert statements > 10
        # In the log, detached, and dropped: one of each was left behind.
        assert states == {(True, False), (False, False), (False, True)}
        done = archiver.run()
        assert not done.get("failed"), done
        assert (ids(log), archiver.ids()) == (everything - archived, archived)
        past = log.value(
            "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = 'audit.audit_log_past'::regclass"
        )
        assert months_ago(3).isoformat() in past


def test_an_archive_whose_rows_are_still_in_the_log_does_not_expire(log: Database, archiver: Archiver) -> None:
    assert killed(archiver, AtStep("release"))
    archiver.meanwhile = None
    over = {"default": {"database": "1d", "archive": "2d"}}
    assert archiver.run(retention=over, older_than="1d", drop=False)["expired"] == []
    assert archiver.ids() <= ids(log)
    archiver.run(retention=over, older_than="1d")
    assert archiver.run(retention=over, older_than="1d")["expired"] == [period(5), period(4)]


def test_rows_that_came_late_and_were_detached_with_the_others_come_back(log: Database, archiver: Archiver) -> None:
    assert killed(archiver, AtStep("release"))
    # What a run leaves that was killed before it could attach the partition again.
    log.execute(f"ALTER TABLE audit.audit_log_data DETACH PARTITION audit.{period(5)}")
    log.execute(
        f"INSERT INTO audit.{period(5)} (changed_at, transaction_id, action, changed_by, db_user) "
        f"VALUES ('{months_ago(5)}', '1', 'EVENT', 'u', 'u')"
    )
    everything = in_database(log)
    archiver.meanwhile = None
    said = archiver.run()
    assert f"{period(5)} has 41 rows and its archive 40" in said["msg"]
    assert said["dropped"] == [period(6), period(4)]
    assert period(5) in partitions(log)
    done = archiver.run()
    assert (done.get("failed"), done["dropped"]) == (None, [period(5)])
    assert ids(log) | archiver.ids() == everything


def test_a_disk_that_is_full_leaves_nothing_that_looks_like_an_archive(log: Database, archiver: Archiver) -> None:
    archiver.seal()
    everything = ids(log)
    process = start(archiver, FullDisk(100))
    process.join(120)
    assert process.exitcode == 1
    assert archiver.files() == []
    assert ids(log) == everything
    assert_completed(log, archiver, everything)


def test_writers_do_not_wait_for_a_detach_that_waits_for_one_of_them(log: Database, archiver: Archiver) -> None:
    archiver.run(drop=False)
    opened = log.connect()
    opened.set_session(isolation_level="REPEATABLE READ", autocommit=False)
    fetch(opened, "INSERT INTO item VALUES (1, 'open')")
    longest, ended = [0.0], threading.Event()

    def write() -> None:
        connection, number = log.connect(), 1
        while not ended.is_set():
            number += 1
            begun = time.monotonic()
            fetch(connection, "INSERT INTO item VALUES (%s, 'while detaching')", number)
            longest[0] = max(longest[0], time.monotonic() - begun)
            time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        kept = archiver.run(lock_timeout=0.5, lock_retries=2)
    finally:
        ended.set()
        writer.join()
    # It waited for a second and a half for the open transaction, each write for none of it.
    assert longest[0] < 0.4
    assert kept["failed"]
    assert "has not ended for longer than lock_timeout, lock_retries times over; nothing was dropped" in kept["msg"]
    assert f"process {opened.info.backend_pid} of " in kept["msg"]
    opened.commit()
    everything = in_database(log)
    assert_completed(log, archiver, everything)


def test_two_runs_at_once_do_what_one_does(log: Database, archiver: Archiver) -> None:
    everything = ids(log)
    runs = [start(archiver) for _number in range(2)]
    for run in runs:
        run.join(120)
    assert 0 in [run.exitcode for run in runs]
    assert in_database(log) | archiver.ids() >= everything
    assert_completed(log, archiver, everything)


def test_a_second_run_is_refused_before_it_writes_anything(log: Database, archiver: Archiver) -> None:
    with _ledger.Ledger(str(archiver.ledger)).alone("archive"):
        refused = archiver.refused()
    assert f"another run does the same (archive) with the ledger {archiver.ledger}" in refused
    assert archiver.ids() == set()
    assert_completed(log, archiver, ids(log))
