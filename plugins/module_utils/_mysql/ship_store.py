# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rows of one MariaDB or MySQL server's log by their seals, and the wait for the next seal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from .._core.sql import Identifier, Literal, Sql, literals, sql
from .archive_store import ArchiveStore
from .seal_store import SealStore
from .session import Session

#: By the day as well as by ids, so that no more partitions are read than the one that the day lies in.
_OF_DAY = """(
  SELECT * FROM {schema}.audit_log_data AS d
  WHERE d.changed_at >= {day} AND d.changed_at < {next_day})"""

_LEAVES = "SELECT c.number, c.leaves FROM {schema}.seal AS c WHERE c.kind = 'rows' AND c.number IN ({numbers})"
_LAST = "SELECT COALESCE(MAX(c.number), 0) AS number FROM {schema}.seal AS c WHERE c.signature IS NOT NULL"

#: Seconds between two looks for a seal: nothing here wakes anybody up.
_LOOK = 0.5


class ShipStore(ArchiveStore):
    """See _core/ship_step.py, which says what each method is for."""

    def __init__(self, session: Session, schema: str) -> None:
        super().__init__(session, schema, 0, 0, changes=False)

    def leaves(self, numbers: Sequence[int]) -> dict[int, bytes]:
        if not numbers:
            return {}
        return {row["number"]: row["leaves"] for row in self._all(_LEAVES, numbers=literals(list(numbers)))}

    def settle(self) -> None:
        # Rows are moved by the server itself, in one step.
        pass

    def wait(self, after: int, seconds: float) -> int:
        deadline = time.monotonic() + seconds
        while (number := self._one(_LAST)["number"]) <= after and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK))
        return int(number)

    def _place(self, period: Mapping[str, Any]) -> Sql:
        next_day = date.fromisoformat(period["day"]) + timedelta(days=1)
        days = {"day": Literal(period["day"]), "next_day": Literal(next_day.isoformat())}
        return sql(_OF_DAY, schema=Identifier.of(self.schema), **days)


def stores(session: Session, params: Mapping[str, Any]) -> tuple[SealStore, ShipStore]:
    """Return what the steps of a ship module work with."""
    seals = SealStore(session, params["schema"])
    return seals, ShipStore(session, params["schema"])
