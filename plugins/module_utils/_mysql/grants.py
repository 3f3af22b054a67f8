# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may do what with the trail: what is asked for, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from .._core.plan import Transaction
from .._core.sql import Identifier, Sql, sql
from .accounts import GRANT, OWNER, REVOKE, WRITER, Account, schema_pattern
from .routine import Routine
from .session import Session
from .trail_catalog import TrailCatalog
from .trail_tables import LOG, SEQUENCE, VIEWS

READABLE = (LOG, "policy", "seal", "seal_state", "seal_inventory", *VIEWS)


@dataclass(frozen=True)
class Right:
    """Privileges of one account on one table or routine of the trail."""

    account: Account
    name: str
    privileges: tuple[str, ...]
    kind: str = ""

    def statement(self, template: str, schema: str) -> Sql:
        kind = f"{self.kind} " if self.kind else ""
        return sql(
            template,
            privileges=sql(", ".join(self.privileges)),
            object=sql(f"{kind}{{name}}", name=Identifier.of(schema, self.name)),
            account=self.account.sql(),
        )


def wanted_rights(readers: Iterable[Account], routines: Iterable[Routine], tables: Collection[str]) -> list[Right]:
    """Return every right that anybody is to have on the trail."""
    rights = [
        Right(WRITER, LOG, ("INSERT", "TRIGGER", "SELECT")),
        Right(WRITER, "probe", ("SELECT", "TRIGGER")),
        Right(WRITER, "hash_key", ("SELECT",)),
        Right(OWNER, LOG, ("SELECT", "INSERT", "CREATE", "ALTER", "DROP")),
        Right(OWNER, "setting", ("SELECT",)),
    ]
    if SEQUENCE in tables:
        rights += [Right(account, SEQUENCE, ("SELECT", "INSERT")) for account in (WRITER, OWNER)]
    rights += [Right(account, name, ("SELECT",)) for account in readers for name in READABLE]
    for routine in routines:
        rights += routine_rights(routine)
    return rights


def routine_rights(routine: Routine) -> list[Right]:
    """Return who may call a routine."""
    accounts = dict.fromkeys((routine.definer, *routine.executors))
    return [Right(account, routine.name, ("EXECUTE",), routine.kind) for account in accounts]


def plan_grants(transaction: Transaction, rights: list[Right], catalog: TrailCatalog) -> None:
    """Add what grants the rights that are missing."""
    held = _held(catalog)
    for right in rights:
        missing = sorted(set(right.privileges) - held.get((right.account.grantee, right.name), set()))
        if missing:
            part = Right(right.account, right.name, tuple(missing), right.kind)
            reason = f"{right.account.grantee} may {', '.join(missing)} on {right.name}"
            transaction.add(part.statement(GRANT, catalog.schema), reason, "grant")


def plan_revokes(transaction: Transaction, rights: list[Right], catalog: TrailCatalog, session: Session) -> None:
    """Add what revokes the rights that nobody asked for; the login's own are its own affair."""
    wanted: dict[tuple[str, str], set[str]] = {}
    for right in rights:
        wanted.setdefault((right.account.grantee, right.name), set()).update(right.privileges)
    own = Account.parse(session.account).grantee
    for (grantee, name), privileges in _held(catalog).items():
        surplus = sorted(privileges - wanted.get((grantee, name), set()))
        if surplus and grantee != own:
            kind = catalog.routines[name]["kind"] if name in catalog.routines else ""
            part = Right(Account.parse(grantee), name, tuple(surplus), kind)
            reason = f"{grantee} must not {', '.join(surplus)} on {name}"
            transaction.add(part.statement(REVOKE, catalog.schema), reason, "grant")
    _plan_database_revokes(transaction, catalog, own)


def _held(catalog: TrailCatalog) -> dict[tuple[str, str], set[str]]:
    held: dict[tuple[str, str], set[str]] = {}
    for grant in catalog.grants:
        if grant.name and grant.db == catalog.schema:
            held.setdefault((grant.grantee, grant.name), set()).add(grant.privilege)
    return held


def _plan_database_revokes(transaction: Transaction, catalog: TrailCatalog, own: str) -> None:
    """Rights on the whole of the trail belong to nobody; those by a pattern are limitations, for they mean more."""
    held: dict[tuple[str, str], list[str]] = {}
    for grant in catalog.grants:
        exact = re.sub(r"\\(.)", r"\1", grant.db) == catalog.schema
        wildcard = grant.is_pattern and grant.db != catalog.schema
        if grant.name is None and exact and not wildcard and grant.grantee != own:
            held.setdefault((grant.grantee, grant.db), []).append(grant.privilege)
    for (grantee, pattern), privileges in held.items():
        statement = _on_database(REVOKE, privileges, pattern, Account.parse(grantee))
        transaction.add(statement, f"{grantee} must have no rights on the whole of {catalog.schema}", "grant")


def plan_audited_databases(
    transaction: Transaction, audited: Collection[str], purge: bool, catalog: TrailCatalog, session: Session
) -> None:
    """Let the definer of the triggers read what they name, in the databases that have some, and in no other."""
    partial_revokes = session.on("partial_revokes")
    needed = {"SELECT", "TRIGGER"}
    held: dict[str, set[str]] = {}
    for grant in catalog.grants:
        if grant.grantee == WRITER.grantee and grant.name is None:
            held.setdefault(grant.db, set()).add(grant.privilege)
    patterns = {schema_pattern(schema, partial_revokes): schema for schema in sorted(audited)}
    for pattern, schema in patterns.items():
        missing = sorted(needed - held.get(pattern, set()))
        if missing:
            reason = f"{WRITER} sees the rows of {schema} that its triggers record"
            transaction.add(_on_database(GRANT, missing, pattern, WRITER), reason, "grant")
    for pattern in sorted(set(held) - set(patterns)):
        if purge and held[pattern] <= needed:
            reason = f"no trigger of {WRITER} is left in {pattern}"
            transaction.add(_on_database(REVOKE, held[pattern], pattern, WRITER), reason, "grant")


def _on_database(template: str, privileges: Iterable[str], pattern: str, account: Account) -> Sql:
    return sql(
        template,
        privileges=sql(", ".join(sorted(privileges))),
        object=sql("{pattern}.*", pattern=Identifier.of(pattern)),
        account=account.sql(),
    )
