# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who writes while a log is sealed, and what goes on beside."""

from __future__ import annotations

import functools
import random
import threading
import time
import typing as t
from concurrent import futures

from databases import Database, fetch


class Writer:
    """Changes what is audited, in every way in which a transaction can come to its end.

    :ivar committed: what the log must hold: keys of rows and events, each its own.
    """

    def __init__(self, log: Database, number: int) -> None:
        self.random = random.Random(number)
        self.number = number
        self.keys = 0
        self.committed: list[str] = []
        self.prepared: list[tuple[float, str, list[str]]] = []
        self.connection = log.connect(application_name="writer")
        self.execute = functools.partial(fetch, self.connection)

    def run(self, until: float) -> None:
        """Write until a time (monotonic); end what is prepared."""
        while time.monotonic() < until:
            ways = (self.commit, self.commit, self.roll_back, self.savepoints, self.event, self.prepare)
            self.random.choice(ways)()
            self.end_prepared(time.monotonic())
        self.end_prepared(float("inf"))

    def insert(self) -> str:
        """Insert a row and return its key."""
        self.keys += 1
        key = f"{self.number}-{self.keys}"
        self.execute("INSERT INTO item VALUES (%s, repeat('x', 200))", key)
        return key

    def pause(self) -> None:
        """Think; now and then for as long as several sealing runs take."""
        time.sleep(self.random.uniform(1, 4) if self.random.random() < 0.02 else self.random.expovariate(20))

    def commit(self) -> None:
        """Commit a few rows."""
        self.execute("BEGIN")
        keys = [self.insert() for _time in range(self.random.randint(1, 5))]
        self.pause()
        self.execute("COMMIT")
        self.committed += keys

    def roll_back(self) -> None:
        """Roll a row back."""
        self.execute("BEGIN")
        self.insert()
        self.pause()
        self.execute("ROLLBACK")

    def savepoints(self) -> None:
        """Commit rows around a savepoint that was rolled back."""
        self.execute("BEGIN")
        keys = [self.insert()] if self.random.random() < 0.5 else []
        self.execute("SAVEPOINT one")
        self.insert()
        self.pause()
        self.execute("ROLLBACK TO one")
        self.pause()
        keys.append(self.insert())
        self.execute("COMMIT")
        self.committed += keys

    def event(self) -> None:
        """Commit an event of the application."""
        self.keys += 1
        key = f"event-{self.number}-{self.keys}"
        self.execute("BEGIN")
        self.execute("SELECT audit.log_event('export', 'item', %s)", key)
        self.pause()
        self.execute("COMMIT")
        self.committed.append(key)

    def prepare(self) -> None:
        """Prepare a transaction, to be ended later."""
        self.execute("BEGIN")
        keys = [self.insert(), self.insert()]
        self.pause()
        name = f"p{keys[0]}"
        self.execute("PREPARE TRANSACTION %s", name)
        self.prepared.append((time.monotonic() + self.random.uniform(0, 4), name, keys))

    def end_prepared(self, now: float) -> None:
        """Commit or roll back what is prepared and due."""
        for due, name, keys in [waiting for waiting in self.prepared if waiting[0] <= now]:
            self.prepared.remove((due, name, keys))
            if self.random.random() < 0.3:
                self.execute("ROLLBACK PREPARED %s", name)
            else:
                self.execute("COMMIT PREPARED %s", name)
                self.committed += keys


class Background:
    """Repeats something in a thread until the end of a `with`; what it returned is in `results`."""

    def __init__(self, work: t.Callable[[], t.Any], every: float) -> None:
        self.results: list[t.Any] = []
        self._work = work
        self._every = every
        self._ended = threading.Event()
        self._threads = futures.ThreadPoolExecutor(1)

    def __enter__(self) -> Background:
        """Begin."""
        self._done = self._threads.submit(self._run)
        return self

    def __exit__(self, *_raised: object) -> None:
        """End."""
        self._ended.set()
        self._threads.shutdown()
        self._done.result()

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self.results.append(self._work())
