# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook archive: a line a database, archives on the controller, verified there without a database."""

from __future__ import annotations

import concurrent.futures
import pathlib
import typing as t

import pytest
from archiving import add_old, old_log, partitions, period
from databases import Database
from event_reading import wait_until
from fleet import HOST, inventory, lines, play
from local_postgresql import LocalPostgresql
from sealing import KeyPair, make_key


@pytest.fixture
def log(log: Database) -> Database:
    """Return a database with a log of six months, with rows in two that are due."""
    add_old(log, 5, 1500)
    add_old(log, 4, 7, "payment")
    return log


@pytest.fixture
def key(tmp_path: pathlib.Path) -> KeyPair:
    return make_key(tmp_path)


def archived(log: Database, key: KeyPair, databases: t.Sequence[Database] = (), **variables: t.Any) -> dict[str, t.Any]:
    """Return an inventory whose one host is archived, its log or these; ledgers and archives go beside the key."""
    hosts = inventory(log.server, databases or [log])
    place = pathlib.Path(key.private).parent
    (place / "archive").mkdir(exist_ok=True)
    given = {"url": str(place / "archive"), "older_than": "3mo", "drop": True, **variables}
    hosts["postgresql"]["vars"] = {
        "audit_seal_signing_key": key.private,
        "audit_seal_public_keys": [key.public],
        "audit_seal_ledger": str(place / "ledger"),
        **{f"audit_archive_{name}": value for name, value in given.items()},
    }
    return hosts


@pytest.mark.smoke
@pytest.mark.thorough
def test_archive_says_in_a_line_what_it_did_and_the_ledger_verifies_it_without_a_database(
    log: Database, key: KeyPair, tmp_path: pathlib.Path
) -> None:
    hosts = archived(log, key)
    predicted = play("archive", hosts, "--check")
    assert lines(predicted)[0].startswith(
        f"{HOST} {log.name}: 2 partitions to archive, 3 to drop, 0 archives to delete, "
    )
    assert list((tmp_path / "archive").iterdir()) == []
    done = play("archive", hosts)
    (line,) = lines(done)
    assert line.startswith(
        f"{HOST} {log.name}: 1,507 rows in 2 archives (0.0 MB), 3 partitions dropped, 0 archives expired, "
    )
    assert f"{period(5)}: 1,500 of 1,500 rows, 100 %" in done.stdout
    assert done.stats(HOST)["changed"] == 1
    assert play("archive", hosts).stats(HOST)["changed"] == 0
    files = sorted((tmp_path / "archive" / HOST / log.name).glob("*.gz"))
    assert [path.name for path in files] == [f"{period(5)}.jsonl.gz", f"{period(4)}.jsonl.gz"]
    verified = play(
        "verify_ledger",
        {},
        "-e",
        f"ledger={tmp_path}/ledger/{HOST}/{log.name}.jsonl",
        "-e",
        f"public_key={key.public}",
        "-e",
        f'{{"archives": ["{files[0].parent}"]}}',
    )
    assert "1,507 rows verified" in verified.stdout
    restored = play("restore", hosts, "-e", f"audit_archive_restore={period(5)}")
    assert lines(restored)[0].startswith(f"{HOST} {log.name}: 1,500 rows of ")
    assert log.value(f"SELECT count(*) FROM audit.restored_{period(5)}") == 1500


@pytest.mark.thorough
def test_what_is_held_is_said_below_the_line(log: Database, key: KeyPair) -> None:
    holds = [{"reason": "case 4711", "table": "public.payment"}]
    done = play("archive", archived(log, key, holds=holds))
    assert lines(done)[1] == f"  kept {period(4)}: legal hold: case 4711"
    assert period(4) in partitions(log)


@pytest.mark.thorough
def test_databases_of_a_server_are_archived_at_once_and_one_that_fails_keeps_none_from_it(
    log: Database, db: Database, key: KeyPair
) -> None:
    with old_log(log.server) as other:
        add_old(other, 5)
        hosts = archived(log, key, [db, log, other], drop=False)
        # Each run has to wait for its partition.
        holders = [one.connect(autocommit=False) for one in (log, other)]
        for holder in holders:
            with holder.cursor() as cursor:
                cursor.execute(f"LOCK TABLE audit.{period(5)}")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            run = pool.submit(play, "archive", hosts, check=False)
            try:
                wait_until(lambda: waiting(log) == {log.name, other.name})
            finally:
                for holder in holders:
                    holder.rollback()
            done = run.result()
        failed, *rest = lines(done)[:3]
        assert failed.startswith(f"FAILED {HOST} {db.name}: ")
        for one, rows, line in zip((log, other), ("1,507 rows in 2 archives", "5 rows in 1 archive"), rest):
            assert line.startswith(f"{HOST} {one.name}: {rows} (0.0 MB), 0 partitions dropped, ")
        assert f"{HOST} {other.name} {period(5)}: 5 of 5 rows, 100 %" in done.stdout
        assert done.rc == 2


def waiting(log: Database) -> set[str]:
    """Return the names of the server's databases in which a run waits for a lock."""
    rows = log.execute(
        "SELECT datname FROM pg_stat_activity WHERE application_name = 'dbfleet.audit' AND wait_event_type = 'Lock'"
    )
    return {name for (name,) in rows}


def test_what_cannot_be_meant_is_refused_before_a_server_is_asked(pg: LocalPostgresql, key: KeyPair) -> None:
    hosts = inventory(pg, ["shop"])
    hosts["postgresql"]["vars"] = {
        "audit_seal_signing_key": key.private,
        "audit_archive_retention": {"pci": "soon"},
        "audit_archive_drops": True,
    }
    result = play("archive", hosts, check=False)
    assert result.rc == 2
    for said in (
        "unknown variable audit_archive_drops; did you mean audit_archive_drop?",
        "audit_archive_url is missing",
        "audit_archive_retention of 'pci' is 'soon', which is no age",
    ):
        assert said in result.stdout
    restored = play("restore", hosts, check=False)
    assert restored.rc == 2
    for said in ("audit_archive_restore is missing", "audit_seal_public_keys is missing"):
        assert said in restored.stdout
