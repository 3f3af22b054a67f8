# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a recorded change asks of the server, counted instead of timed: no machine is too slow for these bounds.

Each is what an audited table of ten columns costs more than the same table without audit. They lie so close above what
was measured (MariaDB 10.11, MySQL 9.7) that one more index of the log, one more statement or look-up, or one more
stored image fails.
"""

from __future__ import annotations

import json
import typing as t

import pytest
from mysql_auditing import audit
from mysql_databases import MysqlServer, Schema

BARE, AUDITED = TABLES = ("of_none", "of_rows")
TABLE = """
CREATE TABLE {table} (id INT PRIMARY KEY, customer INT NOT NULL, sku VARCHAR(40), city VARCHAR(40), price DECIMAL(9,1),
                      status VARCHAR(20), quantity INT, size VARCHAR(20), gift BOOLEAN, updated_at DATETIME)
"""
#: As the log's JSON has it; the status of an update is as long as the one before.
ROW = {
    "id": 100001,
    "customer": 5000,
    "sku": "A-42",
    "city": "Springfield",
    "price": 12.5,
    "status": "new",
    "quantity": 3,
    "size": None,
    "gift": 0,
    "updated_at": "2026-01-01 00:00:00",
}
IMAGE_BYTES = len(json.dumps(ROW))
CHANGED_BYTES = len(json.dumps(["status", "updated_at"]))

ROWS = 200
STATEMENTS = {
    "INSERT": "INSERT INTO {table} VALUES {values}",
    "UPDATE": "UPDATE {table} SET status = 'old', updated_at = '2026-01-02' WHERE id BETWEEN {first} AND {last}",
    "DELETE": "DELETE FROM {table} WHERE id BETWEEN {first} AND {last}",
}
#: kind of work -> rows of a statement.
KINDS = {f"{verb} of {rows}": rows for rows in (1, ROWS) for verb in STATEMENTS}
#: What else the server does meanwhile shows in its counters: the least of so many rounds counts.
ROUNDS = 3

#: Steps of a trigger's body: a variable of its own is one, so are an IF, the INSERT and the way past the ELSE.
MOST_STEPS = {"INSERT": 3, "UPDATE": 5, "DELETE": 3}
#: The record, the index on records and the undo log. One more index is one more page.
MOST_PAGES_WRITTEN, MOST_PAGES_READ = 3.6, 6.0
#: What is written ahead beside the record's texts: its other columns, the entry in the index, the undo log.
MOST_REDO_BYTES_BESIDE_THE_RECORD = {True: 165, False: 225}

_COUNTERS = """
SHOW SESSION STATUS WHERE variable_name LIKE 'Com\\_%' OR variable_name LIKE 'Handler\\_%'
  OR variable_name IN ('Queries', 'Innodb_buffer_pool_read_requests', 'Innodb_buffer_pool_write_requests')
"""

_SIZES = """
SELECT action, COUNT(*), AVG(OCTET_LENGTH(COALESCE(old_values, ''))), AVG(OCTET_LENGTH(COALESCE(new_values, ''))),
       AVG(OCTET_LENGTH(COALESCE(changed_columns, ''))),
       AVG(OCTET_LENGTH(CONCAT_WS('', transaction_id, action, schema_name, table_name, record_id, changed_by, db_user,
                                  client_ip, application_name, context)))
FROM audit.audit_log_data WHERE schema_name = %s GROUP BY action
"""


class Record(t.NamedTuple):
    """Bytes of the texts in a record of the log."""

    number: int
    old: float
    new: float
    changed: float
    rest: float


class Counted(t.NamedTuple):
    """What an audited table costs more."""

    is_mariadb: bool
    #: kind of work -> counter -> how much more it counted for a change; `redo` is in bytes.
    more: dict[str, dict[str, float]]
    #: action -> what the log holds of it.
    records: dict[str, Record]

    def of(self, kind: str, prefix: str) -> dict[str, float]:
        """Return the counters of a kind of work whose names begin so."""
        return {name: value for name, value in self.more[kind].items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def counted(trail: MysqlServer) -> Counted:
    """Return what work has cost. It all is one transaction, which leaves nothing to purge while others are measured."""
    with Schema(trail) as schema:
        for table in TABLES:
            schema.execute(TABLE.format(table=table))
        audit(schema, AUDITED)
        schema.execute("BEGIN")
        # The first round finds nothing in memory.
        rounds = [more_by_kind(schema, 100_001 + 10_000 * number) for number in range(ROUNDS + 1)][1:]
        names = {name for one in rounds for costs in one.values() for name in costs}
        more = {kind: {name: min(one[kind].get(name, 0) for one in rounds) for name in names} for kind in KINDS}
        records = {row[0]: Record(*map(float, row[1:])) for row in schema.execute(_SIZES, schema.name)}
        schema.execute("ROLLBACK")
    return Counted(trail.is_mariadb, more, records)


def more_by_kind(schema: Schema, first: int) -> dict[str, dict[str, float]]:
    """Return how much more each kind of work costs on the audited table, on rows with ids from ``first`` on."""
    found = {}
    for kind, rows in KINDS.items():
        bare, audited = (work_of(schema, table, kind, first + 1000 * (rows == 1)) for table in TABLES)
        found[kind] = {name: (value - bare[name]) / ROWS for name, value in audited.items()}
    return found


def work_of(schema: Schema, table: str, kind: str, first: int) -> dict[str, int]:
    """Do the work of a kind, and return what it has cost."""
    rows = KINDS[kind]
    statements = []
    for begin in range(first, first + ROWS, rows):
        values = ", ".join(row_literal(number) for number in range(begin, begin + rows))
        statement = STATEMENTS[kind.split()[0]]
        statements.append(statement.format(table=table, values=values, first=begin, last=begin + rows - 1))
    before = counters(schema)
    for statement in statements:
        schema.execute(statement)
    return {name: value - before[name] for name, value in counters(schema).items()}


def row_literal(number: int) -> str:
    """Return a row as SQL."""
    return "(" + ", ".join("NULL" if value is None else repr(value) for value in {**ROW, "id": number}.values()) + ")"


def counters(schema: Schema) -> dict[str, int]:
    """Return the session's counters, those of the server that are in the same list, and how much redo log there is."""
    status = schema.execute("SHOW ENGINE INNODB STATUS")[0][2]
    numbers = {name: int(value) for name, value in schema.execute(_COUNTERS) if value.isdigit()}
    return {**numbers, "redo": int(status.partition("Log sequence number")[2].split()[0])}


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_one_more_statement_and_one_more_row(counted: Counted, kind: str) -> None:
    executed = {name: number for name, number in counted.of(kind, "Com_").items() if number}
    assert executed == {"Com_insert": 1}
    # MariaDB counts a row of a partitioned table twice.
    assert counted.more[kind]["Handler_write"] == (2 if counted.is_mariadb else 1)
    assert counted.more[kind]["Handler_update"] == counted.more[kind]["Handler_delete"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_looks_nothing_up(counted: Counted, kind: str) -> None:
    # A sequence is read once in a thousand ids.
    assert sum(counted.of(kind, "Handler_read").values()) <= 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_a_trigger_takes_few_steps(counted: Counted, kind: str) -> None:
    assert 1 <= counted.more[kind]["Queries"] <= MOST_STEPS[kind.split()[0]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_touches_few_pages(counted: Counted, kind: str) -> None:
    assert counted.more[kind]["Innodb_buffer_pool_write_requests"] <= MOST_PAGES_WRITTEN
    assert counted.more[kind]["Innodb_buffer_pool_read_requests"] <= MOST_PAGES_READ


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_writes_little_ahead(counted: Counted, kind: str) -> None:
    record = counted.records[kind.split()[0]]
    texts = record.old + record.new + record.changed + record.rest
    assert texts < counted.more[kind]["redo"] <= texts + MOST_REDO_BYTES_BESIDE_THE_RECORD[counted.is_mariadb]


def test_a_record_holds_the_images_and_little_else(counted: Counted) -> None:
    images = {"INSERT": (0, IMAGE_BYTES), "UPDATE": (IMAGE_BYTES, IMAGE_BYTES), "DELETE": (IMAGE_BYTES, 0)}
    for action, (old, new) in images.items():
        record = counted.records[action]
        assert (record.old, record.new) == (old, new)
        assert record.changed == (CHANGED_BYTES if action == "UPDATE" else 0)
        # Every row of every round has one, and no more than one.
        assert record.number == 2 * ROWS * (ROUNDS + 1)
