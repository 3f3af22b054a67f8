# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Accounts and what they may: two of our own that nobody can log in as, and those of the user's."""

from __future__ import annotations

from dataclasses import dataclass

from .._core.sql import Literal, Sql, sql


@dataclass(frozen=True)
class Account:
    """An account, or a role: on both engines a name at a host."""

    user: str
    host: str

    @classmethod
    def parse(cls, text: str) -> Account:
        """Return the account that `name`, `name@host` or `'name'@'host'` means; the host is % unless given."""
        user, at, host = text.rpartition("@")
        if not at:
            user, host = text, "%"
        return cls(user.strip("'`\""), host.strip("'`\""))

    def sql(self) -> Sql:
        return sql("{user}@{host}", user=Literal(self.user), host=Literal(self.host))

    @property
    def grantee(self) -> str:
        """The account as information_schema names a grantee."""
        return f"'{self.user}'@'{self.host}'"

    def __str__(self) -> str:
        return f"{self.user}@{self.host}"


#: Defines triggers, guards and routines: adds to the log, and reads what a trigger names.
WRITER = Account("audit_writer", "localhost")
#: Defines what makes partitions: changes the log's table, and nothing else.
OWNER = Account("audit_owner", "localhost")

ACCOUNTS = {
    WRITER: "defines the triggers; may only add to the log",
    OWNER: "defines what makes the log's partitions",
}

CREATE_ACCOUNT = "CREATE USER IF NOT EXISTS {account} ACCOUNT LOCK"
LOCK_ACCOUNT = "ALTER USER {account} ACCOUNT LOCK"
DROP_ACCOUNT = "DROP USER IF EXISTS {account}"
GRANT = "GRANT {privileges} ON {object} TO {account}"
REVOKE = "REVOKE {privileges} ON {object} FROM {account}"


def schema_pattern(schema: str, partial_revokes: bool) -> str:
    """Return a database's name as GRANT takes it: a pattern, unless the server has partial_revokes."""
    if partial_revokes:
        return schema
    return schema.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")
