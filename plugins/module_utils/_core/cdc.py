# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What change data capture has in common on every engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import AuditError
from .plan import Failure

CDC_SPEC: dict[str, Any] = {"configure": {"type": "bool", "default": False}}

NO_CONTEXT = "the server's log of changes knows no user of the application, no client and no program"


@dataclass(frozen=True)
class Problem:
    """Something that a consumer loses changes by, or the server its disk, in words and in one word."""

    type: str
    detail: str

    def as_result(self) -> dict[str, str]:
        return {"type": self.type, "detail": self.detail}


def raise_failures(failures: Sequence[Failure], database: str) -> None:
    """Stop after a run that could not do everything.

    :raises AuditError: naming what is as it was before, and why.
    """
    if failures:
        told = "; ".join(f"{failure.subject}: {failure.explanation}" for failure in failures)
        raise AuditError(f"{database}: left as before, run it again for these: {told}")


def raise_problems(problems: Sequence[Problem], database: str) -> None:
    """Stop where a person has to look.

    :raises AuditError: naming every problem.
    """
    if problems:
        told = "; ".join(problem.detail for problem in problems)
        raise AuditError(f"{database}: {told}")
