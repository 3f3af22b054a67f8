# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archived rows in a table of their own, beside the log of one PostgreSQL database."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from .._core.errors import AuditError
from .._core.sql import Identifier, Literal, sql
from .canonical import canonical
from .roles import OWNER
from .session import Session

_COMMENT = """
SELECT to_regclass({log}) IS NOT NULL AS installed, to_regclass({name}) IS NOT NULL AS made,
       coalesce(obj_description(to_regclass({name}), 'pg_class'), '') AS comment
"""

_DROP = "DROP TABLE IF EXISTS {table}"
_CREATE = "CREATE TABLE {table} (LIKE {schema}.audit_log_data)"
_INDEX = "CREATE INDEX ON {table} (table_name, record_id)"
_SET_COMMENT = "COMMENT ON TABLE {table} IS {comment}"

# Whoever may read the log.
_GRANT = """
DO $dbfleet$
DECLARE
  v_reader text;
BEGIN
  FOR v_reader IN
    SELECT DISTINCT g.grantee::regrole::text
    FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS g
    WHERE c.oid = {view}::regclass AND g.privilege_type = 'SELECT' AND g.grantee <> 0
  LOOP
    EXECUTE format('GRANT SELECT ON %s TO %s', {name}::regclass, v_reader);
  END LOOP;
END
$dbfleet$
"""

_LINES = "CREATE TEMPORARY TABLE IF NOT EXISTS line (text text) ON COMMIT DELETE ROWS"
_COPY = "COPY line (text) FROM STDIN (ENCODING '{encoding}')"

# By hand and not by jsonb_populate_record(), which takes a JSON null for no value.
_INSERT = """
INSERT INTO {table} (id, changed_at, transaction_id, action, schema_name, table_name, record_id, old_values, new_values,
                     hidden_changes, changed_by, db_user, client_ip, application_name, context, policy_id)
SELECT (j.row ->> 'id')::bigint, (j.row ->> 'changed_at')::timestamp AT TIME ZONE 'UTC',
       (j.row ->> 'transaction_id')::xid8, j.row ->> 'action', j.row ->> 'schema_name', j.row ->> 'table_name',
       j.row ->> 'record_id', j.row -> 'old_values', j.row -> 'new_values',
       CASE WHEN j.row ? 'hidden_changes' THEN ARRAY(SELECT jsonb_array_elements_text(j.row -> 'hidden_changes')) END,
       j.row ->> 'changed_by', j.row ->> 'db_user', (j.row ->> 'client_ip')::inet, j.row ->> 'application_name',
       j.row -> 'context', (j.row ->> 'policy_id')::int
FROM line AS l CROSS JOIN LATERAL (SELECT l.text::jsonb AS row OFFSET 0) AS j
"""
_DIFFERENT = """
SELECT count(*) AS rows
FROM line AS l LEFT JOIN {table} AS r ON r.id = (l.text::jsonb ->> 'id')::bigint
WHERE {text} IS DISTINCT FROM l.text
"""

_COUNT = "SELECT count(*) AS rows FROM {table}"


class RestoreStore:
    """See _core/restore_step.py, which says what each method is for."""

    def __init__(self, session: Session, schema: str) -> None:
        self.session = session
        self.schema = schema

    def comment(self, table: str) -> str | None:
        names = {
            "log": Literal(self.session.identifier(self.schema, "audit_log_data")),
            "name": Literal(self.session.identifier(self.schema, table)),
        }
        found = self.session.one(sql(_COMMENT, **names).render(self.session))
        if not found.installed:
            raise AuditError(f"{self.session.database}: no audit trail in schema {self.schema!r}; run site.yml first")
        return found.comment if found.made else None

    def make(self, table: str, comment: str) -> None:
        names = {
            "view": Literal(self.session.identifier(self.schema, "audit_log")),
            "name": Literal(self.session.identifier(self.schema, table)),
        }
        for text in ("BEGIN", "SET LOCAL ROLE {owner}", _DROP, _CREATE, _INDEX, _SET_COMMENT, _GRANT, "COMMIT"):
            self._execute(text, table, owner=Identifier.of(OWNER), comment=Literal(comment), **names)

    def load(self, table: str, lines: Sequence[str]) -> int:
        self._execute("BEGIN", table)
        self._execute(_LINES, table)
        with self.session.connection.cursor() as cursor:
            escaped = "".join(line.replace("\\", "\\\\") + "\n" for line in lines)
            plain = self.session.connection.get_parameter_status("server_encoding") == "SQL_ASCII"
            copy = _COPY.format(encoding="SQL_ASCII" if plain else "UTF8")
            cursor.copy_expert(copy, io.BytesIO(escaped.encode(errors="surrogateescape")))
        self._execute(_INSERT, table)
        different = self.session.one(
            sql(_DIFFERENT, table=Identifier.of(self.schema, table), text=canonical("r")).render(self.session)
        ).rows
        self._execute("ROLLBACK" if different else "COMMIT", table)
        return int(different)

    def finish(self, table: str, comment: str) -> int:
        self._execute(_SET_COMMENT, table, comment=Literal(comment))
        name = Identifier.of(self.schema, table)
        return int(self.session.one(sql(_COUNT, table=name).render(self.session)).rows)

    def _execute(self, template: str, table: str, **places: Any) -> None:
        names = {"schema": Identifier.of(self.schema), "table": Identifier.of(self.schema, table)}
        self.session.execute(sql(template, **names, **places).render(self.session))
