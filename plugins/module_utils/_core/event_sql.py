# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The queries on the log, in the SQL that PostgreSQL, MariaDB and MySQL share; values are bound by the driver."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable

from .event_query import EventQuery

SELECT = """
SELECT {columns}
FROM {log} AS e
WHERE {conditions}
ORDER BY e.changed_at {order}, e.id {order}
"""

COUNT = """
SELECT COUNT(*) AS total
FROM {log} AS e
WHERE {conditions}
"""

_CONDITIONS = {
    "schema_name": "e.schema_name = %(schema_name)s",
    "table_name": "e.table_name = %(table_name)s",
    "record_id": "e.record_id = %(record_id)s",
    "changed_by": "e.changed_by = %(changed_by)s",
    "db_user": "e.db_user = %(db_user)s",
    "transaction_id": "e.transaction_id = %(transaction_id)s",
    "actions": "e.action IN %(actions)s",
    "since": "e.changed_at >= %(since)s",
    "until": "e.changed_at < %(until)s",
}

# No engine leaves partitions out because of a comparison of rows; the half before it is what lets it.
_AFTER = {
    "asc": "e.changed_at >= %(after_time)s AND (e.changed_at, e.id) > (%(after_time)s, %(after_id)s)",
    "desc": "e.changed_at <= %(after_time)s AND (e.changed_at, e.id) < (%(after_time)s, %(after_id)s)",
}


@dataclass(frozen=True)
class Dialect:
    """What an engine says in words of its own."""

    #: The columns of an event as texts, in the order of EVENT_FIELDS.
    columns: str
    #: That a column of the audited table held a value before or after the change: both are numbered `{n}`.
    value: str
    #: What stands for the column's name there.
    key: Callable[[str], str]


def select(dialect: Dialect, log: str, query: EventQuery) -> tuple[str, dict[str, Any]]:
    """Return the query for events and the values to bind.

    :param log: the view, quoted.
    """
    text, parameters = _narrow(SELECT, dialect, log, query)
    if query.limit is not None:
        text += "LIMIT %(limit)s"
        parameters["limit"] = query.limit
    return text, parameters


def count(dialect: Dialect, log: str, query: EventQuery) -> tuple[str, dict[str, Any]]:
    """Return the query for the number of events, wherever a page begins, and the values to bind."""
    return _narrow(COUNT, dialect, log, replace(query, after=None))


def _narrow(template: str, dialect: Dialect, log: str, query: EventQuery) -> tuple[str, dict[str, Any]]:
    conditions = [_CONDITIONS[name] for name in query.conditions]
    parameters = dict(query.conditions)
    for number, (column, value) in enumerate(query.values.items()):
        conditions.append(dialect.value.format(n=number))
        parameters.update({f"key_{number}": dialect.key(column), f"value_{number}": value})
    if query.after:
        conditions.append(_AFTER[query.order])
        parameters.update(after_time=query.after.changed_at, after_id=query.after.id)
    text = template.format(
        columns=dialect.columns.strip(),
        # The drivers take a percent sign for the beginning of a place.
        log=log.replace("%", "%%"),
        conditions="\n  AND ".join(conditions) or "TRUE",
        order=query.order.upper(),
    )
    return text, parameters
