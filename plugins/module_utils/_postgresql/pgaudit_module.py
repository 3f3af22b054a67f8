# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Planning and results of postgresql_pgaudit: the server, then each database that the options name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Callable

from .._core.errors import AuditError
from .._core.plan import Failure, Plan
from .module import PostgresqlModule
from .pgaudit import ServerCatalog, ServerOptions, ServerPlan, plan_object_role_removal, plan_server, warnings
from .pgaudit_before import Before, plan_forgetting, plan_remembering
from .pgaudit_catalog import ServerFacts, existing_roles, read_database, read_server, read_setting_names
from .pgaudit_objects import plan_extension, plan_extension_removal, plan_objects
from .pgaudit_options import PgauditOptions
from .pgaudit_probe import probe
from .pgaudit_settings import PREFIX
from .session import Session, connect

#: It lacks a right; or a role, which it may not make.
_FORBIDDEN = ("42501", "42704")


@dataclass(frozen=True)
class DatabasePlan:
    """What is to be done in one database, and what will then be there.

    :ivar objects: number of relations that are audited by object.
    """

    plan: Plan
    objects: int
    extension: str | None


def reconcile(module: PostgresqlModule, session: Session) -> None:
    """Bring a server and its databases to the options, and report what a person wants to know."""
    options = PgauditOptions.parse(module.params)
    facts = read_server(session, options)
    known = read_setting_names(session, facts.catalog)
    wanted = options.server(known, facts.databases, facts.roles)
    if not options.present:
        wanted = _as_before(session, wanted, facts)
    rollout = _Rollout(module, session, options, facts)
    # All of it is planned before any of it is done: what a later database refuses must not leave the first half done.
    server = plan_server(wanted, facts.catalog)
    databases = rollout.plan_databases()
    work = [
        lambda: rollout.reconcile_server(lambda catalog: plan_server(wanted, catalog).plan),
        lambda: rollout.reconcile_databases([name for name, planned in databases.items() if planned.plan]),
    ]
    extensions = {name: planned.extension for name, planned in databases.items() if planned.extension}
    if options.present:
        # A standby as well: it may be the primary by the time of the removal.
        had = list(rollout.extensions(options.databases(facts.databases)) if facts.catalog.forgetful else ())
        work.insert(0, lambda: rollout.reconcile_server(lambda catalog: _remembering(catalog, had)))
    else:
        extensions = rollout.staying_extensions()
        # What there was before is forgotten when all of it is back.
        work = [*reversed(work), rollout.reconcile_role]
    failures = [failure for step in work for failure in step()]
    if not (options.present or failures):
        failures = rollout.reconcile_server(lambda catalog: plan_forgetting(catalog.before))
    _report(module, wanted, server, facts, databases, extensions)
    # Only a superuser may have pgaudit's lines sent to the session as well.
    if options.params["self_test"] and facts.catalog.loaded and facts.catalog.superuser and not session.in_recovery:
        _report_probe(module, session)
    _report_failures(module, facts, failures)


@dataclass(frozen=True)
class _Rollout:
    """The databases' part of a run."""

    module: PostgresqlModule
    session: Session
    options: PgauditOptions
    facts: ServerFacts

    def plan_databases(self) -> dict[str, DatabasePlan]:
        names = self.options.databases(self.facts.databases)
        # A standby gets extensions and grants from its primary.
        if self.facts.catalog.in_recovery:
            return {}
        return {name: self._within(name, self._plan) for name in sorted(names | self.facts.with_object_grants)}

    def extensions(self, databases: Collection[str]) -> dict[str, str]:
        """Return the extension's version in each of these databases that has it."""

        def version(session: Session) -> str | None:
            return read_database(session, [], "").extension

        found = {name: self._within(name, version) for name in sorted(databases)}
        return {name: text for name, text in found.items() if text}

    def staying_extensions(self) -> dict[str, str]:
        """Return what will be left of them on the whole server.

        Where one is, no DDL works any more once the library is not loaded.
        """
        if not self.facts.catalog.superuser:
            return {}
        return {
            name: text
            for name, text in self.extensions(self.facts.databases).items()
            if not (self.options.extension_in(name) and self._made_extension(name))
        }

    def reconcile_server(self, planner: Callable[[ServerCatalog], Plan]) -> list[Failure]:
        """Bring a server, be it a standby, to a plan that needs no more than its own catalogue."""
        return self.module.reconcile(
            self.session, lambda s: planner(read_server(s, self.options).catalog), on_replica=True
        )

    def reconcile_role(self) -> list[Failure]:
        if self.session.in_recovery:
            return []
        name = self.options.object_role
        return self.module.reconcile(
            self.session, lambda s: plan_object_role_removal(name, read_server(s, self.options).catalog)
        )

    def reconcile_databases(self, names: Sequence[str]) -> list[Failure]:
        def reconcile_one(session: Session) -> list[Failure]:
            return self.module.reconcile(session, lambda s: self._plan(s).plan)

        return [failure for name in names for failure in self._within(name, reconcile_one)]

    def _within(self, name: str, work: Callable[[Session], Any]) -> Any:
        # Another session of ours in the same database would wait for the lock that this one may hold.
        if name == self.session.database:
            return work(self.session)
        with closing(connect({**self.module.params, "login_db": name})) as session:
            return work(session)

    def _plan(self, session: Session) -> DatabasePlan:
        name, options = session.database, self.options
        objects = options.objects_in(name)
        # What a role that somebody uses has been granted is no audit of ours.
        role = "" if self.facts.catalog.object_role_used else options.object_role
        catalog = read_database(session, [entry.pattern for entry in objects], role)
        plan = Plan()
        extension = catalog.extension
        if options.extension_in(name) and options.present:
            loaded = self.facts.catalog.loaded or options.params["assume_loaded"]
            extension = plan_extension(plan, name, catalog, options.params["extension_schema"], loaded)
        elif options.extension_in(name) and self._made_extension(name):
            plan_extension_removal(plan, name, catalog)
        number = plan_objects(plan, objects, options.object_role, name, catalog)
        return DatabasePlan(plan, number, extension)

    def _made_extension(self, database: str) -> bool:
        """Tell whether the extension came with a rollout; of what a lesser login has made, nothing is known."""
        before = self.facts.catalog.before
        return not self.facts.catalog.remembers or (before is not None and database not in before.extensions)


def _remembering(catalog: ServerCatalog, extensions: Sequence[str]) -> Plan:
    """Plan to keep what there is, before the first rollout changes any of it."""
    if not catalog.forgetful:
        return Plan()
    automatic = {line.name: line.text for line in catalog.lines if line.automatic}
    return plan_remembering(Before(automatic, catalog.scoped, extensions, catalog.object_role is not None))


def _as_before(session: Session, wanted: ServerOptions, facts: ServerFacts) -> ServerOptions:
    """Return the options that bring back what there was; without a rollout, what there is."""
    catalog, before = facts.catalog, facts.catalog.before
    if not catalog.remembers:
        return wanted
    if before is None:
        return ServerOptions({line.name: line.text for line in catalog.lines}, catalog.scoped)
    cluster = {
        name: text for name, text in before.cluster.items() if name.startswith(PREFIX) or name in wanted.returned
    }
    roles = existing_roles(session, [role for _database, role in before.scoped if role])
    scoped = {
        (database, role): own
        for (database, role), own in before.scoped.items()
        if (database is None or database in facts.databases) and (role is None or role in roles)
    }
    return ServerOptions(cluster, scoped, returned=wanted.returned)


def _report(
    module: PostgresqlModule,
    wanted: ServerOptions,
    server: ServerPlan,
    facts: ServerFacts,
    databases: Mapping[str, DatabasePlan],
    extensions: Mapping[str, str],
) -> None:
    # What a login may not set is what somebody else has set.
    settings = wanted.cluster if facts.catalog.superuser else facts.catalog.current
    module.results.update(
        loaded=facts.catalog.loaded,
        differences=server.unmet
        + server.plan.differences()
        + [text for planned in databases.values() for text in planned.plan.differences()],
        recorded=[],
        settings={name: text for name, text in settings.items() if name.startswith(PREFIX)},
        extensions=dict(extensions),
        objects=sum(planned.objects for planned in databases.values()),
        limitations=server.limitations,
        patroni_parameters=server.patroni_parameters,
    )
    for warning in [
        *server.warnings,
        *(warnings(wanted, facts.catalog) if module.params["state"] == "present" else ()),
    ]:
        module.warn(warning)


def _report_probe(module: PostgresqlModule, session: Session) -> None:
    recorded, missed = probe(session)
    module.results["recorded"] = recorded
    module.results["differences"] += [
        f"pgaudit does not log class {name}, although pgaudit.log names it" for name in missed
    ]


def _report_failures(module: PostgresqlModule, facts: ServerFacts, failures: list[Failure]) -> None:
    """Name what was left as it was; what the login may not do is a limit of the login, not a failure.

    :raises AuditError: when anything else failed.
    """
    forbidden = [entry for entry in failures if entry.code in _FORBIDDEN and not facts.catalog.superuser]
    module.results["limitations"] += [f"{entry.subject}: {entry.explanation}" for entry in forbidden]
    failed = [f"{entry.subject} ({entry.explanation})" for entry in failures if entry not in forbidden]
    if failed:
        raise AuditError(f"{len(failed)} changes failed, the rest is done: {'; '.join(failed)}")
