# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carries out a plan in the server: one transaction a subject, lock timeouts, retries, three round trips in all."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from .._core.plan import Failure, Plan, Transaction
from .._core.sql import Sql
from .session import Session, psycopg2

# The loop runs in the server, so that a thousand tables cost as many round trips as one. Each unit is committed on
# its own and holds its locks only that long; one that cannot get a lock leaves its table exactly as it was.
_APPLY = """
DO $dbfleet$
DECLARE
  v_plan     CONSTANT jsonb := current_setting('dbfleet.plan')::jsonb;
  v_unit     jsonb;
  v_attempt  int;
  v_state    text;
  v_message  text;
  v_detail   text;
  v_failures jsonb := '[]';
BEGIN
  <<units>>
  FOR v_index IN 0 .. jsonb_array_length(v_plan -> 'units') - 1 LOOP
    v_unit := v_plan -> 'units' -> v_index;
    v_attempt := 0;
    LOOP
      v_state := NULL;
      BEGIN
        PERFORM set_config('lock_timeout', v_plan ->> 'lock_timeout', true);
        IF v_plan ->> 'lock' IS NOT NULL THEN
          EXECUTE v_plan ->> 'lock';
        END IF;
        EXECUTE v_unit ->> 'sql';
      EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS
          v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT, v_detail = PG_EXCEPTION_DETAIL;
        -- Which objects depend on it, the detail says.
        IF v_state = '2BP01' THEN
          v_message := v_message || ': ' || v_detail;
        END IF;
      END;
      COMMIT;
      EXIT WHEN v_state IS NULL;
      v_attempt := v_attempt + 1;
      EXIT WHEN v_state NOT IN ('55P03', '40P01') OR v_attempt > (v_plan ->> 'lock_retries')::int;
      PERFORM pg_sleep(least(0.2 * v_attempt, 2));
    END LOOP;
    IF v_state IS NOT NULL THEN
      v_failures := v_failures || jsonb_build_object(
        'subject', v_unit ->> 'subject', 'sqlstate', v_state, 'message', v_message);
      EXIT units WHEN (v_unit ->> 'required')::boolean;
    END IF;
  END LOOP units;
  PERFORM set_config('dbfleet.plan', '', false), set_config('dbfleet.failures', v_failures::text, false);
END
$dbfleet$
"""

_LOCK_STATES = ("55P03", "40P01")
_LOCKED = (
    "locked by another session or a prepared transaction (pg_locks, pg_prepared_xacts) "
    "for longer than lock_timeout, lock_retries times over"
)


def apply(plan: Plan, session: Session, lock_timeout: float, lock_retries: int) -> list[Failure]:
    """Execute the plan; return the transactions that failed, without those that a failed required one kept back."""
    required = {transaction.subject for transaction in plan.transactions if transaction.required}
    steps = [transaction for transaction in plan.transactions if transaction.steps]
    failures: list[Failure] = []
    for alone, group in itertools.groupby(steps, key=lambda transaction: transaction.alone):
        if alone:
            failures += _apply_alone(list(group), session)
        else:
            failures += _apply_blocks(list(group), plan.lock, session, lock_timeout, lock_retries)
        if any(entry.subject in required for entry in failures):
            break
    return failures


def _apply_blocks(
    transactions: Sequence[Transaction], lock: Sql | None, session: Session, lock_timeout: float, lock_retries: int
) -> list[Failure]:
    document = {
        "units": [_unit(transaction, session) for transaction in transactions],
        "lock": lock and lock.render(session),
        "lock_timeout": f"{int(lock_timeout * 1000)}ms",
        "lock_retries": lock_retries,
    }
    return [failure(**entry) for entry in session.run_block(_APPLY, "dbfleet.plan", document, "dbfleet.failures")]


def _apply_alone(transactions: Sequence[Transaction], session: Session) -> list[Failure]:
    """Execute what no block can hold, such as ALTER SYSTEM, one statement and one round trip after the other."""
    failures = []
    for transaction in transactions:
        failed = _execute_alone(transaction, session)
        if failed:
            failures.append(failed)
            if transaction.required:
                break
    return failures


def _execute_alone(transaction: Transaction, session: Session) -> Failure | None:
    try:
        for step in transaction.steps:
            session.execute(step.statement.render(session))
    except psycopg2.Error as error:
        if error.pgcode is None:
            raise
        return failure(transaction.subject, error.pgcode, error.diag.message_primary)
    return None


def failure(subject: str, sqlstate: str, message: str) -> Failure:
    """Return what a block in the server reports as a failure."""
    return Failure(subject, sqlstate, _LOCKED if sqlstate in _LOCK_STATES else message)


def _unit(transaction: Transaction, session: Session) -> dict[str, Any]:
    text = ";\n".join(step.statement.render(session).strip() for step in transaction.steps)
    return {"subject": transaction.subject, "sql": text, "required": transaction.required}
