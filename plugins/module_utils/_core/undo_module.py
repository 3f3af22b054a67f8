# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How an undo runs on any engine: options, reading, deciding, and carrying out what was asked to be carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Protocol

from .errors import AuditError
from .event_query import parse_time
from .module import AuditModule, AuditSession
from .undo import Change, Found, Restoration, Skip, Target, UndoTable, Writer, restore, trace

UNDO_SPEC: dict[str, Any] = {
    "table": {"type": "str", "required": True},
    "to": {"type": "str"},
    "record_ids": {"type": "list", "elements": "str"},
    "changed_by": {"type": "str"},
    "transaction_id": {"type": "str"},
    "execute": {"type": "bool", "default": False},
    "limit": {"type": "int", "default": 1000},
}


@dataclass(frozen=True)
class UndoOptions:
    """What is asked for.

    :ivar to: the time to go back to, in UTC.
    :ivar lock_timeout: in seconds.
    """

    schema: str
    table: str
    to: datetime | None
    record_ids: tuple[str, ...] | None
    changed_by: str | None
    transaction_id: str | None
    limit: int
    lock_timeout: float
    lock_retries: int

    @property
    def whole(self) -> bool:
        """Whether to go back to the rows as they were, whoever has changed them."""
        return self.changed_by is None and self.transaction_id is None

    @property
    def context(self) -> dict[str, str]:
        """What the log is to say of the changes that the undo makes."""
        what = {"undo_to": self.to and self.to.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "undo_changed_by": self.changed_by}
        what["undo_transaction_id"] = self.transaction_id
        return {"business_process": "audit undo", **{key: value for key, value in what.items() if value}}


class UndoEngine(Writer, Protocol):
    """What an engine knows of the log and of the table."""

    def table(self) -> UndoTable:
        """Read the table as it is now; raises AuditError where it cannot be undone."""

    def truncation(self) -> tuple[str, str] | None:
        """Return when the table was truncated after the changes to undo, and by whom."""

    def changes(self, table: UndoTable) -> tuple[int, list[Change]]:
        """Return the number of records to undo and, unless they are too many, their changes."""

    def compare(self, table: UndoTable, targets: Sequence[Target]) -> list[Found]:
        """Return how the records are now, one for each target."""

    def execute(self, restorations: Sequence[Restoration], table: UndoTable) -> None:
        """Carry all statements out in one transaction; raises AuditError, naming the record, where one fails."""


def parse_undo(params: Mapping[str, Any], now: datetime) -> UndoOptions:
    """Check the options of :data:`UNDO_SPEC`.

    :param now: what an interval counts back from, in UTC.
    :raises AuditError: naming the option that cannot be meant so.
    """
    # A template that came out empty must not mean every record, or every user.
    for name in ("table", "to", "record_ids", "changed_by", "transaction_id"):
        if params[name] is not None and not params[name]:
            raise AuditError(f"{name}: is empty; name something, or leave the option out")
    if params["to"] is None and params["transaction_id"] is None:
        raise AuditError("to: is required, unless transaction_id says what to undo")
    if params["limit"] < 1:
        raise AuditError(f"limit: {params['limit']} is less than 1, so that nothing could be undone")
    to = None if params["to"] is None else parse_time("to", params["to"], now)
    if to and to > now:
        raise AuditError(f"to: {params['to']!r} lies in the future; give the time before the changes to undo")
    return UndoOptions(
        params["schema"],
        params["table"],
        to,
        None if params["record_ids"] is None else tuple(params["record_ids"]),
        params["changed_by"],
        params["transaction_id"],
        params["limit"],
        params["lock_timeout"],
        params["lock_retries"],
    )


def parse_options(module: AuditModule) -> UndoOptions:
    """Return the module's options, checked."""
    return parse_undo(module.params, datetime.now(timezone.utc))


def undo(module: AuditModule, session: AuditSession, engine: UndoEngine, options: UndoOptions) -> None:
    """Find out what brings the records back, report it, and with `execute` do it."""
    module.results.update(statements=[], records=[], skipped=[], executed=False)
    table = engine.table()
    _refuse_truncated(engine, table)
    if not table.audited:
        module.warn(f"{table.title} is not audited now: what has changed since its triggers went is not in the log")
    count, changes = engine.changes(table)
    if count > options.limit:
        raise AuditError(
            f"{table.title}: {count} records would have to be undone, more than limit ({options.limit}); name fewer "
            "(record_ids, changed_by, transaction_id, a later time), or raise limit"
        )
    if not count and options.transaction_id is not None:
        raise AuditError(
            f"transaction_id: the log has no change of {table.title} by transaction {options.transaction_id!r} (with "
            "`to`, none after that time)"
        )
    targets, skipped = trace(changes, table, options.whole)
    restorations, kept = restore(targets, engine.compare(table, targets), table, engine)
    skipped += kept
    known = {change.record_id for change in changes}
    skipped += [Skip(name, "no such change in the log") for name in options.record_ids or () if name not in known]
    _report(module, engine, table, restorations, skipped)
    if module.params["execute"] and restorations and not module.check_mode:
        session.require_writable()
        engine.execute(restorations, table)
        module.results["executed"] = True


def _refuse_truncated(engine: UndoEngine, table: UndoTable) -> None:
    truncation = engine.truncation()
    if truncation:
        when, who = truncation
        raise AuditError(
            f"{table.title}: {who} truncated it at {when}: the rows that were lost then are not in the log; restore "
            "them from a backup, or go back to a time after that"
        )


def _report(
    module: AuditModule, engine: UndoEngine, table: UndoTable, restorations: list[Restoration], skipped: list[Skip]
) -> None:
    statements = [entry.statement for entry in restorations]
    if statements:
        statements[:0] = engine.preamble
    module.results.update(
        changed=module.params["execute"] and bool(statements),
        statements=statements,
        records=[entry.record for entry in restorations],
        skipped=[{"record_id": skip.record_id, "reason": skip.reason} for skip in skipped],
    )
    if module._diff:
        header = f"{table.title} (SQL that undoes its changes)"
        after = "".join(f"{text}\n" for text in statements)
        module.results["diff"] = {"before_header": header, "after_header": header, "before": "", "after": after}
