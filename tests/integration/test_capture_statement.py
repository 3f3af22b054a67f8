# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Statement capture writes the records that row capture writes, and is refused where it would miss rows."""

from __future__ import annotations

import typing as t

import pytest
from auditing import records, refusal, rollout, trail_database, wanted
from databases import Database, fetch
from local_postgresql import LocalPostgresql

#: Name of a table below -> its columns, and what a policy says of them.
SHAPES: dict[str, tuple[str, dict[str, t.Any]]] = {
    "plain": ("id int PRIMARY KEY, name text, n numeric", {}),
    "keyless": ("id int, name text, n numeric", {}),
    "composite": ("id int, name text, n numeric, x text DEFAULT 'x', PRIMARY KEY (x, id)", {}),
    "masked": ("id int PRIMARY KEY, name text, n numeric", {"columns": {"redact": ["name"], "hash": ["id"]}}),
    "without": ("id int PRIMARY KEY, name text, n numeric", {"columns": {"exclude": ["n"]}}),
    "only": ("id int PRIMARY KEY, name text, n numeric", {"columns": {"only": ["id", "n"]}}),
    "secret": ("id int PRIMARY KEY, name text, n numeric", {"columns": {"exclude": ["name"], "redact": ["name"]}}),
    "partly": ("id int PRIMARY KEY, name text, n numeric", {"update_image": "changed", "columns": {"redact": ["n"]}}),
    # Columns with the names of everything that a statement in the function could also mean.
    "aliases": (
        "id int PRIMARY KEY, name text, n numeric, a int DEFAULT 1, b int DEFAULT 2, o int DEFAULT 3, r int DEFAULT 4, "
        "t int DEFAULT 5, position int DEFAULT 6, v_safe int DEFAULT 7, v_masked int DEFAULT 8, v_redacted int, "
        "v_user text DEFAULT 'me', old_rows int, new_rows int, old_full int, new_full int, hidden text DEFAULT 'x'",
        {"columns": {"redact": ["o", "hidden"]}},
    ),
    "documents": ("id int PRIMARY KEY, name json, n numeric", {"columns": {"redact": ["n"]}}),
}

#: Every statement is run on the table that is captured by row and on the one that is captured by statement.
STATEMENTS = """
INSERT INTO {t} SELECT g, to_json('name ' || g), 1.0 FROM generate_series(1, 6) g
INSERT INTO {t} SELECT 7, '"x"', NULL WHERE false
UPDATE {t} SET n = 1.00 WHERE id = 1
UPDATE {t} SET name = '"x"', n = n WHERE id < 4
UPDATE {t} SET n = NULL
UPDATE {t} SET name = name
UPDATE {t} SET id = id + 10
UPDATE {t} SET id = 42 - id WHERE id IN (15, 16)
UPDATE {t} SET name = NULL, n = 3 WHERE id = 99
DELETE FROM {t} WHERE id < 13
DELETE FROM {t} WHERE id = 1000
TRUNCATE {t}
"""


@pytest.fixture(scope="module")
def shop(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database that has each table twice: row.plain and statement.plain, and so on."""
    with trail_database(pg) as database:
        policies = []
        for capture in ("row", "statement"):
            database.execute(f'CREATE SCHEMA "{capture}"')
            for name, (columns, keys) in SHAPES.items():
                database.execute(f'CREATE TABLE "{capture}"."{name}" ({columns})')
                policies.append(wanted(f"{capture}.{name}", capture=capture, **keys))
        rollout(database, policies=policies)
        yield database


def described(db: Database, schema: str, table: str) -> list[tuple[t.Any, ...]]:
    """Return what the records of a table say, in an order that is the same for both captures."""
    return db.execute(
        "SELECT action, record_id, old_values::text, new_values::text, changed_columns FROM audit.audit_log "
        "WHERE schema_name = %s AND table_name = %s AND action <> 'DDL' ORDER BY 1, 2, 3, 4",
        schema,
        table,
    )


@pytest.mark.parametrize("table", SHAPES)
def test_both_captures_write_the_same_records(shop, table):
    for statement in STATEMENTS.strip().splitlines():
        for schema in ("row", "statement"):
            shop.execute(statement.format(t=f'"{schema}"."{table}"'))
    by_row = described(shop, "row", table)
    assert {"INSERT", "UPDATE", "DELETE", "TRUNCATE"} == {record[0] for record in by_row}
    assert described(shop, "statement", table) == by_row


def test_the_updates_of_a_statement_are_told_apart_row_by_row(trail):
    trail.execute("CREATE TABLE things (id int PRIMARY KEY, n int)")
    rollout(trail, policies=[wanted("public.things", capture="statement")])
    trail.execute("INSERT INTO things SELECT g, g FROM generate_series(1, 500) g")
    trail.execute("UPDATE things SET id = id + 1000, n = n + 1 WHERE id % 2 = 0")
    updates = [record for record in records(trail, "things") if record.action == "UPDATE"]
    pairs = {(record.old_values["id"], record.new_values["id"], record.new_values["n"]) for record in updates}
    assert pairs == {(n, n + 1000, n + 1) for n in range(2, 501, 2)}


def test_changes_in_a_replica_session_are_recorded(trail):
    trail.execute("CREATE TABLE things (id int PRIMARY KEY)")
    rollout(trail, policies=[wanted("public.things", capture="statement")])
    session = trail.connect()
    fetch(session, "SET session_replication_role = replica")
    fetch(session, "INSERT INTO things VALUES (1), (2)")
    assert [record.record_id for record in records(trail, "things")] == ["1", "2"]


@pytest.mark.parametrize("redact", [[], ["name"]])
def test_a_json_value_that_jsonb_cannot_hold_breaks_no_write(trail, redact):
    trail.execute("CREATE TABLE odd (id int PRIMARY KEY, document json, name text)")
    rollout(trail, policies=[wanted("public.odd", capture="statement", columns={"redact": redact})])
    trail.execute("INSERT INTO odd VALUES (1, %s, 'a'), (2, '{}', 'b')", '"\\u0000"')
    trail.execute("UPDATE odd SET name = 'c' WHERE id = 1")
    done = [(record.action, record.record_id) for record in records(trail, "odd")]
    assert done == [("INSERT", "1"), ("INSERT", "2"), ("UPDATE", "1")]


@pytest.mark.parametrize(
    ("tables", "table", "reason"),
    [
        ("CREATE TABLE p (id int) PARTITION BY RANGE (id)", "public.p", "partitioned"),
        (
            "CREATE TABLE p (id int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p DEFAULT",
            "public.p1",
            "partition",
        ),
        ("CREATE TABLE p (id int); CREATE TABLE c () INHERITS (p)", "public.p", "inheritance"),
        ("CREATE TABLE p (id int); CREATE TABLE c () INHERITS (p)", "public.c", "inheritance child"),
    ],
    ids=["partitioned", "partition", "parent", "child"],
)
def test_it_is_refused_where_it_would_miss_rows(trail, tables, table, reason):
    trail.execute(tables)
    message = refusal(trail, policies=[wanted(table, capture="statement")])
    assert table in message
    assert reason in message
    assert trail.value("SELECT count(*) FROM audit.policy") == 0
