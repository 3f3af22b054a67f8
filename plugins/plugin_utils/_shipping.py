# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shipping of one log, from the controller: sealed rows, in the order of seals, each seal at least once.

For each seal in this order: its rows from the host, each compared with the ledger; the destination's word that it has
all of them; the cursor, on disk. Whatever ends a run between two of them, the next one sends that seal again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from ansible_collections.dbfleet.audit.plugins.module_utils._core import ledger_check
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import ROWS, Entry, Seal, check_next, within
from ansible_collections.dbfleet.audit.plugins.module_utils._core.shipped import Message, message
from ansible_collections.dbfleet.audit.plugins.module_utils._core.signature import trusted_keys
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_action import KnownLedger
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_cursor import Cursor
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_destination import Destination
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_rows import SEALS, Blocks, Step

#: Seconds between two lines of progress.
_SAY = 5.0


class FollowedLedger(KnownLedger):
    """A ledger of which, once it is known, only what was added is read and checked."""

    def entries(self) -> list[Entry]:
        known, last = self._entries, self.ledger.last() if self._entries else None
        if known and last and last.seal.number > known[-1].seal.number:
            tail = self.ledger.tail(last.seal.number - known[-1].seal.number + 1)
            if tail[0] == known[-1] and self._follow(tail[1:]):
                known += tail[1:]
        return super().entries()

    def _follow(self, added: Sequence[Entry]) -> bool:
        """Tell whether entries follow what is known, signed as they have to be; if not, all of it is read again."""
        keys = trusted_keys(self._keys, [*self._entries, *added])
        try:
            check_next(added, self._entries[-1])
        except AuditError:
            return False
        return all(
            entry.seal.key in keys and keys[entry.seal.key].verifies(entry.seal.message(), entry.signature)
            for entry in added
        )


class Shipping:
    """One run.

    :param entries: returns the ledger's entries, all of them signed as they have to be.
    :param origin: `server` and `database`, as messages call them.
    :param say: shows a line of progress.
    :ivar shipped: the seals that the destination has acknowledged.
    :ivar rows: rows in them.
    :ivar bytes: of the lines that they became.
    """

    def __init__(
        self,
        step: Step,
        entries: Callable[[], list[Entry]],
        cursor: Cursor,
        destination: Destination,
        origin: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self.step = step
        self.entries = entries
        self.cursor = cursor
        self.destination = destination
        self.origin = origin
        self.say = say
        self.from_seal: int | None = None
        self.shipped: list[Seal] = []
        self.rows = self.bytes = 0
        self._said = time.monotonic()

    def due(self) -> list[Seal]:
        """Return the seals of rows that the destination has not acknowledged, in order.

        :raises AuditError: when the cursor is of something else.
        """
        entries = self.entries()
        after = self._after(entries)
        lost = ledger_check.lost_seals(entries)
        seals = (entry.seal for entry in entries if entry.seal.kind == ROWS)
        return [seal for seal in seals if seal.number > after and not within(seal.number, lost)]

    def _after(self, entries: Sequence[Entry]) -> int:
        if self.from_seal is not None:
            return self.from_seal - 1
        position = self.cursor.read()
        if position is None:
            return 0
        position.check(entries, self.cursor.path)
        if position.destination != self.destination.name:
            raise AuditError(
                f"the cursor {self.cursor.path} is of another destination ({position.destination}) than "
                f"{self.destination.title} ({self.destination.name}): give this one another name, or say with "
                "from_seal where it begins"
            )
        return position.seal

    def run(self) -> None:
        """Ship what is due.

        :raises AuditError: when something of it cannot be; the cursor is behind what was acknowledged then.
        """
        if self.from_seal is not None:
            # Before anything is sent: however this run ends, the next one goes on from there.
            self._begin_behind(self.from_seal - 1)
            self.from_seal = None
        seals = self.due()
        blocks = Blocks(self.step, self.entries())
        for index, seal in enumerate(seals):
            rows = size = 0

            def messages(index: int = index, seal: Seal = seal) -> Iterator[Message]:
                nonlocal rows, size
                rows = size = 0
                for number, line in blocks.lines(seal, seals[index + 1 : index + SEALS]):
                    made = message(number, line, seal, self.origin)
                    rows, size = rows + 1, size + len(made.text) + 1
                    yield made

            self.destination.deliver(seal, messages)
            self.cursor.write(self.destination.name, seal)
            self.shipped.append(seal)
            self.rows, self.bytes = self.rows + rows, self.bytes + size
            self._progress(len(seals) - index - 1)

    def check_ledger(self) -> None:
        """Refuse a ledger that lacks seals which the database has: it would have nothing to ship, and be silent.

        :raises AuditError: when it does.
        """
        # In this order: a seal is in the ledger before the database stores its signature.
        number = self.step("wait", after=0, seconds=0)
        entries = self.entries()
        last = entries[-1].seal.number if entries else 0
        if number > last:
            raise AuditError(
                f"the database has {number} seals and the ledger {last or 'none'}: is it the right ledger? Another "
                "one, or a copy of it, must have the rest"
            )

    def _begin_behind(self, number: int) -> None:
        """Have the cursor say that a seal, and all before it, need not be shipped.

        :raises AuditError: when there is none of that number.
        """
        found = [entry.seal for entry in self.entries() if entry.seal.number == number]
        if number and not found:
            raise AuditError(f"from_seal is {number + 1}, and the ledger has no seal {number} before it")
        if found:
            self.cursor.write(self.destination.name, found[0])
        else:
            self.cursor.remove()

    def _progress(self, left: int) -> None:
        if time.monotonic() - self._said > _SAY:
            self._said = time.monotonic()
            self.say(f"seal {self.shipped[-1].number}: {self.rows:,} rows shipped, {left:,} seals to go")
