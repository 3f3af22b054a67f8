# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The facts about a server's trail: a fixed number of queries, none of which needs an administrator."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import Any

from .._core import info
from .._core.activity import COLUMNS, Group, activity, offsets
from .._core.adoption import ForeignLog
from .._core.coverage import AuditedTable
from .._core.info import Request
from .._core.policy_versions import StoredPolicy
from .._core.schema_version import FUNCTION
from .._core.trail_facts import SeenTables, TrailFacts, grant_entries
from . import info_queries as queries
from .accounts import ACCOUNTS, OWNER, WRITER, Account
from .adoption import read_foreign_logs
from .grants import READABLE, wanted_rights
from .partition_plan import INTERVAL_SETTING, PERIOD_NAME, first_day
from .session import Session, pymysql
from .trail_catalog import TrailCatalog, roles_of
from .trigger import OPERATIONS, PREFIX, Slots, read_triggers
from .trigger_catalog import MysqlTable, read_policies

#: No rights on a table, a column, a database or a view's table, or no privilege for it at all.
REFUSED = (1142, 1143, 1044, 1356, 1227, 1370)
_MISSING = (1146, 1049)

#: What the applications and readers of the inventory may call.
_PUBLIC_ROUTINES = ("set_context", "log_event", "overlay", FUNCTION)

#: The average that the server tells of a table with fewer rows is that of an empty page.
_ROWS_FOR_AVERAGE = 100
_GUESSED_COLUMN_WIDTH = 16


def trail_facts(session: Session, schema: str, request: Request, catalog: TrailCatalog | None) -> dict[str, Any]:
    """Return what the request asks for of the server.

    :param catalog: the trail's objects; None where the login may not read accounts and their rights.
    """
    return _Facts(session, schema, request, catalog).read()


def refusal(error: Any) -> str | None:
    """Return what an error means that this login gets and another one may not, or None when it means anything else."""
    code = error.args[0] if error.args else None
    if code in REFUSED:
        return "the login may not read it"
    return "the trail is of an older layout; run site.yml" if code in _MISSING else None


class _Facts(TrailFacts):
    """How the parts of MariaDB and MySQL are read."""

    operations = OPERATIONS
    interval_setting = INTERVAL_SETTING
    beginning = "0001-01-01"

    def __init__(self, session: Session, schema: str, request: Request, catalog: TrailCatalog | None) -> None:
        super().__init__(session, schema, schema, request)
        self.catalog = catalog
        self.installed = self._all(queries.INSTALLED, schema=schema)[0]["number"] > 0

    def schema_version(self) -> int | None:
        return None if self.catalog is None else self.catalog.schema_version

    def attempt(self, part: str, read: Callable[[], Any]) -> Any:
        return info.attempt(part, read, pymysql.MySQLError, refusal, self.limitations)

    def _all(self, query: str, **values: Any) -> list[dict[str, Any]]:
        # The driver takes a percent sign for the beginning of a place.
        name = self.session.identifier(self.schema).replace("%", "%%")
        return self.session.all(query.replace("{schema}", name), values)

    def stored_policies(self) -> list[StoredPolicy]:
        return read_policies(self.session, self.schema)

    def tables(self) -> SeenTables:
        visible = Visible(self._all(queries.VISIBLE, login=list(roles_of(self.session))))
        if not visible.everything:
            self.limitations.append("coverage: the login sees no tables but those that it has a privilege on")
        since, source, writes = self._writes()
        return SeenTables(self._audited_tables(visible, writes), since, source, visible.everything)

    def _audited_tables(self, visible: Visible, writes: Mapping[Any, Any] | None) -> list[AuditedTable]:
        types: dict[tuple[str, str], dict[str, str]] = {}
        for row in self._all(queries.COLUMNS, schema=self.schema):
            types.setdefault((row["schema"], row["table"]), {})[row["name"]] = _text(row["type"])
        triggers = read_triggers(self.session, self.schema, elsewhere=True)
        tables = []
        for row in self._all(queries.TABLES, schema=self.schema):
            key = (row["schema"], row["name"])
            if MysqlTable(*key, row["type"] or "", row["engine"] or "", (), (), ()).obstacle is None:
                slots = triggers.get(key, {}) if visible.triggers_of(*key) else None
                tables.append(_audited_table(row, types.get(key, {}), slots, writes))
        return [table for table in tables if not self.is_foreign_log(table)]

    @cached_property
    def foreign_logs(self) -> list[ForeignLog]:
        return read_foreign_logs(self.session)

    def _writes(self) -> tuple[datetime | None, str, dict[tuple[str, str], tuple[int, int, int]] | None]:
        """Return since when rows written are counted, the words for it, and the counts: inserted, updated, deleted."""
        try:
            counting = self._all(queries.INSTRUMENTED)
            rows = self._all(queries.WRITES)
        except pymysql.MySQLError as error:
            if refusal(error) is None:
                raise
            return None, "the login may not read performance_schema, which counts the rows that are written", None
        if not counting:
            return None, "performance_schema, which counts the rows that are written, is off", None
        uptime = int(self._all(queries.UPTIME)[0]["Value"])
        counts = {
            (_text(row["schema"]), _text(row["name"])): (row["inserted"], row["updated"], row["deleted"])
            for row in rows
        }
        return self.now - timedelta(seconds=uptime), "counted in performance_schema since the server's start", counts

    def partitions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for row in self._all(queries.PARTITIONS, schema=self.schema):
            bound = _text(row["bound"]).strip("'")
            entry = {"name": row["name"], "from": found[-1]["to"] if found else None}
            entry["to"] = None if bound == "MAXVALUE" else bound[:10]
            entry["begins"] = first_day(row["name"]) if PERIOD_NAME.fullmatch(row["name"]) else None
            found.append({**entry, "rows": int(row["rows"] or 0), "bytes": int(row["bytes"] or 0)})
        return found

    def rows_outside(self, first: str, last: str) -> int:
        return self._all(queries.CATCH_ALL, limit=info.COUNT_LIMIT, first=first, last=last)[0]["rows"]

    def activity(self) -> dict[str, Any]:
        request = self.request
        self.session.execute(queries.SESSION)
        values: dict[str, Any] = {name: getattr(request, name) for name in ("opens", "closes", "bulk_rows")}
        values.update(since=_naive(request.since), until=_naive(request.until), over_midnight=request.over_midnight)
        spans = offsets(request.time_zone, request.since, request.until)
        values.update({f"end_{number}": _naive(end) for number, (end, _seconds) in enumerate(spans)})
        rows = self._all(queries.activity([seconds for _end, seconds in spans]), **values)
        return activity((_group(row) for row in rows), request)

    def seals(self) -> dict[str, Any]:
        state = self._all(queries.SEALS)[0]
        last_id = state.pop("last_id")
        unsealed = self._all(queries.UNSEALED, last_id=last_id, limit=info.COUNT_LIMIT)[0]
        state["rows_sealed"] = int(state["rows_sealed"])
        return {**state, "unsealed_rows": unsealed["rows"], "oldest_unsealed_at": unsealed["oldest"]}

    def grants(self) -> list[dict[str, Any]] | None:
        if self.catalog is None:
            self.limitations.append("grants: the login may not read accounts and their rights")
            return None
        return _grants(self.catalog, Account.parse(self.session.account).grantee)

    def events(self) -> list[str] | None:
        return _events(self.catalog)

    def trail_settings(self) -> dict[str, Any]:
        return {row["name"]: row["value"] for row in self._all(queries.SETTINGS)}

    def server_settings(self) -> dict[str, Any]:
        return {row["Variable_name"].lower(): row["Value"] for row in self._all(queries.SERVER_SETTINGS)}


class Visible:
    """What a login's privileges let it see of tables and triggers."""

    def __init__(self, privileges: Sequence[Mapping[str, Any]]) -> None:
        tables = ("SELECT", "INSERT", "UPDATE", "DELETE")
        self.everything = any(row["schema"] == "%" and row["privilege"] in tables for row in privileges)
        triggers = [row for row in privileges if row["privilege"] == "TRIGGER"]
        self._databases = [_expression(row["schema"]) for row in triggers if row["name"] is None]
        self._tables = {(row["schema"], row["name"]) for row in triggers if row["name"] is not None}

    def triggers_of(self, schema: str, table: str) -> bool:
        """Tell whether the server shows the triggers of a table."""
        return (schema, table) in self._tables or any(database.fullmatch(schema) for database in self._databases)


def _expression(pattern: str) -> re.Pattern[str]:
    """Return the pattern of a grant as a regular expression."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    text = "".join({"%": ".*", "_": "."}.get(part) or re.escape(part[-1]) for part in parts)
    return re.compile(text, re.DOTALL)


def _audited_table(
    row: Mapping[str, Any], types: Mapping[str, str], slots: Slots | None, writes: Mapping[Any, Any] | None
) -> AuditedTable:
    key = (row["schema"], row["name"])
    rows = int(row["rows"] or 0)
    average = float(row["width"] or 0)
    counts = (None, None, None) if writes is None else writes.get(key, (0, 0, 0))
    return AuditedTable(
        *key,
        None if slots is None else _operations(slots),
        (),
        None,
        rows,
        int(row["bytes"] or 0),
        average if rows >= _ROWS_FOR_AVERAGE else float(_GUESSED_COLUMN_WIDTH * len(types)),
        sum(len(name.encode()) for name in types),
        len(types),
        *counts,
        types,
    )


def _operations(slots: Slots) -> tuple[str, ...]:
    ours = {
        event.lower()
        for (_timing, event), found in slots.items()
        if any(trigger.name.startswith(PREFIX) and trigger.definer == str(WRITER) for trigger in found)
    }
    return tuple(operation for operation in OPERATIONS if operation in ours)


def _group(row: Mapping[str, Any]) -> Group:
    numbers = {name: int(row[name]) for name in ("changes", "off_hours", "without_user", "bulk_deletes")}
    return Group(**{name: row[name] for name in COLUMNS if name not in numbers}, **numbers)


def _events(catalog: TrailCatalog | None) -> list[str] | None:
    """Return what the trail records besides changes of rows; None for a login that does not see who may call what."""
    if catalog is None:
        return None
    ours = {account.grantee for account in ACCOUNTS}
    return ["app"] if any(grant.name == "log_event" and grant.grantee not in ours for grant in catalog.grants) else []


def _grants(catalog: TrailCatalog, own: str) -> list[dict[str, Any]]:
    """Return every privilege on the trail, and whether a trail of ours gives such a one."""
    ours = {
        (right.account.grantee, right.name, privilege)
        for right in wanted_rights((), (), catalog.tables)
        for privilege in right.privileges
    }
    found: list[tuple[str, str, str, bool]] = []
    for grant in catalog.grants:
        # By a pattern, or of all databases, they are among the server's limitations.
        if grant.db != catalog.schema and re.sub(r"\\(.)", r"\1", grant.db) != catalog.schema:
            continue
        name = grant.name or "*"
        given = (grant.grantee, name, grant.privilege) in ours or (
            grant.privilege == "SELECT" and name in READABLE if grant.privilege != "EXECUTE" else _may_call(grant)
        )
        # The login's own rights are what it runs this with.
        found.append((grant.grantee, name, grant.privilege, given or grant.grantee == own))
    return [{**entry, "grantee": str(Account.parse(entry["grantee"]))} for entry in grant_entries(found)]


def _may_call(grant: Any) -> bool:
    return grant.name in _PUBLIC_ROUTINES or grant.grantee in (OWNER.grantee, WRITER.grantee)


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(timezone.utc).replace(tzinfo=None)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
