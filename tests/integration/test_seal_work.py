# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What sealing and verifying ask of the server, counted instead of timed: it must not grow with what is sealed."""

from __future__ import annotations

import os
import typing as t

import pytest
from auditing import install_trail, rollout, wanted
from databases import Database
from local_postgresql import LocalPostgresql
from sealed_log import COUNTING, Work, counting_server, fill, work_of
from sealing import Sealer

NEW = 1_000
SMALL, LARGE = 20_000, 200_000
#: Of a run without anything to seal, however large the log.
MOST_STATEMENTS, MOST_MILLISECONDS = 16, 100
#: A run with rows makes two calls of the module: one that seals, one that stores the signatures.
MOST_STATEMENTS_WITH_ROWS = 30
#: Pages of a log that differ between two runs because of where a range of the index on ids begins: 128 pages a range,
#: at both ends, read by the search and by its summary.
RANGES = 4 * 128


class Measured(t.NamedTuple):
    """What runs cost with that much sealed."""

    nothing: Work
    new: Work


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[LocalPostgresql]:
    """Return a server that counts, on which nobody vacuums: statistics are missing and the index knows little."""
    directory = tmp_path_factory.mktemp("counting")
    settings = {**COUNTING, "fsync": "off", "synchronous_commit": "off", "autovacuum": "off"}
    made = LocalPostgresql.create(directory, settings=settings, while_pid=os.getpid())
    yield counting_server(made)
    made.remove()


@pytest.fixture(scope="module")
def log(server: LocalPostgresql, tmp_path_factory: pytest.TempPathFactory) -> tuple[Database, Sealer]:
    """Return a database with a trail, and its sealer."""
    db = Database(server)
    install_trail(db)
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    rollout(db, policies=[wanted("public.item")])
    return db, Sealer(db.login, tmp_path_factory.mktemp("sealing"), policies=[wanted("public.item")])


@pytest.fixture(scope="module")
def measured(log: tuple[Database, Sealer]) -> dict[int, Measured]:
    """Return what runs cost in a small log and in one ten times as large."""
    db, sealer = log
    found = {}
    for rows in (SMALL, LARGE):
        fill(db, rows - db.value("SELECT count(*) FROM audit.audit_log_data"))
        sealer.seal()
        nothing, result = work_of(db, sealer.seal)
        assert not result["changed"]
        assert result["unsealed"] == 0
        fill(db, NEW)
        new, result = work_of(db, sealer.seal)
        assert result["rows"] == NEW
        found[rows] = Measured(nothing, new)
    return found


def test_a_run_with_nothing_new_asks_little(measured: dict[int, Measured]) -> None:
    small, large = (measured[rows].nothing for rows in (SMALL, LARGE))
    assert small.statements == large.statements <= MOST_STATEMENTS
    assert abs(large.pages - small.pages) <= 20
    assert large.milliseconds < MOST_MILLISECONDS


def test_new_rows_cost_the_same_however_many_are_sealed(measured: dict[int, Measured]) -> None:
    small, large = (measured[rows].new for rows in (SMALL, LARGE))
    assert small.statements == large.statements <= MOST_STATEMENTS_WITH_ROWS
    assert large.pages <= small.pages + RANGES


@pytest.mark.usefixtures("measured")
def test_verifying_asks_one_question_for_each_window(log: tuple[Database, Sealer]) -> None:
    db, sealer = log
    without, _result = work_of(db, lambda: sealer.verify(scope="new", from_id=LARGE))
    assert sealer.verify()["problems"] == []
    work, result = work_of(db, sealer.verify)
    assert result["rows_checked"] == LARGE + NEW
    # Of about 100,000 rows each, and one for what lies beyond all seals.
    windows = 5
    # Where the watermark is, and the comparison.
    assert work.statements <= without.statements + 2 * windows


@pytest.mark.usefixtures("measured")
def test_a_window_is_sorted_and_compared_in_memory(log: tuple[Database, Sealer]) -> None:
    db, sealer = log
    fill(db, 110_000)
    for action in (sealer.seal, sealer.verify):
        work, _result = work_of(db, action)
        assert work.spilled == 0
