# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A folder of S3: encryption, storage class and Object Lock of each file, and lifecycle rules that delete files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_place import Objects, chain

#: The tag of a file that a rule may delete, with the number of days after which it does.
TAG = "dbfleet-audit-keep-days"

#: Numbers of days are multiples of it: a bucket has room for 1000 rules, and each number has one.
STEP_DAYS = 30

#: Days that a versioned bucket keeps of a file that has expired, or that somebody has deleted.
NONCURRENT_DAYS = 30

_REFUSED = (
    *("AccessDenied", "AllAccessDisabled", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"),
    *("InvalidToken", "TokenRefreshRequired", "InvalidSecurity", "NoCredentialsError", "PartialCredentialsError"),
    *("ProfileNotFound", "TokenRetrievalError", "UnauthorizedSSOTokenError", "CredentialRetrievalError"),
)
_NO_LOCK = ("InvalidRequest", "InvalidArgument", "ObjectLockConfigurationNotFoundError")


class S3(Objects):
    """A folder of a bucket."""

    package = "s3fs"
    takes = ("encryption", "encryption_key", "storage_class", "lock", "lifecycle")
    variables = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"

    def __init__(self, url: str, storage: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        super().__init__(url, storage, options)
        from botocore.exceptions import BotoCoreError

        self._errors = (OSError, BotoCoreError)
        self._bucket = self._fs.split_path(self._root)[0]
        self._days: set[int] = set()
        with self._explained():
            try:
                self._fs.connect()
            except TypeError as error:
                raise AuditError(f"url: {url}: {self._text(error)}; check storage_options") from None

    def delete(self, name: str) -> None:
        for version in self._versions(name):
            with self._explained():
                try:
                    self._call("delete_object", name, VersionId=version)
                except PermissionError:
                    self._refuse_locked(name, version)
                    raise

    def keep(self, name: str, until: datetime | None) -> None:
        with self._explained():
            tags = self._call("get_object_tagging", name)["TagSet"]
            others = [tag for tag in tags if tag["Key"] != TAG]
            if others != tags:
                self._call("put_object_tagging", name, Tagging={"TagSet": others})
            if self._locks(until):
                self._lengthen(name, until)

    def _lengthen(self, name: str, until: datetime | None) -> None:
        """Have the lock of a file end later, in the mode that it has, which may not be today's."""
        found = self._call("head_object", name)
        end = found.get("ObjectLockRetainUntilDate")
        if until and end and end < until:
            lock = {"Mode": found["ObjectLockMode"], "RetainUntilDate": until}
            self._call("put_object_retention", name, VersionId=found.get("VersionId"), Retention=lock)

    def _prepared(self, until: datetime | None) -> dict[str, Any]:
        asked = {
            "ServerSideEncryption": self._storage.get("encryption"),
            "SSEKMSKeyId": self._storage.get("encryption_key"),
            "StorageClass": self._storage.get("storage_class"),
        }
        if until and self._storage.get("lifecycle"):
            days = days_until(until)
            self._have_rule(days)
            asked["Tagging"] = f"{TAG}={days}"
        if self._locks(until):
            asked.update(ObjectLockMode=self._mode, ObjectLockRetainUntilDate=until)
        return {name: value for name, value in asked.items() if value}

    def _finish(self, name: str, until: datetime | None) -> None:
        if not self._locks(until):
            return
        found = self._call("head_object", name)
        # Not every storage locks what was sent in parts as it was told to when that began.
        if (found.get("ObjectLockMode"), found.get("ObjectLockRetainUntilDate")) != (self._mode, until):
            lock = {"Mode": self._mode, "RetainUntilDate": until}
            self._call("put_object_retention", name, VersionId=found.get("VersionId"), Retention=lock)

    @property
    def _mode(self) -> str:
        return str(self._storage["lock"]).upper()

    def _versions(self, name: str) -> Iterator[str]:
        """Give all that a versioned bucket has of a file, the oldest first, so that a file is whole until it is gone.

        Without versions there is one, whose name is null. Markers of deletion are the last: where there are only these,
        there is no file any more.
        """
        key = self._key(name)
        found: dict[str, list[str]] = {"Versions": [], "DeleteMarkers": []}
        position: dict[str, Any] = {"IsTruncated": True}
        while position["IsTruncated"]:
            markers = {marker: position.get(f"Next{marker}") for marker in ("KeyMarker", "VersionIdMarker")}
            given = {marker: value for marker, value in markers.items() if value}
            with self._explained():
                position = self._fs.call_s3("list_object_versions", Bucket=self._bucket, Prefix=key, **given)
            for kind, versions in found.items():
                versions += [one["VersionId"] for one in position.get(kind, ()) if one["Key"] == key]
        yield from (version for versions in found.values() for version in reversed(versions))

    def _refuse_locked(self, name: str, version: str) -> None:
        """Raise an error when a version of a file is locked."""
        found = self._call("head_object", name, VersionId=version)
        if found.get("ObjectLockLegalHoldStatus") == "ON":
            raise AuditError(f"{self.url}/{name} has a legal hold of the storage, and was not deleted")
        self._refuse_until(name, found.get("ObjectLockRetainUntilDate"))

    def _have_rule(self, days: int) -> None:
        """Have the bucket's rule for a number of days, beside all that it has."""
        if days in self._days:
            return
        wanted = rule(days)
        try:
            found = self._fs.call_s3("get_bucket_lifecycle_configuration", Bucket=self._bucket)
        except FileNotFoundError as error:
            if self._remedy(error):
                raise
            found = {}
        rules = found.get("Rules", [])
        if not any(wanted.items() <= one.items() for one in rules if one.get("ID") == wanted["ID"]):
            others = [_with_filter(one) for one in rules if one.get("ID") != wanted["ID"]]
            # What is left out here would be the default again.
            kept = {name: found[name] for name in ("TransitionDefaultMinimumObjectSize",) if name in found}
            self._fs.call_s3(
                "put_bucket_lifecycle_configuration",
                Bucket=self._bucket,
                LifecycleConfiguration={"Rules": [*others, wanted]},
                **kept,
            )
        self._days.add(days)

    def _call(self, method: str, name: str, **arguments: Any) -> Any:
        given = {key: value for key, value in arguments.items() if value is not None}
        return self._fs.call_s3(method, Bucket=self._bucket, Key=self._key(name), **given)

    def _key(self, name: str) -> str:
        return str(self._fs.split_path(self._path(name))[1])

    def _remedy(self, error: Exception) -> str | None:
        codes = {_code(one) for one in chain(error)}
        if "NoSuchBucket" in codes:
            return f"there is no bucket {self._bucket}; create it, or correct url"
        if codes.intersection(_REFUSED):
            return self._refused(error)
        if "lock" in self._storage and codes.intersection(_NO_LOCK) and "lock" in str(error).lower():
            return (
                f"the bucket {self._bucket} does not lock files ({self._text(error)}); enable Object Lock for it, or "
                "leave out lock"
            )
        return None


def days_until(until: datetime) -> int:
    """Return the days from today on after which a file may be deleted whose time ends then."""
    days = (until - datetime.now(timezone.utc)).total_seconds() / 86400
    return max(1, -int(-days // STEP_DAYS)) * STEP_DAYS


def rule(days: int) -> dict[str, Any]:
    """Return the lifecycle rule that deletes what has a number of days."""
    return {
        "ID": f"dbfleet-audit-{days}",
        "Status": "Enabled",
        "Filter": {"Tag": {"Key": TAG, "Value": str(days)}},
        "Expiration": {"Days": days},
        # What a versioned bucket keeps of a file that has expired.
        "NoncurrentVersionExpiration": {"NoncurrentDays": NONCURRENT_DAYS},
    }


def _with_filter(found: dict[str, Any]) -> dict[str, Any]:
    """Return a rule in today's form: those of one bucket must not be of both."""
    if "Prefix" not in found:
        return found
    return {**{name: value for name, value in found.items() if name != "Prefix"}, "Filter": {"Prefix": found["Prefix"]}}


def _code(error: BaseException) -> str:
    """Return what S3 calls an error, or Python does."""
    response = getattr(error, "response", None)
    return str(response["Error"].get("Code")) if isinstance(response, dict) else type(error).__name__
