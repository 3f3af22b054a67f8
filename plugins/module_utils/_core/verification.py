# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the verify modules of all engines share: problems, where they come from, how they are reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .errors import AuditError
from .module import AuditModule
from .plan import Plan
from .rollout import exceptions
from .selection import Selection

VERIFY_SPEC: dict[str, Any] = {
    "self_test": {"type": "bool", "default": True},
    "fail_on_problem": {"type": "bool", "default": True},
}


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it has to be.

    :ivar block: the number of the seal that it is about.
    :ivar id: of a row of the log.
    :ivar object: a trigger or function.
    """

    type: str
    detail: str
    table: str | None = None
    block: int | None = None
    id: int | None = None
    object: str | None = None

    def plain(self) -> dict[str, Any]:
        """Return the fields that say something."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "")}


def differences(planner: Callable[[], Plan]) -> list[Problem]:
    """Return what a plan would change, once for each difference; a refusal to plan is a problem as well."""
    try:
        plan = planner()
    except AuditError as error:
        return [Problem("refused", str(error))]
    return [
        Problem(step.problem, step.reason, transaction.subject)
        for transaction in plan.transactions
        for step in transaction.steps
        if step.problem
    ]


def expired(selection: Selection) -> list[Problem]:
    """Return a problem for every exception whose last day has passed."""
    return [
        Problem("exception_expired", f"the exception of {entry['table']} ended on {entry['until']}", entry["table"])
        for entry in exceptions(selection)
        if entry["expired"]
    ]


def report(module: AuditModule, problems: Sequence[Problem], probes: int | None, database: str) -> None:
    """Put the outcome into the results.

    :param probes: how much was probed; None when there was no self-test.
    :raises AuditError: when there are problems, unless the user wants only to hear of them.
    """
    types = {problem.type for problem in problems}
    plain = [problem.plain() for problem in problems]
    module.results.update(
        valid=not problems,
        problems=plain,
        probes=probes or 0,
        recorded=probes is not None and "not_recorded" not in types,
        tampering_refused=probes is not None and "not_refused" not in types,
    )
    if problems and module.params["fail_on_problem"]:
        raise AuditError(f"{database}: {summary(plain)}")


def summary(problems: Sequence[Mapping[str, Any]]) -> str:
    """Return problems in one line: the first ten."""
    named = "; ".join(f"{problem['type']}: {problem['detail']}" for problem in problems[:10])
    more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
    return f"{len(problems)} problems: {named}{more}"
