# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The private MariaDB and MySQL servers of the tests: what every other test takes for granted."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
import typing as t

import pymysql
import pytest
from local_mysql import PRIMARY, LocalMysql, ServerError
from mysql_databases import ExternalMysql, MysqlServer, Schema, connect, fetch, wait_for_replica
from running import ROOT

NewServer = t.Callable[..., LocalMysql]
PROGRAM = ROOT / "tests" / "support" / "local_mysql.py"


@pytest.mark.parametrize("options", [{}, {"host": "127.0.0.1"}], ids=["default", "tcp"])
def test_root_logs_in_with_the_password_alone(mysql_server: MysqlServer, options: dict[str, t.Any]) -> None:
    if not isinstance(mysql_server, LocalMysql):
        pytest.skip("a server that others run may be reached from elsewhere, and root be another account there")
    with connect(mysql_server, **options) as connection:
        assert fetch(connection, "SELECT CURRENT_USER()") == [("root@localhost",)]
    for user, password in (("root", ""), ("root", "wrong"), ("", ""), ("nobody", "")):
        with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
            connect(mysql_server, user or "anonymous", password, **options)


def test_a_test_has_a_database_and_accounts_of_its_own(mysql_server: MysqlServer) -> None:
    with Schema(mysql_server) as schema:
        user, reader = schema.create_account(), schema.create_account("reader", "SELECT")
        schema.execute("CREATE TABLE notes (id int PRIMARY KEY, note text)", user=user)
        schema.execute("INSERT INTO notes VALUES (%s, %s)", 1, "Grüße 🐘", user=user)
        assert schema.execute("SELECT * FROM notes WHERE note LIKE 'G%'", user=reader) == [(1, "Grüße 🐘")]
        with pytest.raises(pymysql.err.OperationalError, match="denied"):
            schema.execute("DELETE FROM notes", user=reader)
        assert schema.value("SELECT count(*) FROM notes") == 1
        forgotten = schema.connect(user, autocommit=False)
        fetch(forgotten, "SELECT * FROM notes FOR UPDATE")
    with connect(mysql_server) as connection:
        assert fetch(connection, "SHOW DATABASES LIKE %s", schema.name) == []
        assert fetch(connection, "SELECT 1 FROM mysql.user WHERE User IN (%s, %s)", user, reader) == []


def test_the_login_says_how_a_module_gets_there(schema: Schema) -> None:
    place = {"login_unix_socket"} if schema.server.socket else {"login_host", "login_port"}
    assert set(schema.login) == place | {"login_user", "login_password"}


def test_a_server_keeps_its_settings_and_data_through_restart_and_crash(new_mysql_server: NewServer) -> None:
    server = new_mysql_server(max_connections=77, skip_name_resolve=1, init_connect="SET @greeting = 'hello \"you\"'")
    with connect(server, host="127.0.0.1") as connection:
        assert fetch(connection, "SELECT @@max_connections, @@init_connect") == [
            (77, "SET @greeting = 'hello \"you\"'")
        ]
        fetch(connection, "CREATE DATABASE kept")
    server.configure({"max_connections": 88})
    server.restart()
    assert server.running()
    assert server.sql("SELECT @@max_connections; SHOW DATABASES LIKE 'kept'") == [["88"], ["kept"]]
    server.kill9()
    assert not server.running()
    server.start()
    assert server.sql("SELECT 'ä'") == [["ä"]]


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ServerError, match="no_such_option"):
        LocalMysql.create(tmp_path / "server", settings={"no_such_option": 1})
    assert not (tmp_path / "server").exists()


@pytest.mark.parametrize("gtid", [True, False], ids=["gtid", "position"])
def test_a_replica_receives_what_its_primary_writes(new_mysql_server: NewServer, gtid: bool) -> None:
    primary = new_mysql_server(**PRIMARY)
    with Schema(primary) as schema:
        schema.execute("CREATE TABLE notes (id int PRIMARY KEY)")
        schema.execute("INSERT INTO notes VALUES (1)")
        replica = new_mysql_server(replica_of=primary, gtid=gtid)
        user = schema.create_account()
        schema.execute("INSERT INTO notes VALUES (2)")
        wait_for_replica(primary, replica)
        with connect(replica, user, database=schema.name) as connection:
            assert fetch(connection, "SELECT id FROM notes ORDER BY id") == [(1,), (2,)]
            with pytest.raises(pymysql.err.MySQLError, match="read-only"):
                fetch(connection, "INSERT INTO notes VALUES (3)")


def test_a_server_without_its_first_binary_log_has_no_replica(
    mysql_server: MysqlServer, tmp_path: pathlib.Path
) -> None:
    if not isinstance(mysql_server, LocalMysql) or not mysql_server.is_mariadb:
        pytest.skip("MySQL has binary logs unless told otherwise")
    with pytest.raises(ServerError, match="PRIMARY"):
        mysql_server.replica_of_this(tmp_path)


def test_the_watcher_removes_the_server_of_an_owner_that_was_killed(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "server"
    with subprocess.Popen(["sleep", "600"]) as owner:
        command = [sys.executable, PROGRAM, "start", "--dir", directory, "--while-pid", str(owner.pid)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        server = LocalMysql.load(directory)
        assert server.running()
        owner.send_signal(signal.SIGKILL)
    wait_until_gone(server)


def test_the_watcher_also_removes_a_server_in_the_making(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "server"
    script = (
        f"import os; from local_mysql import LocalMysql; LocalMysql.create({str(directory)!r}, while_pid=os.getpid())"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parent)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as owner:
        deadline = time.monotonic() + 30
        while not (directory / "server.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        server = LocalMysql.load(directory)
        owner.send_signal(signal.SIGKILL)
    wait_until_gone(server)


def wait_until_gone(server: LocalMysql) -> None:
    deadline = time.monotonic() + 30
    while (server.directory.exists() or server.base.exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not server.directory.exists()
    assert not server.base.exists()
    assert not server.running()


def test_an_external_server_is_described_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBFLEET_TEST_MYSQL", raising=False)
    assert ExternalMysql.from_environment() is None
    text = '{"host": "db.example", "port": "3307", "user": "root", "password": "s3cret"}'
    monkeypatch.setenv("DBFLEET_TEST_MYSQL", text)
    assert ExternalMysql.from_environment() == ExternalMysql("db.example", 3307, "root", "s3cret")


@pytest.mark.parametrize("text", ["db.example", "[]", '{"host": "db.example", "password": "s3cret"}'])
def test_a_wrong_description_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DBFLEET_TEST_MYSQL", text)
    with pytest.raises(ValueError, match=r"must be a JSON object of host, port, user, password") as refused:
        ExternalMysql.from_environment()
    assert "s3cret" not in str(refused.value)


def test_an_external_server_serves_tests_as_a_local_one_does(new_mysql_server: NewServer) -> None:
    local = new_mysql_server()
    external = ExternalMysql(local.host, local.port, "root", local.password)
    assert (external.is_mariadb, external.version) == (local.is_mariadb, local.version)
    with Schema(external) as schema:
        user = schema.create_account()
        assert schema.value("SELECT SUBSTRING_INDEX(USER(), '@', 1)", user=user) == user
        assert schema.login == {
            "login_host": "127.0.0.1",
            "login_port": local.port,
            "login_user": "root",
            "login_password": local.password,
        }
