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
from fleet import INVENTORY, KINDS, REPORT, Fleet, playbook, stop_all
from local_server import ServerError, tail
from running import CACHE, ROOT, PlaybookResult
from servers import HOME, LOGS, SCHEMA, DemoError, Server

ROUNDS = 4
SECONDS_A_ROUND = 1

#: What foreign clients work on, bare and audited in turn, by server.
LOADED = {"bank": ("bank_bare", "bank"), "shop": ("sbtest_bare", "sbtest")}

#: The task that restarts a server.
RESTART = "pgaudit : Restart the server, or bring it back as it was]"

COUNT_TABLES = """
SELECT count(*) AS number FROM information_schema.tables
WHERE table_type = 'BASE TABLE'
  AND table_schema NOT IN ('information_schema', 'pg_catalog', 'mysql', 'performance_schema', 'sys', 'sbtest_bare')
"""
FIND_TRAIL = "SELECT 1 FROM information_schema.schemata WHERE schema_name = 'audit'"
COUNT_RECORDS = "SELECT count(*) AS number FROM audit.audit_log"


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
    with step(f"starting {len(KINDS)} servers") as line:
        fleet.start()
        products = (f"{name} ({server.product})" for name, server in fleet.servers.items())
        line.says = f"servers of the demo's own: {', '.join(products)}"
    with step("making sample data") as line:
        for server in fleet.servers.values():
            server.run_script(SCHEMA, first_hash=password_hash())
        for name, databases in LOADED.items():
            for database in databases:
                fleet.servers[name].prepare_load(database)
        tables = (f"{name} {server.ask(COUNT_TABLES)[0]['number']}" for name, server in fleet.servers.items())
        line.says = f"sample data, in tables: {', '.join(tables)}"


def roll_out(fleet: Fleet, findings: report.Findings) -> None:
    """Run site.yml as a user would: look first, then for real, then again."""
    with step("site.yml --check --diff") as line:
        playbook("site.yml", "check.log", "--check", "--diff")
        predicted = count_statements(LOGS / "check.log")
        for name, server in fleet.servers.items():
            if server.ask(FIND_TRAIL):
                raise DemoError(f"the check run changed {name}", LOGS / "check.log")
        line.says += f" predicts {predicted} statements on {len(KINDS)} hosts, changes nothing"
    with step("site.yml --diff") as line:
        result = playbook("site.yml", "site.log", "--diff")
        findings.audited = messages(result, r"tables audited|pgaudit logs|server_audit logs")
        executed = count_statements(LOGS / "site.log")
        line.says += f" executes {executed} statements, restarts {' and '.join(restarted(result))} for pgaudit"
    with step("site.yml, a second time") as line:
        result = playbook("site.yml", "site-again.log")
        findings.changed = {name: result.stats(name)["changed"] for name in KINDS}


def printed(result: PlaybookResult) -> list[str]:
    """Return the lines of debug messages."""
    return [json.loads(line) for line in re.findall(r'^ +(".*"),?$', result.stdout, flags=re.MULTILINE)]


def messages(result: PlaybookResult, pattern: str) -> list[str]:
    """Return the lines of debug messages that a pattern is found in, in the order of the fleet."""
    found = [message for message in printed(result) if re.search(pattern, message)]
    return [message for name in KINDS for message in found if re.match(rf"((OK|FAILED) )?{name}\b", message)]


def restarted(result: PlaybookResult) -> list[str]:
    """Return the hosts whose server a playbook restarted."""
    tasks = result.stdout.split("\nTASK [")
    changed = {name for task in tasks if RESTART in task for name in re.findall(r"^changed: \[(\w+)\]", task, re.M)}
    return [name for name in KINDS if name in changed]


def count_statements(log: pathlib.Path) -> int:
    """Count the statements in the output of --diff, each of which comes with its reason as a comment."""
    return sum(line.startswith("+-- ") for line in log.read_text("utf-8").splitlines())


def work(fleet: Fleet, findings: report.Findings) -> None:
    """Let the applications work, and then somebody with other intentions."""
    with step("a migration makes a table, and the applications of clinic and shop work"):
        fleet.servers["clinic"].run_script("migration.sql")
        for name, application in report.APPLICATIONS.items():
            server = fleet.servers[name]
            before = secrets_of(server)
            server.run_script("work.sql", application, new_hash=password_hash())
            findings.secrets[name] = sorted(before | secrets_of(server))
    with step("somebody reads and grants, and tries to delete from the logs"):
        fleet.servers[report.WATCHED].run_script("curiosity.sql", report.CURIOUS)
        for name, application in report.APPLICATIONS.items():
            server = fleet.servers[name]
            users = (application, server.SUPERUSER)
            findings.refusals[name] = [f"{user}: {server.refusal(report.ATTACK, user)}" for user in users]


def secrets_of(server: Server) -> set[str]:
    """Return what the tables hold at this moment and the log never may."""
    return {row["secret"] for row in server.ask(server.queries()["secrets"])}


def measure(server: Server, bare: str, audited: str) -> report.Cost:
    """Let a foreign client work, bare and audited in turn, so that both meet the same machine."""
    doing = f"{server.LOAD_PROGRAM}, {ROUNDS} rounds of {SECONDS_A_ROUND} s bare and {SECONDS_A_ROUND} s audited"
    cost = report.Cost(server.LOAD_PROGRAM, server.product)
    with step(doing) as line:
        before = server.ask(COUNT_RECORDS)[0]["number"]
        for number in range(ROUNDS):
            # By turns the one and the other comes first.
            order = (bare, audited) if number % 2 == 0 else (audited, bare)
            done = {database: server.load(database, SECONDS_A_ROUND) for database in order}
            cost.rounds.append(report.Round(done[bare].rate, done[audited].rate))
            cost.transactions += done[audited].transactions
        cost.records = server.ask(COUNT_RECORDS)[0]["number"] - before
        line.says += f", {cost.records} records"
    return cost


def prove(fleet: Fleet, findings: report.Findings) -> None:
    """Seal the logs; have a record altered behind all guards, which verification must name; then put it right."""
    with step("seal.yml"):
        findings.sealed = messages(playbook("seal.yml", "seal.log"), r"seal")
    watched = fleet.servers[report.WATCHED]
    with step(f"somebody with all rights alters a record of the {report.WATCHED}'s log; verify.yml fails"):
        watched.run_script("tamper.sql", somebody=report.NOBODY)
        result = playbook("verify.yml", "tampered.log", "--limit", report.WATCHED, fails=True)
        findings.tampered = [line.strip() for line in printed(result) if re.match(r"FAILED |  modified_row", line)]
    with step("the record is put right; verify.yml"):
        watched.run_script("tamper.sql", somebody=report.CURIOUS)
        findings.verified = messages(playbook("verify.yml", "verify.log"), r"^(OK|FAILED) ")
    with step("report.yml"):
        findings.reported = [line for line in printed(playbook("report.yml", "report.log")) if line[:9] != "written: "]


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
    findings.costs = [measure(fleet.servers[name], *databases) for name, databases in LOADED.items()]
    findings.conditions = (
        f"{ROUNDS} rounds of {SECONDS_A_ROUND} s bare and as long audited, in turn, on one server; one client, commits"
        " do not wait for the disk: a short measurement of little but changes, another one every time"
    )
    prove(fleet, findings)
    report.show(fleet, findings)
    logs, inventory, page = (path.relative_to(ROOT) for path in (LOGS, INVENTORY, REPORT))
    print(f"\n{time.monotonic() - began:.0f} s in all. Logs: {logs}; the inventory as it was used: {inventory}")
    print(f"The compliance report, to be opened in a browser: {page}")
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
