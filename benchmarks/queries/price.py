# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What each index of the log costs an audited change: time of the server's processor, log written ahead, and rate."""

from __future__ import annotations

import pathlib
import random
import statistics
import time
import typing as t

from databases import Database, fetch
from filled_log import USERS, trail_of_months
from local_postgresql import LocalPostgresql
from running import run_module

ROUNDS = 11
CHANGES = 500
PEOPLE = 100_000

# Room in the pages, so that what is measured is the log and not the table's own index.
PEOPLE_TABLE = """
CREATE TABLE people (id int PRIMARY KEY, email text, name text, city text, amount numeric, status text, note text,
                     updated_at timestamptz) WITH (fillfactor = 50, autovacuum_enabled = off);
INSERT INTO people
SELECT n, format('user%%s@example.com', n), 'Name of ' || n, 'Springfield', n, 'new', md5(n::text), now()
FROM generate_series(1, %s) AS n;
ANALYZE people
"""

# One message, hence one transaction.
_CHANGE = """
SELECT set_config('app.user', %s, true);
UPDATE people SET amount = amount + 1, updated_at = now() WHERE id = %s
"""


class Cost(t.NamedTuple):
    """What one change cost in one round, in seconds."""

    #: Of the server's process that works for the session: what else runs on the machine shows less in it.
    processor: float
    wall: float


def price_of_a_change(
    server: LocalPostgresql, rows: int, indexes: t.Sequence[str], say: t.Callable[[str], None]
) -> str:
    """Return the table of audited single-row updates, into the log of a month that holds that many records already."""
    say(f"what indexes cost a change, in a month of {rows} records")
    month = trail_of_months(server, rows, 1)
    month.execute(PEOPLE_TABLE, PEOPLE)
    run_module("postgresql_audit_triggers", **month.login, policies=[{"name": "people", "tables": ["public.people"]}])
    month.disconnect()
    sets = {"none": [], **{index: [index] for index in indexes}, "all": list(indexes)}
    sessions = {name: copy_of(month, chosen).connect() for name, chosen in sets.items()}
    # Brings what is needed into memory, too.
    wal = {name: written_ahead(session) for name, session in sessions.items()}
    rounds: dict[str, list[Cost]] = {name: [] for name in sets}
    for _number in range(ROUNDS):
        for name, cost in one_round(sessions).items():
            rounds[name].append(cost)
    lines = [
        "| indexes | changes/s | processor, µs a change | of none, median (rounds) | written ahead, bytes a change |",
        "|---|---:|---:|---:|---:|",
    ]
    return "\n".join([*lines, *(line_of(name, rounds[name], rounds["none"], wal[name]) for name in sets)])


def copy_of(month: Database, indexes: t.Sequence[str]) -> Database:
    """Return a copy of a database whose log has these indexes."""
    copy = Database(month.server, template=month.name)
    run_module("postgresql_audit_trail", **copy.login, indexes=list(indexes))
    return copy


def one_round(sessions: t.Mapping[str, t.Any]) -> dict[str, Cost]:
    """Return what a change cost in each session; they take turns after every change, so that all have the same luck."""
    before = {name: processor_seconds(session) for name, session in sessions.items()}
    walls = dict.fromkeys(sessions, 0.0)
    for _number in range(CHANGES):
        for name, session in sessions.items():
            began = time.monotonic()
            change(session)
            walls[name] += time.monotonic() - began
    return {
        name: Cost((processor_seconds(session) - before[name]) / CHANGES, walls[name] / CHANGES)
        for name, session in sessions.items()
    }


def change(session: t.Any) -> None:
    """Change one row, in a transaction of its own."""
    person = f"user{random.randrange(USERS)}@example.com"
    with session.cursor() as cursor:
        cursor.execute(_CHANGE, (person, random.randint(1, PEOPLE)))


def written_ahead(session: t.Any) -> float:
    """Return how many bytes the server writes ahead for a change, while nobody else writes on it."""
    position = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
    before = fetch(session, position)[0][0]
    for _number in range(CHANGES):
        change(session)
    return float(fetch(session, position)[0][0] - before) / CHANGES


def processor_seconds(session: t.Any) -> float:
    """Return how long the server's process of a session has been running on a processor."""
    schedule = pathlib.Path(f"/proc/{session.info.backend_pid}/schedstat")
    return int(schedule.read_text(encoding="ascii").split()[0]) / 1e9


def line_of(name: str, rounds: t.Sequence[Cost], bare: t.Sequence[Cost], wal: float) -> str:
    """Return a row: what counts are the ratios within each round."""
    rate = 1 / statistics.median(one.wall for one in rounds)
    processor = statistics.median(one.processor for one in rounds) * 1e6
    shares = sorted(mine.processor / without.processor for mine, without in zip(rounds, bare))
    share = f"{statistics.median(shares):.2f} ({shares[0]:.2f} to {shares[-1]:.2f})"
    return f"| {name} | {rate:.0f} | {processor:.0f} | {share} | {wal:.0f} |"
