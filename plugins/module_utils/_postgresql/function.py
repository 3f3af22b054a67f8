# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A function as we want it, the SQL that makes it, and how it differs from the one that the server has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._core.plan import Transaction, first_difference
from .._core.sql import Identifier, Quoter, Sql, identifiers, sql
from .roles import OWNER, WRITER
from .trail_catalog import TrailCatalog

#: Nothing that a user can create is found on this path before the server's own objects.
SAFE_PATH = ("search_path", "pg_catalog, pg_temp")

#: For every body with a backslash: a session may have turned off that it means itself (a test looks for the others).
PLAIN_STRINGS = ("standard_conforming_strings", "on")

_VOLATILITY = {"v": "VOLATILE", "s": "STABLE", "i": "IMMUTABLE"}


@dataclass(frozen=True)
class Function:
    """The declaration of one function or procedure of the trail.

    :ivar body: the source, rendered; compared with ``pg_proc.prosrc`` to the letter.
    :ivar executors: roles that may call it besides its owner.
    :ivar owner: None for one that runs with the rights of the login that installs the trail, or in sessions of others.
    :ivar settings: what the function pins for the time that it runs, as ``pg_proc.proconfig`` keeps it.
    """

    name: str
    body: Sql
    arguments: str = ""
    returns: str = "trigger"
    language: str = "plpgsql"
    procedure: bool = False
    definer: bool = False
    volatility: str = "v"
    settings: tuple[tuple[str, str], ...] = (SAFE_PATH,)
    owner: str | None = OWNER
    executors: tuple[str, ...] = ()

    def create(self, schema: str) -> Sql:
        kind = "PROCEDURE" if self.procedure else "FUNCTION"
        lines = [f"CREATE OR REPLACE {kind} {{schema}}.{{name}}({self.arguments})"]
        if not self.procedure:
            lines.append(f"  RETURNS {self.returns}")
            lines.append(f"  LANGUAGE {self.language} {_VOLATILITY[self.volatility]}")
        else:
            lines.append(f"  LANGUAGE {self.language}")
        if self.definer:
            lines.append("  SECURITY DEFINER")
        lines += [f"  SET {name} TO {_setting(name, value)}" for name, value in self.settings]
        lines.append("AS $audit${body}$audit$")
        return sql("\n".join(lines), schema=Identifier.of(schema), name=Identifier.of(self.name), body=self.body)

    def moves(self, current: Mapping[str, Any] | None, superuser: bool) -> bool:
        """Tell whether it is to get another owner than `current` (None: there is none) has, or will have."""
        if self.owner:
            return current is None or current["owner"] != self.owner
        # Its code runs in sessions of superusers, too: what a lesser login has made is not left in its hands.
        return superuser and current is not None and not current["trusted"]

    def plan(
        self,
        transaction: Transaction,
        schema: str,
        current: Mapping[str, Any] | None,
        source: str,
        superuser: bool,
    ) -> None:
        """Add what turns `current` (None: there is none) into this function; `source` is the rendered body."""
        place = {"schema": Identifier.of(schema), "name": Identifier.of(self.name)}
        kind = sql("PROCEDURE" if self.procedure else "FUNCTION")
        difference = self._difference(current, source)
        if difference:
            problem = "altered" if current else "missing"
            if current and not self._same_parameters(current):
                transaction.add(sql("DROP {kind} {schema}.{name}", kind=kind, **place), f"{self.name} changes its call")
                current = None
            transaction.add(self.create(schema), f"function {self.name} {difference}", problem)
        if self.moves(current, superuser):
            owner = Identifier.of(self.owner) if self.owner else sql("CURRENT_USER")
            transaction.add(
                sql("ALTER {kind} {schema}.{name} OWNER TO {owner}", kind=kind, owner=owner, **place),
                f"function {self.name} does not belong to {self.owner or 'a superuser'}",
                "altered" if current else None,
            )
        granted = {"PUBLIC"} if current is None else {entry[0] for entry in current["acl"] or []}
        self._plan_grants(transaction, granted, kind, place, "grant" if current else None)

    def _difference(self, current: Mapping[str, Any] | None, source: str) -> str:
        if current is None:
            return "is missing"
        wanted = {f"{name}={value}" for name, value in self.settings}
        checks = {
            "was altered: its source": current["source"] == source,
            "was altered: SECURITY DEFINER": current["definer"] == self.definer,
            "was altered: its settings": set(current["settings"] or []) == wanted,
            "was altered: its volatility": current["volatility"] == self.volatility,
            "was altered: its parameters": self._same_parameters(current),
        }
        return first_difference(checks)

    def _same_parameters(self, current: Mapping[str, Any]) -> bool:
        names = [argument.split()[0] for argument in self.arguments.split(", ")] if self.arguments else []
        return names == (current["parameters"] or [])

    def _plan_grants(
        self,
        transaction: Transaction,
        granted: set[str],
        kind: Sql,
        place: Mapping[str, Identifier],
        problem: str | None,
    ) -> None:
        wanted = set(self.executors) - {self.owner}
        for role in sorted(granted - wanted):
            grantee = sql("PUBLIC") if role == "PUBLIC" else Identifier.of(role)
            transaction.add(
                sql("REVOKE ALL ON {kind} {schema}.{name} FROM {grantee}", kind=kind, grantee=grantee, **place),
                f"{role} holds EXECUTE on {self.name} and must not",
                problem,
            )
        missing = sorted(wanted - granted)
        if missing:
            transaction.add(
                sql(
                    "GRANT EXECUTE ON {kind} {schema}.{name} TO {roles}", kind=kind, roles=identifiers(missing), **place
                ),
                f"{', '.join(missing)} lacks EXECUTE on {self.name}",
                problem,
            )


def plan_functions(
    transaction: Transaction,
    schema: str,
    functions: Sequence[Function],
    catalog: TrailCatalog,
    quoter: Quoter,
) -> None:
    """Add what makes the functions as they are declared."""
    superuser = catalog.login.superuser
    current = catalog.functions
    lent = {"schema": Identifier.of(schema), "writer": Identifier.of(WRITER)}
    # Unless a superuser gives a function away, its new owner must be one that may create it there. Nobody but this
    # transaction ever sees the grant.
    lends = not superuser and any(
        function.owner == WRITER and function.moves(current.get(function.name), superuser) for function in functions
    )
    if lends:
        transaction.add(sql("GRANT CREATE ON SCHEMA {schema} TO {writer}", **lent), f"to give functions to {WRITER}")
    for function in functions:
        source = function.body.render(quoter)
        function.plan(transaction, schema, current.get(function.name), source, superuser)
    if lends:
        transaction.add(sql("REVOKE CREATE ON SCHEMA {schema} FROM {writer}", **lent), f"{WRITER} has its functions")


def _setting(name: str, value: str) -> str:
    # A path is a list of names; every other setting is one value without quotes or backslashes in it.
    return value if name == "search_path" else f"'{value}'"
