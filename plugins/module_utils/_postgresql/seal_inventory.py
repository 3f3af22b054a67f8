# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Triggers and functions of ours, from one seal to the next: what was altered in between, and whether the log knows.

A catalogue shows what is, not what was for an hour. But whatever alters an object writes its row in the catalogue
anew, and the number of the transaction that did stays with it: ``xmin``. It means nothing in another cluster, where a
dump was restored or pg_upgrade has been.
"""

from __future__ import annotations

from typing import Any

from .._core.sql import Identifier, Literal, Sql, sql
from .session import Session

# Definitions leave out what another server writes differently (OIDs in a parsed condition). Of the log's own guards,
# which come and go with partitions, only what they are counts: rows that changed while one was off, the seals show.
_CURRENT = """
SELECT o.object, min(o.schema_name) AS schema_name, min(o.table_name) AS table_name, max(o.relation) AS relation,
       string_agg(md5(o.definition), ' ' ORDER BY o.definition) AS definition, max(o.version) AS version
FROM (
  SELECT format('trigger %I on %I.%I', t.tgname, n.nspname, c.relname) AS object,
         n.nspname::text AS schema_name, c.relname::text AS table_name, c.oid::bigint AS relation,
         concat_ws(' ', t.tgenabled, p.proname, t.tgtype, encode(t.tgargs, 'hex')) AS definition,
         CASE WHEN p.pronamespace = n.oid THEN 0 ELSE t.xmin::text::bigint END AS version
  FROM pg_trigger AS t
  JOIN pg_proc AS p ON p.oid = t.tgfoid
  JOIN pg_class AS c ON c.oid = t.tgrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE p.pronamespace = {schema_text}::regnamespace
  UNION ALL
  SELECT format('function %I', p.proname), n.nspname, p.proname, 0,
         concat_ws(' ', p.prosrc, p.prosecdef, p.provolatile, p.proconfig::text, pg_get_userbyid(p.proowner)),
         p.xmin::text::bigint
  FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
  WHERE p.pronamespace = {schema_text}::regnamespace
  UNION ALL
  SELECT format('event trigger %I', e.evtname), NULL, e.evtname, 0,
         concat_ws(' ', e.evtenabled, e.evtevent, e.evttags::text, p.proname), 0
  FROM pg_event_trigger AS e JOIN pg_proc AS p ON p.oid = e.evtfoid
  WHERE p.pronamespace = {schema_text}::regnamespace
) AS o
GROUP BY o.object
"""

_CLUSTER = """
SELECT s.system_identifier || '/' || d.oid AS cluster
FROM pg_control_system() AS s, pg_database AS d WHERE d.datname = current_database()
"""

# What came up is nothing to explain, nor is what went with its table (a renamed one still has it), or a guard with a
# partition that was detached.
_CHANGES = """
WITH current AS MATERIALIZED ({current}), place AS MATERIALIZED ({cluster})
SELECT coalesce(c.object, k.object) AS object, coalesce(c.schema_name, k.schema_name) AS schema_name,
       coalesce(c.table_name, k.table_name) AS table_name,
       CASE WHEN k.object IS NULL THEN 'is new' WHEN c.object IS NULL THEN 'is gone'
            WHEN c.definition <> k.definition THEN 'was altered' ELSE 'was replaced' END AS change,
       k.object IS NULL OR (c.object IS NULL AND k.object LIKE 'trigger %' AND (
         to_regclass(format('%I.%I', k.schema_name, k.table_name)) IS NULL AND (
           k.cluster <> p.cluster
           OR NOT EXISTS (SELECT FROM pg_class AS y WHERE y.oid = k.relation::oid)
           OR EXISTS (SELECT FROM current AS n WHERE n.relation = k.relation
                      AND split_part(n.object, ' on ', 1) = split_part(k.object, ' on ', 1)))
         OR to_regnamespace(quote_ident(k.schema_name)) = {schema_text}::regnamespace AND NOT (
           SELECT y.relispartition OR y.relkind = 'p' FROM pg_class AS y
           WHERE y.oid = to_regclass(format('%I.%I', k.schema_name, k.table_name))))) AS harmless
FROM current AS c
FULL JOIN ({kept}) AS k ON k.object = c.object
CROSS JOIN place AS p
WHERE c.object IS NULL OR k.object IS NULL OR c.definition <> k.definition
   OR (c.version <> k.version AND k.cluster = p.cluster)
ORDER BY 1
"""

_DIGEST = """
SELECT encode(sha256(convert_to(coalesce(string_agg(
         jsonb_build_array(k.object, k.schema_name, k.table_name, k.relation, k.definition, k.version, k.cluster)::text,
         e'\\n'
         ORDER BY k.object COLLATE "C"), ''), 'UTF8')), 'hex') AS digest,
       count(*) > 0 AS filled
FROM ({objects}) AS k
"""

# What a seal without a signature has kept counts for nothing: whoever may write to tables can have put it there.
_KEPT = """
SELECT i.* FROM {schema}.seal_inventory AS i
WHERE i.seal = (SELECT max(c.number) FROM {schema}.seal AS c
                WHERE c.kind = 'catalog' AND c.signature IS NOT NULL
                  AND c.number IN (SELECT n.seal FROM {schema}.seal_inventory AS n))
"""

_OF_SEAL = "SELECT i.* FROM {schema}.seal_inventory AS i WHERE i.seal = {seal}"

_SETTLED = """
SELECT NOT EXISTS (SELECT FROM ({kept}) AS k WHERE k.cluster <> p.cluster)
   AND NOT EXISTS (SELECT FROM {schema}.seal AS c WHERE c.signature IS NULL AND c.kind = 'catalog') AS settled
FROM ({cluster}) AS p
"""

_FORGET = "DELETE FROM {schema}.seal_inventory"

_CLEAR = _FORGET + " AS i WHERE i.seal NOT IN (SELECT k.seal FROM ({kept}) AS k)"

_FILL = """
INSERT INTO {schema}.seal_inventory (seal, object, schema_name, table_name, relation, definition, version, cluster)
SELECT {seal}, c.object, c.schema_name, c.table_name, c.relation, c.definition, c.version, p.cluster
FROM ({current}) AS c CROSS JOIN ({cluster}) AS p
"""

#: What the record of a rollout calls itself where no event trigger records DDL.
EVENT = "audit_rollout"

# What a rollout, or anybody else, does to a table or function is in the log under the object's own name. Partitions get
# their triggers from their root, in the command that is recorded for that. (Not pg_partition_tree(), which waits for
# whoever holds a partition locked.)
_RECORDED = """
WITH RECURSIVE recorded AS (
  SELECT DISTINCT r.schema_name, r.table_name,
         r.new_values ->> 'event' IN ('GRANT', 'REVOKE') AND r.new_values ->> 'object_type' = 'function' AS granted,
         CASE r.action WHEN 'EVENT' THEN r.new_values -> 'objects' END AS objects
  FROM {schema}.audit_log_data AS r
  WHERE r.id > {after}
    AND (r.action = 'DDL' OR (r.action = 'EVENT' AND r.schema_name = {schema_name} AND r.table_name = {event}))
), tree (relation, schema_name, table_name, granted, objects) AS (
  SELECT c.oid, r.schema_name, r.table_name, r.granted, r.objects
  FROM recorded AS r
  LEFT JOIN pg_namespace AS n ON n.nspname = r.schema_name
  LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = r.table_name
  UNION ALL
  SELECT c.oid, n.nspname::text COLLATE "default", c.relname::text COLLATE "default", t.granted, t.objects
  FROM tree AS t
  JOIN pg_inherits AS i ON i.inhparent = t.relation
  JOIN pg_class AS c ON c.oid = i.inhrelid AND c.relispartition
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
)
SELECT DISTINCT t.schema_name, t.table_name, t.granted, t.objects FROM tree AS t
"""


class Inventory:
    """The objects of one trail, compared with what the last seal has kept of them."""

    def __init__(self, session: Session, schema: str) -> None:
        self.session = session
        self.places = {
            "schema": Identifier.of(schema),
            "schema_text": Literal(session.identifier(schema)),
            "schema_name": Literal(schema),
            "event": Literal(EVENT),
            "cluster": sql(_CLUSTER),
        }
        self.places["current"] = sql(_CURRENT, **self.places)
        self.places["kept"] = sql(_KEPT, **self.places)

    def changes(self, after: int) -> list[dict[str, Any]]:
        """Return what is not as it was at the last seal, and whether the log has a record of it after an id."""
        found = self._all(_CHANGES)
        if not found:
            return []
        rows = self._all(_RECORDED, after=Literal(after))
        recorded = {(row.schema_name, row.table_name) for row in rows}
        named = {name for row in rows for name in row.objects or ()}
        # The server does not report which functions a GRANT is about; it writes their rows anew and changes no code.
        granted = {"was replaced"} if any(row.granted for row in rows) else set()
        return [
            {
                "object": row.object,
                "change": row.change,
                "recorded": row.harmless
                or row.object in named
                or (row.schema_name, row.table_name) in recorded
                or (row.object.startswith("function ") and row.change in granted),
            }
            for row in found
        ]

    def differ(self) -> bool:
        """Tell whether anything is not as it was at the last seal, what is new included."""
        return bool(self._all(_CHANGES))

    def altered(self) -> set[str]:
        """Return the names of the objects that are not as they were at the last seal."""
        return {row.object for row in self._all(_CHANGES) if row.change != "is new"}

    def digest(self) -> str | None:
        """Return the digest of what the last signed seal has kept, or None when there is nothing yet."""
        row = self._all(_DIGEST, objects=self.places["kept"])[0]
        return row.digest if row.filled else None

    def forget(self) -> None:
        """Keep nothing: the next seal says how the objects are then, and compares them with nothing."""
        self._execute(_FORGET)

    def clear(self) -> None:
        """Keep only what the last signed seal has kept."""
        self._execute(_CLEAR)

    def settled(self) -> bool:
        """Tell whether what is kept is this cluster's, whose transaction numbers count, and no seal of it waits."""
        return bool(self._all(_SETTLED)[0].settled)

    def keep(self, seal: int) -> str:
        """Keep the objects as they are now for a seal; return the digest. To be called in a transaction."""
        number = Literal(seal)
        self._execute(_FILL, seal=number)
        return self._all(_DIGEST, objects=sql(_OF_SEAL, seal=number, **self.places))[0].digest

    def _execute(self, statement: str, **places: Any) -> None:
        self.session.execute(sql(statement, **self.places, **places).render(self.session))

    def _all(self, query: str, **places: Any) -> list[Any]:
        statement: Sql = sql(query, **self.places, **places)
        return self.session.all(statement.render(self.session))
