# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sealing: which rows are in which seal, what a run does, what a run that was cut off leaves."""

from __future__ import annotations

import pathlib

import pytest
from auditing import rollout, wanted
from databases import Database
from sealing import Sealer


@pytest.fixture
def sealer(trail: Database, tmp_path: pathlib.Path) -> Sealer:
    """Return a sealer of a database with one audited table, `item (id, name)`."""
    trail.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    rollout(trail, policies=[wanted("public.item")])
    return Sealer(trail.login, tmp_path, policies=[wanted("public.item")])


def add(db: Database, first: int, last: int) -> None:
    """Make audited changes."""
    db.execute("INSERT INTO item SELECT i, 'item ' || i FROM generate_series(%s, %s) AS i", first, last)


def test_what_is_committed_is_sealed_once(trail: Database, sealer: Sealer) -> None:
    add(trail, 1, 100)
    result = sealer.seal()
    total = trail.value("SELECT count(*) FROM audit.audit_log_data")
    assert (result["changed"], result["rows"]) == (True, total)
    again = sealer.seal()
    assert (again["changed"], again["seals"]) == (False, [])
    verified = sealer.verify()
    assert (verified["problems"], verified["rows_checked"]) == ([], total)
