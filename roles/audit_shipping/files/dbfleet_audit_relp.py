# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Takes records from rsyslog into a queue on disk, and delivers them to a collector over RELP and TLS.

    /usr/bin/python3 dbfleet_audit_relp.py CONFIGURATION

rsyslog runs it (omprog with confirmMessages): each line of the standard input is a record, answered by OK once it is in
the queue. A record leaves the queue when the collector has acknowledged it, so that nothing rests on what lies in
memory, in a socket or in a window of RELP. Whatever ends either side, delivery goes on from there, and some records
come twice. The queues of rsyslog do not do for this: stopped while the collector is away, it loses what it was about to
deliver (8.2504, omprog), and omrelp counts as delivered what is not acknowledged yet.

CONFIGURATION is a JSON file: host, port, server_name (which the certificate has to name), ca, certificate and key
(paths; the last two may be empty), seconds (how long the collector may take to answer), retry_seconds (between two
attempts), spool (a directory), spool_bytes (what may lie in it). Standard library only.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import ssl
import sys
import syslog
import threading
import time
from typing import Any, BinaryIO

OFFER = b"relp_version=0\nrelp_software=dbfleet.audit\ncommands=syslog"

#: Numbers of transactions start anew after this one.
LAST_NUMBER = 999_999_999

#: How many records may be on their way, and how long the place up to which they are acknowledged may stay unwritten.
WINDOW = 128
CURSOR_SECONDS = 0.5

#: A file of the queue is complete with that many bytes, and goes when all of it is acknowledged.
SEGMENT_BYTES = 4_000_000

#: rsyslog gives a program that it ends half a second.
FAREWELL_SECONDS = 0.2

ANSWER = b"rsp"
DONE = b"200"


class CollectorError(Exception):
    """The collector cannot be reached, is not the one that is meant, or has not taken a record."""


class Connection:
    """One session of RELP.

    :raises CollectorError: when it cannot be opened.
    """

    def __init__(self, configuration: dict[str, Any]) -> None:
        self._number = 0
        address = (configuration["host"], configuration["port"])
        plain = socket.create_connection(address, timeout=configuration["seconds"])
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = _tls(configuration).wrap_socket(plain, server_hostname=configuration["server_name"])
        except BaseException:
            plain.close()
            raise
        self._stream: BinaryIO = self._socket.makefile("rb")
        try:
            self.send(b"open", OFFER)
            self.answer(self._number)
        except BaseException:
            self.close()
            raise

    def send(self, command: bytes, data: bytes) -> int:
        """Send a frame and return its number."""
        self._number = self._number % LAST_NUMBER + 1
        frame = b"%d %s %d" % (self._number, command, len(data))
        self._socket.sendall(b"%s %s\n" % (frame, data) if data else frame + b"\n")
        return self._number

    def answer(self, number: int) -> None:
        """Wait for the collector's word that it has dealt with a frame; answers come in the order of frames."""
        answered, command, said = self._frame()
        if answered != number or command != ANSWER:
            # Among others serverclose, which has the number 0.
            raise CollectorError(f"the collector ends the session: {command.decode(errors='replace')}")
        if not said.startswith(DONE):
            raise CollectorError(f"the collector refuses a record: {said.decode(errors='replace')}")

    def end(self) -> None:
        """Take leave, so that the collector has no error to report; nothing rests on it."""
        self._socket.settimeout(FAREWELL_SECONDS)
        with contextlib.suppress(CollectorError, OSError, ValueError):
            self.answer(self.send(b"close", b""))
            self._socket.unwrap()
        self.close()

    def close(self) -> None:
        """Let go of the session."""
        self._stream.close()
        self._socket.close()

    def _frame(self) -> tuple[int, bytes, bytes]:
        number, _end = self._word()
        command, _end = self._word()
        length, end = self._word()
        if not (number.isdigit() and length.isdigit()):
            raise CollectorError("the collector does not speak RELP")
        # A frame without data has no space after its length.
        data = self._stream.read(int(length)) if end == b" " else b""
        if end == b" " and self._stream.read(1) != b"\n":
            raise CollectorError("the collector has ended the connection")
        return int(number), command, data

    def _word(self) -> tuple[bytes, bytes]:
        """Return what comes before the next space or end of line, and which of the two it was."""
        word = b""
        while len(word) <= 32:
            byte = self._stream.read(1)
            if not byte:
                raise CollectorError("the collector has ended the connection")
            if byte in b" \n":
                return word, byte
            word += byte
        raise CollectorError("the collector does not speak RELP")


class Spool:
    """A queue of lines in the files of a directory, for one process that appends and delivers.

    Files are numbered. `cursor`, a number and an offset, says what is delivered, and is written behind the fact.
    """

    def __init__(self, directory: str, most: int) -> None:
        self._directory = directory
        self._most = most
        os.makedirs(directory, mode=0o700, exist_ok=True)
        # Of two that deliver from one queue, each would delete what the other has still to read.
        self._lock = open(os.path.join(directory, "lock"), "w", encoding="utf-8")  # noqa: SIM115
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.cursor = self._read_cursor()
        numbers = self._numbers()
        self.last = max([*numbers, self.cursor[0]])
        self._file = open(self.path(self.last), "ab")  # noqa: SIM115
        self._cut_torn_line()
        self.end = self._file.tell()
        # After a failure of power, the file may be shorter than it was.
        self.cursor = min(self.cursor, (self.last, self.end))
        self._bytes = sum(os.path.getsize(self.path(number)) for number in numbers)
        self.changed = threading.Condition()

    def path(self, number: int) -> str:
        """Return the path of a file of the queue."""
        return os.path.join(self._directory, f"{number:010d}.records")

    def has_room(self) -> bool:
        """Tell whether a record may be added."""
        return self._bytes < self._most

    def append(self, line: bytes) -> None:
        """Add a line with its end, so that it outlives this process."""
        with self.changed:
            self._file.write(line)
            self._file.flush()
            self.end += len(line)
            self._bytes += len(line)
            if self.end >= SEGMENT_BYTES:
                self._next_file()
            self.changed.notify_all()

    def make_room(self) -> None:
        """End a file before its time, so that it can go."""
        with self.changed:
            if self.end:
                self._next_file()
            self.changed.notify_all()

    def wait(self, place: tuple[int, int]) -> None:
        """Wait until there may be something after a place."""
        with self.changed:
            if place >= (self.last, self.end):
                self.changed.wait(CURSOR_SECONDS)

    def delivered(self, place: tuple[int, int]) -> None:
        """Note that everything before a place is delivered."""
        new = os.path.join(self._directory, "cursor.new")
        with open(new, "w", encoding="utf-8") as file:
            json.dump(place, file)
        os.replace(new, os.path.join(self._directory, "cursor"))
        for number in self._numbers():
            if number < place[0]:
                with self.changed:
                    self._bytes -= os.path.getsize(self.path(number))
                os.unlink(self.path(number))
        self.cursor = place

    def _next_file(self) -> None:
        # The other thread opens a file as soon as `last` names it.
        file = open(self.path(self.last + 1), "ab")  # noqa: SIM115
        self._file.close()
        self._file, self.end = file, 0
        self.last += 1

    def _numbers(self) -> list[int]:
        names = [name.partition(".") for name in os.listdir(self._directory)]
        return sorted(int(stem) for stem, _dot, ending in names if ending == "records")

    def _read_cursor(self) -> tuple[int, int]:
        try:
            with open(os.path.join(self._directory, "cursor"), encoding="utf-8") as file:
                number, offset = json.load(file)
        except (OSError, ValueError):
            # Lost, it costs records that come once more.
            return (min(self._numbers(), default=1), 0)
        return number, offset

    def _cut_torn_line(self) -> None:
        """Take away what was not confirmed when we were killed: rsyslog sends it again."""
        with open(self.path(self.last), "rb") as file:
            whole = file.read()
        self._file.truncate(whole.rfind(b"\n") + 1)
        self._file.seek(0, os.SEEK_END)


class Delivery:
    """Delivers what is in the queue, for as long as it takes."""

    def __init__(self, configuration: dict[str, Any], spool: Spool) -> None:
        self._configuration = configuration
        self._spool = spool
        self._failing = False
        self.ended = threading.Event()

    def run(self) -> None:
        """Deliver until :attr:`ended` is set."""
        while not self.ended.is_set():
            before = self._spool.cursor
            reason = self._attempt()
            # A session that has delivered may have been a long one: its end says nothing about the collector. That one
            # was opened says nothing either: a collector whose disk is full opens them all, and takes no record.
            if reason and self._spool.cursor == before:
                self._tell(reason)
                self.ended.wait(self._configuration["retry_seconds"])

    def _attempt(self) -> str | None:
        """Return why a session has come to its end, unless we have ended it."""
        try:
            self._session()
        # OSError has those of sockets, TLS and time-outs; ValueError, those of reading a closed stream.
        except (CollectorError, OSError, ValueError) as error:
            return str(error) or type(error).__name__
        return None

    def _session(self) -> None:
        """Deliver over one connection, from the cursor on, until it ends or we do."""
        place = self._spool.cursor
        while place >= (self._spool.last, self._spool.end):
            # Without anything to deliver, nobody is bothered.
            self._spool.wait(place)
            if self.ended.is_set():
                return
        with contextlib.closing(Connection(self._configuration)) as connection:
            self._deliver(connection, place)
            connection.end()

    def _deliver(self, connection: Connection, place: tuple[int, int]) -> None:
        waiting: collections.deque[tuple[int, tuple[int, int]]] = collections.deque()
        acknowledged, written = place, time.monotonic()
        number, offset = place
        file = open(self._spool.path(number), "rb")  # noqa: SIM115
        try:
            file.seek(offset)
            while waiting or not self.ended.is_set():
                # Before reading: a file may grow between a look at its end and its completion.
                complete = number < self._spool.last
                reading = len(waiting) < WINDOW and not self.ended.is_set()
                line = file.readline() if reading else b""
                # What a failure of power has left of a line is sent as it is: no more comes, and others lie behind it.
                if line.endswith(b"\n") or (line and complete):
                    offset += len(line)
                    waiting.append((connection.send(b"syslog", line.rstrip(b"\n")), (number, offset)))
                    continue
                if line:
                    # It is just being written, and is read once it is whole.
                    file.seek(offset)
                if waiting:
                    sent, place = waiting.popleft()
                    connection.answer(sent)
                    acknowledged = place
                    self._tell(None)
                elif complete and reading and not line:
                    file.close()
                    number, offset = number + 1, 0
                    file = open(self._spool.path(number), "rb")  # noqa: SIM115
                    acknowledged = (number, offset)
                else:
                    self._note(acknowledged)
                    self._spool.wait((number, offset))
                if time.monotonic() - written > CURSOR_SECONDS:
                    self._note(acknowledged)
                    written = time.monotonic()
        finally:
            file.close()
            self._note(acknowledged)

    def _note(self, place: tuple[int, int]) -> None:
        if place > self._spool.cursor:
            self._spool.delivered(place)

    def _tell(self, reason: str | None) -> None:
        """Note in the host's own log that delivery has begun to fail, or works again; not every attempt."""
        name = f"collector {self._configuration['host']}:{self._configuration['port']}"
        if reason and not self._failing:
            syslog.syslog(syslog.LOG_ERR, f"{name}: records are kept in the queue: {reason}")
        elif self._failing and not reason:
            syslog.syslog(syslog.LOG_NOTICE, f"{name}: records are delivered again")
        self._failing = bool(reason)


def _tls(configuration: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration["ca"])
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if configuration["certificate"]:
        context.load_cert_chain(configuration["certificate"], configuration["key"] or None)
    return context


def _rsyslog_is_gone(seconds: float) -> bool:
    """Wait, and return whether rsyslog has closed the standard input meanwhile."""
    poll = select.poll()
    poll.register(sys.stdin.fileno(), 0)
    return bool(poll.poll(seconds * 1000))


def take(spool: Spool) -> None:
    """Take records from the standard input into the queue; where that is full, they wait, and rsyslog with them."""
    full = False
    print("OK", flush=True)
    for line in sys.stdin.buffer:
        if not line.endswith(b"\n"):
            # rsyslog was killed while it wrote it, and will send it again.
            return
        while not spool.has_room():
            if not full:
                syslog.syslog(syslog.LOG_ERR, "the queue is full: the log is read no further until there is room")
                spool.make_room()
            full = True
            if _rsyslog_is_gone(1):
                return
        full = False
        spool.append(line)
        print("OK", flush=True)


def main() -> int:
    """Take and deliver until rsyslog closes the standard input."""
    with open(sys.argv[1], encoding="utf-8") as file:
        configuration = json.load(file)
    syslog.openlog("dbfleet-audit-shipping", 0, syslog.LOG_DAEMON)
    # systemd sends it to everything at once; the end of the standard input says that rsyslog is done with us.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.umask(0o077)
    spool = Spool(configuration["spool"], configuration["spool_bytes"])
    delivery = Delivery(configuration, spool)
    deliverer = threading.Thread(target=delivery.run, daemon=True)
    deliverer.start()
    take(spool)
    delivery.ended.set()
    deliverer.join(2 * FAREWELL_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
