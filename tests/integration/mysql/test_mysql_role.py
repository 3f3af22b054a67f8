# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role mysql_audit and its playbooks: rolled out, repeated, predicted, verified, scheduled, removed."""

from __future__ import annotations

import datetime
import getpass
import pathlib
import subprocess
import typing as t

import pytest
from fleet import HOST, lines, play, sql_shown
from mysql_auditing import records
from mysql_databases import MysqlServer, Schema

pytestmark = pytest.mark.own_server


@pytest.fixture
def shop(without_trail: MysqlServer) -> t.Iterator[Schema]:
    """Return a database with two tables and a view, on a server without a trail."""
    with Schema(without_trail) as made:
        made.execute("CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(20), password VARCHAR(20))")
        made.execute("CREATE TABLE orders (id INT PRIMARY KEY)")
        made.execute("CREATE VIEW names AS SELECT name FROM users")
        yield made


def inventory(schema: Schema, **variables: t.Any) -> dict[str, t.Any]:
    # The plugin belongs to the whole server, and has tests of its own.
    settings = {
        "plugin_enabled": False,
        "login": schema.login,
        "policies": [{"tables": [f"{schema.name}.*"]}],
        "schedule": "event",
        **variables,
    }
    return {"mysql": {"hosts": {HOST: {f"mysql_audit_{name}": value for name, value in settings.items()}}}}


@pytest.mark.smoke
def test_site_audits_a_server_and_a_second_run_changes_nothing(shop, local_host):
    hosts = inventory(shop)
    hosts["mysql"]["vars"] = local_host
    predicted = play("site", hosts, "--check", "--diff")
    assert shop.execute("SELECT 1 FROM information_schema.schemata WHERE schema_name = 'audit'") == []
    first = play("site", hosts, "--diff")
    assert sql_shown(predicted) == sql_shown(first) != []
    shop.execute("INSERT INTO users VALUES (1, 'ann', 'secret')")
    shop.execute("UPDATE users SET name = 'bob'")
    shop.execute("DELETE FROM users")
    second = play("site", hosts)
    assert (first.stats(HOST)["changed"], second.stats(HOST)["changed"]) == (3, 0)
    assert [record.action for record in records(shop)] == ["INSERT", "UPDATE", "DELETE"]
    assert "secret" not in str(records(shop))
    (line,) = lines(first)
    assert line.startswith(
        f"{HOST}: 2/2 tables audited, 1 skipped (a view: audit the tables below it: {shop.name}.names)"
    )


@pytest.mark.thorough
def test_verify_says_what_it_proved_and_fails_on_a_problem(shop, local_host):
    hosts = inventory(shop)
    hosts["mysql"]["vars"] = local_host
    play("site", hosts)
    assert f"OK {HOST}: probe recorded, tampering refused, 0 problems" in play("verify", hosts).stdout
    (name,) = shop.execute(
        "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = %s LIMIT 1", shop.name
    )[0]
    shop.execute(f"DROP TRIGGER `{name}`")
    found = play("verify", hosts, check=False)
    assert found.rc == 2
    assert f"FAILED {HOST}: probe recorded, tampering refused, 1 problem" in found.stdout


def test_remove_takes_everything_out_and_keeps_the_rows(shop, local_host):
    hosts = inventory(shop)
    hosts["mysql"]["vars"] = local_host
    play("site", hosts)
    shop.execute("INSERT INTO orders VALUES (1)")
    removed = play("remove", hosts)
    assert "the rows kept in audit.audit_log" in removed.stdout
    shop.execute("INSERT INTO orders VALUES (2)")
    assert [record.record_id for record in records(shop)] == ["1"]
    play("remove", hosts, "--extra-vars", "audit_drop_log=true")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"polices": []}, "unknown variable mysql_audit_polices; did you mean mysql_audit_policies?"),
        ({"policies": []}, "mysql_audit_policies"),
        ({"instance": "a b"}, "mysql_audit_instance"),
        ({"schedule": "cron"}, "stores no password"),
        ({"policies": [{"tables": ["nowhere.*"]}]}, "matches no table"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_changed(shop, local_host, variables, words):
    hosts = inventory(shop, **variables)
    hosts["mysql"]["vars"] = local_host
    result = play("site", hosts, check=False)
    assert result.rc == 2
    assert words in result.stdout


@pytest.mark.thorough
def test_a_schedule_of_the_host_makes_partitions_through_a_year(shop, local_host, tmp_path: pathlib.Path):
    """By cron's script, month by month, and the event of the server is gone while it does."""
    (tmp_path / "cron.d").mkdir()
    options = tmp_path / "client.cnf"
    options.write_text(f"[client]\nuser={shop.server.user}\npassword={shop.server.password}\n", encoding="utf-8")
    script = tmp_path / "maintain"
    hosts = inventory(
        shop,
        login={"login_unix_socket": str(shop.server.socket), "config_file": str(options)},
        become=False,
        schedule="cron",
        instance="main",
        become_root=False,
        schedule_user=getpass.getuser(),
        schedule_script=str(script),
        cron_dir=str(tmp_path / "cron.d"),
        systemd_dir=str(tmp_path),
    )
    hosts["mysql"]["vars"] = local_host
    play("site", hosts)
    assert shop.execute("SELECT event_name FROM information_schema.events WHERE event_schema = 'audit'") == []
    start = datetime.datetime.now(datetime.timezone.utc)
    for month in range(1, 13):
        moment = start + datetime.timedelta(days=30 * month)
        done = subprocess.run([script, str(int(moment.timestamp()))], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        ahead = shop.value(
            "SELECT COUNT(*) FROM information_schema.partitions WHERE table_schema = 'audit' "
            "AND table_name = 'audit_log_data' AND partition_name > %s AND partition_name LIKE 'p2%%'",
            moment.strftime("p%Y_%m"),
        )
        assert ahead == 3
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"client.cnf", "maintain", "dbfleet-audit-partitions-main"}
    assert shop.server.password not in script.read_text(encoding="utf-8")
    assert play("site", hosts).stats(HOST)["changed"] == 0
    play("remove", hosts)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"client.cnf"}
