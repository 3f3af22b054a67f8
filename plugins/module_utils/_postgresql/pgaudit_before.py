# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a server had of pgaudit before the first rollout, so that its removal brings that back. Pure.

It is kept where the settings are, in postgresql.auto.conf, as a setting that no code reads: each server has its own,
and a copy of a server has it, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._core.plan import Plan
from .._core.sql import Literal, sql
from .settings import Line

SETTING = "dbfleet.pgaudit_before"

#: By (database, role), either of them None, and name.
Scoped = Mapping[tuple[Any, Any], Mapping[str, str]]


@dataclass(frozen=True)
class Before:
    """What there was.

    :ivar cluster: what ALTER SYSTEM had set, by name.
    :ivar scoped: settings of databases and roles.
    :ivar extensions: databases that had the extension.
    :ivar object_role: whether there was a role for object auditing.
    """

    cluster: Mapping[str, str]
    scoped: Scoped
    extensions: Sequence[str]
    object_role: bool

    @classmethod
    def parse(cls, lines: Sequence[Line]) -> Before | None:
        """Return what the configuration files say of it, or None where nothing was rolled out."""
        texts = [line.text for line in lines if line.name == SETTING]
        if not texts:
            return None
        kept = json.loads(texts[-1])
        scoped: dict[tuple[Any, Any], dict[str, str]] = {}
        for database, role, name, text in kept["scoped"]:
            scoped.setdefault((database, role), {})[name] = text
        return cls(kept["cluster"], scoped, kept["extensions"], kept["object_role"])

    def text(self) -> str:
        scoped = [[*scope, name, text] for scope, own in self.scoped.items() for name, text in own.items()]
        kept = {"cluster": self.cluster, "scoped": scoped, "extensions": self.extensions}
        return json.dumps({**kept, "object_role": self.object_role})


def plan_remembering(before: Before) -> Plan:
    plan = Plan()
    transaction = plan.transaction(SETTING, required=True, alone=True)
    # Until PostgreSQL 16, ALTER SYSTEM takes no setting that the session does not know.
    transaction.add(sql(f"SET {SETTING} = ''"), "for ALTER SYSTEM to know the setting")
    statement = sql(f"ALTER SYSTEM SET {SETTING} = {{text}}", text=Literal(before.text()))
    transaction.add(statement, "what there is of pgaudit comes back when it is removed")
    return plan


def plan_forgetting(before: Before | None) -> Plan:
    """Plan the end of the memory, once all of it is back."""
    plan = Plan()
    if before:
        transaction = plan.transaction(SETTING, alone=True)
        transaction.add(sql(f"SET {SETTING} = ''"), "for ALTER SYSTEM to know the setting")
        transaction.add(sql(f"ALTER SYSTEM RESET {SETTING}"), "what there was of pgaudit is back")
        transaction.add(sql("SELECT pg_reload_conf()"), "for the settings to count")
    return plan
