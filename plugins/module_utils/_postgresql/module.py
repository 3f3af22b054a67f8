# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The frame of every PostgreSQL module: options, connection, check and diff mode, results."""

from __future__ import annotations

import time
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from .._core.errors import AuditError
from .._core.plan import Plan
from .apply import Failure, apply, statements
from .session import PSYCOPG2_ERROR, Session, connect, psycopg2

CONNECTION_SPEC: dict[str, Any] = {
    "login_host": {"type": "str"},
    "login_port": {"type": "int", "default": 5432},
    "login_user": {"type": "str", "default": "postgres"},
    "login_password": {"type": "str", "no_log": True},
    "login_unix_socket": {"type": "path"},
    "login_db": {"type": "str", "default": "postgres"},
    "ssl_mode": {
        "type": "str",
        "default": "prefer",
        "choices": ["allow", "disable", "prefer", "require", "verify-ca", "verify-full"],
    },
    "ca_cert": {"type": "path"},
    "ssl_cert": {"type": "path"},
    "ssl_key": {"type": "path"},
    "connect_params": {"type": "dict", "default": {}},
}

LOCK_SPEC: dict[str, Any] = {
    "lock_timeout": {"type": "float", "default": 2.0},
    "lock_retries": {"type": "int", "default": 5},
}

SCHEMA_SPEC: dict[str, Any] = {"schema": {"type": "str", "default": "audit"}}

#: Reads the catalogue and plans; called again under the lock when there is something to do.
Planner = Callable[[Session], Plan]

#: No code: the connection broke. Class 57: an administrator, a crash or a shutdown ended it.
_CONNECTION_LOST = (None, "57P01", "57P02", "57P03")


class PostgresqlModule(AnsibleModule):
    """An AnsibleModule that talks to one database."""

    def __init__(self, argument_spec: dict[str, Any], **kwargs: Any) -> None:
        super().__init__({**CONNECTION_SPEC, **argument_spec}, supports_check_mode=True, **kwargs)
        self.started = time.monotonic()
        self.results: dict[str, Any] = {"changed": False}
        if psycopg2 is None:
            self.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_ERROR)

    def run(self, work: Callable[[PostgresqlModule, Session], None]) -> None:
        """Connect, work, and exit with the results; what a user can put right becomes the module's message."""
        try:
            session = connect(self.params)
            try:
                work(self, session)
            finally:
                session.close()
        except AuditError as error:
            self.fail_json(msg=str(error), **self._finished())
        except psycopg2.Error as error:
            self.fail_json(msg=f"{self.params['login_db']}: {_explain(error)}", **self._finished())
        self.exit_json(**self._finished())

    def reconcile(self, session: Session, planner: Planner) -> list[Failure]:
        """Plan, and unless in check mode carry the plan out under the database's lock.

        Planning comes first and without any lock: a run that finds nothing to do disturbs nobody. What was planned
        without the lock is planned again under it, because another run may just have done it.
        """
        plan = planner(session)
        if plan:
            session.require_writable()
        if plan and not self.check_mode:
            session.lock()
            plan = planner(session)
        self.report(plan, session)
        if not plan or self.check_mode:
            return []
        lock_timeout, lock_retries = (self.params.get(key) for key in LOCK_SPEC)
        return apply(plan, session, lock_timeout, lock_retries)

    def report(self, plan: Plan, session: Session) -> None:
        """Put the plan into the results: the same in check mode and in a real run."""
        texts = statements(plan, session)
        self.results["changed"] = self.results["changed"] or bool(texts)
        self.results.setdefault("statements", []).extend(texts)
        if self._diff:
            reasons = [step.reason for step in plan.steps()]
            after = "".join(f"-- {reason}\n{text};\n" for reason, text in zip(reasons, texts))
            header = f"{session.database} (SQL to execute)"
            self.results["diff"] = {"before_header": header, "after_header": header, "before": "", "after": after}

    def _finished(self) -> dict[str, Any]:
        return {**self.results, "seconds": round(time.monotonic() - self.started, 3)}


def _explain(error: Any) -> str:
    """Return what the server said, and what to do when it said nothing any more."""
    text = str(error).strip()
    lost = isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError)) and error.pgcode in _CONNECTION_LOST
    if lost:
        text += "; the connection was lost: what was done by then stays, run it again for the rest"
    return text
