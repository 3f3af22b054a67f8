# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rows of sealed blocks as a host sends them, each compared with the ledger before anybody else sees it.

The leaves of a block, the hashes of its rows, come before its rows. The ledger has the hash of all of them, so that
from then on every row is proven by itself, and no more of a block is in memory than one part.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core import ledger_check
from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive import ARCHIVES
from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive_step import PART_BYTES
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.ledger_archive import ROW_ID, split
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import ARCHIVE, ROWS, Entry, Seal, within
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal_step import BLOCK_IDS
from ansible_collections.dbfleet.audit.plugins.module_utils._core.transport import received

#: Seals that one call asks for at most: there may be many of few rows.
SEALS = 500

#: Asks the host for a step by name.
Step = Callable[..., Any]

#: A row's id and its canonical text.
Line = tuple[int, bytes]


class UnlikeSealError(AuditError):
    """A row is not what was sealed, or is not there."""


class BlockCheck:
    """The comparison of one seal's rows, in the order of their ids, with the ledger.

    :param leaves: what the host calls the hashes of the rows.
    :param accepted: by id, the hash (hex) of a row that the key's holder has accepted as it is; empty for one that is
        accepted not to be there.
    :ivar after: the last id that came.
    :raises AuditError: when these are not the hashes that were sealed.
    """

    def __init__(self, seal: Seal, leaves: bytes, accepted: Mapping[int, str]) -> None:
        if hashlib.sha256(leaves).hexdigest() != seal.root or len(leaves) != 32 * seal.rows:
            raise AuditError(
                f"seal {seal.number} in the database is not the one of the ledger; verify says more, and from_seal: "
                f"{seal.number + 1} goes on behind it"
            )
        self._seal = seal
        self._accepted = accepted
        self._expected = _by_id(seal, leaves)
        self._next = next(self._expected, None)
        self.after = seal.ids[0][0] - 1

    def take(self, line: bytes) -> Line:
        """Return the id of the row of a line, which is the next one of the seal.

        :raises UnlikeSealError: when it is not, or not what was sealed.
        """
        found = ROW_ID.match(line)
        number = int(found[1]) if found else 0
        self._pass_until(number)
        if self._next is None or self._next[0] != number:
            raise UnlikeSealError(f"seal {self._seal.number}: row {number} comes twice, or is none of its rows")
        leaf = hashlib.sha256(line)
        if leaf.digest() != self._next[1] and leaf.hexdigest() != self._accepted.get(number):
            raise UnlikeSealError(f"seal {self._seal.number}: row {number} is not what was sealed")
        self._next = next(self._expected, None)
        self.after = number
        return number, line

    def finish(self) -> None:
        """Refuse a seal whose last rows did not come.

        :raises UnlikeSealError: naming the first.
        """
        self._pass_until(None)

    def _pass_until(self, number: int | None) -> None:
        """Go on to an id, over rows that need not be there."""
        while self._next is not None and (number is None or self._next[0] < number):
            if self._accepted.get(self._next[0]) != "":
                raise UnlikeSealError(
                    f"seal {self._seal.number}: row {self._next[0]} was sealed, and is not in the log"
                )
            self._next = next(self._expected, None)


def _by_id(seal: Seal, leaves: bytes) -> Iterator[tuple[int, bytes]]:
    numbers = (number for first, last in seal.ids for number in range(first, last + 1))
    for position, number in enumerate(numbers):
        yield number, leaves[32 * position : 32 * position + 32]


class Blocks:
    """The blocks of one log.

    :param entries: of the ledger, all signed as they have to be.
    """

    def __init__(self, step: Step, entries: Sequence[Entry]) -> None:
        self._step = step
        self._entries = entries
        self._parts: dict[int, Mapping[str, Any]] = {}
        self._accepted = ledger_check.accepted_rows(entries)

    def lines(self, seal: Seal, following: Sequence[Seal]) -> Iterator[Line]:
        """Give the rows of a seal.

        :param following: seals that will be asked for next, as many as are known.
        :raises AuditError: when they are not what was sealed, and before the first of them that is not.
        """
        part = self._parts.pop(seal.number, None) or self._ask([seal, *following])
        if not part["leaves"]:
            raise AuditError(
                f"seal {seal.number} of the ledger is not in the database: it was restored to an earlier time, or "
                "seals were removed; verify says more"
            )
        check = BlockCheck(seal, received(part["leaves"]), self._accepted.get(seal.number, {}))
        sure = False
        while True:
            try:
                for line in _lines(part):
                    yield check.take(line)
                if part["complete"]:
                    check.finish()
                    return
            except UnlikeSealError as error:
                # Rows cannot be seen while they are moved between partitions: not what is wrong the second time.
                if sure:
                    raise self._explained(seal, error) from None
                sure = True
            part = self._ask([seal], after=check.after, sure=sure)

    def _ask(self, seals: Sequence[Seal], sure: bool = False, **more: Any) -> Mapping[str, Any]:
        """Return the next part of the first of some seals; keep those of the others."""
        rows, asked = 0, []
        for seal in seals[:SEALS]:
            rows += seal.rows
            if asked and rows > BLOCK_IDS:
                break
            asked.append({"number": seal.number, "day": seal.period, "ids": seal.ids, **more})
        answer = self._step("blocks", blocks=asked, bytes=PART_BYTES, sure=sure)
        first: Mapping[str, Any] = answer[0]
        self._parts = {part["number"]: part for part in answer[1:]}
        return first

    def _explained(self, seal: Seal, error: UnlikeSealError) -> AuditError:
        """Return an error that says what to do about rows that are not what was sealed."""
        archived = [
            str(said["name"])
            for entry in self._entries
            if entry.seal.kind == ARCHIVE and within(seal.number, entry.seal.numbers())
            for said in entry.seal.attested.get(ARCHIVES, ())
            if said["first_day"] <= (seal.period or "") < said["end_day"]
        ]
        if not archived:
            return AuditError(
                f"{error}; nothing of the kind is shipped: verify says more, resync accepts what was meant, and "
                f"from_seal: {seal.number + 1} goes on behind it"
            )
        gone = ledger_check.archived_seals(self._entries)
        numbers = (entry.seal.number for entry in self._entries if entry.seal.kind == ROWS)
        next_one = next((number for number in numbers if number > seal.number and not within(number, gone)), None)
        return AuditError(
            f"seal {seal.number} was not shipped before its rows left the log for the archive {archived[-1]}, which "
            f"has them; from_seal: {next_one or seal.number + 1} goes on with what is in the log"
        )


def _lines(part: Mapping[str, Any]) -> Iterator[bytes]:
    """Give the lines of a part, a piece of it decompressed at a time."""
    data = received(part["data"])
    return split(gzip.GzipFile(fileobj=io.BytesIO(data))) if data else iter(())
