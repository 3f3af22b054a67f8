# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The chain of seals of one PostgreSQL database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from .._core.errors import AuditError
from .._core.seal import CATALOG, altered, of_objects
from .._core.sql import Identifier, Literal, sql
from .._core.watermark import remaining
from . import seal_queries as queries
from .canonical import leaf
from .seal_inventory import Inventory
from .session import LOCK_PLACES, Session

_INSTALLED = "SELECT to_regclass({state}) IS NOT NULL AS installed"

ROWS = "{schema}.audit_log_data"
ROWS_MOVING = "(SELECT * FROM {schema}.audit_log_data UNION ALL SELECT * FROM {schema}.audit_log_moving)"
_MOVING = "SELECT to_regclass({moving}) IS NOT NULL AS moving"

#: What the virtual transaction of a prepared transaction begins with whose session the server has no memory of.
_RECOVERED = "-1/"


class SealStore:
    """See _core/seal_step.py, which says what each method is for."""

    def __init__(self, session: Session, schema: str) -> None:
        self.session = session
        self.schema = schema
        name = session.identifier(schema)
        self.places: dict[str, Any] = {
            "schema": Identifier.of(schema),
            "leaf": leaf("r"),
            "log": Literal(f"{name}.audit_log_data"),
            "moving": Literal(f"{name}.audit_log_moving"),
            "id_index": Literal(f"{name}.audit_log_id_idx"),
            "catch_all": Literal(f"{name}.audit_log_future"),
            "rows": sql(ROWS, schema=Identifier.of(schema)),
            "last_id": sql(queries.LAST_ID, schema=Identifier.of(schema)),
            "next_number": sql(queries.NEXT_NUMBER, schema=Identifier.of(schema)),
            **LOCK_PLACES,
        }
        if not self._one(_INSTALLED, state=Literal(f"{name}.seal_state")).installed:
            raise AuditError(
                f"{session.database}: no audit trail with seals in schema {schema!r}; run playbooks/site.yml first"
            )
        self._one(queries.SESSION)
        self.objects = Inventory(session, schema)

    def state(self) -> dict[str, Any]:
        row = self._one(queries.STATE)
        return {"chain": row.chain, "watermark": row.watermark, "last_id": row.last_id, "last": row.last}

    @contextmanager
    def locked(self) -> Iterator[None]:
        self.session.require_writable()
        self._one(queries.LOCK)
        yield

    def pending(self, limit: int) -> list[dict[str, Any]]:
        return [row._asdict() for row in self._all(queries.PENDING, limit=Literal(limit))]

    def headers(self, after: int, limit: int) -> list[dict[str, Any]]:
        return [row._asdict() for row in self._all(queries.HEADERS, after=Literal(after), limit=Literal(limit))]

    def sign(self, signed: Sequence[Mapping[str, Any]]) -> int | None:
        self._execute(queries.SIGN, signed=Literal(tuple(signed)))
        return self._one(queries.UNSIGNED, signed=Literal(tuple(signed))).number

    def discard(self) -> None:
        self._execute(queries.DISCARD)
        self.objects.forget()

    def add(self, number: int | None, kind: str, attested: Mapping[str, Any]) -> None:
        self._execute(queries.ADD, number=Literal(number), kind=Literal(kind), attested=Literal(dict(attested)))

    def begin(self) -> dict[str, Any]:
        state = self._one(queries.STATE)
        steady = self._one(queries.STEADY)
        mark = {"id": state.last_id, "at": state.now, "holders": self._holders()}
        marks = [*state.marks, mark]
        held = set(self._holders()) if mark["holders"] or state.marks else set()
        # A prepared transaction that outlived a restart or a failover has lost the name that marks know it by.
        renamed = any(holder.startswith(_RECOVERED) for holder in held)
        free = [] if renamed else [known for known in marks if not held.intersection(known["holders"])]
        reached = max(free, key=lambda known: known["id"], default=None)
        if state.last_id > state.watermark:
            self._one(queries.SUMMARIZE)
        return {
            "after": state.watermark,
            "until": state.last_id,
            "began": state.watermark,
            "marked_at": state.marked_at,
            "steady": steady.steady,
            "catch_all": steady.catch_all,
            "reached": reached,
            "marks": remaining(marks, reached),
            "known": state.marks,
        }

    def seal(self, after: int, until: int) -> None:
        state = self._one(queries.STATE)
        place = {"marked_at": Literal(state.marked_at), "watermark": Literal(state.watermark)}
        self._execute(queries.SEAL, after=Literal(after), until=Literal(until), **place)

    def finish(self, cursor: Mapping[str, Any]) -> None:
        # Rows that were moved meanwhile may have been out of sight: the next run looks for them again.
        steady = self._one(queries.STEADY)
        if not (cursor["steady"] and steady.steady and steady.catch_all == cursor["catch_all"]):
            return
        reached = cursor["reached"]
        if (reached and reached["id"] > cursor["began"]) or cursor["marks"] != cursor["known"]:
            watermark = reached["id"] if reached else cursor["began"]
            marked_at = reached["at"] if reached else cursor["marked_at"]
            self._execute(
                queries.ADVANCE,
                watermark=Literal(watermark),
                marked_at=Literal(marked_at),
                marks=Literal(tuple(cursor["marks"])),
                began=Literal(cursor["began"]),
            )

    def attest(self, cursor: Mapping[str, Any]) -> dict[str, Any] | None:
        if self.objects.settled() and not self.objects.differ():
            return None
        # What is compared is what is kept, whoever alters an object meanwhile.
        self.session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        waiting = [row.attested for row in self._all(queries.WITHDRAW) if row.kind == CATALOG]
        self.objects.clear()
        attested = self._attested(int(cursor["began"]))
        # The one that waits may be in the ledger of another controller by now.
        self.session.execute("ROLLBACK" if attested and waiting == [attested] else "COMMIT")
        return attested

    def _attested(self, after: int) -> dict[str, Any] | None:
        """Add the seal that says how objects are, if they have changed since the last; return what it says."""
        changes = self.objects.changes(after)
        if self.objects.settled() and not changes:
            return None
        number = self._one(queries.NEXT_NUMBER).number
        compared, digest = self.objects.digest(), self.objects.keep(number)
        attested = of_objects(digest, compared, changes)
        self.add(number, CATALOG, attested)
        return attested

    def bounds(self, after: int) -> list[tuple[int, int]]:
        return [(row.last_id, row.rows) for row in self._all(queries.BOUNDS, after=Literal(after))]

    def check(self, after: int, until: int, exempt: Sequence[Sequence[int]]) -> dict[str, Any]:
        row = self._compare(queries.COUNT, after, until, exempt)[0]
        clean = row.same == row.rows - row.unsealed and not row.missing and not row.doubled
        return {"rows": row.rows, "unsealed": row.unsealed, "oldest": row.oldest, "clean": clean}

    def findings(self, after: int, until: int, exempt: Sequence[Sequence[int]], limit: int) -> list[dict[str, Any]]:
        if not self.session.in_recovery:
            # Rows that are being moved cannot be seen; whoever moves them has to end first.
            self._one("SELECT pg_advisory_lock_shared({lock_class}, {lock_object})")
        if self._one(_MOVING).moving:
            self.places["rows"] = sql(ROWS_MOVING, schema=self.places["schema"])
        rows = self._compare(queries.FINDINGS, after, until, exempt, limit=Literal(limit))
        return [row._asdict() for row in rows]

    def inventory(self) -> dict[str, Any]:
        state = self.state()
        digest = self.objects.digest()
        changes = [] if digest is None else self.objects.changes(state["watermark"])
        return {"digest": digest, "changes": altered(changes)}

    def _holders(self) -> list[str]:
        return self._one(queries.HOLDERS).holders

    def _compare(self, query: str, after: int, until: int, exempt: Sequence[Sequence[int]], **places: Any) -> list[Any]:
        state = self.state()
        pairs = ",".join(f"[{first},{last}]" for first, last in exempt)
        return self._all(
            query,
            after=Literal(after),
            until=Literal(until),
            exempt=Literal(f"{{{pairs}}}"),
            watermark=Literal(state["watermark"]),
            **places,
        )

    def _execute(self, template: str, **places: Any) -> None:
        self.session.execute(sql(template, **self.places, **places).render(self.session))

    def _all(self, template: str, **places: Any) -> list[Any]:
        return self.session.all(sql(template, **self.places, **places).render(self.session))

    def _one(self, template: str, **places: Any) -> Any:
        return self._all(template, **places)[0]
