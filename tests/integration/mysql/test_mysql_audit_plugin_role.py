# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role mysql_audit_plugin: rolled out, repeated, predicted, removed; alone, and beside the role mysql_audit."""

from __future__ import annotations

import json
import pathlib
import sys
import typing as t

import pytest
import running
from fleet import lines
from local_mysql import LocalMysql
from mysql_databases import Schema
from plugin_auditing import Plugin

pytestmark = pytest.mark.own_server

HOST = "maria1"

#: An inventory's variables for a role whose prefix the key is.
Variables = t.Mapping[str, t.Any]


class Fleet:
    """A host with one server, and plays on it."""

    def __init__(self, server: LocalMysql, folder: pathlib.Path, local_host: Variables) -> None:
        self.plugin = Plugin(server)
        self.folder = folder
        self.local_host = local_host

    def play(
        self, *arguments: str, roles: t.Sequence[str] = ("mysql_audit_plugin",), check: bool = True, **variables: t.Any
    ) -> running.PlaybookResult:
        """Run roles on the host; ``mysql_audit_plugin:remove`` is another entry point of one."""
        tasks = []
        for role in roles:
            name, _colon, entry = role.partition(":")
            role_and_entry = {"name": f"dbfleet.audit.{name}", "tasks_from": entry or "main"}
            tasks.append({"ansible.builtin.import_role": role_and_entry})
        path = self.folder / "play.json"
        path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]), encoding="utf-8")
        settings = {"mysql_audit_plugin_login": self.plugin.login, "mysql_audit_plugin_become": False, **variables}
        host = {**self.local_host, **{key: value for key, value in settings.items() if value is not None}}
        return running.run_playbook(path, {"mysql": {"hosts": {HOST: host}}}, *arguments, check=check)


@pytest.fixture
def fleet(new_mysql_server, tmp_path, local_host) -> Fleet:
    return Fleet(new_mysql_server(), tmp_path, local_host)


def test_the_role_says_in_a_line_what_is_logged_and_a_second_run_changes_nothing(fleet):
    options = {"mysql_audit_plugin_settings": {"events": ["CONNECT", "QUERY_DDL"], "excl_users": ["monitor"]}}
    predicted = fleet.play("--check", "--diff", **options)
    assert not fleet.plugin.loaded()
    first = fleet.play("--diff", **options)
    assert (predicted.stats(HOST)["changed"], first.stats(HOST)["changed"]) == (1, 1)
    assert "INSTALL SONAME 'server_audit'" in predicted.stdout
    log = fleet.plugin.server.data / "server_audit.log"
    line, limitation = lines(first)
    assert line.startswith(
        f"{HOST}: server_audit logs CONNECT, QUERY_DDL without monitor to {log}, 20 x 100 MB, restart pending: no, "
    )
    assert limitation.startswith(f"{HOST}: limitation: server_audit counts ALTER USER")
    assert fleet.play(**options).stats(HOST)["changed"] == 0
    fleet.plugin.execute("CREATE DATABASE shop")
    assert ("QUERY", "root", "CREATE DATABASE shop", 0) in fleet.plugin.log()
    removed = fleet.play(roles=["mysql_audit_plugin:remove"], **options)
    assert "server_audit taken out, its log files kept, restart pending: yes" in removed.stdout
    assert not fleet.plugin.file.exists()


@pytest.mark.thorough
def test_beside_mysql_audit_it_takes_the_login_from_there(fleet):
    with Schema(fleet.plugin.server) as shop:
        shop.execute("CREATE TABLE orders (id INT PRIMARY KEY)")
        options = {
            "mysql_audit_plugin_login": None,
            "mysql_audit_login": fleet.plugin.login,
            "mysql_audit_policies": [{"tables": [f"{shop.name}.*"]}],
            "mysql_audit_schedule": "none",
        }
        result = fleet.play(roles=["mysql_audit", "mysql_audit_plugin"], **options)
        said = "\n".join(lines(result))
        assert f"{HOST}: 1/1 tables audited" in said
        assert f"{HOST}: server_audit logs CONNECT" in said
        assert fleet.play(roles=["mysql_audit_plugin", "mysql_audit"], **options).stats(HOST)["changed"] == 0


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"mysql_audit_plugin_setings": {}},
            "unknown variable mysql_audit_plugin_setings; did you mean mysql_audit_plugin_settings?",
        ),
        ({"mysql_audit_plugin_settings": {"events": "DDL"}}, "is none of CONNECT, QUERY, TABLE, QUERY_DDL"),
        ({"mysql_audit_plugin_option_file": "/etc/audit.cnf"}, "the server does not read /etc/audit.cnf"),
        ({"mysql_audit_plugin_restart": "always"}, "mysql_audit_plugin_restart"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_changed(fleet, variables, words):
    before = fleet.plugin.everything()
    result = fleet.play(check=False, **variables)
    assert result.rc == 2
    assert words in result.stdout
    assert fleet.plugin.everything() == before


@pytest.mark.thorough
def test_a_server_that_cannot_have_the_plugin_gets_a_message_and_the_play_goes_on(fleet):
    fleet.plugin.other.write_text(f"[mariadb]\nplugin_dir = {fleet.plugin.folder}\n", encoding="utf-8")
    fleet.plugin.server.restart()
    result = fleet.play()
    assert result.stats(HOST)["changed"] == 0
    (line,) = lines(result)
    assert line.startswith(f"{HOST}: no server_audit: ")
    required = fleet.play(check=False, mysql_audit_plugin_allow_unavailable=False)
    assert required.rc == 2
    assert "the server's plugin directory has no server_audit" in required.stdout


def permanent(fleet: Fleet) -> bool:
    """Tell whether the server refuses to unload the plugin."""
    option = "SELECT load_option FROM information_schema.plugins WHERE plugin_name = 'SERVER_AUDIT'"
    return bool(fleet.plugin.value(option) == "FORCE_PLUS_PERMANENT")


def restart_command(fleet: Fleet) -> list[str]:
    """Return what restarts the fleet's server, as somebody might whose servers no systemd runs."""
    tool = running.ROOT / "tests" / "support" / "local_mysql.py"
    return [sys.executable, str(tool), "restart", "--dir", str(fleet.plugin.server.directory)]


@pytest.mark.thorough
def test_a_plugin_that_was_loaded_before_becomes_permanent_by_a_restart_that_is_allowed(fleet):
    fleet.plugin.execute("INSTALL SONAME 'server_audit'")
    options = {"mysql_audit_plugin_restart_command": restart_command(fleet)}
    left = fleet.play(**options)
    assert "restart pending: yes" in lines(left)[0]
    assert not permanent(fleet)
    done = fleet.play(mysql_audit_plugin_restart="auto", **options)
    assert permanent(fleet)
    assert "restart pending: no" in lines(done)[0]
    assert fleet.play(mysql_audit_plugin_restart="auto", **options).stats(HOST)["changed"] == 0


@pytest.mark.thorough
def test_a_server_that_does_not_come_up_with_our_file_runs_without_it(fleet):
    fleet.plugin.execute("INSTALL SONAME 'server_audit'")
    fleet.play()
    # Somebody's line that waits for a restart. The command takes it out once our file is gone.
    broken = fleet.plugin.folder / "90-broken.cnf"
    broken.write_text("[mariadb]\nno_such_option = 1\n", encoding="utf-8")
    again = f"test -e {fleet.plugin.file} || rm -f {broken}; {' '.join(restart_command(fleet))}"
    command = ["/bin/sh", "-c", again]
    failed = fleet.play(check=False, mysql_audit_plugin_restart="auto", mysql_audit_plugin_restart_command=command)
    assert failed.rc == 2
    assert "no_such_option" in failed.stdout
    assert "it has its old settings back and runs with them" in failed.stdout
    assert not fleet.plugin.file.exists()
    assert not permanent(fleet)


@pytest.mark.thorough
def test_verify_finds_what_a_rollout_would_change_and_changes_nothing(fleet):
    fleet.play()
    proven = fleet.play(roles=["mysql_audit_plugin:verify"])
    assert lines(proven)[0].startswith(f"OK {HOST}: server_audit logs CONNECT, QUERY_DDL, QUERY_DCL to ")
    fleet.plugin.execute("SET GLOBAL server_audit_events = 'CONNECT'")
    found = fleet.play(roles=["mysql_audit_plugin:verify"], check=False)
    assert found.rc == 2
    assert [line for line in lines(found) if "events is 'CONNECT'" in line]
    assert fleet.plugin.value("SELECT @@server_audit_events") == "CONNECT"
