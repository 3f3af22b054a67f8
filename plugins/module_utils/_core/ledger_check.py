# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a ledger is whole, and whether a database has what it says. Pure: needs the public keys and no database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .seal import ARCHIVE, CATALOG, GENESIS, KEY, RESYNC, ROWS, Entry, mark, within
from .signature import PublicKey
from .verification import Problem

#: What the clocks of a server and of the standby that takes its place may differ by.
CLOCK_ERROR = timedelta(hours=1)

#: More problems of a kind say no more than these.
MOST = 20


def check_ledger(entries: Sequence[Entry], digests: Sequence[str], trusted: Mapping[str, PublicKey]) -> list[Problem]:
    """Return what is wrong with a ledger's chain and its signatures.

    :param digests: what each line calls its own digest.
    """
    problems: list[Problem] = []
    number, previous = 0, GENESIS
    retired: frozenset[str] = frozenset()
    for entry, digest in zip(entries, digests):
        seal, real = entry.seal, entry.seal.digest()
        key = trusted.get(seal.key)
        if seal.number != number + 1 or seal.previous != previous or seal.chain != entries[0].seal.chain:
            problems.append(
                Problem(
                    "broken_chain", f"the ledger's seal {seal.number} does not follow seal {number}", block=seal.number
                )
            )
        if real != digest:
            problems.append(
                Problem(
                    "broken_chain", f"the ledger's seal {seal.number} is not what its digest says", block=seal.number
                )
            )
        if key is None:
            problems.append(
                Problem(
                    "unknown_key",
                    f"seal {seal.number} is signed with key {seal.key}, for which nothing vouches",
                    block=seal.number,
                )
            )
        elif not key.verifies(seal.message(), entry.signature):
            problems.append(
                Problem(
                    "bad_signature",
                    f"the signature of seal {seal.number} is not one of key {seal.key}",
                    block=seal.number,
                )
            )
        elif seal.key in retired:
            problems.append(
                Problem(
                    "bad_signature",
                    f"seal {seal.number} is signed with key {seal.key}, which an earlier seal has replaced by another",
                    block=seal.number,
                )
            )
        else:
            retired = _retired(entry, retired)
        number, previous = seal.number, real
    return problems


def retired_keys(entries: Iterable[Entry]) -> frozenset[str]:
    """Return the names of the keys that others have replaced, whose seals count no more."""
    retired: frozenset[str] = frozenset()
    for entry in entries:
        retired = _retired(entry, retired)
    return retired


def _retired(entry: Entry, before: frozenset[str]) -> frozenset[str]:
    """Return those after an entry; a key comes back where it replaces the one that had replaced it."""
    if entry.seal.kind != KEY:
        return before
    old, new = (PublicKey(str(entry.seal.attested.get(name, ""))) for name in ("old_key", "new_key"))
    vouched = old.name == entry.seal.key and new.verifies(entry.seal.message(), entry.endorsement or "")
    return (before | {old.name}) - {new.name} if vouched else before


@dataclass(frozen=True)
class Compared:
    """What came of comparing a database's seals with the ledger.

    :ivar ahead: whether the ledger has seals that the database has not signed yet.
    :ivar state: for a person, what a sealing run that was cut off has left to the next; empty when there is nothing.
    """

    problems: list[Problem]
    state: str
    ahead: bool


def vouched(entries: Sequence[Entry], problems: Sequence[Problem]) -> list[Entry]:
    """Return the entries that are signed as they have to be: nothing else may explain or accept anything."""
    doubtful = {problem.block for problem in problems if problem.type in ("unknown_key", "bad_signature")}
    return [entry for entry in entries if entry.seal.number not in doubtful]


def compare(
    entries: Sequence[Entry],
    stored: Mapping[int, str],
    pending: Mapping[int, str],
    lost: Sequence[tuple[int, int]],
    first: int = 1,
    settled: int | None = None,
) -> Compared:
    """Compare the seals of a database with those of the ledger.

    :param stored: number and mark of the seals that the database has with a signature, from what it has of them.
    :param pending: number and digest, as no link of the chain, of the seals that the database has without one.
    :param lost: numbers of seals that need not be there.
    :param first: the number that `stored` begins with.
    :param settled: the last number that the ledger had before the database was asked; of those after it, the database
        may not have said anything yet.
    """
    problems, waiting = [], []
    last = entries[-1].seal.number if entries else 0
    for entry in entries:
        number = entry.seal.number
        if number < first or within(number, lost):
            continue
        seal = entry.seal
        if number in pending and max(stored, default=0) < number:
            same = pending[number] == seal.after("", "").digest()
            waiting.append(number)
        elif number not in stored and number not in pending:
            if settled is None or number <= settled:
                problems.append(Problem("missing_block", _missing(entry), block=number))
            continue
        else:
            same = stored.get(number) == mark(seal.digest(), entry.signature)
        if not same:
            problems.append(
                Problem("altered_block", f"seal {number} in the database is not the one of the ledger", block=number)
            )
    known = {entry.seal.number for entry in entries}
    problems += [
        Problem("not_in_ledger", f"seal {number} of the database is not in the ledger", block=number)
        for number in sorted({*stored, *(number for number in pending if number <= last)} - known)
        if number >= first
    ]
    state = _state(waiting, [number for number in pending if number > last])
    return Compared(_bounded(problems), state, ahead=bool(waiting))


def _missing(entry: Entry) -> str:
    seal = entry.seal
    missing = f"seal {seal.number} of the ledger is not in the database"
    if not seal.ids:
        return missing
    first, last = seal.ids[0][0], seal.ids[-1][1]
    return f"{missing}; the {seal.rows} rows that it had, of ids from {first} to {last}, cannot be checked"


def lost_seals(entries: Sequence[Entry]) -> list[tuple[int, int]]:
    """Return the numbers of seals that the key's holder has declared lost: a restore, a failover."""
    return [pair for entry in entries if entry.seal.kind == RESYNC for pair in entry.seal.numbers()]


def archived_seals(entries: Sequence[Entry]) -> list[tuple[int, int]]:
    """Return the numbers of seals whose rows have left the log for an archive."""
    return [pair for entry in entries if entry.seal.kind == ARCHIVE for pair in entry.seal.numbers()]


def unexplained(entries: Sequence[Entry]) -> list[Problem]:
    """Return the changes of audit objects for which there is no record in the log, and rows that came too late."""
    problems = _moved_back(entries) + _compared_elsewhere(entries)
    for entry in entries:
        for change in entry.seal.attested.get("altered", ()) if entry.seal.kind == CATALOG else ():
            if not change["recorded"]:
                problems.append(
                    Problem(
                        "altered_between_seals",
                        f"{change['object']} {change['change']} before seal {entry.seal.number}, and the log has no "
                        "record of who did it",
                        block=entry.seal.number,
                        object=change["object"],
                    )
                )
        for row in entry.seal.attested.get("backdated", ()):
            problems.append(
                Problem(
                    "backdated_row",
                    f"seal {entry.seal.number}: row {row['id']} came into the log after {row['after']} and says "
                    f"{row['changed_at']}",
                    block=entry.seal.number,
                    id=row["id"],
                )
            )
    return problems


def sealed_up_to(entries: Sequence[Entry]) -> int:
    """Return the id up to which seals say that all rows were sealed when they were made."""
    return max((_watermark(entry) for entry in _since_resync(entries)), default=0)


def _since_resync(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Return what came after the last time that the key's holder said that the database is right as it is."""
    found = max((index for index, entry in enumerate(entries) if entry.seal.kind == RESYNC), default=-1)
    return entries[found + 1 :]


def _watermark(entry: Entry) -> int:
    return int(entry.seal.attested.get("watermark", 0)) if entry.seal.kind == ROWS else 0


def _moved_back(entries: Sequence[Entry]) -> list[Problem]:
    """Return where the host's word on what had been sealed went back, so that rows could be put in afterwards."""
    problems: list[Problem] = []
    highest, marked_at, number = 0, "", 0
    for entry in entries:
        seal = entry.seal
        if seal.kind == RESYNC:
            highest, marked_at = 0, ""
        if seal.kind != ROWS:
            continue
        for first, last in seal.ids:
            if first <= highest:
                rows = f"row {first} is" if first == last else f"rows {first} to {last} are"
                detail = (
                    f"seal {seal.number}: {rows} in it, and seal {number} says that all up to {highest} were sealed"
                )
                problems.append(Problem("inserted_row", detail, block=seal.number, id=first))
        until = str(seal.attested.get("marked_at", ""))
        if _watermark(entry) < highest or _earlier(until, marked_at):
            detail = (
                f"seal_state said before seal {seal.number} that all rows up to {_watermark(entry)} were sealed, those "
                f"of before {until or 'any time'}; before seal {number} it was all up to {highest}, of before "
                f"{marked_at}: somebody changed it, and there may be backdated rows in seal {seal.number}"
            )
            problems.append(Problem("altered_between_seals", detail, block=seal.number, object="seal_state"))
        if _watermark(entry) > highest:
            highest, marked_at, number = _watermark(entry), until, seal.number
    return _bounded(problems)


def _earlier(one: str, other: str) -> bool:
    """Tell whether a time is so much before another that no clock can have been set, nor a standby's be, so wrong."""
    if not (one and other):
        return bool(other)
    times = [datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ") for text in (one, other)]
    return times[1] - times[0] > CLOCK_ERROR


def _compared_elsewhere(entries: Sequence[Entry]) -> list[Problem]:
    """Return seals whose objects were compared with something else than what the seal before them has kept."""
    problems = []
    kept = None
    for entry in entries:
        seal = entry.seal
        if seal.kind == RESYNC:
            kept = None
        elif seal.kind == CATALOG:
            if kept and seal.attested.get("compared") != kept.attested["inventory"]:
                detail = (
                    f"seal_inventory, with which seal {seal.number} compared triggers and functions, is not what seal "
                    f"{kept.number} had kept there: somebody changed it, and what they did to triggers and functions "
                    "is not known"
                )
                problems.append(Problem("altered_between_seals", detail, block=seal.number, object="seal_inventory"))
            kept = seal
    return problems


def inventory_digest(entries: Sequence[Entry]) -> str | None:
    """Return the digest of the audit objects as they were at the last seal that says it."""
    kept = [entry.seal.attested["inventory"] for entry in _since_resync(entries) if entry.seal.kind == CATALOG]
    return kept[-1] if kept else None


def accepted(entries: Sequence[Entry]) -> list[dict[str, object]]:
    """Return the problems that the key's holder has accepted."""
    return [dict(known) for entry in entries if entry.seal.kind == RESYNC for known in entry.seal.attested["accepted"]]


def accepted_rows(entries: Sequence[Entry]) -> dict[int, dict[int, str]]:
    """Return the rows that the key's holder has accepted as they are, by the number of their seal and their id.

    Each has the hash (hex) of what it was by then; an empty one when it was not there any more.
    """
    found: dict[int, dict[int, str]] = {}
    for known in accepted(entries):
        if known["type"] in ("modified_row", "deleted_row") and known.get("block") and known.get("id"):
            leaf = str(known.get("leaf") or "") if known["type"] == "modified_row" else ""
            found.setdefault(int(str(known["block"])), {})[int(str(known["id"]))] = leaf
    return found


def identity(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what makes two problems the same."""
    return tuple(fields.get(name) for name in ("type", "block", "id", "object", "leaf"))


def settled(entries: Sequence[Entry]) -> set[tuple[Any, ...]]:
    """Return the identities of what was accepted for good: an object without a block may be altered again."""
    return {identity(known) for known in accepted(entries) if known.get("block") or known.get("id")}


def unsettled(entries: Sequence[Entry]) -> list[Problem]:
    """Return what :func:`unexplained` finds and nobody has accepted for good.

    :param entries: those that are signed as they have to be.
    """
    known = settled(entries)
    return [problem for problem in unexplained(entries) if identity(vars(problem)) not in known]


def _state(waiting: Sequence[int], unsigned: Sequence[int]) -> str:
    parts = []
    if waiting:
        parts.append(f"{_named(waiting)} in the ledger, but not yet signed in the database")
    if unsigned:
        parts.append(f"{_named(unsigned)} in the database, but not yet in the ledger")
    return "; ".join(parts) + ("; the next sealing run completes it" if parts else "")


def _named(numbers: Sequence[int]) -> str:
    return f"seal {numbers[0]} is" if len(numbers) == 1 else f"seals {numbers[0]} to {numbers[-1]} are"


def _bounded(problems: list[Problem]) -> list[Problem]:
    counted: dict[str, int] = {}
    kept = []
    for problem in problems:
        counted[problem.type] = counted.get(problem.type, 0) + 1
        if counted[problem.type] <= MOST:
            kept.append(problem)
    for kind, number in counted.items():
        if number > MOST:
            kept.append(Problem(kind, f"and {number - MOST} more of the kind"))
    return kept
