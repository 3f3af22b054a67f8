# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The frame of every module, on any engine: connection, check and diff mode, planning before and under the lock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Callable, ClassVar, Protocol

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from .errors import AuditError
from .plan import Failure, Plan
from .sql import Quoter
from .transport import transported

LOCK_SPEC: dict[str, Any] = {
    "lock_timeout": {"type": "float", "default": 2.0},
    "lock_retries": {"type": "int", "default": 5},
}

SCHEMA_SPEC: dict[str, Any] = {"schema": {"type": "str", "default": "audit"}}


class AuditSession(Quoter, Protocol):
    """What the frame needs of an engine's session."""

    #: What messages call the database or server.
    database: str

    def require_writable(self) -> None:
        """Raise AuditError where nothing can, or is meant to, be written."""

    def lock(self) -> None:
        """Keep other runs out until the connection ends."""

    def close(self) -> None:
        """End the connection."""


#: Reads the catalogue and plans; called again under the lock when there is something to do.
Planner = Callable[[Any], Plan]


class AuditModule(AnsibleModule):
    """An AnsibleModule that talks to one database or server. An engine says how to connect and what its errors mean."""

    #: The engine's connection options.
    connection_spec: ClassVar[dict[str, Any]] = {}
    #: The name of the driver's package, and the traceback of its import where that failed.
    driver: ClassVar[tuple[str, str | None]] = ("", None)
    #: The driver's own error.
    driver_error: ClassVar[type[Exception]] = Exception

    def __init__(self, argument_spec: dict[str, Any], **kwargs: Any) -> None:
        super().__init__({**self.connection_spec, **argument_spec}, supports_check_mode=True, **kwargs)
        self.started = time.monotonic()
        self.results: dict[str, Any] = {"changed": False}
        package, missing = self.driver
        if missing:
            self.fail_json(msg=missing_required_lib(package), exception=missing)

    def _log_invocation(self) -> None:
        """Keep rows that are restored, and whom a hold is about, out of the host's own log."""
        params = self.params
        self.params = {name: value for name, value in params.items() if name != "step"}
        super()._log_invocation()
        self.params = params

    def connect(self) -> AuditSession:
        """Return an open session with the module's connection options."""
        raise NotImplementedError

    def explain(self, error: Any) -> str:
        """Return what the server said, and what to do about it where that is known."""
        raise NotImplementedError

    def apply(self, plan: Plan, session: Any, lock_timeout: float, lock_retries: int) -> list[Failure]:
        """Carry a plan out; return the transactions that failed."""
        raise NotImplementedError

    def run(self, work: Callable[[Any, Any], None]) -> None:
        """Connect, work, and exit with the results; what a user can put right becomes the module's message."""
        try:
            session = self.connect()
            try:
                work(self, session)
            finally:
                session.close()
        except AuditError as error:
            self.fail_json(msg=str(error), **self._finished())
        except self.driver_error as error:
            self.fail_json(msg=self.explain(error), **self._finished())
        self.exit_json(**self._finished())

    def reconcile(self, session: AuditSession, planner: Planner, on_replica: bool = False) -> list[Failure]:
        """Plan, and unless in check mode carry the plan out under the database's lock.

        Planning comes first and without any lock: a run that finds nothing to do disturbs nobody. What was planned
        without the lock is planned again under it, because another run may just have done it.

        :param on_replica: the plan has nothing in it that a replica gets from elsewhere, so it takes it as well.
        :raises AuditError: when a transaction that the rest builds on fails, with what the server said.
        """
        plan = planner(session)
        if plan and not on_replica:
            session.require_writable()
        if plan and not self.check_mode:
            session.lock()
            plan = planner(session)
        self.report(plan, session)
        if not plan or self.check_mode:
            return []
        lock_timeout, lock_retries = (self.params.get(key, LOCK_SPEC[key]["default"]) for key in LOCK_SPEC)
        failures = self.apply(plan, session, lock_timeout, lock_retries)
        _raise_required(plan, failures, session.database)
        return failures

    def report(self, plan: Plan, session: AuditSession) -> None:
        """Put the plan into the results: the same in check mode and in a real run."""
        texts = plan.statements(session)
        self.results["changed"] = self.results["changed"] or bool(texts)
        self.results.setdefault("statements", []).extend(texts)
        if self._diff:
            reasons = [step.reason for step in plan.steps()]
            after = "".join(f"-- {reason}\n{text};\n" for reason, text in zip(reasons, texts))
            header = f"{session.database} (SQL to execute)"
            shown = self.results.setdefault("diff", {"before_header": header, "after_header": header, "before": ""})
            shown["after"] = shown.get("after", "") + after

    def _finished(self) -> dict[str, Any]:
        results = transported(self.results, self.no_log_values)
        return {**results, "seconds": round(time.monotonic() - self.started, 3)}


def _raise_required(plan: Plan, failures: Sequence[Failure], database: str) -> None:
    required = {transaction.subject for transaction in plan.transactions if transaction.required}
    for failure in failures:
        if failure.subject in required:
            raise AuditError(f"{database}: {failure.subject}: {failure.explanation}; nothing was changed")
