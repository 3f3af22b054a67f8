# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program that delivers records for rsyslog, with a collector that speaks RELP over TLS and fails as asked."""

from __future__ import annotations

import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles/audit_shipping/files/dbfleet_audit_relp.py"
FRAME = re.compile(rb"(\d+) (\w+) (\d+) ?")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("pki")
    script = ROOT / "molecule/shipping/files/certificates.sh"
    subprocess.run(["sh", script, directory], check=True, capture_output=True)
    return directory


class Collector:
    """Takes sessions one after the other; `obey` says of each how many records it acknowledges before it breaks off."""

    def __init__(self, certificates: pathlib.Path, name: str, obey: list[int]) -> None:
        self.received: list[bytes] = []
        self._obey = obey
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _run(self) -> None:
        while True:
            try:
                plain, _address = self._socket.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(plain, server_side=True) as session:
                    self._serve(session, self._obey.pop(0) if self._obey else 1_000_000)
            except OSError:
                continue

    def _serve(self, session: ssl.SSLSocket, acknowledged: int) -> None:
        stream = session.makefile("rb")
        while True:
            head = b""
            while not head.endswith(b"\n") and not re.fullmatch(rb"\d+ \w+ \d+ ", head):
                byte = stream.read(1)
                if not byte:
                    return
                head += byte
            number, command, length = FRAME.match(head).groups()
            data = stream.read(int(length) + 1)[:-1] if int(length) else b""
            if command == b"syslog":
                self.received.append(data)
                if acknowledged == 0:
                    return
                acknowledged -= 1
            session.sendall(b"%s rsp 6 200 OK\n" % number)


@pytest.fixture
def collector(certificates: pathlib.Path) -> Iterator[Callable[..., Collector]]:
    opened: list[Collector] = []

    def make(name: str = "collector", obey: list[int] | None = None) -> Collector:
        opened.append(Collector(certificates, name, obey or []))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def start(tmp_path: pathlib.Path, certificates: pathlib.Path, port: int, **changed: object) -> subprocess.Popen[bytes]:
    configuration = {
        "host": "127.0.0.1",
        "port": port,
        "server_name": "collector.example.test",
        "seconds": 2,
        "retry_seconds": 0.1,
        "ca": os.fspath(certificates / "ca.pem"),
        "certificate": "",
        "key": "",
        "spool": os.fspath(tmp_path / "spool"),
        "spool_bytes": 1_000_000,
        **changed,
    }
    file = tmp_path / "configuration.json"
    file.write_text(json.dumps(configuration), encoding="utf-8")
    program = subprocess.Popen([sys.executable, PROGRAM, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdout.readline() == b"OK\n"
    return program


def hand_over(program: subprocess.Popen[bytes], numbers: range) -> None:
    for number in numbers:
        program.stdin.write(b"record %d\n" % number)
        program.stdin.flush()
        assert program.stdout.readline() == b"OK\n"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def records(numbers: range) -> list[bytes]:
    return [b"record %d" % number for number in numbers]


def end(program: subprocess.Popen[bytes]) -> None:
    program.stdin.close()
    assert program.wait(timeout=5) == 0


def test_what_is_not_acknowledged_is_sent_again(tmp_path, certificates, collector) -> None:
    server = collector(obey=[5, 0, 7])
    program = start(tmp_path, certificates, server.port)
    hand_over(program, range(300))
    wait_for(lambda: b"record 299" in server.received)
    end(program)
    assert list(dict.fromkeys(server.received)) == records(range(300))
    # Each session that broke off had a record at least that came without an acknowledgement.
    assert len(server.received) >= 303


def test_records_outlive_the_program_and_a_kill(tmp_path, certificates, collector) -> None:
    nobody = socket.create_server(("127.0.0.1", 0))
    port = nobody.getsockname()[1]
    nobody.close()
    program = start(tmp_path, certificates, port)
    hand_over(program, range(10))
    program.kill()
    program.wait()
    # As if it had been killed while it wrote: not confirmed, so that rsyslog sends it once more.
    (segment,) = (tmp_path / "spool").glob("*.records")
    with segment.open("ab") as file:
        file.write(b"record 1")
    server = collector()
    program = start(tmp_path, certificates, server.port)
    hand_over(program, range(10, 20))
    wait_for(lambda: len(server.received) == 20)
    end(program)
    assert server.received == records(range(20))
    # All is acknowledged, and a new start sends nothing again.
    program = start(tmp_path, certificates, server.port)
    hand_over(program, range(20, 21))
    wait_for(lambda: len(server.received) == 21)
    end(program)


def test_a_stranger_gets_nothing(tmp_path, certificates, collector) -> None:
    stranger = collector("stranger")
    program = start(tmp_path, certificates, stranger.port)
    hand_over(program, range(3))
    time.sleep(0.5)
    end(program)
    assert stranger.received == []
    server = collector()
    end(start(tmp_path, certificates, server.port, server_name="somebody.else.test"))
    assert server.received == []


def test_a_full_queue_takes_no_more_until_there_is_room(tmp_path, certificates, collector) -> None:
    server = collector(obey=[0] * 8)
    program = start(tmp_path, certificates, server.port, spool_bytes=90)
    hand_over(program, range(10))
    program.stdin.write(b"record 10\n")
    program.stdin.flush()
    time.sleep(0.2)
    assert (tmp_path / "spool/0000000001.records").read_bytes().count(b"\n") == 10
    assert program.stdout.readline() == b"OK\n"
    wait_for(lambda: b"record 10" in server.received)
    end(program)
    assert list(dict.fromkeys(server.received)) == records(range(11))
