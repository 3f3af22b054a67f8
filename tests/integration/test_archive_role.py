# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook archive: a line a database, archives on the controller, verified there without a database."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from archiving import add_old, partitions, period
from databases import Database
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


def archived(log: Database, key: KeyPair, **variables: t.Any) -> dict[str, t.Any]:
    """Return an inventory whose one host is archived; ledgers and archives go beside the key."""
    hosts = inventory(log.server, [log])
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


def test_what_is_held_is_said_below_the_line(log: Database, key: KeyPair) -> None:
    holds = [{"reason": "case 4711", "table": "public.payment"}]
    done = play("archive", archived(log, key, holds=holds))
    assert lines(done)[1] == f"  kept {period(4)}: legal hold: case 4711"
    assert period(4) in partitions(log)


def test_a_database_that_cannot_be_archived_fails_the_run(log: Database, key: KeyPair) -> None:
    done = play("archive", archived(log, key, url="/mnt/nothing"), check=False)
    assert done.rc == 2
    assert lines(done)[0].startswith(f"FAILED {HOST} {log.name}: url: the directory /mnt/nothing does not exist; ")
    assert period(5) in partitions(log)


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
