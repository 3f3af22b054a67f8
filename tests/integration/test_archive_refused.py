# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What keeps a partition in the log, and an archive where it is: each refusal has its own words."""

from __future__ import annotations

import datetime
import gzip
import json
import pathlib
import typing as t

import pytest
from archiving import Archiver, add_old, ids, months_ago, partitions, period, tamper
from databases import Database

from ansible_collections.dbfleet.audit.plugins.plugin_utils import _archive, _archive_known


def test_a_category_that_has_no_age_fails_before_anything_is_changed(log: Database, archiver: Archiver) -> None:
    add_old(log, 5, 2, "payment")
    before = partitions(log)
    assert "rows of the category 'financial'" in archiver.refused(retention={"hipaa": "6y"})
    assert (partitions(log), archiver.files()) == (before, [])


@pytest.mark.parametrize("days", [2, -2])
def test_nothing_is_told_by_a_clock_that_is_wrong(
    log: Database, archiver: Archiver, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    add_old(log, 5)
    before, today = partitions(log), datetime.datetime.now(datetime.timezone.utc).date()

    def controller_is_off_by(number: int) -> None:
        class Clock(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> t.Self:
                return super().now(tz) + datetime.timedelta(days=number)

        monkeypatch.setattr(_archive, "datetime", Clock)

    controller_is_off_by(days)
    there = today + datetime.timedelta(days=days)
    assert f"it is {there} on the controller and {today} on the host; set the clock that is wrong" in archiver.refused()
    assert (partitions(log), archiver.files()) == (before, [])
    # Midnight may be between them.
    controller_is_off_by(days // 2)
    assert archiver.run(_check_mode=True)["due"] == [period(5)]


def test_a_directory_that_is_not_mounted_is_not_filled(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    archiver.url.rmdir()
    assert f"the directory {archiver.url} does not exist; create it, or is it not mounted?" in archiver.refused()
    archiver.url.mkdir()
    archiver.run()
    mounted = archiver.url.rename(archiver.url.with_name("elsewhere"))
    archiver.url.mkdir()
    before = partitions(log)
    over = {"default": {"archive": "4mo"}}
    assert "the ledger knows 1 archives, and " in archiver.refused(older_than="2mo", retention=over)
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
    said = archiver.refused()
    assert f"{path}, read back, is not what was written: its SHA-256 is " in said
    path.write_bytes(path.read_bytes()[:-9])
    assert "read back, is not what was written" in archiver.refused()
    path.unlink()
    assert f"{path} is not there" in archiver.refused()
    assert period(5) in partitions(log)


def test_a_row_that_was_changed_after_it_was_sealed_does_not_leave_the_log(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    archiver.seal()
    tamper(log, 5, "UPDATE {table} SET changed_by = 'eve' WHERE record_id = '3'")
    said = archiver.refused()
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
    said = archiver.refused()
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
    tamper(log, 5, "DELETE FROM {table} WHERE record_id = '5'")
    assert "has 5 rows and the log 4, as after a restore" in archiver.refused()
    assert archiver.archived(period(5)) == before
    assert period(5) in partitions(log)


@pytest.mark.parametrize("copied", [False, True])
def test_a_period_that_somebody_has_emptied_is_not_dropped(log: Database, archiver: Archiver, copied: bool) -> None:
    add_old(log, 5)
    if copied:
        archiver.run(drop=False)
    else:
        archiver.seal()
    tamper(log, 5, "DELETE FROM {table}")
    held = [{"reason": "case 4711", "table": "public.item"}]
    for check_mode in (True, False):
        said = archiver.refused(holds=held, _check_mode=check_mode)
        assert f"{period(5)}: has no rows, which is not what was sealed: seal " in said
        assert "rows that were sealed are missing (5): " in said
    # What has no rows because there were none is dropped.
    assert set(partitions(log)) & {period(ago) for ago in (6, 5, 4)} == {period(5)}
    assert "deleted_row" in [problem[0] for problem in archiver.problems()]
    # What the key's holder has accepted is meant to be so.
    log.execute(f"ALTER TABLE audit.{period(5)} ENABLE TRIGGER USER")
    archiver.seal(resync="erasure 2026-17")
    assert archiver.run()["dropped"] == [period(5)]
    assert archiver.problems() == []


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
        assert "is the manifest of something else" in archiver.refused(retention=over, older_than="1d")
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
    said = archiver.refused()
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
    assert said in archiver.refused()
    assert period(5) in partitions(log)


def test_a_file_is_not_replaced_before_the_other_is_proven(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    archiver.run(drop=False)
    before = archiver.archived(period(5))
    # A superuser takes one row away and puts two others in.
    tamper(log, 5, "DELETE FROM {table} WHERE record_id = '5'")
    add_old(log, 5, 2)
    assert "is not what was sealed: seal " in archiver.refused()
    assert archiver.archived(period(5)) == before
    assert archiver.manifest(period(5))["rows"] == 5


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
    said = archiver.refused()
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
    assert f"the manifest {archiver.place}/{period(5)} is missing or has changed" in archiver.refused()
    assert period(5) in partitions(log)
    monkeypatch.undo()
    archiver.meanwhile = None
    assert archiver.run()["dropped"] == [period(5)]


def test_a_file_that_is_gone_keeps_its_partition_in_the_log(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    archiver.run(drop=False)
    path = archiver.place / f"{period(5)}.jsonl.gz"

    def meanwhile() -> None:
        if archiver.calls[-1]["step"].get("entry"):
            path.unlink()

    archiver.meanwhile = meanwhile
    assert f"{path} is missing or has changed; nothing was dropped" in archiver.refused()
    assert period(5) in partitions(log)


def test_what_another_run_has_archived_meanwhile_is_no_leftover(
    log: Database, archiver: Archiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_old(log, 5)
    archiver.run(drop=False)
    checked, its_file = _archive_known.check_file, archiver.place / f"{period(5)}.0a1b2c3d.jsonl.gz"
    manifest = archiver.place / f"{period(5)}.manifest.json"

    def check_file(*given: t.Any) -> t.Any:
        its_file.write_bytes(b"of another controller")
        manifest.write_text(json.dumps({**archiver.manifest(period(5)), "file": its_file.name}))
        return checked(*given)

    monkeypatch.setattr(_archive_known, "check_file", check_file)
    assert f"the manifest {archiver.place}/{period(5)} is missing or has changed" in archiver.refused()
    assert its_file.exists()
    assert period(5) in partitions(log)


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
    assert said in archiver.refused(**options)
    assert archiver.calls == []
