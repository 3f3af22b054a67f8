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
from functools import cached_property
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
# Or the server refuses UPDATE and DELETE of tables that have stored generated columns and give whole old rows.
_PUBLISH_GENERATED = f"{_PUBLISH}, publish_generated_columns = stored"
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

    def entries(self) -> dict[Key, Identity]:
        """Return the replica identities that tables had before us, under the names that they had then.

        :raises AuditError: where somebody else has written the comment that holds them.
        """
        if not self.ours:
            return {}
        try:
            return {
                (schema, name): Identity(kind, index, oid=int(next(iter(rest), 0)))
                for schema, name, kind, index, *rest in json.loads(self.comment[len(MARK) :])
            }
        except (ValueError, TypeError):
            raise AuditError(
                "the comment of the publication is not as dbfleet.audit wrote it, and it held the replica identities "
                f"that tables had; put it back, or forget them: COMMENT ON PUBLICATION ... IS '{MARK}[]'"
            ) from None


@dataclass(frozen=True)
class CdcCatalog:
    """What the database has.

    :ivar tables: every table, and :ivar identities: the replica identity of each.
    :ivar slot: the row of pg_replication_slots, or None; :ivar slot_ready: whether the server could make one now.
    :ivar others: other publications of ours.
    :ivar generated: whether publications of this server can have generated columns.
    """

    database: str
    tables: Mapping[Key, PgTable]
    identities: Mapping[Key, Identity]
    publication: Publication | None
    slot: Mapping[str, Any] | None
    slot_ready: bool
    others: Sequence[Publication] = ()
    generated: bool = False

    @cached_property
    def shared(self) -> dict[Key, Identity | None]:
        """What other publications of ours have as well, partitions too, with the replica identities that they know."""
        parts = {part: None for other in self.others for key in other.members for part in tree(key, self.tables)}
        entries = {key: identity for other in self.others for key, identity in other.entries().items()}
        return {part: entries.get(part) for part in parts}

    @cached_property
    def memory(self) -> dict[Key, Identity]:
        """The replica identities that tables had before us, under the names that they have now."""
        entries = self.publication.entries() if self.publication else {}
        names = {identity.oid: key for key, identity in self.identities.items() if identity.oid}
        # In a restored database a number is another table's, and that one has an entry under its own name.
        renamed = {key: names.get(identity.oid, key) for key, identity in entries.items()}
        return {key if renamed[key] in entries else renamed[key]: identity for key, identity in entries.items()}


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
    if publication:
        publication.entries()
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
    _plan_strays(catalog, [*members, *choice.tables], plan)
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
    members = catalog.publication.members if catalog.publication else {}
    for key in members:
        _plan_leaving(options, catalog, key, plan)
    _plan_strays(catalog, list(members), plan)


def plan_end(options: CdcOptions, catalog: CdcCatalog, plan: Plan) -> None:
    """Add what drops the publication; the memory of replica identities goes with it."""
    if catalog.publication:
        statement = sql("DROP PUBLICATION {publication}", publication=Identifier.of(options.publication))
        plan.transaction(f"publication {options.publication}").add(statement, f"publication {options.publication} goes")


def _memory(options: CdcOptions, catalog: CdcCatalog, choice: Choice) -> dict[Key, Identity]:
    """Return the replica identities to remember, of all tables that this run leaves or gives the whole row.

    A table that is asked for and not published yet is as its owner left it, whatever an earlier run has tried.
    """
    members = catalog.publication.members if catalog.publication else {}
    kept = {part for key in members for part in tree(key, catalog.tables)}
    fresh = {part for key in choice.tables for part in tree(key, catalog.tables)} - kept
    memory = {
        key: identity for key, identity in catalog.memory.items() if key in catalog.identities and key not in fresh
    }
    if options.replica_identity == "full":
        for key in choice.tables:
            for part in tree(key, catalog.tables):
                identity = catalog.identities[part]
                shared = catalog.shared.get(part)
                if identity.kind != FULL:
                    memory[part] = Identity(identity.kind, identity.index, oid=identity.oid)
                elif shared:
                    memory.setdefault(part, shared)
    return memory


def _plan_publication(options: CdcOptions, catalog: CdcCatalog, memory: Mapping[Key, Identity], plan: Plan) -> None:
    place = {"publication": Identifier.of(options.publication)}
    publish = _PUBLISH_GENERATED if catalog.generated else _PUBLISH
    transaction = plan.transaction(f"publication {options.publication}", required=True)
    if catalog.publication is None:
        transaction.add(
            sql(f"CREATE PUBLICATION {{publication}} WITH ({publish})", **place),
            f"publication {options.publication} is missing",
            "missing",
        )
    elif not catalog.publication.options_right:
        transaction.add(
            sql(f"ALTER PUBLICATION {{publication}} SET ({publish})", **place),
            f"publication {options.publication} does not publish every change under the root's name",
            "altered",
        )
    old = catalog.memory if catalog.publication else None
    # What is no longer needed is no reason to write.
    if old is None or any(old.get(key) != identity for key, identity in memory.items()):
        entries = [[*key, identity.kind, identity.index, identity.oid] for key, identity in memory.items()]
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
    _plan_back(transaction, catalog, tree(key, catalog.tables))


def _plan_strays(catalog: CdcCatalog, keys: Sequence[Key], plan: Plan) -> None:
    """Add what gives their replica identity back to tables that left by other hands, such as a detached partition."""
    known = {part for key in keys for part in tree(key, catalog.tables)}
    for key in catalog.memory:
        if key in catalog.identities and key not in known:
            _plan_back(plan.transaction(".".join(key)), catalog, [key])


def _plan_back(transaction: Transaction, catalog: CdcCatalog, parts: Sequence[Key]) -> None:
    memory = catalog.memory
    for part in parts:
        now = catalog.identities[part]
        if part not in memory or now.kind != FULL or part in catalog.shared:
            continue
        before = memory[part]
        if before.kind == "i" and before.index not in now.indexes:
            before = Identity("d")
        transaction.add(_identity(part, before), f"{'.'.join(part)} gets its replica identity back")


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
