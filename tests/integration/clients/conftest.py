# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the applications of these tests connect to: a database with an audited table, and a pgbouncer before it."""

from __future__ import annotations

import os
import typing as t

import pytest
from client_examples import Notes, audited_notes
from databases import Database
from local_pgbouncer import LocalPgbouncer
from local_postgresql import LocalPostgresql


@pytest.fixture(scope="module")
def shop(pg: LocalPostgresql) -> t.Iterator[tuple[Database, str]]:
    """Return the database of the notes, and the application's login."""
    with audited_notes(pg) as made:
        yield made


@pytest.fixture
def notes(shop: tuple[Database, str]) -> Notes:
    """Return the notes that this test writes."""
    return Notes(*shop)


@pytest.fixture(scope="module")
def bouncer(shop: tuple[Database, str], tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[LocalPgbouncer]:
    """Return a pgbouncer in transaction mode whose clients share one connection to the database."""
    db, login = shop
    made = LocalPgbouncer.create(tmp_path_factory.mktemp("bouncer"), db.server, login, while_pid=os.getpid())
    yield made
    made.remove()
