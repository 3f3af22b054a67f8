# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measures the questions of docs/investigations.md and what indexes cost. benchmarks/queries/run starts it."""

from __future__ import annotations

import os
import shutil
import sys
import time
import typing as t

from databases import Database, fetch
from filled_log import trail_of_months
from investigations import investigations
from local_postgresql import LocalPostgresql
from measuring import say
from plans import Plan, plan_of
from price import price_of_a_change
from running import CACHE, run_module

HOME = CACHE / "benchmark"
MONTHS = 12
INDEXES = ("record", "changed_by", "changed_at", "transaction")
SESSION = "The session"
#: With the server's default, to compile a query that looks expensive.
COMPILED = "jit"

# The log fits into the machine's memory; nothing has to survive a power cut, and a checkpoint must not hit one query.
SETTINGS = {
    "shared_buffers": "1GB",
    "work_mem": "64MB",
    "maintenance_work_mem": "512MB",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_wal_size": "32GB",
    "checkpoint_timeout": "1d",
}

#: A query that takes longer than this is not run a second time with everything in memory.
SLOW = 2000


def main() -> int:
    """Measure and print."""
    rows = int(sys.argv[1])
    shutil.rmtree(HOME, ignore_errors=True)
    server = LocalPostgresql.create(HOME / "server", settings=SETTINGS, while_pid=os.getpid())
    try:
        say(f"a log of {MONTHS} months with {rows} records")
        log = trail_of_months(server, rows, MONTHS)
        tables = [ask_everything(log, rows)]
        log.drop()
        tables.append(price_of_a_change(server, rows // MONTHS, INDEXES, say))
    finally:
        server.remove()
    print(f"\nPostgreSQL {server.version}, {os.cpu_count()} cores, {rows} records in {MONTHS} months")
    for table in tables:
        print(f"\n{table}")
    return 0


def ask_everything(log: Database, rows: int) -> str:
    """Return the tables of the questions and of the indexes' sizes."""
    queries = investigations("postgresql")
    session = log.connect()
    fetch(session, "SET ROLE audit_reader")
    fetch(session, queries.pop(SESSION))
    answers: dict[str, dict[str, Plan]] = {title: {} for title in queries}
    for setting, name in (("on", COMPILED), ("off", "none")):
        fetch(session, f"SET jit = {setting}")
        for title, query in queries.items():
            answers[title][name] = ask(session, query)
    sizes = [f"| heap | {log_size(log) / rows:.0f} | |"]
    for index in INDEXES:
        seconds = make_index(log, index)
        say(f"index {index}")
        sizes.append(f"| {index} | {index_size(log, index) / rows:.1f} | {seconds:.1f} |")
        for title, query in queries.items():
            if any(index in scan.split() for scan in plan_of(session, query).scans):
                answers[title][index] = ask(session, query)
        fetch(log.connect(), f"DROP INDEX audit.audit_log_{index}_idx")
    names = ("no index, jit = on", "no index", *INDEXES)
    lines = [
        f"| question | rows | {' | '.join(names)} | partitions read, of those with rows |",
        f"|---|---:|{'---:|' * len(names)}---|",
        *(line_of(title, plans) for title, plans in answers.items()),
    ]
    sizes[:0] = ["| index | MB per million records | seconds to make |", "|---|---:|---:|"]
    return "\n".join([*lines, "", *sizes])


def ask(session: t.Any, query: str) -> Plan:
    """Return how a query was executed, with its data in memory if that does not take long."""
    plan = plan_of(session, query, execute=True)
    say(f"  {plan.milliseconds:.1f} ms: {' '.join(query.split())[:80]}")
    return plan if plan.milliseconds > SLOW else plan_of(session, query, execute=True)


def line_of(title: str, plans: dict[str, Plan]) -> str:
    """Return a question's row: milliseconds without an index and with each one that it uses, and the quickest plan."""
    best = min(plans.values(), key=lambda plan: plan.milliseconds)
    times = [f"{plans[name].milliseconds:.1f}" if name in plans else "" for name in (COMPILED, "none", *INDEXES)]
    return f"| {title} | {best.rows} | {' | '.join(times)} | {best} |"


def make_index(log: Database, index: str) -> float:
    """Have the module make one index and return how many seconds that took."""
    began = time.monotonic()
    run_module("postgresql_audit_trail", **log.login, indexes=[index])
    return time.monotonic() - began


def index_size(log: Database, index: str) -> int:
    """Return the bytes of an index of the log, on all partitions."""
    return log.value(
        "SELECT sum(pg_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = %s::regclass",
        f"audit.audit_log_{index}_idx",
    )


def log_size(log: Database) -> int:
    """Return the bytes of the log's rows, on all partitions."""
    return log.value(
        "SELECT sum(pg_table_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'audit.audit_log_data'::regclass"
    )


if __name__ == "__main__":
    sys.exit(main())
