# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Servers and logins that cannot have everything: one clear message, and nothing half done."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import typing as t

import pytest
import running
from local_mysql import PRIMARY, LocalMysql
from mysql_auditing import audit, install_trail, records, rollout, verification
from mysql_databases import ACCOUNT_PASSWORD, Schema, connect, fetch, wait_for_replica

pytestmark = pytest.mark.own_server

MODULES = ("mysql_audit_trail", "mysql_audit_partitions", "mysql_audit_triggers", "mysql_audit_verify")

#: What a login needs where it is not root.
RIGHTS = (
    *("CREATE", "DROP", "ALTER", "SELECT", "INSERT", "UPDATE", "DELETE", "TRIGGER", "EVENT", "EXECUTE", "LOCK TABLES"),
    *("REFERENCES", "INDEX", "CREATE VIEW", "SHOW VIEW", "CREATE ROUTINE", "ALTER ROUTINE", "CREATE USER", "RELOAD"),
    "PROCESS",
)


@contextlib.contextmanager
def administrator(schema: Schema, *more: str) -> t.Iterator[dict[str, t.Any]]:
    """Give the login of an administrator who is no superuser."""
    name = schema.create_account("admin", grants="")
    rights = ", ".join((*RIGHTS, *more))
    schema.execute(f"GRANT {rights} ON *.* TO '{name}'@'%' WITH GRANT OPTION")
    yield {**schema.login, "login_user": name, "login_password": ACCOUNT_PASSWORD}


def trail(schema: Schema, **options: t.Any) -> running.ModuleResult:
    return running.run_module("mysql_audit_trail", **{**schema.login, **options})


def has_trail(schema: Schema) -> bool:
    return bool(schema.execute("SELECT 1 FROM information_schema.schemata WHERE schema_name = 'audit'"))


def definer_right(schema: Schema) -> str:
    return "SET USER" if schema.server.is_mariadb else "SET_ANY_DEFINER"


def test_the_binary_log_without_trust_wants_super_and_says_how_to_do_without(new_mysql_server):
    with Schema(new_mysql_server(log_bin="binlog", log_bin_trust_function_creators="OFF")) as schema:
        with administrator(schema, definer_right(schema)) as login:
            result = trail(schema, may_fail=True, **login)
            assert "SET GLOBAL log_bin_trust_function_creators = 1" in result.msg
            assert not has_trail(schema)
            schema.execute("SET GLOBAL log_bin_trust_function_creators = 1")
            assert trail(schema, **login).changed
            running.run_module("mysql_audit_partitions", **login)
            schema.execute("CREATE TABLE people (id INT PRIMARY KEY)")
            rollout(schema, {"tables": [f"{schema.name}.*"]}, **login)
        schema.execute("INSERT INTO people VALUES (1)")
        assert len(records(schema)) == 1
        # root has SUPER, and may.
        schema.execute("SET GLOBAL log_bin_trust_function_creators = 0")
        assert audit(schema, classification="secret").changed


def test_a_login_that_may_not_name_a_definer_is_told_what_it_lacks(new_mysql_server):
    with Schema(new_mysql_server()) as schema, administrator(schema) as login:
        result = trail(schema, may_fail=True, **login)
        assert f"give it {definer_right(schema)}" in result.msg
        assert not has_trail(schema)
        schema.execute(f"GRANT {definer_right(schema)} ON *.* TO '{login['login_user']}'@'%'")
        assert trail(schema, **login).changed
        assert not trail(schema, **login).changed


def test_an_administrator_who_is_no_superuser_is_enough(new_mysql_server):
    with Schema(new_mysql_server()) as schema, administrator(schema) as login:
        schema.execute(f"GRANT {definer_right(schema)} ON *.* TO '{login['login_user']}'@'%'")
        trail(schema, **login)
        running.run_module("mysql_audit_partitions", **login)
        schema.execute("CREATE TABLE people (id INT PRIMARY KEY)")
        policy = {"tables": [f"{schema.name}.*"]}
        assert rollout(schema, policy, **login).changed
        assert not rollout(schema, policy, **login).changed
        schema.execute("INSERT INTO people VALUES (1)")
        assert len(records(schema)) == 1
        found = verification(schema, policy, **login)
        assert found["valid"], found["problems"]
        rollout(schema, **login)
        assert trail(schema, state="absent", drop_log=True, **login).changed


def test_a_server_whose_clock_any_user_can_set_is_refused(new_mysql_server):
    with Schema(new_mysql_server(**{"sysdate-is-now": "ON"})) as schema:
        result = trail(schema, may_fail=True)
        assert "--sysdate-is-now" in result.msg
        assert "restart it" in result.msg
        assert not has_trail(schema)


def test_a_replica_gets_log_and_triggers_from_its_source_and_is_left_alone(new_mysql_server):
    primary = new_mysql_server(**PRIMARY)
    replica = new_mysql_server(replica_of=primary)
    with Schema(primary) as schema:
        schema.execute("CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(20))")
        install_trail(schema)
        audit(schema)
        schema.execute("INSERT INTO people VALUES (1, 'ann')")
        schema.execute("UPDATE people SET name = 'bea'")
        wait_for_replica(primary, replica)
        with contextlib.closing(connect(replica)) as connection:
            copied = fetch(connection, "SELECT id, changed_at, action, changed_by FROM audit.audit_log ORDER BY id")
        assert copied == schema.execute("SELECT id, changed_at, action, changed_by FROM audit.audit_log ORDER BY id")
        assert len(copied) == 2
        login = {**schema.login, "login_unix_socket": str(replica.socket), "login_password": replica.password}
        policy = {"tables": [f"{schema.name}.*"]}
        found = verification(schema, policy, **login)
        assert (found["valid"], found["probes"]) == (True, 0), found["problems"]
        info = running.run_module("mysql_audit_info", **login)
        assert info["read_only"]
        result = rollout(schema, {**policy, "update_image": "changed"}, may_fail=True, **login)
        assert "read_only, as a replica is; run against its source" in result.msg


def test_a_server_that_logs_statements_is_refused(new_mysql_server):
    with Schema(new_mysql_server(log_bin="binlog", binlog_format="STATEMENT")) as schema:
        assert "set binlog_format = ROW" in trail(schema, may_fail=True).msg
        assert not has_trail(schema)


def test_a_mixed_binary_log_takes_the_records_as_rows(new_mysql_server):
    with Schema(new_mysql_server(log_bin="binlog", binlog_format="MIXED")) as schema:
        install_trail(schema)
        schema.execute("CREATE TABLE people (id INT PRIMARY KEY)")
        audit(schema)
        schema.execute("INSERT INTO people VALUES (1)")
        events = schema.execute("SHOW BINLOG EVENTS")
        assert "audit.audit_log_data" in str([event for event in events if event[2] == "Table_map"])


@pytest.mark.parametrize("module", MODULES)
def test_a_server_that_is_too_old_is_refused_by_its_version(schema, module):
    """No supported distribution has one any more, so the line is drawn above the one that is here."""
    lines = {"_mysql.session.MINIMUM_MARIADB": (99, 0), "_mysql.session.MINIMUM_MYSQL": (99, 0)}
    result = running.run_module(module, may_fail=True, _constants=lines, **schema.login)
    assert "is too old: dbfleet.audit needs" in result.msg
    assert "99.0 or newer" in result.msg


@pytest.mark.parametrize("module", MODULES)
def test_a_missing_driver_is_named(module, tmp_path):
    """In a process that cannot import it."""
    (tmp_path / "pymysql.py").write_text("raise ImportError('no such module')", encoding="utf-8")
    environment = running.private_environment()
    environment["PYTHONPATH"] = os.pathsep.join((str(tmp_path), environment["PYTHONPATH"]))
    done = subprocess.run(
        [sys.executable, running.RUNNER, module],
        input='{"_ansible_remote_tmp": "/tmp"}',
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "(PyMySQL)" in done.stdout
    assert "Traceback" not in done.stdout.split('"exception"')[0]


def test_logins_that_fail_name_server_and_user_and_no_password(mysql_server, schema):
    assert all(
        words in running.run_module("mysql_audit_info", may_fail=True, **{**schema.login, **options}).msg
        for options, words in (
            ({"login_password": "wrong-Pass"}, f"as {mysql_server.user}: Access denied"),
            ({"login_user": "nobody"}, "as nobody: Access denied"),
            ({"login_unix_socket": None, "login_host": "127.0.0.1", "login_port": 1}, "cannot connect to 127.0.0.1:1"),
        )
    )


def test_an_option_file_names_user_and_password(schema, tmp_path):
    file = tmp_path / "client.cnf"
    file.write_text(f"[client]\nuser={schema.server.user}\npassword={schema.server.password}\n", encoding="utf-8")
    login = {**schema.login, "config_file": str(file)}
    for name in ("login_user", "login_password"):
        login.pop(name)
    assert running.run_module("mysql_audit_info", **login)["version"]["full"]


def test_a_server_that_dies_comes_back_with_every_change_and_its_record(new_mysql_server: t.Callable[..., LocalMysql]):
    server = new_mysql_server(innodb_flush_log_at_trx_commit=1)
    with Schema(server) as schema:
        schema.execute("CREATE TABLE people (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(20))")
        install_trail(schema)
        audit(schema)
        for number in range(50):
            schema.execute("INSERT INTO people (name) VALUES (%s)", str(number))
        server.kill9()
        server.start()
        again = schema.connect()
        assert fetch(again, "SELECT COUNT(*) FROM people") == [(50,)]
        assert fetch(again, "SELECT COUNT(*), COUNT(DISTINCT record_id) FROM audit.audit_log") == [(50, 50)]
