# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A folder of Azure Blob Storage: access tier and immutability policy of each file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_place import Objects, chain

#: What a lock is called here. Of the first, who may do so can shorten it or take it away; of the second, nobody.
_MODES = {"governance": "Unlocked", "compliance": "Locked"}

#: As codes of HTTP, for not every answer says more, and what the SDK calls it when it has not even asked.
_REFUSED = ("401", "403", "ClientAuthenticationError", "CredentialUnavailableError")


class Azure(Objects):
    """A folder of a container."""

    package = "adlfs"
    takes = ("storage_class", "lock")
    variables = "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"

    def __init__(self, url: str, storage: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        super().__init__(url, storage, options)
        from azure.core.exceptions import AzureError

        # What the SDK says while a file is sent, adlfs says as a RuntimeError.
        self._errors = (OSError, AzureError, RuntimeError)
        self._container = self._fs.split_path(self._root)[0]
        self._can_lock = False

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._explained():
            self._run(self._delete, name)

    def keep(self, name: str, until: datetime | None) -> None:
        if self._locks(until):
            with self._explained():
                self._run(self._lengthen, name, until)

    def _prepared(self, until: datetime | None) -> dict[str, Any]:
        if self._locks(until) and not self._can_lock:
            # At once, and not when gigabytes have been sent.
            self._run(self._check_container)
            self._can_lock = True
        return {}

    def _finish(self, name: str, until: datetime | None) -> None:
        self._run(self._set, name, until)

    async def _check_container(self) -> None:
        async with self._fs.service_client.get_container_client(self._container) as client:
            found = await client.get_container_properties()
        if not found.immutable_storage_with_versioning_enabled:
            raise AuditError(
                f"the archive {self.url}: the container {self._container} does not lock files; enable version-level "
                "immutability for it, or leave out lock"
            )

    async def _set(self, name: str, until: datetime | None) -> None:
        from azure.storage.blob import ImmutabilityPolicy

        async with self._client(name) as client:
            if "storage_class" in self._storage:
                await client.set_standard_blob_tier(str(self._storage["storage_class"]).capitalize())
            if self._locks(until):
                mode = _MODES[self._storage["lock"]]
                await client.set_immutability_policy(ImmutabilityPolicy(expiry_time=until, policy_mode=mode))

    async def _lengthen(self, name: str, until: datetime) -> None:
        """Have the policy of a file end later, in the mode that it has, which may not be today's."""
        from azure.storage.blob import ImmutabilityPolicy

        async with self._client(name) as client:
            policy = (await client.get_blob_properties()).immutability_policy
            if policy.expiry_time and policy.expiry_time < until:
                mode = str(policy.policy_mode).capitalize()
                await client.set_immutability_policy(ImmutabilityPolicy(expiry_time=until, policy_mode=mode))

    async def _delete(self, name: str) -> None:
        """Delete a file and all its versions, unless it is locked."""
        from azure.core.exceptions import ResourceNotFoundError

        async with self._client(name) as client:
            with contextlib.suppress(ResourceNotFoundError):
                found = await client.get_blob_properties()
                self._refuse_locked(name, found)
                await client.delete_blob(delete_snapshots="include")
                if not found.version_id:
                    # An account that keeps no versions may refuse to list them.
                    return
            path = client.blob_name
        async with self._fs.service_client.get_container_client(self._container) as container:
            include = ["versions", "immutabilitypolicy", "legalhold"]
            async for version in container.list_blobs(name_starts_with=path, include=include):
                if version.name == path and version.version_id:
                    self._refuse_locked(name, version)
                    await container.delete_blob(path, version_id=version.version_id)

    def _refuse_locked(self, name: str, found: Any) -> None:
        """Raise an error when what was found of a file is locked."""
        if found.has_legal_hold:
            raise AuditError(f"{self.url}/{name} has a legal hold of the storage, and was not deleted")
        self._refuse_until(name, found.immutability_policy.expiry_time)

    def _client(self, name: str) -> Any:
        return self._fs.service_client.get_blob_client(self._container, self._fs.split_path(self._path(name))[1])

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a coroutine in the loop that the library's client belongs to."""
        from fsspec.asyn import sync

        return sync(self._fs.loop, function, *arguments)

    def _remedy(self, error: Exception) -> str | None:
        errors = list(chain(error))
        codes = {getattr(code, "value", code) for one in errors if (code := getattr(one, "error_code", None))}
        if "ContainerNotFound" in codes:
            return f"there is no container {self._container}; create it, or correct url"
        kinds = {str(kind) for one in errors for kind in (getattr(one, "status_code", ""), type(one).__name__)}
        return self._refused(error) if kinds.intersection(_REFUSED) else None
