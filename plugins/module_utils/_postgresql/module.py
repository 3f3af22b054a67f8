# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The frame of every PostgreSQL module: options, connection, check and diff mode, results."""

from __future__ import annotations

from typing import Any

from .._core.module import AuditModule
from .._core.plan import Failure, Plan
from .apply import apply
from .rollout_record import recorded
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

#: Of the modules that write capture functions, or what these need; the session makes use of it.
EXPECT_SPEC: dict[str, Any] = {"expect_pgaudit": {"type": "bool", "default": False}}

#: No code: the connection broke. Class 57: an administrator, a crash or a shutdown ended it.
_CONNECTION_LOST = (None, "57P01", "57P02", "57P03")


class PostgresqlModule(AuditModule):
    """An AnsibleModule that talks to one database."""

    connection_spec = CONNECTION_SPEC
    driver = ("psycopg2", PSYCOPG2_ERROR)
    driver_error = psycopg2.Error if psycopg2 else Exception

    def connect(self) -> Session:
        return connect(self.params)

    def apply(self, plan: Plan, session: Session, lock_timeout: float, lock_retries: int) -> list[Failure]:
        with recorded(session, self.params.get("schema")):
            return apply(plan, session, lock_timeout, lock_retries)

    def explain(self, error: Any) -> str:
        text = f"{self.params['login_db']}: {str(error).strip()}"
        lost = isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError))
        if lost and error.pgcode in _CONNECTION_LOST:
            text += "; the connection was lost: what was done by then stays, run it again for the rest"
        return text
