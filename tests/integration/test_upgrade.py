# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Trails that earlier releases have left are upgraded, and one that a newer release has left is brought back."""

from __future__ import annotations

import functools
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
from trail_fixture import APPLICATION, POSTGRESQL, READER, TRAILS, FixtureSealer, write_postgresql

from ansible_collections.dbfleet.audit.plugins.module_utils._core.schema_version import SCHEMA_VERSION
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql import trail_functions

OLDEST, *BETWEEN, NEWEST = sorted(path.name for path in TRAILS.iterdir())
LOCK_TIMEOUT = 1.0
ROWS = "SELECT id, audit.canonical(d) FROM audit.audit_log_data AS d ORDER BY id"

roll_out = functools.partial(trail_fixture.roll_out, "postgresql")


class Restored(t.NamedTuple):
    """A database as an earlier release has left it."""

    db: Database
    sealer: FixtureSealer


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
    return Restored(db, FixtureSealer(db.login, tmp_path, "postgresql", request.param))


def catalogue(db: Database) -> set[str]:
    """Return what pg_dump tells of the database, object by object; periods are not told apart."""
    place = ["-h", db.server.socket_dir, "-p", str(db.server.port), "-U", "postgres", "--schema-only", db.name]
    command = [db.server.binaries / "pg_dump", *place]
    dump = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    dump = re.sub(r"\b(audit_log_)\d{4}_\d\d", r"\1period", dump)
    dump = re.sub(r"FOR VALUES FROM \('20.*|\\(un)?restrict .*", "", dump)
    return set(re.split(r"\n--\n-- Name: ", dump)[1:])


def trail_module(db: Database, **options: t.Any) -> running.ModuleResult:
    """Run the module of the trail alone."""
    options = {key: value for key, value in {**POSTGRESQL, **options}.items() if key != "policies"}
    return running.run_module("postgresql_audit_trail", **db.login, **options)


def version_told(db: Database) -> t.Any:
    """Return what the info module says."""
    return running.run_module("postgresql_audit_info", **db.login, databases=[db.name], gather=["grants"])["trails"][0][
        "schema_version"
    ]


@pytest.mark.parametrize(
    "restored",
    [OLDEST, *(pytest.param(name, marks=pytest.mark.thorough) for name in BETWEEN), NEWEST],
    indirect=True,
)
def test_an_upgrade_keeps_rows_and_seals_and_ends_like_a_fresh_trail(restored: Restored, fresh: set[str]) -> None:
    db, sealer = restored
    rows = db.execute(ROWS)
    found = version_told(db)
    assert sealer.seal_problems() == []
    trail = trail_module(db)
    assert trail["schema_version"] == SCHEMA_VERSION
    # Functions of the trail are new, those of the policies are not yet.
    write_postgresql(db, 5)
    changed = [trail.changed, *roll_out(db.login, POSTGRESQL)[1:]]
    if found == SCHEMA_VERSION:
        assert changed == [False] * 3, "what is put into databases has changed: raise SCHEMA_VERSION"
    write_postgresql(db, 6)
    assert roll_out(db.login, POSTGRESQL) == [False] * 3
    assert db.execute(ROWS)[: len(rows)] == rows
    assert catalogue(db) == fresh
    assert version_told(db) == SCHEMA_VERSION
    assert sealer.verify()["problems"] == []
    sealer.seal()
    result = sealer.verify(self_test=True)
    assert (result["problems"], result["unsealed"]) == ([], 0)


@pytest.mark.parametrize("restored", [OLDEST], indirect=True)
def test_writers_wait_for_an_upgrade_no_longer_than_its_lock_timeout(restored: Restored, fresh: set[str]) -> None:
    db = restored.db
    holder = db.connect(autocommit=False)
    fetch(holder, "INSERT INTO person VALUES (900, 'who takes a long time')")
    writer = db.connect(user=APPLICATION)
    numbers = iter(range(1000, 9999))

    def write() -> float:
        began = time.monotonic()
        fetch(writer, "INSERT INTO person VALUES (%s, 'x')", next(numbers))
        return time.monotonic() - began

    with Background(write, 0.01) as writes:
        result = trail_module(db, lock_timeout=LOCK_TIMEOUT, lock_retries=1, may_fail=True)
    assert "left as it was, the rest is done: audit.audit_log_data (" in result.msg
    assert LOCK_TIMEOUT / 2 < max(writes.results) < LOCK_TIMEOUT * 1.5
    # A run that waits once more, and is killed.
    killed_while_waiting(db)
    holder.rollback()
    roll_out(db.login, POSTGRESQL)
    assert catalogue(db) == fresh
    assert roll_out(db.login, POSTGRESQL) == [False] * 3
    assert restored.sealer.verify()["problems"] == []


def killed_while_waiting(db: Database) -> None:
    """Kill a run of the trail's module, and its session, while it waits for a lock."""
    options = {key: value for key, value in POSTGRESQL.items() if key != "policies"}
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


@pytest.mark.parametrize("restored", [NEWEST], indirect=True)
def test_a_trail_of_a_newer_release_is_refused_and_goes_back_only_on_purpose(restored: Restored) -> None:
    db, sealer = restored
    roll_out(db.login, POSTGRESQL)
    assert trail_module(db, _constants=NEWER).changed
    db.execute("ALTER TABLE audit.audit_log_data ADD COLUMN origin text")
    write_postgresql(db, 5)
    rows, newer = db.execute(ROWS), catalogue(db)
    words = f"was made by a newer dbfleet.audit (schema version 99, this release knows {SCHEMA_VERSION})"
    for check_mode in (True, False):
        refused = trail_module(db, may_fail=True, check_mode=check_mode)
        assert words in refused.msg
        assert "allow_downgrade" in refused.msg
        assert refused["schema_version"] == 99
    policies = [{**policy, "tags": ["new"]} for policy in POSTGRESQL["policies"]]
    assert words in running.run_module("postgresql_audit_triggers", **db.login, policies=policies, may_fail=True).msg
    assert catalogue(db) == newer
    # What can go on does.
    sealer.seal()
    assert sealer.seal_problems() == []
    assert [words in problem["detail"] for problem in sealer.verify()["problems"] if problem["type"] == "refused"] == [
        True
    ]
    assert roll_out(db.login, POSTGRESQL, allow_downgrade=True)[0]
    write_postgresql(db, 6)
    assert roll_out(db.login, POSTGRESQL) == [False] * 3
    assert db.execute(ROWS)[: len(rows)] == rows
    assert db.value("SELECT count(*) FROM audit.audit_log_data WHERE origin IS NULL") > len(rows)
    assert sealer.verify()["problems"] == []
    sealer.seal()
    assert sealer.verify()["problems"] == []


@pytest.mark.parametrize("restored", [NEWEST], indirect=True)
def test_readers_see_the_version_and_applications_do_not(restored: Restored) -> None:
    roll_out(restored.db.login, POSTGRESQL)
    query = "SELECT audit.schema_version()"
    assert restored.db.value(query, user=READER) == SCHEMA_VERSION
    with pytest.raises(InsufficientPrivilege):
        restored.db.value(query, user=APPLICATION)
    with pytest.raises(InsufficientPrivilege):
        restored.db.execute("CREATE OR REPLACE FUNCTION audit.schema_version() RETURNS integer", user=READER)
