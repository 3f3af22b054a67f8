# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The facts about one database's trail: a fixed number of queries, none of which needs a superuser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

from .._core import info
from .._core.activity import Group, activity
from .._core.adoption import ForeignLog
from .._core.coverage import AuditedTable
from .._core.info import Request
from .._core.policy import OPERATIONS
from .._core.policy_versions import StoredPolicy
from .._core.schema_version import FUNCTION
from .._core.trail_facts import SeenTables, TrailFacts, grant_entries
from . import info_queries as queries
from . import trail_catalog
from .adoption import read_foreign_logs
from .attach_functions import EXCEPTIONS_SETTING
from .capture import is_capture
from .event_triggers import EVENT_TRIGGERS, fires
from .partition_functions import INTERVAL_SETTING
from .roles import OWNER, ROLES, WRITER
from .session import Session, psycopg2
from .trail import READABLE
from .trail_catalog import TrailCatalog
from .trail_tables import VIEWS
from .trigger import EVENT_BITS
from .trigger_catalog import PgTable, read_policies, read_tables

#: What an error means that this login gets and another one may not.
_REFUSALS = {
    "42501": "the login {login} may not read it",
    "42P01": "the trail is of an older layout; run site.yml",
    "55P03": "somebody holds a lock on it",
}

#: Whom the trail itself gives more than SELECT: (grantee, object, privilege).
_OWN_GRANTS = (
    (WRITER, "audit_log_data", "INSERT"),
    (WRITER, "audit_log_id_seq", "USAGE"),
    (WRITER, "hash_key", "SELECT"),
)
_READABLE = (*READABLE, *VIEWS, "audit_log_data")
#: What the applications of the inventory may call, and its readers.
_PUBLIC_FUNCTIONS = ("set_context", "log_event", "add_table", "canonical", FUNCTION)


def trail_facts(session: Session, schema: str, request: Request) -> dict[str, Any]:
    """Return what the request asks for of the database that the session is in."""
    return _Facts(session, schema, request).read()


class _Facts(TrailFacts):
    """How PostgreSQL's parts are read."""

    operations = OPERATIONS
    interval_setting = INTERVAL_SETTING
    beginning = "-infinity"

    def __init__(self, session: Session, schema: str, request: Request) -> None:
        super().__init__(session, session.database, schema, request)
        session.one(queries.SESSION)
        self.catalog: TrailCatalog = trail_catalog.read(session, schema, list(ROLES))
        self.installed = self.catalog.installed

    def schema_version(self) -> int:
        return self.catalog.schema_version

    def attempt(self, part: str, read: Callable[[], Any]) -> Any:
        return info.attempt(part, read, psycopg2.Error, self._refusal, self.limitations)

    def _refusal(self, error: Any) -> str | None:
        reason = _REFUSALS.get(error.pgcode)
        return reason and reason.format(login=self.session.connection.info.user)

    def _all(self, query: str, **values: Any) -> list[Any]:
        name = self.session.identifier(self.schema)
        # The driver takes a percent sign for the beginning of a place, where it looks for places at all.
        text = query.replace("{schema}", name.replace("%", "%%") if "%(" in query else name)
        return self.session.all(text, values or None)

    def stored_policies(self) -> list[StoredPolicy]:
        return read_policies(self.session, self.schema)

    def tables(self) -> SeenTables:
        return SeenTables(self._audited_tables(), *self._counted())

    def _audited_tables(self) -> list[AuditedTable]:
        numbers = self._all(queries.TABLES, schema=self.schema, types=self.request.discover)
        by_name = {(row.schema, row.name): row for row in numbers}
        found = [
            _audited_table(table, by_name[key], counts=not self.session.in_recovery)
            for key, table in read_tables(self.session, self.schema).items()
            # A table that was made between the two queries is there the next time.
            if table.kind in ("r", "p") and table.root is None and key in by_name
        ]
        return [table for table in found if not self.is_foreign_log(table)]

    @cached_property
    def foreign_logs(self) -> list[ForeignLog]:
        return read_foreign_logs(self.session)

    def _counted(self) -> tuple[datetime | None, str]:
        """Return since when the server counts rows, and the words for it."""
        row = self._all(queries.COUNTED)[0]
        if self.session.in_recovery:
            return None, "a standby does not count the rows that are written; ask its primary"
        if not row.counts:
            return None, "track_counts is off: the server does not count the rows that are written"
        since = datetime.fromisoformat(row.since).replace(tzinfo=timezone.utc)
        return since, "counted in pg_stat_user_tables"

    def partitions(self) -> list[dict[str, Any]]:
        return [
            {"name": row.name, "from": row.lower, "to": row.upper, "rows": row.rows, "bytes": row.bytes}
            for row in self._all(queries.PARTITIONS, schema=self.schema)
        ]

    def rows_outside(self, first: str, last: str) -> int:
        return self._all(queries.CATCH_ALL, limit=info.COUNT_LIMIT, first=first, last=last)[0].rows

    def activity(self) -> dict[str, Any]:
        names = ("since", "until", "opens", "closes", "over_midnight", "time_zone", "bulk_rows")
        values = {name: getattr(self.request, name) for name in names}
        return activity((Group(**row._asdict()) for row in self._all(queries.ACTIVITY, **values)), self.request)

    def seals(self) -> dict[str, Any]:
        state = self._all(queries.SEALS)[0]._asdict()
        last_id = state.pop("last_id")
        self._all(queries.BY_ID, value="off")
        unsealed = self._all(queries.UNSEALED, last_id=last_id, limit=info.COUNT_LIMIT)[0]
        self._all(queries.BY_ID, value="on")
        return {**state, "unsealed_rows": unsealed.rows, "oldest_unsealed_at": unsealed.oldest}

    def grants(self) -> list[dict[str, Any]]:
        return grant_entries(_grants(self.catalog))

    def events(self) -> list[str]:
        return _events(self.catalog)

    def trail_settings(self) -> dict[str, Any]:
        return {row.name: row.value for row in self._all(queries.SETTINGS) if row.name != EXCEPTIONS_SETTING}

    def server_settings(self) -> dict[str, Any]:
        return {row.name: row.setting for row in self._all(queries.SERVER_SETTINGS)}


def _audited_table(table: PgTable, numbers: Any, counts: bool) -> AuditedTable:
    ours = {name: trigger for name, trigger in table.triggers.items() if _is_capture(trigger)}
    disabled = [name for name, trigger in ours.items() if trigger["enabled"] not in "OA" or trigger["clones_off"]]
    types = [ours[name]["type"] for name in ours if name not in disabled]
    operations = [operation for operation in OPERATIONS if any(kind & EVENT_BITS[operation] for kind in types)]
    return AuditedTable(
        table.schema,
        table.name,
        tuple(operations),
        tuple(sorted(disabled)),
        table.parent,
        numbers.rows,
        max(numbers.bytes, round(numbers.rows * numbers.width)),
        numbers.width,
        numbers.name_bytes,
        numbers.columns,
        numbers.inserted if counts else None,
        numbers.updated if counts else None,
        numbers.deleted if counts else None,
        dict(numbers.types or ()),
    )


def _is_capture(trigger: Mapping[str, Any]) -> bool:
    return bool(trigger["ours"]) and is_capture(trigger["function"])


def _events(catalog: TrailCatalog) -> list[str]:
    """Return what the trail records besides changes of rows: kinds of which every trigger is there and fires."""
    fire: dict[str, bool] = {}
    for name, wanted in EVENT_TRIGGERS.items():
        if wanted.records:
            fire[wanted.records] = fire.get(wanted.records, True) and fires(name, catalog.event_triggers.get(name))
    events = [kind for kind, every in fire.items() if every]
    if (catalog.functions.get("log_event") or {}).get("acl"):
        events.append("app")
    return events


def _grants(catalog: TrailCatalog) -> list[tuple[str, str, str, bool]]:
    """Return every privilege on the trail as (grantee, object, privilege, whether a trail of ours gives it)."""
    found = [
        (grantee, f"schema {catalog.schema_name}", privilege, privilege == "USAGE" and _plain(grantee, grantable))
        for grantee, privilege, grantable in (catalog.schema or {}).get("acl") or []
    ]
    for name, relation in catalog.relations.items():
        for grantee, privilege, grantable in relation["acl"] or []:
            own = (grantee, name, privilege) in _OWN_GRANTS
            read = privilege == "SELECT" and name in _READABLE and _plain(grantee, grantable)
            found.append((grantee, name, privilege, own or read))
        for grantee, privilege, column in relation["column_acl"] or []:
            found.append((grantee, f"{name}.{column}", privilege, False))
    for name, function in catalog.functions.items():
        for grantee, privilege, grantable in function["acl"] or []:
            callable_by_all = name in _PUBLIC_FUNCTIONS or is_capture(name)
            expected = grantee in ROLES or (callable_by_all and _plain(grantee, grantable))
            found.append((grantee, f"{name}()", privilege, expected))
    for role in (OWNER, WRITER):
        for member, _grantor in (catalog.roles.get(role) or {}).get("members") or []:
            # A login that is no superuser has to be one: limitations() says what that costs.
            found.append((member, f"role {role}", "MEMBER", member == catalog.login.name))
    return found


def _plain(grantee: str, grantable: bool) -> bool:
    """Tell whether it is a grant to a role, which cannot pass it on: whether the inventory names it, verify tells."""
    return grantee != "PUBLIC" and not grantable
