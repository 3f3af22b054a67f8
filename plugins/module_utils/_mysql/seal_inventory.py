# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Triggers, routines and events of ours, from one seal to the next: what was altered in between, and whether by us.

A catalogue shows what is, not what was for an hour; but it shows when each object was made or last altered, which means
nothing on another server, where a dump was restored. No trigger sees DDL here, so that a rollout itself leaves a record
in the log of what it has changed: each object with its state before and after. A change is explained where such records
lead from the state at the last seal to that of now without a gap.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from .._core.seal import NEW
from .._core.sql import Identifier, Joined, Literal, Sql, sql
from .accounts import WRITER
from .session import Session
from .trigger import PREFIX

#: What a record of a rollout calls itself.
EVENT = "audit_rollout"

_VERSION = "COALESCE(DATE_FORMAT({moment}, '%Y-%m-%d %H:%i:%s.%f'), '')"

# A dump that was restored may end a body with another blank or semicolon.
_CODE = "TRIM(TRAILING ';' FROM TRIM({body}))"

_OBJECTS = {
    "triggers": f"""
SELECT CONCAT('trigger ', t.trigger_name, ' on ', t.event_object_schema, '.', t.event_object_table) AS object,
       t.event_object_schema AS schema_name, t.event_object_table AS table_name,
       SHA2(CONCAT_WS(' ', t.action_timing, t.event_manipulation, t.definer, t.sql_mode,
                      {_CODE.format(body="t.action_statement")}), 256) AS definition,
       {_VERSION.format(moment="t.created")} AS version
FROM information_schema.triggers AS t
WHERE t.trigger_name LIKE {{pattern}} OR t.definer = {{writer}} OR t.event_object_schema = {{schema_name}}
""",
    "routines": f"""
SELECT CONCAT(LOWER(r.routine_type), ' ', r.routine_name) AS object,
       r.routine_schema AS schema_name, r.routine_name AS table_name,
       SHA2(CONCAT_WS(' ', r.definer, r.security_type, r.sql_data_access, r.sql_mode,
                      {_CODE.format(body="r.routine_definition")}), 256) AS definition,
       {_VERSION.format(moment="r.last_altered")} AS version
FROM information_schema.routines AS r
WHERE r.routine_schema = {{schema_name}}
""",
    "events": f"""
SELECT CONCAT('event ', e.event_name) AS object, e.event_schema AS schema_name, e.event_name AS table_name,
       SHA2(CONCAT_WS(' ', e.definer, e.sql_mode, e.interval_value, e.interval_field,
                      {_CODE.format(body="e.event_definition")}), 256) AS definition,
       {_VERSION.format(moment="e.last_altered")} AS version
FROM information_schema.events AS e
WHERE e.event_schema = {{schema_name}}
""",
}

# What tells servers apart; not all have all of it.
_SERVER = """
SHOW GLOBAL VARIABLES WHERE variable_name IN ('server_uuid', 'server_uid', 'hostname', 'port', 'datadir')
"""

_COLUMNS = "k.object, k.schema_name, k.table_name, k.definition, k.version, k.server"

_OF_SEAL = f"SELECT {_COLUMNS} FROM {{schema}}.seal_inventory AS k WHERE k.seal = {{seal}}"

# What a seal without a signature has kept counts for nothing: whoever may write to tables can have put it there.
_SIGNED = """
SELECT MAX(c.number) AS number FROM {schema}.seal AS c
WHERE c.kind = 'catalog' AND c.signature IS NOT NULL AND c.number IN (SELECT n.seal FROM {schema}.seal_inventory AS n)
"""

_TABLES = """
SELECT t.table_schema AS schema_name, t.table_name AS table_name
FROM information_schema.tables AS t
WHERE (t.table_schema, t.table_name) IN ({names})
"""

_FORGET = "DELETE FROM {schema}.seal_inventory"
_CLEAR = "DELETE FROM {schema}.seal_inventory WHERE NOT seal <=> {signed}"
_FILL = """
INSERT INTO {schema}.seal_inventory (seal, object, schema_name, table_name, definition, version, server) VALUES {rows}
"""
#: Objects that one statement writes.
_AT_ONCE = 1_000

_RECORDS = """
SELECT r.new_values FROM {schema}.audit_log_data AS r
WHERE r.id > {after} AND r.action = 'EVENT' AND r.schema_name = {schema_name} AND r.table_name = {event}
ORDER BY r.id
"""


@dataclass(frozen=True)
class Object:
    """A trigger, routine or event."""

    object: str
    schema_name: str
    table_name: str
    definition: str
    version: str
    server: str

    @property
    def state(self) -> str:
        """What changes with every change of it."""
        return f"{self.definition} {self.version}"


#: Objects by name.
Objects = Mapping[str, Object]


class Inventory:
    """The objects of one trail."""

    def __init__(self, session: Session, schema: str) -> None:
        self.session = session
        self.places = {
            "schema": Identifier.of(schema),
            "schema_name": Literal(schema),
            "pattern": Literal(PREFIX.replace("_", "\\_") + "%"),
            "writer": Literal(str(WRITER)),
            "event": Literal(EVENT),
        }

    def read(self) -> Found:
        """Return the objects that there are, beside those of the last seal."""
        return Found(self, self.current(), self.known())

    def current(self) -> Objects:
        server = " ".join(sorted(row["Value"] for row in self.session.all(_SERVER)))
        rows = [row for query in _OBJECTS.values() for row in self._all(query)]
        return {row["object"]: Object(**row, server=server) for row in rows}

    def known(self) -> Objects:
        signed = self._signed()
        return {} if signed is None else self._of_seal(signed)

    def _of_seal(self, seal: int) -> Objects:
        return {row["object"]: Object(**row) for row in self._all(_OF_SEAL, seal=Literal(seal))}

    def _signed(self) -> int | None:
        number: int | None = self._all(_SIGNED)[0]["number"]
        return number

    def records(self, after: int) -> list[Mapping[str, Any]]:
        """Return what rollouts have recorded after an id, in order: `object`, `before` and `after`."""
        rows = self._all(_RECORDS, after=Literal(after))
        return [entry for row in rows for entry in json.loads(row["new_values"]).get("objects", [])]

    def tables(self, names: set[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those of the tables that there are."""
        if not names:
            return set()
        pairs = tuple(sql("({a}, {b})", a=Literal(a), b=Literal(b)) for a, b in sorted(names))
        return {(row["schema_name"], row["table_name"]) for row in self._all(_TABLES, names=Joined(", ", pairs))}

    def forget(self) -> None:
        """Know no objects of a last seal any more."""
        self._execute(_FORGET)

    def clear(self) -> None:
        """Keep only what the last signed seal has kept."""
        self._execute(_CLEAR, signed=Literal(self._signed()))

    def keep(self, seal: int, found: Found) -> str:
        """Keep the objects as they were found for a seal; return the digest. To be called in a transaction."""
        objects = list(found.current.values())
        for start in range(0, len(objects), _AT_ONCE):
            rows = tuple(_values(seal, one) for one in objects[start : start + _AT_ONCE])
            self._execute(_FILL, rows=Joined(", ", rows))
        return digest(self._of_seal(seal))

    def _execute(self, statement: str, **places: Any) -> None:
        self.session.execute(sql(statement, **self.places, **places).render(self.session))

    def _all(self, query: str, **places: Any) -> list[dict[str, Any]]:
        return self.session.all(sql(query, **self.places, **places).render(self.session))


@dataclass(frozen=True)
class Found:
    """The objects that there are, and those of the last seal."""

    inventory: Inventory
    current: Objects
    known: Objects

    @property
    def stale(self) -> bool:
        """Whether what is kept is another server's, whose times mean nothing here."""
        return not self._here()

    @property
    def kept(self) -> str:
        """The digest of what the last seal has kept."""
        return digest(self.known)

    def changes(self, after: int) -> list[dict[str, Any]]:
        """Return what is not as it was at the last seal, and whether the log has records of it after an id."""
        changed = {name: how for name in sorted({*self.current, *self.known}) if (how := self._change(name))}
        if not changed:
            return []
        gone = {name for name, how in changed.items() if how == "is gone" and name.startswith("trigger ")}
        places = {name: (self.known[name].schema_name, self.known[name].table_name) for name in gone}
        left = self.inventory.tables(set(places.values()))
        records = self.inventory.records(after)
        harmless = {name for name, how in changed.items() if how == NEW}
        harmless |= {name for name in gone if places[name] not in left}
        restored = self.stale
        return [
            {"object": name, "change": how, "recorded": name in harmless or self._explained(name, records, restored)}
            for name, how in changed.items()
        ]

    def _here(self) -> bool:
        servers = {known.server for known in self.known.values()}
        return not servers or servers == {found.server for found in self.current.values()}

    def _change(self, name: str) -> str:
        now, then = self.current.get(name), self.known.get(name)
        if then is None:
            return NEW
        if now is None:
            return "is gone"
        if now.definition != then.definition:
            return "was altered"
        return "was replaced" if now.server == then.server and now.version != then.version else ""

    def _explained(self, name: str, records: list[Mapping[str, Any]], restored: bool) -> bool:
        """Tell whether records lead from the state at the last seal to that of now; a dump has times of its own."""
        now = self.current.get(name)

        def told(state: str | None) -> str | None:
            return state.split()[0] if state and restored else state

        passed = [told(self.known[name].state)]
        for record in records:
            if record["object"] == name and told(record["before"]) == passed[-1]:
                passed.append(told(record["after"]))
        # Not only the last one: somebody may have gone on after the objects were read.
        return told(now.state if now else None) in passed


def digest(objects: Objects) -> str:
    """Return the SHA-256 of objects, in hex."""
    lines = (json.dumps(list(astuple(one))) for one in objects.values())
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _values(seal: int, one: Object) -> Sql:
    fields = (seal, one.object, one.schema_name, one.table_name, one.definition, one.version, one.server)
    return sql("({values})", values=Joined(", ", tuple(Literal(field) for field in fields)))
