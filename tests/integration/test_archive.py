# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Old partitions of the log become verified archives, and leave the database."""

from __future__ import annotations

import gzip
import json
import pathlib
import typing as t

import pytest
from archiving import Archiver, add_old, ids, months_ago, old_log, partitions, period
from databases import Database
from local_postgresql import LocalPostgresql

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.plugin_utils import _archive_known
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ledger import Ledger


@pytest.fixture
def log(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database with a log of six months."""
    with old_log(pg) as database:
        yield database


@pytest.fixture
def archiver(log: Database, tmp_path: pathlib.Path) -> Archiver:
    """Return what archives it."""
    return Archiver(log, tmp_path)


def reasons(result: dict[str, t.Any]) -> dict[str, str]:
    """Return why partitions were kept."""
    return {kept["name"]: kept["reason"] for kept in result["kept"]}


def refusal(archiver: Archiver, **options: t.Any) -> str:
    """Return the message of a run that must fail."""
    try:
        result = archiver.run(**options)
    except AuditError as error:
        return str(error)
    assert result.get("failed"), result
    return str(result["msg"])


def test_a_partition_past_its_time_becomes_an_archive_and_leaves_the_log(log: Database, archiver: Archiver) -> None:
    add_old(log, 5, rows=250)
    add_old(log, 4, rows=30)
    add_old(log, 3, rows=7)
    log.execute("INSERT INTO item VALUES (1, 'now')")
    before = ids(log)
    first = archiver.run()
    assert [made["name"] for made in first["archived"]] == [period(5), period(4)]
    assert first["dropped"] == [period(6), period(5), period(4)]
    assert set(partitions(log)) & {period(number) for number in (6, 5, 4)} == set()
    assert [row["record_id"] for row in archiver.archived(period(5))] == [str(number) for number in range(1, 251)]
    assert ids(log) | archiver.ids() == before
    assert archiver.problems() == []
    archiver.calls.clear()
    again = archiver.run()
    assert [call["step"]["do"] for call in archiver.calls] == ["periods"]
    assert not again["changed"]
    assert (again["archived"], again["dropped"], again["kept"], again["statements"]) == ([], [], [], [])
    assert archiver.problems() == []


def test_what_the_manifest_says_is_so(log: Database, archiver: Archiver) -> None:
    add_old(log, 5, 3, "payment")
    add_old(log, 5, 2, "item")
    (made,) = archiver.run(retention={"financial": {"archive": "7y"}})["archived"]
    manifest = archiver.manifest(period(5))
    rows = archiver.archived(period(5))
    assert manifest["rows"] == len(rows) == 5
    assert (manifest["first_id"], manifest["last_id"]) == (rows[0]["id"], rows[-1]["id"])
    assert (manifest["first_day"], manifest["end_day"]) == (months_ago(5).isoformat(), months_ago(4).isoformat())
    times = sorted(row["changed_at"] for row in rows)
    assert manifest["first_at"].startswith(times[0])
    assert manifest["last_at"].startswith(times[-1])
    assert manifest["tables"] == {"public.payment": 3, "public.item": 2}
    assert manifest["categories"] == ["default", "financial"]
    assert manifest["expires"] is None
    (said,) = [e.seal for e in Ledger(str(archiver.ledger)).entries()[0] if e.seal.kind == "archive"]
    assert said.attested["archives"][0]["manifest"] == made["manifest"]
    assert said.attested["seals"] == manifest["seals"]


def test_check_mode_names_the_statements_that_a_run_executes_and_writes_nothing(
    log: Database, archiver: Archiver
) -> None:
    add_old(log, 5)
    predicted = archiver.run(_check_mode=True)
    assert predicted["changed"]
    assert predicted["due"] == [period(5)]
    assert predicted["dropped"] == [period(6), period(5), period(4)]
    assert archiver.files() == []
    assert not archiver.ledger.exists()
    done = archiver.run()
    assert done["statements"] == predicted["statements"]
    assert not archiver.run(_check_mode=True)["changed"]


def test_without_drop_there_is_a_copy_and_the_next_run_reads_it_back_before_it_drops(
    log: Database, archiver: Archiver
) -> None:
    add_old(log, 5)
    before = ids(log)
    copied = archiver.run(drop=False)
    assert copied["dropped"] == []
    assert ids(log) >= before == archiver.ids()
    assert not archiver.run(drop=False)["changed"]
    dropped = archiver.run()
    assert dropped["archived"] == []
    assert period(5) in dropped["dropped"]


def test_rows_for_which_there_is_no_period_any_more_still_have_a_place(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    archiver.run()
    add_old(log, 5, 1)
    assert log.value("SELECT count(*) FROM audit.audit_log_past") == 1
    assert log.value("SELECT tgname FROM pg_trigger WHERE tgrelid = 'audit.audit_log_past'::regclass LIMIT 1")


def test_the_longest_age_of_the_rows_in_a_partition_counts(log: Database, archiver: Archiver) -> None:
    retention = {"financial": {"database": "5mo", "archive": "7y"}, "hipaa": {"database": "2mo", "archive": "6mo"}}
    add_old(log, 5, 2, "patient")
    add_old(log, 4, 2, "patient")
    add_old(log, 4, 1, "payment")
    done = archiver.run(older_than="2mo", retention=retention)
    assert [made["name"] for made in done["archived"]] == [period(5)]
    assert period(4) in partitions(log)
    assert done["kept"] == []
    later = archiver.run(older_than="2mo", retention={**retention, "financial": {"database": "2mo", "archive": "7y"}})
    assert [made["name"] for made in later["archived"]] == [period(4)]
    assert archiver.manifest(period(4))["expires"] == months_ago(3 - 84).isoformat()


def test_a_category_that_has_no_age_fails_before_anything_is_changed(log: Database, archiver: Archiver) -> None:
    add_old(log, 5, 2, "payment")
    before = partitions(log)
    assert "rows of the category 'financial'" in refusal(archiver, retention={"hipaa": "6y"})
    assert (partitions(log), archiver.files()) == (before, [])


@pytest.mark.parametrize(
    "hold",
    [
        {"table": "public.pay*"},
        {"table": "public.payment", "record_id": 2},
        {"changed_by": "user2"},
        {"table": "*.*", "changed_by": "shop_app"},
    ],
)
def test_a_legal_hold_keeps_a_partition_and_its_archive(
    log: Database, archiver: Archiver, hold: dict[str, t.Any]
) -> None:
    add_old(log, 5, 3, "payment")
    add_old(log, 4, 1, "item")
    held = [{"reason": "case 4711", **hold}]
    done = archiver.run(holds=held)
    assert reasons(done)[period(5)] == "legal hold: case 4711"
    assert not done.get("failed")
    assert period(5) in partitions(log)
    assert len(archiver.archived(period(5))) == 3
    archiver.run()
    assert period(5) not in partitions(log)
    over = {"financial": "3mo"}
    kept = archiver.run(retention=over, older_than="2mo", holds=held)
    assert (kept["expired"], reasons(kept)) == ([], {period(5): "legal hold: case 4711"})
    assert archiver.run(retention=over, older_than="2mo")["expired"] == [period(5)]


@pytest.mark.parametrize(
    "hold", [{"table": "public.item"}, {"table": "public.payment", "record_id": "17"}, {"changed_by": "nobody"}]
)
def test_a_hold_on_other_rows_keeps_nothing(log: Database, archiver: Archiver, hold: dict[str, t.Any]) -> None:
    add_old(log, 5, 3, "payment")
    done = archiver.run(holds=[{"reason": "case 4711", **hold}])
    assert (done["kept"], period(5) in partitions(log)) == ([], False)


def test_an_archive_whose_time_is_over_is_deleted_and_the_ledger_says_so(log: Database, archiver: Archiver) -> None:
    add_old(log, 5, 3, "payment")
    add_old(log, 4, 3, "item")
    archiver.run()
    over = {"financial": "5mo"}
    assert archiver.run(retention=over, _check_mode=True)["expired"] == []
    over = {"financial": "4mo"}
    predicted = archiver.run(retention=over, _check_mode=True)
    assert (predicted["expired"], predicted["changed"]) == ([period(5)], True)
    assert len(archiver.files()) == 4
    done = archiver.run(retention=over)
    assert done["expired"] == [period(5)]
    assert archiver.files() == [f"{period(4)}.jsonl.gz", f"{period(4)}.manifest.json"]
    last = Ledger(str(archiver.ledger)).entries()[0][-1].seal
    assert [said["name"] for said in last.attested["expired"]] == [period(5)]
    assert archiver.problems() == []
    assert not archiver.run(retention=over)["changed"]


def test_an_archive_that_is_gone_before_its_time_is_named(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    add_old(log, 4)
    archiver.run()
    path = archiver.place / f"{period(5)}.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-1])
    for _time in range(2):
        done = archiver.run()
        assert (done["missing"], done["failed"]) == ([period(5)], True)
        assert done["msg"].startswith(f"archives that are not there, or not what the ledger says: {period(5)}")
        path.unlink(missing_ok=True)


def test_a_directory_that_is_not_mounted_is_not_filled(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    archiver.url.rmdir()
    assert f"the directory {archiver.url} does not exist; create it, or is it not mounted?" in refusal(archiver)
    archiver.url.mkdir()
    archiver.run()
    mounted = archiver.url.rename(archiver.url.with_name("elsewhere"))
    archiver.url.mkdir()
    before = partitions(log)
    over = {"default": {"archive": "4mo"}}
    assert "the ledger knows 1 archives, and " in refusal(archiver, older_than="2mo", retention=over)
    assert partitions(log) == before
    archiver.url.rmdir()
    mounted.rename(archiver.url)
    assert archiver.run(older_than="2mo", retention=over)["expired"] == [period(5)]


def test_a_file_that_was_changed_keeps_its_partition_in_the_log(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    archiver.run(drop=False)
    path = archiver.place / f"{period(5)}.jsonl.gz"
    text = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(text.replace(b"user1", b"user2", 1)))
    said = refusal(archiver)
    assert f"{path}, read back, is not what was written: its SHA-256 is " in said
    path.write_bytes(path.read_bytes()[:-9])
    assert "read back, is not what was written" in refusal(archiver)
    path.unlink()
    assert f"{path} is not there" in refusal(archiver)
    assert period(5) in partitions(log)


def test_a_row_that_was_changed_after_it_was_sealed_does_not_leave_the_log(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    archiver.seal()
    connection = log.connect()
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(f"ALTER TABLE audit.{period(5)} DISABLE TRIGGER USER")
        cursor.execute(f"UPDATE audit.{period(5)} SET changed_by = 'eve' WHERE record_id = '3'")
    said = refusal(archiver)
    assert "is not what was sealed: seal " in said
    assert period(5) in partitions(log)
    assert f"{period(5)}.manifest.json" not in archiver.files()


def test_a_row_that_comes_late_is_not_dropped(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    archiver.seal()
    seen: list[t.Any] = []

    def meanwhile() -> None:
        # Between the read-back and the release.
        step = archiver.calls[-1].get("step", {})
        if step.get("do") == "release" and not seen:
            seen.append(add_old(log, 5, 1))

    archiver.meanwhile = meanwhile
    said = refusal(archiver)
    assert f"{period(5)} has 6 rows and its archive 5" in said
    assert period(5) in partitions(log)
    archiver.meanwhile = None
    before = ids(log)
    assert archiver.run()["dropped"] == [period(5)]
    assert len(archiver.archived(period(5))) == 6
    assert ids(log) | archiver.ids() == before


def test_an_archive_that_has_more_rows_than_the_log_is_not_written_over(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    archiver.run(drop=False)
    before = archiver.archived(period(5))
    # As after a restore to a time before the last of them.
    connection = log.connect()
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(f"ALTER TABLE audit.{period(5)} DISABLE TRIGGER USER")
        cursor.execute(f"DELETE FROM audit.{period(5)} WHERE record_id = '5'")
    assert "has 5 rows and the log 4, as after a restore" in refusal(archiver)
    assert archiver.archived(period(5)) == before
    assert period(5) in partitions(log)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../../shop"},
        {"copies": ["host=a/db=b/month=2026-01/../../../../x.parquet"]},
        {"end_day": "1999-01-01"},
        {"categories": ["financial"]},
        {"tables": {}},
        {"file": "../../../shop.jsonl.gz"},
    ],
)
def test_a_manifest_that_somebody_has_changed_has_nothing_deleted(
    log: Database, archiver: Archiver, change: dict[str, t.Any]
) -> None:
    add_old(log, 5)
    archiver.run()
    path = archiver.place / f"{period(5)}.manifest.json"
    path.write_text(json.dumps({**archiver.manifest(period(5)), **change}))
    over = {"financial": "1d", "default": {"archive": "7y"}}
    if set(change) & {"name", "copies", "file"}:
        assert "is the manifest of something else" in refusal(archiver, retention=over, older_than="1d")
    else:
        done = archiver.run(retention=over, older_than="1d")
        assert (done["expired"], done["missing"]) == ([], [period(5)])
    assert (archiver.place / f"{period(5)}.jsonl.gz").exists()


def test_a_row_that_is_in_no_seal_is_not_archived(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    archiver.seal()
    late: list[t.Any] = []

    def meanwhile() -> None:
        if archiver.calls[-1]["step"]["do"] == "export" and not late:
            late.append(add_old(log, 5, 1))

    archiver.meanwhile = meanwhile
    said = refusal(archiver)
    (number,) = log.execute(f"SELECT max(id) FROM audit.{period(5)}")[0]
    assert f"row {number} is in no seal" in said
    assert period(5) in partitions(log)
    archiver.meanwhile = None
    assert archiver.run()["dropped"] == [period(5)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"first_day": "2010-01-01", "end_day": "2010-01-02"}, "does not describe what is in the log"),
        ({"categories": ["pci"]}, "does not describe what is in the log"),
        ({"tables": {}}, "does not describe what is in the log"),
        ({"chain": "d8f6a1de-4242-4242-4242-424242424242"}, "is that of another log"),
        ({"seals": [[1, 1], [7, 9]]}, "its rows are not of the seals that its manifest names"),
    ],
)
def test_nothing_is_dropped_by_a_manifest_that_somebody_has_changed(
    log: Database, archiver: Archiver, change: dict[str, t.Any], said: str
) -> None:
    add_old(log, 5)
    archiver.run(drop=False)
    path = archiver.place / f"{period(5)}.manifest.json"
    path.write_text(json.dumps({**archiver.manifest(period(5)), **change}))
    assert said in refusal(archiver)
    assert period(5) in partitions(log)


def test_a_file_is_not_replaced_before_the_other_is_proven(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    archiver.run(drop=False)
    before = archiver.archived(period(5))
    # A superuser takes one row away and puts two others in.
    connection = log.connect()
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(f"ALTER TABLE audit.{period(5)} DISABLE TRIGGER USER")
        cursor.execute(f"DELETE FROM audit.{period(5)} WHERE record_id = '5'")
    add_old(log, 5, 2)
    assert "is not what was sealed: seal " in refusal(archiver)
    assert archiver.archived(period(5)) == before
    assert archiver.manifest(period(5))["rows"] == 5


def test_a_file_of_the_name_that_somebody_has_put_there_stays_until_there_is_a_good_one(
    log: Database, archiver: Archiver
) -> None:
    add_old(log, 5)
    archiver.place.mkdir(parents=True)
    (archiver.place / f"{period(5)}.jsonl.gz").write_text("something")
    archiver.run()
    (name,) = [name for name in archiver.files() if name.endswith(".gz")]
    assert (name, archiver.manifest(period(5))["file"]) == (name, name) != (f"{period(5)}.jsonl.gz",) * 2
    assert len(archiver.archived(period(5))) == 5
    assert not archiver.run()["changed"]


def test_rows_of_a_later_day_than_the_partition_says_do_not_leave(log: Database, archiver: Archiver) -> None:
    add_old(log, 3)
    # Rows of a month that is kept, in what is said to be one that is over.
    name = f"audit.{period(3)}"
    log.execute(f"ALTER TABLE audit.audit_log_data DETACH PARTITION {name}")
    log.execute(f"ALTER TABLE audit.audit_log_data DETACH PARTITION audit.{period(5)}")
    log.execute(f"DROP TABLE audit.{period(5)}")
    log.execute(f"ALTER TABLE {name} RENAME TO {period(5)}")
    bounds = f"(changed_at >= '{months_ago(5)} 00:00+00' AND changed_at < '{months_ago(4)} 00:00+00')"
    log.execute(f"ALTER TABLE audit.{period(5)} ADD CONSTRAINT lie CHECK {bounds} NOT VALID")
    log.execute("UPDATE pg_constraint SET convalidated = true WHERE conname = 'lie'")
    log.execute(
        f"ALTER TABLE audit.audit_log_data ATTACH PARTITION audit.{period(5)} "
        f"FOR VALUES FROM ('{months_ago(5)}') TO ('{months_ago(4)}')"
    )
    said = refusal(archiver)
    assert "and its period ends before" in said or "is not what was sealed" in said
    assert period(5) in partitions(log)


@pytest.mark.parametrize("step", ["before", "seal"])
def test_a_manifest_that_is_gone_keeps_its_partition_in_the_log(
    log: Database, archiver: Archiver, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    add_old(log, 5)
    archiver.run(drop=False)
    manifest = archiver.place / f"{period(5)}.manifest.json"
    checked = _archive_known.check_file

    def check_file(*given: t.Any) -> t.Any:
        seals = checked(*given)
        if step == "before":
            manifest.unlink()
        return seals

    def meanwhile() -> None:
        if archiver.calls[-1]["step"].get("entry"):
            manifest.unlink()

    monkeypatch.setattr(_archive_known, "check_file", check_file)
    archiver.meanwhile = meanwhile
    assert f"the manifest {archiver.place}/{period(5)} is missing or has changed" in refusal(archiver)
    assert period(5) in partitions(log)
    monkeypatch.undo()
    archiver.meanwhile = None
    assert archiver.run()["dropped"] == [period(5)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"signing_key": ""}, "signing_key is missing: only rows that are sealed may leave the log"),
        ({"ledger": ""}, "ledger is missing"),
        ({"url": ""}, "url is missing"),
        ({"url": "archive"}, "url is 'archive'; give an absolute path"),
        ({"older_than": "soon"}, "older_than is 'soon', which is no age"),
        ({"holds": [{"reason": "x"}]}, "hold 1 (x) names neither a table nor a user"),
        ({"storage": {"lock": "governance"}}, "storage has lock, which a directory has not"),
        ({"storage": {"locked": True}}, "storage has 'locked'; it may have"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_server_is_asked(
    tmp_path: pathlib.Path, options: dict[str, t.Any], said: str
) -> None:
    archiver = Archiver.of_nothing(tmp_path)
    assert said in refusal(archiver, **options)
    assert archiver.calls == []
