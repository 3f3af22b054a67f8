# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a database host does for sealing and verifying: short steps that the controller asks for, one call each.

Neither keys nor the ledger are here. A step says what the database has; what it means, the controller decides.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from .errors import AuditError
from .module import AuditModule
from .seal import Seal, mark

#: Seals that one answer holds.
PAGE = 10_000

#: Findings that one answer holds; more of them than a person reads, and few enough for one message.
MOST_FINDINGS = 1_000

#: Ids that one block is made of at most; the leaves of a block are hashed and compared in memory.
BLOCK_IDS = 100_000

#: Seconds of work in one call.
CALL_SECONDS = 20.0

STEP_SPEC: dict[str, Any] = {
    "call_seconds": {"type": "float", "default": CALL_SECONDS},
    "step": {"type": "dict"},
}

SEAL_SPEC: dict[str, Any] = {
    "ledger": {"type": "str"},
    "signing_key": {"type": "path"},
    "signing_key_content": {"type": "str", "no_log": True},
    "signing_key_passphrase": {"type": "str", "no_log": True},
    "previous_signing_key": {"type": "path"},
    "previous_signing_key_content": {"type": "str", "no_log": True},
    "previous_signing_key_passphrase": {"type": "str", "no_log": True},
    "resync": {"type": "str"},
    "block_rows": {"type": "int", "default": BLOCK_IDS},
    **STEP_SPEC,
}

#: Of the verify modules, beside what they compare without seals.
SEALED_SPEC: dict[str, Any] = {
    "ledger": {"type": "str"},
    "public_key": {"type": "list", "elements": "path", "default": []},
    "public_key_content": {"type": "list", "elements": "str", "default": []},
    "scope": {"type": "str", "choices": ["all", "new"], "default": "all"},
    "from_id": {"type": "int", "default": 0},
    "max_unsealed_hours": {"type": "float", "default": 24.0},
    **STEP_SPEC,
}


class SealStore(Protocol):
    """What an engine supplies: the chain of one log, as it has it."""

    def state(self) -> dict[str, Any]:
        """Return `chain`, `watermark`, `last_id` and `last` ({number, digest} of the last signed seal, or None)."""

    def locked(self) -> AbstractContextManager[None]:
        """Keep other sealing runs out."""

    def pending(self, limit: int) -> list[dict[str, Any]]:
        """Return the seals without a signature."""

    def headers(self, after: int, limit: int) -> list[dict[str, Any]]:
        """Return seals with `whole`, which tells whether their leaves make up their root."""

    def sign(self, signed: Sequence[Mapping[str, Any]]) -> int | None:
        """Store signatures; return the number of the first seal that is not the one that was signed, or None."""

    def discard(self) -> None:
        """Drop the seals without a signature, and all that is kept of objects: the next seal says how they are then."""

    def add(self, number: int | None, kind: str, attested: Mapping[str, Any]) -> None:
        """Add a seal that holds no rows, as the next or with that number."""

    def begin(self) -> dict[str, Any]:
        """Return the cursor of a run: ids `after` which and `until` which there may be something to seal, and more."""

    def seal(self, after: int, until: int) -> None:
        """Seal what is in no seal yet of the ids after one up to another."""

    def finish(self, cursor: Mapping[str, Any]) -> None:
        """Move the watermark to where the cursor says that everything is sealed."""

    def attest(self, cursor: Mapping[str, Any]) -> dict[str, Any] | None:
        """Have the chain end with how objects are: add a seal of kind catalog where they have changed since the last.

        One that waits for a signature is taken back, with what comes after it, unless it says the same. Return what the
        one that waits now has to say, or None when there is none.
        """

    def bounds(self, after: int) -> list[tuple[int, int]]:
        """Return the last id and the number of rows of each block that reaches beyond an id, by last id."""

    def check(self, after: int, until: int, exempt: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Compare rows with leaves: `rows`, `unsealed`, `oldest` (of these), and `clean`."""

    def findings(self, after: int, until: int, exempt: Sequence[Sequence[int]], limit: int) -> list[dict[str, Any]]:
        """Return what is not clean, one finding a row: `type`, `id`, `leaf` (hex, as it is now) and `block`."""

    def inventory(self) -> dict[str, Any]:
        """Return `digest` of what the last signed seal kept of objects, and `changes` since."""


def run(module: AuditModule, store: SealStore) -> None:
    """Carry out the step that the action plugin of this module asks for."""
    step = module.params["step"]
    if not step:
        raise AuditError(
            "this module works through its action plugin, which signs on the controller; call it as a task"
        )
    steps = {
        "seal": _predicted if module.check_mode else _seal,
        "headers": _headers,
        "rows": _rows,
        "inventory": _inventory,
    }
    module.results["answer"] = steps[step["do"]](step, store)


def _predicted(step: Mapping[str, Any], store: SealStore) -> dict[str, Any]:
    del step
    return {**store.state(), "pending": store.pending(PAGE), "complete": True}


def _seal(step: Mapping[str, Any], store: SealStore) -> dict[str, Any]:
    """Store signatures, then seal for as long as the call may take; answer with what is to be signed.

    What waits for a signature and is not in the ledger is of a run that was cut off, or somebody has put it there. Rows
    can be compared with what they are signed for at any time. What was done to objects cannot, so that a seal of them
    is made anew in every call, and the answer says of `objects` what it has to say.
    """
    deadline = time.monotonic() + float(step["seconds"])
    with store.locked():
        wrong = store.sign(step["signed"]) if step.get("signed") else None
        if step.get("discard"):
            store.discard()
        here = not wrong and _is_where_the_ledger_is(step, store.state())
        cursor, complete, objects = step.get("cursor"), bool(step.get("finish")), None
        pending = store.pending(PAGE)
        if here and pending:
            cursor = cursor or store.begin()
            objects = store.attest(cursor)
        if step.get("entry"):
            store.add(step["entry"].get("number"), step["entry"]["kind"], step["entry"]["attested"])
        if pending or step.get("entry"):
            pending = store.pending(PAGE)
        if here and not (complete or pending):
            cursor = cursor or store.begin()
            complete = _fill(cursor, store, int(step["ids"]), deadline)
            objects = store.attest(cursor) if complete else None
            pending = store.pending(PAGE)
        if complete and cursor and not (wrong or pending):
            # Not before all is signed: a run that is cut off is repeated from where it began.
            store.finish(cursor)
        answer = {"pending": pending, "cursor": cursor, "complete": complete, "wrong": wrong, "objects": objects}
        return {**store.state(), **answer}


def _is_where_the_ledger_is(step: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    """Tell whether the database ends with the ledger's last seal; if not, the controller says what is wrong."""
    if "ledger" not in step:
        return True
    ends = {"chain": state["chain"], **state["last"]} if state["last"] else None
    return bool(step["ledger"] == ends)


def _fill(cursor: dict[str, Any], store: SealStore, ids: int, deadline: float) -> bool:
    """Make seals until there is nothing left or the time is up; tell whether all is done."""
    while cursor["after"] < cursor["until"]:
        until = min(cursor["after"] + ids, cursor["until"])
        store.seal(cursor["after"], until)
        cursor["after"] = until
        if time.monotonic() > deadline and until < cursor["until"]:
            return False
    return True


def _headers(step: Mapping[str, Any], store: SealStore) -> dict[str, Any]:
    """Answer with the marks of seals, and the digests of those that are no links yet, from what the database has."""
    state = store.state()
    rows = store.headers(int(step["after"]), PAGE)
    stored, pending = [], []
    for row in rows:
        seal = Seal.of({**row, "chain": state["chain"]})
        if row["signature"] is None:
            pending.append((seal.number, seal.after("", "").digest() if row["whole"] else ""))
        else:
            whole = row["whole"] and row["digest"] == seal.digest()
            stored.append((seal.number, mark(seal.digest(), row["signature"]) if whole else ""))
    return {**state, "stored": stored, "pending": pending, "next": rows[-1]["number"] if len(rows) == PAGE else None}


def _rows(step: Mapping[str, Any], store: SealStore) -> dict[str, Any]:
    """Compare rows with their leaves for as long as the call may take."""
    deadline = time.monotonic() + float(step["seconds"])
    after, exempt = int(step["after"]), step.get("exempt") or []
    answer: dict[str, Any] = {"rows": 0, "unsealed": 0, "oldest": None, "findings": []}
    for end in windows(store.bounds(after), BLOCK_IDS):
        until = end
        result, found = store.check(after, until, exempt), []
        room = MOST_FINDINGS - len(answer["findings"])
        if not result["clean"]:
            found = store.findings(after, until, exempt, room + 1)
        if len(found) > room:
            # The next call goes on behind the last that this one names.
            until = found[room - 1]["id"]
            result = store.check(after, until, exempt)
        answer["rows"] += result["rows"]
        answer["unsealed"] += result["unsealed"]
        answer["oldest"] = min(filter(None, (answer["oldest"], result["oldest"])), default=None)
        answer["findings"] += found[:room]
        after = until
        if time.monotonic() > deadline or len(answer["findings"]) == MOST_FINDINGS:
            break
    return {**answer, "after": after, "complete": after >= LAST_ID}


#: The largest id that a column holds.
LAST_ID = 2**63 - 1


def windows(bounds: Sequence[tuple[int, int]], size: int) -> list[int]:
    """Return the ids up to which to compare, one after the other: whole blocks, about `size` rows at once.

    :param bounds: last id and number of rows of each block, by last id.
    """
    ends, rows, previous = [], 0, 0
    for last, number in bounds:
        if rows and rows + number > size:
            ends.append(previous)
            rows = 0
        rows += number
        previous = last
    if rows:
        ends.append(previous)
    return [*ends, LAST_ID]


def _inventory(step: Mapping[str, Any], store: SealStore) -> dict[str, Any]:
    del step
    return store.inventory()
