# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""On MariaDB and MySQL the log's views leave its indexes and partitions to be used, by the page's own queries."""

from __future__ import annotations

import typing as t

import pymysql.cursors
import pytest
from investigations import investigations
from local_mysql import LocalMysql
from mysql_databases import Schema, fetch
from running import run_module

pytestmark = pytest.mark.own_server

INDEXES = ["record", "changed_by", "changed_at", "transaction"]
MONTHS = 4

INDEXED = {
    "History of one record": "record",
    "One column, value by value": "record",
    "Guides: one record": "record",
    "All changes to a person's data": "record",
    "Everything one user did": "changed_by",
    "Guides: one user": "changed_by",
    "One transaction": "transaction",
}

#: How many days back a query looks.
PRUNED = {
    "Deletions of the last 24 hours": 1,
    "Bulk operations per hour": 7,
    "Bulk operations per transaction": 7,
    "Changes without an application user": 7,
    "Failed logins and denials": 7,
    "Off-hours and weekends": 30,
    "Who changed a column": 30,
    "Guides: audit_logs": 30,
}

_DIGITS = "(SELECT 0 AS n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)"  # fmt: skip  # noqa: E501

# 50,000 records of some months up to now, of 50 tables, 500 keys each, by 500 users.
_FILL = f"""
INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, record_id,
  old_values, new_values, changed_columns, changed_by, db_user)
SELECT UTC_TIMESTAMP(6) - INTERVAL (49999 - r.n) * {MONTHS - 1} * 50 SECOND, CAST(4000 + r.n DIV 3 AS CHAR),
       CASE WHEN r.n % 20 = 0 THEN 'DELETE' ELSE 'UPDATE' END, 'shop',
       CASE r.n % 50 WHEN 0 THEN 'users' WHEN 1 THEN 'orders' ELSE CONCAT('table_', r.n % 50) END,
       12000 + r.n DIV 50 % 500, '{{"user_id": 1, "email": "a@b"}}', '{{"user_id": 1, "email": "b@c"}}', '["email"]',
       CASE r.n * 7919 % 500 WHEN 0 THEN 'user@example.com' ELSE CONCAT('user', r.n * 7919 % 500) END, 'shop_app'
FROM (SELECT a.n + 10 * b.n + 100 * c.n + 1000 * d.n + 10000 * e.n AS n
      FROM {_DIGITS} AS a, {_DIGITS} AS b, {_DIGITS} AS c, {_DIGITS} AS d, {_DIGITS} AS e) AS r
WHERE r.n < 50000
ORDER BY r.n
"""


class Access(t.NamedTuple):
    """How the log is read for a query: the partitions and the index."""

    partitions: list[str]
    index: str | None


def access(schema: Schema, query: str) -> Access:
    """Return how the server would read the log."""
    session = schema.connect(database="audit", cursorclass=pymysql.cursors.DictCursor)
    session.query("SET time_zone = '+00:00'")
    rows = fetch(session, f"EXPLAIN {'PARTITIONS ' if schema.server.is_mariadb else 'FORMAT = TRADITIONAL '}{query}")
    (row,) = (row for row in rows if row["partitions"])
    return Access(row["partitions"].split(","), row["key"])


@pytest.fixture
def log(new_mysql_server: t.Callable[..., LocalMysql]) -> t.Iterator[Schema]:
    """Return a database on a server whose log has some months of records, and every index."""
    with Schema(new_mysql_server()) as schema:
        run_module("mysql_audit_trail", indexes=INDEXES, **schema.login)
        fetch(
            schema.connect(),
            "CALL audit.maintain_partitions_at(UTC_TIMESTAMP(6) - INTERVAL %s MONTH)",
            MONTHS,
        )
        run_module("mysql_audit_partitions", **schema.login)
        schema.execute(_FILL)
        schema.execute("ANALYZE TABLE audit.audit_log_data")
        yield schema


def test_indexes_and_partitions_serve_the_pages_queries(log):
    queries = investigations("mysql")
    assert {*INDEXED, *PRUNED, "The session", "Guides: off-hours"} == set(queries)
    used = {title: access(log, queries[title]) for title in (*INDEXED, *PRUNED, "Guides: off-hours")}
    assert {title: used[title].index for title in INDEXED} == INDEXED
    every = log.value("SELECT COUNT(*) FROM information_schema.partitions WHERE table_schema = 'audit' "
                      "AND table_name = 'audit_log_data'")  # fmt: skip
    assert len(used["Guides: off-hours"].partitions) == every
    # The periods to come, and the catch-all, may hold such rows as well.
    ahead = log.value("SELECT COUNT(*) FROM information_schema.partitions WHERE table_schema = 'audit' "
                      "AND table_name = 'audit_log_data' AND (partition_description = 'MAXVALUE' "
                      "OR REPLACE(partition_description, '''', '') > CAST(UTC_TIMESTAMP() AS CHAR))")  # fmt: skip
    for title, days in PRUNED.items():
        months = log.value("SELECT TIMESTAMPDIFF(MONTH, DATE_FORMAT(UTC_TIMESTAMP() - INTERVAL %s DAY, '%%Y-%%m-01'), "
                           "UTC_TIMESTAMP())", days)  # fmt: skip
        assert len(used[title].partitions) <= ahead + months, title
