# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rows of a foreign log as history in the trail, on any engine: in batches, each once, masked as policies ask.

Rows are imported in the order of their ids. The id up to which a log has been imported stands in the trail's settings
and moves in the transaction of the batch, so that a run that was cut off is carried on by the next without a double.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, ClassVar

from .adoption import ForeignLog, Name
from .adoption_rules import Rule, rules
from .coverage import in_force
from .errors import AuditError
from .plan import Plan, Transaction
from .policy import Policy, parse_policies
from .policy_versions import StoredPolicy
from .sql import Identifier, Joined, Literal, Sql, sql

#: What a policy's stored definition has when it stands for rows that were imported, and nothing else can have.
IMPORTED = "imported"

#: Rows of a batch: more ids than these only where there would be too many batches.
_BATCH = 10_000
_BATCHES = 200

#: Months for which periods are made; what is older waits in the one before them.
_MONTHS = 240

#: What logs call the actions of ours.
_ACTIONS = {
    "INSERT": ("INSERT", "I", "INSERTED", "CREATE", "CREATED", "ADD", "C"),
    "UPDATE": ("UPDATE", "U", "UPDATED", "MODIFY", "MODIFIED", "EDIT", "CHANGE"),
    "DELETE": ("DELETE", "D", "DELETED", "REMOVE", "REMOVED"),
    "TRUNCATE": ("TRUNCATE", "T", "TRUNCATED"),
}

_NOT_IN_FORCE = (
    "no policy is in force in the trail, so that nobody knows what to redact; bring the tables under their policies "
    "first (postgresql_audit_triggers, mysql_audit_triggers; the roles do it in this order)"
)


class NoPolicyError(AuditError):
    """Nobody has said yet what is to be redacted."""


@dataclass
class Pending:
    """What of a log waits to be imported.

    :ivar after: the id up to which its rows have been imported.
    :ivar until: the last id; who could add a row with a lower one has ended.
    :ivar oldest: the day of the oldest of these rows.
    :ivar keys: by schema and table, as the rows name them, the columns that their images hold.
    """

    log: ForeignLog
    after: int
    until: int
    oldest: date | None = None
    keys: dict[tuple[str | None, str], set[str]] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        return self.until > self.after


def pending_of(log: ForeignLog, reached: str | None, first: int | None, last: int | None) -> Pending:
    """Return what waits of a log, of whose columns nothing is known yet.

    :param reached: the id up to which it has been imported, as the trail's setting has it.
    :param first: its lowest id, and `last` its highest; None of an empty one.
    """
    after = int(reached) if reached is not None else (first or 0) - 1
    return Pending(log, after, after if last is None else max(after, last))


def batches(pending: Pending) -> Iterator[tuple[int, int]]:
    """Return the ids of each batch: after the one, up to the other."""
    step = max(_BATCH, -((pending.after - pending.until) // _BATCHES))
    for after in range(pending.after, pending.until, step):
        yield after, min(after + step, pending.until)


def months(oldest: date, first: date) -> list[tuple[date, date]]:
    """Return the months from that of the oldest row until the first period of a log, which may begin within a month."""
    found = []
    end = first
    while oldest < end and len(found) < _MONTHS:
        start = (end - timedelta(days=1)).replace(day=1)
        found.append((start, end))
        end = start
    return found[::-1]


def action_case(action: Sql) -> Sql:
    """Return an expression for our word for an action; what it has no word for is an EVENT."""
    cases = tuple(
        sql("WHEN UPPER({action}) IN ({words}) THEN {name}", action=action, name=Literal(name), words=_literals(words))
        for name, words in _ACTIONS.items()
    )
    return sql("CASE {cases} ELSE 'EVENT' END", cases=Joined(" ", cases))


def _literals(words: Sequence[str]) -> Joined:
    return Joined(", ", tuple(Literal(word) for word in words))


@dataclass(frozen=True)
class Origin:
    """The policy version that imported rows of one log carry: what no application can put into a record.

    :ivar policy_id: its number in the trail.
    :ivar known: whether the trail has it.
    """

    policy_id: int
    known: bool

    @property
    def setting(self) -> str:
        """The name of the trail's setting that holds the id up to which the log has been imported."""
        return f"imported_{self.policy_id}"


def origins(logs: Sequence[ForeignLog], stored: Sequence[StoredPolicy]) -> dict[str, Origin]:
    """Return the origin of the rows of each log, by its name.

    :raises AuditError: for a log that has been imported by the numbers of another column.
    """
    known = {policy.definition[IMPORTED]["log"]: policy for policy in stored if policy.definition.get(IMPORTED)}
    for log in logs:
        before = known[log.title].definition[IMPORTED]["columns"]["id"] if log.title in known else log.mapping["id"]
        if before != log.mapping["id"]:
            raise AuditError(
                f"{log.title} has been imported by the numbers in {before}; by those in {log.mapping['id']}, rows "
                f"would come twice or not at all. Name it in adopt_columns: {{{log.title}: {{id: {before}}}}}"
            )
    found = {log.title: Origin(known[log.title].policy_id, True) for log in logs if log.title in known}
    next_id = max((policy.policy_id for policy in stored), default=0) + 1
    for log in logs:
        if log.title not in found:
            found[log.title] = Origin(next_id, False)
            next_id += 1
    return found


def origin_policy(log: ForeignLog) -> dict[str, Literal]:
    """Return the columns of the policy version that stands for the rows of a log; it is in force at no time."""
    name = f"imported from {log.title}"
    pattern = ".".join('"' + part.replace('"', '""') + '"' for part in log.key)
    policy = parse_policies([{"tables": [pattern], "name": name}], log.title)[0]
    origin = {"log": log.title, "kind": log.kind, "columns": dict(log.mapping)}
    return {
        "name": Literal(name),
        "patterns": Literal(json.dumps({"tables": [], "exclude": []})),
        "definition": Literal(
            json.dumps({**policy.definition(), IMPORTED: origin}, sort_keys=True, ensure_ascii=False)
        ),
        "tags": Literal([]),
    }


def importable(logs: Sequence[ForeignLog], policies: Sequence[Policy], place: str) -> list[ForeignLog]:
    """Return the logs whose rows can be imported.

    :raises NoPolicyError: when some can, and there is no policy to go by.
    """
    chosen = [log for log in logs if log.obstacle is None]
    if chosen and not policies:
        raise NoPolicyError(f"{place}: adopt: import: {_NOT_IN_FORCE}")
    return chosen


class Importer:
    """Copies the rows of foreign logs on one engine, which says how each part is read and written."""

    #: The query for a log's lowest and highest id, one row a log; so that for the names of columns
    #: in its images, one row a table and name.
    ends: ClassVar[str]
    keys: ClassVar[str]
    #: The statement that adds the policy version of a log.
    add_policy: ClassVar[str]

    def __init__(self, session: Any, schema: str) -> None:
        self.session = session
        self.schema = schema
        self.place = {"schema": Identifier.of(schema)}

    def plan(
        self, logs: Sequence[ForeignLog], stored: Sequence[StoredPolicy], tables: Callable[[], Mapping[Name, Any]]
    ) -> Plan:
        """Return what copies the rows that are not in the trail yet, a transaction a batch.

        One that fails keeps the later ones back.

        :param tables: reads those of the database; called when there is anything to copy.
        :raises AuditError: when transactions that write to a log do not end.
        :raises NoPolicyError: when there is no policy to go by.
        """
        policies = in_force(stored, self.session.database)
        chosen = importable(logs, policies, self.session.database)
        plan = Plan()
        if not chosen:
            return plan
        found_origins = origins(chosen, stored)
        found = self._pending(chosen, found_origins)
        if found:
            self.plan_periods(plan, min(pending.oldest or date.max for pending in found))
            of_database = tables()
            for pending in found:
                origin = found_origins[pending.log.title]
                self._plan_log(plan, pending, origin, rules(pending.keys, policies, of_database))
        return plan

    def _plan_log(self, plan: Plan, pending: Pending, origin: Origin, of_tables: Sequence[Rule]) -> None:
        title = pending.log.title
        if not origin.known:
            steps = plan.transaction(f"origin {title}", required=True)
            statement = sql(self.add_policy, id=Literal(origin.policy_id), **origin_policy(pending.log), **self.place)
            steps.add(statement, f"version {origin.policy_id} marks what is imported from {title}", "missing")
        for after, until in batches(pending):
            subject = f"import of {title}, ids {after + 1} to {until} (rows before them are in the trail)"
            self.copy(plan.transaction(subject, required=True), pending, origin, of_tables, after, until)

    def _pending(self, logs: Sequence[ForeignLog], found_origins: Mapping[str, Origin]) -> list[Pending]:
        """Return the logs that have rows to copy, and what they are."""
        reached = self.reached()
        of_logs = [
            sql(self.ends, log=Literal(log.title), id=Identifier.of(log.mapping["id"]), place=Identifier.of(*log.key))
            for log in logs
        ]
        ends = {row["log"]: row for row in self._all(of_logs)}
        found = {}
        for log in logs:
            setting, end = found_origins[log.title].setting, ends[log.title]
            pending = pending_of(log, reached.get(setting), end["first"], end["last"])
            if pending.waits:
                found[log.title] = pending
        if found:
            self.settle()
            self._read_keys(found)
        return list(found.values())

    def _read_keys(self, found: Mapping[str, Pending]) -> None:
        of_logs = [
            sql(self.keys, log=Literal(title), rows=self.rows(pending, pending.after, pending.until))
            for title, pending in found.items()
        ]
        for row in self._all(of_logs):
            pending = found[row["log"]]
            keys = pending.keys.setdefault((row["schema_name"], row["table_name"]), set())
            keys.update(filter(None, (row["name"],)))
            pending.oldest = min(filter(None, (pending.oldest, row["oldest"])), default=None)

    def _all(self, queries: Sequence[Sql]) -> list[dict[str, Any]]:
        return self.read(sql("{queries}", queries=Joined("\nUNION ALL\n", tuple(queries))))

    def read(self, query: Sql) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        raise NotImplementedError

    def reached(self) -> Mapping[str, str]:
        """Return the trail's settings that hold the ids up to which logs have been imported."""
        raise NotImplementedError

    def settle(self) -> None:
        """Wait until everybody has ended who may have taken an id by now.

        :raises AuditError: when somebody does not.
        """
        raise NotImplementedError

    def rows(self, pending: Pending, after: int, until: int) -> Sql:
        """Return the query for the rows of a batch, before anything in them is masked."""
        raise NotImplementedError

    def plan_periods(self, plan: Plan, oldest: date) -> None:
        """Make periods of months for what is older than the first one, so that it is archived like every other."""
        raise NotImplementedError

    def copy(
        self, transaction: Transaction, pending: Pending, origin: Origin, rules: Sequence[Rule], after: int, until: int
    ) -> None:
        """Add the rows of a batch, and the id up to which they reach."""
        raise NotImplementedError
