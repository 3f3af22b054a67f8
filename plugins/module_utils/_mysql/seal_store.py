# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The chain of seals of one MariaDB or MySQL server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from .._core.errors import AuditError
from .._core.seal import CATALOG, altered, of_objects, ranges
from .._core.sql import Identifier, Joined, Literal, Sql, sql
from . import seal_queries as queries
from .canonical import digest
from .seal_inventory import Found, Inventory
from .seal_rows import Comparison, NewBlock, Row, microseconds, moment, new_blocks, sealed_rows, unpack, unsealed
from .seal_watermark import begin
from .session import Session

#: Rows whose leaves are in memory at once, and how many bytes of max_allowed_packet each may take: 48 of a leaf with
#: its id and time, or 32 and the id as text.
_ROWS = 100_000
_BYTES = 128

#: Pairs of ids that one query looks for, and signatures that one statement stores.
_PAIRS = 500
_SIGNATURES = 1_000

#: Clocks are set; a row whose time is no further off than this is not backdated.
_TOLERANCE = 60_000_000


class SealStore:
    """See _core/seal_step.py, which says what each method is for."""

    def __init__(self, session: Session, schema: str) -> None:
        self.session = session
        self.schema = schema
        self.places: dict[str, Any] = {"schema": Identifier.of(schema), "digest": digest("r", session.vendor)}
        self.places["next_id"] = sql(queries.NEXT_ID[session.vendor], **self.places)
        self.chunk = min(_ROWS, int(session.variables["max_allowed_packet"]) // _BYTES)
        if self._one(queries.INSTALLED, schema_name=Literal(schema))["number"] != 4:
            raise AuditError(
                f"{session.database}: no audit trail with seals in database {schema!r}; run playbooks/site.yml first"
            )
        # For MySQL, which wants a JSON_TABLE() in an UPDATE to be in some database.
        session.execute(f"USE {session.identifier(schema)}")
        self.objects = Inventory(session, schema)

    def state(self) -> dict[str, Any]:
        row = self.position()
        last = {"number": row["last_number"], "digest": row["last_digest"]} if row["last_number"] else None
        return {"chain": row["chain"], "watermark": row["watermark"], "last_id": row["last_id"], "last": last}

    def position(self) -> dict[str, Any]:
        """Return the chain's state as it is stored, with the highest id that can be seen."""
        row = self._one(queries.STATE, next_id=Literal(self._next_id()))
        return {**row, "marks": json.loads(row["marks"]), "last_id": max(row["last_id"], row["watermark"])}

    @contextmanager
    def locked(self) -> Iterator[None]:
        self.session.require_writable()
        if self._one(queries.LOCK)["taken"] != 1:
            raise AuditError(f"{self.session.database}: another sealing run has been at work for more than 60 s")
        yield

    def pending(self, limit: int) -> list[dict[str, Any]]:
        return [_header(row) for row in self._all(queries.PENDING, limit=Literal(limit))]

    def headers(self, after: int, limit: int) -> list[dict[str, Any]]:
        return [_header(row) for row in self._all(queries.HEADERS, after=Literal(after), limit=Literal(limit))]

    def sign(self, signed: Sequence[Mapping[str, Any]]) -> int | None:
        wrong = []
        for start in range(0, len(signed), _SIGNATURES):
            part = Literal(tuple(signed[start : start + _SIGNATURES]))
            self._execute(queries.SIGN, signed=part)
            wrong.append(self._one(queries.UNSIGNED, signed=part)["number"])
        return min((number for number in wrong if number is not None), default=None)

    def discard(self) -> None:
        self.objects.forget()
        self._execute(queries.DISCARD)

    def add(self, number: int | None, kind: str, attested: Mapping[str, Any]) -> None:
        empty = dict.fromkeys(("period", "ids", "first_id", "last_id", "leaves", "root"), Literal(None))
        words = {"number": Literal(number), "kind": Literal(kind), "attested": Literal(dict(attested))}
        self._execute(queries.ADD, row_count=Literal(0), **words, **empty)

    def begin(self) -> dict[str, Any]:
        return begin(self)

    def seal(self, after: int, until: int) -> None:
        position = self.position()
        marked_at = position["marked_at"]
        reached = {"watermark": position["watermark"], "marked_at": marked_at and f"{marked_at[:19]}Z"}
        for chunk in self._unsealed(after, until):
            for block in new_blocks(chunk, marked_at and microseconds(marked_at) - _TOLERANCE):
                self._add_block(block, reached)

    def finish(self, cursor: Mapping[str, Any]) -> None:
        reached = cursor["reached"]
        if (reached and reached["id"] > cursor["began"]) or cursor["marks"] != cursor["known"]:
            self._execute(
                queries.ADVANCE,
                watermark=Literal(reached["id"] if reached else cursor["began"]),
                marked_at=Literal(reached["at"] if reached else cursor["marked_at"]),
                marks=Literal(tuple(cursor["marks"])),
                began=Literal(cursor["began"]),
            )

    def attest(self, cursor: Mapping[str, Any]) -> dict[str, Any] | None:
        found = self.objects.read()
        changes = found.changes(int(cursor["began"]))
        waiting = self._all(queries.WAITING)
        if not (waiting or changes or found.stale):
            return None
        self.session.execute("START TRANSACTION")
        if waiting:
            self._execute(queries.WITHDRAW, number=Literal(waiting[0]["number"]))
        self.objects.clear()
        attested = self._attested(found, changes) if changes or found.stale else None
        # The one that waits may be in the ledger of another controller by now.
        same = attested and [json.loads(row["attested"]) for row in waiting if row["kind"] == CATALOG] == [attested]
        self.session.execute("ROLLBACK" if same else "COMMIT")
        return attested

    def _attested(self, found: Found, changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Add the seal that says how objects are; return what it says."""
        number = self._one(queries.NEXT_NUMBER)["number"]
        digest_now = self.objects.keep(number, found)
        attested = of_objects(digest_now, found.kept if found.known else None, changes)
        self.add(number, CATALOG, attested)
        return attested

    def bounds(self, after: int) -> list[tuple[int, int]]:
        return [(row["last_id"], row["rows"]) for row in self._all(queries.BOUNDS, after=Literal(after))]

    def check(self, after: int, until: int, exempt: Sequence[Sequence[int]]) -> dict[str, Any]:
        watermark = self.position()["watermark"]
        window = {"after": Literal(after), "until": Literal(until)}
        if self._all(queries.SEALED, **window):
            found = self._compared(after, until, exempt, watermark)
            oldest = min((row.changed_at for row in found.waiting), default=None)
            answer = {"rows": found.rows, "unsealed": len(found.waiting), "clean": not found.findings}
            return {**answer, "oldest": None if oldest is None else f"{moment(oldest).isoformat()}+00:00"}
        rest = self._one(queries.REST, watermark=Literal(watermark), **window)
        foreign = self._foreign(after, until, watermark, 1)
        oldest = rest["oldest"] and f"{rest['oldest'].isoformat()}+00:00"
        unsealed_rows = rest["rows"] - int(rest["below"])
        return {"rows": rest["rows"], "unsealed": unsealed_rows, "oldest": oldest, "clean": not foreign}

    def findings(self, after: int, until: int, exempt: Sequence[Sequence[int]], limit: int) -> list[dict[str, Any]]:
        watermark = self.position()["watermark"]
        if self._all(queries.SEALED, after=Literal(after), until=Literal(until)):
            found = self._compared(after, until, exempt, watermark).findings[:limit]
        else:
            found = [
                {"type": "inserted_row", "id": row["id"], "leaf": row["digest"], "block": None}
                for row in self._foreign(after, until, watermark, limit)
            ]
        return [{**finding, "block": finding["block"] or self._block_at(finding["id"])} for finding in found]

    def inventory(self) -> dict[str, Any]:
        found = self.objects.read()
        changes = found.changes(int(self.position()["watermark"])) if found.known else []
        return {"digest": found.kept if found.known else None, "changes": altered(changes)}

    def _compared(self, after: int, until: int, exempt: Sequence[Sequence[int]], watermark: int) -> Comparison:
        # In this order: what is sealed meanwhile is above the watermark, and of no block that was asked for.
        window = {"after": Literal(after), "until": Literal(until)}
        blocks = [(row["number"], json.loads(row["ids"]), row["leaves"]) for row in self._all(queries.BLOCKS, **window)]
        found = Comparison(sealed_rows(blocks, after, until, exempt), watermark)
        for rows in self._rows(after, until):
            found.add(rows)
        found.end(self._next_id())
        return found

    def _foreign(self, after: int, until: int, watermark: int, limit: int) -> list[dict[str, Any]]:
        """Return rows of a window without blocks that nobody but a tamperer can have put there."""
        places = {"after": Literal(after), "until": Literal(until), "watermark": Literal(watermark)}
        return self._all(queries.FOREIGN, limit=Literal(limit), **{**places, "next_id": Literal(self._next_id())})

    def _block_at(self, number: int) -> int | None:
        found = self._all(queries.NEXT_BLOCK, id=Literal(number))
        return found[0]["number"] if found else None

    def _next_id(self) -> int:
        return self._one(queries.LIMIT)["next_id"]

    def _unsealed(self, after: int, until: int) -> Iterator[list[Row]]:
        """Return the rows that are in no block, a chunk at a time. Those that are in one are not hashed again."""
        window = {"after": Literal(after), "until": Literal(until)}
        sealed = [pair for row in self._all(queries.SEALED, **window) for pair in json.loads(row["ids"])]
        if not sealed:
            yield from self._rows(after, until)
            return
        for rows in self._rows(after, until, query=queries.IDS):
            pairs = ranges(dict.fromkeys(unsealed((row.id for row in rows), sealed)))
            for start in range(0, len(pairs), _PAIRS):
                part = pairs[start : start + _PAIRS]
                which = tuple(sql("r.id BETWEEN {a} AND {b}", a=Literal(a), b=Literal(b)) for a, b in part)
                only = sql("({tests})", tests=Joined(" OR ", which))
                yield from self._rows(part[0][0] - 1, part[-1][1], only)

    def _rows(
        self, after: int, until: int, which: Sql | None = None, query: str = queries.LEAVES
    ) -> Iterator[list[Row]]:
        """Return rows by id, a chunk at a time; all that have one id are in one chunk."""
        while True:
            places = {"after": Literal(after), "until": Literal(until), "which": which or sql("TRUE")}
            answer = self._one(query, limit=Literal(self.chunk), **places)
            self._refuse_cut_off()
            rows = unpack(answer["packed"] or b"")
            full = answer["number"] == self.chunk
            if full and rows[0].id != rows[-1].id:
                # The rest of the last id may be in the next chunk.
                last = rows[-1].id
                rows = [row for row in rows if row.id != last]
            if rows:
                yield rows
                after = rows[-1].id
            if not full:
                return

    def _refuse_cut_off(self) -> None:
        for warning in self.session.all("SHOW WARNINGS"):
            if warning["Code"] in queries.CUT_OFF:
                raise AuditError(
                    f"{self.session.database}: rows of the log are too large to be hashed: {warning['Message']}; raise "
                    "max_allowed_packet to what it was when they were recorded"
                )

    def _add_block(self, block: NewBlock, reached: Mapping[str, Any]) -> None:
        imported = self._imported(block.backdated)
        backdated = [
            {"id": row.id, "changed_at": moment(row.changed_at).isoformat(), "after": reached["marked_at"]}
            for row in block.backdated
            if row.id not in imported
        ]
        attested = {**reached, "backdated": backdated, "imported": len(imported) or None}
        self._execute(
            queries.ADD,
            number=Literal(None),
            kind=Literal("rows"),
            period=Literal(block.period),
            ids=Literal(tuple(block.ids)),
            first_id=Literal(block.ids[0][0]),
            last_id=Literal(block.ids[-1][1]),
            row_count=Literal(block.rows),
            leaves=Literal(block.leaves),
            root=Literal(block.root),
            attested=Literal({key: value for key, value in attested.items() if value not in (None, [])}),
        )

    def _imported(self, rows: Sequence[Row]) -> set[int]:
        """Return the ids of those that were imported from another log: history, and none that came too late."""
        if not rows:
            return set()
        ids = {row.id for row in rows}
        first, last = Literal(min(ids)), Literal(max(ids))
        return ids.intersection(row["id"] for row in self._all(queries.IMPORTED, first=first, last=last))

    def _execute(self, template: str, **places: Any) -> None:
        self.session.execute(sql(template, **{**self.places, **places}).render(self.session))

    def _all(self, template: str, **places: Any) -> list[dict[str, Any]]:
        return self.session.all(sql(template, **{**self.places, **places}).render(self.session))

    def _one(self, template: str, **places: Any) -> dict[str, Any]:
        return self._all(template, **places)[0]


def _header(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a seal as it is stored; `whole` holds only where what finds it by id says what is hashed."""
    fields = {**row, "ids": json.loads(row["ids"]) if row["ids"] else None, "attested": json.loads(row["attested"])}
    ends = (fields.pop("first_id"), fields.pop("last_id"))
    ids = fields["ids"]
    if "whole" in fields:
        named = (ids[0][0], ids[-1][1]) if ids else (None, None)
        counted = sum(last - first + 1 for first, last in ids or ())
        fields["whole"] = bool(fields["whole"]) and ends == named and counted == fields["rows"]
    return fields
