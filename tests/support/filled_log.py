# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A log of some months: our trail with its monthly partitions, filled with records as an application leaves them."""

from __future__ import annotations

from databases import Database, fetch
from local_postgresql import LocalPostgresql
from running import run_module

USERS = 2000
#: Named as the queries of docs/investigations.md name them; the others are numbered.
TABLES = ["users", "orders", *(f"table_{number:02}" for number in range(3, 51))]
KEYS_OF_A_TABLE = 10_000

# In the order of time, as a log is written; a table's share falls with its number, the first has a tenth of the rows.
# An update's record is the whole row twice, 480 bytes of JSON. One record of a thousand is an event.
_FILL = """
INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, record_id,
  old_values, new_values, changed_by, db_user, client_ip, application_name, context, policy_id)
SELECT m.changed_at, (1000 + m.n / 3)::text::xid8, m.action, 'public', m.table_name, m.key::text,
       CASE WHEN m.action IN ('UPDATE', 'DELETE') THEN i.image END,
       CASE WHEN m.action = 'INSERT' THEN i.image
            WHEN m.action = 'UPDATE' THEN i.image || jsonb_build_object('status', 'shipped', 'updated_at', m.changed_at)
            WHEN m.action <> 'DELETE' THEN jsonb_build_object('event', 'login', 'success', m.n %% 4 <> 0)
       END,
       CASE WHEN m.n %% 50 = 0 THEN 'shop_app' WHEN m.person = 0 THEN 'user@example.com'
            ELSE format('user%%s@example.com', m.person) END,
       'shop_app', '10.20.0.0'::inet + m.person, 'shop-web',
       jsonb_build_object('request_id', md5(m.n::text), 'business_process', 'process ' || m.person %% 20), 1
FROM (
  SELECT n, %(begin)s::timestamptz + n * ((%(until)s::timestamptz - %(begin)s) / %(rows)s) AS changed_at,
         (%(tables)s::text[])[1 + floor(%(table_count)s * random() * random())::int] AS table_name,
         5000 + floor(random() * %(keys)s)::int AS key, floor(random() * %(users)s)::int AS person,
         CASE WHEN n %% 2000 = 0 THEN 'DDL' WHEN n %% 1000 = 0 THEN 'EVENT'
              WHEN n %% 20 < 3 THEN 'INSERT' WHEN n %% 20 = 3 THEN 'DELETE' ELSE 'UPDATE' END AS action
  FROM generate_series(1, %(rows)s) AS n
) AS m
CROSS JOIN LATERAL (SELECT jsonb_build_object(
  'id', m.key, 'user_id', 5000 + (m.key * 7919 + m.n) %% %(keys)s, 'email', format('user%%s@example.com', m.key),
  'name', 'Name of ' || m.key, 'city', 'Springfield', 'amount', m.n %% 100000, 'status', 'new',
  'note', md5(m.n::text), 'updated_at', m.changed_at - interval '1 day') AS image) AS i
"""


def trail_of_months(server: LocalPostgresql, rows: int, months: int) -> Database:
    """Return a database with our trail, no index of the option `indexes`, and that many records up to this moment."""
    database = Database(server)
    run_module("postgresql_audit_trail", **database.login, indexes=[])
    session = database.connect()
    # The first period is the one of the time that it is told; the module then goes on to today's and those to come.
    fetch(session, "CALL audit.maintain_partitions(now() - %s * interval '1 month')", months - 1)
    run_module("postgresql_audit_partitions", **database.login)
    begin, until = fetch(
        session, "SELECT date_trunc('month', now()) - %s * interval '1 month', clock_timestamp()", months - 1
    )[0]
    values = {"begin": begin, "until": until, "rows": rows, "tables": TABLES, "table_count": len(TABLES)}
    with session.cursor() as cursor:
        cursor.execute(_FILL, {**values, "keys": KEYS_OF_A_TABLE, "users": USERS})
    # Autovacuum analyses partitions, but never the partitioned table itself.
    fetch(session, "VACUUM (ANALYZE) audit.audit_log_data")
    return database
