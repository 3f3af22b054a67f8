# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Publication, replica identities and slot of change data capture: as asked, as found, and what to do. Pure.

The publication comes before the slot, since the slot's plugin looks for it as it was at each change. What a table had
for a replica identity is kept in the publication's comment, before the first table gets another one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._core.errors import AuditError
from .._core.plan import Failure, Plan, Transaction
from .._core.sql import Identifier, Literal, Sql, sql
from .cdc_tables import FULL, Choice, Identity, Key, tree
from .trigger_catalog import PgTable

#: What a comment of ours begins with; the rest of it is the memory of replica identities.
MARK = "dbfleet.audit: change data capture "

#: How long a new slot may wait for the transactions that run; nobody waits for it meanwhile.
SLOT_WAIT = "60s"

_PUBLISH = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
_CREATE_SLOT = (
    "SELECT pg_create_logical_replication_slot({slot}, {plugin}) FROM set_config('lock_timeout', {wait}, false)"
)
_IDENTITIES = {"d": "DEFAULT", "f": "FULL", "n": "NOTHING"}
_SLOT_NAME = re.compile(r"[a-z0-9_]{1,63}")


@dataclass(frozen=True)
class CdcOptions:
    """What the user asked for; the fields are the module's options."""

    publication: str
    slot: str
    plugin: str
    replica_identity: str

    def check(self) -> None:
        """Refuse names that the server would refuse half way.

        :raises AuditError: naming the option.
        """
        if self.slot and not _SLOT_NAME.fullmatch(self.slot):
            raise AuditError(f"slot: {self.slot!r} is not made of up to 63 lower-case letters, digits and underscores")


@dataclass(frozen=True)
class Publication:
    """A publication as the server has it.

    :ivar members: its tables; true where it leaves out rows or columns of one.
    :ivar everything: it publishes whole schemas, or all tables.
    """

    comment: str
    everything: bool
    options_right: bool
    members: Mapping[Key, bool]

    @property
    def ours(self) -> bool:
        return self.comment.startswith(MARK)

    @property
    def memory(self) -> dict[Key, Identity]:
        """The replica identities that tables had before us."""
        if not self.ours:
            return {}
        return {(schema, name): Identity(*rest) for schema, name, *rest in json.loads(self.comment[len(MARK) :])}


@dataclass(frozen=True)
class CdcCatalog:
    """What the database has.

    :ivar tables: every table, and :ivar identities: the replica identity of each.
    :ivar slot: the row of pg_replication_slots, or None; :ivar slot_ready: whether the server could make one now.
    :ivar others: whether there are other publications of ours.
    """

    database: str
    tables: Mapping[Key, PgTable]
    identities: Mapping[Key, Identity]
    publication: Publication | None
    slot: Mapping[str, Any] | None
    slot_ready: bool
    others: bool = False


def require_ours(options: CdcOptions, catalog: CdcCatalog) -> None:
    """Refuse a publication or slot of that name that somebody else uses.

    :raises AuditError: naming it, and what it is.
    """
    publication, slot = catalog.publication, catalog.slot
    if publication and not publication.ours:
        raise AuditError(
            f"{catalog.database}: the publication {options.publication!r} is there and was not made by dbfleet.audit; "
            "name another one with `publication`"
        )
    if publication and publication.everything:
        raise AuditError(
            f"{catalog.database}: the publication {options.publication!r} has got whole schemas by other hands; take "
            "them out: ALTER PUBLICATION ... DROP TABLES IN SCHEMA ..."
        )
    if slot and (slot["plugin"], slot["database"]) != (options.plugin, catalog.database):
        what = f"plugin {slot['plugin']}, database {slot['database']}" if slot["plugin"] else "for physical replication"
        raise AuditError(
            f"{catalog.database}: the replication slot {options.slot!r} is another one ({what}); name another one with "
            "`slot`: slots belong to the whole server"
        )


def plan_present(options: CdcOptions, catalog: CdcCatalog, choice: Choice, plan: Plan) -> None:
    """Add what makes the publication have these tables, with their whole old rows, and then the slot."""
    memory = _memory(options, catalog, choice)
    _plan_publication(options, catalog, memory, plan)
    members = catalog.publication.members if catalog.publication else {}
    for key in [key for key in members if key not in choice.tables]:
        _plan_leaving(options, catalog, key, plan)
    for key in choice.tables:
        transaction = plan.transaction(".".join(key))
        if options.replica_identity == "full":
            _plan_full(transaction, key, catalog)
        _plan_membership(transaction, options, key, members)
    if options.slot and catalog.slot is None and catalog.slot_ready:
        statement = sql(
            _CREATE_SLOT, slot=Literal(options.slot), plugin=Literal(options.plugin), wait=Literal(SLOT_WAIT)
        )
        plan.transaction(f"slot {options.slot}", alone=True).add(
            statement, f"replication slot {options.slot} is missing", "missing"
        )


def plan_leaving(options: CdcOptions, catalog: CdcCatalog, plan: Plan) -> None:
    """Add what drops the slot, and takes every table out of the publication, as it was before."""
    if catalog.slot:
        statement = sql("SELECT pg_drop_replication_slot({slot})", slot=Literal(options.slot))
        plan.transaction(f"slot {options.slot}", required=True, alone=True).add(
            statement, f"replication slot {options.slot} goes, and with it the WAL that it keeps"
        )
    for key in catalog.publication.members if catalog.publication else ():
        _plan_leaving(options, catalog, key, plan)


def plan_end(options: CdcOptions, catalog: CdcCatalog, plan: Plan) -> None:
    """Add what drops the publication; the memory of replica identities goes with it."""
    if catalog.publication:
        statement = sql("DROP PUBLICATION {publication}", publication=Identifier.of(options.publication))
        plan.transaction(f"publication {options.publication}").add(statement, f"publication {options.publication} goes")


def _memory(options: CdcOptions, catalog: CdcCatalog, choice: Choice) -> dict[Key, Identity]:
    """Return the replica identities to remember, of all tables that this run leaves or gives the whole row."""
    publication = catalog.publication
    old = publication.memory if publication else {}
    members = publication.members if publication else {}
    kept = {part for key in members for part in tree(key, catalog.tables)}
    memory = {key: identity for key, identity in old.items() if key in kept}
    if options.replica_identity == "full":
        for key in choice.tables:
            for part in tree(key, catalog.tables):
                identity = catalog.identities[part]
                if identity.kind != FULL:
                    memory[part] = Identity(identity.kind, identity.index)
    return memory


def _plan_publication(options: CdcOptions, catalog: CdcCatalog, memory: Mapping[Key, Identity], plan: Plan) -> None:
    place = {"publication": Identifier.of(options.publication)}
    transaction = plan.transaction(f"publication {options.publication}", required=True)
    if catalog.publication is None:
        transaction.add(
            sql(f"CREATE PUBLICATION {{publication}} WITH ({_PUBLISH})", **place),
            f"publication {options.publication} is missing",
            "missing",
        )
    elif not catalog.publication.options_right:
        transaction.add(
            sql(f"ALTER PUBLICATION {{publication}} SET ({_PUBLISH})", **place),
            f"publication {options.publication} does not publish every change under the root's name",
            "altered",
        )
    old = catalog.publication.memory if catalog.publication else None
    # What is no longer needed is no reason to write.
    if old is None or any(old.get(key) != identity for key, identity in memory.items()):
        entries = [[*key, identity.kind, identity.index] for key, identity in memory.items()]
        comment = Literal(MARK + json.dumps(entries, ensure_ascii=False))
        transaction.add(
            sql("COMMENT ON PUBLICATION {publication} IS {comment}", comment=comment, **place),
            "the publication is ours, and knows the replica identities that tables had",
        )


def _plan_full(transaction: Transaction, key: Key, catalog: CdcCatalog) -> None:
    for part in tree(key, catalog.tables):
        if catalog.identities[part].kind != FULL:
            transaction.add(
                _identity(part, Identity(FULL)),
                f"{'.'.join(part)}: the WAL lacks old rows (REPLICA IDENTITY)",
                "altered",
            )


def _plan_membership(transaction: Transaction, options: CdcOptions, key: Key, members: Mapping[Key, bool]) -> None:
    place = {"publication": Identifier.of(options.publication), "table": Identifier.of(*key)}
    if members.get(key):
        transaction.add(
            sql("ALTER PUBLICATION {publication} DROP TABLE ONLY {table}", **place),
            f"{'.'.join(key)}: the publication leaves out some of its rows or columns",
            "altered",
        )
    if members.get(key, True):
        transaction.add(
            sql("ALTER PUBLICATION {publication} ADD TABLE ONLY {table}", **place),
            f"{'.'.join(key)} is not published whole",
            "missing",
        )


def _plan_leaving(options: CdcOptions, catalog: CdcCatalog, key: Key, plan: Plan) -> None:
    transaction = plan.transaction(".".join(key))
    transaction.add(
        sql(
            "ALTER PUBLICATION {publication} DROP TABLE ONLY {table}",
            publication=Identifier.of(options.publication),
            table=Identifier.of(*key),
        ),
        f"{'.'.join(key)} is published and is not to be",
        "altered",
    )
    memory = catalog.publication.memory if catalog.publication else {}
    for part in tree(key, catalog.tables):
        if part in memory and catalog.identities[part].kind == FULL:
            transaction.add(_identity(part, memory[part]), f"{'.'.join(part)} gets its replica identity back")


def _identity(key: Key, identity: Identity) -> Sql:
    table = Identifier.of(*key)
    if identity.kind == "i":
        index = Identifier.of(identity.index)
        return sql("ALTER TABLE {table} REPLICA IDENTITY USING INDEX {index}", table=table, index=index)
    return sql(f"ALTER TABLE {{table}} REPLICA IDENTITY {_IDENTITIES[identity.kind]}", table=table)


def explained(failures: Sequence[Failure]) -> list[Failure]:
    """Say of a slot that could not be made what it has waited for."""
    waited = f"the transactions that ran when it began did not end in {SLOT_WAIT} (pg_stat_activity, pg_prepared_xacts)"
    return [
        replace(failure, explanation=waited)
        if failure.code == "55P03" and failure.subject.startswith("slot ")
        else failure
        for failure in failures
    ]
