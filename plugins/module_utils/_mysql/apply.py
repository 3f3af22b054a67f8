# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carries out a plan in the server: many statements a round trip, lock timeouts, retries."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from .._core.plan import Failure, Plan
from .session import Session

# Error numbers of MySQL and MariaDB: lock wait timeout, deadlock, lock not available at once.
LOCK_ERRORS = (1205, 1213, 3572)
LOCKED = (
    "locked by another session (performance_schema.metadata_locks, or SHOW FULL PROCESSLIST) "
    "for longer than lock_timeout, lock_retries times over"
)

#: Bytes of SQL that go to the server at once, where it takes that many.
BATCH = 4 * 1024 * 1024

TIMEOUTS = "SET SESSION lock_wait_timeout = {seconds}, innodb_lock_wait_timeout = {seconds}"


@dataclass(frozen=True)
class _Unit:
    subject: str
    required: bool
    statements: list[str]

    @property
    def size(self) -> int:
        return sum(len(statement.encode()) for statement in self.statements)


def apply(plan: Plan, session: Session, lock_timeout: float, lock_retries: int) -> list[Failure]:
    """Execute the plan; return the transactions that failed, without those that a failed required one kept back.

    There are no transactions around DDL here: what a unit needs to be whole, it locks by its own statements. A failure
    ends the batch in the server, so that a round trip more is needed for each, and for nothing else.
    """
    session.execute(TIMEOUTS.format(seconds=max(1, math.ceil(lock_timeout))))
    units = [
        _Unit(
            transaction.subject,
            transaction.required,
            [step.statement.render(session).strip() for step in transaction.steps],
        )
        for transaction in plan.transactions
        if transaction.steps
    ]
    limit = batch_limit(session)
    failures: list[Failure] = []
    attempt = 0
    while units:
        batch = _batch(units, limit)
        done, error = _execute(batch, session)
        units = units[done:]
        if error is None:
            attempt = 0
            continue
        attempt = attempt + 1 if done == 0 else 1
        if error.args[0] in LOCK_ERRORS and attempt <= lock_retries:
            time.sleep(min(0.2 * attempt, 2))
            continue
        unit, units, attempt = units[0], units[1:], 0
        failures.append(_failure(unit, error))
        if unit.required:
            break
    return failures


def batch_limit(session: Session) -> int:
    """Return how many bytes of SQL to send at once."""
    return min(BATCH, int(session.variables["max_allowed_packet"]) // 2)


def _batch(units: list[_Unit], limit: int) -> list[_Unit]:
    size = 0
    for number, unit in enumerate(units):
        size += unit.size
        if number and size > limit:
            return units[:number]
    return units


def _execute(batch: list[_Unit], session: Session) -> tuple[int, Any]:
    """Execute units in one round trip; return how many are done, and the error of the one that failed, or None."""
    owners = [index for index, unit in enumerate(batch) for _statement in unit.statements]
    done, error = session.execute_many([statement for unit in batch for statement in unit.statements])
    if error is None:
        return len(batch), None
    session.execute("UNLOCK TABLES")
    return owners[done], error


def _failure(unit: _Unit, error: Any) -> Failure:
    number, message = (*error.args, "")[:2]
    return Failure(unit.subject, str(number), LOCKED if number in LOCK_ERRORS else f"{message} ({number})")
