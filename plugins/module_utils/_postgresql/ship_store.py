# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rows of one PostgreSQL database's log by their seals, and the wait for the next seal."""

from __future__ import annotations

import select
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .._core.sql import Identifier, Literal, Sql, sql
from . import ship_queries as queries
from .archive_store import ArchiveStore
from .seal_store import ROWS, ROWS_MOVING, SealStore
from .session import LOCK_PLACES, Session

#: Seconds between two looks for a seal on a standby, where nobody can listen.
_LOOK = 0.5


class ShipStore(ArchiveStore):
    """See _core/ship_step.py, which says what each method is for."""

    def __init__(self, session: Session, schema: str) -> None:
        super().__init__(session, schema, 0, 0)
        self._rows = ROWS

    def leaves(self, numbers: Sequence[int]) -> dict[int, bytes]:
        if not numbers:
            return {}
        return {row.number: bytes(row.leaves) for row in self._all(queries.LEAVES, numbers=Literal(list(numbers)))}

    def settle(self) -> None:
        if not self.session.in_recovery:
            self.session.execute("SET lock_timeout = '60s'")
            self._all(queries.STILL, **LOCK_PLACES)
        moving = Literal(self.session.identifier(self.schema, "audit_log_moving"))
        self._rows = ROWS_MOVING if self._all(queries.MOVING, moving=moving)[0].moving else ROWS

    def wait(self, after: int, seconds: float) -> int:
        deadline, connection = time.monotonic() + seconds, self.session.connection
        longest = seconds
        if self.session.in_recovery:
            longest = _LOOK
        else:
            # Before the first look: what is stored between the two wakes us up.
            self.session.execute(queries.LISTEN)
        while (number := self._all(queries.LAST)[0].number) <= after and (left := deadline - time.monotonic()) > 0:
            # What came together with the answer is no longer on its way.
            if not connection.notifies and select.select([connection], [], [], min(left, longest))[0]:
                connection.poll()
            connection.notifies.clear()
        return int(number)

    def _partition(self, period: Mapping[str, Any]) -> Sql:
        rows = sql(self._rows, schema=Identifier.of(self.schema))
        return sql(queries.OF_DAY, rows=rows, day=Literal(period["day"]))


def stores(session: Session, params: Mapping[str, Any]) -> tuple[SealStore, ShipStore]:
    """Return what the steps of a ship module work with."""
    seals = SealStore(session, params["schema"])
    return seals, ShipStore(session, params["schema"])
