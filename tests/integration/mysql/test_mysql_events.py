# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asking the log of MariaDB or MySQL: every filter, page by page without gap or repetition, and exports."""

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
from cutting import MysqlCutter
from event_reading import ids, pages, peak_memory, read_export, wait_until
from mysql_auditing import audit, install_trail, records
from mysql_databases import MysqlServer, Schema

from ansible_collections.dbfleet.audit.plugins.module_utils._core import event_sql
from ansible_collections.dbfleet.audit.plugins.module_utils._core.event_query import EVENTS_SPEC, parse_query
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.events import DIALECT

MODULE = "mysql_audit_events"
EXPORT_ROWS = 50000
OTHERS = "changed_at, action, schema_name, table_name, new_values, changed_by, db_user"


@pytest.fixture(scope="module")
def shop(trail: MysqlServer) -> t.Iterator[Schema]:
    """Return a database of which the log has something for every filter."""
    with Schema(trail) as made:
        made.execute("CREATE TABLE orders (id INT PRIMARY KEY, customer_id INT, total DECIMAL(30, 2))")
        made.execute("CREATE TABLE people (id INT PRIMARY KEY, name TEXT, `odd \"key\\ü'` TEXT)")
        audit(made)
        made.execute("SET @audit_user = 'ann'")
        made.execute("INSERT INTO orders VALUES (1, 17, 1.10), (2, 18, 12345678901234567890), (-3, 17, 0)")
        made.execute("UPDATE orders SET customer_id = 18 WHERE id = 1")
        made.execute("SET @audit_user = '=cmd()'")
        made.execute("SET @audit_context = '{\"a\":\r\n [1]}'")
        made.execute("INSERT INTO people VALUES (17, %s, 'here')", "O'Neil \"\\,\n\tü")
        made.execute("SET @audit_user = NULL, @audit_context = NULL")
        made.execute("DELETE FROM orders WHERE id = 2")
        add(made, "2001-01-01", 3)
        add(made, "2001-01-02 12:00:00.000001", 3)
        yield made
        forget_the_past(made)


def add(schema: Schema, moment: str | None, number: int, table: str = "ancient", text: str = "") -> None:
    """Add records of a chosen time, or of now, which the log takes from root."""
    values = ", ".join(
        ["(COALESCE(%s, UTC_TIMESTAMP(6)), 'INSERT', %s, %s, JSON_OBJECT('text', %s), 'ann', 'old')"] * number
    )
    schema.execute(
        f"INSERT INTO audit.audit_log_data ({OTHERS}) VALUES {values}", *[moment, schema.name, table, text] * number
    )


def forget_the_past(schema: Schema) -> None:
    """Take away what add() has added; the other tests' log is this one."""
    schema.execute("ALTER TABLE audit.audit_log_data TRUNCATE PARTITION p_past")


def ask(shop: Schema, /, **options: t.Any) -> running.ModuleResult:
    return running.run_module(MODULE, **{**shop.login, **options})


@pytest.mark.parametrize(
    ("options", "condition"),
    [
        ({"table": "{}.orders"}, "table_name = 'orders'"),
        ({"table": "{}.orders", "record_id": "-3"}, "table_name = 'orders' AND record_id = '-3'"),
        ({"table": "{}.orders", "changed_by": "ann"}, "table_name = 'orders' AND changed_by = 'ann'"),
        ({"table": "{}.ancient", "db_user": "old"}, "db_user = 'old'"),
        ({"table": "{}.orders", "actions": ["update", "Delete"]}, "action IN ('UPDATE', 'DELETE')"),
        ({"table": "{}.ancient", "since": "1d"}, "1 = 0"),
        ({"table": "{}.ancient", "until": "2001-01-02"}, "changed_at < '2001-01-02'"),
        (
            {"table": "{}.ancient", "since": "2001-01-02T13:00:00.000001+01:00"},
            "table_name = 'ancient' AND changed_at = '2001-01-02 12:00:00.000001'",
        ),
        ({"table": "{}.ancient", "until": "2001-01-02T12:00:00.000001Z"}, "changed_at < '2001-01-02 12:00'"),
        (
            {"table": "{}.orders", "values": {"customer_id": 17}},
            "table_name = 'orders' AND record_id IN ('1', '-3')",
        ),
        ({"table": "{}.orders", "values": {"customer_id": "17", "total": "1.10"}}, "record_id = '1'"),
        ({"table": "{}.orders", "values": {"total": "1.1"}}, "1 = 0"),
        ({"values": {"odd \"key\\ü'": "here"}}, "table_name = 'people'"),
        ({"table": "{}.people", "values": {"name": "O'Neil \"\\,\n\tü"}}, "table_name = 'people'"),
        ({"table": "{}.people", "changed_by": "' OR 1 = 1 #"}, "1 = 0"),
        ({"table": "{}.people", "values": {"' OR %s": "' OR 1 = 1 #"}}, "1 = 0"),
    ],
)
def test_every_filter_finds_what_a_query_on_the_log_finds(shop, options, condition):
    expected = shop.execute(
        f"SELECT id FROM audit.audit_log WHERE schema_name = %s AND {condition} ORDER BY changed_at, id", shop.name
    )
    given = {**options, "table": options["table"].format(shop.name)} if "table" in options else options
    result = ask(shop, **given, count=True)
    assert ids(result) == [key for (key,) in expected]
    assert (result["total"], result["next"]) == (len(expected), None)
    assert (condition == "1 = 0") == (not expected)


def test_an_event_is_what_the_log_holds(shop):
    event = ask(shop, table=f"{shop.name}.orders", actions=["update"])["events"][0]
    record = next(record for record in records(shop, "orders") if record.action == "UPDATE")
    moment = record.changed_at.isoformat(timespec="microseconds") + "Z"
    assert event == {**record._asdict(), "changed_at": moment}
    assert event["old_values"] == {"id": 1, "customer_id": 17, "total": "1.10"}
    assert event["changed_columns"] == ["customer_id"]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_hold_every_event_once_while_others_are_added(trail, order):
    """Fifty of them have the same time, and more come in between any two pages."""
    with Schema(trail) as schema:
        for moment, number in (("2001-01-01", 3), ("2001-01-02", 50), ("2001-01-03", 3)):
            add(schema, moment, number)
        query = "SELECT id FROM audit.audit_log WHERE schema_name = %s ORDER BY changed_at, id"
        before = [key for (key,) in schema.execute(query, schema.name)]
        moments = itertools.cycle(["2001-01-02", "2001-01-03", None])
        found = pages(
            lambda **options: ask(schema, table=f"{schema.name}.ancient", **options),
            lambda: add(schema, next(moments), 1),
            **{"order": order, "limit": 7, **({} if order == "desc" else {"until": "2002-01-01"})},
        )
        forget_the_past(schema)
    assert {len(page) for page in found[:-1]} == {7}
    flat = [key for page in found for key in page]
    assert len(flat) == len(set(flat))
    assert [key for key in flat if key in before] == (before if order == "asc" else before[::-1])
    assert (len(flat) > len(before)) == (order == "asc")


def export(schema: Schema, path: pathlib.Path, **options: t.Any) -> running.ModuleResult:
    return ask(schema, dest=str(path), format=path.suffix[1:], **options)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("table", ["orders", "people"])
def test_an_export_read_back_is_the_log(shop, tmp_path, form, table):
    path = tmp_path / f"events.{form}"
    name = f"{shop.name}.{table}"
    predicted = export(shop, path, table=name, check_mode=True)
    assert not path.exists()
    result = export(shop, path, table=name)
    assert [predicted[key] for key in ("changed", "sha256")] == [True, result["sha256"]]
    expected = ask(shop, table=name)["events"]
    assert result["written"] == len(expected) > 0
    if form == "csv":
        # Neither a formula nor, to Python's reader, an empty text comes through as it is.
        marked = {"=cmd()": "'=cmd()", "": None}
        expected = [{key: marked.get(str(value), value) for key, value in event.items()} for event in expected]
    assert read_export(path) == expected
    assert not export(shop, path, table=name).changed
    assert os.listdir(tmp_path) == [path.name]


def test_documents_are_exported_as_the_server_holds_them(shop, tmp_path):
    path = tmp_path / "events.jsonl"
    export(shop, path, table=f"{shop.name}.orders", actions=["insert"])
    texts = shop.execute(
        "SELECT CAST(new_values AS CHAR) FROM audit.audit_log "
        "WHERE schema_name = %s AND table_name = 'orders' AND action = 'INSERT' ORDER BY id",
        shop.name,
    )
    assert len(texts) == 3
    for (text,), line in zip(texts, path.read_text(encoding="utf-8").splitlines()):
        assert f'"new_values": {text}, ' in line


def test_a_reader_needs_no_right_but_to_read(shop, tmp_path):
    reader, stranger = (shop.create_account(name, grants="") for name in ("reader", "stranger"))
    install_trail(shop, readers=[f"{reader}@%"])
    table = f"{shop.name}.orders"
    login = {"login_user": reader, "login_password": "Secret-of-the-4-tests"}
    assert ids(ask(shop, table=table, count=True, **login)) == ids(ask(shop, table=table))
    assert export(shop, tmp_path / "events.csv", table=table, **login)["written"] == len(records(shop, "orders"))
    refused = ask(shop, may_fail=True, **{**login, "login_user": stranger})
    assert refused.msg.endswith(
        f": {stranger}@% may not read audit.audit_log; name it among the `readers` of the trail"
    )
    install_trail(shop)


def test_what_cannot_be_asked_is_one_clear_error(shop):
    assert "there is no audit trail: elsewhere.audit_log" in ask(shop, schema="elsewhere", may_fail=True).msg
    assert ask(shop, limit=0, may_fail=True).msg.startswith("limit: 0 is not between")
    assert ask(shop, since="1h", until="1d", may_fail=True).msg.startswith("since: '1h' is not before until: '1d'")


def test_a_page_is_one_query_and_its_count_another(shop, tmp_path):
    def statements(**options: t.Any) -> int:
        cutter = MysqlCutter(shop.server)
        running.run_module(MODULE, may_fail=True, **cutter.login, **options)
        cutter.close()
        return cutter.statements

    # What every module begins with; this query is refused before it is sent.
    first = statements(limit=0)
    assert first > 2
    assert [statements(limit=limit) - first for limit in (1, 10000)] == [1, 1]
    assert statements(limit=1, count=True) - first == 2
    assert statements(dest=str(tmp_path / "events.jsonl")) - first == 1


@pytest.mark.parametrize(
    "options",
    [{"until": "2001-02-01"}, {"after": "2001-01-01T00:00:00Z,1", "order": "desc"}],
)
def test_partitions_outside_of_the_range_are_not_read(shop, options):
    defaults = {name: entry.get("default") for name, entry in EVENTS_SPEC.items()}

    def partitions(**given: t.Any) -> set[str]:
        query = parse_query({**defaults, **given}, datetime.datetime.now(datetime.timezone.utc))
        text, parameters = event_sql.select(DIALECT, "audit.audit_log", query)
        explain = "EXPLAIN PARTITIONS" if shop.server.is_mariadb else "EXPLAIN FORMAT = TRADITIONAL"
        with contextlib.closing(shop.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"{explain} {text}", parameters)
            names = [column[0] for column in cursor.description].index("partitions")
            return {name for row in cursor.fetchall() for name in str(row[names]).split(",")}

    assert len(partitions()) > 3
    assert partitions(**options) == {"p_past"}
    assert "p_past" not in partitions(since="1h")


@pytest.fixture(scope="module")
def large(trail: MysqlServer) -> t.Iterator[Schema]:
    """Return a database of which the log has 50,000 records of a kilobyte."""
    with Schema(trail) as made:
        for _block in range(EXPORT_ROWS // 500):
            add(made, "2001-01-01", 500, "large", "x" * 1000)
        yield made
        forget_the_past(made)


def test_memory_does_not_grow_with_the_export(large, tmp_path):
    path = tmp_path / "events.jsonl"

    def peak(table: str) -> int:
        return peak_memory(MODULE, **large.login, dest=str(path), table=table)

    small = peak("nothing")
    assert path.stat().st_size == 0
    assert peak(f"{large.name}.large") - small < 4 << 20
    assert path.stat().st_size > EXPORT_ROWS * 1000


def exports(schema: Schema) -> list[int]:
    """Return the connections that an export is being read by."""
    query = "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT CAST(e.id%'"
    return [number for (number,) in schema.execute(query)]


@pytest.mark.parametrize("end", ["client", "connection", "query"])
def test_an_export_that_is_interrupted_leaves_no_file(large, tmp_path, end):
    path = tmp_path / "events.jsonl"
    # The one of a client that was killed lives on for a moment.
    wait_until(lambda: not exports(large))
    process = running.start_module(MODULE, **large.login, dest=str(path), table=f"{large.name}.large")
    wait_until(lambda: exports(large))
    if end == "client":
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    else:
        large.execute(f"KILL {end} {exports(large)[0]}")
        result = running.finish_module(process)
        assert result.failed
        assert "interrupted" in result.msg if end == "query" else "connection was lost" in result.msg
    assert os.listdir(tmp_path) == []
