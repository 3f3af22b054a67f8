# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asking the log of PostgreSQL: every filter, page by page without gap or repetition, and exports that are exact."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import pathlib
import signal
import typing as t

import pytest
import running
from auditing import rollout, trail_database, wanted
from cutting import PostgresqlCutter
from databases import Database, connect, fetch
from event_reading import ids, pages, peak_memory, read_export, wait_until
from local_postgresql import LocalPostgresql

from ansible_collections.dbfleet.audit.plugins.module_utils._core import event_sql
from ansible_collections.dbfleet.audit.plugins.module_utils._core.event_query import EVENTS_SPEC, parse_query
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.events import DIALECT

MODULE = "postgresql_audit_events"
EXPORT_ROWS = 50000

#: Rows of chosen times go straight into the log, which takes them from a superuser.
ADD = """
INSERT INTO audit.audit_log_data
  (changed_at, transaction_id, action, schema_name, table_name, record_id, new_values, changed_by, db_user)
SELECT %s::timestamptz, '1', 'INSERT', 'old', %s, n::text, jsonb_build_object('n', n, 'text', repeat('x', %s)),
       'ann', 'old'
FROM generate_series(1, %s) AS n
"""

OLD = "SELECT id FROM audit.audit_log WHERE db_user = 'old' ORDER BY changed_at, id"


@pytest.fixture(scope="module")
def shop(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database in whose log there is something for every filter."""
    with trail_database(pg) as database:
        database.execute(
            "CREATE SCHEMA billing; CREATE TABLE billing.orders (id int PRIMARY KEY, customer_id int, total numeric);"
            "CREATE TABLE people (id int PRIMARY KEY, name text)"
        )
        rollout(database, policies=[wanted("*.*")])
        database.execute("SELECT set_config('app.user', 'ann', false)")
        database.execute("INSERT INTO billing.orders VALUES (1, 17, 1.10), (2, 18, 12345678901234567890), (-3, 17, 0)")
        database.execute("UPDATE billing.orders SET customer_id = 18 WHERE id = 1")
        database.execute("SELECT set_config('app.user', '=cmd()', false)")
        database.execute("INSERT INTO people VALUES (17, E'O\\'Neil \"\\\\,\\n\\tü')")
        database.execute("DELETE FROM billing.orders WHERE id = 2; TRUNCATE people")
        database.execute("SELECT audit.log_event('export', 'people', '17', true, '{\"customer_id\": \"17\"}')")
        for moment in ("2001-01-01", "2001-01-02 12:00:00.000001"):
            database.execute(ADD, moment, "ancient", 0, 3)
        yield database


def ask(db: Database, **options: t.Any) -> running.ModuleResult:
    return running.run_module(MODULE, **{**db.login, **options})


def refused(db: Database, **options: t.Any) -> str:
    result = ask(db, may_fail=True, **options)
    assert result.failed
    assert not result.changed
    return result.msg


@pytest.mark.parametrize(
    ("options", "condition"),
    [
        ({}, "true"),
        ({"table": "orders"}, "table_name = 'orders'"),
        ({"table": "billing.orders"}, "schema_name = 'billing' AND table_name = 'orders'"),
        ({"table": "public.orders"}, "false"),
        ({"table": "billing.orders", "record_id": "-3"}, "table_name = 'orders' AND record_id = '-3'"),
        ({"changed_by": "ann"}, "changed_by = 'ann'"),
        ({"db_user": "old"}, "db_user = 'old'"),
        ({"actions": ["update", "Event"]}, "action IN ('UPDATE', 'EVENT')"),
        ({"actions": ["TRUNCATE"]}, "action = 'TRUNCATE'"),
        ({"since": "1d"}, "changed_at > '2002-01-01'"),
        ({"until": "2001-01-02"}, "changed_at < '2001-01-02'"),
        (
            {"since": "2001-01-02T13:00:00.000001+01:00", "until": "2002-01-01"},
            "changed_at = '2001-01-02 12:00:00.000001'",
        ),
        ({"until": "2001-01-02T12:00:00.000001Z"}, "changed_at < '2001-01-02 12:00'"),
        (
            {"values": {"customer_id": 17}},
            "'17' IN (old_values ->> 'customer_id', new_values ->> 'customer_id')",
        ),
        ({"values": {"customer_id": "17", "total": "1.10"}}, "table_name = 'orders' AND record_id = '1'"),
        ({"values": {"total": "1.1"}}, "false"),
        ({"values": {"success": True}}, "new_values ->> 'success' = 'true'"),
        ({"changed_by": "' OR true --"}, "false"),
        ({"values": {"' OR %s": "' OR true --"}}, "false"),
    ],
)
def test_every_filter_finds_what_a_query_on_the_log_finds(shop, options, condition):
    expected = shop.execute(f"SELECT id FROM audit.audit_log WHERE {condition} ORDER BY changed_at, id")
    result = ask(shop, **options, count=True)
    assert ids(result) == [key for (key,) in expected]
    assert (result["total"], result["next"]) == (len(expected), None)
    assert (condition == "false") == (expected == [])


def test_an_event_is_what_the_log_holds(shop):
    event = ask(shop, table="billing.orders", record_id="1", actions=["update"])["events"][0]
    columns = [name for name in event if name != "changed_at"]
    row = shop.execute(
        f"SELECT {', '.join(columns)}, to_char(changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') "
        "FROM audit.audit_log WHERE id = %s",
        event["id"],
    )[0]
    expected = dict(zip([*columns, "changed_at"], row))
    for image in ("old_values", "new_values"):
        expected[image]["total"] = "1.10"
    assert event == expected
    assert event["transaction_id"].isdigit()
    assert event["changed_columns"] == ["customer_id"]
    found = ask(shop, transaction_id=event["transaction_id"])
    assert ids(found) == [event["id"]]
    large = ask(shop, table="billing.orders", record_id="2", actions=["delete"])["events"][0]
    assert large["old_values"]["total"] == 12345678901234567890


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_hold_every_event_once_while_others_are_added(trail, order):
    """Fifty of them have the same time, and more come in between any two pages."""
    for moment, number in (("2001-01-01", 3), ("2001-01-02", 50), ("2001-01-03", 3)):
        trail.execute(ADD, moment, "people", 0, number)
    before = [key for (key,) in trail.execute(OLD)]
    moments = itertools.cycle(["2001-01-02", "2001-01-03", "now"])
    found = pages(
        lambda **options: ask(trail, db_user="old", **options),
        lambda: trail.execute(ADD, next(moments), "people", 0, 1),
        **{"order": order, "limit": 7, **({} if order == "desc" else {"until": "2002-01-01"})},
    )
    assert {len(page) for page in found[:-1]} == {7}
    flat = [key for page in found for key in page]
    assert len(flat) == len(set(flat))
    seen = [key for key in flat if key in before]
    assert seen == (before if order == "asc" else before[::-1])
    # Whatever is added behind the place that a page has come to is on a later one.
    assert (len(flat) > len(before)) == (order == "asc")


def test_a_page_that_ends_with_the_last_event_has_no_next(shop):
    total = ask(shop, count=True)["total"]
    assert ask(shop, limit=total)["next"] is None
    last_but_one = ask(shop, limit=total - 1)
    assert ids(ask(shop, after=last_but_one["next"])) == ids(ask(shop))[-1:]


def export(db: Database, path: pathlib.Path, **options: t.Any) -> running.ModuleResult:
    return ask(db, dest=str(path), format=path.suffix[1:], **options)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_an_export_read_back_is_the_log(shop, tmp_path, form):
    path = tmp_path / f"events.{form}"
    predicted = export(shop, path, check_mode=True)
    assert not path.exists()
    result = export(shop, path, limit=1)
    assert result.changed
    assert predicted.changed
    assert [predicted[key] for key in ("written", "size", "sha256")] == [
        result[key] for key in ("written", "size", "sha256")
    ]
    expected = ask(shop, limit=1000)["events"]
    assert result["written"] == len(expected)
    if form == "csv":
        # Neither a formula nor, to Python's reader, an empty text comes through as it is.
        expected = [
            {key: {"=cmd()": "'=cmd()", "": None}.get(str(value), value) for key, value in event.items()}
            for event in expected
        ]
    assert read_export(path) == expected
    assert not export(shop, path).changed
    assert not export(shop, path, check_mode=True).changed
    assert os.listdir(tmp_path) == [path.name]


def test_documents_are_exported_as_the_server_writes_them(shop, tmp_path):
    path = tmp_path / "events.jsonl"
    export(shop, path, count=True, table="billing.orders", actions=["insert"])
    lines = path.read_text(encoding="utf-8").splitlines()
    texts = shop.execute(
        "SELECT new_values::text FROM audit.audit_log WHERE table_name = 'orders' AND action = 'INSERT' ORDER BY id"
    )
    assert len(texts) == 3
    for (text,), line in zip(texts, lines):
        assert f'"new_values": {text}, ' in line


def test_a_reader_needs_no_right_but_to_read(shop, tmp_path):
    reader, stranger = shop.create_role("reader"), shop.create_role("stranger")
    shop.execute(f"GRANT audit_reader TO {reader}")
    assert ids(ask(shop, login_user=reader, count=True)) == ids(ask(shop))
    assert export(shop, tmp_path / "events.csv", login_user=reader)["written"] == len(ids(ask(shop)))
    words = f"{shop.name}: {stranger} may not read audit.audit_log; name it among the `readers` of the trail"
    assert refused(shop, login_user=stranger) == words
    assert refused(shop, login_user=stranger, dest=str(tmp_path / "none")) == words
    assert os.listdir(tmp_path) == ["events.csv"]


def test_what_cannot_be_asked_is_one_clear_error(shop, db, tmp_path):
    missing = f"{db.name}: there is no audit trail: audit.audit_log does not exist"
    assert refused(db).startswith(missing)
    assert "no audit trail: elsewhere.audit_log" in refused(shop, schema="elsewhere")
    assert refused(shop, actions=["drop"]).startswith("actions: 'drop' is none that the log records")
    assert refused(shop, transaction_id="-1").startswith("transaction_id: '-1' is none of PostgreSQL's")
    assert refused(shop, dest=str(tmp_path / "none" / "file")) == (
        f"dest: the directory {tmp_path}/none does not exist; create it first"
    )


def test_a_page_is_one_query_and_its_count_another(shop, tmp_path):
    def statements(**options: t.Any) -> int:
        cutter = PostgresqlCutter(shop.server)
        running.run_module(MODULE, **{**shop.login, "login_unix_socket": None, **cutter.login, **options})
        cutter.close()
        return cutter.statements

    # What every module begins with; the query of this one is refused before it is sent.
    cutter = PostgresqlCutter(shop.server)
    running.run_module(MODULE, may_fail=True, **{**shop.login, "login_unix_socket": None, **cutter.login, "limit": 0})
    cutter.close()
    assert [statements(limit=limit) - cutter.statements for limit in (1, 1000)] == [1, 1]
    assert statements(limit=1, count=True) - cutter.statements == 2
    # It is read in a transaction of its own, without a BEGIN, and whatever its size in one go.
    assert statements(dest=str(tmp_path / "events.jsonl")) - cutter.statements == 1


def explained(db: Database, **options: t.Any) -> str:
    defaults = {name: entry.get("default") for name, entry in EVENTS_SPEC.items()}
    query = parse_query({**defaults, **options}, datetime.datetime.now(datetime.timezone.utc))
    text, parameters = event_sql.select(DIALECT, "audit.audit_log", query)
    with contextlib.closing(connect(db.server, db.name)) as connection, connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {text}", parameters)
        return "\n".join(line for (line,) in cursor.fetchall())


@pytest.mark.parametrize(
    "options",
    [
        {"until": "2001-02-01"},
        {"after": "2001-01-01T00:00:00Z,1", "order": "desc"},
    ],
)
def test_partitions_outside_of_the_range_are_not_read(shop, options):
    assert explained(shop).count("Scan") > explained(shop, **options).count("Scan")
    assert "audit_log_past" in explained(shop, **options)
    assert "audit_log_future" not in explained(shop, **options)
    assert "audit_log_past" not in explained(shop, since="1h")


def test_a_rows_history_is_read_by_the_index(trail):
    trail.execute(ADD, "2001-01-01", "people", 0, 5000)
    trail.execute("ANALYZE audit.audit_log_data")
    plan = explained(trail, table="old.people", record_id="7", until="2001-02-01")
    assert "Index Cond: ((table_name = 'people'::text) AND (record_id = '7'::text))" in plan


@pytest.fixture(scope="module")
def large(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database with 50,000 records of a kilobyte in its log."""
    with trail_database(pg) as database:
        database.execute(ADD, "2001-01-01", "people", 1000, EXPORT_ROWS)
        yield database


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_memory_does_not_grow_with_the_export(large, tmp_path, form):
    def peak(**options: t.Any) -> int:
        return peak_memory(MODULE, **large.login, dest=str(tmp_path / f"events.{form}"), format=form, **options)

    small = peak(table="nothing")
    assert (tmp_path / f"events.{form}").stat().st_size < 1000
    assert peak() - small < 4 << 20
    assert (tmp_path / f"events.{form}").stat().st_size > EXPORT_ROWS * 1000


def test_an_export_that_is_killed_leaves_the_file_that_was_there_and_no_other(large, tmp_path):
    path = tmp_path / "events.jsonl"
    export(large, path, table="nothing")
    before = path.stat().st_ino
    process = running.start_module(MODULE, **large.login, dest=str(path))
    wait_until(lambda: large.execute("SELECT 1 FROM pg_stat_progress_copy WHERE datname = %s", large.name))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == [path.name]
    assert path.stat().st_ino == before
    assert export(large, path, db_user="old")["written"] == EXPORT_ROWS


def test_progress_is_seen_in_the_server_and_a_connection_that_breaks_leaves_no_file(large, tmp_path):
    process = running.start_module(MODULE, **large.login, dest=str(tmp_path / "events.jsonl"))
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_copy WHERE datname = %s AND tuples_processed > 100"
    wait_until(lambda: large.execute(end, large.name))
    assert "the connection was lost" in running.finish_module(process).msg
    assert os.listdir(tmp_path) == []


def test_bytes_of_no_encoding_are_exported_as_they_are(pg, tmp_path):
    name = f"ascii_{os.getpid()}"
    with contextlib.closing(connect(pg, "postgres")) as connection:
        fetch(connection, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    database = Database(pg, name, template=None)
    try:
        running.run_module("postgresql_audit_trail", **database.login)
        database.execute(
            "INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, changed_by, db_user) "
            "VALUES (now(), '1', 'EVENT', convert_from('\\xe4', 'SQL_ASCII'), 'x')"
        )
        path = tmp_path / "events.jsonl"
        export(database, path)
        assert b'"changed_by": "\xe4"' in path.read_bytes()
        assert len(ask(database)["events"]) == 1
    finally:
        database.drop()
