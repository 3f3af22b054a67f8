# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measures Ansible over many hosts, and compares two slices with one run. benchmarks/scale/run starts it."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import signal
import sys
import typing as t

import yaml
from clusters import TABLES, Clusters
from measuring import expect, say
from running import CACHE, ROOT, private_environment
from watch import HEAD, Command, run

HOME = CACHE / "benchmark-scale"
SLICES = 2
#: What differs in reports of two fleets that are the same: times, sizes, and the random name of each log's chain.
VARYING = {
    "generated_at", "asked_at", "since", "until", "by_day", "by_hour", "oldest_unsealed_at",
    "log_bytes", "bytes", "projected_bytes", "chain",
}  # fmt: skip


def main() -> int:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(prog="benchmarks/scale/run")
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--forks", type=int, default=20)
    parser.add_argument("--compare", type=int, default=20)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_signal: sys.exit(1))
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    fleet = Clusters(max(options.hosts, options.compare))
    try:
        fleet.make()
        say(f"{len(fleet.numbers)} clusters")
        fleet.start()
        print(f"PostgreSQL {fleet.version}, {os.cpu_count()} cores, {TABLES} tables a host\n")
        if options.compare:
            print(over_forks(fleet, options.compare), flush=True)
            fleet.start()
        if options.hosts:
            print(in_slices(fleet, options.forks), flush=True)
    finally:
        fleet.remove()
    return 0


# -- forks -------------------------------------------------------------------------------------------------------------


def over_forks(fleet: Clusters, hosts: int) -> str:
    """Return the table of runs over some of the clusters with more and more forks."""
    rows = []
    inventory = save("some.json", fleet.inventory(fleet.numbers[:hosts]))
    for name, forks, pipelining in (("first", 20, True), ("unchanged", 20, False), ("unchanged", 5, True),
                                    ("unchanged", 20, True), ("unchanged", 50, True)):  # fmt: skip
        words = [name, str(forks), "yes" if pipelining else "no"]
        say(f"{hosts} hosts, {', '.join(words)}")
        cost = run([playbook("site", inventory, forks, "--skip-tags", "statements", pipelining=pipelining)])
        expect(bool(cost.changed) == (name == "first"), "only the first run was to change something")
        rows.append(["site.yml", *words, *cost.row(hosts)])
        if name == "unchanged":
            cost = run([playbook("report", inventory, forks, *dest("some"), pipelining=pipelining)])
            rows.append(["report.yml", "", *words[1:], *cost.row(hosts)])
    return table(f"{hosts} hosts | run | forks | pipelining | {HEAD}", rows)


# -- slices ------------------------------------------------------------------------------------------------------------


def in_slices(fleet: Clusters, forks: int) -> str:
    """Return the table of one run and of two slices; what differs after them ends the benchmark."""
    hosts = len(fleet.numbers)
    say(f"{hosts} hosts in one run")
    whole = save("whole.json", fleet.inventory(fleet.numbers))
    rows = [row("site.yml, one run", hosts, playbook("site", whole, forks, "--skip-tags", "statements"))]
    fleet.work()
    rows.append(row("report.yml, one run", hosts, playbook("report", whole, forks, *dest("whole"))))
    states = fleet.states()

    say(f"{hosts} hosts in {SLICES} slices")
    fleet.start()
    slices = {f"slice{number}": fleet.inventory(fleet.numbers[number::SLICES]) for number in range(SLICES)}
    commands = [runner(name, "site", each, forks) for name, each in slices.items()]
    rows.append(row(f"site.yml, {SLICES} slices", hosts, *commands))
    fleet.work()
    commands = [runner(name, "report", each, forks) for name, each in slices.items()]
    rows.append(row(f"report.yml --tags ask, {SLICES} slices", hosts, *commands))
    # In the fact cache of the slices.
    cache = {"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(HOME / "facts")}
    options = ("--tags", "write", "-e", "audit_report_cache_hours=1", *dest("slices"))
    rows.append(row("report.yml --tags write", hosts, playbook("report", whole, forks, *options, more=cache)))
    return f"{table(f'{hosts} hosts, {forks} forks each | {HEAD}', rows)}\n{compared(fleet, states)}\n"


def row(name: str, hosts: int, *commands: Command) -> list[str]:
    """Run commands at once and return a row of the table, which is shown as well: a run is long."""
    fields = [name, *run(commands).row(hosts)]
    say(" | ".join(fields))
    return fields


def compared(fleet: Clusters, states: t.Sequence[str]) -> str:
    """Return a sentence about what one run and slices have left; a difference ends the benchmark."""
    differing = [number for number, one, two in zip(fleet.numbers, states, fleet.states()) if one != two]
    expect(not differing, f"databases of these hosts differ between one run and slices: {differing}")
    report = report_of("whole")
    expect(report_of("slices") == report, f"the reports differ: {HOME}/whole, {HOME}/slices")
    found = report["summary"]
    kilobytes = sum(path.stat().st_size for path in (HOME / "facts").iterdir()) / 1024 / len(states)
    return (
        f"The same {len(states)} catalogues ({len(set(states))} different ones among them), the same report: "
        f"{found['hosts']} hosts, {found['green']} green, {found['amber']} amber, {found['changes']:,} changes. "
        f"Fact cache: {kilobytes:.1f} KB a host."
    )


def runner(name: str, book: str, inventory: t.Mapping[str, t.Any], forks: int) -> Command:
    """Return the command of a slice, with all that it needs in a directory of its own, as AWX makes it."""
    private = HOME / name
    files = {
        f"project/{book}.yml": [{"ansible.builtin.import_playbook": f"dbfleet.audit.{book}"}],
        "inventory/hosts.json": inventory,
        "env/settings": {"fact_cache": str(HOME / "facts"), "fact_cache_type": "jsonfile"},
        "env/extravars": {"audit_report_cache_hours": 1},
    }
    for path, content in files.items():
        (private / path).parent.mkdir(parents=True, exist_ok=True)
        (private / path).write_text(json.dumps(content) if path.endswith(".json") else yaml.safe_dump(content))
    tags = "--skip-tags statements" if book == "site" else "--tags ask"
    (private / "env" / "cmdline").write_text(f"--forks {forks} {tags}")
    arguments = [program("ansible-runner"), "run", str(private), "-p", f"{book}.yml", "--ident", book]
    return Command(arguments, environment(), HOME / f"{name}-{book}.log")


def report_of(name: str) -> dict[str, t.Any]:
    """Return what has to be the same in two reports."""
    return without_varying(json.loads((HOME / name / "report.json").read_text(encoding="utf-8")))


def without_varying(value: t.Any) -> t.Any:
    """Leave out of a report what differs from one fleet to its copy."""
    if isinstance(value, dict):
        return {key: without_varying(each) for key, each in value.items() if key not in VARYING}
    return [without_varying(each) for each in value] if isinstance(value, list) else value


# -- parts -------------------------------------------------------------------------------------------------------------


def playbook(
    book: str,
    inventory: pathlib.Path,
    forks: int,
    *arguments: str,
    pipelining: bool = True,
    more: t.Mapping[str, str] | None = None,
) -> Command:
    """Return the command of a run of a playbook."""
    path = str(ROOT / "playbooks" / f"{book}.yml")
    command = [program("ansible-playbook"), path, "-i", str(inventory), "--forks", str(forks), *arguments]
    return Command(command, {**environment(pipelining), **(more or {})}, HOME / f"{book}.log")


def environment(pipelining: bool = True) -> dict[str, str]:
    """Return what Ansible is run with."""
    return {**private_environment(), "ANSIBLE_PIPELINING": str(pipelining)}


def program(name: str) -> str:
    """Return the path of a program of this Python environment."""
    return os.path.join(os.path.dirname(sys.executable), name)


def dest(name: str) -> list[str]:
    """Return the options that say where the report goes."""
    return ["-e", f"audit_report_dest={HOME / name}"]


def save(name: str, content: t.Any) -> pathlib.Path:
    """Write a file of JSON and return its path."""
    path = HOME / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def table(head: str, rows: t.Sequence[t.Sequence[str]]) -> str:
    """Return a table for a page."""
    lines = [f"| {head} |", f"|{'---|' * (head.count('|') + 1)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
