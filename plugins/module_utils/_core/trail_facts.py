# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The frame of the facts about one trail, on any engine: part after part, as far as the login may read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, ClassVar

from . import info
from .adoption import ForeignLog
from .coverage import AuditedTable, Coverage, in_force
from .info import Request
from .policy import Policy
from .policy_versions import StoredPolicy


@dataclass(frozen=True)
class SeenTables:
    """The tables that a login sees of those that can be audited.

    :ivar counted_since: since when the server counts the rows that are written, in UTC; None where it does not.
    :ivar source: where the counts are from, or why there are none.
    :ivar everything: whether there are no tables but these.
    """

    tables: Sequence[AuditedTable]
    counted_since: datetime | None
    source: str
    everything: bool = True


class TrailFacts:
    """Reads part after part; what the login may not read is None, and named among the limitations.

    An engine sets `installed`, and says how each part is read.
    """

    #: Operations that the engine can audit.
    operations: ClassVar[Sequence[str]]
    #: The trail's setting that holds the length of its partitions.
    interval_setting: ClassVar[str]
    #: What is before all records: the bounds of a log that has no partition but the catch-all.
    beginning: ClassVar[str]

    installed: bool

    def __init__(self, session: Any, database: str, schema: str, request: Request) -> None:
        self.session = session
        self.database = database
        self.schema = schema
        self.request = request
        self.now = datetime.now(timezone.utc)
        self.limitations: list[str] = []

    def read(self) -> dict[str, Any]:
        """Return what the request asks for."""
        facts: dict[str, Any] = {
            "database": self.database,
            "schema": self.schema,
            "installed": self.installed,
            "schema_version": self.schema_version() if self.installed else None,
            "error": None,
        }
        if self.request.discover or "coverage" in self.request.gather:
            facts.update(self._of_tables())
        if self.installed:
            parts: dict[str, Callable[[], Any]] = {
                "partitions": self._partitions,
                "activity": self.activity,
                "seals": self.seals,
                "grants": self.grants,
                "settings": self._settings,
            }
            facts.update((part, self.attempt(part, parts[part])) for part in parts if part in self.request.gather)
        return {**facts, "limitations": self.limitations}

    def schema_version(self) -> int | None:
        """Return the version of what the trail consists of; None where the login does not see it."""
        raise NotImplementedError

    def attempt(self, part: str, read: Callable[[], Any]) -> Any:
        """Call :func:`info.attempt` with the driver's error and what it means."""
        raise NotImplementedError

    def stored_policies(self) -> list[StoredPolicy]:
        """Return the policies that the trail has stored."""
        raise NotImplementedError

    def tables(self) -> SeenTables:
        """Return the tables that can be audited; what the login does not see of them is a limitation."""
        raise NotImplementedError

    @cached_property
    def foreign_logs(self) -> list[ForeignLog]:
        """The logs of changes that triggers of somebody else's write."""
        raise NotImplementedError

    def is_foreign_log(self, table: AuditedTable) -> bool:
        """Tell whether a table is such a log, which nobody has to audit unless somebody does."""
        key = (table.schema, table.name)
        return not table.operations and any(log.repeats and log.key == key for log in self.foreign_logs)

    def partitions(self) -> list[dict[str, Any]]:
        """Return the log's partitions as :func:`info.partitions` takes them."""
        raise NotImplementedError

    def rows_outside(self, first: str, last: str) -> int:
        """Return how many records, up to info.COUNT_LIMIT, are before the one moment or not before the other."""
        raise NotImplementedError

    def activity(self) -> dict[str, Any]:
        """Return what has happened in the period that the request names."""
        raise NotImplementedError

    def seals(self) -> dict[str, Any]:
        """Return how far the chain of seals reaches."""
        raise NotImplementedError

    def grants(self) -> list[dict[str, Any]] | None:
        """Return the privileges on the trail as :func:`grant_entries` does; None, a limitation, where unseen."""
        raise NotImplementedError

    def events(self) -> list[str] | None:
        """Return what the trail records besides changes of rows; None where the login does not see it."""
        raise NotImplementedError

    def trail_settings(self) -> dict[str, Any]:
        """Return the trail's own settings."""
        raise NotImplementedError

    def server_settings(self) -> dict[str, Any]:
        """Return those of the server that decide over what is recorded, of whom, and where it goes."""
        raise NotImplementedError

    def _of_tables(self) -> dict[str, Any]:
        policies = self.attempt("policies", self._policies) if self.installed else None
        seen = self.tables()
        exemptions = [entry for entry in self.request.exemptions if entry.concerns(self.database)]
        coverage = Coverage(seen.tables, policies, exemptions, self.now.date())
        facts: dict[str, Any] = {}
        if "coverage" in self.request.gather:
            facts["coverage"] = coverage.facts() if seen.tables or seen.everything else None
            logs = self.attempt("foreign auditing", lambda: self.foreign_logs)
            facts["foreign_auditing"] = None if logs is None else [log.facts() for log in logs]
        # What it does not see may be a table that is not audited.
        missing = coverage.missing() if seen.everything else None
        facts["estimate"] = info.estimate(missing, seen.counted_since, self.now, seen.source)
        if self.request.discover:
            facts.update(info.discovered(missing, self.operations, self.limitations))
        return facts

    def _policies(self) -> list[Policy]:
        return in_force(self.stored_policies(), self.session.database)

    def _partitions(self) -> dict[str, Any]:
        found = self.partitions()
        bounds = [entry for entry in found if entry["from"] and entry["to"]]
        first, last = (bounds[0]["from"], bounds[-1]["to"]) if bounds else (self.beginning, self.beginning)
        count = self.attempt("rows of the catch-all", lambda: self.rows_outside(first, last))
        return info.partitions(found, self._trail_settings.get(self.interval_setting), count, self.now)

    def _settings(self) -> dict[str, Any]:
        return {"events": self.events(), **self._trail_settings, **self.server_settings()}

    @cached_property
    def _trail_settings(self) -> dict[str, Any]:
        return self.attempt("settings of the trail", self.trail_settings) or {}


def grant_entries(found: Iterable[tuple[str, str, str, bool]]) -> list[dict[str, Any]]:
    """Return one entry for each grantee and object, in their order.

    :param found: privileges as (grantee, object, privilege, whether a trail of ours gives it).
    """
    held: dict[tuple[str, str], list[tuple[str, bool]]] = {}
    for grantee, name, privilege, expected in found:
        held.setdefault((grantee, name), []).append((privilege, expected))
    return [
        {
            "grantee": grantee,
            "object": name,
            "privileges": sorted(privilege for privilege, _expected in privileges),
            "expected": all(expected for _privilege, expected in privileges),
        }
        for (grantee, name), privileges in sorted(held.items())
    ]
