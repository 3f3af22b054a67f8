# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sealing on MariaDB and MySQL: which rows are in which seal, and what comes after one."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
import typing as t

import pymysql
import pytest
import running
from mysql_auditing import audit
from mysql_databases import Schema, connect, fetch
from mysql_sealing import add, dump, logged, restore, sealed, watermark
from sealing import Sealer

#: Problems that are no matter of seals: this server lacks what a rollout would make.
_OF_ROLLOUTS = {"missing", "altered", "disabled", "grant", "refused"}


def of_seals(sealer: Sealer) -> list[tuple[str, int | None, int | None]]:
    """Return what verification finds of seals."""
    return [problem for problem in sealer.problems() if problem[0] not in _OF_ROLLOUTS]


def test_what_is_committed_is_sealed_once(log: Schema, sealer: Sealer) -> None:
    add(log, 1, 100)
    result = sealer.seal()
    assert result["changed"]
    assert result["rows"] == 100
    again = sealer.seal()
    assert not again["changed"]
    assert again["seals"] == []
    assert again["unsealed"] == 0
    assert sealed(log) == logged(log)
    verified = sealer.verify()
    assert verified["problems"] == []
    assert verified["rows_checked"] == 100


def test_a_run_with_nothing_new_is_cheap(log: Schema, sealer: Sealer) -> None:
    add(log, 1, 10)
    sealer.seal()
    steps = {"headers": {"do": "headers", "after": 10}, "seal": {"do": "seal", "ids": 100_000, "seconds": 20}}
    took = {
        name: min(running.run_module("mysql_audit_seal", **log.login, step=step)["seconds"] for _run in range(5))
        for name, step in steps.items()
    }
    # Beside what any call takes that connects and looks for the trail.
    assert took["seal"] < took["headers"] + 0.1


def test_a_row_that_is_committed_late_is_sealed_later(log: Schema, sealer: Sealer) -> None:
    late = log.connect(autocommit=False)
    fetch(late, "INSERT INTO item VALUES (1, 'late')")
    add(log, 2, 10)
    assert sealer.seal()["rows"] == 9
    first = watermark(log)
    assert first < min(logged(log))
    add(log, 11, 20)
    assert sealer.seal()["rows"] == 10
    late.commit()
    assert sealer.seal()["rows"] == 1
    assert sealed(log) == logged(log)
    assert len(logged(log)) == 20
    sealer.seal()
    assert watermark(log) == max(logged(log))
    assert sealer.problems() == []


def test_a_prepared_transaction_holds_the_watermark_and_nothing_else(log: Schema, sealer: Sealer) -> None:
    session = connect(log.server, database=log.name)
    for statement in ("XA START 'x'", "INSERT INTO item VALUES (1, 'prepared')", "XA END 'x'", "XA PREPARE 'x'"):
        fetch(session, statement)
    session.close()
    try:
        add(log, 2, 10)
        assert sealer.seal()["rows"] == 9
        add(log, 11, 12)
        assert sealer.seal()["rows"] == 2
        assert watermark(log) < min(logged(log))
        assert sealer.problems() == []
    finally:
        log.execute("XA COMMIT 'x'")
    assert sealer.seal()["rows"] == 1
    assert sealer.problems() == []
    assert sealed(log) == logged(log)


def test_a_prepared_transaction_holds_the_watermark_over_a_failover(log: Schema, sealer: Sealer) -> None:
    session = connect(log.server, database=log.name)
    for statement in ("XA START 'x'", "INSERT INTO item VALUES (1, 'prepared')", "XA END 'x'", "XA PREPARE 'x'"):
        fetch(session, statement)
    session.close()
    try:
        add(log, 2, 10)
        sealer.seal()
        # A replica has the transaction by another number, so that none of the noted ones is in its list.
        ((marks,),) = log.execute("SELECT marks FROM audit.seal_state")
        elsewhere = [{**mark, "holders": [1], "server": "another one"} for mark in json.loads(marks)]
        assert elsewhere
        log.execute("UPDATE audit.seal_state SET marks = %s", json.dumps(elsewhere))
        add(log, 11, 12)
        sealer.seal()
        assert watermark(log) < min(logged(log))
    finally:
        log.execute("XA COMMIT 'x'")
    assert sealer.seal()["rows"] == 1
    assert sealer.problems() == []


def test_rollbacks_leave_gaps_and_no_alarm(log: Schema, sealer: Sealer) -> None:
    session = log.connect(autocommit=False)
    for number in range(1, 30):
        fetch(session, f"INSERT INTO item VALUES ({number}, 'x')")
        session.commit() if number % 3 else session.rollback()
    sealer.seal()
    assert sealer.problems() == []
    assert sealed(log) == logged(log)
    assert watermark(log) == max(logged(log))


def test_blocks_are_as_small_as_asked_for(log: Schema, sealer: Sealer) -> None:
    add(log, 1, 100)
    result = sealer.seal(block_rows=30)
    assert [seal["rows"] for seal in result["seals"] if seal["kind"] == "rows"][-1] <= 30
    assert result["rows"] == 100
    assert sealer.problems() == []


def test_rows_of_two_days_are_two_blocks(log: Schema, sealer: Sealer) -> None:
    add(log, 1, 4)
    log.execute(
        "INSERT INTO audit.audit_log_data (changed_at, action, changed_by, db_user) VALUES "
        "(UTC_TIMESTAMP(6) - INTERVAL 1 DAY, 'EVENT', 'x', 'x')"
    )
    rows = [seal for seal in sealer.seal()["seals"] if seal["kind"] == "rows"]
    assert len(rows) == 2
    assert rows[0]["period"] != rows[1]["period"]
    assert sealer.problems() == []


def test_a_login_without_process_is_told_so(log: Schema, sealer: Sealer) -> None:
    user = log.create_account("sealer")
    log.execute(f"GRANT ALL PRIVILEGES ON audit.* TO '{user}'@'%'")
    add(log, 1, 2)
    sealer.login.update(login_user=user, login_password="Secret-of-the-4-tests")
    assert "GRANT PROCESS" in sealer.refusal()
    assert sealed(log) == []


def test_two_sealers_at_once_double_nothing(log: Schema, sealer: Sealer) -> None:
    add(log, 1, 50)
    threads = [threading.Thread(target=sealer.seal) for _number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sealed(log) == logged(log)
    assert sealer.problems() == []


@pytest.mark.parametrize("calls", range(1, 4))
def test_a_run_that_was_cut_off_is_completed_by_the_next(log: Schema, sealer: Sealer, calls: int) -> None:
    add(log, 1, 5)
    sealer.cut = calls
    with contextlib.suppress(ConnectionAbortedError):
        sealer.seal()
    sealer.cut = None
    assert sealer.problems() == []
    sealer.seal()
    assert sealer.problems() == []
    assert sealed(log) == logged(log)


def test_what_a_rollout_changes_is_on_record(log: Schema, sealer: Sealer) -> None:
    add(log, 1, 2)
    sealer.seal()
    policy = {"tables": [f"{log.name}.item"], "operations": ["insert", "update"], "columns": {"redact": ["name"]}}
    running.run_module("mysql_audit_triggers", **log.login, policies=[policy])
    sealer.rollout["policies"] = [policy]
    assert sealer.problems() == []
    add(log, 3, 4)
    kinds = [seal["kind"] for seal in sealer.seal()["seals"]]
    assert "catalog" in kinds
    assert sealer.problems() == []
    # And back, which makes what was dropped again.
    audit(log, "item")
    sealer.rollout["policies"] = [{"tables": [f"{log.name}.item"]}]
    assert sealer.problems() == []
    sealer.seal()
    assert sealer.problems() == []


def test_a_table_that_is_dropped_takes_its_triggers_with_it(log: Schema, sealer: Sealer) -> None:
    add(log, 1, 2)
    sealer.seal()
    log.execute("DROP TABLE item")
    assert of_seals(sealer) == []
    sealer.seal()
    assert of_seals(sealer) == []


def test_new_partitions_raise_no_alarm(log: Schema, sealer: Sealer) -> None:
    add(log, 1, 20)
    sealer.seal()
    log.execute("CALL audit.maintain_partitions_at(UTC_TIMESTAMP(6) + INTERVAL 4 MONTH)")
    log.execute("ALTER TABLE audit.audit_log_data REBUILD PARTITION ALL")
    add(log, 21, 30)
    sealer.seal()
    assert of_seals(sealer) == []
    assert sealed(log) == logged(log)


def test_a_partition_that_went_into_an_archive_raises_no_alarm(log: Schema, sealer: Sealer) -> None:
    add(log, 1, 20)
    sealer.seal()
    sealer.archive([[1, 1]])
    partition = log.value(
        "SELECT partition_name FROM information_schema.partitions "
        "WHERE table_schema = 'audit' AND table_name = 'audit_log_data' AND partition_description > QUOTE(NOW()) "
        "ORDER BY partition_ordinal_position LIMIT 1"
    )
    log.execute(f"ALTER TABLE audit.audit_log_data DROP PARTITION {partition}")
    assert logged(log) == []
    assert of_seals(sealer) == []
    add(log, 21, 30)
    assert sealer.seal()["rows"] == 10
    assert of_seals(sealer) == []


@pytest.mark.own_server
def test_a_dump_restored_on_another_server_raises_no_alarm(
    log: Schema, sealer: Sealer, new_mysql_server: t.Callable[..., t.Any]
) -> None:
    log.execute(
        "CREATE TABLE amounts (id INT PRIMARY KEY, amount DECIMAL(20, 4), note TEXT, made DATETIME(6), share DOUBLE)"
    )
    audit(log)
    sealer.rollout["policies"] = [{"tables": [f"{log.name}.*"]}]
    log.execute(
        "INSERT INTO amounts VALUES (1, 12345678901234.5600, 'a\"b\\\\c\n\té😀', NOW(6), 0.1), "
        "(2, NULL, NULL, NULL, 1e300)"
    )
    log.execute("UPDATE amounts SET amount = 1.50, share = 1")
    add(log, 1, 20)
    sealer.seal()
    add(log, 21, 30)
    policy = {"tables": [f"{log.name}.*"], "name": "other", "columns": {"redact": ["note"]}}
    running.run_module("mysql_audit_triggers", **log.login, policies=[policy])
    sealer.rollout["policies"] = [policy]
    dumped = dump(log.server, "audit", log.name)
    other = new_mysql_server()
    with contextlib.closing(connect(other)) as root:
        for account in ("audit_writer", "audit_owner"):
            fetch(root, f"CREATE USER {account}@localhost ACCOUNT LOCK")
    restore(other, dumped)
    place = {"login_unix_socket": str(other.socket), "login_user": other.user, "login_password": other.password}
    sealer.login = place
    running.run_module("mysql_audit_trail", **place)
    assert of_seals(sealer) == []
    sealer.seal()
    assert of_seals(sealer) == []


class Load:
    """Writers with rollbacks, savepoints, delays and prepared transactions, until told to end."""

    def __init__(self, schema: Schema, number: int) -> None:
        self.schema = schema
        self.stop = threading.Event()
        self.errors: list[Exception] = []
        self.slowest = 0.0
        self.threads = [threading.Thread(target=self._work, args=(writer,)) for writer in range(number)]

    def _work(self, writer: int) -> None:
        chance = random.Random(writer)
        with contextlib.closing(connect(self.schema.server, database=self.schema.name, autocommit=False)) as session:
            number = writer * 1_000_000
            while not self.stop.is_set():
                number += 10
                try:
                    (self._prepared if chance.random() < 0.1 else self._plain)(session, chance, number)
                except pymysql.err.MySQLError as error:
                    self.errors.append(error)
                    return

    def _insert(self, session: t.Any, number: int) -> None:
        began = time.monotonic()
        fetch(session, f"INSERT INTO item VALUES ({number}, 'x')")
        self.slowest = max(self.slowest, time.monotonic() - began)

    def _plain(self, session: t.Any, chance: random.Random, number: int) -> None:
        self._insert(session, number)
        fetch(session, "SAVEPOINT s")
        self._insert(session, number + 1)
        if chance.random() < 0.3:
            fetch(session, "ROLLBACK TO SAVEPOINT s")
        time.sleep(chance.choice((0, 0, 0.01, 0.3)))
        session.rollback() if chance.random() < 0.3 else session.commit()

    def _prepared(self, session: t.Any, chance: random.Random, number: int) -> None:
        session.commit()
        fetch(session, f"XA START '{number}'")
        self._insert(session, number)
        fetch(session, f"XA END '{number}'")
        fetch(session, f"XA PREPARE '{number}'")
        time.sleep(chance.choice((0.01, 0.5, 1.2)))
        fetch(session, f"XA {'ROLLBACK' if chance.random() < 0.3 else 'COMMIT'} '{number}'")


@pytest.mark.thorough
def test_under_load_every_committed_row_is_sealed_once(log: Schema, sealer: Sealer) -> None:
    load = Load(log, 10)
    for thread in load.threads:
        thread.start()
    runs = 0
    until = time.monotonic() + 15
    while time.monotonic() < until:
        began = time.monotonic()
        sealer.seal()
        runs += 1
        if runs % 4 == 0:
            assert sealer.problems() == []
        time.sleep(max(0.0, 1 - (time.monotonic() - began)))
    load.stop.set()
    for thread in load.threads:
        thread.join()
    assert load.errors == []
    assert load.slowest < 2
    sealer.seal()
    assert sealed(log) == logged(log)
    verified = sealer.verify()
    assert verified["problems"] == []
    assert verified["rows_checked"] == len(logged(log))
    assert verified["unsealed"] == 0
