# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record that a rollout leaves of the objects it has changed, where the log is sealed and gets no DDL.

Elsewhere event triggers record what a rollout does. Without them (a login that is no superuser, `events` without ddl),
the next seal would find objects that were altered, and nothing in the log that says by whom.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .._core.sql import Identifier, Joined, Literal, Sql, sql
from .seal_inventory import EVENT, Inventory
from .session import Session

_EXISTS = """
SELECT CASE WHEN has_schema_privilege(to_regnamespace({schema_text})::oid, 'USAGE')
            THEN to_regclass({inventory}) IS NOT NULL AND EXISTS (
                   SELECT FROM pg_proc AS p
                   WHERE p.pronamespace = to_regnamespace({schema_text}) AND p.proname = 'record_event')
            ELSE false END AS made
"""

_WANTED = """
SELECT EXISTS (SELECT FROM {schema}.seal_inventory)
   AND NOT EXISTS (SELECT FROM pg_event_trigger AS e
                   WHERE e.evtname = 'dbfleet_audit_record_ddl' AND e.evtenabled <> 'D') AS wanted
"""

# In the name of the schema, which log_event() leaves empty: no application can write such a record.
_RECORD = """
SELECT {schema}.record_event('EVENT', {schema_text}, {event}, NULL, NULL, {document}::jsonb)
"""

# Before it is done: objects that the last seal knows are about to go.
_GOING = """
SELECT {schema}.record_event('EVENT', {schema_text}, {event}, NULL, NULL,
         jsonb_build_object('event', {event}, 'success', true, 'objects', k.objects))
FROM (SELECT jsonb_agg(DISTINCT i.object) AS objects FROM {schema}.seal_inventory AS i WHERE {which}) AS k
WHERE k.objects IS NOT NULL
"""


def leaving(schema: str, table: str) -> Sql:
    """Return what records that the triggers of a partition go. To be executed while no sealing run is at work.

    DETACH takes cloned triggers away, and no event trigger is told of it.
    """
    which = "i.schema_name = {schema_text} AND i.table_name = {table}"
    return _going(schema, sql(which, schema_text=Literal(schema), table=Literal(table)))


def removal(schema: str, kept: Sequence[str]) -> Sql:
    """Return what records that functions and event triggers go, while there is something that can record it.

    Who takes the trail out takes out what records it, which is why it is recorded before.

    :param kept: functions that stay.
    """
    names = Joined(", ", tuple(Literal(f"function {name}") for name in kept))
    return _going(schema, sql("i.object NOT LIKE 'trigger %' AND i.object NOT IN ({kept})", kept=names))


def _going(schema: str, which: Sql) -> Sql:
    return sql(_GOING, schema=Identifier.of(schema), schema_text=Literal(schema), event=Literal(EVENT), which=which)


@contextmanager
def recorded(session: Session, schema: str | None) -> Iterator[None]:
    """Record which of the objects that the last seal knows are others afterwards; nothing where nothing is sealed."""
    if not (schema and _is_made(session, schema) and _is_wanted(session, schema)):
        yield
        return
    inventory = Inventory(session, schema)
    before = inventory.altered()
    yield
    if not _is_made(session, schema):
        return
    changed = sorted(inventory.altered() - before)
    if changed:
        document = Literal({"event": EVENT, "success": True, "objects": changed})
        places = {"schema": Identifier.of(schema), "schema_text": Literal(schema), "event": Literal(EVENT)}
        session.execute(sql(_RECORD, document=document, **places).render(session))


def _is_made(session: Session, schema: str) -> bool:
    name = session.identifier(schema)
    places = {"inventory": Literal(f"{name}.seal_inventory"), "schema_text": Literal(name)}
    return bool(session.one(sql(_EXISTS, **places).render(session)).made)


def _is_wanted(session: Session, schema: str) -> bool:
    return bool(session.one(sql(_WANTED, schema=Identifier.of(schema)).render(session)).wanted)
