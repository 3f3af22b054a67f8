# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan: what has to be done, in which order, and why. Made without a server, carried out by an engine's apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .errors import AuditError
from .sql import Quoter, Sql


@dataclass(frozen=True)
class Step:
    """One statement and the difference that it removes.

    :ivar reason: the difference in words, or for a step that only belongs to another one, what it is for.
    :ivar problem: the kind of difference, in verify's terms (missing, altered, disabled, grant), or None for a step
        that only belongs to another one.
    """

    statement: Sql
    reason: str
    problem: str | None = None


@dataclass(frozen=True)
class Failure:
    """A transaction that the server refused; what it was about is as it was before.

    :ivar code: the server's own code of the error: SQLSTATE, or the error number of MySQL.
    :ivar explanation: the failure as a person reads it in the result.
    """

    subject: str
    code: str
    explanation: str


@dataclass
class Transaction:
    """Steps that succeed or fail together, and what the user calls them (a table, "trail", ...).

    :ivar required: later transactions build on this one, so that its failure ends the run.
    :ivar alone: its statements refuse to run in a transaction block, so each is one of its own.
    """

    subject: str
    required: bool = False
    alone: bool = False
    steps: list[Step] = field(default_factory=list)

    def add(self, statement: Sql, reason: str, problem: str | None = None) -> None:
        self.steps.append(Step(statement, reason, problem))


@dataclass
class Plan:
    """Transactions in order; an empty plan means that the server is as asked.

    :ivar lock: a statement that every transaction begins with, and that changes nothing.
    """

    transactions: list[Transaction] = field(default_factory=list)
    lock: Sql | None = None

    def transaction(self, subject: str, required: bool = False, alone: bool = False) -> Transaction:
        """Append and return a new transaction; it is left out of the plan while it has no steps."""
        transaction = Transaction(subject, required, alone)
        self.transactions.append(transaction)
        return transaction

    def leave_out(self, subjects: set[str]) -> None:
        """Take the transactions of these subjects out of the plan."""
        self.transactions = [transaction for transaction in self.transactions if transaction.subject not in subjects]

    def steps(self) -> list[Step]:
        return [step for transaction in self.transactions for step in transaction.steps]

    def differences(self) -> list[str]:
        """Return what is not as it has to be, in words."""
        return [step.reason for step in self.steps() if step.problem]

    def statements(self, quoter: Quoter) -> list[str]:
        """Return the plan as SQL text, statement by statement, exactly as an engine sends it."""
        return [step.statement.render(quoter).strip() for step in self.steps()]

    def subjects(self) -> list[str]:
        return [transaction.subject for transaction in self.transactions if transaction.steps]

    def __bool__(self) -> bool:
        return any(transaction.steps for transaction in self.transactions)


def refuse_failures(failures: Sequence[Failure], database: str) -> None:
    """Fail a run that has left something as it was.

    :raises AuditError: naming it.
    """
    if failures:
        left = "; ".join(f"{failure.subject} ({failure.explanation})" for failure in failures)
        raise AuditError(f"{database}: left as it was, the rest is done: {left}")


def first_difference(checks: Mapping[str, bool]) -> str:
    """Return the first difference, in words, whose check does not hold, or an empty text."""
    return next((difference for difference, same in checks.items() if not same), "")
