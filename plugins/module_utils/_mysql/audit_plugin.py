# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables of MariaDB's server_audit: what the user asked for, and the statements that bring it about. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

from .._core.errors import AuditError
from .._core.plan import Plan
from .._core.sql import Identifier, Literal, Sql, sql

PLUGIN = "server_audit"
PREFIX = f"{PLUGIN}_"
PERMANENT = "FORCE_PLUS_PERMANENT"

#: Set once, each does something and leaves nothing behind that could be compared.
_ACTIONS = ("file_rotate_now",)
#: Comma-separated lists of accounts' names: which of two has an order does not matter, but the case of letters does.
USER_LISTS = ("incl_users", "excl_users")
# server_audit copies these into buffers of a fixed size, and cuts off what does not fit (server_audit.c).
_LONGEST = {"incl_users": 1023, "excl_users": 1023, "syslog_ident": 127, "file_path": 511}
_SIZE = re.compile(r"(\d+)([KMGT]?)", re.IGNORECASE)

#: What is asked for unless the user says otherwise. Row changes are the triggers' business, so that no DML is logged;
#: 100 MB times 20 and the current file are 2.1 GB; a statement is kept whole up to 64 kB.
DEFAULT_SETTINGS: dict[str, Any] = {
    "logging": True,
    "events": ["CONNECT", "QUERY_DDL", "QUERY_DCL"],
    "file_rotate_size": "100M",
    "file_rotations": 20,
    "query_log_limit": "64K",
}

UNREGISTER = "SET STATEMENT sql_log_bin = 0 FOR DELETE FROM mysql.plugin WHERE name = 'SERVER_AUDIT'"

#: Measured on MariaDB 10.11 and 11.8: neither QUERY_DDL nor QUERY_DCL has these, whatever the names suggest.
_UNSEEN = "ALTER USER, SET PASSWORD, SET GLOBAL, CREATE EVENT, CREATE SERVER, CHANGE MASTER, INSTALL and UNINSTALL"

#: What the report takes for auditing that is not there, beside what it only limits.
NOT_LOGGING = "logging is off: nothing is logged"
UNWRITTEN = "records could not be written to the log since logging began"


@dataclass(frozen=True)
class Variable:
    """A variable of the plugin, without its prefix, as information_schema.system_variables describes it."""

    name: str
    kind: str
    default: str = ""
    choices: tuple[str, ...] = ()
    minimum: int = 0
    maximum: int = 0

    @property
    def is_number(self) -> bool:
        return "INT" in self.kind

    def text(self, value: Any) -> str:
        """Return a value as the server shows it.

        :raises AuditError: when the variable cannot have it.
        """
        if self.kind == "BOOLEAN":
            return self._switch(value)
        if self.is_number:
            return self._number(value)
        if self.kind == "SET":
            return self._set(value)
        if self.kind == "ENUM":
            return self._choice(str(value), _matches(value))
        return self._free(value)

    def same(self, one: str, other: str) -> bool:
        """Compare two values by what they mean."""
        if self.kind == "SET" or self.name in USER_LISTS:
            return set(_items(one)) == set(_items(other))
        return one == other

    def _refuse(self, value: Any, remedy: str) -> AuditError:
        return AuditError(f"settings: {self.name}: {value!r} {remedy}")

    def _switch(self, value: Any) -> str:
        try:
            return "ON" if boolean(value) else "OFF"
        except TypeError:
            raise self._refuse(value, "is neither true nor false") from None

    def _number(self, value: Any) -> str:
        match = _SIZE.fullmatch(str(value).strip())
        if not match or isinstance(value, bool):
            raise self._refuse(value, "is no number; a size may end with K, M or G, as in 100M")
        number = int(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ")
        if not self.minimum <= number <= self.maximum:
            raise self._refuse(value, f"is not between {self.minimum} and {self.maximum}")
        return str(number)

    def _choice(self, value: str, found: Sequence[str]) -> str:
        for choice in self.choices:
            if choice.upper() in found:
                return choice
        raise self._refuse(value, f"is none of {', '.join(self.choices)}{_near(value, self.choices)}")

    def _set(self, value: Any) -> str:
        names = _items(value)
        if not names:
            # server_audit takes an empty set of events for all of them.
            raise self._refuse(value, f"is empty; list some of {', '.join(self.choices)}")
        wanted = {self._choice(name, _matches(name)) for name in names}
        return ",".join(choice for choice in self.choices if choice in wanted)

    def _free(self, value: Any) -> str:
        if self.name in USER_LISTS:
            for name in _items(value):
                if " " in name:
                    raise self._refuse(name, "has a space in it, where server_audit ends a name; it cannot be listed")
            value = ",".join(sorted(set(_items(value))))
        text = str(value)
        if not text.isprintable():
            raise self._refuse(value, "has a character in it that an option file cannot hold")
        longest = _LONGEST.get(self.name)
        if longest and len(text.encode()) > longest:
            raise self._refuse(f"{text[:40]}...", f"is longer than the {longest} bytes that server_audit keeps of it")
        return text


def _items(value: Any) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    return [str(part).strip() for part in parts if str(part).strip()]


def _matches(value: Any) -> list[str]:
    return [str(value).strip().upper()]


def _near(name: str, known: Sequence[str]) -> str:
    bare = name[len(PREFIX) :] if name.startswith(PREFIX) else name
    by_lower = {choice.lower(): choice for choice in known}
    near = difflib.get_close_matches(bare.lower(), list(by_lower), n=2, cutoff=0.45)
    return f" (did you mean {' or '.join(by_lower[word] for word in near)}?)" if near else ""


_FACILITIES = (
    *("USER", "MAIL", "DAEMON", "AUTH", "SYSLOG", "LPR", "NEWS", "UUCP", "CRON", "AUTHPRIV", "FTP"),
    *(f"LOCAL{number}" for number in range(8)),
)
_PRIORITIES = ("EMERG", "ALERT", "CRIT", "ERR", "WARNING", "NOTICE", "INFO", "DEBUG")

#: What server_audit 1.4 has (MariaDB 10.6 to 11.8), to plan with where it is not loaded; once it is, the server says.
KNOWN = {
    variable.name: variable
    for variable in (
        Variable(
            "events",
            "SET",
            choices=("CONNECT", "QUERY", "TABLE", "QUERY_DDL", "QUERY_DML", "QUERY_DCL", "QUERY_DML_NO_SELECT"),
        ),
        Variable("excl_users", "VARCHAR"),
        Variable("file_path", "VARCHAR", "server_audit.log"),
        Variable("file_rotate_now", "BOOLEAN", "OFF"),
        Variable("file_rotate_size", "BIGINT UNSIGNED", "1000000", minimum=100, maximum=2**63 - 1),
        Variable("file_rotations", "INT UNSIGNED", "9", maximum=999),
        Variable("incl_users", "VARCHAR"),
        Variable("logging", "BOOLEAN", "OFF"),
        Variable("mode", "INT UNSIGNED", "0", maximum=1),
        Variable("output_type", "ENUM", "file", choices=("syslog", "file")),
        Variable("query_log_limit", "INT UNSIGNED", "1024", maximum=2**31 - 1),
        Variable("syslog_facility", "ENUM", "LOG_USER", choices=tuple(f"LOG_{name}" for name in _FACILITIES)),
        Variable("syslog_ident", "VARCHAR", "mysql-server_auditing"),
        Variable("syslog_info", "VARCHAR"),
        Variable("syslog_priority", "ENUM", "LOG_INFO", choices=tuple(f"LOG_{name}" for name in _PRIORITIES)),
    )
}


@dataclass(frozen=True)
class PluginState:
    """What a MariaDB server has of the plugin.

    :ivar library: the file that it is, or would be, loaded from, without its ending; empty where there is none.
    :ivar current: the variables' values, and :ivar status: the status variables, both without prefix.
    """

    library: str = ""
    loaded: bool = False
    load_option: str = ""
    registered: bool = False
    variables: Mapping[str, Variable] = field(default_factory=lambda: KNOWN)
    current: Mapping[str, str] = field(default_factory=dict)
    status: Mapping[str, str] = field(default_factory=dict)

    @property
    def permanent(self) -> bool:
        return self.load_option == PERMANENT

    @property
    def active(self) -> bool:
        return self.status.get("active") == "ON"


def wanted_settings(given: Mapping[str, Any], variables: Mapping[str, Variable]) -> dict[str, str]:
    """Return the value that every variable is to have: as given, ours, or the plugin's own default.

    :raises AuditError: naming the setting, and the legal ones or values.
    """
    known = [name for name in variables if name not in _ACTIONS]
    for name in given:
        if name in _ACTIONS:
            raise AuditError(
                f"settings: {name} is an order and not a setting; give it by hand: SET GLOBAL {PREFIX}{name} = ON"
            )
        if name not in known:
            raise AuditError(
                f"settings: this server's server_audit has no {name}{_near(name, known)}; it has "
                f"{', '.join(sorted(known))}"
            )
    asked = {name: value for name, value in {**DEFAULT_SETTINGS, **given}.items() if value is not None}
    wanted = {name: variables[name].default for name in known}
    wanted.update((name, variables[name].text(value)) for name, value in asked.items() if name in known)
    if wanted["incl_users"] and wanted["excl_users"]:
        raise AuditError(
            "settings: incl_users and excl_users exclude each other: a server that finds both when it starts follows "
            "neither; give one of them"
        )
    return wanted


def plan_present(state: PluginState, wanted: Mapping[str, str], persisted: bool) -> Plan:
    """Plan to load the plugin and set what is not as wanted.

    :param persisted: whether an option file says what is wanted, which loading the plugin reads (documented under
        INSTALL SONAME), so that nothing is left to be set.
    """
    plan = Plan()
    current = state.current
    if not state.loaded:
        current = wanted if persisted else {name: variable.default for name, variable in state.variables.items()}
        statement = sql("INSTALL SONAME {library}", library=Literal(state.library))
        plan.transaction("server_audit", required=True).add(statement, "server_audit is not loaded", "missing")
    transaction = plan.transaction("server_audit variables")
    for name in sorted(wanted, key=lambda name: _rank(name, wanted)):
        variable = state.variables[name]
        if not variable.same(current.get(name, ""), wanted[name]):
            transaction.add(
                _set(variable, wanted[name]),
                f"{name} is {current.get(name, '')!r} and is to be {wanted[name]!r}",
                "altered",
            )
    return plan


def _set(variable: Variable, text: str) -> Sql:
    value = Literal(int(text) if variable.is_number else text)
    return sql("SET GLOBAL {variable} = {value}", variable=Identifier.of(PREFIX + variable.name), value=value)


def _rank(name: str, wanted: Mapping[str, str]) -> tuple[int, str]:
    """Order the variables: a list of users is emptied before the other is filled, and logging starts last."""
    if name in USER_LISTS and not wanted[name]:
        return 0, name
    return (2 if name == "logging" else 1), name


def plan_absent(state: PluginState) -> Plan:
    """Plan to end logging and unload the plugin, as far as the running server lets it go."""
    plan = Plan()
    if not state.loaded:
        return plan
    if state.current.get("logging") == "ON":
        statement = _set(state.variables["logging"], "OFF")
        plan.transaction("server_audit variables", required=True).add(statement, "logging ends", "altered")
    transaction = plan.transaction("server_audit", required=True)
    if not state.permanent:
        statement = sql("UNINSTALL SONAME {library}", library=Literal(state.library))
        transaction.add(statement, "server_audit is loaded", "altered")
    elif state.registered:
        # UNINSTALL would do it, were it not refused. Replicas keep their own.
        transaction.add(sql(UNREGISTER), "the server would load server_audit again when it starts", "altered")
    return plan


def limitations(state: PluginState, wanted: Mapping[str, str]) -> list[str]:
    """Return what auditing with these settings, on this server, leaves open."""
    lost = []
    events = _items(wanted["events"])
    if wanted["logging"] == "OFF":
        lost.append(NOT_LOGGING)
    elif "QUERY" not in events and {"QUERY_DDL", "QUERY_DCL"} & set(events):
        lost.append(f"server_audit counts {_UNSEEN} neither as DDL nor as DCL; only the event QUERY logs them")
    failed = int(state.status.get("writes_failed") or 0)
    if failed:
        lost.append(f"{failed} {UNWRITTEN}")
    return lost
