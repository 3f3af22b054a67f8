# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rows whose time is over are in no file any more, whatever runs that were cut off or a lock have left of them."""

from __future__ import annotations

import dataclasses
import datetime
import os
import pathlib
import time
import typing as t

import pytest
from archiving import Archiver, add_old, period
from databases import Database
from killing import After, kill, killed
from object_storage import moto

from ansible_collections.dbfleet.audit.plugins.plugin_utils import _archive_file

OVER: dict[str, t.Any] = {"retention": {"default": {"archive": "4mo"}}}
DAY = 86400


@dataclasses.dataclass(frozen=True)
class WhileWriting:
    """Once the first bytes of a file are on disk."""

    def arrange(self, _run: t.Any) -> None:
        """Have it killed there."""
        add = _archive_file.Upload.add

        def and_killed(upload: t.Any, part: t.Any) -> None:
            add(upload, part)
            upload._file.flush()
            kill()

        _archive_file.Upload.add = and_killed  # type: ignore[method-assign]


def make_older(path: pathlib.Path, seconds: float) -> None:
    """Have a file be written to so long ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_file_that_a_run_has_replaced_goes_with_the_next_one(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    archiver.run(drop=False)
    add_old(log, 5, 1)
    assert killed(archiver, After("plugin_utils._archive:write_manifest"))
    assert len(archiver.files()) == 3
    archiver.run(drop=False)
    manifest = archiver.manifest(period(5))
    assert (archiver.files(), manifest["rows"]) == ([manifest["file"], f"{period(5)}.manifest.json"], 6)


def test_a_file_that_was_replaced_and_is_still_there_expires_with_the_archive(
    log: Database, archiver: Archiver
) -> None:
    add_old(log, 5)
    add_old(log, 4)
    archiver.run()
    others = [name for name in archiver.files() if name.startswith(period(4))]
    whole = (archiver.place / archiver.manifest(period(5))["file"]).read_bytes()
    (archiver.place / f"{period(5)}.0a1b2c3d.jsonl.gz").write_bytes(whole)
    assert archiver.run(**OVER)["expired"] == [period(5)]
    assert archiver.files() == others


def test_an_archive_stays_until_the_lock_of_what_it_has_replaced_is_over(
    log: Database, archiver: Archiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with moto() as s3:
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        bucket = s3.bucket(lock=True)
        storage = {"url": f"s3://{bucket}/a", "storage": {"lock": "governance"}}
        add_old(log, 5)
        archiver.run(drop=False, retention={"default": {"archive": "1y"}}, **storage)
        (replaced,) = [key for key in s3.keys(bucket) if key.endswith(".gz")]
        add_old(log, 5, 1)
        # Short enough for the new files to be locked no more.
        archiver.run(older_than="3mo", retention={"default": {"archive": "4mo"}}, **storage)
        assert replaced in s3.keys(bucket)
        kept = archiver.run(**OVER, **storage)
        assert kept["expired"] == []
        assert "is locked until " in kept["kept"][0]["reason"]
        soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1)
        # Of the manifest, there is the one of then too.
        for one in s3.client.list_object_versions(Bucket=bucket)["Versions"]:
            s3.client.put_object_retention(
                Bucket=bucket,
                Key=one["Key"],
                VersionId=one["VersionId"],
                BypassGovernanceRetention=True,
                Retention={"Mode": "GOVERNANCE", "RetainUntilDate": soon},
            )
        time.sleep(1.5)
        assert archiver.run(**OVER, **storage)["expired"] == [period(5)]
        assert s3.versions(bucket) == []


def test_what_a_writer_has_left_that_was_killed_goes_after_a_day(log: Database, archiver: Archiver) -> None:
    add_old(log, 5, 200)
    assert killed(archiver, WhileWriting())
    archiver.meanwhile = None
    (part,) = archiver.place.iterdir()
    assert part.stat().st_size > 0
    # Another controller may be writing it.
    make_older(part, DAY - 600)
    archiver.run()
    assert part.exists()
    make_older(part, DAY + 1)
    archiver.run(_check_mode=True)
    assert part.exists()
    assert archiver.run(**OVER)["expired"] == [period(5)]
    assert archiver.files() == []


def test_what_was_left_of_a_copy_goes_with_it(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    archiver.run(format="parquet")
    (copy,) = archiver.url.rglob("*.parquet")
    part = copy.with_name(f".{copy.name}.0a1b2c3d.part")
    part.write_bytes(copy.read_bytes())
    make_older(part, DAY + 1)
    archiver.run(format="parquet", **OVER)
    assert [path for path in archiver.url.rglob("*") if path.is_file()] == []
