# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the user asked of the trail, and whether this server can have it: refused before anything is changed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .._core.adoption import elsewhere
from .._core.errors import AuditError
from .._core.schema_version import refuse_newer
from .roles import ROLES
from .trail_catalog import TrailCatalog

MARK = "dbfleet.audit"

#: What `events` may ask for, besides the changes of rows.
EVENTS = ("ddl", "login", "app")


@dataclass(frozen=True)
class TrailOptions:
    """What the user asked for; field names are the module's options."""

    schema: str
    readers: tuple[str, ...]
    applications: tuple[str, ...]
    context: Mapping[str, Sequence[str]]
    tablespace: str | None
    indexes: tuple[str, ...]
    events: tuple[str, ...] = ()
    allow_downgrade: bool = False

    def roles(self) -> list[str]:
        """Every role that the plan needs to know about."""
        return [*ROLES, *self.readers, *self.applications]


def check(options: TrailOptions, catalog: TrailCatalog) -> None:
    """Refuse what is not ours and what is not there, before anything is changed."""
    _refuse_foreign(catalog)
    if not options.allow_downgrade:
        refuse_newer(f"the trail in schema {catalog.schema_name!r}", catalog.schema_version)
    if catalog.installed:
        catalog.login.require()
    catalog.login.check(catalog.schema is not None)
    for role in (*options.readers, *options.applications):
        if role not in catalog.roles:
            raise AuditError(f"role {role!r} does not exist; create it, or take it out of `readers`/`applications`")
    for role in options.readers:
        if role in options.applications:
            raise AuditError(
                f"role {role!r} is in both `readers` and `applications`; applications must not read the log"
            )
    if options.tablespace and options.tablespace not in catalog.tablespaces:
        raise AuditError(f"tablespace {options.tablespace!r} does not exist on this server")
    if catalog.foreign_casts:
        raise AuditError(
            f"{catalog.foreign_casts[0]}, who is no superuser, would run inside the audit functions with their rights "
            "as soon as such a value is audited; drop the cast or give the function to a superuser"
        )


def _refuse_foreign(catalog: TrailCatalog) -> None:
    for name in ROLES:
        role = catalog.roles.get(name)
        if role and not (role["comment"] or "").startswith(MARK):
            raise AuditError(
                f"a role {name!r} exists that dbfleet.audit did not make; rename it, "
                f"or hand it over: COMMENT ON ROLE {name} IS '{MARK}: adopted'"
            )
    if catalog.schema is None:
        return
    name, comment = catalog.schema_name, catalog.schema["comment"] or ""
    # Before 0.1.0 a number followed.
    marked = re.fullmatch(rf"{re.escape(MARK)}( \d+)?", comment)
    # Anybody may write this comment on a schema of their own, with triggers in it that wait for us.
    if not (marked and catalog.schema["trusted"]):
        held = "audit_log" if "audit_log" in catalog.relations else f"{len(catalog.relations)} relations"
        raise AuditError(
            f"schema {name!r} exists (owner {catalog.schema['owner']!r}, holds {held}) and is not ours; it stays as it "
            f"is. {elsewhere('postgresql_audit')}"
        )
