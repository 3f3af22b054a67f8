# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A log whose months are over, and what else could copy them: COPY into gzip."""

from __future__ import annotations

import concurrent.futures
import pathlib
import subprocess

from auditing import rollout
from databases import Database
from local_postgresql import LocalPostgresql
from running import run_module

#: Full of rows, and over.
MONTHS = 4

# In the order of time, as a log is written. As updates of a table of ten columns leave them, 500 to 600 bytes, with
# values that a compressor has seen before and some that it has not: a note, an amount, times.
_FILL = """
INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, record_id,
  old_values, new_values, changed_by, db_user, client_ip, application_name, policy_id)
SELECT m.at, (1000 + m.n / 3)::text::xid8, 'UPDATE', 'public', (%(tables)s::text[])[1 + m.n %% 3], m.key::text,
       i.image, i.image || jsonb_build_object('status', 'shipped', 'updated_at', to_char(m.at, %(time)s)),
       format('user%%s@example.com', m.person), 'shop_app', '10.20.0.0'::inet + m.person, 'shop-web', 1
FROM (
  SELECT n, b.first + n * ((b.until - b.first) / (%(rows)s + 1)) AS at,
         floor(random() * 100000)::int AS key, floor(random() * 2000)::int AS person
  FROM generate_series(1, %(rows)s) AS n
  CROSS JOIN (SELECT date_trunc('month', now(), 'UTC') - %(months)s * interval '1 month' AS first,
                     date_trunc('month', now(), 'UTC') AS until) AS b
) AS m
CROSS JOIN LATERAL (SELECT jsonb_build_object(
  'id', m.key, 'customer', 5000 + m.key %% 10000, 'note', left(md5(m.n::text), 12), 'city', 'Springfield',
  'price', m.n::bigint * 7919 %% 100000, 'status', 'new', 'quantity', 3, 'size', NULL, 'gift', false,
  'updated_at', to_char(m.at - interval '1 day', %(time)s)) AS image OFFSET 0) AS i
"""

TABLES = ["payment", "patient", "item"]

_PARTITIONS = """
SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'audit.audit_log_data'::regclass AND c.reltuples > 0 ORDER BY c.relname
"""


def old_months(server: LocalPostgresql, rows: int, name: str | None = None) -> Database:
    """Return a database with that many records in the months that are over."""
    log = Database(server, name)
    # The first period is the one of the time that it is told; the module then goes on to today's and those to come.
    run_module("postgresql_audit_trail", **log.login)
    log.execute("CALL audit.maintain_partitions(date_trunc('month', now(), 'UTC') - %s * interval '1 month')", MONTHS)
    run_module("postgresql_audit_partitions", **log.login)
    for table in TABLES:
        log.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, name text)")
    rollout(log, policies=[{"tables": ["public.*"]}])
    with log.connect() as connection, connection.cursor() as cursor:
        cursor.execute(_FILL, {"rows": rows, "months": MONTHS, "tables": TABLES, "time": "YYYY-MM-DD HH24:MI:SS"})
    log.execute("VACUUM (ANALYZE) audit.audit_log_data")
    return log


def partitions(log: Database) -> list[str]:
    """Return the names of partitions that have rows."""
    return [name for (name,) in log.execute(_PARTITIONS)]


def copy_partitions(log: Database, names: list[str], at_once: int, directory: pathlib.Path) -> None:
    """Have COPY write partitions through gzip into files, some of them at a time."""
    directory.mkdir(exist_ok=True)

    def copy(name: str) -> None:
        server = log.server
        psql = [server.binaries / "psql", "-qX", "-h", server.socket_dir, "-p", str(server.port), "-U", "postgres"]
        command = [*psql, "-d", log.name, "-c", f"COPY audit.{name} TO STDOUT"]
        opened = (directory / f"{name}.gz").open("wb")
        with opened as file, subprocess.Popen(command, stdout=subprocess.PIPE) as copying:
            subprocess.run(["gzip"], stdin=copying.stdout, stdout=file, check=True)
        if copying.returncode:
            raise AssertionError(f"COPY of {name} ended with {copying.returncode}")

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        list(pool.map(copy, names))
