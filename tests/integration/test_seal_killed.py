# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A sealing run that ends where it should not: the next one completes it, and there is no alarm meanwhile."""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
import signal
import time
import typing as t
from concurrent import futures

import pytest
import running
from auditing import rollout, wanted
from cutting import PostgresqlCutter
from databases import Database, fetch
from first_seal import DOUBLED_OR_MISSING, add, assert_completed, digest_of_all, first_sealed
from sealing import Sealer

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.plugin_utils import _ledger

STEP = {"do": "seal", "ids": 100_000, "seconds": 20}

IN_DATABASE = "in the database, but not yet in the ledger; the next sealing run completes it"
IN_LEDGER = "in the ledger, but not yet signed in the database; the next sealing run completes it"


@pytest.fixture
def sealer(trail: Database, tmp_path: pathlib.Path) -> Sealer:
    """Return a sealer of a database with one audited table, `item (id)`, that has sealed once."""
    return first_sealed(trail, tmp_path)


def assert_state(sealer: Sealer, expected: str) -> None:
    """Verify: there is nothing wrong, and the state is named."""
    verified = sealer.verify()
    assert verified["problems"] == []
    assert expected in verified["seal_state"] if expected else verified["seal_state"] == ""


def cut_off(sealer: Sealer, calls: int) -> None:
    """Seal; the controller is gone after so many calls of the host."""
    sealer.cut = calls
    with pytest.raises(ConnectionAbortedError):
        sealer.seal()
    sealer.cut = None


def left_behind(log: Database, sealer: Sealer) -> tuple[t.Any, ...]:
    """Return what a run that was cut off has left to the next one: seals by kind, and how far the ledger is ahead."""
    kinds, signed = log.execute(
        "SELECT array_agg(kind ORDER BY number) FILTER (WHERE signature IS NULL), "
        "max(number) FILTER (WHERE signature IS NOT NULL) FROM audit.seal"
    )[0]
    last = _ledger.Ledger(str(sealer.ledger)).last()
    assert last
    return (*(kinds or ()), last.seal.number - signed)


@pytest.mark.thorough
def test_the_connection_is_lost_at_any_statement(trail: Database, sealer: Sealer) -> None:
    usual, direct = PostgresqlCutter(trail.server), sealer.login
    sealer.login = {**usual.login, "login_db": trail.name}
    sealer.seal()
    usual.close()
    assert usual.statements > 10
    left = set()
    for after in range(1, usual.statements):
        add(trail, 1)
        cutter = PostgresqlCutter(trail.server, after)
        sealer.login = {**cutter.login, "login_db": trail.name}
        with pytest.raises(AuditError, match=r"connection|terminated"):
            sealer.seal()
        cutter.close()
        sealer.login = direct
        state = left_behind(trail, sealer)
        if state not in left:
            left.add(state)
            assert_state(sealer, {(0,): "", ("rows", 0): IN_DATABASE, ("rows", 1): IN_LEDGER}[state])
        sealer.seal()
        assert trail.execute(DOUBLED_OR_MISSING) == [], after
    assert left == {(0,), ("rows", 0), ("rows", 1)}
    assert_completed(trail, sealer)


def test_the_controller_is_gone_before_the_host_is_asked(trail: Database, sealer: Sealer) -> None:
    cut_off(sealer, 0)
    assert_state(sealer, "")
    assert_completed(trail, sealer)


def test_the_controller_is_gone_when_the_ledger_has_the_seal(trail: Database, sealer: Sealer) -> None:
    cut_off(sealer, 1)
    assert_state(sealer, IN_LEDGER)
    add(trail)
    assert_completed(trail, sealer)


def test_it_is_gone_several_times_at_the_same_place(trail: Database, sealer: Sealer) -> None:
    for _time in range(3):
        add(trail)
        cut_off(sealer, 1)
        assert_state(sealer, IN_LEDGER)
    assert_completed(trail, sealer)


def test_the_first_run_of_all_is_cut_off(trail: Database, tmp_path: pathlib.Path) -> None:
    sealer = Sealer(trail.login, tmp_path)
    cut_off(sealer, 1)
    assert_state(sealer, IN_LEDGER)
    assert_completed(trail, sealer)


#: Kind, time, and how many objects are said to be altered.
PENDING = """
SELECT kind, sealed_at::text, jsonb_array_length(attested -> 'altered')
FROM audit.seal WHERE signature IS NULL ORDER BY number
"""


@pytest.mark.parametrize("again", [False, True], ids=["as it was", "after another change"])
def test_it_is_gone_when_the_host_has_made_a_seal_of_objects(trail: Database, sealer: Sealer, again: bool) -> None:
    policies = [wanted("public.item", columns={"exclude": ["name"]})]
    trail.execute("ALTER TABLE item ADD COLUMN name text, ADD COLUMN secret text")
    rollout(trail, policies=policies)
    last = _ledger.Ledger(str(sealer.ledger)).last()
    assert last
    ends = {"chain": last.seal.chain, "number": last.seal.number, "digest": last.seal.digest()}
    running.run_module("postgresql_audit_seal", **trail.login, step={**STEP, "ledger": ends})
    left = trail.execute(PENDING)
    assert [(kind, bool(altered)) for kind, _at, altered in left] == [("rows", False), ("catalog", True)]
    if again:
        policies = [wanted("public.item", columns={"exclude": ["name", "secret"]})]
        rollout(trail, policies=policies)
    sealer.rollout["policies"] = policies
    assert_state(sealer, IN_DATABASE)
    assert_completed(trail, sealer)
    made = trail.execute(PENDING.replace("signature IS NULL", "kind = 'catalog'"))[-1]
    assert (made == left[-1]) is not again


@pytest.mark.parametrize("written", [0, 1, 200, -1], ids=["nothing", "a character", "half a line", "all but its end"])
def test_the_disk_is_full_or_the_power_fails_while_the_ledger_is_written(
    trail: Database, sealer: Sealer, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    before = sealer.ledger.read_bytes()
    write = os.write

    def full(handle: int, text: t.Any) -> int:
        if written == 0 or sealer.ledger.read_bytes() != before:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, bytes(text)[:written])

    with monkeypatch.context() as patched:
        patched.setattr(_ledger.os, "write", full)
        message = sealer.refusal()
    assert str(sealer.ledger) in message
    assert "No space left on device" in message
    assert sealer.ledger.read_bytes().startswith(before)
    assert_state(sealer, IN_DATABASE)
    add(trail)
    assert_completed(trail, sealer)


def test_the_ledger_ends_with_half_a_line_of_a_run_long_ago(trail: Database, sealer: Sealer) -> None:
    with sealer.ledger.open("a") as file:
        file.write('{"digest":"5f0b2c1d')
    assert_state(sealer, "")
    assert_completed(trail, sealer)


def test_the_directory_of_the_ledger_is_full(trail: Database, sealer: Sealer, tmp_path: pathlib.Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.getuid() or os.system(f"mount -t tmpfs -o size=64k tmpfs {disk} 2>/dev/null"):
        pytest.skip("this takes the right to mount a file system")
    try:
        shutil.copy(sealer.ledger, disk)
        sealer.ledger = disk / sealer.ledger.name
        size = os.statvfs(disk)
        (disk / "rest").write_bytes(b"x" * size.f_bavail * size.f_bsize)
        # What is left of the ledger's last page has room for a few lines.
        messages = []
        while not messages:
            add(trail)
            try:
                sealer.seal()
            except AuditError as error:
                messages.append(str(error))
        assert f"the ledger {sealer.ledger} on the controller cannot be written: No space left" in messages[0]
        assert_state(sealer, IN_DATABASE)
        (disk / "rest").unlink()
        assert_completed(trail, sealer)
    finally:
        os.system(f"umount {disk}")


class Sealing:
    """The host's part of a run, while another session keeps it from adding its seal."""

    def __init__(self, log: Database) -> None:
        self.log = log
        self.blocker = log.connect(autocommit=False)
        fetch(self.blocker, "LOCK TABLE audit.seal IN EXCLUSIVE MODE")
        self.module = running.start_module("postgresql_audit_seal", **log.login, step=STEP)
        self.backend = self._backend()

    def go_on(self) -> None:
        self.blocker.rollback()

    def _backend(self) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = self.log.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if found:
                return int(found[0][0])
            time.sleep(0.05)
        raise AssertionError("it does not seal")


def test_the_module_is_killed_while_it_seals(trail: Database, sealer: Sealer) -> None:
    sealing = Sealing(trail)
    os.kill(sealing.module.pid, signal.SIGKILL)
    sealing.module.communicate()
    sealing.go_on()
    verified = sealer.verify()
    assert verified["problems"] == []
    assert_completed(trail, sealer)


def test_its_session_is_ended_while_it_seals(trail: Database, sealer: Sealer) -> None:
    sealing = Sealing(trail)
    trail.execute("SELECT pg_terminate_backend(%s)", sealing.backend)
    result = running.finish_module(sealing.module)
    assert result.failed
    assert "run it again for the rest" in result.msg
    sealing.go_on()
    assert_state(sealer, "")
    assert_completed(trail, sealer)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
@pytest.mark.parametrize("calls", [1, 2], ids=["ledger has it", "a whole run"])
@pytest.mark.thorough
def test_the_server_restarts_between_two_steps(
    new_server: t.Any, new_database: t.Any, tmp_path: pathlib.Path, mode: str, calls: int
) -> None:
    server = new_server()
    log = new_database(server)
    for module in ("postgresql_audit_trail", "postgresql_audit_partitions"):
        running.run_module(module, **log.login)
    sealer = first_sealed(log, tmp_path)
    sealer.cut = calls
    if calls == 1:
        with pytest.raises(ConnectionAbortedError):
            sealer.seal()
    else:
        sealer.seal()
    sealer.cut = None
    log.disconnect()
    server._pg_ctl("stop", "-w", "-m", mode)
    server.start()
    assert_state(sealer, IN_LEDGER if calls == 1 else "")
    add(log)
    assert_completed(log, sealer)


def at_once(works: t.Sequence[t.Callable[[], t.Any]]) -> list[str]:
    """Run all at once; return the messages of those that were refused."""
    with futures.ThreadPoolExecutor(len(works)) as threads:
        errors = [future.exception() for future in [threads.submit(work) for work in works]]
    assert all(error is None or isinstance(error, AuditError) for error in errors), errors
    return [str(error) for error in errors if error]


def test_two_at_once_with_one_ledger_both_end_well(trail: Database, sealer: Sealer) -> None:
    for _time in range(5):
        add(trail, 30)
        assert at_once([lambda: sealer.seal(block_rows=5)] * 3) == []
    assert_completed(trail, sealer)


def test_of_two_at_once_with_a_copy_of_the_ledger_one_wins(
    trail: Database, sealer: Sealer, tmp_path: pathlib.Path
) -> None:
    copy = tmp_path / "copy.jsonl"
    for _time in range(3):
        shutil.copy(sealer.ledger, copy)
        add(trail, 15)
        messages = at_once(
            [
                lambda ledger=ledger: sealer.seal(block_rows=5, ledger=str(ledger), call_seconds=0.001)
                for ledger in (sealer.ledger, copy)
            ]
        )
        assert len(messages) <= 1
        assert all(
            "is it the right ledger? Another one, or a copy of it, must have the rest" in one for one in messages
        )
        if copy.stat().st_size > sealer.ledger.stat().st_size:
            shutil.copy(copy, sealer.ledger)
        assert_completed(trail, sealer)


def test_another_run_that_does_not_end_is_named(
    trail: Database, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ledger, "WAIT", 0.2)
    before = digest_of_all(trail, sealer)
    with _ledger.Ledger(str(sealer.ledger)).locked():
        assert f"another run has been sealing into {sealer.ledger}" in sealer.refusal()
    assert digest_of_all(trail, sealer) == before
