# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measures site.yml beside a loop over the tables, and over growing fleets. benchmarks/rollout/run starts it."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import sys
import time
import typing as t

from databases import Database
from local_postgresql import LocalPostgresql
from measuring import expect, say
from running import CACHE, ROOT, ModuleResult, run_module, run_playbook

SITE = ROOT / "playbooks" / "site.yml"
LOOP = ROOT / "benchmarks" / "rollout" / "loop.yml"
HOME = CACHE / "benchmark"
TABLES_OF_A_HOST = 20
POLICIES = [{"name": "everything", "tables": ["public.*"]}]

# The callback gives every task's and every host's times and results.
REPORTING = {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}


class Run(t.NamedTuple):
    """One run of a playbook, in seconds."""

    wall: float
    tasks: dict[str, float]
    hosts: int
    changed: int

    @property
    def triggers(self) -> float:
        """The task that brings tables under their policies, in site.yml or in the loop."""
        return next(seconds for name, seconds in self.tasks.items() if name in TRIGGER_TASKS)


TRIGGER_TASKS = (
    "dbfleet.audit.postgresql_audit : Bring the tables under their policies",
    "Make the triggers of every table",
)


def main() -> int:
    """Measure and print."""
    quick = "--quick" in sys.argv[1:]
    shutil.rmtree(HOME, ignore_errors=True)
    server = LocalPostgresql.create(HOME / "server", while_pid=os.getpid())
    try:
        tables = against_a_loop(server, (10, 100) if quick else (10, 100, 1000))
        fleet = over_hosts(server, (1, 10) if quick else (1, 10, 50))
    finally:
        server.remove()
    print(f"\nPostgreSQL {server.version}, {os.cpu_count()} cores; seconds, one run each\n\n{tables}\n\n{fleet}")
    return 0


# -- one host, many tables ---------------------------------------------------------------------------------------------


def against_a_loop(server: LocalPostgresql, sizes: t.Sequence[int]) -> str:
    """Return the table that compares site.yml with the loop on one host."""
    lines = [
        "| tables | run | site.yml, task of the triggers | all its tasks | loop | loop : task | loop : all tasks |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for size in sizes:
        site, module = site_runs(server, size)
        loop = loop_runs(server, size) if size <= 100 else [None, None]
        for name, ours, theirs in zip(("first", "unchanged"), site, loop):
            every = sum(ours.tasks.values())
            row = [f"{size}", name, f"{ours.triggers:.2f}", f"{every:.2f}"]
            row += [f"{theirs.triggers:.1f}", f"{theirs.triggers / ours.triggers:.0f}",
                    f"{theirs.triggers / every:.0f}"] if theirs else ["", "", ""]  # fmt: skip
            lines.append(f"| {' | '.join(row)} |")
        lines.append(f"| {size} | unchanged, time within the three modules | {module:.2f} | | | | |")
    return "\n".join(lines)


def site_runs(server: LocalPostgresql, size: int) -> tuple[list[Run], float]:
    """Return the first and the unchanged run of site.yml, and the seconds that the modules themselves report."""
    database = make_database(server, size)
    inventory = inventory_of(server, [database])
    say(f"site.yml, {size} tables")
    runs = [play(SITE, inventory), play(SITE, inventory)]
    expect(runs[0].changed > 0 and runs[1].changed == 0, "the second run of site.yml was to change nothing")
    modules = [run(database, "postgresql_audit_trail"), run(database, "postgresql_audit_partitions")]
    modules.append(run(database, "postgresql_audit_triggers", policies=POLICIES))
    expect(not any(result.changed for result in modules), "the modules alone were to change nothing")
    return runs, sum(result["seconds"] for result in modules)


def loop_runs(server: LocalPostgresql, size: int) -> list[Run]:
    """Return two runs of the loop, on a database that has got everything but the triggers."""
    database = make_database(server, size)
    run(database, "postgresql_audit_trail")
    run(database, "postgresql_audit_partitions")
    # An exception for every table: the policy's function, but no trigger.
    exception = {"table": "public.*", "reason": "benchmark", "approved_by": "benchmark"}
    run(database, "postgresql_audit_triggers", policies=POLICIES, exceptions=[exception])
    planned = run(database, "postgresql_audit_triggers", policies=POLICIES, check_mode=True)["statements"]
    entries = []
    for table in (f"t{number}" for number in range(1, size + 1)):
        mine = [text for text in planned if f'"public"."{table}"' in text]
        expect(mine, f"no statement for {table}")
        entries.append({"table": table, "statements": "; ".join(mine)})
    inventory = inventory_of(server, [database])
    (host,) = inventory["postgresql"]["hosts"].values()
    host.update(benchmark_socket=str(server.socket_dir), benchmark_port=server.port, benchmark_database=database.name,
                benchmark_tables=entries)  # fmt: skip
    say(f"the loop, {size} tables")
    runs = [play(LOOP, inventory), play(LOOP, inventory)]
    left = run(database, "postgresql_audit_triggers", policies=POLICIES, check_mode=True)["statements"]
    expect(not [text for text in left if "TRIGGER" in text], "site.yml was to find the loop's triggers right")
    return runs


# -- many hosts --------------------------------------------------------------------------------------------------------


def over_hosts(server: LocalPostgresql, sizes: t.Sequence[int]) -> str:
    """Return the table of fleets; databases of one server stand in for hosts."""
    lines = [
        f"| hosts, {TABLES_OF_A_HOST} tables each | first run | per host | unchanged run | per host | tasks per host |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for size in sizes:
        databases = [make_database(server, TABLES_OF_A_HOST) for _number in range(size)]
        inventory = inventory_of(server, databases)
        say(f"site.yml, {size} hosts")
        first, second = play(SITE, inventory), play(SITE, inventory)
        expect(second.changed == 0, "the second run over the fleet was to change nothing")
        lines.append(
            f"| {size} | {first.wall:.1f} | {first.wall / size:.2f} | {second.wall:.1f} | {second.wall / size:.2f} "
            f"| {second.hosts} |"
        )
        for database in databases:
            database.drop()
    return "\n".join(lines)


# -- parts -------------------------------------------------------------------------------------------------------------


def make_database(server: LocalPostgresql, tables: int) -> Database:
    """Return a new database with tables of eight columns."""
    database = Database(server)
    database.execute(
        "DO $$BEGIN FOR n IN 1 .. %s LOOP EXECUTE format('CREATE TABLE public.t%%s (id int PRIMARY KEY, name text, "
        "email text, phone text, city text, amount numeric, note text, at timestamptz)', n); END LOOP; END$$",
        tables,
    )
    return database


def inventory_of(server: LocalPostgresql, databases: t.Sequence[Database]) -> dict[str, t.Any]:
    """Return an inventory with a host for every database."""
    hosts = {
        f"host{number:02}": {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "postgresql_audit_login": {"login_unix_socket": str(server.socket_dir), "login_port": server.port},
            "postgresql_audit_become": False,
            "postgresql_audit_schedule": "none",
            "postgresql_audit_databases": [{"name": database.name, "policies": POLICIES}],
        }
        for number, database in enumerate(databases, 1)
    }
    return {"postgresql": {"hosts": hosts}}


def play(playbook: os.PathLike[str], inventory: dict[str, t.Any]) -> Run:
    """Run a playbook and return its times; a failure raises."""
    began = time.monotonic()
    output = run_playbook(playbook, inventory, environment=REPORTING).stdout
    wall = time.monotonic() - began
    report = json.loads(output[output.index("{") :])
    tasks: dict[str, float] = {}
    for entry in (task for part in report["plays"] for task in part["tasks"]):
        duration = entry["task"]["duration"]
        seconds = (moment(duration["end"]) - moment(duration["start"])).total_seconds()
        tasks[entry["task"]["name"]] = tasks.get(entry["task"]["name"], 0) + seconds
    stats = report["stats"]
    counts = next(iter(stats.values()))
    return Run(wall, tasks, counts["ok"], sum(host["changed"] for host in stats.values()))


def moment(text: str) -> datetime.datetime:
    """Read a time as the callback writes it."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def run(database: Database, module: str, **options: t.Any) -> ModuleResult:
    """Run one of our modules by itself."""
    return run_module(module, **database.login, **options)


if __name__ == "__main__":
    sys.exit(main())
