# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sealing and verifying by turns with bare queries that hash the same rows, in one session, hence on one core."""

from __future__ import annotations

import pathlib
import statistics
import time
import typing as t

import psycopg2.extras
from databases import Database, fetch

from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal_step import BLOCK_IDS
from ansible_collections.dbfleet.audit.plugins.module_utils._core.sql import sql
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.canonical import leaf
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.seal_store import SealStore
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.session import Session

WINDOW = BLOCK_IDS
ROUNDS = 9

_HASH_OF_ROW = """
SELECT count(sha256(convert_to(r::text, 'UTF8'))) FROM audit.audit_log_data AS r WHERE r.id > %s AND r.id <= %s
"""

_HASH_OF_TEXT = """
SELECT sha256(string_agg({leaf}, '' ORDER BY r.id)) FROM audit.audit_log_data AS r WHERE r.id > %s AND r.id <= %s
"""

ROW, TEXT, SEAL, VERIFY = "sha256 of r::text, counted", "sha256 of the canonical text, by id", "seal", "verify"


class Cost(t.NamedTuple):
    """Seconds for a window."""

    wall: float
    processor: float


def rates(db: Database, after: int) -> str:
    """Return the table of rows a second, for records after an id that are in no seal yet; none is afterwards."""
    connection = db.connect(application_name="rates", cursor_factory=psycopg2.extras.NamedTupleCursor)
    store = SealStore(Session(connection, db.name), "audit")
    fetch(connection, "SET max_parallel_workers_per_gather = 0; SET jit = off")
    last = int(fetch(connection, "SELECT max(id) FROM audit.audit_log_data")[0][0])
    rounds: list[dict[str, Cost]] = []
    for number in range(ROUNDS + 1):
        start = after + number % max((last - after) // WINDOW, 1) * WINDOW
        rounds.append(_round(connection, store, start, min(start + WINDOW, last)))
    rounds = rounds[1:]
    lines = [
        "| | records/s, median (rounds) | of the bare hash of the text, median (rounds) | same, processor time |",
        "|---|---:|---:|---:|",
    ]
    return "\n".join([*lines, *(_line(name, rounds) for name in (ROW, TEXT, SEAL, VERIFY))])


def _round(connection: t.Any, store: SealStore, start: int, end: int) -> dict[str, Cost]:
    hash_of_text = sql(_HASH_OF_TEXT, leaf=leaf("r")).render(store.session)
    actions: dict[str, t.Callable[[], t.Any]] = {
        ROW: lambda: fetch(connection, _HASH_OF_ROW, start, end),
        TEXT: lambda: fetch(connection, hash_of_text, start, end),
        SEAL: lambda: store.seal(start, end),
        VERIFY: lambda: store.check(start, end, []),
    }
    costs = {name: _cost(connection, action, end - start) for name, action in actions.items()}
    fetch(connection, "DELETE FROM audit.seal WHERE signature IS NULL")
    return costs


def _cost(connection: t.Any, action: t.Callable[[], t.Any], rows: int) -> Cost:
    """Return what one record cost."""
    schedule = pathlib.Path(f"/proc/{connection.info.backend_pid}/schedstat")
    before, began = int(schedule.read_text(encoding="ascii").split()[0]), time.monotonic()
    action()
    wall, after = time.monotonic() - began, int(schedule.read_text(encoding="ascii").split()[0])
    return Cost(wall / rows, (after - before) / 1e9 / rows)


def _line(name: str, rounds: t.Sequence[dict[str, Cost]]) -> str:
    speeds = _spread([1 / one[name].wall for one in rounds], "{:,.0f}")
    walls = _spread([one[TEXT].wall / one[name].wall for one in rounds], "{:.2f}")
    processor = _spread([one[TEXT].processor / one[name].processor for one in rounds], "{:.2f}")
    return f"| {name} | {speeds} | {walls} | {processor} |"


def _spread(values: t.Sequence[float], form: str) -> str:
    low, middle, high = (form.format(value) for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"
