# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module mysql_audit_plugin on MariaDB servers, by what they write into their own log after real statements."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import typing as t

import pymysql
import pytest
import running
from local_mysql import PRIMARY, LocalMysql
from mysql_databases import ACCOUNT_PASSWORD, Schema, connect, wait_for_replica
from plugin_auditing import FILE, Plugin

pytestmark = pytest.mark.own_server


@pytest.fixture
def plugin(new_mysql_server: t.Callable[..., LocalMysql]) -> Plugin:
    """Return a MariaDB server that has not loaded the plugin, with a directory of option files."""
    return Plugin(new_mysql_server())


# -- what is logged ---------------------------------------------------------------------------------------------------


def test_logins_ddl_and_grants_stand_in_the_log_and_passwords_do_not(plugin):
    first = plugin.present()
    assert first.changed
    assert first["statements"] == ["INSTALL SONAME 'server_audit'"]
    with Schema(plugin.server) as shop:
        app = shop.create_account()
        with pytest.raises(pymysql.OperationalError, match="Access denied"):
            connect(plugin.server, app, "wrong")
        shop.execute("CREATE TABLE users (id INT)")
        shop.execute("GRANT SELECT ON *.* TO auditor IDENTIFIED BY 'Very-secret-1'")
        shop.execute("CREATE PROCEDURE clear_up() DROP TABLE users")
        shop.execute("INSERT INTO users VALUES (1)", user=app)
        shop.execute("CALL clear_up()", user=app)
    log = plugin.log()
    assert ("FAILED_CONNECT", app, "", 1045) in log
    assert {("CONNECT", app, "", 0), ("DISCONNECT", app, "", 0)} < set(log)
    assert ("QUERY", "root", "CREATE TABLE users (id INT)", 0) in log
    assert ("QUERY", "root", "GRANT SELECT ON *.* TO auditor IDENTIFIED BY *****", 0) in log
    assert ("QUERY", app, "DROP TABLE users", 0) in log
    assert "INSERT" not in plugin.text()
    assert "Very-secret-1" not in plugin.text()
    assert ACCOUNT_PASSWORD not in plugin.text()


def test_changes_of_rows_are_logged_when_they_are_asked_for_and_an_excluded_user_is_not(plugin):
    with Schema(plugin.server) as shop:
        shop.execute("CREATE TABLE users (id INT)")
        app, monitor = shop.create_account("app"), shop.create_account("monitor")
        plugin.present(settings={"events": ["CONNECT", "QUERY_DML_NO_SELECT"], "excl_users": [monitor]})
        for user in (app, monitor):
            shop.execute("INSERT INTO users VALUES (1)", user=user)
            shop.execute("SELECT * FROM users", user=user)
        shop.execute("CREATE TABLE other (id INT)", user=app)
        queries = [record for record in plugin.log() if record.operation == "QUERY" and record.user != "root"]
        assert queries == [("QUERY", app, "INSERT INTO users VALUES (1)", 0)]
        # Who comes and goes is logged of everybody.
        assert ("CONNECT", monitor, "", 0) in plugin.log()


def test_with_a_list_of_users_nobody_else_is_logged(plugin):
    with Schema(plugin.server) as shop:
        app, admin = shop.create_account("app"), shop.create_account("admin")
        plugin.present(settings={"excl_users": app})
        # From the one list to the other, which the server would refuse in the wrong order.
        plugin.present(settings={"incl_users": admin})
        for user in (app, admin):
            shop.execute(f"CREATE TABLE t_{user} (id INT)", user=user)
        # And so it is after a start, which an empty list in the file would undo.
        plugin.server.restart()
        for user in (app, admin):
            shop.execute(f"DROP TABLE t_{user}", user=user)
    users = {record.user for record in plugin.log() if "TABLE t_" in record.text}
    assert users == {admin}
    assert ("QUERY", admin, f"DROP TABLE t_{admin}", 0) in plugin.log()


def test_the_log_rotates_and_keeps_as_many_files_as_are_asked_for(plugin):
    plugin.present(settings={"file_rotate_size": 2000, "file_rotations": 3, "file_path": "audit.log"})
    for _time in range(120):
        connect(plugin.server).close()
    files = {path.name: path.stat().st_size for path in plugin.server.data.glob("audit.log*")}
    assert set(files) == {"audit.log", "audit.log.1", "audit.log.2", "audit.log.3"}
    assert all(1500 < size < 2500 for name, size in files.items() if name != "audit.log")


def test_what_is_kept_unless_said_otherwise_is_far_more_than_the_plugins_own_default(plugin):
    settings = plugin.present()["settings"]
    kept = int(settings["file_rotate_size"]) * int(settings["file_rotations"])
    assert kept == 20 * 100 * 1024 * 1024
    assert plugin.value("SELECT @@server_audit_file_rotate_size * @@server_audit_file_rotations") == kept


# -- once, and for good -----------------------------------------------------------------------------------------------


def test_check_mode_predicts_the_run_and_changes_nothing(plugin):
    options = {"settings": {"excl_users": ["backup", "adm"], "syslog_info": 'a "b" \\ #c'}, "diff_mode": True}
    predicted = plugin.present(check_mode=True, **options)
    assert not plugin.file.exists()
    assert not plugin.loaded()
    real = plugin.present(**options)
    for key in ("statements", "settings", "log", "option_file", "restart_required", "limitations"):
        assert predicted[key] == real[key], key
    assert predicted["diff"] == real["diff"]
    assert real["option_file"] == str(plugin.folder / FILE)
    assert "INSTALL SONAME" in real["diff"][0]["after"]
    assert "server_audit_excl_users = adm,backup" in real["diff"][1]["after"]
    # The same, told in another way.
    options["settings"]["excl_users"] = " adm, backup"
    second = plugin.present(**options)
    assert (second.changed, second["statements"]) == (False, [])
    plugin.server.restart()
    assert not plugin.present(**options).changed
    assert plugin.value("SELECT @@server_audit_syslog_info") == 'a "b" \\ #c'


def test_the_plugin_is_permanent_at_once_and_after_a_restart(plugin):
    assert plugin.present()["restart_required"] is False
    for _round in range(2):
        with pytest.raises(pymysql.MySQLError, match="force_plus_permanent"):
            plugin.execute("UNINSTALL SONAME 'server_audit'")
        plugin.server.restart()
    plugin.execute("CREATE DATABASE after_the_restart")
    assert ("QUERY", "root", "CREATE DATABASE after_the_restart", 0) in plugin.log()
    assert plugin.file.stat().st_mode & 0o777 == 0o644


def test_what_was_changed_by_hand_is_put_back_and_named(plugin):
    plugin.present(settings={"excl_users": "backup"})
    text = plugin.file.read_text(encoding="utf-8")
    plugin.execute("SET GLOBAL server_audit_logging = OFF")
    plugin.execute("SET GLOBAL server_audit_excl_users = 'root'")
    # Who turns it off is the last that it logs.
    assert plugin.log()[-1] == ("QUERY", "root", "SET GLOBAL server_audit_logging = OFF", 0)
    plugin.file.write_text(text.replace("logging = ON", "logging = OFF"), encoding="utf-8")
    repaired = plugin.present(settings={"excl_users": "backup"}, diff_mode=True)
    assert repaired["statements"] == [
        "SET GLOBAL `server_audit_excl_users` = 'backup'",
        "SET GLOBAL `server_audit_logging` = 'ON'",
    ]
    assert "excl_users is 'root' and is to be 'backup'" in repaired["diff"][0]["after"]
    assert "loose_server_audit_logging = OFF" in repaired["diff"][1]["before"]
    assert plugin.file.read_text(encoding="utf-8") == text
    # What is not asked for any more goes back to what the plugin has.
    assert plugin.present()["statements"] == ["SET GLOBAL `server_audit_excl_users` = ''"]
    assert "excl_users" not in plugin.file.read_text(encoding="utf-8")


def test_a_plugin_loaded_by_hand_stays_loaded_and_becomes_permanent_with_the_next_restart(plugin):
    plugin.execute("INSTALL SONAME 'server_audit'")
    result = plugin.present()
    assert result["restart_required"] is True
    assert any("until the server restarts" in limitation for limitation in result["limitations"])
    assert all(statement.startswith("SET GLOBAL") for statement in result["statements"])
    plugin.server.restart()
    result = plugin.present()
    assert (result.changed, result["restart_required"]) == (False, False)


# -- what is refused before anything is changed -----------------------------------------------------------------------


@pytest.mark.parametrize("loaded", [False, True])
def test_what_cannot_be_meant_is_refused_and_nothing_is_changed(plugin, loaded):
    if loaded:
        plugin.present()
    before = plugin.everything()
    (plugin.folder / "closed").mkdir(mode=0o700)
    cases: dict[str, dict[str, t.Any]] = {
        "no evnts (did you mean events?)": {"settings": {"evnts": ["CONNECT"]}},
        "no server_audit_events (did you mean events?)": {"settings": {"server_audit_events": "CONNECT"}},
        "'DDL' is none of CONNECT, QUERY, TABLE, QUERY_DDL": {"settings": {"events": ["CONNECT", "DDL"]}},
        "events: [] is empty": {"settings": {"events": []}},
        "'lots' is no number": {"settings": {"file_rotate_size": "lots"}},
        "'1000' is not between 0 and 999": {"settings": {"file_rotations": "1000"}},
        "'maybe' is neither true nor false": {"settings": {"logging": "maybe"}},
        "is none of syslog, file": {"settings": {"output_type": "files"}},
        "is longer than the 1023 bytes": {"settings": {"excl_users": [f"user{n}" for n in range(200)]}},
        "exclude each other": {"settings": {"excl_users": "a", "incl_users": "b"}},
        "is an order and not a setting": {"settings": {"file_rotate_now": True}},
        "there is no directory /nowhere": {"settings": {"file_path": "/nowhere/audit.log"}},
        "account may not write to": {"settings": {"file_path": str(plugin.folder / "closed" / "audit.log")}},
        "does not read /etc/audit.cnf": {"option_file": "/etc/audit.cnf"},
        "was not made by dbfleet.audit": {"option_file": str(plugin.other)},
    }
    plugin.other.write_text("[mariadb]\n", encoding="utf-8")
    for words, options in cases.items():
        for check_mode in (True, False):
            result = plugin.present(may_fail=True, check_mode=check_mode, **options)
            assert result.failed, words
            assert words in result.msg
    assert plugin.everything() == before


def test_a_user_that_does_not_exist_is_warned_of(plugin):
    plugin.execute("CREATE USER monitor")
    result = plugin.present(settings={"excl_users": ["monitr"]}, check_mode=True)
    assert "no account is called monitr (names go without a host); did you mean monitor?" in str(result["warnings"])


def test_a_log_that_cannot_be_opened_fails_loudly_and_leaves_no_option_file(plugin):
    (plugin.server.data / "taken.log").mkdir(mode=0o700)
    (plugin.server.data / "taken.log" / "server_audit.log").mkdir()
    shutil.chown(plugin.server.data / "taken.log", *_owner(plugin.server.data))
    result = plugin.present(settings={"file_path": "taken.log"}, may_fail=True)
    assert "NOTHING IS BEING LOGGED" in result.msg
    assert "taken.log" in result.msg
    assert not plugin.file.exists()
    plugin.present()
    assert plugin.value("SELECT @@server_audit_logging") == 1


def test_a_disk_that_is_full_is_not_passed_over(plugin):
    options = {"settings": {"file_path": "/dev/full", "file_rotations": 0}}
    for check_mode in (False, True):
        # The second time, the option file is gone again and the server as the first run left it.
        result = plugin.present(may_fail=True, check_mode=check_mode, **options)
        assert "NOTHING IS BEING LOGGED" in result.msg
        assert "records could not be written" in result.msg
    assert not plugin.file.exists()


def _owner(path: pathlib.Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


def test_a_server_that_includes_no_directory_needs_to_be_told_what_to_do(new_mysql_server):
    plugin = Plugin(new_mysql_server(), include=False)
    assert "includes a directory" in plugin.present(may_fail=True).msg
    result = plugin.present(option_file="none")
    assert result["statements"][0] == "INSTALL SONAME 'server_audit'"
    assert "SET GLOBAL `server_audit_logging` = 'ON'" in result["statements"]
    assert any("next start undoes it" in limitation for limitation in result["limitations"])
    assert not plugin.present(option_file="none").changed


# -- other option files -----------------------------------------------------------------------------------------------


def test_what_another_option_file_says_is_shown_and_counts_no_more(plugin):
    text = "[mysqld]\nplugin-load-add = server_audit\nserver-audit-events = TABLE\nserver_audit_excl_users = root\n"
    plugin.other.write_text(text, encoding="utf-8")
    plugin.server.restart()
    result = plugin.present(diff_mode=True)
    before = result["diff"][1]["before"]
    assert "# another option file: server_audit_events = TABLE\n" in before
    assert "# another option file: server_audit_excl_users = root\n" in before
    plugin.server.restart()
    assert plugin.value("SELECT @@server_audit_events") == "CONNECT,QUERY_DDL,QUERY_DCL"
    assert plugin.value("SELECT @@server_audit_excl_users") == ""
    assert not plugin.present().changed
    assert plugin.other.read_text(encoding="utf-8") == text
    # With both lists in its files, a server that starts would follow neither.
    refused = plugin.present(settings={"incl_users": "root"}, may_fail=True)
    assert "take it out there, or take incl_users out of settings" in refused.msg


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("server_audit_events = CONNECT", "server_audit_events = CONNECT is what the server reads later"),
        ("plugin_load = auth_ed25519", "unloads what is loaded before it"),
    ],
)
def test_a_file_that_would_not_count_is_taken_back(plugin, said, words):
    (plugin.folder / "zzz.cnf").write_text(f"[mariadb]\n{said}\n", encoding="utf-8")
    result = plugin.present(may_fail=True)
    assert words in result.msg
    assert not plugin.file.exists()
    assert not plugin.loaded()


def test_a_server_that_has_lost_the_plugins_library_starts_all_the_same(plugin):
    found = pathlib.Path(plugin.value("SELECT @@plugin_dir"), "server_audit.so")
    library = plugin.folder / found.name
    shutil.copy(found, library)
    plugin.other.write_text(f"[mariadb]\nplugin_dir = {library.parent}\n", encoding="utf-8")
    plugin.server.restart()
    plugin.present()
    library.unlink()
    plugin.server.restart()
    result = plugin.present(may_fail=True)
    assert "the server's plugin directory has no server_audit" in result.msg
    assert plugin.present(allow_unavailable=True)["available"] is False


# -- who may, and where -----------------------------------------------------------------------------------------------


def test_a_login_without_the_rights_does_nothing_by_halves(plugin):
    plugin.execute(f"CREATE USER lesser IDENTIFIED BY '{ACCOUNT_PASSWORD}'")
    plugin.execute("GRANT INSERT ON mysql.plugin TO lesser")
    login = {"login_user": "lesser", "login_password": ACCOUNT_PASSWORD}
    before = plugin.everything()
    # Without the file, variables are to be set, which needs more than to load the plugin.
    refused = plugin.present(may_fail=True, option_file="none", **login)
    assert "GRANT SUPER ON *.*" in refused.msg
    result = plugin.present(allow_unavailable=True, option_file="none", **login)
    assert (result.changed, result["available"], result["reason"]) == (False, False, refused.msg)
    assert plugin.everything() == before
    plugin.present(option_file="none")
    # What is there already takes no rights.
    assert plugin.present(option_file="none", **login)["available"] is True
    # To leave what is to go is no matter of what a server can have.
    kept = plugin.absent(may_fail=True, option_file="none", allow_unavailable=True, **login)
    assert "GRANT SUPER ON *.*, DELETE ON mysql.plugin;" in kept.msg
    assert plugin.loaded()


def test_a_server_elsewhere_has_no_option_file_and_it_says_so(new_mysql_server):
    plugin = Plugin(new_mysql_server(bind_address="127.0.0.2"))
    plugin.execute(f"CREATE USER remote IDENTIFIED BY '{ACCOUNT_PASSWORD}'")
    plugin.execute("GRANT ALL ON *.* TO remote")
    login = {"login_user": "remote", "login_password": ACCOUNT_PASSWORD, "login_unix_socket": None}
    login.update(login_host="127.0.0.2", login_port=plugin.server.port)
    # As on another machine, nothing here shows the server's process.
    (plugin.server.socket_dir / "server.pid").unlink()
    assert "is not to be seen from here" in plugin.present(may_fail=True).msg
    asked_for = plugin.present(may_fail=True, option_file=str(plugin.file), **login)
    assert "is not to be seen from here" in asked_for.msg
    result = plugin.present(**login)
    assert (result["option_file"], result["settings"]["logging"]) == ("", "ON")
    assert any("on a managed service" in limitation for limitation in result["limitations"])
    assert ("CONNECT", "remote", "", 0) in plugin.log()
    assert not plugin.present(**login).changed
    assert plugin.absent(**login).changed
    assert not plugin.loaded()


def test_a_replica_is_audited_and_the_plugin_of_its_source_does_not_reach_it(new_mysql_server):
    source = Plugin(new_mysql_server(**PRIMARY))
    replica = Plugin(new_mysql_server(replica_of=source.server))
    source.present()
    source.execute("CREATE DATABASE replicated")
    wait_for_replica(source.server, replica.server)
    assert not replica.loaded()
    assert replica.present()["restart_required"] is False
    with contextlib.suppress(pymysql.MySQLError):
        connect(replica.server, "nobody", "x")
    replica.wait_for("FAILED_CONNECT")
    source.absent()
    source.execute("CREATE DATABASE replicated_too")
    wait_for_replica(source.server, replica.server)
    assert replica.loaded()
    assert not replica.present().changed


# -- and out again ----------------------------------------------------------------------------------------------------


def test_a_permanent_plugin_goes_with_the_next_restart_and_its_log_stays(plugin):
    plugin.present()
    assert plugin.absent(check_mode=True)["statements"] != []
    assert plugin.file.exists()
    result = plugin.absent()
    assert (result.changed, result["restart_required"]) == (True, True)
    assert not plugin.file.exists()
    assert plugin.value("SELECT @@server_audit_logging") == 0
    assert not plugin.absent().changed
    plugin.server.restart()
    assert not plugin.loaded()
    result = plugin.absent()
    assert (result.changed, result["restart_required"]) == (False, False)
    assert plugin.log()


def test_a_plugin_that_is_not_permanent_goes_at_once(plugin):
    plugin.present(option_file="none")
    result = plugin.absent()
    assert (result.changed, result["restart_required"]) == (True, False)
    assert not plugin.loaded()
    # And comes back while a session is still open that it had been watching.
    plugin.execute("SELECT 1")
    assert plugin.present().changed
    assert plugin.loaded()


def test_mysql_community_gets_one_clear_message(new_mysql_server):
    server = new_mysql_server()
    if server.is_mariadb:
        pytest.skip("this is MariaDB")
    login = {"login_user": "root", "login_password": server.password, "login_unix_socket": str(server.socket)}
    refused = running.run_module("mysql_audit_plugin", may_fail=True, **login)
    assert "MySQL Community has no audit log" in refused.msg
    for options in ({"allow_unavailable": True}, {"state": "absent"}):
        result = running.run_module("mysql_audit_plugin", **options, **login)
        assert (result.changed, result["available"], result["statements"]) == (False, False, [])
        assert result["reason"] == refused.msg
