# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sealing and verification by schedule, from the controller: what is installed, and who hears of a failure."""

from __future__ import annotations

import getpass
import json
import os
import pathlib
import subprocess
import sys
import time
import typing as t

import pytest
from alert_sinks import MailServer, Webhook
from databases import Database
from fleet import HOST, inventory, play
from running import ROOT, private_environment
from sealing import make_key

RUNNER = ROOT / "roles/audit_controller/files/dbfleet_audit_run.py"
TOKEN = "token-4711-secret"


@pytest.fixture
def webhook() -> t.Iterator[Webhook]:
    sink = Webhook()
    yield sink
    sink.close()


@pytest.fixture
def mail_server() -> t.Iterator[MailServer]:
    sink = MailServer()
    yield sink
    sink.close()


def run(log: pathlib.Path, command: t.Sequence[str], *options: str, **environment: str) -> t.Any:
    """Run a command as a job does."""
    return subprocess.run(
        [sys.executable, RUNNER, "--job", "verify", "--log", log, *options, "--", *command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


RECAP = "pg1  : ok=3    changed=0    unreachable=0    failed=1"
FAILING = ["sh", "-c", f'echo "FAILED pg1 shop: 1 problem"; echo "{RECAP}"; exit 2']


def test_a_failure_reaches_webhook_and_mail_and_a_success_nobody(tmp_path, webhook, mail_server):
    log = tmp_path / "verify.log"
    ways = ["--webhook", webhook.url, "--mail-to", "dba@example.org", "--smtp", mail_server.address]
    good = run(log, ["echo", "all is well"], *ways)
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    assert webhook.posts == []
    bad = run(log, FAILING, *ways, DBFLEET_AUDIT_WEBHOOK_TOKEN=TOKEN)
    assert bad.returncode == 2
    assert "FAILED pg1 shop: 1 problem" in bad.stderr
    ((headers, facts),) = webhook.posts
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    assert (facts["job"], facts["status"], facts["hosts"]) == ("verify", 2, ["pg1"])
    assert facts["problems"] == ["FAILED pg1 shop: 1 problem"]
    assert facts["lines"][-1].startswith("pg1  : ok=3")
    assert "FAILED pg1 shop: 1 problem" in facts["text"]
    (mail,) = mail_server.mails
    assert mail["To"] == "dba@example.org"
    assert mail["Subject"].startswith("dbfleet.audit: verify failed on ")
    assert "FAILED pg1 shop: 1 problem" in mail.get_content()
    assert "all is well" in log.read_text()
    assert TOKEN not in log.read_text() + bad.stderr


@pytest.mark.parametrize("status", [None, 500, 302])
def test_an_alert_that_is_not_taken_does_not_hide_the_failure(tmp_path, webhook, mail_server, status):
    if status:
        webhook.status = status
        said = f"the alert by webhook was not sent: HTTP status {status}"
    else:
        webhook.close()
        said = "the alert by webhook was not sent: [Errno 111] Connection refused"
    bad = run(
        tmp_path / "verify.log", FAILING, "--mail-to", "dba@example.org", "--smtp", mail_server.address,
        DBFLEET_AUDIT_WEBHOOK_URL=webhook.url,
    )  # fmt: skip
    assert bad.returncode == 2
    assert said in bad.stderr
    assert webhook.url not in bad.stderr
    assert len(mail_server.mails) == 1


def test_a_mail_can_go_by_a_command(tmp_path):
    sendmail = tmp_path / "sendmail"
    sendmail.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments; cat > {tmp_path}/mail\n')
    sendmail.chmod(0o755)
    run(
        tmp_path / "log",
        FAILING,
        "--mail-to",
        "a@example.org",
        "--mail-to",
        "b@example.org",
        "--sendmail",
        str(sendmail),
    )
    assert (tmp_path / "arguments").read_text() == "-t -i\n"
    assert "To: a@example.org, b@example.org" in (tmp_path / "mail").read_text()
    broken = run(tmp_path / "log", FAILING, "--mail-to", "a@example.org", "--sendmail", str(tmp_path / "none"))
    assert broken.returncode == 2
    assert "the alert by mail was not sent: " in broken.stderr


def test_the_playbook_does_not_get_the_secrets_of_alerts(tmp_path):
    log = tmp_path / "log"
    run(log, ["env"], DBFLEET_AUDIT_WEBHOOK_TOKEN=TOKEN, DBFLEET_AUDIT_SMTP_PASSWORD=TOKEN, OTHER="is passed on")
    assert TOKEN not in log.read_text()
    assert "OTHER=is passed on" in log.read_text()


def test_what_hangs_is_ended_and_what_cannot_start_is_told(tmp_path, webhook):
    late = run(tmp_path / "log", ["sh", "-c", "sleep 60 & wait"], "--hours", "0.0002", "--webhook", webhook.url)
    assert late.returncode == 124
    missing = run(tmp_path / "log", [str(tmp_path / "nothing")], "--webhook", webhook.url)
    assert missing.returncode == 127
    nowhere = run(tmp_path / "no" / "log", ["true"], "--webhook", webhook.url)
    assert nowhere.returncode == 127
    assert [facts["status"] for _headers, facts in webhook.posts] == [124, 127, 127]
    assert "after 0.0002 hours" in webhook.posts[0][1]["problems"][0]


def test_runs_do_not_overlap(tmp_path):
    log = tmp_path / "log"
    with subprocess.Popen([sys.executable, RUNNER, "--job", "seal", "--log", log, "--", "sleep", "5"]) as first:
        while not log.exists():
            time.sleep(0.05)
        second = run(log, ["touch", str(tmp_path / "ran")])
        first.terminate()
    assert second.returncode == 0
    assert not (tmp_path / "ran").exists()
    assert "left out, because the run before it is still going on" in log.read_text()


def scheduled(tmp_path: pathlib.Path, hosts: dict[str, t.Any], **variables: t.Any) -> tuple[str, ...]:
    """Return the arguments of schedule.yml for jobs whose files all go to a directory of the test's own."""
    (tmp_path / "cron.d").mkdir(exist_ok=True)
    (tmp_path / "hosts.json").write_text(json.dumps(hosts))
    given = {
        "kind": "cron",
        "run_once": False,
        "become_root": False,
        "environment": {name: private_environment()[name] for name in ("HOME", "ANSIBLE_COLLECTIONS_PATH")},
        **{f"{name}_dir": str(tmp_path / name) for name in ("log", "systemd")},
        "script_dir": str(tmp_path),
        "cron_dir": str(tmp_path / "cron.d"),
        **variables,
    }
    return "-e", json.dumps({f"audit_controller_{name}": value for name, value in given.items()})


@pytest.fixture
def shop(db: Database) -> Database:
    db.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    return db


@pytest.fixture
def fleet(shop: Database, tmp_path: pathlib.Path) -> dict[str, t.Any]:
    """Return an inventory of one server, rolled out and with keys."""
    key = make_key(tmp_path)
    hosts = inventory(shop.server, [shop])
    seals = {"signing_key": key.private, "public_keys": [key.public], "ledger": str(tmp_path / "ledger")}
    hosts["postgresql"]["vars"] = {f"audit_seal_{name}": value for name, value in seals.items()}
    play("site", hosts)
    return hosts


@pytest.mark.thorough
def test_the_jobs_seal_and_verify_and_tell_of_a_failed_verification_and_of_a_host_that_is_gone(
    shop, fleet, tmp_path, webhook, mail_server
):
    secrets = tmp_path / "secrets"
    secrets.write_text(f"DBFLEET_AUDIT_WEBHOOK_TOKEN='{TOKEN}'\n")
    arguments = scheduled(
        tmp_path, fleet, webhook=webhook.url, mail_to=["dba@example.org"], smtp=mail_server.address,
        secrets_file=str(secrets), arguments=["--diff"], run_once=True,
    )  # fmt: skip
    source = tmp_path / "hosts.json"
    play("schedule", source, *arguments)
    # Each job ran once, when it was installed.
    assert "1 seal" not in (tmp_path / "log" / "seal-fleet.log").read_text().splitlines()[0]
    assert "exit status 0" in (tmp_path / "log" / "verify-fleet.log").read_text()
    assert (tmp_path / "ledger" / HOST / f"{shop.name}.jsonl").exists()
    assert play("schedule", source, *arguments).stats()["changed"] == 0
    seal, verify = (tmp_path / f"dbfleet-audit-{job}-fleet" for job in ("seal", "verify"))
    assert (tmp_path / "cron.d" / "dbfleet-audit-seal-fleet").read_text().splitlines()[-1] == (
        f"*/15 * * * * {getpass.getuser()} {seal}"
    )
    assert TOKEN not in seal.read_text()
    shop.execute("INSERT INTO users VALUES (1, 'ann')")
    assert subprocess.run([seal], check=False).returncode == 0
    assert webhook.posts == mail_server.mails == []
    shop.execute("ALTER TABLE users DISABLE TRIGGER ALL")
    assert subprocess.run([verify], capture_output=True, check=False).returncode == 2
    ((headers, facts),) = webhook.posts
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    assert facts["hosts"] == [HOST]
    assert any(f"FAILED {HOST} {shop.name}: " in line for line in facts["problems"])
    assert len(mail_server.mails) == 1
    gone = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_connection": "ssh"}
    fleet["postgresql"]["hosts"]["gone"] = {**fleet["postgresql"]["hosts"][HOST], **gone}
    source.write_text(json.dumps(fleet))
    assert subprocess.run([seal], capture_output=True, check=False).returncode == 4
    assert webhook.posts[1][1]["hosts"] == ["gone"]
    play("schedule", source, *arguments, "-e", "audit_controller_state=absent")
    assert not seal.exists()
    assert list((tmp_path / "cron.d").iterdir()) == []


def test_units_say_what_runs_when_and_as_whom(tmp_path):
    hosts = inventory_of_nothing()
    arguments = scheduled(
        tmp_path, hosts, kind="systemd", user="dba", instance="emea", vault_password_file="/etc/vault pw", ship=True
    )
    shown = play("schedule", tmp_path / "hosts.json", *arguments, "--check", "--diff").stdout.splitlines()
    script = f"{tmp_path}/dbfleet-audit-verify-emea"
    for line in (
        "+OnCalendar=*:0/15",
        "+OnCalendar=Sun *-*-* 05:00:00",
        "+OnCalendar=*:0/5",
        f"+ExecStart={tmp_path}/dbfleet-audit-ship-emea",
        "+User=dba",
        f"+ExecStart={script}",
        "+Persistent=true",
    ):
        assert line in shown
    assert not any("ProtectSystem" in line for line in shown)
    assert any("--vault-password-file '/etc/vault pw'" in line for line in shown)


def inventory_of_nothing() -> dict[str, t.Any]:
    return {"postgresql": {"hosts": {"pg1": {}}}}


def test_what_cannot_be_meant_is_refused(tmp_path):
    arguments = scheduled(tmp_path, inventory_of_nothing(), instance="a b", webhok="http://x")
    result = play("schedule", tmp_path / "hosts.json", *arguments, check=False)
    assert result.rc == 2
    assert "unknown variable audit_controller_webhok; did you mean audit_controller_webhook?" in result.stdout
    assert "audit_controller_instance is a b" in result.stdout
