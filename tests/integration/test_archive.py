# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Old partitions of the log become verified archives, and leave the database."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from archiving import Archiver, add_old, old_log, partitions, period
from databases import Database
from local_postgresql import LocalPostgresql


@pytest.fixture
def log(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database with a log of six months."""
    with old_log(pg) as database:
        yield database


@pytest.fixture
def archiver(log: Database, tmp_path: pathlib.Path) -> Archiver:
    """Return what archives it."""
    return Archiver(log, tmp_path)


def test_a_partition_past_its_time_becomes_an_archive_and_leaves_the_log(log: Database, archiver: Archiver) -> None:
    add_old(log, 5, rows=250)
    add_old(log, 4, rows=30)
    add_old(log, 3, rows=7)
    log.execute("INSERT INTO item VALUES (1, 'now')")
    first = archiver.run()
    print(first)
    assert [made["name"] for made in first["archived"]] == [period(5), period(4)]
    assert first["dropped"] == [period(6), period(5), period(4)]
    assert set(partitions(log)) & {period(number) for number in (6, 5, 4)} == set()
    assert len(archiver.archived(period(5))) == 250
    assert archiver.problems() == []
    again = archiver.run()
    assert not again["changed"]
    assert (again["archived"], again["dropped"], again["kept"], again["statements"]) == ([], [], [], [])
