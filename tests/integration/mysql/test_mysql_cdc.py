# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Change data capture on MariaDB: the binary log set up once, and landed by the example consumer."""

from __future__ import annotations

import os
import pathlib
import threading
import typing as t

import pytest
import running
from cdc_consumers import Consumer
from local_mysql import LocalMysql
from mysql_databases import ACCOUNT_PASSWORD, Schema

pytestmark = pytest.mark.own_server

FILE = "zz-dbfleet-audit-cdc.cnf"
WEEK = 604800


class Set(t.NamedTuple):
    """A server that is set up, a database on it, the consumer's account, and what the module said on the way."""

    schema: Schema
    account: str
    folder: pathlib.Path
    refused: running.ModuleResult
    predicted: running.ModuleResult
    done: running.ModuleResult


def cdc(schema: Schema, **options: t.Any) -> running.ModuleResult:
    return running.run_module("mysql_audit_cdc", **{**schema.login, **options})


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Set]:
    """Return a MariaDB server that had no binary log, and has one now."""
    server = LocalMysql.create(tmp_path_factory.mktemp("cdc") / "server", while_pid=os.getpid())
    try:
        if not server.is_mariadb:
            pytest.skip("there is no MariaDB server here")
        folder = server.socket_dir / "conf.d"
        folder.mkdir(mode=0o755)
        with server.option_file.open("a", encoding="utf-8") as opened:
            opened.write(f"!includedir {folder}\n")
        schema = Schema(server)
        account = schema.create_account("cdc", grants="")
        schema.execute(f"GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO {account}@'%'")
        options = {"binlog_expire_logs_seconds": WEEK, "account": account}
        refused = cdc(schema, may_fail=True, **options)
        predicted = cdc(schema, check_mode=True, configure=True, **options)
        done = cdc(schema, configure=True, **options)
        server.restart()
        schema = Schema(server, schema.name)
        yield Set(schema, account, folder, refused, predicted, done)
    finally:
        server.remove()


@pytest.fixture
def consumer(stream: Set, tmp_path: pathlib.Path) -> Consumer:
    login = tmp_path / "client.cnf"
    login.write_text(
        f"[client]\nuser = {stream.account}\npassword = {ACCOUNT_PASSWORD}\nsocket = {stream.schema.server.socket}\n",
        encoding="utf-8",
    )
    file = tmp_path / "landed.jsonl"
    return Consumer("consumer_mysql", file, "--defaults-file", str(login), "--schema", stream.schema.name, str(file))


def test_a_server_is_made_ready_in_one_run_and_a_restart_and_then_left_alone(stream):
    assert "log_bin is OFF and has to be ON; binlog_format is 'MIXED' and has to be 'ROW'" in stream.refused.msg
    assert (stream.refused["restart_required"], stream.refused["statements"]) == (True, [])
    assert stream.done["statements"] == stream.predicted["statements"]
    assert "SET GLOBAL `binlog_format` = 'ROW'" in stream.done["statements"]
    assert stream.done["restart"]["restore"] == [{"path": str(stream.folder / FILE)}]
    again = cdc(stream.schema, configure=True, binlog_expire_logs_seconds=WEEK, account=stream.account)
    assert (again.changed, again["statements"], again["restart_required"]) == (False, [], False)
    wanted = {"log_bin": "ON", "binlog_row_image": "FULL", "binlog_row_metadata": "FULL", "gtid_strict_mode": "ON"}
    assert {name: again["settings"][name] for name in wanted} == wanted
    assert again["settings"]["binlog_expire_logs_seconds"] == str(WEEK)
    assert again["binary_logs"]["bytes"] > 0
    assert [problem["type"] for problem in again["problems"]] == ["inactive"]
    # What is set already needs nobody's leave.
    assert not cdc(stream.schema).changed


def test_what_no_consumer_could_read_is_refused(stream):
    schema = stream.schema
    app = schema.create_account("app")
    result = cdc(schema, account=app, may_fail=True)
    assert result.msg.endswith(
        "account: it may not read the binary log: GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO it"
    )
    schema.execute("SET GLOBAL binlog_expire_logs_seconds = 0")
    assert "kept for ever and fill the disk" in cdc(schema, may_fail=True).msg
    repaired = cdc(schema, configure=True, binlog_expire_logs_seconds=WEEK)
    assert repaired["statements"] == [f"SET GLOBAL `binlog_expire_logs_seconds` = {WEEK}"]
    other = stream.folder / "zzz-other.cnf"
    other.write_text("[mysqld]\nbinlog_format = MIXED\n", encoding="utf-8")
    (stream.folder / FILE).unlink()
    result = cdc(schema, configure=True, binlog_expire_logs_seconds=WEEK, may_fail=True)
    assert "binlog_format = MIXED is what the server reads later" in result.msg
    assert not (stream.folder / FILE).exists()
    other.unlink()
    assert cdc(schema, configure=True, binlog_expire_logs_seconds=WEEK).changed
    # What another file says later counts from the next start on, whether ours is new or not.
    other.write_text("[mysqld]\nexpire-logs-days = 0\n", encoding="utf-8")
    result = cdc(schema, configure=True, binlog_expire_logs_seconds=WEEK, may_fail=True)
    assert "binlog_expire_logs_seconds = expire_logs_days 0 is what the server reads later" in result.msg
    other.unlink()


def test_a_consumer_lands_every_change_in_the_trails_shape(stream, consumer):
    schema = stream.schema
    schema.execute(
        "CREATE TABLE note (id INT PRIMARY KEY, body TEXT, amount DECIMAL(10,2), tags JSON, password VARCHAR(20),"
        " raw BLOB)"
    )
    with consumer.running():
        consumer.wait(lambda _events: consumer.file.exists())
        schema.execute("INSERT INTO note VALUES (1, 'one', 1.50, '{\"a\": [1, null]}', 's3cret', x'00ff')")
        schema.execute("UPDATE note SET body = 'two', password = 'other' WHERE id = 1")
        schema.execute("DELETE FROM note")
        schema.execute("TRUNCATE TABLE note")
        landed = consumer.wait_for("note", 4)
    one = {"id": 1, "body": "one", "amount": "1.50", "tags": landed[0]["new_values"]["tags"]}
    one.update(password="[REDACTED]", raw="AP8=")
    seen = [(event["action"], event["old_values"], event["new_values"], event["record_id"]) for event in landed]
    two = {**one, "body": "two"}
    assert seen == [
        ("INSERT", None, one, "1"),
        ("UPDATE", one, two, "1"),
        ("DELETE", two, None, "1"),
        ("TRUNCATE", None, None, None),
    ]
    assert landed[1]["changed_columns"] == ["body", "password"]
    assert {event["changed_by"] for event in landed} == {None}
    assert {event["schema_name"] for event in landed} == {schema.name}
    assert landed[0]["id"] == f"{landed[0]['transaction_id']}:1"


def test_what_the_log_has_not_is_not_made_up(stream, consumer):
    schema = stream.schema
    schema.execute("CREATE TABLE thin (id INT PRIMARY KEY, a INT, s SET('p', 'q'))")
    with consumer.running():
        consumer.wait(lambda _events: consumer.file.exists())
        # As a session of an application does that is older than the module's run.
        schema.execute("SET SESSION binlog_row_image = MINIMAL")
        schema.execute("INSERT INTO thin VALUES (1, NULL, '')")
        schema.execute("UPDATE thin SET a = 3")
        schema.execute("SET SESSION binlog_row_image = FULL")
        landed = consumer.wait_for("thin", 2)
    assert [(event["old_values"], event["new_values"]) for event in landed] == [
        (None, {"id": 1, "a": None, "s": ""}),
        ({"id": 1}, {"a": 3}),
    ]
    assert (landed[1]["record_id"], landed[1]["changed_columns"]) == ("1", None)


def test_changes_that_cannot_be_read_are_a_gap_that_is_landed(stream, consumer):
    schema = stream.schema
    schema.execute("CREATE TABLE gap (id INT PRIMARY KEY, token VARCHAR(9), at TIME, body TEXT)")
    with consumer.running():
        consumer.wait(lambda _events: consumer.file.exists())
        schema.execute("SET SESSION binlog_format = STATEMENT")
        schema.execute("INSERT INTO gap VALUES (1, 'x', '01:02:03', NULL)")
        schema.execute("SET SESSION binlog_format = ROW")
        schema.execute("SET GLOBAL log_bin_compress = ON")
        schema.execute("INSERT INTO gap VALUES (2, 'y', NULL, repeat('x', 2000))")
        assert cdc(schema, configure=True)["statements"] == ["SET GLOBAL `log_bin_compress` = 'OFF'"]
        schema.execute("ALTER TABLE gap DROP PRIMARY KEY, ADD PRIMARY KEY (token)")
        schema.execute("UPDATE gap SET id = 3 WHERE id = 1")
        landed = consumer.wait(lambda events: len(events) == 3)
    assert [event["action"] for event in landed] == ["MISSED", "MISSED", "UPDATE"]
    assert ["statement" in landed[0]["context"]["reason"], "compressed" in landed[1]["context"]["reason"]] == [
        True,
        True,
    ]
    assert landed[2]["record_id"] == "[REDACTED]"
    assert landed[2]["new_values"]["at"] == "01:02:03"


def test_a_consumer_that_is_killed_carries_on_and_loses_nothing(stream, consumer):
    schema = stream.schema
    schema.execute("CREATE TABLE word (id INT PRIMARY KEY AUTO_INCREMENT, word VARCHAR(20))")

    def write() -> None:
        for number in range(300):
            schema.execute("INSERT INTO word (word) VALUES (%s)", f"n{number}")

    writer = threading.Thread(target=write)
    with consumer.running():
        consumer.wait(lambda _events: consumer.file.exists())
        writer.start()
        consumer.wait_for("word", 20)
    with consumer.file.open("a", encoding="utf-8") as file:
        file.write('{"id": "torn')
    writer.join()
    with consumer.running():
        landed = consumer.wait_for("word", 300)
    assert [event["new_values"]["word"] for event in landed] == [f"n{number}" for number in range(300)]
