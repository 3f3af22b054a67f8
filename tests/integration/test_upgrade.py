# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Trails that earlier releases have left are upgraded, and one that a newer release has left is brought back."""

from __future__ import annotations

import pathlib
import re
import subprocess
import time
import typing as t

import pytest
import running
import trail_fixture
from databases import Database, fetch
from local_postgresql import LocalPostgresql
from psycopg2.errors import InsufficientPrivilege
from seal_writers import Background
from trail_fixture import APPLICATION, POSTGRESQL, READER, FixtureSealer, without_policies, write_postgresql
from upgrading import NEWEST, OLDEST, Restored, every_trail, one_trail, prove_upgrade, prove_way_back

from ansible_collections.dbfleet.audit.plugins.module_utils._core.schema_version import SCHEMA_VERSION
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql import trail_functions

LOCK_TIMEOUT = 1.0
ROWS = "SELECT id, audit.canonical(d) FROM audit.audit_log_data AS d ORDER BY id"


@pytest.fixture(scope="module")
def fresh(pg: LocalPostgresql, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[set[str]]:
    """Return the catalogue of such a database that this release has made."""
    db = Database(pg)
    trail_fixture.fill_postgresql(db, tmp_path_factory.mktemp("keys"))
    yield catalogue(db)
    db.drop()


@pytest.fixture
def restored(db: Database, tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Restored:
    """Return a restored database."""
    trail_fixture.restore_postgresql(db, request.param)
    return Restored(
        engine="postgresql",
        place=db,
        options=POSTGRESQL,
        sealer=FixtureSealer(db.login, tmp_path, "postgresql", request.param),
        rows=lambda: db.execute(ROWS),
        catalogue=lambda: catalogue(db),
        write=lambda number: write_postgresql(db, number),
    )


def catalogue(db: Database) -> set[str]:
    """Return what pg_dump tells of the database, object by object; periods are not told apart."""
    place = ["-h", db.server.socket_dir, "-p", str(db.server.port), "-U", "postgres", "--schema-only", db.name]
    command = [db.server.binaries / "pg_dump", *place]
    dump = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    dump = re.sub(r"\b(audit_log_)\d{4}_\d\d", r"\1period", dump)
    dump = re.sub(r"FOR VALUES FROM \('20.*|\\(un)?restrict .*", "", dump)
    return set(re.split(r"\n--\n-- Name: ", dump)[1:])


@every_trail
def test_an_upgrade_keeps_rows_and_seals_and_ends_like_a_fresh_trail(restored: Restored, fresh: set[str]) -> None:
    prove_upgrade(restored, fresh)


@one_trail(OLDEST)
def test_writers_wait_for_an_upgrade_no_longer_than_its_lock_timeout(
    restored: Restored, db: Database, fresh: set[str]
) -> None:
    holder = db.connect(autocommit=False)
    fetch(holder, "INSERT INTO person VALUES (900, 'who takes a long time')")
    writer = db.connect(user=APPLICATION)
    numbers = iter(range(1000, 9999))

    def write() -> float:
        began = time.monotonic()
        fetch(writer, "INSERT INTO person VALUES (%s, 'x')", next(numbers))
        return time.monotonic() - began

    with Background(write, 0.01) as writes:
        result = restored.trail(lock_timeout=LOCK_TIMEOUT, lock_retries=1, may_fail=True)
    assert "left as it was, the rest is done: audit.audit_log_data (" in result.msg
    assert LOCK_TIMEOUT / 2 < max(writes.results) < LOCK_TIMEOUT * 1.5
    # A run that waits once more, and is killed.
    killed_while_waiting(db)
    holder.rollback()
    restored.roll_out()
    assert catalogue(db) == fresh
    assert restored.roll_out() == [False] * 3
    assert restored.sealer.verify()["problems"] == []


def killed_while_waiting(db: Database) -> None:
    """Kill a run of the trail's module, and its session, while it waits for a lock."""
    options = without_policies(POSTGRESQL)
    process = running.start_module("postgresql_audit_trail", **db.login, **options, lock_timeout=60)
    waiting = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while not db.value(f"SELECT count(*) {waiting}"):
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert db.value(f"SELECT pg_terminate_backend(pid) {waiting}")


#: What the code of a newer release differs in.
NEWER = {
    "trail_functions.SCHEMA_VERSION": 99,
    "trail_functions._INDEXABLE": trail_functions._INDEXABLE.replace("SELECT", "SELECT /* newer */", 1),
}


@one_trail(NEWEST)
def test_a_trail_of_a_newer_release_is_refused_and_goes_back_only_on_purpose(restored: Restored) -> None:
    prove_way_back(restored, NEWER)


@one_trail(NEWEST)
def test_readers_see_the_version_and_applications_do_not(restored: Restored, db: Database) -> None:
    restored.roll_out()
    query = "SELECT audit.schema_version()"
    assert db.value(query, user=READER) == SCHEMA_VERSION
    with pytest.raises(InsufficientPrivilege):
        db.value(query, user=APPLICATION)
    with pytest.raises(InsufficientPrivilege):
        db.execute("CREATE OR REPLACE FUNCTION audit.schema_version() RETURNS integer", user=READER)
