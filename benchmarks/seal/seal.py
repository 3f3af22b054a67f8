# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measures sealing and verifying. benchmarks/seal/run starts it."""

from __future__ import annotations

import os
import pathlib
import shutil
import statistics
import sys
import typing as t

from auditing import install_trail, rollout, wanted
from databases import Database
from index_price import price_of_the_index
from local_postgresql import LocalPostgresql
from measuring import say
from memory import highest_memory
from rates import WINDOW, rates
from running import CACHE
from sealed_log import COUNTING, counting_server, fill, work_of
from sealing import Sealer

HOME = CACHE / "benchmark-seal"
RUNS = 5
NEW = 1000

# The log fits into the machine's memory; nothing has to survive a power cut, and a checkpoint must not hit one query.
SETTINGS = {
    **COUNTING,
    "shared_buffers": "1GB",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_wal_size": "32GB",
    "checkpoint_timeout": "1d",
}


class Size(t.NamedTuple):
    """What was measured with that many records in the log."""

    rows: int
    seal: str
    verify: str
    nothing: str
    new: str
    space: str


def main() -> int:
    """Measure and print."""
    sizes = {"--quick": [10_000, 100_000], "--full": [10_000, 1_000_000, 10_000_000]}
    wanted_sizes = sizes.get(sys.argv[1] if len(sys.argv) > 1 else "", [10_000, 1_000_000])
    shutil.rmtree(HOME, ignore_errors=True)
    server = counting_server(LocalPostgresql.create(HOME / "server", settings=SETTINGS, while_pid=os.getpid()))
    try:
        print(f"PostgreSQL {server.version}, {os.cpu_count()} cores")
        for table in measure(server, wanted_sizes):
            print(f"\n{table}", flush=True)
        say("what the index on ids costs a change")
        print(f"\n{price_of_the_index(server)}")
    finally:
        server.remove()
    return 0


def measure(server: LocalPostgresql, sizes: t.Sequence[int]) -> t.Iterator[str]:
    """Give the tables of rates and of sizes, from one log that grows."""
    db = Database(server)
    install_trail(db)
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    policies = [wanted("public.item")]
    rollout(db, policies=policies)
    sealer = Sealer(db.login, pathlib.Path(HOME), policies=policies)
    sealer.seal()
    found, compared = [], False
    for rows in sizes:
        say(f"a log of {rows} records")
        last = db.value("SELECT max(id) FROM audit.audit_log_data")
        fill(db, rows - db.value("SELECT count(*) FROM audit.audit_log_data"))
        if not compared and rows >= WINDOW:
            say("rates")
            compared = True
            yield rates(db, last)
        found.append(at_size(db, sealer, rows))
    headers = "| records | sealing all that was added: processes' memory, MB | verifying all | run with nothing new "
    lines = [
        f"{headers}| run with {NEW} new records | seals on disk |",
        "|---:|---|---|---|---|---|",
        *("| " + " | ".join(str(field) for field in size) + " |" for size in found),
    ]
    yield "\n".join(lines)


def at_size(db: Database, sealer: Sealer, rows: int) -> Size:
    """Seal what is there, then measure what runs cost."""
    say("  sealing")
    seal, sealed = highest_memory(db, sealer.seal)
    say("  verifying")
    verify, verified = highest_memory(db, sealer.verify)
    if verified["problems"] or sealed["unsealed"]:
        raise AssertionError(f"not clean: {verified['problems'][:3]}, {sealed['unsealed']} unsealed")
    nothing = [work_of(db, sealer.seal)[0] for _run in range(RUNS)]
    new = []
    for _run in range(RUNS):
        fill(db, NEW)
        new.append(work_of(db, sealer.seal)[0])
    return Size(rows, seal, verify, in_words(nothing), in_words(new), space(db, sealer))


def in_words(works: t.Sequence[t.Any]) -> str:
    """Return the median of what some runs cost the server."""
    milliseconds = statistics.median(work.milliseconds for work in works)
    pages = statistics.median(work.pages for work in works)
    return f"{works[0].statements} statements, {milliseconds:.0f} ms, {pages:.0f} pages"


def space(db: Database, sealer: Sealer) -> str:
    """Return what the seals take in the database and in the ledger."""
    rows, size = db.execute("SELECT sum(row_count), pg_total_relation_size('audit.seal') FROM audit.seal")[0]
    lines = sealer.ledger.read_bytes().count(b"\n")
    ledger = sealer.ledger.stat().st_size
    return f"{size / int(rows):.1f} bytes a record; ledger: {lines} seals of {ledger / lines:.0f} bytes"


if __name__ == "__main__":
    sys.exit(main())
