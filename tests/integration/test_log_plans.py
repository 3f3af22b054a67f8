# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The log's views leave its indexes and partitions to be used: a change of a view that hides them fails here."""

from __future__ import annotations

import typing as t

import pytest
import running
from databases import Database, fetch
from filled_log import trail_of_months
from investigations import investigations
from local_postgresql import LocalPostgresql
from plans import plan_of

MONTHS = 4
QUERIES = investigations("postgresql")

#: The queries that an index serves in every partition, and the index.
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
    "Guides: bulk operations": 1,
    "Bulk operations per hour": 7,
    "Bulk operations per transaction": 7,
    "Changes without an application user": 7,
    "Failed logins and denials": 7,
    "DDL of the last week": 7,
    "Off-hours and weekends": 30,
    "Who changed a column": 30,
    "Guides: audit_logs": 30,
}


@pytest.fixture(scope="module")
def log(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database whose log has some months of records, and every index."""
    database = trail_of_months(pg, 20_000, MONTHS)
    running.run_module("postgresql_audit_trail", **database.login, indexes=[*set(INDEXED.values()), "changed_at"])
    yield database
    database.drop()


@pytest.fixture
def reader(log: Database) -> t.Any:
    """Return a session of a reader of the log."""
    session = log.connect()
    fetch(session, "SET ROLE audit_reader")
    fetch(session, QUERIES["The session"])
    return session


def test_every_query_of_the_page_has_its_plan_here():
    assert {*INDEXED, *PRUNED, "The session", "Guides: off-hours"} == set(QUERIES)


@pytest.mark.parametrize(("title", "index"), INDEXED.items())
def test_an_index_serves_the_query_in_every_partition(reader, title, index):
    plan = plan_of(reader, QUERIES[title])
    assert plan.partitions == MONTHS
    assert list(plan.scans.values()) == [MONTHS]
    assert all(scan.split()[-1] == index for scan in plan.scans), plan


@pytest.mark.parametrize(("title", "days"), PRUNED.items())
def test_a_query_of_some_days_reads_the_partitions_of_these_days_only(reader, title, days):
    months = reader_value(reader, "SELECT count(DISTINCT date_trunc('month', now() - n * interval '1 day')) "
                                  f"FROM generate_series(0, {days}) AS n")  # fmt: skip
    assert sum(plan_of(reader, QUERIES[title]).scans.values()) <= months


def test_the_hour_of_the_day_alone_is_found_by_reading_everything(reader):
    plan = plan_of(reader, QUERIES["Guides: off-hours"])
    assert plan.scans == {"Seq Scan": MONTHS}


def reader_value(session: t.Any, statement: str) -> t.Any:
    return fetch(session, statement)[0][0]
