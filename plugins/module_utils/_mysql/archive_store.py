# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The partitions of one MariaDB or MySQL server's log, on their way into an archive.

A partition is exchanged with an empty table beside the log, which nobody writes to. Its rows are counted there, and
only then does the partition, empty now, go, and the table after it. While both are there and the rows are in the table,
a run was cut off; the next one goes on, or puts them back where they are not the rows that were sealed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from .._core.archive_step import late
from .._core.errors import AuditError
from .._core.hold import Hold
from .._core.sql import Identifier, Joined, Literal, Sql, sql
from . import archive_queries as queries
from .apply import LOCK_ERRORS
from .canonical import canonical
from .partition_plan import PERIOD_NAME, first_day
from .seal_queries import CUT_OFF
from .seal_store import SealStore
from .session import Session, pymysql
from .trail_functions import AWAIT_WRITERS

#: Bytes of lines that one answer of the server has, about: what is not taken of it has to be read all the same.
_ANSWER = 4 << 20
_FEW, _MANY = 100, 5_000

#: Seconds that writers wait behind us for those before us, by what the servers can: MySQL knows whole seconds only, but
#: says who has been at work for long, and is not asked for the lock until there is nobody.
_WAIT = 0.2
#: Seconds between two tries.
_PAUSE = 0.5
#: MariaDB: max_statement_time was over.
_WAITED = (*LOCK_ERRORS, 1969)


class ArchiveStore:
    """See _core/archive_step.py, which says what each method is for.

    :ivar changes: whether what a run that was cut off has left may be put right before anything else.
    """

    def __init__(self, session: Session, schema: str, lock_timeout: float, lock_retries: int, changes: bool) -> None:
        self.session = session
        self.schema = schema
        self.changes = changes
        self._wait = lock_timeout
        self._seconds = lock_timeout * (lock_retries + 1)
        self.statements: list[str] = []

    def periods(self) -> list[dict[str, Any]]:
        sides = {row["name"]: row["bytes"] for row in self._of_log(queries.SIDES) if PERIOD_NAME.fullmatch(row["name"])}
        attached = self._attached()
        for period in attached:
            if self.changes and period["archive"] in sides:
                self._put_right(period)
            period["bytes"] += sides.pop(period["archive"], 0)
        unknown = {"first_day": None, "end_day": None, "state": "detached"}
        detached = [
            {"name": f"p{side[10:]}", "archive": side, "bytes": sides[side], **unknown} for side in sorted(sides)
        ]
        return detached + attached

    def whole(self) -> dict[str, Any]:
        names = [row["name"] for row in self._of_log(queries.PARTITIONS) if not PERIOD_NAME.fullmatch(row["name"])]
        full = [name for name in names if self._any(self._partition({"name": name}))]
        return {"written": bool(self._of_log(queries.ROUTINES)), "catch_alls": full}

    def contents(self, period: Mapping[str, Any]) -> dict[str, Any]:
        groups = self._all(queries.GROUPS, rows=self._place(period))
        ends = {name: [group.pop(name) for group in groups] for name in ("first_id", "last_id", "first_at", "last_at")}
        return {
            "rows": sum(group["rows"] for group in groups),
            "groups": groups,
            **{name: (min if "first" in name else max)(found, default=None) for name, found in ends.items()},
        }

    def holds(self, period: Mapping[str, Any], hold: Hold, tables: Sequence[tuple[str, str]] | None) -> bool:
        pairs = tuple(sql("({a}, {b})", a=Literal(schema), b=Literal(name)) for schema, name in tables or [("", "")])
        places = {
            "any_table": sql("TRUE" if tables is None else "FALSE"),
            "tables": Joined(", ", pairs),
            "record_id": Literal(hold.record_id),
            "changed_by": Literal(hold.changed_by),
        }
        return bool(self._one(queries.HELD, rows=self._place(period), **places)["held"])

    def bounds_of(self, period: Mapping[str, Any], after: int) -> list[tuple[int, int]]:
        rows = self._all(queries.BOUNDS, after=Literal(after), **_days(period))
        return [(row["last_id"], row["rows"]) for row in rows]

    def lines(self, period: Mapping[str, Any], after: int, until: int, take: Callable[[bytes], None]) -> None:
        text, rows = canonical("r", self.session.vendor), self._place(period)
        limit = _FEW
        while True:
            window = {"after": Literal(after), "until": Literal(until), "limit": Literal(limit)}
            number, size, after = self._answer(self._text(queries.LINES, text=text, rows=rows, **window), after, take)
            if number < limit:
                return
            limit = max(1, min(_MANY, _ANSWER * number // size))

    def release(self, period: Mapping[str, Any], rows: int) -> list[str]:
        before = len(self.statements)
        self.session.execute(queries.BEGIN[self.session.vendor])
        attached = self._is_attached(period)
        if attached and rows:
            self._detach(period, rows)
        elif self._has_side(period):
            self._require_rows(period, self._side(period), rows)
        if attached:
            self._alone(queries.LOCK_LOG, period, lambda: self._drop_partition(period, rows))
        if self._has_side(period):
            self._execute(queries.DROP_SIDE, period)
        return self.statements[before:]

    def release_statements(self, period: Mapping[str, Any]) -> list[str]:
        texts: list[str] = []
        attached, side = self._is_attached(period), self._has_side(period)
        if attached and period["rows"] and not (side and self._any(self._side(period))):
            texts += [queries.DROP_SIDE] if side else []
            texts += [queries.CREATE_SIDE, queries.MAKE_PLAIN, queries.LOCK_BOTH, *self._kept_counter(period)]
            texts += [queries.EXCHANGE, queries.UNLOCK]
            side = True
        if attached:
            texts += [queries.LOCK_LOG, queries.DROP_PARTITION, queries.UNLOCK]
        if side:
            texts.append(queries.DROP_SIDE)
        return [self._text(text, **self._names(period)) for text in texts]

    def tidy(self) -> list[str]:
        # A partition begins where the one before it ends, whichever that is: there are no gaps.
        return []

    def tidy_statements(self, gone: Sequence[str]) -> list[str]:
        del gone
        return []

    def _attached(self) -> list[dict[str, Any]]:
        found, lower = [], ""
        for row in self._of_log(queries.PARTITIONS):
            upper = row["bound"].strip("'")[:10]
            if PERIOD_NAME.fullmatch(row["name"]):
                days = {"first_day": max(lower, first_day(row["name"])), "end_day": upper}
                names = {"name": row["name"], "archive": f"audit_log_{row['name'][1:]}"}
                found.append({**names, **days, "bytes": row["bytes"], "state": "attached"})
            lower = upper
        return found

    def _put_right(self, period: Mapping[str, Any]) -> None:
        """Have rows in the log again that a run has exchanged and not dropped, unless they are what was sealed."""
        side = self._side(period)
        if not self._any(side):
            return
        added = self._any(self._partition(period))
        if not added and self._count(side) == self._one(queries.SEALED, **_days(period))["rows"]:
            return
        self.session.require_writable()
        self.session.lock()
        self.session.execute(queries.BEGIN[self.session.vendor])
        if not added:
            self._put_back(period)
            return
        self._execute(queries.MERGE, period)
        if self._one(queries.UNMERGED, side=side)["found"]:
            raise AuditError(f"{period['archive']} has rows that {period['name']} of the log does not take")
        self._execute(queries.DROP_SIDE, period)

    def _detach(self, period: Mapping[str, Any], rows: int) -> None:
        """Have the rows in the table beside the log, if there are as many as that, and the partition empty."""
        side = self._side(period)
        try:
            if not (self._has_side(period) and self._any(side)):
                self._require_rows(period, self._partition(period), rows)
                self._exchange(period)
            self._require_rows(period, side, rows)
        except AuditError:
            if self._has_side(period):
                self._put_back(period)
            raise

    def _exchange(self, period: Mapping[str, Any]) -> None:
        if self._has_side(period):
            # Left by a run that was cut off, and made like a log that may be another one by now.
            self._execute(queries.DROP_SIDE, period)
        self._execute(queries.CREATE_SIDE, period)
        self._execute(queries.MAKE_PLAIN, period)
        self._alone(queries.LOCK_BOTH, period, lambda: [*self._kept_counter(period), queries.EXCHANGE])

    def _put_back(self, period: Mapping[str, Any]) -> None:
        """Have rows that are beside the log in it again. Those that the partition has by then stay beside it."""
        side = self._side(period)
        if self._any(side):
            self._alone(queries.LOCK_BOTH, period, lambda: [queries.EXCHANGE])
        if not self._any(side):
            self._execute(queries.DROP_SIDE, period)

    def _drop_partition(self, period: Mapping[str, Any], rows: int) -> list[str]:
        """Return what drops a partition that nothing is in; to be called while nobody else has the log."""
        partition = self._partition(period)
        if self._any(partition):
            raise AuditError(late(period, rows + self._count(partition), rows))
        return [queries.DROP_PARTITION]

    def _kept_counter(self, period: Mapping[str, Any]) -> list[str]:
        """Return what keeps MySQL from handing out ids again once the highest has left the log."""
        if self.session.is_mariadb:
            return []
        ids = [
            self._one(queries.LAST_ID, rows=rows)["last_id"]
            for rows in (self._partition(period), sql("{schema}.audit_log_data", schema=Identifier.of(self.schema)))
        ]
        if ids[0] is None or ids[0] != ids[1]:
            return []
        self.session.execute(queries.BEGIN["mysql"])
        next_id = self._of_log(queries.COUNTER, last_id=Literal(ids[0]))[0]["next_id"]
        return [queries.KEEP_COUNTER.replace("{next_id}", str(next_id))]

    def _require_rows(self, period: Mapping[str, Any], where: Sql, rows: int) -> None:
        found = self._count(where)
        if found != rows:
            raise AuditError(late(period, found, rows))

    def _execute(self, template: str, period: Mapping[str, Any]) -> None:
        def work() -> list[str]:
            text = self._text(template, **self._names(period))
            self.session.execute(text)
            return [text]

        self._patiently(period, work)

    def _alone(self, lock: str, period: Mapping[str, Any], templates: Callable[[], list[str]]) -> None:
        """Execute something while nobody else has the log.

        :param templates: says what, once that is so.
        """

        def work() -> list[str]:
            texts = [self._text(lock, **self._names(period))]
            try:
                self._lock(texts[0])
                for template in templates():
                    texts.append(self._text(template, **self._names(period)))
                    self.session.execute(texts[-1])
            finally:
                if self.session.connection.open:
                    self.session.execute(queries.UNLOCK)
            return [*texts, queries.UNLOCK]

        self._patiently(period, work)

    def _lock(self, statement: str) -> None:
        """Have tables for ourselves, or raise the driver's error before writers have waited for long."""
        if self.session.is_mariadb:
            self.session.execute(f"SET SESSION max_statement_time = {max(0.01, min(self._wait, _WAIT))}")
            try:
                self.session.execute(statement)
            finally:
                if self.session.connection.open:
                    self.session.execute(queries.BEGIN["mariadb"])
        else:
            self.session.execute(f"SET SESSION lock_wait_timeout = {max(1, math.ceil(self._wait))}")
            if self._of_log(queries.ROUTINES):
                self.session.execute(f"CALL {self.session.identifier(self.schema, AWAIT_WRITERS)}()")
            self.session.execute(queries.BEGIN["mysql"])
            self.session.execute(statement)

    def _patiently(self, period: Mapping[str, Any], work: Callable[[], list[str]]) -> None:
        """Do what may not get its locks, again and again for as long as the options say; note its statements.

        :raises AuditError: naming who has them, when that takes too long.
        """
        until = time.monotonic() + self._seconds
        while True:
            try:
                self.statements += work()
                return
            except pymysql.MySQLError as error:
                if error.args[0] not in _WAITED:
                    raise
            if time.monotonic() >= until:
                raise AuditError(self._held(period))
            time.sleep(_PAUSE)

    def _held(self, period: Mapping[str, Any]) -> str:
        side = Literal(self._names(period)["side"].parts[-1])
        rows = self._of_log(queries.HOLDERS[self.session.vendor], side_name=side)
        holders = "; ".join(map(_holder, rows)) or "a transaction"
        # Only MySQL says whose transaction it is that has the log.
        holders = f"one of these ({holders})" if self.session.is_mariadb and len(rows) > 1 else holders
        return (
            f"{period['name']} could not leave the log: {holders} has not ended for longer than lock_timeout, "
            "lock_retries times over; nothing was dropped, and the next run goes on from there"
        )

    def _is_attached(self, period: Mapping[str, Any]) -> bool:
        return period["name"] in [row["name"] for row in self._of_log(queries.PARTITIONS)]

    def _has_side(self, period: Mapping[str, Any]) -> bool:
        name = self._names(period)["side"].parts[-1]
        return name in [row["name"] for row in self._of_log(queries.SIDES)]

    def _place(self, period: Mapping[str, Any]) -> Sql:
        """Return where the rows of a period are."""
        side = self._side(period)
        if self._has_side(period) and (self._any(side) or not self._is_attached(period)):
            return side
        return self._partition(period)

    def _partition(self, period: Mapping[str, Any]) -> Sql:
        return sql(queries.IN_LOG, schema=Identifier.of(self.schema), partition=Identifier.of(period["name"]))

    def _side(self, period: Mapping[str, Any]) -> Sql:
        return sql("{side}", **self._names(period))

    def _names(self, period: Mapping[str, Any]) -> dict[str, Identifier]:
        side = Identifier.of(self.schema, f"audit_log_{period['name'][1:]}")
        return {"side": side, "partition": Identifier.of(period["name"])}

    def _any(self, rows: Sql) -> bool:
        return bool(self._one(queries.ANY, rows=rows)["found"])

    def _count(self, rows: Sql) -> int:
        return int(self._one(queries.COUNT, rows=rows)["rows"])

    def _of_log(self, template: str, **places: Any) -> list[dict[str, Any]]:
        return self._all(template, schema_name=Literal(self.schema), **places)

    def _one(self, template: str, **places: Any) -> dict[str, Any]:
        return self._all(template, **places)[0]

    def _all(self, template: str, **places: Any) -> list[dict[str, Any]]:
        return self.session.all(self._text(template, **places))

    def _text(self, template: str, **places: Any) -> str:
        return sql(template, schema=Identifier.of(self.schema), **places).render(self.session).strip()

    def _answer(self, text: str, after: int, take: Callable[[bytes], None]) -> tuple[int, int, int]:
        """Hand over the lines of one answer; return their number, their bytes and the last id."""
        rows = size = 0
        try:
            with self.session.connection.cursor(pymysql.cursors.SSCursor) as cursor:
                cursor.execute(text)
                while (row := cursor.fetchone()) and row[1] is not None:
                    after, rows, size = row[0], rows + 1, size + len(row[1])
                    take(row[1])
        finally:
            self._refuse_cut_off()
        if row:
            raise AuditError(f"{self.session.database}: row {row[0]} of the log has no canonical text")
        return rows, size, after

    def _refuse_cut_off(self) -> None:
        for warning in self.session.all("SHOW WARNINGS"):
            if warning["Code"] in CUT_OFF:
                raise AuditError(
                    f"{self.session.database}: rows of the log are too large to be archived: {warning['Message']}; "
                    "raise max_allowed_packet to what it was when they were recorded"
                )


def stores(session: Session, params: Mapping[str, Any], changes: bool) -> tuple[SealStore, ArchiveStore]:
    """Return what the steps of an archive module work with.

    :param changes: whether anything may be changed, as it may not be in check mode.
    """
    schema = params["schema"]
    seals = SealStore(session, schema)
    return seals, ArchiveStore(session, schema, params["lock_timeout"], params["lock_retries"], changes)


def _days(period: Mapping[str, Any]) -> dict[str, Literal]:
    return {name: Literal(period[name]) for name in ("first_day", "end_day")}


def _holder(row: Mapping[str, Any]) -> str:
    if not row["id"]:
        return "a prepared transaction (XA RECOVER)"
    since = f", in a transaction for {row['seconds']} s" if row["seconds"] is not None else ""
    return f"connection {row['id']} of {row['account']}{since}"
