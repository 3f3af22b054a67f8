# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that installs, repairs or removes the trail: log, functions, guards, grants."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from .._core.plan import Plan, Transaction
from .._core.sql import Identifier, Literal, Quoter, sql
from . import trail_tables as tables
from .canonical import leaf
from .event_triggers import plan_event_triggers
from .function import Function, plan_functions
from .grants import plan_column_revokes, plan_grants
from .partition_functions import AHEAD_SETTING, DEFAULT_AHEAD, DEFAULT_INTERVAL, INTERVAL_SETTING
from .roles import OWNER, READER, ROLES, WRITER
from .trail_catalog import TrailCatalog
from .trail_functions import trail_functions
from .trail_options import MARK, TrailOptions, check

# Roles belong to the cluster, our lock to one database: a run in another one may make the same role at this moment.
_CREATE_ROLE = """
DO $dbfleet$
BEGIN
  CREATE ROLE {role} NOLOGIN;
  COMMENT ON ROLE {role} IS {text};
EXCEPTION WHEN duplicate_object OR unique_violation THEN
  NULL;
END
$dbfleet$
"""

# pg_trigger.tgtype: ROW 1, BEFORE 2, INSERT 4, DELETE 8, UPDATE 16, TRUNCATE 32 (PostgreSQL, catalog/pg_trigger.h).
_STATEMENT_GUARD_TYPE = 2 + 8 + 16 + 32
_ROW_GUARD_TYPE = 1 + 2 + 8 + 16


#: Tables that readers may read besides the log and its views.
READABLE = ("policy", "setting", "catalog_snapshot", "seal", "seal_state", "seal_inventory")


def plan_trail(options: TrailOptions, catalog: TrailCatalog, quoter: Quoter) -> Plan:
    """Return what makes the trail as asked.

    :raises AuditError: when something there is not ours, or a role or tablespace that the options name is missing.
    """
    check(options, catalog)
    plan = Plan()
    builder = _Builder(options, catalog, quoter, plan.transaction(f"trail {options.schema}", required=True))
    builder.roles()
    builder.pgaudit()
    builder.tablespace()
    builder.schema()
    functions = trail_functions(options, catalog.login.version_number)
    builder.tables()
    builder.functions(functions)
    builder.views()
    builder.guards()
    builder.grants()
    builder.event_triggers()
    builder.snapshot()
    _plan_retired(plan, options.schema, catalog)
    return plan


def _plan_retired(plan: Plan, schema: str, catalog: TrailCatalog) -> None:
    """Take off the log what earlier versions put on it; by itself, because it waits for writers and they for it."""
    found = (catalog.relations.get("audit_log_data") or {}).get("constraints") or []
    steps = plan.transaction(f"{schema}.audit_log_data")
    for name in tables.RETIRED_CONSTRAINTS:
        if name in found:
            places = {"log": Identifier.of(schema, "audit_log_data"), "name": Identifier.of(name)}
            statement = sql("ALTER TABLE {log} DROP CONSTRAINT {name}", **places)
            steps.add(statement, f"constraint {name} is one of an earlier version, and slows every change", "altered")


class _Builder:
    """Adds the steps of one object class after the other to the trail's single transaction."""

    def __init__(self, options: TrailOptions, catalog: TrailCatalog, quoter: Quoter, steps: Transaction) -> None:
        self.options = options
        self.catalog = catalog
        self.quoter = quoter
        self.steps = steps
        self.place = {"schema": Identifier.of(options.schema)}

    def roles(self) -> None:
        for name, purpose in ROLES.items():
            role = {"role": Identifier.of(name)}
            current = self.catalog.roles.get(name)
            if current is None:
                comment = Literal(f"{MARK}: {purpose}")
                self.steps.add(sql(_CREATE_ROLE, text=comment, **role), f"role {name} is missing", "missing")
            elif current["login"] or current["superuser"]:
                # Only a superuser may as much as mention the attribute.
                attributes = sql("NOLOGIN NOSUPERUSER" if self.catalog.login.superuser else "NOLOGIN")
                self.steps.add(
                    sql("ALTER ROLE {role} {attributes}", attributes=attributes, **role),
                    f"role {name} can log in or is a superuser",
                    "altered",
                )
            if name != READER:
                self._members(name, (current or {}).get("members") or [])

    def _members(self, name: str, members: Sequence[tuple[str, str]]) -> None:
        """Keep everybody out of a role but a login that needs it; limitations() says what that costs."""
        login = self.catalog.login
        role = {"role": Identifier.of(name)}
        for member, grantor in members:
            if login.superuser or member != login.name:
                # Since PostgreSQL 16 a membership is one of several: each by its grantor, with what was built on it.
                granted = sql(" GRANTED BY {grantor} CASCADE", grantor=Identifier.of(grantor))
                self.steps.add(
                    sql(
                        "REVOKE {role} FROM {member}{granted}",
                        member=Identifier.of(member),
                        granted=granted if login.grants_options else sql(""),
                        **role,
                    ),
                    f"{member} is a member of {name} and must not be",
                    "grant",
                )
        if not login.acts_as(name):
            options = sql(" WITH INHERIT TRUE, SET TRUE" if login.grants_options else "")
            self.steps.add(
                sql("GRANT {role} TO CURRENT_USER{options}", options=options, **role),
                f"the login is no superuser, and makes what belongs to {name}",
            )

    def pgaudit(self) -> None:
        """Let the writer turn pgaudit off for itself; without this grant, the application's writes would fail."""
        if self.catalog.login.silences_pgaudit and not self.catalog.login.may_silence:
            self._add(
                "GRANT SET ON PARAMETER pgaudit.log TO {writer}",
                f"{WRITER} cannot keep pgaudit from logging the log's own rows",
                "grant",
                writer=Identifier.of(WRITER),
            )

    def tablespace(self) -> None:
        """Let the owner of the log make partitions there."""
        wanted = self.options.tablespace
        if wanted and self._tablespace_wanted() and OWNER not in (self.catalog.tablespaces[wanted]["grantees"] or []):
            self._add(
                "GRANT CREATE ON TABLESPACE {tablespace} TO {owner}",
                f"{OWNER} may not make partitions in tablespace {wanted}",
                "grant",
                tablespace=Identifier.of(wanted),
                owner=Identifier.of(OWNER),
            )

    def schema(self) -> None:
        if self.catalog.schema is None:
            self.steps.add(
                sql("CREATE SCHEMA {schema} AUTHORIZATION {owner}", owner=Identifier.of(OWNER), **self.place),
                f"schema {self.options.schema} is missing",
                "missing",
            )
        elif self.catalog.schema["owner"] != OWNER:
            self.steps.add(
                sql("ALTER SCHEMA {schema} OWNER TO {owner}", owner=Identifier.of(OWNER), **self.place),
                f"schema {self.options.schema} does not belong to {OWNER}",
                "altered",
            )
        if (self.catalog.schema or {}).get("comment") != MARK:
            self._add("COMMENT ON SCHEMA {schema} IS {mark}", "the schema is ours", mark=Literal(MARK))
        writers = (WRITER, READER, *self.options.readers, *self.options.applications)
        current = (self.catalog.schema or {}).get("acl") or []
        target = sql("SCHEMA {schema}", **self.place)
        plan_grants(self.steps, target, f"schema {self.options.schema}", dict.fromkeys(writers, "USAGE"), current)

    def tables(self) -> None:
        wanted = [("audit_log_id_seq", tables.SEQUENCE), ("audit_log_data", tables.LOG), *tables.TABLES.items()]
        missing = [(name, ddl) for name, ddl in wanted if name not in self.catalog.relations]
        indexes = {**tables.ID_INDEX, **{name: tables.INDEXES[name] for name in self.options.indexes}}
        indexes = {name: ddl for name, ddl in indexes.items() if not self._has_index(name)}
        if missing or indexes:
            # As the owner, so that nobody's default privileges apply to what is made here.
            self.steps.add(sql("SET LOCAL ROLE {owner}", owner=Identifier.of(OWNER)), "objects of the trail's owner")
            sequence = Literal(f"{self.quoter.identifier(self.options.schema)}.audit_log_id_seq")
            for name, ddl in missing:
                self._add(ddl, f"{name} is missing", "missing", sequence=sequence)
                for reason, more in tables.AFTER_TABLE.get(name, {}).items():
                    self._add(more, reason)
            if self._tablespace_wanted():
                self._add(
                    "SET LOCAL default_tablespace = {tablespace}",
                    "where the log's indexes and partitions go",
                    tablespace=Identifier.of(self.options.tablespace or ""),
                )
            for name, ddl in indexes.items():
                self._add(ddl, f"index {name} is missing", "missing")
            if not self.catalog.partitions():
                self._add(tables.CATCH_ALL, "a place for every row, whatever its time")
                self._add(tables.ATTACH_CATCH_ALL, "a place for every row, whatever its time")
            self.steps.add(sql("RESET ROLE"), "back to the login")
        self._tablespace()
        self._content()

    def _content(self) -> None:
        if not self.catalog.has_hash_key:
            self._add(tables.HASH_KEY, "there is no key for the digests of hashed columns", "missing")
        if not self.catalog.has_chain:
            self._add(tables.CHAIN, "the chain of seals has no name", "missing")
        for name, value in ((INTERVAL_SETTING, DEFAULT_INTERVAL), (AHEAD_SETTING, str(DEFAULT_AHEAD))):
            if name not in self.catalog.settings:
                self._add(
                    "INSERT INTO {schema}.setting (name, value) VALUES ({name}, {value})",
                    f"{name} is {value} until postgresql_audit_partitions says otherwise",
                    name=Literal(name),
                    value=Literal(value),
                )

    def functions(self, functions: Sequence[Function]) -> None:
        plan_functions(self.steps, self.options.schema, functions, self.catalog, self.quoter)

    def views(self) -> None:
        for name, ddl in tables.VIEWS.items():
            text = sql(ddl, leaf=leaf("d"), **self.place).render(self.quoter)
            digest = hashlib.sha256(text.encode()).hexdigest()
            current = self.catalog.relations.get(name)
            known = self.catalog.definitions.get(f"view {name}")
            if not (current and known == [digest, current["definition"]]):
                self._add(
                    ddl,
                    f"view {name} {'was altered' if current else 'is missing'}",
                    "altered" if current else "missing",
                    leaf=leaf("d"),
                )
                self._add(
                    tables.REMEMBER_VIEW,
                    f"view {name} as the server keeps it",
                    object=Literal(f"view {name}"),
                    digest=Literal(digest),
                    view=Literal(f"{self.quoter.identifier(self.options.schema)}.{name}"),
                )
            if current is None or current["owner"] != OWNER:
                self._own(name, "VIEW", current)

    def guards(self) -> None:
        for name in ["audit_log_data", *(self.catalog.partitions() or ["audit_log_future"])]:
            triggers = (self.catalog.relations.get(name) or {}).get("triggers") or {}
            table = {"table": Identifier.of(self.options.schema, name), **self.place}
            self._guard(name, "dbfleet_audit_guard", tables.STATEMENT_GUARD, _STATEMENT_GUARD_TYPE, triggers, table)
        root = (self.catalog.relations.get("audit_log_data") or {}).get("triggers") or {}
        table = {"table": Identifier.of(self.options.schema, "audit_log_data"), **self.place}
        self._guard("audit_log_data", "dbfleet_audit_row_guard", tables.ROW_GUARD, _ROW_GUARD_TYPE, root, table)
        for name in self.catalog.partitions():
            clone = (self.catalog.relations[name]["triggers"] or {}).get("dbfleet_audit_row_guard")
            if clone and clone["enabled"] != "A":
                self._enable(
                    name, "dbfleet_audit_row_guard", {"table": Identifier.of(self.options.schema, name)}, "disabled"
                )

    def _guard(
        self, table_name: str, trigger: str, ddl: str, kind: int, triggers: Mapping[str, Any], table: Mapping[str, Any]
    ) -> None:
        current = triggers.get(trigger)
        if not (current and current["function"] == "refuse_change" and current["type"] == kind):
            self._add(
                ddl,
                f"{table_name} does not refuse changes: {trigger} {'was altered' if current else 'is missing'}",
                "altered" if current else "missing",
                **table,
            )
            self._enable(table_name, trigger, table)
        elif current["enabled"] != "A":
            self._enable(table_name, trigger, table, "disabled")

    def _enable(self, table_name: str, trigger: str, table: Mapping[str, Any], problem: str | None = None) -> None:
        self._add(
            "ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}",
            f"{table_name}: {trigger} does not fire in every session",
            problem,
            table=table["table"],
            trigger=Identifier.of(trigger),
        )

    def grants(self) -> None:
        readers = (READER, *self.options.readers)
        select = dict.fromkeys(readers, "SELECT")
        wanted: dict[str, dict[str, str]] = dict.fromkeys((*tables.VIEWS, *READABLE), select)
        wanted["audit_log_data"] = {WRITER: "INSERT", **select}
        wanted["audit_log_id_seq"] = {WRITER: "USAGE"}
        wanted["hash_key"] = {WRITER: "SELECT"}
        names = dict.fromkeys([*self.catalog.relations, *wanted])
        for name in names:
            current = self.catalog.relations.get(name) or {}
            kind = sql("SEQUENCE" if name == "audit_log_id_seq" else "TABLE")
            relation = Identifier.of(self.options.schema, name)
            target = sql("{kind} {relation}", kind=kind, relation=relation)
            plan_grants(self.steps, target, name, wanted.get(name, {}), current.get("acl") or [])
            plan_column_revokes(self.steps, sql("{relation}", relation=relation), name, current.get("column_acl") or [])
            if current and current["owner"] != OWNER and name not in tables.VIEWS:
                self._own(name, "SEQUENCE" if name == "audit_log_id_seq" else "TABLE", current)

    def event_triggers(self) -> None:
        if not self.catalog.login.superuser:
            return
        login, current = self.catalog.login, self.catalog.event_triggers
        plan_event_triggers(self.steps, self.options.schema, self.options.events, current, login.version_number)

    def snapshot(self) -> None:
        """Take the first snapshot of what no event trigger sees, when all that this run makes is there."""
        if "ddl" in self.options.events and not self.catalog.has_snapshot:
            self._add("CALL {schema}.record_catalog_changes()", "roles, databases and settings as they are now")

    def _tablespace(self) -> None:
        wanted = self.options.tablespace
        current = self.catalog.relations.get("audit_log_data") or {"tablespace": None}
        if wanted and self._tablespace_wanted() and current["tablespace"] != wanted:
            self._add(
                "ALTER TABLE {schema}.audit_log_data SET TABLESPACE {tablespace}",
                f"new partitions do not go to tablespace {wanted}",
                "altered",
                tablespace=Identifier.of(wanted),
            )

    def _tablespace_wanted(self) -> bool:
        """Tell whether the log is to be kept elsewhere than the database, whose own tablespace has no name in it."""
        wanted = self.options.tablespace
        return bool(wanted) and not self.catalog.tablespaces[wanted]["default"]

    def _own(self, name: str, kind: str, current: Any) -> None:
        self._add(
            f"ALTER {kind} {{relation}} OWNER TO {{owner}}",
            f"{name} does not belong to {OWNER}",
            "altered" if current else None,
            relation=Identifier.of(self.options.schema, name),
            owner=Identifier.of(OWNER),
        )

    def _has_index(self, name: str) -> bool:
        relation = self.catalog.relations.get("audit_log_data") or {}
        return f"audit_log_{name}_idx" in (relation.get("indexes") or [])

    def _add(self, template: str, reason: str, problem: str | None = None, **arguments: Any) -> None:
        self.steps.add(sql(template, **{**self.place, **arguments}), reason, problem)
