# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measures archiving. benchmarks/archive/run starts it."""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import os
import pathlib
import shutil
import statistics
import sys
import time
import typing as t

from controller import Controller, Run, processor_of_children
from databases import Database
from local_postgresql import LocalPostgresql
from measuring import say
from old_months import copy_partitions, old_months, partitions
from running import CACHE

from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive_step import PART_BYTES

HOME = CACHE / "benchmark-archive"

# As benchmarks/seal: in memory, and nothing has to survive a power cut.
SETTINGS = {
    "shared_buffers": "1GB",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_wal_size": "32GB",
    "checkpoint_timeout": "1d",
}

#: What a call of the host gives is kept in memory at both ends. Of so small ones a quarter of the rows takes several;
#: of so many rows, a quarter takes several of any.
SMALL_PART, MANY_ROWS = 1 << 18, 10_000_000

COPY_1, COPY_2 = "COPY &#124; gzip, one at a time", "COPY &#124; gzip, two at a time"
ARCHIVE_1, ARCHIVE_2, DATABASES = (
    "archive, parallel: 1",
    "archive, parallel: 2",
    "archive, two databases, parallel: 1 each",
)

#: By what each is compared: the same work with as many at a time.
BARE = {COPY_1: COPY_1, ARCHIVE_1: COPY_1, COPY_2: COPY_2, ARCHIVE_2: COPY_2, DATABASES: COPY_2}


class Turn(t.NamedTuple):
    """What one way took in one round: seconds, and of the processor: of the server, of what runs beside it, of us."""

    rows: int
    seconds: float
    server: float
    host: float
    controller: float


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", dest="rows", action="store_const", const=100_000, default=1_000_000)
    options.add_argument("--full", dest="rows", action="store_const", const=10_000_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--profile", action="store_true")
    options.add_argument("--memory", action="store_true")
    given = options.parse_args()
    shutil.rmtree(HOME, ignore_errors=True)
    server = LocalPostgresql.create(HOME / "server", settings=SETTINGS, while_pid=os.getpid())
    try:
        print(f"PostgreSQL {server.version}, {os.cpu_count()} cores")
        for text in measure(server, given):
            print(f"\n{text}", flush=True)
    finally:
        server.remove()
        shutil.rmtree(HOME, ignore_errors=True)
    return 0


def measure(server: LocalPostgresql, given: argparse.Namespace) -> t.Iterator[str]:
    """Give the tables of memory and of rates."""
    logs = [log_of(server, given.rows // 4), log_of(server, given.rows)]
    if not given.memory:
        logs.append(Database(server, template=logs[1].name))
    say("sealing")
    with contextlib.ExitStack() as processes:
        quarter, *controllers = [processes.enter_context(Controller(log, HOME / f"of-{log.name}")) for log in logs]
        say("memory")
        yield memory([quarter, controllers[0]], (PART_BYTES,) if given.rows >= MANY_ROWS else (SMALL_PART, PART_BYTES))
        if given.memory:
            return
        yield rates(logs[1], controllers, given.rounds)
        if given.profile:
            say("profile")
            yield from profiles(controllers[0])


def memory(controllers: t.Sequence[Controller], parts: t.Sequence[int]) -> str:
    """Return the table of memory.

    :param parts: how many bytes a call gives. The fewest come first, for what a process had once stays its highest.
    """
    lines = ["| rows | parts, MB | controller, MB | server, its modules, MB |", "|---:|---:|---:|---|"]
    for part in parts:
        for controller in controllers:
            controller.start(parallel=2, memory=True, part=part)
            run = controller.finish()
            lines.append(f"| {run.rows:,} | {part / (1 << 20):g} | {run.highest:.0f} | {run.memory} |")
    return "\n".join(lines)


def log_of(server: LocalPostgresql, rows: int) -> Database:
    """Return a log with that many rows that has no connections."""
    say(f"a log of {rows:,} records")
    log = old_months(server, rows)
    log.disconnect()
    return log


def rates(log: Database, controllers: t.Sequence[Controller], rounds: int) -> str:
    """Return the table of what all ways take by turns."""
    names = partitions(log)
    directory = HOME / "copies"
    turns: list[dict[str, Turn]] = []
    run: Run | None = None

    def archive(among: t.Sequence[Controller], parallel: int) -> tuple[int, float, float]:
        nonlocal run
        for controller in among:
            controller.start(parallel=parallel)
        runs = [controller.finish() for controller in among]
        run = runs[0]
        return sum(one.rows for one in runs), sum(one.module for one in runs), sum(one.controller for one in runs)

    def copy(at_once: int) -> tuple[int, float, float]:
        before = os.times()
        copy_partitions(log, names, at_once, directory)
        after = os.times()
        taken = after.children_user + after.children_system - before.children_user - before.children_system
        return 0, taken, 0.0

    ways = {
        COPY_1: functools.partial(copy, 1),
        ARCHIVE_1: functools.partial(archive, controllers[:1], 1),
        COPY_2: functools.partial(copy, 2),
        ARCHIVE_2: functools.partial(archive, controllers[:1], 2),
        DATABASES: functools.partial(archive, controllers, 1),
    }
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        turns.append({name: turn(log, way) for name, way in ways.items()})
    assert run
    return table(turns, run, HOME / f"of-{log.name}", directory)


def turn(log: Database, way: t.Callable[[], tuple[int, float, float]]) -> Turn:
    """Do something one way."""
    postmaster = int((log.server.data / "postmaster.pid").read_text(encoding="ascii").split()[0])
    before, began = processor_of_children(postmaster), time.monotonic()
    rows, host, controller = way()
    seconds = time.monotonic() - began
    # The server's processes end a moment after their sessions.
    time.sleep(0.3)
    return Turn(rows, seconds, processor_of_children(postmaster) - before, host, controller)


def table(turns: t.Sequence[dict[str, Turn]], run: Run, archives: pathlib.Path, copies: pathlib.Path) -> str:
    """Return the table of ways."""
    all_rows = run.rows
    text = size_of(archives.glob("archive/*/*/*.gz"))
    size = text / all_rows
    copied = size_of(copies.glob("*.gz")) / all_rows
    lines = [
        f"Canonical text: {size:.0f} bytes a row, {run.files / all_rows:.0f} compressed; COPY's: {copied:.0f}.",
        f"Progress: {len(run.progress)} lines, such as: {run.progress[-1].strip()}",
        "",
        "| | rows/s, median (rounds) | MB/s | of COPY &#124; gzip, median (rounds) "
        "| processor, µs a row: server, beside it, controller |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, bare in BARE.items():
        speeds = [(one[name].rows or all_rows) / one[name].seconds for one in turns]
        ratios = [speed / (all_rows / one[bare].seconds) for speed, one in zip(speeds, turns)]
        parts = ((one[name][2:], one[name].rows or all_rows) for one in turns)
        processor = [[1e6 * part / rows for part in taken] for taken, rows in parts]
        medians = ", ".join(f"{statistics.median(column):.1f}" for column in zip(*processor))
        speed = spread(speeds, "{:,.0f}")
        megabytes = statistics.median(speeds) * size / 1e6
        lines.append(f"| {name} | {speed} | {megabytes:.0f} | {spread(ratios, '{:.2f}')} | {medians} |")
    return "\n".join(lines)


def profiles(controller: Controller) -> t.Iterator[str]:
    """Tell what an archiving run does, step by step and in the controller's functions."""
    for parallel in (1, 2):
        controller.start(parallel=parallel)
        run = controller.finish()
        asked = sum(seconds for seconds, _calls in run.steps.values())
        lines = [
            f"parallel: {parallel}, {run.seconds:.1f} s, of which",
            "",
            "| step | seconds | calls |",
            "|---|---:|---:|",
        ]
        lines += [f"| {name} | {seconds:.2f} | {calls} |" for name, (seconds, calls) in run.steps.items()]
        yield "\n".join([*lines, f"| on the controller | {run.seconds - asked:.2f} | |"])
    controller.start(parallel=1, profile=True)
    yield f"```\n{controller.finish().profile.strip()}\n```"


def size_of(paths: t.Iterable[pathlib.Path]) -> int:
    """Return how many bytes there are in compressed files."""
    total = 0
    for path in paths:
        with gzip.open(path) as file:
            while read := len(file.read(1 << 20)):
                total += read
    return total


def spread(values: t.Sequence[float], form: str) -> str:
    """Return median and range."""
    low, middle, high = (form.format(value) for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


if __name__ == "__main__":
    sys.exit(main())
