# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the server itself needs for logical decoding, and the limit of what a dead consumer keeps. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .._core.errors import AuditError
from .._core.plan import Plan, Transaction
from .._core.sql import Literal, sql
from .settings import ABOVE_FILES, Line, text_of

LIMIT = "max_slot_wal_keep_size"
SETTINGS = ("wal_level", "max_replication_slots", "max_wal_senders", LIMIT)

_NO_LIMIT = "-1"
_SIZE = re.compile(r"([1-9]\d*) ?(MB|GB|TB)")
_MEGABYTES = {"MB": 1, "GB": 1024, "TB": 1024 * 1024}
_SERVICES = "on a managed service, in its own parameters (rds.logical_replication = 1 on RDS)"


@dataclass(frozen=True)
class Setting:
    """A setting as it runs, and where it comes from in the words of pg_settings; the limit in megabytes."""

    value: str
    source: str


@dataclass(frozen=True)
class ServerCatalog:
    """The server's settings, and who asks.

    :ivar lines: what the configuration files say; nothing for a login that may not read them.
    :ivar slots: replication slots that there are, of all databases.
    """

    settings: Mapping[str, Setting]
    lines: Sequence[Line]
    slots: int
    superuser: bool
    replication: bool

    def next_start(self, name: str) -> str:
        """Return the value that the server would start with, as far as this login can tell."""
        setting = self.settings[name]
        lines = [line for line in self.lines if line.name == name]
        return text_of(lines) if lines and setting.source not in ABOVE_FILES else setting.value

    @property
    def decodes(self) -> bool:
        return self.waits_for is None

    @property
    def waits_for(self) -> str | None:
        """The setting without which no consumer gets any changes as the server runs."""
        if self.settings["wal_level"].value != "logical":
            return "wal_level"
        return "max_wal_senders" if self.settings["max_wal_senders"].value == "0" else None

    @property
    def has_room(self) -> bool:
        return self.slots < int(self.settings["max_replication_slots"].value)

    @property
    def limited(self) -> bool:
        return self.settings[LIMIT].value != _NO_LIMIT


@dataclass(frozen=True)
class SettingOptions:
    """What the user asked for; the fields are the module's options, and whether a slot is to be made."""

    max_slot_wal_keep_size: str | None
    configure: bool
    new_slot: bool

    @property
    def megabytes(self) -> str:
        """The limit as pg_settings has it.

        :raises AuditError: for anything that is no limit.
        """
        match = _SIZE.fullmatch(self.max_slot_wal_keep_size or "")
        if not match:
            raise AuditError(f"{LIMIT}: {self.max_slot_wal_keep_size!r} is no size such as 512MB, 10GB or 1TB")
        return str(int(match[1]) * _MEGABYTES[match[2]])


def require_rights(server: ServerCatalog, options: SettingOptions, login: str) -> None:
    """Refuse a login that cannot make the slot.

    :raises AuditError: with the statement that gives it the right.
    """
    if options.new_slot and not server.replication:
        raise AuditError(
            f"the login {login!r} may not make a replication slot: ALTER ROLE {login} REPLICATION (on RDS: GRANT "
            f"rds_replication TO {login})"
        )


def plan_settings(server: ServerCatalog, options: SettingOptions, plan: Plan) -> None:
    """Add what sets what is not as needed.

    :raises AuditError: where the module is not to set it, or cannot; with what to set.
    """
    transaction = plan.transaction("server settings", required=True, alone=True)
    if options.new_slot:
        if server.next_start("wal_level") != "logical":
            _add(transaction, server, options.configure, "wal_level", "logical")
        if server.next_start("max_wal_senders") == "0":
            _add(transaction, server, options.configure, "max_wal_senders", "10")
        if server.slots >= int(server.next_start("max_replication_slots")):
            # Room for the next one too: each raise costs a restart.
            _add(transaction, server, options.configure, "max_replication_slots", str(server.slots + 4))
    if options.max_slot_wal_keep_size is not None:
        if options.megabytes != server.settings[LIMIT].value:
            _add(transaction, server, True, LIMIT, options.max_slot_wal_keep_size)
    elif options.new_slot and not server.limited:
        raise AuditError(
            f"{LIMIT} is -1: a consumer that does not come back would fill the disk of this server; say how much WAL "
            f"a slot may keep, for example {LIMIT}: 10GB"
        )
    if transaction.steps:
        transaction.add(sql("SELECT pg_reload_conf()"), "the server reads its settings again")


def _add(transaction: Transaction, server: ServerCatalog, allowed: bool, name: str, value: str) -> None:
    setting = server.settings[name]
    told = f"{name} is {setting.value} and has to be {value}"
    restart = "" if name == LIMIT else " and restart the server"
    if not allowed:
        raise AuditError(
            f"{told}: set `configure: true`, or ALTER SYSTEM SET {name} = '{value}', or {_SERVICES},{restart}"
        )
    if not server.superuser:
        raise AuditError(f"{told}, which is a superuser's to set, and this login is none; {_SERVICES}{restart}")
    if setting.source in ABOVE_FILES:
        raise AuditError(f"{told}, but the server has it from its {setting.source}, which nothing overrides")
    transaction.add(sql(f"ALTER SYSTEM SET {name} = {{value}}", value=Literal(value)), told, "altered")
