# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sealing while others write: nobody waits for it, every committed row gets into one seal, however late it came."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import pathlib
import time
import typing as t
from concurrent import futures

import psycopg2.extensions
import pytest
import running
from auditing import rollout, trail_database, wanted
from databases import Database, connect, fetch
from local_postgresql import LocalPostgresql
from seal_writers import Background, Writer
from sealing import Sealer

SECONDS = float(os.environ.get("DBFLEET_TEST_LOAD_SECONDS", "15"))
WRITERS = 20

BLOCKED = """
SELECT w.query, b.application_name, b.query
FROM pg_stat_activity AS w
CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS p (pid)
LEFT JOIN pg_stat_activity AS b ON b.pid = p.pid
WHERE w.application_name = 'writer' AND b.application_name IS DISTINCT FROM 'writer'
"""

IN_BLOCKS = """
SELECT d.id, count(s.number)
FROM audit.audit_log_data AS d
LEFT JOIN (SELECT s.number, i AS id
           FROM audit.seal AS s, unnest(s.ids) AS u (r), generate_series(lower(u.r), upper(u.r) - 1) AS i) AS s
  ON s.id = d.id
GROUP BY d.id
HAVING count(s.number) <> 1
"""

IN_NO_ROW = """
SELECT i FROM audit.seal AS s, unnest(s.ids) AS u (r), generate_series(lower(u.r), upper(u.r) - 1) AS i
WHERE NOT EXISTS (SELECT FROM audit.audit_log_data AS d WHERE d.id = i)
"""

WRITTEN = """
SELECT coalesce(d.record_id, '') FROM audit.audit_log_data AS d WHERE d.action IN ('INSERT', 'EVENT')
"""


@pytest.fixture(scope="module")
def server(own_server: LocalPostgresql) -> LocalPostgresql:
    """Return a server that takes prepared transactions."""
    own_server.configure({"max_prepared_transactions": 400})
    own_server.stop()
    own_server.start()
    return own_server


@pytest.fixture
def log(server: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database with one audited table, `item (id, name)`."""
    with trail_database(server) as database:
        database.execute("CREATE TABLE item (id text PRIMARY KEY, name text)")
        rollout(database, policies=[wanted("public.item")])
        yield database


@pytest.fixture
def sealer(log: Database, tmp_path: pathlib.Path) -> Sealer:
    return Sealer(log.login, tmp_path, policies=[wanted("public.item")])


def watermark(log: Database) -> int:
    return int(log.value("SELECT watermark FROM audit.seal_state"))


def last_id(log: Database) -> int:
    return int(log.value("SELECT last_value FROM audit.audit_log_id_seq"))


def assert_each_row_is_in_one_block(log: Database) -> None:
    assert log.execute(IN_BLOCKS) == []
    assert log.execute(IN_NO_ROW) == []


def write_all(writers: t.Sequence[Writer], seconds: float) -> None:
    """Have all write at once."""
    until = time.monotonic() + seconds
    with futures.ThreadPoolExecutor(len(writers)) as threads:
        for writing in [threads.submit(writer.run, until) for writer in writers]:
            writing.result()


@pytest.mark.thorough
def test_sealing_and_verifying_under_load(log: Database, sealer: Sealer, record_property: t.Any) -> None:
    writers = [Writer(log, number) for number in range(WRITERS)]
    watcher = log.connect()
    with (
        Background(lambda: fetch(watcher, BLOCKED), 0.02) as blocked,
        Background(sealer.seal, 1) as seals,
        Background(sealer.verify, 0.5) as verifications,
    ):
        write_all(writers, SECONDS)
    rest = [sealer.seal() for _time in range(3)]
    committed = sorted(key for writer in writers for key in writer.committed)
    blocks = log.value("SELECT count(*) FROM audit.seal WHERE kind = 'rows'")
    numbers = {
        "rows": len(committed),
        "runs": len(seals.results),
        "blocks": blocks,
        "checks": len(verifications.results),
    }
    record_property("load", numbers)
    print(numbers)
    assert [found for found in blocked.results if found] == []
    assert len(blocked.results) > SECONDS
    assert sorted(key for (key,) in log.execute(WRITTEN)) == committed
    assert_each_row_is_in_one_block(log)
    assert watermark(log) == last_id(log)
    assert not rest[-1]["changed"]
    assert rest[-1]["unsealed"] == 0
    assert [run["problems"] for run in verifications.results if run["problems"]] == []
    verified = sealer.verify()
    assert verified["problems"] == []
    assert verified["rows_checked"] == log.value("SELECT count(*) FROM audit.audit_log_data")
    assert sum(run["rows"] for run in (*seals.results, *rest)) == verified["rows_checked"]


def wait_until(condition: t.Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def blocked_sessions(log: Database) -> int:
    """Return how many sessions of the database wait for a lock."""
    waiting = "datname = current_database() AND wait_event_type = 'Lock'"
    return int(log.value(f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}"))


def test_a_row_that_comes_between_two_statements_of_a_verification_is_no_alarm(log: Database, sealer: Sealer) -> None:
    log.execute("INSERT INTO item VALUES ('first', 'x')")
    sealer.seal()
    lock = "LOCK TABLE audit.audit_log_data IN ACCESS EXCLUSIVE MODE"
    more = "INSERT INTO item SELECT %s || i, 'x' FROM generate_series(1, 50) AS i"
    first, second = (log.connect(autocommit=False) for _time in range(2))
    fetch(first, lock)
    step = {"do": "rows", "after": last_id(log), "seconds": 20}
    module = running.start_module("postgresql_audit_verify", **log.login, step=step)
    # It knows how far the log went, and waits for the rows, to count them.
    wait_until(lambda: blocked_sessions(log) == 1)
    with futures.ThreadPoolExecutor(1) as threads:
        locking = threads.submit(fetch, second, lock)
        wait_until(lambda: blocked_sessions(log) == 2)
        fetch(first, more, "1 ")
        first.commit()
        locking.result()
    # Had it counted any that it cannot explain, it would wait once more now, to name them.
    wait_until(lambda: module.poll() is not None or blocked_sessions(log) == 1)
    fetch(second, more, "2 ")
    second.commit()
    answer = running.finish_module(module, may_fail=False)["answer"]
    assert answer["findings"] == []
    assert answer["unsealed"] == 50
    assert sealer.problems() == []


@pytest.mark.parametrize("call", range(4))
def test_a_seal_that_comes_between_two_calls_of_a_verification_is_no_alarm(
    log: Database, sealer: Sealer, call: int
) -> None:
    sealer.rollout = {"policies": [wanted("public.*")]}
    rollout(log, **sealer.rollout)
    sealer.seal()
    other, calls = copy.copy(sealer), itertools.count()

    def meanwhile() -> None:
        if next(calls) == call:
            log.execute("CREATE TABLE other (id int PRIMARY KEY)")
            rollout(log, **sealer.rollout)
            log.execute("INSERT INTO other VALUES (1)")
            assert {seal["kind"] for seal in other.seal()["seals"]} == {"rows", "catalog"}

    sealer.meanwhile = meanwhile
    assert sealer.problems() == []
    assert next(calls) >= 4
    assert sealer.problems() == []


class Late(t.NamedTuple):
    """A transaction that ends after many runs; each step is statements of its own session."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    other_session: bool = False


ROW = "INSERT INTO item VALUES ('late', 'x')"
LATE = {
    "an event that has an id": Late(("BEGIN", "SELECT audit.log_event('e', 'item', 'late')"), ("COMMIT",)),
    "a row that has an id": Late(("BEGIN", ROW), ("COMMIT",)),
    "a row in a savepoint that was released": Late(("BEGIN", "SAVEPOINT a", ROW, "RELEASE a"), ("COMMIT",)),
    "a row after a savepoint that was rolled back": Late(
        ("BEGIN", "INSERT INTO item VALUES ('early', 'x')", "SAVEPOINT a", ROW, "ROLLBACK TO a"), (ROW, "COMMIT")
    ),
    "a transaction that has no id yet": Late(("BEGIN", "SELECT count(*) FROM item"), (ROW, "COMMIT")),
    "a prepared transaction": Late(
        ("BEGIN", ROW, "PREPARE TRANSACTION 'late'"), ("COMMIT PREPARED 'late'",), other_session=True
    ),
    "a prepared event": Late(
        ("BEGIN", "SELECT audit.log_event('e', 'item', 'late')", "PREPARE TRANSACTION 'late'"),
        ("COMMIT PREPARED 'late'",),
        other_session=True,
    ),
}


@pytest.mark.parametrize("way", LATE)
@pytest.mark.thorough
def test_a_row_that_comes_late_is_sealed_late(log: Database, sealer: Sealer, way: str) -> None:
    late, writer = LATE[way], log.connect()
    for statement in late.before:
        fetch(writer, statement)
    if late.other_session:
        writer.close()
        writer = log.connect()
    # More runs than there are marks kept of transactions in progress.
    for number in range(23):
        log.execute("INSERT INTO item VALUES (%s, 'y')", f"in time {number}")
        sealer.seal()
    assert sealer.problems() == []
    for statement in late.after:
        fetch(writer, statement)
    unsealed = log.value("SELECT id FROM audit.audit_log_data WHERE record_id = 'late'")
    assert watermark(log) < unsealed
    assert sealer.problems() == []
    assert_late_row_is_sealed(log, sealer)


def assert_late_row_is_sealed(log: Database, sealer: Sealer) -> None:
    assert sealer.seal()["rows"] >= 1
    sealer.seal()
    assert_each_row_is_in_one_block(log)
    assert watermark(log) == last_id(log)
    assert sealer.problems() == []


@contextlib.contextmanager
def seen_in_progress(log: Database, sealer: Sealer) -> t.Iterator[psycopg2.extensions.connection]:
    """Give a session with a row that a sealing run has found in progress."""
    writer = connect(log.server, log.name)
    for statement in ("BEGIN", ROW):
        fetch(writer, statement)
    log.execute("INSERT INTO item VALUES ('in time', 'x')")
    sealer.seal()
    yield writer
    writer.close()


@pytest.mark.parametrize("crash", [False, True], ids=["restart", "crash"])
def test_a_transaction_that_is_prepared_before_the_server_restarts_is_waited_for(
    log: Database, sealer: Sealer, crash: bool
) -> None:
    with seen_in_progress(log, sealer) as writer:
        fetch(writer, "PREPARE TRANSACTION 'late'")
    sealer.seal()
    log.disconnect()
    if crash:
        log.server._pg_ctl("stop", "-w", "-m", "immediate")
    else:
        log.server.stop()
    log.server.start()
    for number in range(3):
        log.execute("INSERT INTO item VALUES (%s, 'y')", f"in time {number}")
        sealer.seal()
    log.execute("COMMIT PREPARED 'late'")
    assert watermark(log) < log.value("SELECT id FROM audit.audit_log_data WHERE record_id = 'late'")
    assert sealer.problems() == []
    assert_late_row_is_sealed(log, sealer)


def test_a_transaction_that_is_prepared_between_two_runs_is_waited_for(log: Database, sealer: Sealer) -> None:
    with seen_in_progress(log, sealer) as writer:
        fetch(writer, "PREPARE TRANSACTION 'late'")
    for _time in range(3):
        sealer.seal()
    log.execute("COMMIT PREPARED 'late'")
    assert sealer.problems() == []
    assert_late_row_is_sealed(log, sealer)


def test_a_transaction_that_never_ends_keeps_no_row_from_its_seal(log: Database, sealer: Sealer) -> None:
    with seen_in_progress(log, sealer):
        log.execute("INSERT INTO item SELECT 'more ' || i, 'y' FROM generate_series(1, 1000) AS i")
        assert sealer.seal()["rows"] == 1000
        assert_each_row_is_in_one_block(log)
