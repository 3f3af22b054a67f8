# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record that a rollout leaves of the objects it has changed, where the log is sealed (seal_inventory.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .._core.sql import Identifier, Literal, sql
from .capture import CHANGED_AT, CLIENT_HOST, DB_USER
from .seal_inventory import EVENT, Inventory, Objects
from .session import Session

_SEALED = """
SELECT COUNT(*) AS number FROM information_schema.tables AS t
WHERE t.table_schema = %(schema)s AND t.table_name IN ('audit_log_data', 'seal_inventory')
"""

# In the name of the trail's database, which log_event() leaves empty: no application can write such a record.
_RECORD = """
INSERT INTO {schema}.audit_log_data (changed_at, action, schema_name, table_name, new_values, changed_by, db_user,
  client_ip, application_name)
VALUES ({changed_at}, 'EVENT', {schema_name}, {event}, {new_values}, {db_user}, {db_user},
  {client_host}, 'dbfleet.audit')
"""

#: Objects that one record names.
_AT_ONCE = 2_000


@contextmanager
def recorded(session: Session, schema: str | None) -> Iterator[None]:
    """Record which of the objects that the last seal knows are others afterwards; nothing where nothing is sealed."""
    if not (schema and _is_sealed(session, schema)):
        yield
        return
    inventory = Inventory(session, schema)
    before = inventory.current()
    yield
    if not _is_sealed(session, schema):
        return
    changed = _changed(inventory.known(), before, inventory.current())
    for start in range(0, len(changed), _AT_ONCE):
        _record(session, schema, changed[start : start + _AT_ONCE])


def _is_sealed(session: Session, schema: str) -> bool:
    if session.one(_SEALED, {"schema": schema})["number"] != 2:
        return False
    known = sql("SELECT 1 FROM {schema}.seal_inventory LIMIT 1", schema=Identifier.of(schema))
    return bool(session.all(known.render(session)))


def _changed(known: Objects, before: Objects, after: Objects) -> list[dict[str, Any]]:
    states = [(name, before.get(name), after.get(name)) for name in sorted(known)]
    return [
        {"object": name, "before": then and then.state, "after": now and now.state}
        for name, then, now in states
        if (then and then.state) != (now and now.state)
    ]


def _record(session: Session, schema: str, objects: list[dict[str, Any]]) -> None:
    places = {"changed_at": sql(CHANGED_AT), "db_user": sql(DB_USER), "client_host": sql(CLIENT_HOST)}
    values = Literal({"event": EVENT, "success": True, "objects": objects})
    places["schema_name"] = Literal(schema)
    statement = sql(_RECORD, schema=Identifier.of(schema), event=Literal(EVENT), new_values=values, **places)
    session.execute(statement.render(session))
