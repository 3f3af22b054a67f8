# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of postgresql_pgaudit: as given, and checked against what the server has. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._core.errors import AuditError
from .pgaudit import Scope, ServerOptions
from .pgaudit_objects import PRIVILEGES, AuditedObject
from .pgaudit_settings import PREFIX, parse_settings

#: The role for object auditing where the settings name none.
OBJECT_ROLE = "audit_objects"

#: What is managed beside pgaudit's own settings; each is an option of the module's as well.
CONNECTION_SETTINGS = ("log_connections", "log_disconnections", "log_line_prefix")

PGAUDIT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "settings": {"type": "dict", "default": {}},
    "databases": {"type": "dict", "default": {}},
    "roles": {"type": "dict", "default": {}},
    "objects": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "database": {"type": "str", "required": True},
            "table": {"type": "str", "required": True},
            "columns": {"type": "list", "elements": "str"},
            "privileges": {"type": "list", "elements": "str", "choices": list(PRIVILEGES)},
        },
    },
    "extension_databases": {"type": "list", "elements": "str", "default": []},
    "extension_schema": {"type": "str", "default": "public"},
    "log_connections": {"type": "bool"},
    "log_disconnections": {"type": "bool"},
    "log_line_prefix": {"type": "str"},
    "self_test": {"type": "bool", "default": False},
    "assume_loaded": {"type": "bool", "default": False},
}


@dataclass(frozen=True)
class PgauditOptions:
    """The module's options; with state absent, nothing of it is to be there."""

    params: Mapping[str, Any]
    objects: Sequence[AuditedObject]

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> PgauditOptions:
        return cls(params, [AuditedObject.parse(entry) for entry in params["objects"]])

    @property
    def present(self) -> bool:
        return bool(self.params["state"] == "present")

    @property
    def object_role(self) -> str:
        """The role whose grants say which objects are audited, whether there are any or not."""
        settings = self.params["settings"]
        return str(settings.get("role") or settings.get(PREFIX + "role") or OBJECT_ROLE)

    def objects_in(self, database: str) -> list[AuditedObject]:
        return [entry for entry in self.objects if entry.database == database] if self.present else []

    def extension_in(self, database: str) -> bool:
        return any(fnmatch.fnmatchcase(database, pattern) for pattern in self.params["extension_databases"])

    def databases(self, existing: Sequence[str]) -> set[str]:
        """Return the databases that the options name.

        :raises AuditError: for one that the server does not have.
        """
        for pattern in self.params["extension_databases"]:
            if not fnmatch.filter(existing, pattern):
                raise AuditError(f"extension_databases lists {pattern}, but the server has no such database")
        for entry in self.objects:
            _require("objects", "database", entry.database, existing)
        return {name for name in existing if self.extension_in(name) or self.objects_in(name)}

    def server(self, known: Sequence[str] | None, databases: Sequence[str], roles: Sequence[str]) -> ServerOptions:
        """Return what the whole server is to be set to.

        :param known: the settings that the installed version has; None when nobody can know yet.
        :param databases: those that the server has.
        :param roles: those that it has of the roles that the options name.
        :raises AuditError: naming the option that is wrong, and how it is right.
        """
        managed = [name for name in CONNECTION_SETTINGS if self.params[name] is not None]
        if not self.present:
            return ServerOptions({}, {}, returned=managed)
        cluster = parse_settings(self.params["settings"], "settings", known)
        if self.objects:
            cluster.setdefault(PREFIX + "role", self.object_role)
        for name in managed:
            value = self.params[name]
            cluster[name] = value if isinstance(value, str) else ("on" if value else "off")
        scoped: dict[Scope, Mapping[str, str]] = {}
        for name, own in self.params["databases"].items():
            _require("databases", "database", name, databases)
            scoped[(name, None)] = _own("databases", name, own, known)
        for name, own in self.params["roles"].items():
            _require("roles", "role", name, roles)
            scoped[(None, name)] = _own("roles", name, own, known)
        return ServerOptions(cluster, scoped, self.object_role if self.objects else "")


def _require(option: str, what: str, name: str, existing: Sequence[str]) -> None:
    if name not in existing:
        raise AuditError(f"{option} names the {what} {name}, which this server does not have")


def _own(option: str, name: str, own: Any, known: Sequence[str] | None) -> dict[str, str]:
    if not isinstance(own, dict):
        raise AuditError(f"{option}: {name} is {own!r}, which is no dictionary of settings such as {{log: [ddl]}}")
    return parse_settings(own, f"{option}: {name}", known)
