# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The binary log as change data capture needs it: as asked, as found, and the statements between. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .._core.cdc import NO_CONTEXT, Problem
from .._core.errors import AuditError
from .._core.plan import Plan
from .._core.sql import Identifier, Literal, sql

RETENTION = "binlog_expire_logs_seconds"

#: The only way that MySQL takes from one end to the other; each step is refused while the one before is under way.
_GTID_MODES = ("OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE", "ON")

#: What an event must hold: every column, by name, of the row before and after.
_ROWS = {"binlog_format": "ROW", "binlog_row_image": "FULL", "binlog_row_metadata": "FULL"}
#: In this order: MySQL takes gtid_mode = ON only where consistency is enforced.
_MYSQL = {
    "binlog_row_value_options": "",
    "binlog_transaction_compression": "OFF",
    "enforce_gtid_consistency": "ON",
    "gtid_mode": "ON",
}
#: What is compressed, consumers do not read, and most of them do not say so.
_MARIADB = {"gtid_strict_mode": "ON", "log_bin_compress": "OFF"}

#: Whether a replica has its source's changes in its own binary log, under each vendor's name.
_RELAYED = ("log_slave_updates", "log_replica_updates")

VARIABLES = ("log_bin", "server_id", *_RELAYED, *_ROWS, *_MYSQL, *_MARIADB, RETENTION)

#: The privileges of a consumer, by vendor; information_schema has those of the one on the left and not its other name.
_PRIVILEGES = {"mariadb": ("REPLICATION SLAVE", "BINLOG MONITOR"), "mysql": ("REPLICATION SLAVE", "REPLICATION CLIENT")}


@dataclass(frozen=True)
class BinlogState:
    """What the server has.

    :ivar vendor: `mariadb` or `mysql`.
    :ivar current: variables and their values; one that the server does not know is not in it.
    :ivar filters: databases that the binary log has, or leaves out, as the server's own words.
    :ivar read_only: whether it takes no writes, as a replica does.
    :ivar rights: the privileges of the consumer's account, None without an account, and :ivar connected: whether it
        reads the binary log now.
    """

    vendor: str
    current: Mapping[str, str]
    filters: Mapping[str, str] = field(default_factory=dict)
    rights: frozenset[str] | None = None
    connected: bool = False
    read_only: bool = False

    @property
    def logs(self) -> bool:
        return self.current["log_bin"] == "ON"


def wanted_variables(state: BinlogState, retention: int | None) -> dict[str, str]:
    """Return the value that each variable is to have, in the order in which they are set.

    :param retention: seconds, or None for the server's own.
    :raises AuditError: where nobody has said how long binary logs are kept.
    """
    wanted = {**_ROWS, **(_MARIADB if state.vendor == "mariadb" else _MYSQL)}
    wanted = {name: value for name, value in wanted.items() if name in state.current}
    if retention is None and state.current[RETENTION] == "0":
        raise AuditError(
            f"{RETENTION} is 0: binary logs are kept for ever and fill the disk of this server; say for how many "
            f"seconds a consumer may be away, for example {RETENTION}: 604800"
        )
    if retention is not None:
        wanted[RETENTION] = str(retention)
    return wanted


def check(state: BinlogState, retention: int | None) -> None:
    """Refuse what no statement can put right.

    :raises AuditError: naming it.
    """
    if retention is not None and retention < 1:
        raise AuditError(f"{RETENTION}: {retention} is no time: 0 would keep binary logs for ever")
    if state.current["server_id"] == "0":
        raise AuditError("server_id is 0, with which nobody can read the binary log: give each server its own")
    missing = [right for right in _PRIVILEGES[state.vendor] if right not in (state.rights or ())]
    if state.rights is not None and missing:
        raise AuditError(f"account: it may not read the binary log: GRANT {', '.join(missing)} ON *.* TO it")


def differences(state: BinlogState, wanted: Mapping[str, str]) -> list[str]:
    """Return what is not as wanted, in words; the binary log itself comes first."""
    found = [] if state.logs else ["log_bin is OFF and has to be ON"]
    return found + [
        f"{name} is {state.current[name]!r} and has to be {value!r}"
        for name, value in wanted.items()
        if not _same(state, name, value)
    ]


def plan_variables(state: BinlogState, wanted: Mapping[str, str]) -> Plan:
    """Plan what sets the variables that a running server can change."""
    plan = Plan()
    # MySQL keeps what is set this way by itself; MariaDB has an option file for it.
    verb = "SET GLOBAL" if state.vendor == "mariadb" else "SET PERSIST"
    for name, value in wanted.items():
        if _same(state, name, value):
            continue
        transaction = plan.transaction(name)
        reason = f"{name} is {state.current[name]!r} and has to be {value!r}"
        for step in _steps(name, state.current[name], value):
            place = {"variable": Identifier.of(name), "value": Literal(int(step) if name == RETENTION else step)}
            transaction.add(sql(f"{verb} {{variable}} = {{value}}", **place), reason, "altered")
    return plan


def _same(state: BinlogState, name: str, value: str) -> bool:
    return state.current[name].upper() == value


def _steps(name: str, current: str, value: str) -> Sequence[str]:
    return _GTID_MODES[_GTID_MODES.index(current.upper()) + 1 :] if name == "gtid_mode" else (value,)


def problems(state: BinlogState, account: str | None) -> list[Problem]:
    """Return what a consumer loses changes by."""
    found = []
    if not state.logs:
        found.append(Problem("restart", "there is no binary log yet: log_bin waits for a restart of the server"))
    for name, databases in state.filters.items():
        detail = f"{name} = {databases}: changes of other databases, or of these, are not in the binary log"
        found.append(Problem("filtered", detail))
    if state.read_only and any(state.current.get(name) == "OFF" for name in _RELAYED):
        detail = (
            f"{_RELAYED[0]} is OFF: what this server gets from its source is not in its binary log; read the source's"
        )
        found.append(Problem("replica", detail))
    if account and not state.connected:
        found.append(Problem("inactive", f"account {account}: no consumer is connected"))
    return found


def limitations(persistent: bool) -> list[str]:
    """Return what consumers of this server do not get.

    :param persistent: whether the settings survive a restart.
    """
    lost = [
        NO_CONTEXT,
        "binary logs go by their age, whoever has not read them; how much disk they need is what is written meanwhile",
    ]
    if not persistent:
        lost.append(
            "no option file says this to the server, so that its next start undoes it; on a managed service, set the "
            "same in its parameters"
        )
    return lost
