# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Undo on PostgreSQL: what the log and the table say, in five queries, and the execution in one block."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .._core.errors import AuditError
from .._core.module import AuditModule
from .._core.sql import Identifier, Joined, Literal, Sql, Verbatim, sql
from .._core.undo import Change, Doubt, Found, Restoration, Target, UndoColumn
from .._core.undo_module import UndoOptions, parse_options, undo
from . import undo_queries as queries
from .apply import failure
from .canonical import DIGESTED_AS
from .session import Session
from .trail_functions import CONTEXT_SETTING
from .undo_catalog import PgUndoTable, read_table
from .undo_order import ordered


def run(module: AuditModule, session: Session) -> None:
    """Undo what the module's options ask for."""
    options = parse_options(module)
    undo(module, session, PgUndo(session, options), options)


class PgUndo:
    """The engine of an undo on PostgreSQL."""

    preamble: Sequence[str] = ()
    # Of an identity column the value that it had, too, where GENERATED ALWAYS would make another one.
    insert_hint = " OVERRIDING SYSTEM VALUE"

    def __init__(self, session: Session, options: UndoOptions) -> None:
        if options.transaction_id is not None and not options.transaction_id.isdecimal():
            raise AuditError(
                f"transaction_id: {options.transaction_id!r} is no transaction of PostgreSQL: it is a number"
            )
        self.session = session
        self.options = options
        #: The old values of the changes to undo, by id.
        self.images: dict[int, str] = {}
        session.one(queries.SETTINGS)

    def table(self) -> PgUndoTable:
        table = read_table(self.session, self.options.table, self.options.schema)
        options = self.options
        self.places: dict[str, Any] = {
            "schema": Identifier.of(options.schema),
            "schema_name": Literal(table.schema),
            "table_name": Literal(table.name),
            "transaction_id": Literal(options.transaction_id),
            "digested_as": sql(DIGESTED_AS),
        }
        since = queries.SINCE_TIME if options.to else queries.SINCE_TRANSACTION
        self.places["since"] = sql(since, to=Literal(options.to), **self.places)
        if not self.session.one("SELECT to_regclass(%(log)s)", {"log": self.identifier(options.schema, "audit_log")})[
            0
        ]:
            raise AuditError(
                f"{self.session.database}: no audit trail in schema {options.schema!r}; nothing was recorded"
            )
        return table

    def truncation(self) -> tuple[str, str] | None:
        query = sql(queries.TRUNCATION, time=sql(queries.TIME, time=sql("d.changed_at")), **self.places)
        rows = self.session.all(query.render(self.session))
        return tuple(rows[0]) if rows else None

    def changes(self, table: PgUndoTable) -> tuple[int, list[Change]]:
        options = self.options
        single = len(table.key) == 1
        query = sql(
            queries.CHANGES,
            wanted=self._wanted(),
            changed=sql("d.changed_columns" if not options.whole else queries.MASKED_CHANGES),
            old_key=_key(table, queries.OLD_VALUE),
            new_key=_key(table, queries.NEW_VALUE),
            record=sql("(p.key::jsonb) ->> 0" if single else "p.key"),
            records=sql("n.record_id IN ({ids})", ids=_joined(", ", map(Literal, options.record_ids)))
            if options.record_ids
            else sql("true"),
            every=sql("false" if options.whole else "true"),
            limit=Literal(options.limit),
            time=sql(queries.TIME, time=sql("f.changed_at")),
            **self.places,
        )
        rows = self.session.all(query.render(self.session))
        found = ordered(self.session, [row for row in rows if row.id is not None], self.places, options.whole)
        images = self._images({row.id for row, _doubt in found if row.wanted})
        self.images = {number: image.old_values for number, image in images.items()}
        return rows[0].records, [self._change(row, images.get(row.id), table, doubt) for row, doubt in found]

    def compare(self, table: PgUndoTable, targets: Sequence[Target]) -> list[Found]:
        if not targets:
            return []
        columns = [column for column in table.columns if not column.generated]
        names = [column.name for column in columns]
        rows = self.session.all(self._comparison(table, columns, targets).render(self.session))
        return [
            Found(
                row.present,
                dict(zip(table.key, row.key)),
                {name: value for name, value in zip(names, row.wanted) if value is not None},
                {name: value for name, value in zip(names, row.seen) if value is not None},
            )
            for row in rows
        ]

    def execute(self, restorations: Sequence[Restoration], table: PgUndoTable) -> None:
        options = self.options
        document = {
            "steps": [
                {"record_id": entry.record_id, "restore": entry.restore, "statement": entry.statement}
                for entry in restorations
            ],
            "context_setting": CONTEXT_SETTING,
            # The login has made these changes; policies that insist on a user get to know that.
            "context": json.dumps({"user": self.session.one("SELECT session_user")[0], **options.context}),
            "lock_timeout": f"{int(options.lock_timeout * 1000)}ms",
            "lock_retries": options.lock_retries,
        }
        failed = self.session.run_block(queries.EXECUTE, "dbfleet.undo", document, "dbfleet.undo_failure")
        if failed:
            what = f"record {failed['record_id']} ({failed['restore']}): " if failed["restore"] else ""
            reason = failure(table.title, failed["sqlstate"], failed["message"]).explanation
            detail = f" ({failed['detail']})" if failed["detail"] else ""
            raise AuditError(f"{table.title}: {what}{reason}{detail}; nothing was changed")

    def identifier(self, *parts: str) -> str:
        return self.session.identifier(*parts)

    def relation(self, table: PgUndoTable) -> str:
        return ("ONLY " if table.has_children else "") + self.identifier(table.schema, table.name)

    def matches(self, column: UndoColumn, literal: str) -> str:
        name, value = self.identifier(column.name), f"{literal}::{column.type}"
        if not column.comparable:
            # Two rows without a cast would be compared by the operators of their columns, which there are none of.
            return f"ROW({name})::record *= ROW({value})::record"
        return f"{name} IS NULL" if literal.startswith("NULL") else f"{name} = {value}"

    def _wanted(self) -> Sql:
        tests = [sql("true")]
        if self.options.changed_by is not None:
            tests.append(sql("d.changed_by = {user}", user=Literal(self.options.changed_by)))
        if self.options.transaction_id is not None:
            tests.append(sql("d.transaction_id = {transaction_id}", **self.places))
        return Joined(" AND ", tuple(tests))  # type: ignore[return-value]

    def _images(self, ids: set[int]) -> dict[int, Any]:
        if not ids:
            return {}
        query = sql(
            queries.IMAGES,
            old_columns=sql(queries.COLUMNS, image=sql("d.old_values")),
            new_columns=sql(queries.COLUMNS, image=sql(queries.NEW_IMAGE)),
            ids=_joined(", ", map(Literal, sorted(ids))),
            **self.places,
        )
        return {row.id: row for row in self.session.all(query.render(self.session))}

    def _change(self, row: Any, images: Any, table: PgUndoTable, doubt: Doubt | None) -> Change:
        key, image = row.key, {}
        if images:
            image = (images.new_columns if row.action == "INSERT" else images.old_columns) or {}
        if key is None and row.record_id is not None and image.keys() <= table.names:
            # A policy that leaves the key out of the images: the record's id is all that there is of it.
            key = row.record_id if len(table.key) > 1 else json.dumps([row.record_id])
        return Change(
            row.id,
            row.record_id,
            row.action,
            key,
            row.wanted,
            row.moved,
            row.changed_by,
            row.changed_at,
            image,
            tuple(row.changed_columns),
            row.last_id,
            doubt,
        )

    def _comparison(self, table: PgUndoTable, columns: Sequence[UndoColumn], targets: Sequence[Target]) -> Sql:
        types = {column.name: column for column in table.columns}
        keys = [types[name] for name in table.key]
        return sql(
            queries.COMPARE,
            items=Literal(json.dumps([self._item(number, target) for number, target in enumerate(targets)])),
            keys=_joined(", ", (sql(queries.LITERAL, row=sql("k"), column=Identifier.of(name)) for name in table.key)),
            key_values=_joined(
                ", ",
                (
                    sql("{name}, i.key -> {position}", name=Literal(name), position=Literal(position))
                    for position, name in enumerate(table.key)
                ),
            ),
            key_types=_joined(
                ", ",
                (sql("{name} {type}", name=Identifier.of(column.name), type=Verbatim(column.type)) for column in keys),
            ),
            same_key=_joined(" AND ", (_same_key(column) for column in keys)),
            relation=Verbatim(self.relation(table)),
            wanted=_joined(", ", (_asked(queries.WANTED, "w", column, table) for column in columns)),
            seen=_joined(", ", (_asked(queries.SEEN, "t", column, table) for column in columns)),
        )

    def _item(self, number: int, target: Target) -> dict[str, Any]:
        sources: dict[int, list[str]] = {}
        for name, change_id in target.sources.items():
            sources.setdefault(change_id, []).append(name)
        return {
            "number": number,
            "key": target.first.key,
            "exists": target.exists,
            "checked": target.checked,
            "images": [[self.images[change_id], names] for change_id, names in sources.items()],
        }


def _joined(separator: str, pieces: Any) -> Joined:
    return Joined(separator, tuple(pieces))


def _key(table: PgUndoTable, value: str) -> Sql:
    parts = _joined(", ", (sql(value, name=Literal(name)) for name in table.key))
    return sql(queries.KEY, parts=parts)


def _same_key(column: UndoColumn) -> Sql:
    template = "t.{name} = k.{name}" if column.comparable else "ROW(t.{name})::record *= ROW(k.{name})::record"
    return sql(template, name=Identifier.of(column.name))


def _asked(template: str, row: str, column: UndoColumn, table: PgUndoTable) -> Sql:
    name = Literal(column.name)
    literal = queries.MONEY if column.name in table.money else queries.LITERAL
    return sql(
        template,
        name=name,
        differs=sql(queries.DIFFERS, name=name),
        literal=sql(literal, row=sql(row), column=Identifier.of(column.name)),
    )
