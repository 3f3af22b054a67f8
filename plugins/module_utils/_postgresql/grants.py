# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Grants as we want them against grants as they are: what is missing is granted, what is too much is revoked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._core.plan import Transaction
from .._core.sql import Identifier, Sql, sql

#: role -> privilege
Grants = Mapping[str, str]


def plan_grants(
    transaction: Transaction,
    target: Sql,
    subject: str,
    wanted: Grants,
    current: Sequence[Sequence[Any]],
) -> None:
    """Add GRANT and REVOKE statements for one object.

    :param target: the object as it stands in a GRANT, for example ``TABLE "audit"."audit_log"``.
    :param current: its grants as (role or PUBLIC, privilege, with grant option), the owner's left out.
    """
    held = {(role, privilege) for role, privilege, grantable in current if not grantable}
    extra = [(role, privilege) for role, privilege, grantable in current if grantable or wanted.get(role) != privilege]
    for role, privilege in sorted(extra):
        transaction.add(
            sql(
                "REVOKE {privilege} ON {target} FROM {role}", privilege=sql(privilege), target=target, role=_role(role)
            ),
            f"{role} holds {privilege} on {subject} and must not",
            "grant",
        )
    for role, privilege in wanted.items():
        if (role, privilege) not in held:
            transaction.add(
                sql(
                    "GRANT {privilege} ON {target} TO {role}", privilege=sql(privilege), target=target, role=_role(role)
                ),
                f"{role} lacks {privilege} on {subject}",
                "grant",
            )


def plan_column_revokes(transaction: Transaction, table: Sql, subject: str, current: Sequence[Sequence[str]]) -> None:
    """Add a REVOKE for every grant on a single column: none of ours is."""
    for role, privilege, column in current:
        transaction.add(
            sql(
                "REVOKE {privilege} ({column}) ON {table} FROM {role}",
                privilege=sql(privilege),
                column=Identifier.of(column),
                table=table,
                role=_role(role),
            ),
            f"{role} holds {privilege} on column {column} of {subject} and must not",
            "grant",
        )


def _role(name: str) -> Any:
    return sql("PUBLIC") if name == "PUBLIC" else Identifier.of(name)
