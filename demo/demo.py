# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The steps of the demo. Started by demo/run, which makes the environment."""

from __future__ import annotations

import contextlib
import fcntl
import json
import pathlib
import re
import secrets
import shutil
import signal
import sys
import time
import typing as t

import report
from fleet import HOME, INVENTORY, LOGS, NAMES, DemoError, Fleet, playbook, stop_all
from local_postgresql import ServerError
from postgresql_programs import tail
from running import CACHE, ROOT, PlaybookResult

ROUNDS = 5
SECONDS_A_ROUND = 2
SCALE = 5

COUNT_TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
LIST_SECRETS = """
SELECT DISTINCT portal_password_hash AS secret FROM care.patients UNION ALL SELECT ssn FROM care.patients
"""


class Step:
    """A line of progress; what is put into ``says`` stands in it once the step is done."""

    def __init__(self, doing: str) -> None:
        self.says = doing


@contextlib.contextmanager
def step(doing: str) -> t.Iterator[Step]:
    """Show one step with the time that it took."""
    began = time.monotonic()
    shown = f"    ...  {doing}"
    if sys.stdout.isatty():
        print(shown, end="", flush=True)
    line = Step(doing)
    word = "FAILED: "
    try:
        yield line
        word = ""
    except KeyboardInterrupt:
        word = "stopped: "
        raise
    finally:
        lead = "\r" + " " * len(shown) + "\r" if sys.stdout.isatty() else ""
        print(f"{lead}{time.monotonic() - began:5.1f} s  {word}{line.says}", flush=True)


def start(fleet: Fleet) -> None:
    """Start the servers and fill them."""
    with step("starting two PostgreSQL servers") as line:
        fleet.start()
        places = " and ".join(f"{name} on port {server.port}" for name, server in fleet.servers.items())
        line.says = f"two PostgreSQL {fleet.servers['clinic'].version} servers of the demo's own: {places}"
    with step("making sample data") as line:
        fleet.psql("clinic", "clinic.sql", "postgres", first_hash=password_hash())
        fleet.psql("bank", "bank.sql", "postgres")
        for database in ("bank", "bank_bare"):
            fleet.pgbench(database, "-i", "-q", "-s", str(SCALE))
        tables = {name: fleet.ask(name, name, COUNT_TABLES)[0]["count"] for name in NAMES}
        line.says = f"sample data: clinic, {tables['clinic']} tables; bank, {tables['bank']} tables of pgbench"


def roll_out(fleet: Fleet, findings: report.Findings) -> None:
    """Run site.yml as a user would: look first, then for real, then again."""
    with step("site.yml --check --diff") as line:
        playbook("site.yml", "check.log", "--check", "--diff")
        predicted = count_statements(LOGS / "check.log")
        for name in NAMES:
            if fleet.ask(name, name, "SELECT FROM pg_namespace WHERE nspname = 'audit'"):
                raise DemoError(f"the check run changed {name}", LOGS / "check.log")
        line.says += f" predicts {predicted} statements on {len(NAMES)} hosts, changes nothing"
    with step("site.yml --diff") as line:
        result = playbook("site.yml", "site.log", "--diff")
        findings.audited = messages(result, r"tables audited")
        line.says += f" executes {count_statements(LOGS / 'site.log')} statements"
    with step("site.yml, a second time") as line:
        result = playbook("site.yml", "site-again.log")
        findings.changed = {name: result.stats(name)["changed"] for name in NAMES}


def messages(result: PlaybookResult, pattern: str) -> list[str]:
    """Return the lines of debug messages that a pattern is found in."""
    lines = re.findall(r'^ +(".*"),?$', result.stdout, flags=re.MULTILINE)
    return [message for message in map(json.loads, lines) if re.search(pattern, message)]


def count_statements(log: pathlib.Path) -> int:
    """Count the statements in the output of --diff, each of which comes with its reason as a comment."""
    return sum(line.startswith("+-- ") for line in log.read_text("utf-8").splitlines())


def work(fleet: Fleet, findings: report.Findings) -> None:
    """Let the clinic's application work, and then somebody with other intentions."""
    with step("a migration makes a table, and the clinic's application works"):
        new_hash = password_hash()
        findings.secrets = [row["secret"] for row in fleet.ask("clinic", "clinic", LIST_SECRETS)] + [new_hash]
        fleet.psql("clinic", "migration.sql", "clinic")
        fleet.psql("clinic", "work.sql", "clinic", application=True, new_hash=new_hash)
    with step("somebody tries to delete from the log"):
        for user in ("clinic_app", "postgres"):
            findings.refusals[user] = fleet.refusal("clinic", "clinic", report.ATTACK, user)


def measure(fleet: Fleet, findings: report.Findings) -> None:
    """Let pgbench work on the bank, bare and audited in turn, so that both meet the same machine."""
    with step(f"pgbench, {ROUNDS} rounds of {SECONDS_A_ROUND} s bare and {SECONDS_A_ROUND} s audited") as line:
        transactions = 0
        for number in range(ROUNDS):
            outputs = {}
            for database in ("bank_bare", "bank") if number % 2 == 0 else ("bank", "bank_bare"):
                outputs[database] = fleet.pgbench(database, "-T", str(SECONDS_A_ROUND))
            bare, audited = (figure("tps = ", outputs[database]) for database in ("bank_bare", "bank"))
            findings.rounds.append(report.Round(bare, audited))
            transactions += int(figure("number of transactions actually processed: ", outputs["bank"]))
        records = fleet.ask("bank", "bank", "SELECT count(*) FROM audit.audit_log")[0]["count"]
        line.says += f", {records} records"
    findings.changes_a_transaction = records / transactions
    findings.conditions = [
        f"{records / transactions:.0f} audited changes a transaction, one client, commits do not wait for the disk;",
        f"{ROUNDS} rounds of {SECONDS_A_ROUND} s bare and as long audited, in turn, on one server",
        "a short measurement of little but changes; shares move between machines and hours",
    ]


def figure(label: str, output: str) -> float:
    """Return a number that pgbench printed behind a label."""
    match = re.search(rf"^{re.escape(label)}([\d.]+)", output, flags=re.MULTILINE)
    if not match:
        raise DemoError(f"pgbench printed no line {label!r}", LOGS / "pgbench.log")
    return float(match.group(1))


def password_hash() -> str:
    """Return what a web framework would store; made up here, so that the log can be searched for it."""
    return "$argon2id$v=19$" + secrets.token_hex(24)


def run(keep: bool) -> None:
    """Run all steps and print the findings."""
    began = time.monotonic()
    fleet = Fleet(keep)
    start(fleet)
    findings = report.Findings()
    roll_out(fleet, findings)
    work(fleet, findings)
    measure(fleet, findings)
    with step("verify.yml"):
        findings.verified = messages(playbook("verify.yml", "verify.log"), r"^(OK|FAILED) ")
    report.show(fleet, findings)
    logs, inventory = (path.relative_to(ROOT) for path in (LOGS, INVENTORY))
    print(f"\n{time.monotonic() - began:.0f} s in all. Logs: {logs}; the inventory as it was used: {inventory}")
    if keep:
        report.show_connections(fleet)


def main() -> int:
    """Run the command line of demo/run."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("demo/run: another demo of this checkout is running", file=sys.stderr)
            return 1
        return guarded(sys.argv[1:])


def guarded(arguments: list[str]) -> int:
    """Carry out the command and leave nothing behind that was not asked for."""
    if "--stop" in arguments:
        print("stopped and deleted" if stop_all() else "no servers of the demo are up")
        shutil.rmtree(HOME, ignore_errors=True)
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    keep = "--keep" in arguments
    done = False
    try:
        run(keep)
        done = True
    except KeyboardInterrupt:
        print("demo/run: stopped", file=sys.stderr)
        return 130
    except (DemoError, ServerError) as error:
        explain(error)
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not (keep and done):
            stop_all()
    return 0


def explain(error: Exception) -> None:
    """Say what went wrong, with the end of the log that knows more."""
    print(f"demo/run: {error}", file=sys.stderr)
    log = error.log if isinstance(error, DemoError) else None
    if log:
        print("\n".join("    " + line for line in tail(log, 30).splitlines()), file=sys.stderr)
        print(f"    the whole log: {log}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
