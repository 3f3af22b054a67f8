# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The partitions of one PostgreSQL database's log, on their way into an archive."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from .._core.archive_step import late
from .._core.errors import AuditError
from .._core.hold import Hold
from .._core.sql import Identifier, Literal, Sql, Verbatim, sql
from . import archive_queries as queries
from .canonical import canonical
from .roles import OWNER
from .rollout_record import leaving
from .seal_queries import LOCK
from .seal_store import SealStore
from .session import LOCK_PLACES, Session, psycopg2

_PAST = "audit_log_past"

#: What to execute in a state to have a partition detached.
_DETACHING = {"attached": queries.DETACH, "detaching": queries.FINALIZE}


class ArchiveStore:
    """See _core/archive_step.py, which says what each method is for."""

    def __init__(self, session: Session, schema: str, lock_timeout: float, lock_retries: int) -> None:
        self.session = session
        self.schema = schema
        self._lock_timeout = f"{int(lock_timeout * 1000)}ms"
        self._attempts = lock_retries + 1
        self._name = session.identifier(schema)
        self._log = f"{self._name}.audit_log_data"
        self.statements: list[str] = []

    def periods(self) -> list[dict[str, Any]]:
        rows = self._all(queries.PERIODS, schema_name=Literal(self._name), log=Literal(self._log))
        return [row._asdict() for row in rows]

    def whole(self) -> dict[str, Any]:
        there = [name for name in (_PAST, "audit_log_future") if self._state(name)]
        full = [name for name in there if self._all(queries.ANY, partition=Identifier.of(self.schema, name))[0].found]
        return {"written": self._is_written(), "catch_alls": full}

    def contents(self, period: Mapping[str, Any]) -> dict[str, Any]:
        groups = [row._asdict() for row in self._all(queries.GROUPS, partition=self._partition(period))]
        ends = {name: [group.pop(name) for group in groups] for name in ("first_id", "last_id", "first_at", "last_at")}
        return {
            "rows": sum(group["rows"] for group in groups),
            "groups": groups,
            **{name: (min if "first" in name else max)(found, default=None) for name, found in ends.items()},
        }

    def holds(self, period: Mapping[str, Any], hold: Hold, tables: Sequence[tuple[str, str]] | None) -> bool:
        places = {
            "tables": Literal(None if tables is None else tuple(tables)),
            "record_id": Literal(hold.record_id),
            "changed_by": Literal(hold.changed_by),
        }
        return bool(self._all(queries.HELD, partition=self._partition(period), **places)[0].held)

    def bounds_of(self, period: Mapping[str, Any], after: int) -> list[tuple[int, int]]:
        days = {name: Literal(period.get(name)) for name in ("first_day", "end_day")}
        return [(row.last_id, row.rows) for row in self._all(queries.BOUNDS, after=Literal(after), **days)]

    def lines(self, period: Mapping[str, Any], after: int, until: int, take: Callable[[bytes], None]) -> None:
        plain = self.session.connection.get_parameter_status("server_encoding") == "SQL_ASCII"
        statement = self._text(
            queries.COPY,
            text=canonical("r"),
            partition=self._partition(period),
            after=Literal(after),
            until=Literal(until),
            encoding=Verbatim("SQL_ASCII" if plain else "UTF8"),
        )
        with self.session.connection.cursor() as cursor:
            cursor.copy_expert(statement, _Lines(take))

    def release(self, period: Mapping[str, Any], rows: int) -> list[str]:
        before, name = len(self.statements), period["name"]
        if self._state(name) == "attached":
            self._require_rows(period, rows)
        if self._state(name) is not None:
            self._announce(name)
            self._bring(name, "detached", _DETACHING)
            try:
                self._require_rows(period, rows)
            except AuditError:
                bounds = {"lower": Literal(period["first_day"]), "upper": Literal(period["end_day"])}
                self._bring(name, "attached", {"detached": queries.ATTACH}, **bounds)
                raise
            self._bring(name, None, {"detached": queries.DROP})
        return self.statements[before:]

    def _announce(self, name: str) -> None:
        """Record that a partition's triggers go, and keep sealing runs out until this call ends.

        One that saw them gone before there is a record of it would sign that somebody had taken them away.
        """
        self.session.execute("SET lock_timeout = '60s'")
        self._all(LOCK, **LOCK_PLACES)
        # A log that auditing was taken out of takes no records.
        if self._is_written():
            self.session.execute(leaving(self.schema, name).render(self.session))

    def release_statements(self, period: Mapping[str, Any]) -> list[str]:
        texts = [queries.DROP]
        if period["state"] != "detached":
            texts.insert(0, queries.DETACH if period["state"] == "attached" else queries.FINALIZE)
        return [self._text(text, partition=self._partition(period)).strip() for text in texts]

    def tidy(self) -> list[str]:
        """Have the place for rows from before the first period end where that begins."""
        before, upper = len(self.statements), self._gap([])
        if upper is not None:
            self._announce(_PAST)
            self._bring(_PAST, "detached", _DETACHING)
            self._change(self._text(queries.FREE_PAST))
            self._bring(_PAST, "attached", {"detached": queries.ATTACH_PAST}, upper=Literal(upper))
        return self.statements[before:]

    def tidy_statements(self, gone: Sequence[str]) -> list[str]:
        upper, state = self._gap(gone), self._state(_PAST)
        if upper is None:
            return []
        texts = [queries.FREE_PAST, queries.ATTACH_PAST]
        if state != "detached":
            texts.insert(0, _DETACHING[str(state)])
        past = Identifier.of(self.schema, _PAST)
        return [self._text(text, partition=past, upper=Literal(upper)).strip() for text in texts]

    def _gap(self, gone: Sequence[str]) -> str | None:
        """Return where the place for rows from before the first period has to end, if it does not."""
        places = {"log": Literal(self._log), "past": Literal(f"{self._name}.{_PAST}"), "gone": Literal(list(gone))}
        gap = self._all(queries.GAP, **places)[0]
        whole = gap.past_ends == gap.first and not gap.pending
        return gap.first if gap.made and not whole else None

    def _is_written(self) -> bool:
        return bool(self._all(queries.WRITTEN, function=Literal(f"{self._name}.record_event"))[0].written)

    def _state(self, name: str) -> str | None:
        """Return whether a partition is attached, detaching or detached, or None when there is no such table."""
        rows = self._all(queries.STATE, name=Literal(self.session.identifier(self.schema, name)))
        return rows[0].state if rows else None

    def _require_rows(self, period: Mapping[str, Any], rows: int) -> None:
        found = self._all(queries.COUNT, partition=self._partition(period))[0].rows
        if found != rows:
            raise AuditError(late(period, found, rows))

    def _bring(self, name: str, wanted: str | None, steps: Mapping[str, str], **places: Any) -> None:
        """Bring a partition to a state, with as much patience as the options have.

        :param steps: what to execute in each state on the way.
        :raises AuditError: naming who uses it, when that takes too long.
        """
        self.session.execute(f"SET lock_timeout = '{self._lock_timeout}'")
        waited = 0
        while (state := self._state(name)) != wanted:
            if waited == self._attempts:
                raise AuditError(self._held(name))
            text = self._text(steps[str(state)], partition=Identifier.of(self.schema, name), **places).strip()
            try:
                self._change(text)
            except psycopg2.errors.LockNotAvailable:
                waited += 1
                time.sleep(min(0.2 * waited, 2))
            except psycopg2.errors.ObjectNotInPrerequisiteState as error:
                # There can be one partition at a time that waits for transactions to end.
                raise AuditError(f"{name} could not leave the log: {error.diag.message_primary}") from None

    def _held(self, name: str) -> str:
        places = {"log": Literal(self._log), "name": Literal(self.session.identifier(self.schema, name))}
        holders = self._all(queries.HOLDERS, **places)[0].holders
        return (
            f"{name} could not leave the log: {holders or 'a transaction'} has not ended for longer than lock_timeout, "
            "lock_retries times over; nothing was dropped, and the next run goes on from there"
        )

    def _change(self, text: str) -> None:
        """Execute as the owner of the log."""
        self.session.execute(self._text("SET ROLE {owner}", owner=Identifier.of(OWNER)))
        try:
            self.session.execute(text)
            self.statements.append(text.strip())
        finally:
            if not self.session.connection.closed:
                self.session.execute("RESET ROLE")

    def _partition(self, period: Mapping[str, Any]) -> Identifier:
        return Identifier.of(self.schema, period["name"])

    def _all(self, template: str, **places: Any) -> list[Any]:
        return self.session.all(self._text(template, **places))

    def _text(self, template: str, **places: Any) -> str:
        statement: Sql = sql(template, schema=Identifier.of(self.schema), **places)
        return statement.render(self.session)


class _Lines:
    """What COPY writes to: a line of its text format at a time, with nothing escaped but backslashes."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take

    def write(self, line: bytes) -> None:
        self._take(line[:-1].replace(b"\\\\", b"\\") if b"\\" in line else line[:-1])


def stores(session: Session, params: Mapping[str, Any]) -> tuple[SealStore, ArchiveStore]:
    """Return what the steps of an archive module work with."""
    schema = params["schema"]
    seals = SealStore(session, schema)
    return seals, ArchiveStore(session, schema, params["lock_timeout"], params["lock_retries"])
