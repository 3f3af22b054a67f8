# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a recorded change asks of the server, counted instead of timed: no machine is too slow for these bounds.

Each is what an audited table of ten columns costs more than the same table without audit. They lie so close above what
was measured (PostgreSQL 15) that one more index of the log, one more query or call of a function, or one more stored
image fails; where counters vary from release to release or with the place of a row in its page, there is room for that.
"""

from __future__ import annotations

import os
import typing as t

import pytest
from auditing import install_trail, rollout, wanted
from databases import Database
from local_postgresql import LocalPostgresql
from sealed_log import COUNTING, counting_server

# Without images of whole pages and without vacuum, the same work writes the same log ahead on every machine.
SETTINGS = {
    **COUNTING,
    "pg_stat_statements.track": "all",
    "track_functions": "all",
    **dict.fromkeys(("fsync", "synchronous_commit", "autovacuum", "full_page_writes"), "off"),
}

#: Audited not at all, row by row, by statement. Names of equal length, for records and their index hold them.
BARE, ROW, STATEMENT = TABLES = ("of_none", "of_rows", "of_stmt")
AUDITED = (ROW, STATEMENT)
TABLE = """
CREATE TABLE {table} (id int PRIMARY KEY, customer int NOT NULL, sku text, city text, price numeric, status text,
                      quantity int, size text, gift boolean, updated_at timestamptz) WITH (fillfactor = 50)
"""
INSERT = """
INSERT INTO {table} SELECT n, 5000, 'A-' || n, 'Springfield', n, 'new', 3, NULL, false, now()
FROM generate_series({first}, {last}) AS n
"""
UPDATE = "UPDATE {table} SET status = 'packed', updated_at = now() WHERE id BETWEEN {first} AND {last}"
DELETE = "DELETE FROM {table} WHERE id BETWEEN {first} AND {last}"

#: kind of work -> (how many statements, rows of each, the statement).
KINDS = {
    f"{statement.split()[0]} of {rows}": (executions, rows, statement)
    for executions, rows in ((200, 1), (1, 1000))
    for statement in (INSERT, UPDATE, DELETE)
}

#: Stands for the one statement that a capture function has to execute.
RECORD = "INSERT INTO audit_log_data"

#: Of the record, the index on records and the one on ids, and, row by row, of reading the rows again. One more index
#: takes one page at least, one more query two.
MOST_PAGES = {
    ROW: {"INSERT": 7.6, "UPDATE": 9.6, "DELETE": 8.7},
    STATEMENT: {"INSERT": 6.6, "UPDATE": 7.7, "DELETE": 7.7},
}
#: The record and its entry in the index on records, a page of that splitting now and then, and a thirty-second of the
#: sequence's. One more index is one more entry of 64 bytes or more.
MOST_WAL_RECORDS = 2.4
MOST_WAL_BYTES_BESIDE_THE_RECORD = 165
#: Header, id, time, transaction, action, names, key, user, policy: 112 bytes here. One more column takes 8 or more.
MOST_BYTES_BESIDE_THE_IMAGES = 119
#: Of what a capture function executes for a change; those of a statement are shared by all of its rows.
MOST_EXPRESSIONS = {ROW: 7, STATEMENT: 12}
#: Each that a capture function pins is set and put back for every call. (One more where pgaudit is loaded.)
MOST_SETTINGS = 8

# Expressions of PL/pgSQL have a line there, too, once they are planned: without a call, for they are no statements.
_COUNTERS = """
SELECT s.toplevel, CASE WHEN s.query ~ '^\\s*INSERT INTO "?audit"?.audit_log_data ' THEN '{record}' ELSE s.query END,
       sum(s.calls)::int, sum(s.plans)::int,
       sum(s.shared_blks_hit + s.shared_blks_read)::int, sum(s.wal_records)::int, sum(s.wal_bytes)::int
FROM pg_stat_statements AS s JOIN pg_database AS d ON d.oid = s.dbid
WHERE d.datname = current_database() AND (NOT s.toplevel OR s.query LIKE '%{table}%')
GROUP BY 1, 2
"""

_CALLS = "SELECT funcname, calls FROM pg_stat_xact_user_functions WHERE schemaname = 'audit'"

_SIZES = """
SELECT avg(pg_column_size(d.*))::float,
       avg(coalesce(pg_column_size(d.old_values), 0) + coalesce(pg_column_size(d.new_values), 0))::float
FROM audit.audit_log_data AS d WHERE d.table_name = %s AND d.id > %s
"""


class Work(t.NamedTuple):
    """What one transaction with changes of one kind has cost."""

    #: Inside the capture function: text -> how often it was executed; 0 is an expression.
    nested: dict[str, int]
    #: How often something of that was planned.
    plans: int
    #: Functions of the trail: name -> how often each was called and not inlined.
    calls: dict[str, int]
    transaction_ids: int
    #: Of 8 kB in shared memory; entries and bytes of the write-ahead log: all per change.
    pages: float
    wal_records: float
    wal_bytes: float
    #: Bytes of a record in the log, and of the images in it; None of a table without audit.
    record_bytes: float | None
    image_bytes: float | None


class Counted(t.NamedTuple):
    """The cost of each kind of work: table -> kind -> cost."""

    #: When a session does it for the first time, and plans what it executes.
    first: dict[str, dict[str, Work]]
    later: dict[str, dict[str, Work]]
    #: Bytes of an image of a new row.
    image: float
    #: Capture function -> how many settings it pins.
    settings: dict[str, int]


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Counted]:
    """Return what work has cost on a server that counts."""
    directory = tmp_path_factory.mktemp("counting")
    server = counting_server(LocalPostgresql.create(directory, settings=SETTINGS, while_pid=os.getpid()))
    db = Database(server)
    db.execute("CREATE EXTENSION pg_stat_statements")
    for table in TABLES:
        db.execute(TABLE.format(table=table))
    install_trail(db)
    rollout(
        db, policies=[wanted(f"public.{ROW}", name="r"), wanted(f"public.{STATEMENT}", name="s", capture="statement")]
    )
    first, later = (
        {table: {kind: work_of(db, table, kind, first_id) for kind in KINDS} for table in TABLES}
        for first_id in (100_001, 200_001)
    )
    db.execute(INSERT.format(table=BARE, first=200_001, last=200_200))
    image = db.value(f"SELECT avg(pg_column_size(to_jsonb(b)))::float FROM {BARE} AS b")
    functions = "FROM pg_proc WHERE pronamespace = 'audit'::regnamespace AND proname LIKE 'capture%'"
    yield Counted(first, later, image, dict(db.execute(f"SELECT proname, cardinality(proconfig) {functions}")))
    server.remove()


def work_of(db: Database, table: str, kind: str, first_id: int) -> Work:
    """Do the work of a kind in one transaction, on rows with ids from ``first_id`` on, and return what it has cost."""
    executions, rows, statement = KINDS[kind]
    begins = range(first_id, first_id + executions * rows, rows)
    changes = "; ".join(statement.format(table=table, first=begin, last=begin + rows - 1) for begin in begins)
    last = db.value("SELECT coalesce(max(id), 0) FROM audit.audit_log_data")
    db.execute("SELECT pg_stat_statements_reset()")
    before = db.value("SELECT pg_current_xact_id()::text::bigint")
    db.execute("BEGIN")
    called = dict(db.execute(_CALLS))
    db.execute(changes)
    calls = {name: number - called.get(name, 0) for name, number in db.execute(_CALLS)}
    db.execute("COMMIT")
    after = db.value("SELECT pg_current_xact_id()::text::bigint")
    counters = db.execute(_COUNTERS.format(record=RECORD, table=table))
    (totals,) = [row[4:] for row in counters if row[0]]
    nested = [row for row in counters if not row[0]]
    return Work(
        {row[1]: row[2] for row in nested},
        sum(row[3] for row in nested),
        {name: count for name, count in calls.items() if count},
        after - before - 1,
        *(total / (executions * rows) for total in totals),
        *db.execute(_SIZES, table, last)[0],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_one_call_and_one_statement(counted: Counted, kind: str) -> None:
    executions, rows, _statement = KINDS[kind]
    work = counted.later[ROW][kind]
    (function,) = work.calls
    assert function.startswith("capture_")
    assert work.calls == {function: executions * rows}
    assert work.nested == {RECORD: executions * rows}
    # It was planned by the session's first changes.
    assert work.plans == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_statement_is_one_call_and_one_statement_however_many_rows(counted: Counted, kind: str) -> None:
    executions, _rows, _statement = KINDS[kind]
    work = counted.later[STATEMENT][kind]
    (function,) = work.calls
    assert function.startswith("capture_")
    assert work.calls == {function: executions}
    assert work.nested == {RECORD: executions}


@pytest.mark.parametrize("table", AUDITED)
def test_a_capture_function_evaluates_few_expressions(counted: Counted, table: str) -> None:
    expressions = {text for work in counted.first[table].values() for text, count in work.nested.items() if count == 0}
    assert 0 < len(expressions) <= MOST_EXPRESSIONS[table], sorted(expressions)


def test_a_capture_function_pins_few_settings(counted: Counted) -> None:
    assert len(counted.settings) == len(AUDITED)
    assert max(counted.settings.values()) <= MOST_SETTINGS


@pytest.mark.parametrize("kind", KINDS)
def test_row_capture_takes_no_further_transaction_id(counted: Counted, kind: str) -> None:
    assert counted.later[ROW][kind].transaction_ids == counted.later[BARE][kind].transaction_ids == 1


@pytest.mark.parametrize("kind", KINDS)
def test_statement_capture_takes_one_transaction_id_a_statement(counted: Counted, kind: str) -> None:
    assert counted.later[STATEMENT][kind].transaction_ids <= 1 + KINDS[kind][0]


@pytest.mark.parametrize("table", AUDITED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_change_touches_few_pages(counted: Counted, table: str, kind: str) -> None:
    more = counted.later[table][kind].pages - counted.later[BARE][kind].pages
    assert more <= MOST_PAGES[table][kind.split()[0]]


@pytest.mark.parametrize("table", AUDITED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_change_writes_little_ahead(counted: Counted, table: str, kind: str) -> None:
    work, bare = counted.later[table][kind], counted.later[BARE][kind]
    assert work.wal_records - bare.wal_records <= MOST_WAL_RECORDS
    assert work.wal_bytes - bare.wal_bytes <= work.record_bytes + MOST_WAL_BYTES_BESIDE_THE_RECORD


@pytest.mark.parametrize("table", AUDITED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_record_is_little_more_than_the_images_of_the_row(counted: Counted, table: str, kind: str) -> None:
    work = counted.later[table][kind]
    assert work.record_bytes - work.image_bytes <= MOST_BYTES_BESIDE_THE_IMAGES
    images = 2 if kind.startswith("UPDATE") else 1
    # An updated status is longer, and so is a later id.
    assert work.image_bytes <= images * (counted.image + 8)
