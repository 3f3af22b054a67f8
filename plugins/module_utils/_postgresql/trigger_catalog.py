# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every table of a database with what auditing needs to know of it: one query, whatever the number of tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .._core.policy_versions import StoredPolicy
from .session import Session

#: The columns that identify a row: the primary key, else the replica identity, else the smallest unique key.
KEYS = """
  SELECT DISTINCT ON (i.indrelid) i.indrelid,
         ARRAY(SELECT a.attname::text
               FROM unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k (attnum, position)
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
               ORDER BY k.position) AS columns
  FROM pg_index i
  WHERE i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
    AND i.indrelid {which}
    AND NOT EXISTS (SELECT FROM pg_attribute a
                    WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) AND NOT a.attnotnull)
  ORDER BY i.indrelid, i.indisprimary DESC, i.indisreplident DESC, i.indnkeyatts, i.indexrelid
"""

# Conditions are compared as the server parsed them. pg_get_triggerdef() would be easier to read, but it locks the
# table, so that a single table that somebody holds locked would stop the run for all the others.

#: A WHEN condition (of `pg_trigger AS t`) as a digest, less the places in the text that it came from, and the types of
#: OLD and NEW: their number is another one in a restored database.
CONDITION_DIGEST = "md5(regexp_replace(t.tgqual::text, ' :(location|vartype) -?[0-9]+', '', 'g'))"

# The triggers of a row fire by name, in the order of bytes, and those of a statement after all of them. tgtype: ROW 1,
# BEFORE 2, INSERT 4, DELETE 8, UPDATE 16, INSTEAD 64. Of what a function does, its text is all that there is.
_TABLES = """
WITH relation AS (
  SELECT c.oid, n.nspname, c.relname, c.relkind, c.relowner, c.relpersistence, c.relispartition, c.relnamespace,
         pg_has_role(c.relowner, 'USAGE') AS owned,
         pg_has_role(c.relowner, 'USAGE') OR has_table_privilege(c.oid, 'TRIGGER') AS permitted
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND c.relpersistence <> 't'
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
    AND n.nspname <> %(schema)s
    AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
), attribute AS (
  SELECT attrelid, array_agg(attname::text ORDER BY attnum) AS columns
  FROM pg_attribute
  WHERE attnum > 0 AND NOT attisdropped AND attrelid IN (SELECT oid FROM relation)
  GROUP BY attrelid
), key AS (
{keys}
), parent AS (
  SELECT i.inhrelid, min(i.inhparent) AS inhparent FROM pg_inherits i GROUP BY i.inhrelid
), clone_off AS (
  SELECT DISTINCT a.relid AS root, tgname
  FROM pg_trigger, pg_partition_ancestors(tgrelid) AS a
  WHERE tgparentid <> 0 AND tgenabled <> 'A' AND tgname LIKE 'dbfleet\\_audit\\_%%'
), trigger AS (
  SELECT t.tgrelid, jsonb_object_agg(t.tgname, jsonb_build_object(
           'function', p.proname, 'ours', p.pronamespace = to_regnamespace(quote_ident(%(schema)s)),
           'enabled', t.tgenabled, 'type', t.tgtype, 'columns', t.tgattr::text,
           'arguments', encode(t.tgargs, 'hex'),
           'condition', {digest},
           'clones_off', o.tgname IS NOT NULL,
           'transition', coalesce(t.tgoldtable::text, '') || ' ' || coalesce(t.tgnewtable::text, ''))) AS triggers
  FROM pg_trigger t
  JOIN pg_proc p ON p.oid = t.tgfoid
  LEFT JOIN clone_off o ON o.root = t.tgrelid AND o.tgname = t.tgname
  WHERE NOT t.tgisinternal AND t.tgparentid = 0
    AND (t.tgname LIKE 'dbfleet\\_audit\\_%%' OR p.pronamespace = to_regnamespace(quote_ident(%(schema)s)))
    AND t.tgrelid IN (SELECT oid FROM relation)
  GROUP BY t.tgrelid
), nesting AS (
  SELECT t.tgrelid, jsonb_object_agg(t.tgname, t.tgname::text COLLATE "C" < 'dbfleet_audit_') AS triggers
  FROM pg_trigger t
  JOIN relation r ON r.oid = t.tgrelid
  JOIN pg_proc p ON p.oid = t.tgfoid
  WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled <> 'D'
    AND t.tgtype & 67 = 1 AND t.tgtype & 28 <> 0
    AND p.pronamespace IS DISTINCT FROM to_regnamespace(quote_ident(%(schema)s))
    AND p.prosrc ~* ('(?<!\\w)' || regexp_replace(r.relname, '([][\\\\.^$*+?(){}|-])', '\\\\\\1', 'g') || '(?!\\w)')
  GROUP BY t.tgrelid
)
SELECT r.nspname AS schema, r.relname AS name, r.relkind AS kind, r.relpersistence AS persistence,
       pg_get_userbyid(r.relowner) AS owner,
       r.owned, r.permitted, a.columns, k.columns AS key, t.triggers,
       g.triggers AS nesting,
       pn.nspname AS parent_schema, pc.relname AS parent_name,
       CASE WHEN r.relispartition THEN rn.nspname END AS root_schema, rc.relname AS root_name,
       EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = r.oid) AS has_children,
       EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid = r.oid) AS subscribed
FROM relation r
LEFT JOIN attribute a ON a.attrelid = r.oid
LEFT JOIN key k ON k.indrelid = r.oid
LEFT JOIN trigger t ON t.tgrelid = r.oid
LEFT JOIN nesting g ON g.tgrelid = r.oid
LEFT JOIN parent i ON i.inhrelid = r.oid
LEFT JOIN pg_class pc ON pc.oid = i.inhparent AND NOT r.relispartition
LEFT JOIN pg_namespace pn ON pn.oid = pc.relnamespace
LEFT JOIN pg_class rc ON r.relispartition AND rc.oid = pg_partition_root(r.oid)
LEFT JOIN pg_namespace rn ON rn.oid = rc.relnamespace
ORDER BY r.nspname, r.relname
"""

_POLICIES = """
SELECT p.policy_id, p.name, p.position, p.definition, p.valid_to IS NULL AS current
FROM {schema}.policy AS p
ORDER BY p.policy_id
"""

_OBSTACLES = {
    "v": "a view: audit the tables below it",
    "m": "a materialised view: audit the tables below it",
    "f": "a foreign table: changes made on the remote server would not be seen; audit it there",
}


@dataclass(frozen=True)
class PgTable:
    """A table as the catalogue shows it.

    :ivar owned: whether the login has its owner's rights; without them it can make triggers and do no more.
    :ivar nesting: AFTER ROW triggers of the application that seem to write to the table itself, each with whether it
        fires before those of ours that fire for each row.
    """

    schema: str
    name: str
    kind: str
    persistence: str
    owner: str
    owned: bool
    permitted: bool
    columns: tuple[str, ...]
    key: tuple[str, ...]
    triggers: dict[str, Any]
    parent: tuple[str, str] | None
    root: tuple[str, str] | None
    has_children: bool
    subscribed: bool
    nesting: dict[str, bool] = field(default_factory=dict)

    @property
    def obstacle(self) -> str | None:
        if self.kind in _OBSTACLES:
            return _OBSTACLES[self.kind]
        return None if self.permitted else "no rights: the login neither owns it nor holds TRIGGER on it"

    @property
    def title(self) -> str:
        return f"{self.schema}.{self.name}"


def read_tables(session: Session, schema: str) -> dict[tuple[str, str], PgTable]:
    """Read all tables, views and foreign tables outside the system's and the trail's schemas."""
    query = _TABLES.replace("{keys}", KEYS.replace("{which}", "IN (SELECT oid FROM relation)"))
    query = query.replace("{digest}", CONDITION_DIGEST)
    rows = session.all(query, {"schema": schema})
    return {(row.schema, row.name): _table(row) for row in rows}


def read_policies(session: Session, schema: str) -> list[StoredPolicy]:
    """Read every version of every policy; the trail must be installed."""
    rows = session.all(_POLICIES.replace("{schema}", session.identifier(schema)))
    return [StoredPolicy(*row) for row in rows]


def _table(row: Any) -> PgTable:
    parent = (row.parent_schema, row.parent_name) if row.parent_name else None
    root = (row.root_schema, row.root_name) if row.root_name else None
    return PgTable(
        row.schema,
        row.name,
        row.kind,
        row.persistence,
        row.owner,
        row.owned,
        row.permitted,
        tuple(row.columns or ()),
        tuple(row.key or ()),
        row.triggers or {},
        parent,
        root,
        row.has_children,
        row.subscribed,
        row.nesting or {},
    )
