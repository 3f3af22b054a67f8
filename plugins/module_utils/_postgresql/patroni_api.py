# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The REST API of a member of a Patroni cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ansible.module_utils.urls import ConnectionError as AnsibleConnectionError
from ansible.module_utils.urls import open_url

from .._core.errors import AuditError

API_SPEC: dict[str, Any] = {
    "url": {"type": "str", "required": True},
    "url_username": {"type": "str"},
    "url_password": {"type": "str", "no_log": True},
    "ca_path": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
}

#: Seconds that an answer may take which nobody has to do anything for.
_ANSWER = 15

_LEADERS = ("leader", "standby_leader")


@dataclass(frozen=True)
class Member:
    """A member of a cluster, as Patroni describes it.

    :ivar leader: it is the one that the others follow.
    """

    name: str
    leader: bool
    state: str
    url: str


@dataclass(frozen=True)
class Cluster:
    """A cluster, as one of its members sees it.

    :ivar member: name of that member.
    :ivar system_identifier: what all servers of the cluster have in common, and no other server has.
    """

    name: str
    member: str
    system_identifier: str
    members: list[Member]


class PatroniApi:
    """Talks to one member; what a user can put right is raised as AuditError."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = params
        self.url: str = params["url"].rstrip("/")

    def cluster(self) -> Cluster:
        """Ask what the member and its cluster are."""
        own, all_members = self._ask("GET", "/patroni"), self._ask("GET", "/cluster")["members"]
        members = [
            Member(entry["name"], entry["role"] in _LEADERS, entry.get("state", ""), _base(entry.get("api_url", "")))
            for entry in all_members
        ]
        # Patroni tells its own name from 3.2 on.
        mine = [own["patroni"].get("name") or entry.name for entry in members if self._is(own, entry)]
        if not mine:
            raise AuditError(
                f"{self.url} does not say which of {', '.join(entry.name for entry in members)} it is: give the "
                "address that Patroni has for it (restapi.connect_address)"
            )
        return Cluster(own["patroni"]["scope"], mine[0], own["database_system_identifier"], members)

    def _is(self, own: Mapping[str, Any], member: Member) -> bool:
        name = own["patroni"].get("name")
        return bool(name == member.name if name else urlsplit(member.url).netloc == urlsplit(self.url).netloc)

    def parameters(self) -> dict[str, Any]:
        """Return PostgreSQL's parameters in the configuration that all members have in common."""
        return dict((self._ask("GET", "/config").get("postgresql") or {}).get("parameters") or {})

    def change(self, parameters: Mapping[str, Any]) -> None:
        """Merge parameters into that configuration; None takes one out."""
        self._ask("PATCH", "/config", {"postgresql": {"parameters": dict(parameters)}})

    def restart(self, timeout: float) -> str:
        """Have the member restart its server; return an empty text when it has, else what went wrong."""
        try:
            self._open("POST", "/restart", {"timeout": max(1, int(timeout))}, timeout + _ANSWER)
        except AuditError as error:
            return str(error)
        return ""

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        text = self._open(method, path, body, _ANSWER)
        try:
            answer = json.loads(text)
        except ValueError:
            raise AuditError(f"{self.url}{path} does not answer as Patroni does: {text[:200]!r}") from None
        return dict(answer)

    def _open(self, method: str, path: str, body: Any, timeout: float) -> str:
        """Return the text of an answer.

        :raises AuditError: when there is none, or another one than success.
        """
        params = self.params
        try:
            answer = open_url(
                self.url + path,
                method=method,
                data=json.dumps(body) if body is not None else None,
                headers={"Content-Type": "application/json"},
                timeout=timeout,
                # Members of a cluster reach each other without a proxy.
                use_proxy=False,
                force_basic_auth=bool(params["url_username"]),
                **{name: params[name] for name in API_SPEC if name != "url"},
            )
            return str(answer.read().decode("utf-8", "replace"))
        except HTTPError as error:
            said = error.read().decode("utf-8", "replace").strip()[:500]
            hint = "; give url_username and url_password" if error.code in (401, 403) else ""
            raise AuditError(f"Patroni: {method} {self.url}{path}: {error.code} {said or error.reason}{hint}") from None
        except (OSError, HTTPException, AnsibleConnectionError) as error:
            raise AuditError(f"Patroni does not answer: {method} {self.url}{path}: {error}") from None


def _base(api_url: str) -> str:
    """Return the address of a member's API; Patroni gives that of a page of it."""
    return api_url.removesuffix("/").removesuffix("/patroni")
