# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module server_log_events on what a real MariaDB server has written through server_audit."""

from __future__ import annotations

import json
import typing as t

import pymysql
import pytest
import running
from local_mysql import LocalMysql
from mysql_databases import ACCOUNT_PASSWORD, Schema, connect

pytestmark = pytest.mark.own_server

QUERY = "SELECT name, 'it''s \"quoted\" \\\\'\nFROM users\n\tWHERE id = 17"
NOBODY = "SELECT * FROM mysql.user"

Event = dict[str, t.Any]


@pytest.fixture
def server(new_mysql_server: t.Callable[..., LocalMysql]) -> LocalMysql:
    """Return a MariaDB server that logs everything."""
    server = new_mysql_server(
        loose_plugin_load_add="server_audit", loose_server_audit_logging="ON", loose_server_audit_excl_users="boot"
    )
    if not server.is_mariadb:
        pytest.skip("only MariaDB has server_audit")
    return server


def read(server: LocalMysql, **options: t.Any) -> running.ModuleResult:
    path = str(server.data / "server_audit.log")
    return running.run_module("server_log_events", **{"paths": [path], **options})


def told(events: list[Event]) -> list[tuple[t.Any, ...]]:
    return [
        (event["action"], event["db_user"], event["table_name"], event["new_values"]["statement"]) for event in events
    ]


def test_reads_have_their_table_and_their_statement_and_refusals_and_logins_are_told(server):
    with Schema(server) as shop:
        app = shop.create_account()
        shop.execute("CREATE TABLE users (id INT, name TEXT)")
        shop.execute("CREATE TABLE `odd,t'x|y` (id INT)")
        shop.execute(QUERY, user=app)
        shop.execute("SELECT * FROM `odd,t'x|y`", user=app)
        shop.execute("RENAME TABLE users TO people")
        for statement in (NOBODY, "CREATE USER intruder IDENTIFIED BY 'Never-to-be-seen'"):
            with pytest.raises(pymysql.err.OperationalError):
                shop.execute(statement, user=app)
        shop.execute("PREPARE made FROM \"CREATE USER x IDENTIFIED BY 'Never-to-be-seen'\"", user=app)
        with pytest.raises(pymysql.OperationalError, match="Access denied"):
            connect(server, app, "wrong")
        result = read(server, limit=10000)
    assert result["unparsed"]["count"] == 0
    assert result["files"][0]["format"] == "server_audit"
    assert "Never-to-be-seen" not in json.dumps(result)
    assert ACCOUNT_PASSWORD not in json.dumps(result)
    events = [event for event in result["events"] if event["schema_name"] in (None, shop.name)]
    reads = told([event for event in events if event["action"] == "READ" and event["db_user"] == app])
    assert [read for read in reads if read[2]] == [
        ("READ", app, "users", QUERY),
        ("READ", app, "odd,t'x|y", "SELECT * FROM `odd,t'x|y`"),
    ]
    denied = [event for event in events if event["action"] == "DENIED"]
    assert [(event["new_values"]["statement"], event["context"]["error_code"]) for event in denied] == [
        (NOBODY, 1142),
        ("CREATE USER intruder IDENTIFIED BY *****", 1227),
    ]
    failed = [event for event in events if event["action"] == "LOGIN" and not event["new_values"]["success"]]
    assert [(event["client_ip"], event["context"]["error_code"]) for event in failed if event["db_user"] == app] == [
        ("localhost", 1045)
    ]
    (renamed,) = [event for event in events if "renamed_to" in event["new_values"]]
    assert (renamed["table_name"], renamed["new_values"]["renamed_to"]) == ("users", f"{shop.name}.people")


def test_what_is_asked_of_a_table_brings_no_other_ones(server):
    with Schema(server) as shop:
        shop.execute("CREATE TABLE users (id INT, name TEXT)")
        shop.execute("CREATE TABLE orders (id INT)")
        shop.execute(QUERY)
        shop.execute("SELECT id FROM orders")
    events = read(server, table=f"{shop.name}.users", actions=["read"])["events"]
    assert told(events) == [("READ", "root", "users", QUERY), ("READ", "root", None, QUERY)]


def test_local_times_become_utc(server):
    with Schema(server) as shop:
        shop.execute("SELECT 1")
    here = read(server, time_zone="UTC")["events"][-1]["changed_at"]
    there = read(server, time_zone="+02:00")["events"][-1]["changed_at"]
    assert int(here[11:13]) - int(there[11:13]) in (2, -22)
    assert here[13:] == there[13:]
