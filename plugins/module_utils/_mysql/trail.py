# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that installs and repairs the trail: accounts, log, routines, guards, views, grants."""

from __future__ import annotations

import hashlib

from .._core.plan import Plan, Transaction
from .._core.policy import parse_policies
from .._core.sql import Identifier, Joined, Literal, Sql, sql
from . import trail_tables as tables
from .accounts import ACCOUNTS, CREATE_ACCOUNT, GRANT, LOCK_ACCOUNT, WRITER
from .canonical import digest
from .capture import Capture
from .column import Column
from .grants import plan_grants, plan_revokes, routine_rights, wanted_rights
from .partition_plan import AHEAD_SETTING, DEFAULT_AHEAD, DEFAULT_INTERVAL, INTERVAL_SETTING
from .routine import Routine
from .session import Session
from .trail_catalog import TrailCatalog
from .trail_functions import trail_routines
from .trail_options import TrailOptions, check
from .trigger import OPERATIONS, Trigger

_PROBE_COLUMNS = (Column("id", "int", None), Column("value", "text", "utf8mb4"))


def plan_trail(options: TrailOptions, catalog: TrailCatalog, session: Session) -> Plan:
    """Return what makes the trail as asked.

    :raises AuditError: when something there is not ours, or the server cannot have it.
    """
    check(options, catalog, session)
    plan = Plan()
    builder = _Builder(options, catalog, session, plan.transaction(f"trail {options.schema}", required=True))
    builder.accounts()
    builder.tables()
    builder.content()
    routines = trail_routines(options, session.vendor)
    builder.routines(routines)
    # Whatever runs with the rights of a definer gets them first; rights on views come when the views are there.
    rights = wanted_rights(options.readers, routines, builder.wanted_tables())
    plan_grants(builder.steps, [right for right in rights if right.name not in tables.VIEWS], catalog)
    builder.views()
    plan_grants(builder.steps, [right for right in rights if right.name in tables.VIEWS], catalog)
    plan_revokes(builder.steps, rights, catalog, session)
    for trigger in trail_triggers(options.schema, session):
        trigger.plan(builder.steps, catalog.triggers.get(trigger.table, {}).get(trigger.slot, []))
    return plan


def trail_triggers(schema: str, session: Session) -> list[Trigger]:
    """Return the guards of the log, and what records the changes of the probe."""
    guards = [
        Trigger((schema, tables.LOG), "BEFORE", event.lower(), tables.GUARD_BODY.format(event=event))
        for event in tables.GUARDS
    ]
    policy = parse_policies([{"tables": [f'"{schema}"."probe"'], "name": "probe"}], "probe")[0]
    capture = Capture(schema, (schema, "probe"), _PROBE_COLUMNS, _PROBE_COLUMNS[:1], policy, 0, session.is_mariadb)
    probes = [
        Trigger((schema, "probe"), "AFTER", operation, capture.body(operation).render(session))
        for operation in OPERATIONS
    ]
    return guards + probes


class _Builder:
    """Adds to one transaction what differs from the catalogue."""

    def __init__(self, options: TrailOptions, catalog: TrailCatalog, session: Session, steps: Transaction) -> None:
        self.options = options
        self.catalog = catalog
        self.session = session
        self.steps = steps
        self.place = {"schema": Identifier.of(options.schema)}

    def accounts(self) -> None:
        for account, purpose in ACCOUNTS.items():
            place = {"account": account.sql()}
            if account.grantee not in self.catalog.accounts:
                self.steps.add(sql(CREATE_ACCOUNT, **place), f"account {account} is missing: {purpose}", "missing")
            elif not self.catalog.locked[account]:
                self.steps.add(sql(LOCK_ACCOUNT, **place), f"account {account} can log in", "altered")

    def wanted_tables(self) -> dict[str, str]:
        return {
            name: statement
            for name, statement in tables.TABLES.items()
            if self.session.is_mariadb or name != tables.SEQUENCE
        }

    def tables(self) -> None:
        if not self.catalog.exists:
            statement = sql("CREATE DATABASE {schema} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", **self.place)
            self.steps.add(statement, f"database {self.options.schema} is missing", "missing")
        ids = sql(tables.IDS[self.session.vendor], **self.place)
        comment = Literal(tables.MARK)
        for name, statement in self.wanted_tables().items():
            if name not in self.catalog.tables:
                places = {"ids": ids, "comment": comment, **self.place}
                self.steps.add(sql(statement, **places), f"table {name} is missing", "missing")
        for name in self.options.indexes:
            if name not in self.catalog.indexes:
                self.steps.add(sql(tables.INDEXES[name], **self.place), f"index {name} is missing", "missing")

    def content(self) -> None:
        defaults = {INTERVAL_SETTING: DEFAULT_INTERVAL, AHEAD_SETTING: str(DEFAULT_AHEAD)}
        missing = [
            sql("({name}, {value})", name=Literal(name), value=Literal(value))
            for name, value in defaults.items()
            if name not in self.catalog.settings
        ]
        if missing:
            statement = sql(tables.DEFAULT_SETTINGS, rows=Joined(", ", tuple(missing)), **self.place)
            self.steps.add(statement, "settings of the partitions are missing", "missing")
        if not self.catalog.has_hash_key:
            self.steps.add(self._hash_key(), "the key of hashed columns is missing", "missing")
        if not self.catalog.has_chain:
            self.steps.add(sql(tables.CHAIN, **self.place), "the chain of seals has no name", "missing")

    def _hash_key(self) -> Sql:
        modern = not self.session.is_mariadb or self.session.version_number >= (10, 10)
        pads = {
            name: Joined(
                ", ",
                tuple(sql(tables.XOR_WORD, start=Literal(start), pad=sql(pad)) for start in range(1, 65, 16)),
            )
            for name, pad in tables.PADS.items()
        }
        random = sql(tables.RANDOM_KEY if modern else tables.OLD_RANDOM_KEY)
        return sql(tables.HASH_KEY, random=random, **pads, **self.place)

    def routines(self, routines: list[Routine]) -> None:
        schema = self.options.schema
        for routine in routines:
            current = self.catalog.routines.get(routine.name)
            difference = routine.difference(current, self.session)
            if not difference:
                continue
            reason = f"{routine.kind.lower()} {routine.name} {difference}"
            replaced = current if current and not self.session.is_mariadb else None
            if replaced:
                statement = sql(f"DROP {replaced['kind']} {{name}}", name=Identifier.of(schema, routine.name))
                self.steps.add(statement, reason)
            self.steps.add(routine.create(schema, self.session.is_mariadb), reason, "altered" if current else "missing")
            if replaced:
                # With a routine go the rights on it: at once, for triggers that run now need them.
                for right in routine_rights(routine):
                    self.steps.add(right.statement(GRANT, schema), f"{right.account} may execute {routine.name} again")

    def views(self) -> None:
        for name, template in tables.VIEWS.items():
            query = sql(template.strip(), digest=digest("d", self.session.vendor), **self.place)
            source = hashlib.sha256(query.render(self.session).encode()).hexdigest()
            current = self.catalog.views.get(name)
            known = self.catalog.definitions.get(name)
            same = (
                current is not None
                and known == [source, current["digest"]]
                and current["definer"] == str(WRITER)
                and current["security"] == "INVOKER"
            )
            if same:
                continue
            view = Identifier.of(self.options.schema, name)
            places = {"definer": WRITER.sql(), "view": view, "query": query}
            reason = f"view {name} is {'altered' if current else 'missing'}"
            self.steps.add(sql(tables.CREATE_VIEW, **places), reason, "altered" if current else "missing")
            self.steps.add(
                sql(
                    tables.REMEMBER_VIEW,
                    name=Literal(name),
                    digest=Literal(source),
                    schema_name=Literal(self.options.schema),
                    **self.place,
                ),
                f"what the server made of view {name}",
            )
