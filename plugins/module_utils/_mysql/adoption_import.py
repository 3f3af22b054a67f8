# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows of foreign logs become history in the trail. ``{schema}`` is the trail's database."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from .._core.adoption import ForeignLog
from .._core.adoption_import import Importer, Origin, Pending, action_case, months
from .._core.adoption_rules import Rule, in_words
from .._core.errors import AuditError
from .._core.plan import Plan, Transaction
from .._core.sql import Identifier, Joined, Literal, Sql, sql
from . import trigger_catalog
from .seal_watermark import NOTED, writers
from .session import Session
from .text import text
from .trail_catalog import TrailCatalog
from .trail_tables import LOG, NAMED_ID

#: Periods that one statement makes.
_PERIODS = 12

#: Seconds to wait for transactions that may still add a row below the last id.
_PATIENCE = 10

_REACHED = "SELECT s.name, s.value FROM {schema}.setting AS s WHERE s.name LIKE 'imported\\_%'"
_ENDS = "SELECT {log} AS log, MIN(s.{id}) AS first, MAX(s.{id}) AS last FROM {place} AS s"

# The names of columns are those of all images of a table, for it may have had others. What has no time needs no period.
_KEYS = """
SELECT {log} AS log, r.schema_name, r.table_name, CONVERT(k.name USING utf8mb4) COLLATE utf8mb4_bin AS name,
       DATE(MIN(CASE WHEN r.changed_at > '1970-01-01' THEN r.changed_at END)) AS oldest
FROM ({rows}) AS r
LEFT JOIN JSON_TABLE(JSON_KEYS(JSON_MERGE_PRESERVE(COALESCE(r.old_values, '{}'), COALESCE(r.new_values, '{}'))),
                     '$[*]' COLUMNS (name VARCHAR(255) PATH '$')) AS k ON TRUE
GROUP BY r.schema_name, r.table_name, CONVERT(k.name USING utf8mb4) COLLATE utf8mb4_bin
"""

_ROWS = """
  SELECT v.id, v.changed_at, {action} AS action, v.action AS said, v.schema_name, v.table_name, v.record_id,
         v.changed_by, v.db_user, v.client_ip, v.application_name,
         CASE WHEN {action} <> 'INSERT' THEN v.old_values END AS old_values,
         CASE WHEN {action} <> 'DELETE' THEN v.new_values END AS new_values
  FROM (
    SELECT s.{id} AS id, {changed_at} AS changed_at,
           {texts},
           {images}
    FROM {log} AS s
    WHERE s.{id} > {after} AND s.{id} <= {until}
  ) AS v"""

# None without names in which to look for what a policy redacts.
_IMAGE = """
CASE WHEN s.{column} IS NULL OR JSON_TYPE(s.{column}) = 'NULL' THEN NULL
           WHEN JSON_TYPE(s.{column}) = 'OBJECT'{distinct} THEN {value}
           ELSE JSON_OBJECT('omitted', 'not an object, or a name twice',
             'sha256', SHA2(s.{column}, 256)) END AS {role}"""

# MariaDB keeps a document as it was written, and masks only the first of two values of the same name.
_DISTINCT = """
             AND JSON_LENGTH(s.{column}) = (
               SELECT COUNT(DISTINCT CONVERT(k.name USING utf8mb4) COLLATE utf8mb4_bin)
               FROM JSON_TABLE(JSON_KEYS(s.{column}), '$[*]' COLUMNS (name VARCHAR(255) PATH '$')) AS k)"""

# As text: MariaDB calls two extracts of the same text different.
_CHANGED = """
         CASE m.action WHEN 'UPDATE' THEN (
           SELECT JSON_ARRAYAGG(k.name)
           FROM JSON_TABLE(JSON_KEYS(m.new_masked), '$[*]' COLUMNS (name VARCHAR(255) PATH '$')) AS k
           WHERE NOT CAST(JSON_EXTRACT(m.new_values, CONCAT('$.', JSON_QUOTE(k.name))) AS CHAR)
             <=> CAST(JSON_EXTRACT(m.old_values, CONCAT('$.', JSON_QUOTE(k.name))) AS CHAR)) END"""

_COPY = """
INSERT INTO {schema}.audit_log_data ({id}changed_at, action, schema_name, table_name, record_id,
  old_values, new_values, changed_columns, changed_by, db_user, client_ip, application_name, context, policy_id)
SELECT {next_id}m.changed_at, m.action, m.schema_name, m.table_name, {record_id},
       {old_left}, {new_left},{changed},
       LEFT(COALESCE(m.changed_by, m.db_user, 'unknown'), 512), LEFT(COALESCE(m.db_user, m.changed_by, 'unknown'), 128),
       LEFT(m.client_ip, 255), LEFT(m.application_name, 255),
       IF(m.action = 'EVENT',
         JSON_OBJECT('imported_from', {title}, 'imported_id', CAST(m.id AS CHAR), 'imported_action', m.said),
         JSON_OBJECT('imported_from', {title}, 'imported_id', CAST(m.id AS CHAR))),
       {policy_id}
FROM (
  SELECT r.*, {old_masked} AS old_masked, {new_masked} AS new_masked
  FROM ({rows}
  ) AS r
) AS m
ORDER BY m.id
"""

_SET_REACHED = "REPLACE INTO {schema}.setting (name, value) VALUES ({name}, {until})"

_ADD_POLICY = """
INSERT INTO {schema}.policy (policy_id, name, position, patterns, definition, tags, valid_from, valid_to)
SELECT {id}, {name}, 0, {patterns}, {definition}, {tags}, n.now, n.now FROM (SELECT UTC_TIMESTAMP(6) AS now) AS n
"""

_PAST = """
SELECT p.partition_description AS bound FROM information_schema.partitions AS p
WHERE p.table_schema = %(schema)s AND p.table_name = %(log)s AND p.partition_name = 'p_past'
"""
_HELD = "SELECT EXISTS (SELECT 1 FROM {schema}.audit_log_data PARTITION (p_past)) AS held"
_REORGANIZE = "ALTER TABLE {schema}.audit_log_data REORGANIZE PARTITION p_past INTO ({partitions})"


def plan_adoption(session: Session, trail: TrailCatalog, logs: Sequence[ForeignLog]) -> Plan:
    """Return what copies the rows of foreign logs that are not in the trail yet.

    :raises AuditError: when transactions that write to one do not end.
    """
    catalog = trigger_catalog.read(session, trail)
    return _Importer(session, trail.schema).plan(logs, catalog.stored, lambda: catalog.tables)


class _Importer(Importer):
    ends = _ENDS
    keys = _KEYS
    add_policy = _ADD_POLICY

    def read(self, query: Sql) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.session.all(query.render(self.session))
        return rows

    def reached(self) -> Mapping[str, str]:
        return {row["name"]: row["value"] for row in self.read(sql(_REACHED, **self.place))}

    def settle(self) -> None:
        time.sleep(NOTED)
        begun = set(writers(self.session))
        deadline = time.monotonic() + _PATIENCE
        while begun:
            if time.monotonic() > deadline:
                raise AuditError(
                    f"{self.session.database}: adopt: import: a transaction has been open for more than {_PATIENCE} s "
                    "that may add rows to an old log out of their order (information_schema.innodb_trx, XA RECOVER); "
                    "run it again when it has ended"
                )
            time.sleep(NOTED * 1.1)
            begun &= set(writers(self.session))

    def plan_periods(self, plan: Plan, oldest: date) -> None:
        found = self.session.all(_PAST, {"schema": self.schema, "log": LOG})
        if not found:
            return
        first = date.fromisoformat(found[0]["bound"].strip("'")[:10])
        if oldest >= first or self.read(sql(_HELD, **self.place))[0]["held"]:
            return
        periods = months(oldest, first)
        steps = plan.transaction("periods of the history", required=True)
        # Whoever changes an audited table waits for each statement, and gets in between two of them.
        for end in range(len(periods), 0, -_PERIODS):
            part = periods[max(end - _PERIODS, 0) : end]
            bounds = [("p_past", part[0][0]), *((f"p{start:%Y_%m}", until) for start, until in part)]
            partitions = tuple(_partition(name, until) for name, until in bounds)
            statement = sql(_REORGANIZE, partitions=Joined(", ", partitions), **self.place)
            steps.add(statement, f"periods of the history from {part[0][0]:%Y-%m} are missing", "missing")

    def copy(
        self, transaction: Transaction, pending: Pending, origin: Origin, rules: Sequence[Rule], after: int, until: int
    ) -> None:
        log = pending.log
        statement = self._copy(pending, origin, rules, after, until)
        reached = sql(_SET_REACHED, name=Literal(origin.setting), until=Literal(str(until)), **self.place)
        transaction.add(sql("ROLLBACK"), "nothing stays of an attempt that had to wait too long")
        transaction.add(sql("START TRANSACTION"), "the rows, and the id up to which they reach")
        transaction.add(statement, in_words(log, rules), "missing")
        transaction.add(reached, f"{log.title} is imported up to {until}")
        transaction.add(sql("COMMIT"), "the rows, and the id up to which they reach")

    def _copy(self, pending: Pending, origin: Origin, rules: Sequence[Rule], after: int, until: int) -> Sql:
        id_column, next_id = NAMED_ID[self.session.vendor]

        def by_table(row: str, make: Callable[[Rule], Sql]) -> Sql:
            return _by_table(row, rules, make)

        def masked(name: str) -> Sql:
            return by_table("r", lambda rule: self._masked(rule, f"r.{name}_values"))

        def left(name: str) -> Sql:
            return by_table("m", lambda rule: _left(rule, f"m.{name}_masked"))

        return sql(
            _COPY,
            id=sql(id_column),
            next_id=sql(next_id, **self.place),
            rows=self.rows(pending, after, until),
            old_masked=masked("old"),
            new_masked=masked("new"),
            old_left=left("old"),
            new_left=left("new"),
            changed=sql(_CHANGED),
            record_id=by_table("m", _record_id),
            title=text(pending.log.title),
            policy_id=Literal(origin.policy_id),
            **self.place,
        )

    def _masked(self, rule: Rule, image: str) -> Sql:
        places = [sql("{path}, '[REDACTED]'", path=_path(column)) for column in rule.redact]
        for column in rule.hash:
            value = sql(f"JSON_EXTRACT({image}, {{path}})", path=_path(column))
            digest = sql("{schema}.keyed_digest(JSON_UNQUOTE({value}))", value=value, **self.place)
            places.append(
                sql(
                    "{path}, IF(JSON_TYPE({value}) = 'NULL', NULL, {digest})",
                    path=_path(column),
                    value=value,
                    digest=digest,
                )
            )
        if not places:
            return sql(image)
        return sql(f"JSON_REPLACE({image}, {{places}})", places=Joined(", ", tuple(places)))

    def rows(self, pending: Pending, after: int, until: int) -> Sql:
        log = pending.log
        return sql(
            _ROWS,
            action=action_case(sql("v.action")),
            id=Identifier.of(log.mapping["id"]),
            changed_at=_changed_at(log),
            texts=Joined(",\n           ", tuple(_texts(log))),
            images=Joined(",\n           ", tuple(self._image(log, role) for role in ("old_values", "new_values"))),
            log=Identifier.of(*log.key),
            after=Literal(after),
            until=Literal(until),
        )

    def _image(self, log: ForeignLog, role: str) -> Sql:
        if role not in log.mapping:
            return sql(f"CAST(NULL AS {'JSON' if not self.session.is_mariadb else 'CHAR'}) AS {role}")
        column = Identifier.of(log.mapping[role])
        value, distinct = "s.{column}", ""
        if self.session.is_mariadb:
            value, distinct = "JSON_COMPACT(s.{column})", _DISTINCT
        return sql(
            _IMAGE.strip(),
            column=column,
            value=sql(value, column=column),
            distinct=sql(distinct, column=column),
            role=sql(role),
        )


def _partition(name: str, until: date) -> Sql:
    bound = Literal(f"{until} 00:00:00")
    return sql("PARTITION {name} VALUES LESS THAN ({bound})", name=Identifier.of(name), bound=bound)


_OF_BYTES = {
    "record_id": "TO_BASE64(s.{column})",
    "client_ip": "COALESCE(INET6_NTOA(s.{column}), TO_BASE64(s.{column}))",
}


def _path(column: str) -> Sql:
    return text("$." + json.dumps(column, ensure_ascii=False))


def _by_table(row: str, rules: Sequence[Rule], make: Callable[[Rule], Sql]) -> Sql:
    """Return an expression that is another one for each table; of a table without a rule, nothing is told."""
    cases = tuple(
        sql(
            f"WHEN {row}.table_name = {{table}} AND {row}.schema_name <=> {{schema}} THEN {{value}}",
            table=text(rule.table),
            schema=text(rule.schema) if rule.schema else sql("NULL"),
            value=make(rule),
        )
        for rule in rules
    )
    return sql("CASE {cases} END", cases=Joined("\n         ", cases))


def _left(rule: Rule, image: str) -> Sql:
    if not rule.leave_out:
        return sql(image)
    paths = Joined(", ", tuple(_path(column) for column in rule.leave_out))
    return sql(f"JSON_REMOVE({image}, {{paths}})", paths=paths)


def _record_id(rule: Rule) -> Sql:
    """Return the key as the images hold it, in clear or not; else what the log itself calls it."""
    otherwise = sql("m.record_id" if rule.plain_key else "NULL")
    if not rule.key:
        return otherwise
    parts = [sql("JSON_EXTRACT(COALESCE(m.new_masked, m.old_masked), {path})", path=_path(name)) for name in rule.key]
    if len(parts) == 1:
        return sql("COALESCE(JSON_UNQUOTE({part}), {otherwise})", part=parts[0], otherwise=otherwise)
    # JSON_ARRAY() of a NULL has null in it, where the image has not the whole key.
    whole = sql(
        "JSON_CONTAINS_PATH(COALESCE(m.new_masked, m.old_masked, '{}'), 'all', {paths})",
        paths=Joined(", ", tuple(_path(name) for name in rule.key)),
    )
    array = sql("JSON_ARRAY({parts})", parts=Joined(", ", tuple(parts)))
    return sql("IF({whole}, {array}, {otherwise})", whole=whole, array=array, otherwise=otherwise)


def _changed_at(log: ForeignLog) -> Sql:
    """Return the time in UTC; of a log without zones, by the server's own zone. What is no time is that of 1970."""
    column = sql("s.{column}", column=Identifier.of(log.mapping["changed_at"]))
    # A date of zeros is one that the driver and strict servers refuse.
    column = sql("IF(MONTH({column}) > 0 AND DAYOFMONTH({column}) > 0, {column}, NULL)", column=column)
    if log.relation.columns[log.mapping["changed_at"]] == "time":
        column = sql("COALESCE(CONVERT_TZ({column}, @@GLOBAL.time_zone, '+00:00'), {column})", column=column)
    return sql("CAST(COALESCE({column}, '1970-01-01') AS DATETIME(6))", column=column)


def _texts(log: ForeignLog) -> list[Sql]:
    """Return the columns that are text, and where a row's table has to be worked out, that."""

    def read(role: str) -> Sql:
        column = log.mapping[role]
        as_text = "s.{column}"
        if log.relation.columns[column] == "binary":
            # What is no text: a UUID of 16 bytes, an address as INET6_ATON() packs it.
            as_text = _OF_BYTES.get(role, as_text)
        return sql(f"CONVERT({as_text} USING utf8mb4) COLLATE utf8mb4_bin", column=Identifier.of(column))

    plain = {
        role: sql("NULLIF({value}, '')", value=read(role)) if role in log.mapping else sql("NULL")
        for role in ("action", "record_id", "changed_by", "db_user", "client_ip", "application_name")
    }
    schema, table = (text(name) for name in log.tables[0])
    if "table_name" in log.mapping:
        name = sql("COALESCE({name}, '')", name=read("table_name"))
        table = sql("SUBSTRING_INDEX({name}, '.', -1)", name=name)
        known = tuple(
            sql("WHEN {table} THEN {schema}", table=text(one), schema=text(where)) for one, where in log.schemas.items()
        )
        schema = sql(
            "IF(LOCATE('.', {name}) > 0, SUBSTRING_INDEX({name}, '.', 1), CASE {name} {known} END)",
            name=name,
            known=Joined(" ", known or (sql("WHEN NULL THEN NULL"),)),
        )
        if "schema_name" in log.mapping:
            table, schema = name, sql("NULLIF({value}, '')", value=read("schema_name"))
    limits = (("schema_name", schema, 64), ("table_name", table, 255))
    cut = {role: sql(f"LEFT({{value}}, {length})", value=value) for role, value, length in limits}
    named = {**plain, **cut}
    return [sql("{value} AS {name}", value=value, name=sql(name)) for name, value in named.items()]
