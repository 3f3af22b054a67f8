# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Undo on MariaDB and MySQL: what the log and the table say, and the execution in one transaction."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .._core.errors import AuditError
from .._core.module import AuditModule
from .._core.sql import Identifier, Joined, Literal, Sql, Verbatim, sql
from .._core.undo import Change, Found, Restoration, Target, UndoColumn
from .._core.undo_module import UndoOptions, parse_options, undo
from .apply import LOCK_ERRORS, LOCKED, TIMEOUTS, batch_limit
from .capture import DB_USER
from .session import SQL_MODE, Session, describe, is_lost, pymysql
from .undo_catalog import MysqlUndoTable, read_table
from .undo_value import condition, image_of, literal, members, same, scalars

# Times of the type TIMESTAMP are read in the session's time zone, a zero as a key would become the next number, and the
# log may hold dates that no calendar has.
_SESSION = (
    "SET NAMES utf8mb4, SESSION time_zone = '+00:00', SESSION sql_mode = "
    f"'{SQL_MODE},NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES';"
)

_CONTEXT = """
SET @audit_context = JSON_SET({context}, '$.user', {db_user}), @audit_user = NULL, @audit_transaction = UUID_SHORT()
"""

_LOG = """
SELECT COUNT(*) AS found FROM information_schema.tables AS t
WHERE t.table_schema = {schema} AND t.table_name = 'audit_log'
"""

_SINCE_TIME = "d.changed_at > {to}"
_SINCE_TRANSACTION = """d.id >= (
      SELECT MIN(s.id) FROM {schema}.audit_log AS s
      WHERE s.transaction_id = {transaction_id} AND s.schema_name = {schema_name} AND s.table_name = {table_name})"""

# As on PostgreSQL (see there). Keys are told apart by their digests: sorting would look at the first kilobyte alone,
# and a comparison would ignore spaces at the end.
_CHANGES = """
WITH change_ AS (
  SELECT d.id, d.changed_at, d.action, d.changed_by, d.record_id AS recorded, d.changed_columns,
         {wanted} AS wanted, {old_key} AS old_key, {new_key} AS new_key
  FROM {schema}.audit_log AS d
  WHERE d.schema_name = {schema_name} AND d.table_name = {table_name}
    AND d.action IN ('INSERT', 'UPDATE', 'DELETE') AND {since}
), keyed AS (
  SELECT c.*, c.action = 'UPDATE' AND SHA2(c.old_key, 256) <> SHA2(c.new_key, 256) AS is_moved
  FROM change_ AS c
), part AS (
  SELECT k.*, COALESCE(k.is_moved, FALSE) AS moved,
         CASE WHEN k.is_moved THEN IF(p.number = 0, 'DELETE', 'INSERT') ELSE k.action END AS part_action,
         IF(k.is_moved AND p.number = 0, k.old_key, COALESCE(k.new_key, k.old_key)) AS part_key
  FROM keyed AS k
  JOIN (SELECT 0 AS number UNION ALL SELECT 1) AS p ON p.number = 0 OR k.is_moved
), named AS (
  SELECT p.*, COALESCE({record}, p.recorded) AS record_id FROM part AS p
), digested AS (
  SELECT n.*, SHA2(n.record_id, 256) AS digest FROM named AS n WHERE {records}
), fact AS (
  SELECT g.*, MIN(CASE WHEN g.wanted THEN g.id END) OVER (PARTITION BY g.digest) AS first_id,
         MAX(g.id) OVER (PARTITION BY g.digest) AS last_id
  FROM digested AS g
), touched AS (
  SELECT g.digest, GROUP_CONCAT(DISTINCT g.changed_columns SEPARATOR ', ') AS names
  FROM digested AS g
  GROUP BY g.digest
), total AS (
  SELECT COUNT(DISTINCT COALESCE(g.digest, '')) AS records FROM digested AS g WHERE g.wanted
)
SELECT n.records, f.id, f.record_id, f.part_action AS action, f.part_key AS `key`, f.wanted, f.moved, f.changed_by,
       DATE_FORMAT(f.changed_at, '%Y-%m-%dT%H:%i:%s.%fZ') AS changed_at, f.last_id,
       CONCAT('[', IF({every}, f.changed_columns, t.names), ']') AS changed_columns
FROM total AS n
LEFT JOIN fact AS f ON n.records <= {limit} AND f.id >= f.first_id AND ({every} OR f.id = f.first_id)
LEFT JOIN touched AS t ON t.digest = f.digest
ORDER BY f.digest, f.id
"""

# By their ids, which are few: images are too large to be sorted with everything else.
_IMAGES = """
SELECT d.id, d.old_values, d.new_values FROM {schema}.audit_log AS d WHERE d.id IN ({ids})
"""

_PRESENT = """
SELECT JSON_ARRAY({key}) AS `key`, JSON_OBJECT({values}) AS image
FROM {relation} AS t
WHERE ({names}) IN ({keys})
"""


def run(module: AuditModule, session: Session) -> None:
    """Undo what the module's options ask for."""
    options = parse_options(module)
    undo(module, session, MysqlUndo(session, options), options)


class MysqlUndo:
    """The engine of an undo on MariaDB and MySQL."""

    preamble = (_SESSION,)
    insert_hint = ""

    def __init__(self, session: Session, options: UndoOptions) -> None:
        self.session = session
        self.options = options
        #: The old values of the changes to undo, by id: columns and their JSON text.
        self.images: dict[int, dict[str, str]] = {}
        session.execute(_SESSION)

    def table(self) -> MysqlUndoTable:
        options = self.options
        #: The table as it is now, for the conditions of statements.
        self.now = read_table(self.session, options.table, options.schema)
        self.places: dict[str, Any] = {
            "schema": Identifier.of(options.schema),
            "schema_name": Literal(self.now.schema),
            "table_name": Literal(self.now.name),
            "transaction_id": Literal(options.transaction_id),
        }
        since = _SINCE_TIME if options.to else _SINCE_TRANSACTION
        self.places["since"] = sql(since, to=Literal(options.to), **self.places)
        if not self.session.one(sql(_LOG, schema=Literal(options.schema)).render(self.session))["found"]:
            raise AuditError(
                f"{self.session.database}: no audit trail in database {options.schema!r}; nothing was recorded"
            )
        return self.now

    def truncation(self) -> None:
        """Return nothing: no trigger sees TRUNCATE here."""

    def changes(self, table: MysqlUndoTable) -> tuple[int, list[Change]]:
        rows = self.session.all(self._query(table).render(self.session))
        found = [row for row in rows if row["id"] is not None]
        images = self._images({row["id"] for row in found if row["wanted"]})
        self.images = {number: members(row["old_values"]) for number, row in images.items() if row["old_values"]}
        return rows[0]["records"], [self._change(row, images.get(row["id"]), table) for row in found]

    def compare(self, table: MysqlUndoTable, targets: Sequence[Target]) -> list[Found]:
        if not targets:
            return []
        keys = [scalars(target.first.key or "[]") for target in targets]
        rows = self.session.all(self._present(table, keys).render(self.session))
        present = {tuple(scalars(row["key"])): members(row["image"]) for row in rows}
        return [self._found(table, target, key, present.get(tuple(key))) for target, key in zip(targets, keys)]

    def execute(self, restorations: Sequence[Restoration], table: MysqlUndoTable) -> None:
        if not table.is_transactional:
            raise AuditError(
                f"{table.title}: engine {table.engine} has no transactions, so that an undo that fails would stay half "
                "done; run the statements by hand"
            )
        options = self.options
        context = sql(_CONTEXT, context=Literal(options.context), db_user=sql(DB_USER)).render(self.session)
        self.session.execute(TIMEOUTS.format(seconds=max(1, math.ceil(options.lock_timeout))))
        self.session.execute(context)
        for attempt in range(options.lock_retries + 1):
            self.session.execute("START TRANSACTION")
            failed = self._attempt(restorations)
            if failed is None:
                self.session.execute("COMMIT")
                return
            self.session.execute("ROLLBACK")
            entry, number, reason = failed
            if number not in LOCK_ERRORS or attempt == options.lock_retries:
                raise AuditError(
                    f"{table.title}: record {entry.record_id} ({entry.restore}): {reason}; nothing was changed"
                )
            time.sleep(min(0.2 * (attempt + 1), 2))

    def identifier(self, *parts: str) -> str:
        return self.session.identifier(*parts)

    def relation(self, table: MysqlUndoTable) -> str:
        return self.identifier(table.schema, table.name)

    def matches(self, column: UndoColumn, literal: str) -> str:
        return condition(self.now.typed[column.name], literal, self.session, column.name in self.now.key)

    def _attempt(self, restorations: Sequence[Restoration]) -> tuple[Restoration, int, str] | None:
        """Execute the statements, many a round trip; return the one that failed, the error's number and the reason."""
        limit = batch_limit(self.session)
        batch: list[Restoration] = []
        size = 0
        for entry in restorations:
            length = len(entry.statement.encode())
            if batch and size + length > limit:
                failed = self._send(batch)
                if failed:
                    return failed
                batch, size = [], 0
            batch.append(entry)
            size += length
        return self._send(batch)

    def _send(self, batch: Sequence[Restoration]) -> tuple[Restoration, int, str] | None:
        counts: list[int] = []
        with self.session.connection.cursor() as cursor:
            try:
                cursor.execute("\n".join(entry.statement for entry in batch))
                counts.append(cursor.rowcount)
                while cursor.nextset():
                    counts.append(cursor.rowcount)
            except pymysql.MySQLError as error:
                if is_lost(error):
                    raise
                number = error.args[0]
                return batch[len(counts)], number, LOCKED if number in LOCK_ERRORS else describe(error)
        for entry, count in zip(batch, counts):
            if count != 1:
                return entry, 0, "it was changed in the meantime"
        return None

    def _query(self, table: MysqlUndoTable) -> Sql:
        options = self.options
        paths = [table.typed[name].path() for name in table.key]
        old = [sql("JSON_EXTRACT(d.old_values, {path})", path=path) for path in paths]
        new = [
            sql("COALESCE(JSON_EXTRACT(d.new_values, {path}), {old})", path=path, old=value)
            for path, value in zip(paths, old)
        ]
        return sql(
            _CHANGES,
            wanted=self._wanted(),
            old_key=_array(old),
            new_key=_array(new),
            record=sql("JSON_UNQUOTE(JSON_EXTRACT(p.part_key, '$[0]'))" if len(paths) == 1 else "p.part_key"),
            records=sql("n.record_id IN ({ids})", ids=_joined(", ", map(Literal, options.record_ids)))
            if options.record_ids
            else sql("TRUE"),
            every=sql("FALSE" if options.whole else "TRUE"),
            limit=Literal(options.limit),
            **self.places,
        )

    def _wanted(self) -> Joined:
        tests = [sql("TRUE")]
        if self.options.changed_by is not None:
            tests.append(sql("d.changed_by = {user}", user=Literal(self.options.changed_by)))
        if self.options.transaction_id is not None:
            tests.append(sql("COALESCE(d.transaction_id = {transaction_id}, FALSE)", **self.places))
        return Joined(" AND ", tuple(tests))

    def _images(self, ids: set[int]) -> dict[int, Mapping[str, Any]]:
        if not ids:
            return {}
        query = sql(_IMAGES, ids=_joined(", ", map(Literal, sorted(ids))), **self.places)
        return {row["id"]: row for row in self.session.all(query.render(self.session))}

    def _change(self, row: Mapping[str, Any], images: Any, table: MysqlUndoTable) -> Change:
        image = _image(row, images) if images else {}
        key = row["key"]
        if key is None and row["record_id"] is not None and image.keys() <= table.names:
            # A policy that leaves the key out of the images: the record's id is all that there is of it.
            key = row["record_id"] if len(table.key) > 1 else json.dumps([row["record_id"]])
        changed = json.loads(row["changed_columns"] or "[]")
        return Change(
            row["id"],
            row["record_id"],
            row["action"],
            key,
            bool(row["wanted"]),
            bool(row["moved"]),
            row["changed_by"],
            row["changed_at"],
            image,
            tuple(dict.fromkeys(name for names in changed for name in names)),
            row["last_id"],
        )

    def _present(self, table: MysqlUndoTable, keys: Sequence[Sequence[str]]) -> Sql:
        columns = [table.typed[name] for name in table.key]
        values = [column for column in table.columns if not column.generated]
        tuples = [
            [literal(column, json.dumps(value), self.session) for column, value in zip(columns, key)] for key in keys
        ]
        return sql(
            _PRESENT,
            key=_joined(", ", (column.value("t") for column in columns)),
            values=_joined(
                ", ",
                (
                    sql("{name}, {value}", name=Literal(column.name), value=table.typed[column.name].value("t"))
                    for column in values
                ),
            ),
            relation=Identifier.of(table.schema, table.name),
            names=_joined(", ", (column.reference("t") for column in columns)),
            keys=_joined(", ", (Verbatim(f"({', '.join(parts)})") for parts in tuples)),
        )

    def _found(
        self, table: MysqlUndoTable, target: Target, key: Sequence[str], image: Mapping[str, str] | None
    ) -> Found:
        def written(values: Mapping[str, str]) -> dict[str, str]:
            return {name: literal(table.typed[name], value, self.session) for name, value in values.items()}

        known = {column.name for column in table.columns if not column.generated}
        wanted = {name: self.images[number][name] for name, number in target.sources.items() if name in known}
        now = image or {}
        if image:
            wanted = {name: value for name, value in wanted.items() if not same(table.typed[name], value, image[name])}
        seen = wanted.keys() if target.exists else set(target.checked) & known
        found_key = {name: json.dumps(value) for name, value in zip(table.key, key)}
        return Found(
            image is not None,
            written(found_key),
            written({name: wanted[name] for name in table.typed if name in wanted}),
            written({name: now[name] for name in table.typed if name in seen and name in now}),
        )


def _image(row: Mapping[str, Any], images: Mapping[str, Any]) -> Mapping[str, str | None]:
    """Return the columns of the row before the change; of an INSERT, after it."""
    if row["action"] != "INSERT":
        return image_of(images["old_values"])
    new = image_of(images["new_values"])
    # An update may record the columns that it has changed and no others.
    return {**image_of(images["old_values"]), **new} if row["moved"] else new


def _joined(separator: str, pieces: Any) -> Joined:
    return Joined(separator, tuple(pieces))


def _array(values: Sequence[Sql]) -> Sql:
    """Return JSON values as the text of an array; NULL where one of them is missing."""
    return sql("CONCAT('[', {values}, ']')", values=_joined(", ', ', ", values))
