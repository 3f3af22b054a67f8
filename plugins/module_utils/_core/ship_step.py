# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a database host does for shipping: it sends the rows of sealed blocks, and waits for the next seal.

Rows leave the host in the answers, compressed. Which rows a seal has, the controller says from its ledger; the leaves
are the database's word, which the ledger's hash of all of them proves or refutes before any row is believed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, Protocol

from .archive_step import LOGS_SPEC, FullError, Part
from .errors import AuditError
from .ledger_archive import ROW_ID
from .module import AuditModule
from .seal_step import SEAL_SPEC, SEALED_SPEC, SealStore
from .seal_step import run as run_seal_step

#: Ids that one statement asks for at most: the server sorts their rows in memory.
WINDOW = 20_000

#: Ids between two ranges of one seal that are rather read in vain than left out by another statement.
GAP = 1_000

#: Bytes of lines that one request to a collector has.
BATCH_BYTES = 1 << 20

#: How a collector is reached that is no storage.
COLLECTOR_SPEC: dict[str, Any] = {
    "token": {"type": "str", "no_log": True},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "headers": {"type": "dict", "default": {}, "no_log": True},
    "ca_cert": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path"},
    "batch_bytes": {"type": "int", "default": BATCH_BYTES},
}

SHIP_SPEC: dict[str, Any] = {
    "url": {"type": "str"},
    "server": {"type": "str"},
    "name": {"type": "str"},
    "cursor": {"type": "path"},
    "from_seal": {"type": "int", "default": 0},
    "follow": {"type": "float", "default": 0.0},
    "interval": {"type": "float", "default": 30.0},
    "timeout": {"type": "float", "default": 120.0},
    "collector": {"type": "dict", "options": COLLECTOR_SPEC},
    "keep": {"type": "str"},
    "storage": {"type": "dict", "default": {}},
    "storage_options": {"type": "dict", "default": {}, "no_log": True},
    **{name: SEALED_SPEC[name] for name in ("public_key", "public_key_content")},
    **{name: spec for name, spec in SEAL_SPEC.items() if name != "resync"},
}

#: Of an engine that has a log in each database.
SHIP_LOGS_SPEC: dict[str, Any] = {
    "logs": {**LOGS_SPEC["logs"], "options": {**LOGS_SPEC["logs"]["options"], "cursor": {"type": "path"}}},
}


class ShipStore(Protocol):
    """What an engine supplies: the rows of one log by their seals."""

    def lines(self, period: Mapping[str, Any], after: int, until: int, take: Callable[[bytes], None]) -> None:
        """Hand the canonical texts of the rows of a `day` after an id up to another over, by id.

        An error that `take` raises ends it.
        """

    def leaves(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Return the leaves of the rows of seals, 32 bytes each by id, by the number of the seal."""

    def settle(self) -> None:
        """See to it that no row is out of sight because it is moved between partitions at this moment."""

    def wait(self, after: int, seconds: float) -> int:
        """Wait until there is a signed seal of a higher number; return the last one's."""


#: Makes the stores of a session.
Stores = Callable[[Any], tuple[SealStore, ShipStore]]


def run(module: AuditModule, session: Any, stores: Stores) -> None:
    """Carry out the step that the action plugin of this module asks for."""
    step = module.params["step"] or {}
    seals, ships = stores(session)
    if step.get("do") == "blocks":
        module.results["answer"] = _blocks(step, ships)
    elif step.get("do") == "wait":
        module.results["answer"] = ships.wait(int(step["after"]), float(step["seconds"]))
    else:
        run_seal_step(module, seals)


def _blocks(step: Mapping[str, Any], store: ShipStore) -> list[dict[str, Any]]:
    """Answer with the rows of seals, one seal after the other, until there is no more room.

    A seal has its `number`, `leaves` (none of a seal that is not there, or whose rows are asked for from
    `after` an id on), and what a part of an archive has: `data`, `rows`, `after`, `complete`.
    """
    if step.get("sure"):
        store.settle()
    room, answer = int(step["bytes"]), []
    leaves = store.leaves([block["number"] for block in step["blocks"] if "after" not in block])
    for block in step["blocks"]:
        number = int(block["number"])
        part = _part(store, block, room)
        answer.append({"number": number, "leaves": leaves.get(number), **part})
        room -= len(part["data"])
        if room <= 0 or not part["complete"]:
            break
    return answer


def _part(store: ShipStore, block: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return the next part of a seal's rows."""
    pairs = [(int(first), int(last)) for first, last in block["ids"]]
    after = int(block.get("after", pairs[0][0] - 1))
    part, complete, reached = Part(size), True, after
    try:
        for start, until in windows(pairs, after):
            store.lines({"day": block["day"]}, start, until, _only(pairs, part.add))
            reached = until
    except FullError:
        complete = False
    sent = part.finish(after)
    return {**sent, "after": reached if complete else sent["after"], "complete": complete}


def windows(pairs: Sequence[tuple[int, int]], after: int) -> Iterator[tuple[int, int]]:
    """Give what to ask for: the ids after one up to another, in the order of ids.

    :param pairs: first and last id of each range, ascending.
    :param after: below which nothing is asked for any more.
    """
    for first, last in _together(pairs):
        start = max(first - 1, after)
        while start < last:
            until = min(start + WINDOW, last)
            yield start, until
            start = until


def _together(pairs: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Give ranges with those joined that hardly anything lies between."""
    first, last = pairs[0]
    for start, end in pairs[1:]:
        if start - last > GAP:
            yield first, last
            first = start
        last = end
    yield first, last


def _only(pairs: Sequence[tuple[int, int]], take: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Return what takes the lines of a seal's own rows and leaves those of other seals out."""
    firsts = [first for first, _last in pairs]

    def filtered(line: bytes) -> None:
        found = ROW_ID.match(line)
        if not found:
            raise AuditError("a row of the log has no canonical text; verify says more")
        number = int(found[1])
        index = bisect_right(firsts, number) - 1
        if index >= 0 and number <= pairs[index][1]:
            take(line)

    return filtered
