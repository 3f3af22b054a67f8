# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The frame of every module for MariaDB and MySQL: connection options and the driver."""

from __future__ import annotations

from typing import Any

from .._core.module import AuditModule
from .._core.plan import Failure, Plan
from .apply import apply
from .rollout_record import recorded
from .session import PYMYSQL_ERROR, Session, connect, describe, is_lost, pymysql

CONNECTION_SPEC: dict[str, Any] = {
    "login_host": {"type": "str"},
    "login_port": {"type": "int", "default": 3306},
    "login_user": {"type": "str"},
    "login_password": {"type": "str", "no_log": True},
    "login_unix_socket": {"type": "path"},
    "config_file": {"type": "path", "default": "~/.my.cnf"},
    "ca_cert": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path"},
    "check_hostname": {"type": "bool"},
    "connect_timeout": {"type": "int", "default": 30},
}


class MysqlModule(AuditModule):
    """An AnsibleModule that talks to one server."""

    connection_spec = CONNECTION_SPEC
    driver = ("PyMySQL", PYMYSQL_ERROR)
    driver_error = pymysql.MySQLError if pymysql else Exception

    def connect(self) -> Session:
        return connect(self.params)

    def apply(self, plan: Plan, session: Session, lock_timeout: float, lock_retries: int) -> list[Failure]:
        with recorded(session, self.params.get("schema")):
            return apply(plan, session, lock_timeout, lock_retries)

    def explain(self, error: Any) -> str:
        place = self.params["login_unix_socket"] or self.params["login_host"] or "the server"
        text = f"{place}: {describe(error)}"
        if is_lost(error):
            text += "; the connection was lost: what was done by then stays, run it again for the rest"
        return text
