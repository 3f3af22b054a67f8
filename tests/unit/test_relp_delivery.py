# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The delivering half of the program that ships records, step by step: what the threads do at the worst moment."""

from __future__ import annotations

import importlib.util
import io
import pathlib
import threading
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "roles/audit_shipping/files/dbfleet_audit_relp.py"
RETRY_SECONDS = 5
CONFIGURATION = {"host": "collector", "port": 2514, "retry_seconds": RETRY_SECONDS}

#: As many as a file of the queue holds here.
RECORDS = 3


def lines(numbers: range) -> list[bytes]:
    return [b"record %d\n" % number for number in numbers]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("dbfleet_audit_relp", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SEGMENT_BYTES", len(b"".join(lines(range(RECORDS)))))
    return module


@pytest.fixture
def spool(program, tmp_path) -> Iterator[object]:
    opened = program.Spool(str(tmp_path / "spool"), 1_000_000)
    yield opened
    opened._file.close()
    opened._lock.close()


class Collector:
    """Stands in for a session; what it takes, it has taken."""

    def __init__(self, on_answer: Callable[[Collector], None] = lambda _session: None) -> None:
        self.sent: list[bytes] = []
        self.answered = 0
        self._on_answer = on_answer

    def send(self, command: bytes, data: bytes) -> int:
        assert command == b"syslog"
        self.sent.append(data)
        return len(self.sent)

    def answer(self, number: int) -> None:
        assert number == self.answered + 1
        self._on_answer(self)
        self.answered += 1

    def end(self) -> None:
        """Nothing to take leave of."""

    def close(self) -> None:
        """Nothing to let go of."""


class Ended(threading.Event):
    """Set once it has been looked at that often: rsyslog stops the program at any moment."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    def is_set(self) -> bool:
        self._looks -= 1
        return self._looks < 0 or super().is_set()


class Pauses(threading.Event):
    """Notes how long the program meant to wait before it tries again."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout)
        return self.is_set()


def left(spool) -> list[bytes]:
    """Return what the next start of the program will deliver."""
    number, offset = spool.cursor
    content = b"".join(pathlib.Path(spool.path(one)).read_bytes() for one in range(number, spool.last + 1))
    return content[offset:].splitlines(keepends=True)


def test_a_file_that_is_completed_after_its_end_was_read_is_read_on(program, spool, monkeypatch) -> None:
    for line in lines(range(RECORDS - 1)):
        spool.append(line)
    collector, delivery = Collector(), program.Delivery(CONFIGURATION, spool)
    # At every end of a file that is seen with all of it acknowledged.
    steps = [lambda: spool.append(b"record 2\n"), delivery.ended.set]

    class Growing(io.BufferedReader):
        def readline(self, size: int | None = -1) -> bytes:
            line = super().readline(size)
            if not line and collector.answered == len(collector.sent):
                steps.pop(0)()
            return line

    def open_file(path: str, mode: str, **more: str):
        return Growing(io.FileIO(path)) if mode == "rb" else open(path, mode, **more)

    monkeypatch.setattr(program, "open", open_file, raising=False)
    delivery._deliver(collector, spool.cursor)
    assert spool.last == 2
    assert collector.sent == [line[:-1] for line in lines(range(RECORDS))]


@pytest.mark.parametrize("looks", range(25))
def test_the_end_of_the_program_is_not_the_end_of_a_file(program, spool, looks) -> None:
    everything = lines(range(2 * RECORDS + 1))
    for line in everything:
        spool.append(line)
    collector, delivery = Collector(), program.Delivery(CONFIGURATION, spool)
    delivery.ended = Ended(looks)
    delivery._deliver(collector, spool.cursor)
    assert [line + b"\n" for line in collector.sent] + left(spool) == everything


def test_what_is_left_of_a_line_does_not_hold_up_those_behind_it(program, spool) -> None:
    for line in lines(range(RECORDS + 1)):
        spool.append(line)
    # A failure of power has left the beginning of the last line of a file that is complete.
    with open(spool.path(1), "r+b") as file:
        file.truncate(program.SEGMENT_BYTES - 4)
    delivery = program.Delivery(CONFIGURATION, spool)
    delivery.ended = Ended(100)
    collector = Collector(lambda session: delivery.ended.set() if session.sent[-1] == b"record 3" else None)
    delivery._deliver(collector, spool.cursor)
    assert collector.sent == [b"record 0", b"record 1", b"recor", b"record 3"]
    assert left(spool) == []


def test_a_file_is_there_before_it_is_named(program, spool, monkeypatch) -> None:
    named = []

    def open_file(path: str, mode: str):
        named.append(spool.last)
        return open(path, mode)

    monkeypatch.setattr(program, "open", open_file, raising=False)
    for line in lines(range(RECORDS)):
        spool.append(line)
    assert (named, spool.last, spool.end) == ([1], 2, 0)


class Sessions:
    """Opens sessions for the program, each with what its collector says to a record, and keeps what is told."""

    def __init__(self, program: ModuleType, spool: object, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[Collector] = []
        self.told: list[str] = []
        self.takes: list[int] = []
        self.delivery = program.Delivery(CONFIGURATION, spool)
        self.pauses = self.delivery.ended = Pauses()
        self._error = program.CollectorError
        monkeypatch.setattr(program, "Connection", self._open)
        monkeypatch.setattr(program.syslog, "syslog", lambda _level, text: self.told.append(text))

    def _open(self, _configuration: dict[str, object]) -> Collector:
        # More than any test asks for: without a pause, they would not end.
        assert len(self.opened) < 20
        self.opened.append(Collector(self._say))
        return self.opened[-1]

    def _say(self, session: Collector) -> None:
        place = len(self.opened) - 1
        if place < len(self.takes) and session.answered == self.takes[place]:
            raise self._error("the collector refuses a record: 500 disk full")
        if session.sent[-1] == b"the last":
            self.delivery.ended.set()


@pytest.fixture
def sessions(program, spool, monkeypatch) -> Sessions:
    return Sessions(program, spool, monkeypatch)


def test_a_collector_that_takes_no_record_is_left_alone_in_between(sessions, spool) -> None:
    spool.append(b"the last\n")
    sessions.takes = [0] * 5
    sessions.delivery.run()
    assert len(sessions.opened) == 6
    assert sessions.pauses.seconds == [RETRY_SECONDS] * 5
    assert sessions.told == [
        "collector collector:2514: records are kept in the queue: the collector refuses a record: 500 disk full",
        "collector collector:2514: records are delivered again",
    ]
    assert left(spool) == []


def test_a_session_that_has_delivered_is_followed_by_another_at_once(sessions, spool) -> None:
    for line in [*lines(range(RECORDS)), b"the last\n"]:
        spool.append(line)
    sessions.takes = [2, 1]
    sessions.delivery.run()
    assert len(sessions.opened) == 3
    assert (sessions.pauses.seconds, sessions.told) == ([], [])


def test_a_record_that_is_refused_for_good_is_told_once(sessions, spool) -> None:
    for line in [*lines(range(RECORDS)), b"the last\n"]:
        spool.append(line)
    sessions.takes = [2, 0, 0, 0]
    sessions.delivery.run()
    assert sessions.pauses.seconds == [RETRY_SECONDS] * 3
    assert len(sessions.told) == 2
