# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook report: one run over a server, one whose database does not answer, and a host that is gone."""

from __future__ import annotations

import json
import pathlib
import typing as t
from xml.etree import ElementTree

import pytest
from alert_sinks import MailServer, Webhook
from auditing import rollout, trail_database
from databases import Database
from fleet import HOST, audited, inventory, lines, play
from local_postgresql import LocalPostgresql
from running import run_playbook

GONE = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_common_args": "-F none"}
LOAD = {"reason": "load", "approved_by": "dpo", "until": "2099-12-31"}


class Report(t.NamedTuple):
    """What a run has written and said."""

    dest: pathlib.Path
    model: dict[str, t.Any]
    said: str
    rc: int
    webhook: Webhook
    mail: MailServer

    @property
    def hosts(self) -> dict[str, t.Any]:
        """The hosts of the model by their names."""
        return {host["name"]: host for host in self.model["hosts"]}


@pytest.fixture(scope="module")
def shop(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database with an audited table that work was done on, and one that is not audited."""
    with trail_database(pg) as database:
        database.execute("CREATE TABLE users (id int PRIMARY KEY, ssn text)")
        database.execute("CREATE TABLE patients (id int PRIMARY KEY, diagnosis text, ssn text)")
        database.execute("CREATE TABLE patients_load (id int PRIMARY KEY, diagnosis text, ssn text)")
        database.execute("CREATE SEQUENCE numbers")
        rollout(database, policies=[{"tables": ["public.users"]}], exceptions=[{**LOAD, "table": "public.*_load"}])
        database.execute("SET app.\"user\" = 'ann'; INSERT INTO users SELECT n FROM generate_series(1, 20) AS n")
        yield database


@pytest.fixture(scope="module")
def report(shop: Database, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Report]:
    """Return what one run of the playbook over three hosts has made."""
    webhook, mail = Webhook(), MailServer()
    host, _colon, port = mail.address.partition(":")
    alerts = {
        "webhook": {"url": webhook.url, "headers": {"Authorization": "Bearer t0ken"}},
        "mail": {"to": ["dba@example.org"], "sender": "audit@example.org", "host": host, "port": int(port)},
    }
    dest = tmp_path_factory.mktemp("report") / "q4"
    dest.mkdir(mode=0o750)
    # The report only predicts what it would take for pgaudit to be there, so that the server may be everybody's.
    users, load = audited(shop, {"tables": ["public.users"]}), {**LOAD, "table": f"{shop.name}.public.*_load"}
    hosts = inventory(shop.server, [users], exceptions=[load], pgaudit_enabled=True)
    servers = hosts["postgresql"]["hosts"]
    servers["gone"] = GONE
    servers["broken"] = {**servers[HOST], "postgresql_audit_login": {"login_host": "127.0.0.1", "login_port": 1}}
    checks = [
        {"name": "users", "query": "SELECT count(*) FROM public.users", "threshold": 10, "databases": [shop.name]},
        {"name": "writer", "query": "SELECT nextval('public.numbers')", "threshold": 10},
    ]
    ledger = dest.parent / "ledger"
    (ledger / HOST).mkdir(parents=True)
    (ledger / HOST / f"{shop.name}.jsonl.verified").write_text('{"verified_at": "2026-11-22T05:00:12Z"}')
    everywhere = {"dest": str(dest), "checks": checks, "thresholds": {"coverage": 100}, **alerts}
    variables = {f"audit_report_{name}": value for name, value in everywhere.items()}
    variables.update(audit_profiles=["hipaa"], audit_seal_ledger=str(ledger))
    result = play("report", {"all": {"vars": variables, "children": hosts}}, check=False)
    assert dest.exists(), result.stdout
    model = json.loads((dest / "report.json").read_text(encoding="utf-8"))
    yield Report(dest, model, "\n".join(lines(result)) + result.stdout, result.rc, webhook, mail)
    webhook.close()
    mail.close()


@pytest.mark.smoke
def test_every_format_is_written_and_nobody_else_can_read_it(report: Report):
    files = {path.name: path.stat().st_mode & 0o777 for path in report.dest.iterdir()}
    assert files == dict.fromkeys(("report.html", "report.json", "junit.xml", "dbfleet_audit.prom"), 0o600)
    # It was there.
    assert report.dest.stat().st_mode & 0o777 == 0o750
    assert "<!doctype html>" in (report.dest / "report.html").read_text(encoding="utf-8").lower()
    assert {suite.get("name") for suite in ElementTree.parse(report.dest / "junit.xml").getroot()} == {
        HOST,
        "broken",
        "gone",
        "thresholds",
    }


def test_hosts_that_could_not_be_asked_are_unknown_with_their_reason_and_fail_the_run(report: Report):
    assert report.rc != 0
    assert {name: host["posture"] for name, host in report.hosts.items()} == {
        HOST: "red",
        "gone": "unknown",
        "broken": "unknown",
    }
    assert "Failed to connect to the host" in report.hosts["gone"]["reason"]
    assert "cannot connect to database" in report.hosts["broken"]["reason"]
    assert "the report is written, but broken, gone could not be asked" in report.said.replace(
        "gone, broken", "broken, gone"
    )


def test_what_the_server_holds_and_has_recorded_is_in_the_model(report: Report, shop: Database):
    (database,) = report.hosts[HOST]["databases"]
    assert (database["name"], database["auditable"], database["audited"]) == (shop.name, 3, 1)
    assert [table["table"] for table in database["tables"] if table["exception"]] == ["public.patients_load"]
    assert (database["changes"], database["verified_at"]) == (20, "2026-11-22T05:00:12Z")
    assert report.model["activity"]["users"] == [{"name": "ann", "changes": 20, "hosts": [HOST]}]
    assert [entry["table"] for entry in report.model["discovery"]] == ["public.patients"]
    assert report.hosts[HOST]["checks"]["drift"]["level"] == "ok"
    assert report.hosts[HOST]["checks"]["statements"]["level"] == "red"
    assert "pgaudit" in report.hosts[HOST]["checks"]["statements"]["text"]
    assert report.model["collection_version"] == "0.1.0"
    assert report.model["profiles"] == ["hipaa"]
    assert all(control["met"] is not True for control in report.model["controls"])


def test_a_check_of_ones_own_that_cannot_write_and_a_threshold_alert(report: Report, shop: Database):
    users, writer = report.model["checks"]
    assert (users["host"], users["database"], users["value"], users["ok"]) == (HOST, shop.name, 20, False)
    assert (writer["ok"], writer["error"]) == (False, "cannot execute nextval() in a read-only transaction")
    alerts = {(alert["name"], alert["host"]) for alert in report.model["alerts"]}
    own = {("users", HOST), ("writer", HOST)}
    assert {("coverage", HOST), *own, ("reachable", "gone"), ("reachable", "broken")} == alerts


def test_alerts_arrive_by_webhook_and_mail_and_no_secret_is_shown(report: Report):
    ((headers, body),) = report.webhook.posts
    assert headers["Authorization"] == "Bearer t0ken"
    assert body["alerts"] == report.model["alerts"]
    assert body["summary"]["unknown"] == 2
    (mail,) = report.mail.mails
    assert mail["Subject"] == "Database audit report: 5 alerts"
    assert "ALERT reachable gone: " in mail.get_content()
    assert "t0ken" not in report.said


def test_profiles_tighten_the_defaults_of_roles_and_what_is_set_wins(tmp_path: pathlib.Path, local_host):
    tasks: list[dict[str, t.Any]] = [
        {"ansible.builtin.import_role": {"name": "dbfleet.audit.audit_seal", "tasks_from": "verify"}},
        {"ansible.builtin.import_role": {"name": "dbfleet.audit.pgaudit", "tasks_from": "preflight"}},
    ]
    shown = "{{ inventory_hostname }} {{ audit_seal_max_unsealed_hours }} {{ pgaudit_settings.log | join(' ') }}"
    tasks.append({"ansible.builtin.debug": {"msg": [shown]}})
    path = tmp_path / "shown.yml"
    path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]), encoding="utf-8")
    strict = {**local_host, "audit_profiles": ["hipaa", "pci_dss"]}
    hosts = {
        "strict": strict,
        "own": {**strict, "audit_seal_max_unsealed_hours": 12, "pgaudit_settings": {"log": ["all"]}},
    }
    said = lines(run_playbook(path, {"all": {"hosts": hosts}}))
    assert sorted(said) == ["own 12 all", "strict 4 ddl role"]


def test_a_run_that_reaches_nobody_and_leaves_hosts_out_still_says_so_and_fails(tmp_path: pathlib.Path):
    databases = [{"name": "shop", "policies": [{"tables": ["public.*"]}]}]
    variables = {"audit_report_dest": str(tmp_path / "q4"), "audit_report_formats": ["json"]}
    hosts = {"vars": {"postgresql_audit_databases": databases}, "hosts": {"gone": GONE, "other": GONE}}
    given = {"all": {"vars": variables, "children": {"postgresql": hosts}}}
    result = play("report", given, "--limit", "gone", check=False)
    assert result.rc != 0
    assert (tmp_path / "q4").stat().st_mode & 0o777 == 0o700
    model = json.loads((tmp_path / "q4" / "report.json").read_text(encoding="utf-8"))
    reasons = {host["name"]: (host["posture"], host["reason"]) for host in model["hosts"]}
    assert reasons["other"] == ("unknown", "it was not reached, or not asked in this run")
    assert reasons["gone"][0] == "unknown"
    assert "Failed to connect" in reasons["gone"][1]


def test_a_host_that_stands_for_two_servers_is_refused(tmp_path: pathlib.Path):
    variables = {"audit_report_dest": str(tmp_path / "q4")}
    groups = {"postgresql": {"hosts": {"both": GONE}}, "mysql": {"hosts": {"both": GONE, "one": GONE}}}
    result = play("report", {"all": {"vars": variables, "children": groups}}, check=False)
    assert result.rc != 0
    assert "both: in both postgresql and mysql; give each server an inventory host of its own" in result.stdout
    assert not (tmp_path / "q4").exists()
