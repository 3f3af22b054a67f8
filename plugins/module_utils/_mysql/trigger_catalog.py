# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every table of a server with what auditing needs to know of it: a fixed number of queries for all tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._core.policy_versions import StoredPolicy
from .adoption import read_foreign_logs
from .column import JSON_CHECKS, Column
from .session import Session
from .trail_catalog import TrailCatalog
from .trigger import Slots, read_triggers

_SYSTEM = "('mysql', 'information_schema', 'performance_schema', 'sys')"

_TABLES = f"""
SELECT t.table_schema AS `schema`, t.table_name AS name, t.table_type AS type, t.engine AS engine
FROM information_schema.tables AS t
WHERE t.table_schema NOT IN {_SYSTEM} AND t.table_schema <> %(schema)s
  AND t.table_type NOT IN ('SEQUENCE', 'TEMPORARY')
ORDER BY t.table_schema, t.table_name
"""

_COLUMNS = f"""
SELECT c.table_schema AS `schema`, c.table_name AS `table`, c.column_name AS name, LOWER(c.data_type) AS kind,
       c.character_set_name AS charset, LOCATE('zerofill', c.column_type) > 0 AS `zerofill`
FROM information_schema.columns AS c
WHERE c.table_schema NOT IN {_SYSTEM} AND c.table_schema <> %(schema)s
ORDER BY c.table_schema, c.table_name, c.ordinal_position
"""

_KEYS = f"""
SELECT s.table_schema AS `schema`, s.table_name AS `table`, s.index_name AS name, s.column_name AS `column`,
       s.nullable = 'YES' AS nullable, s.sub_part IS NOT NULL AS partial
FROM information_schema.statistics AS s
WHERE s.non_unique = 0 AND s.table_schema NOT IN {_SYSTEM} AND s.table_schema <> %(schema)s
ORDER BY s.table_schema, s.table_name, s.index_name, s.seq_in_index
"""

_FOREIGN_KEYS = f"""
SELECT r.constraint_schema AS `schema`, r.table_name AS `table`, r.constraint_name AS name,
       r.referenced_table_name AS parent, r.delete_rule AS on_delete, r.update_rule AS on_update
FROM information_schema.referential_constraints AS r
WHERE (r.delete_rule IN ('CASCADE', 'SET NULL') OR r.update_rule IN ('CASCADE', 'SET NULL'))
  AND r.constraint_schema NOT IN {_SYSTEM} AND r.constraint_schema <> %(schema)s
"""

_POLICIES = """
SELECT p.policy_id, p.name, p.position, p.definition, p.valid_to IS NULL AS current
FROM {schema}.policy AS p
ORDER BY p.policy_id
"""

#: Engines whose rows live elsewhere, or that take no triggers.
_FOREIGN_ENGINES = ("FEDERATED", "CONNECT", "SPIDER", "S3", "PERFORMANCE_SCHEMA")
TRANSACTIONAL = ("INNODB", "ROCKSDB", "TOKUDB", "NDBCLUSTER", "NDB")


@dataclass(frozen=True)
class MysqlTable:
    """A table as the catalogue shows it; a database is its schema."""

    schema: str
    name: str
    type: str
    engine: str
    typed: tuple[Column, ...]
    key: tuple[str, ...]
    foreign_keys: tuple[str, ...]

    #: Tables do not inherit here, and the triggers of a partitioned table see all of its partitions.
    parent = None
    root = None

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.typed)

    @property
    def title(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def obstacle(self) -> str | None:
        if "VIEW" in self.type:
            return "a view: audit the tables below it"
        if self.engine.upper() in _FOREIGN_ENGINES:
            return f"engine {self.engine}: changes made elsewhere would not be seen; audit it there"
        return None

    @property
    def is_transactional(self) -> bool:
        return self.engine.upper() in TRANSACTIONAL


@dataclass
class TriggerCatalog:
    """What the server has: the trail, every table, our triggers, every stored policy.

    :ivar logs: tables that triggers of somebody else's copy other tables' rows into, and that we do not audit yet.
    """

    trail: TrailCatalog
    tables: Mapping[tuple[str, str], MysqlTable]
    triggers: Mapping[tuple[str, str], Slots]
    stored: Sequence[StoredPolicy]
    logs: set[tuple[str, str]] = field(default_factory=set)

    def triggers_of(self, table: MysqlTable) -> Slots:
        return self.triggers.get((table.schema, table.name), {})


def read(session: Session, trail: TrailCatalog) -> TriggerCatalog:
    """Read all tables outside the system's and the trail's databases."""
    place = {"schema": trail.schema}
    columns = _columns(session, place)
    keys = unique_keys(session.all(_KEYS, place))
    foreign_keys = _foreign_keys(session.all(_FOREIGN_KEYS, place))
    tables = {}
    for row in session.all(_TABLES, place):
        key = (row["schema"], row["name"])
        typed, unique = tuple(columns.get(key, ())), tuple(keys.get(key, ()))
        cascades = tuple(foreign_keys.get(key, ()))
        tables[key] = MysqlTable(*key, row["type"] or "", row["engine"] or "", typed, unique, cascades)
    stored = read_policies(session, trail.schema) if "policy" in trail.tables else []
    triggers = read_triggers(session, trail.schema, elsewhere=True)
    # What is audited already stays so, whatever somebody else's triggers write to it by now.
    logs = {log.key for log in read_foreign_logs(session) if log.repeats and log.key not in triggers}
    return TriggerCatalog(trail, tables, triggers, stored, logs)


def read_policies(session: Session, schema: str) -> list[StoredPolicy]:
    """Read every version of every policy; the trail must be installed."""
    return [
        StoredPolicy(
            row["policy_id"], row["name"], row["position"], json.loads(row["definition"]), bool(row["current"])
        )
        for row in session.all(_POLICIES.replace("{schema}", session.identifier(schema)))
    ]


def _columns(session: Session, place: Mapping[str, Any]) -> dict[tuple[str, str], list[Column]]:
    checks = set()
    if session.is_mariadb:
        checks = {(row["schema"], row["table"], row["clause"].lower()) for row in session.all(JSON_CHECKS)}
    columns: dict[tuple[str, str], list[Column]] = {}
    for row in session.all(_COLUMNS, place):
        clause = f"json_valid({session.identifier(row['name'])})".lower()
        kind = "json_text" if (row["schema"], row["table"], clause) in checks else row["kind"]
        column = Column(row["name"], kind, row["charset"], bool(row["zerofill"]))
        columns.setdefault((row["schema"], row["table"]), []).append(column)
    return columns


def unique_keys(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """Return the columns that identify a row: the primary key, else the smallest unique key without NULLs."""
    indexes: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        indexes.setdefault((row["schema"], row["table"]), {}).setdefault(row["name"], []).append(row)
    keys = {}
    for table, found in indexes.items():
        usable = {
            name: [part["column"] for part in parts]
            for name, parts in found.items()
            if all(part["column"] and not part["nullable"] and not part["partial"] for part in parts)
        }
        if usable:
            keys[table] = min(usable.items(), key=lambda item: (item[0] != "PRIMARY", len(item[1]), item[0]))[1]
    return keys


def _foreign_keys(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        rules = {"ON DELETE": row["on_delete"], "ON UPDATE": row["on_update"]}
        words = [f"{event} {rule}" for event, rule in rules.items() if rule in ("CASCADE", "SET NULL")]
        text = f"{row['name']} ({' '.join(words)}, from {row['parent']})"
        found.setdefault((row["schema"], row["table"]), []).append(text)
    return found
