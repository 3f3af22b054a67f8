# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A log that is filled at once, and the server's work for a sealing run on it: statements, time, pages."""

from __future__ import annotations

import contextlib
import typing as t

from databases import Database, connect, fetch
from local_postgresql import LocalPostgresql

#: A server must have these, for work_of().
COUNTING = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_planning": "on"}

# As updates of a table of ten columns leave them: 500 to 600 bytes, two images of some 190.
_FILL = """
INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, record_id,
  old_values, new_values, changed_by, db_user, client_ip, application_name, policy_id)
SELECT now() + n * interval '1 microsecond', (1000 + n / 3)::text::xid8,
       'UPDATE', 'public', 'orders', (n %% 100000)::text,
       i.image, i.image || jsonb_build_object('status', 'shipped', 'updated_at', to_char(now(), 'YYYY-MM-DD HH24:MI')),
       format('user%%s@example.com', n %% 2000), 'shop_app', '10.20.0.5', 'shop-web', 1
FROM generate_series(1, %s) AS n
CROSS JOIN LATERAL (SELECT jsonb_build_object(
  'id', n %% 100000, 'customer', 5000 + n %% 10000, 'sku', format('A-%%s', n %% 10000), 'city', 'Springfield',
  'price', n %% 100000, 'status', 'new', 'quantity', 3, 'size', NULL, 'gift', false,
  'updated_at', to_char(now() - interval '1 day', 'YYYY-MM-DD HH24:MI')) AS image OFFSET 0) AS i
"""

_WORK = """
SELECT coalesce(sum(calls), 0)::int AS statements, coalesce(sum(total_exec_time + total_plan_time), 0) AS milliseconds,
       coalesce(sum(shared_blks_hit + shared_blks_read), 0)::int AS pages,
       coalesce(sum(temp_blks_written), 0)::int AS spilled
FROM pg_stat_statements AS s JOIN pg_database AS d ON d.oid = s.dbid WHERE d.datname = %s
"""


class Work(t.NamedTuple):
    """What a server has done in one database."""

    statements: int
    milliseconds: float
    #: Of 8 kB, read from memory or disk.
    pages: int
    #: Pages that did not fit into work_mem and went to disk.
    spilled: int


def fill(db: Database, rows: int) -> None:
    """Add that many records."""
    db.execute(_FILL, rows)


def work_of(db: Database, action: t.Callable[[], t.Any]) -> tuple[Work, t.Any]:
    """Return what the server does in a database while an action runs, and what the action returns."""
    with contextlib.closing(connect(db.server, "postgres")) as connection:
        fetch(connection, "SELECT pg_stat_statements_reset()")
        result = action()
        return Work(*fetch(connection, _WORK, db.name)[0]), result


def counting_server(server: LocalPostgresql) -> LocalPostgresql:
    """Prepare a server that was made with COUNTING."""
    with contextlib.closing(connect(server, "postgres")) as connection:
        fetch(connection, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    return server
