# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What pgaudit and the log of connections are to be on a server against what they are, as a plan. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._core.errors import AuditError
from .._core.plan import Plan
from .._core.sql import Identifier, Literal, Sql, sql
from .pgaudit_before import Before
from .pgaudit_settings import PREFIX, meaning, shows_parameters
from .settings import ABOVE_FILES, Line, place_of, require_patroni_counts

#: From here on, ALTER SYSTEM takes a setting of a library that is not loaded.
_TAKES_UNKNOWN = 170000

#: Where pgaudit's settings can be overridden: (database, role), either of them None.
Scope = tuple[Any, Any]


@dataclass(frozen=True)
class ServerCatalog:
    """What the server has.

    :ivar lines: what the configuration files say of pgaudit and of the log of connections, in the order of reading.
    :ivar sources: where a setting's value came from, in the words of pg_settings, by name.
    :ivar current: values in force, by name.
    :ivar scoped: settings of databases and roles, by scope and name.
    :ivar loaded: the library runs.
    :ivar object_role: what there is of the role for object auditing, None when it does not exist.
    :ivar silencers: roles, no superusers, that may change pgaudit's settings for themselves.
    :ivar messages: the settings that say what of a message gets into the server's log, and where.
    :ivar patroni: name of the Patroni cluster that the server is a member of, empty where it is of none.
    :ivar before: what there was before the first rollout; None where there was none.
    """

    version_number: int
    in_recovery: bool
    superuser: bool
    creates_roles: bool
    loaded: bool
    lines: Sequence[Line]
    sources: Mapping[str, str]
    current: Mapping[str, str]
    scoped: Mapping[Scope, Mapping[str, str]]
    object_role: Mapping[str, Any] | None
    silencers: Sequence[str]
    messages: Mapping[str, str]
    patroni: str = ""
    before: Before | None = None

    @property
    def remembers(self) -> bool:
        """Whether what there was before the first rollout is kept: by ALTER SYSTEM, which has no say under Patroni."""
        return self.superuser and not self.patroni

    @property
    def forgetful(self) -> bool:
        """Whether what there is has yet to be kept."""
        return self.remembers and self.before is None

    @property
    def object_role_used(self) -> str:
        """Why the role for object auditing is somebody's to use, in words; empty where it is nobody's."""
        if not self.object_role:
            return ""
        if self.object_role["login"]:
            return "can log in"
        return f"has members ({', '.join(self.object_role['members'])})" if self.object_role["members"] else ""

    def lines_of(self, name: str) -> list[Line]:
        return [line for line in self.lines if line.name == name]


@dataclass(frozen=True)
class ServerOptions:
    """What is to be there, as full names and text.

    :ivar cluster: settings of the whole server; those of pgaudit that are not among them go.
    :ivar scoped: settings of databases and of roles; all others of pgaudit go.
    :ivar object_role: name of the role for object auditing, empty where there is to be none.
    :ivar returned: other settings that go back to what they are without us.
    """

    cluster: Mapping[str, str]
    scoped: Mapping[Scope, Mapping[str, str]]
    object_role: str = ""
    returned: Sequence[str] = ()


@dataclass
class ServerPlan:
    """The plan, and what a person wants to know about it."""

    plan: Plan = field(default_factory=Plan)
    #: Differences that this login cannot remove.
    unmet: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    limitations: list[str] = field(default_factory=list)
    #: What the configuration of the Patroni cluster has to have; None stands for a parameter that is not to be there.
    patroni_parameters: dict[str, str | None] = field(default_factory=dict)


def plan_server(options: ServerOptions, catalog: ServerCatalog) -> ServerPlan:
    """Plan what belongs to the whole server; what a standby gets from its primary is left out there."""
    result = ServerPlan()
    if not catalog.superuser:
        _compare(result, options, catalog)
        if not catalog.in_recovery and catalog.creates_roles:
            _plan_object_role(result, options, catalog)
        return result
    if catalog.patroni:
        _compare_patroni(result, options, catalog)
    else:
        _plan_cluster(result, options, catalog)
    if not catalog.in_recovery:
        _plan_object_role(result, options, catalog)
        _plan_scopes(result.plan, options, catalog)
    return result


def _compare(result: ServerPlan, options: ServerOptions, catalog: ServerCatalog) -> None:
    """Say what somebody else has to set, for a login that may not."""
    if options.cluster and not catalog.loaded:
        result.unmet.append("the server has not loaded pgaudit")
    for name, text in options.cluster.items():
        current = catalog.current.get(name)
        if current is not None and not same(name, current, text):
            result.unmet.append(f"{name} is {current!r}, to be {text!r}")
    scopes = Plan()
    _plan_scopes(scopes, options, catalog)
    result.unmet += scopes.differences()
    if result.unmet:
        told = ", ".join(f"{name} = {text!r}" for name, text in options.cluster.items())
        result.limitations.append(
            f"pgaudit's settings are a superuser's to change, and this login is none; in the service's own parameters, "
            f"load pgaudit and set {told}"
        )


def _compare_patroni(result: ServerPlan, options: ServerOptions, catalog: ServerCatalog) -> None:
    """Say what the cluster's configuration has to have; what ALTER SYSTEM sets counts on one member alone."""
    unasked = {line.name: line for line in catalog.lines if _unasked(line, options)}
    wrong = {
        name
        for name, text in options.cluster.items()
        if (lines := catalog.lines_of(name)) and not same(name, lines[-1].text, text)
    }
    require_patroni_counts([line for line in catalog.lines if line.name in wrong or line.name in unasked])
    compared = ServerPlan()
    _plan_cluster(compared, options, catalog)
    result.unmet += compared.plan.differences()
    result.unmet += [
        f"{name} is {line.text!r} ({place_of([line])}), and not asked for" for name, line in unasked.items()
    ]
    result.patroni_parameters = {**options.cluster, **dict.fromkeys(unasked)}


def _unasked(line: Line, options: ServerOptions) -> bool:
    return line.name.startswith(PREFIX) and line.name not in options.cluster


def _plan_cluster(result: ServerPlan, options: ServerOptions, catalog: ServerCatalog) -> None:
    for name, text in options.cluster.items():
        lines = catalog.lines_of(name)
        if not (lines and same(name, lines[-1].text, text)):
            _plan_setting(result.plan, catalog, name, text)
    for name in dict.fromkeys(line.name for line in catalog.lines if line.name not in options.cluster):
        if name.startswith(PREFIX) or name in options.returned:
            _plan_unasked(result, catalog.lines_of(name))
    if result.plan:
        result.plan.transaction("reload", alone=True).add(sql("SELECT pg_reload_conf()"), "for the settings to count")


def _plan_setting(plan: Plan, catalog: ServerCatalog, name: str, text: str) -> None:
    source = catalog.sources.get(name, "")
    if source in ABOVE_FILES:
        raise AuditError(
            f"{name} is given to the server by its {source}, which no configuration file overrides; change it there to "
            f"{text!r}"
        )
    lines = catalog.lines_of(name)
    current = f"{lines[-1].text!r} ({place_of(lines)})" if lines else "not set"
    transaction = plan.transaction(name, alone=True)
    if name.startswith(PREFIX) and not catalog.loaded and catalog.version_number < _TAKES_UNKNOWN:
        transaction.add(sql(f"SET {name} = {{value}}", value=Literal(text)), "for ALTER SYSTEM to know the setting")
    transaction.add(
        sql(f"ALTER SYSTEM SET {name} = {{value}}", value=Literal(text)),
        f"{name} is {current}, to be {text!r}",
        "altered",
    )


def _plan_unasked(result: ServerPlan, lines: Sequence[Line]) -> None:
    """Take away what ALTER SYSTEM has set; what a person has written into a file stays, and is named."""
    name = lines[0].name
    written = [line for line in lines if not line.automatic]
    if len(written) < len(lines):
        result.plan.transaction(name, alone=True).add(
            sql(f"ALTER SYSTEM RESET {name}"),
            f"{name} is {lines[-1].text!r} ({place_of(lines)}), and no longer asked for",
            "altered",
        )
    if written:
        result.warnings.append(
            f"{name} is {written[-1].text!r} in {place_of(written)} and not among the settings: it stays"
        )


def _plan_scopes(plan: Plan, options: ServerOptions, catalog: ServerCatalog) -> None:
    for scope in sorted({*options.scoped, *catalog.scoped}, key=str):
        wanted, current = options.scoped.get(scope, {}), catalog.scoped.get(scope, {})
        transaction = plan.transaction(describe(scope))
        for name, text in current.items():
            if name not in wanted:
                reason = f"{name} of {describe(scope)} is {text!r}, and not asked for"
                transaction.add(sql("{alter} RESET " + name, alter=_alter(scope)), reason, "altered")
        for name, text in wanted.items():
            if name not in current or not same(name, current[name], text):
                reason = f"{name} of {describe(scope)} is {_quoted(current.get(name))}, to be {text!r}"
                statement = sql("{alter} SET " + name + " = {value}", alter=_alter(scope), value=Literal(text))
                transaction.add(statement, reason, "altered")


def describe(scope: Scope) -> str:
    """Return a scope in words."""
    database, role = scope
    if role is None:
        return f"database {database}" if database else "all roles"
    return f"role {role}" + (f" in database {database}" if database else "")


def _alter(scope: Scope) -> Sql:
    database, role = scope
    if role is None:
        return sql("ALTER DATABASE {name}", name=Identifier.of(database)) if database else sql("ALTER ROLE ALL")
    statement = sql("ALTER ROLE {name}", name=Identifier.of(role))
    if database:
        return sql("{role} IN DATABASE {name}", role=statement, name=Identifier.of(database))
    return statement


def _plan_object_role(result: ServerPlan, options: ServerOptions, catalog: ServerCatalog) -> None:
    """Plan the role whose grants say what is recorded. Nobody may have these grants for anything else."""
    name = options.object_role
    if not name:
        return
    if catalog.object_role is None:
        result.plan.transaction(f"role {name}", required=True).add(
            sql("CREATE ROLE {name} NOLOGIN", name=Identifier.of(name)),
            f"there is no role {name} to audit objects by",
            "missing",
        )
    elif catalog.object_role_used:
        raise AuditError(
            f"the role {name} {catalog.object_role_used}: the grants that say which objects are audited would "
            "be rights of theirs; name a role that nobody uses as `role` in the settings"
        )


def warnings(options: ServerOptions, catalog: ServerCatalog) -> list[str]:
    """Return what would make the log say too much or too little, in words."""
    found = []
    exposed = _exposed(options)
    if exposed:
        found.append(
            f"pgaudit.log_parameter is on for {', '.join(exposed)}: the server's log will show parameters of "
            "statements in clear, values of redacted columns among them; turn it off, or let nobody read that log who "
            "may not see them"
        )
    if catalog.silencers:
        found.append(
            f"{', '.join(catalog.silencers)} may turn pgaudit off for themselves (GRANT SET ON PARAMETER pgaudit.*); "
            "REVOKE it unless that is meant"
        )
    return [*found, *_message_warnings(options, catalog)]


def _exposed(options: ServerOptions) -> list[str]:
    scopes = {"the whole server": dict(options.cluster)}
    scopes.update({describe(scope): {**options.cluster, **own} for scope, own in options.scoped.items()})
    return [name for name, settings in scopes.items() if shows_parameters(settings)]


def _message_warnings(options: ServerOptions, catalog: ServerCatalog) -> list[str]:
    if not options.cluster:
        return []
    found = []
    threshold = catalog.messages["log_min_messages"]
    if threshold in ("fatal", "panic"):
        found.append(f"log_min_messages is {threshold}, which keeps pgaudit's lines out of the log; set it to warning")
    prefix = options.cluster.get("log_line_prefix", catalog.messages["log_line_prefix"])
    lacking = [what for marks, what in _PREFIX_MARKS.items() if not any(mark in prefix for mark in marks.split())]
    plain = {part.strip() for part in catalog.messages["log_destination"].split(",")} & {"stderr", "syslog"}
    if lacking and plain:
        found.append(
            f"log_line_prefix is {prefix!r}: the log does not say {', '.join(lacking)} of a line; "
            "'%m [%p] %q%u@%d %h %a ' does"
        )
    return found


#: What a line of the log is worth little without.
_PREFIX_MARKS = {"%m %t %n": "the time", "%u": "the user", "%d": "the database", "%p %c": "the process"}


def plan_object_role_removal(name: str, catalog: ServerCatalog) -> Plan:
    """Plan the end of the role for object auditing, once it has no grants; one that others use, or made, stays."""
    plan = Plan()
    made = catalog.before is not None and not catalog.before.object_role
    if catalog.object_role and not catalog.object_role_used and (made or not catalog.remembers):
        plan.transaction(f"role {name}").add(
            sql("DROP ROLE {name}", name=Identifier.of(name)), f"no object is audited by the role {name} any more"
        )
    return plan


def same(name: str, current: str, wanted: str) -> bool:
    """Tell whether a setting is as it is wanted, whatever the words."""
    if name == "log_connections":
        # More than was asked for is no difference.
        stages = _stages(wanted)
        return stages <= _stages(current) if stages else not _stages(current)
    if name.startswith(PREFIX) or name == "log_disconnections":
        return bool(meaning(name, current) == meaning(name, wanted))
    return current == wanted


#: What log_connections names from PostgreSQL 18 on; the switch that it was before stands for the first three.
_STAGES = ("receipt", "authentication", "authorization", "setup_durations")


def _stages(text: str) -> frozenset[str]:
    names = {part.strip().lower() for part in text.split(",")}
    if names & {"on", "true", "yes", "1"}:
        return frozenset(_STAGES[:3])
    return frozenset(_STAGES) if "all" in names else frozenset(names & set(_STAGES))


def _quoted(text: str | None) -> str:
    return "not set" if text is None else repr(text)
