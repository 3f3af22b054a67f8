# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows of foreign logs become history in the trail. ``{schema}`` is the trail's schema."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from typing import Any

from .._core.adoption import ForeignLog
from .._core.adoption_import import Importer, Origin, Pending, action_case, months
from .._core.adoption_rules import Rule, in_words
from .._core.errors import AuditError
from .._core.plan import Plan, Transaction
from .._core.sql import Identifier, Joined, Literal, Sql, sql
from .canonical import DIGESTED_AS
from .capture import IMAGE_LIMITS
from .roles import OWNER
from .session import Session
from .trail_tables import STATEMENT_GUARD
from .trigger_catalog import read_policies, read_tables

#: Seconds to wait for transactions that may still add a row below the last id.
_PATIENCE = 10

# Rows that a policy of the log's owner hides would be passed by for good: the server is to refuse instead.
_STATE = """
SELECT (SELECT jsonb_object_agg(name, value) FROM {schema}.setting WHERE name LIKE 'imported\\_%') AS reached,
       (SELECT reset_val FROM pg_settings WHERE name = 'TimeZone') AS time_zone,
       set_config('row_security', 'off', false) AS row_security
"""
_ENDS = "SELECT {log} AS log, min(s.{id})::bigint AS first, max(s.{id})::bigint AS last FROM {place} AS s"

_SETTLED = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next
"""

# The names of columns are those of all images of a table, for it may have had others. What has no time needs no period.
_KEYS = """
SELECT {log} AS log, r.schema_name, r.table_name, k.name,
       (min(r.changed_at) FILTER (WHERE r.changed_at > to_timestamp(0) AND r.changed_at < now()))::date AS oldest
FROM ({rows}) AS r
LEFT JOIN LATERAL jsonb_object_keys(coalesce(r.old_values, '{}') || coalesce(r.new_values, '{}')) AS k (name) ON true
GROUP BY r.schema_name, r.table_name, k.name
"""

_ROWS = """
  SELECT v.id, v.changed_at, {action} AS action, v.action AS said, v.schema_name, v.table_name, v.record_id,
         v.changed_by, v.db_user, v.client_ip, v.application_name,
         CASE WHEN {action} <> 'INSERT' THEN {old} END AS old_values,
         CASE WHEN {action} <> 'DELETE' THEN {new} END AS new_values
  FROM (
    SELECT f.*,
           {images}
    FROM (
      SELECT s.{id}::bigint AS id, {changed_at} AS changed_at,
             {texts},
             {documents}
      FROM {log} AS s
      WHERE s.{id} > {after} AND s.{id} <= {until}
      OFFSET 0
    ) AS f
  ) AS v"""

# No value that the log cannot hold, and none without names in which to look for what a policy redacts.
_IMAGE = """
CASE WHEN jsonb_typeof(f.{role}_read) = 'object'
              AND NOT (pg_column_size(f.{role}_read) > {small} AND octet_length(concat(f.{role}_kept)) > {longest})
               THEN f.{role}_read
             WHEN concat(f.{role}_kept) NOT IN ('', 'null') THEN
               jsonb_build_object('omitted', 'not an object, or too large',
                 'sha256', encode(sha256(convert_to(concat(f.{role}_kept), {digested_as})), 'hex')) END AS {role}"""
_DOCUMENT = "{value} AS {role}_read, s.{column} AS {role}_kept"

# Where there is no rule, there is none that leaves a value in clear: mask() fails.
_COPY = """
INSERT INTO {schema}.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, record_id,
  old_values, new_values, hidden_changes, changed_by, db_user, client_ip, application_name, context, policy_id)
SELECT m.changed_at, pg_current_xact_id(), m.action, m.schema_name, m.table_name,
       {schema}.indexable(coalesce(
         CASE WHEN cardinality(m.key) = 1 THEN coalesce(m.new_masked, m.old_masked) ->> m.key[1]
              WHEN cardinality(m.key) > 1 AND coalesce(m.new_masked, m.old_masked) ?& m.key
                THEN {schema}.composite_key(coalesce(m.new_masked, m.old_masked), m.key) END,
         CASE WHEN m.plain_key THEN m.record_id END)),
       m.old_masked - m.leave_out, m.new_masked - m.leave_out, m.hidden,
       coalesce(m.changed_by, m.db_user, 'unknown'), coalesce(m.db_user, m.changed_by, 'unknown'),
       {schema}.try_inet(m.client_ip), m.application_name,
       jsonb_strip_nulls(jsonb_build_object('imported_from', {title}, 'imported_id', m.id::text,
         'imported_action', CASE m.action WHEN 'EVENT' THEN m.said END)),
       {policy_id}
FROM (
  SELECT r.*, rule.key, rule.leave_out, rule.plain_key,
         CASE WHEN rule.plain THEN r.old_values
              ELSE {schema}.mask(r.old_values, rule.redact, rule.hash) END AS old_masked,
         CASE WHEN rule.plain THEN r.new_values
              ELSE {schema}.mask(r.new_values, rule.redact, rule.hash) END AS new_masked,
         CASE WHEN NOT rule.plain AND r.action = 'UPDATE' AND r.old_values IS NOT NULL AND r.new_values IS NOT NULL THEN
           {schema}.hidden_changes(r.old_values - rule.leave_out, r.new_values - rule.leave_out, rule.redact)
         END AS hidden
  FROM ({rows}
  ) AS r
  LEFT JOIN jsonb_to_recordset({rules}::jsonb) AS rule
    (schema_name text, table_name text, redact text[], hash text[], leave_out text[], key text[], plain_key boolean,
     plain boolean)
    ON rule.schema_name IS NOT DISTINCT FROM r.schema_name AND rule.table_name = r.table_name
  OFFSET 0
) AS m
ORDER BY m.id
"""

_REACHED = """
INSERT INTO {schema}.setting (name, value) VALUES ({name}, {until})
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""

_ADD_POLICY = """
INSERT INTO {schema}.policy (policy_id, name, position, function, patterns, definition, tags, valid_from, valid_to)
SELECT {id}, {name}, 0, '', {patterns}, {definition}, {tags}, n.now, n.now FROM (SELECT clock_timestamp()) AS n (now)
"""

# Where rows from before the first period wait.
_PAST = """
SELECT substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \\(''([^'']+)')::timestamptz::date AS first
FROM pg_class AS c JOIN pg_inherits AS i ON i.inhrelid = c.oid
WHERE c.oid = to_regclass({past}) AND NOT i.inhdetachpending
"""
_HELD = "SELECT EXISTS (SELECT FROM {past}) AS held"
_TABLESPACE = """
SELECT set_config('default_tablespace', coalesce(max(t.spcname), ''), true)
FROM pg_class AS c JOIN pg_tablespace AS t ON t.oid = c.reltablespace
WHERE c.oid = {log}::regclass
"""
_ATTACH = "ALTER TABLE {schema}.audit_log_data ATTACH PARTITION {table} FOR VALUES FROM ({lower}) TO ({upper})"


def plan_adoption(session: Session, schema: str, logs: Sequence[ForeignLog]) -> Plan:
    """Return what copies the rows of foreign logs that are not in the trail yet.

    :raises AuditError: when transactions that write to one do not end.
    """
    importer = _Importer(session, schema)
    return importer.plan(logs, read_policies(session, schema), lambda: read_tables(session, schema))


class _Importer(Importer):
    ends = _ENDS
    keys = _KEYS
    add_policy = _ADD_POLICY

    def read(self, query: Sql) -> list[dict[str, Any]]:
        return [row._asdict() for row in self.session.all(query.render(self.session))]

    @cached_property
    def state(self) -> dict[str, Any]:
        """What of the trail's settings, and of the server's, an import needs."""
        return self.read(sql(_STATE, **self.place))[0]

    def reached(self) -> Mapping[str, str]:
        return self.state["reached"] or {}

    def settle(self) -> None:
        begun = self.session.one(_SETTLED).next
        deadline = time.monotonic() + _PATIENCE
        while self.session.one(_SETTLED).oldest < begun:
            if time.monotonic() > deadline:
                raise AuditError(
                    f"{self.session.database}: adopt: import: a transaction has been open for more than {_PATIENCE} s "
                    "that may add rows to an old log out of their order (pg_stat_activity.backend_xid, "
                    "pg_prepared_xacts); run it again when it has ended"
                )
            time.sleep(0.1)

    def plan_periods(self, plan: Plan, oldest: date) -> None:
        past = Identifier.of(self.schema, "audit_log_past")
        name = self.session.identifier(self.schema, "audit_log_past")
        found = self.read(sql(_PAST, past=Literal(name), **self.place))
        if not found or found[0]["first"] is None or oldest >= found[0]["first"]:
            return
        if self.read(sql(_HELD, past=past))[0]["held"]:
            # They would have to move; who made them, by another import or by hand, knows them there.
            return
        steps = plan.transaction("periods of the history", required=True)
        log = Literal(self.session.identifier(self.schema, "audit_log_data"))
        steps.add(
            sql("SET LOCAL ROLE {owner}", owner=Identifier.of(OWNER)), "partitions belong to the owner of the log"
        )
        steps.add(sql(_TABLESPACE, log=log), "new partitions go to the tablespace of the log")
        periods = [
            (Identifier.of(self.schema, f"audit_log_{start:%Y_%m}"), start, end)
            for start, end in months(oldest, found[0]["first"])
        ]
        for table, start, _end in periods:
            create = sql("CREATE TABLE {table} (LIKE {schema}.audit_log_data INCLUDING ALL)", table=table, **self.place)
            steps.add(create, f"period {start:%Y-%m} of the history is missing", "missing")
            steps.add(sql(STATEMENT_GUARD, table=table, **self.place), "it refuses changes")
            enable = sql("ALTER TABLE {table} ENABLE ALWAYS TRIGGER dbfleet_audit_guard", table=table)
            steps.add(enable, "it refuses changes from replicas too")
        # From here on the log is locked.
        detach = sql("ALTER TABLE {schema}.audit_log_data DETACH PARTITION {past}", past=past, **self.place)
        steps.add(detach, "the place for older rows gives way to periods")
        for table, start, end in periods:
            steps.add(_attach(table, Literal(_utc(start)), Literal(_utc(end)), self.place), f"the period from {start}")
        upper = Literal(_utc(periods[0][1]))
        steps.add(_attach(past, sql("MINVALUE"), upper, self.place), "a place for rows from before the first period")
        steps.add(sql("RESET ROLE"), "back to the login")

    def copy(
        self, transaction: Transaction, pending: Pending, origin: Origin, rules: Sequence[Rule], after: int, until: int
    ) -> None:
        places = {
            "rows": self.rows(pending, after, until),
            "rules": Literal(tuple(rule.plain() for rule in rules)),
            "title": Literal(pending.log.title),
            "policy_id": Literal(origin.policy_id),
        }
        transaction.add(sql(_COPY, **places, **self.place), in_words(pending.log, rules), "missing")
        statement = sql(_REACHED, name=Literal(origin.setting), until=Literal(str(until)), **self.place)
        transaction.add(statement, f"{pending.log.title} is imported up to {until}")

    def rows(self, pending: Pending, after: int, until: int) -> Sql:
        log = pending.log
        return sql(
            _ROWS,
            action=action_case(sql("v.action")),
            id=Identifier.of(log.mapping["id"]),
            changed_at=self._changed_at(log),
            texts=Joined(", ", tuple(_texts(log))),
            documents=Joined(",\n             ", tuple(_documents(log, self.place["schema"]))),
            images=Joined(",\n           ", tuple(_image(role) for role in _images(log))),
            **_before_and_after(log),
            log=Identifier.of(*log.key),
            after=Literal(after),
            until=Literal(until),
        )

    def _changed_at(self, log: ForeignLog) -> Sql:
        """Return the time; of a log without zones, that of the server's zone. What no driver reads is the epoch."""
        column = sql("s.{column}", column=Identifier.of(log.mapping["changed_at"]))
        zoned: Sql = column
        if log.relation.columns[log.mapping["changed_at"]] == "time":
            zoned = sql("{column} AT TIME ZONE {zone}", column=column, zone=Literal(self.state["time_zone"]))
        readable = sql("{column} BETWEEN '0001-01-02' AND '9999-12-30'", column=column)
        return sql("CASE WHEN {readable} THEN {zoned} ELSE to_timestamp(0) END", readable=readable, zoned=zoned)


def _texts(log: ForeignLog) -> list[Sql]:
    """Return the columns that are text, and where a row's table has to be worked out, that."""
    # concat() writes a value without any cast, which may be somebody's own function; char(n) with its blanks.
    plain = {
        role: sql("nullif(rtrim(concat(s.{column})), '')", column=Identifier.of(log.mapping[role]))
        if role in log.mapping
        else sql("NULL::text")
        for role in ("action", "record_id", "changed_by", "db_user", "client_ip", "application_name")
    }
    if "table_name" in log.mapping:
        name = sql("rtrim(concat(s.{column}))", column=Identifier.of(log.mapping["table_name"]))
        table, schema = name, sql("{schemas}::jsonb ->> {name}", schemas=Literal(log.schemas), name=name)
        if "schema_name" in log.mapping:
            schema = sql("nullif(rtrim(concat(s.{column})), '')", column=Identifier.of(log.mapping["schema_name"]))
        else:
            table = sql("regexp_replace({name}, '^[^.]+[.]', '')", name=name)
            schema = sql("coalesce(substring({name} FROM '^([^.]+)[.]'), {schema})", name=name, schema=schema)
    else:
        table, schema = (sql("{name}::text", name=Literal(name)) for name in log.tables[0][::-1])
    named = {**plain, "schema_name": schema, "table_name": table}
    return [sql("{value} AS {name}", value=value, name=sql(name)) for name, value in named.items()]


def _images(log: ForeignLog) -> list[str]:
    return [role for role in ("old_values", "new_values", "row_values", "changed_values") if role in log.mapping]


def _image(role: str) -> Sql:
    return sql(_IMAGE.strip(), role=sql(role), digested_as=sql(DIGESTED_AS), **IMAGE_LIMITS)


def _documents(log: ForeignLog, schema: Identifier) -> list[Sql]:
    found = []
    for role in _images(log):
        # Of an hstore, the cast of its own makes an object of texts; of JSON, what jsonb cannot hold is NULL.
        is_json = log.relation.columns[log.mapping[role]] == "json"
        value = sql(
            "{schema}.try_jsonb(concat(s.{column}))" if is_json else "to_jsonb(s.{column})",
            column=Identifier.of(log.mapping[role]),
            schema=schema,
        )
        found.append(sql(_DOCUMENT, value=value, role=sql(role), column=Identifier.of(log.mapping[role])))
    return found


def _before_and_after(log: ForeignLog) -> dict[str, Sql]:
    """Return the expressions for a row before and after its change."""
    if "row_values" not in log.mapping or "old_values" in log.mapping:
        return {
            name: sql(f"v.{role}" if role in log.mapping else "NULL::jsonb")
            for name, role in (("old", "old_values"), ("new", "new_values"))
        }
    if "changed_values" not in log.mapping:
        return {"old": sql("v.row_values"), "new": sql("v.row_values")}
    # Without changes it is an INSERT.
    return {"old": sql("v.row_values"), "new": sql("v.row_values || coalesce(v.changed_values, '{}')")}


def _utc(day: date) -> str:
    return f"{day} 00:00:00+00"


def _attach(table: Identifier, lower: Any, upper: Any, place: Mapping[str, Any]) -> Sql:
    return sql(_ATTACH, table=table, lower=lower, upper=upper, **place)
