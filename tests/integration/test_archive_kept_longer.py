# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What lengthens the time of archives that were written before, an age or a hold: until then they have to be there."""

from __future__ import annotations

import datetime
import json
import typing as t

import pytest
from archiving import SERVER, Archiver, add_old, months_ago, period
from databases import Database
from object_storage import moto


def test_an_archive_does_not_expire_on_the_day_of_a_shorter_age(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    short: dict[str, t.Any] = {"retention": {"default": {"archive": "4mo"}}}
    archiver.run(**short)
    files = archiver.files()
    assert archiver.manifest(period(5))["expires"] == months_ago(0).isoformat()
    for longer in ("7y", None):
        done = archiver.run(retention={"default": {"archive": longer}})
        assert (done["expired"], done["changed"], archiver.files()) == ([], False, files)
    done = archiver.run(**short)
    assert (done["expired"], archiver.files()) == ([period(5)], [])


def test_locks_of_the_storage_are_lengthened_and_no_rule_deletes(
    log: Database, archiver: Archiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with moto() as s3:
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        bucket = s3.bucket(lock=True)
        add_old(log, 5)

        def archive(age: str, mode: str) -> set[tuple[str, datetime.date, int]]:
            """Return how files are locked, until when, and how many tags they have; they are given one of ours."""
            storage = {"lock": mode, "lifecycle": True}
            done = archiver.run(url=f"s3://{bucket}/a", storage=storage, retention={"default": {"archive": age}})
            assert not done.get("failed"), done["msg"]
            files = [{"Bucket": bucket, "Key": key} for key in s3.keys(bucket)]
            assert len(files) == len(s3.versions(bucket)) == 2
            found = [s3.client.head_object(**file) for file in files]
            for file in files:
                tags = [tag for tag in s3.client.get_object_tagging(**file)["TagSet"] if tag["Key"] != "team"]
                s3.client.put_object_tagging(**file, Tagging={"TagSet": [*tags, {"Key": "team", "Value": "dba"}]})
            locks = ((one["ObjectLockMode"], one["ObjectLockRetainUntilDate"].date()) for one in found)
            return {(*lock, one["TagCount"]) for lock, one in zip(locks, found)}

        end = months_ago(4)
        one_year, seven_years = (end.replace(year=end.year + years) for years in (1, 7))
        # One tag has a rule delete it.
        assert archive("1y", "governance") == {("GOVERNANCE", one_year, 1)}
        # In the mode that a file has: a stronger one is nothing that an age asks for. That tag is gone.
        assert archive("7y", "compliance") == {("GOVERNANCE", seven_years, 1)}
        # A shorter age leaves a lock as it is.
        assert archive("3y", "governance") == {("GOVERNANCE", seven_years, 1)}
        manifest = f"a/{SERVER}/{log.name}/{period(5)}.manifest.json"
        said = json.loads(s3.client.get_object(Bucket=bucket, Key=manifest)["Body"].read())
        assert said["expires"] == one_year.isoformat()


SHORT: dict[str, t.Any] = {"retention": {"default": {"archive": "4mo"}}}
LONGER: list[dict[str, t.Any]] = [
    {**SHORT, "holds": [{"reason": "case 4711", "changed_by": "nobody"}]},
    {"retention": {"default": {"archive": "10y"}}},
    {"retention": {}},
]


def test_an_archive_that_somebody_has_deleted_is_missing(log: Database, archiver: Archiver) -> None:
    add_old(log, 5)
    add_old(log, 4)
    archiver.run(**SHORT)
    assert archiver.manifest(period(5))["expires"] == months_ago(0).isoformat()
    for path in archiver.place.glob(f"{period(5)}.*"):
        path.unlink()
    # No rule deletes anything from a directory, so it is missing whatever its age.
    for options in (*LONGER, SHORT):
        done = archiver.run(**options)
        assert (done["missing"], done["expired"], done["failed"]) == ([period(5)], [], True)


def test_an_archive_that_a_rule_may_have_deleted_has_expired_unless_a_hold_or_an_age_keeps_it(
    log: Database, archiver: Archiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with moto() as s3:
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        bucket = s3.bucket()
        storage: dict[str, t.Any] = {"url": f"s3://{bucket}/a", "storage": {"lifecycle": True}}
        add_old(log, 5)
        add_old(log, 4)
        archiver.run(**SHORT, **storage)
        for key in [key for key in s3.keys(bucket) if period(5) in key]:
            s3.client.delete_object(Bucket=bucket, Key=key)
        for options in LONGER:
            done = archiver.run(**options, **storage)
            assert (done["missing"], done["expired"], done["failed"]) == ([period(5)], [], True)
        done = archiver.run(**SHORT, **storage)
        assert (done["missing"], done["expired"], done.get("failed")) == ([], [period(5)], None)
        assert not archiver.run(**SHORT, **storage)["changed"]
