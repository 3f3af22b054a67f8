# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A fleet that two runs at once share, each with its slice of the hosts; and what an execution environment needs."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t
from concurrent.futures import ThreadPoolExecutor

import pytest
from auditing import rollout, trail_database
from databases import Database
from event_reading import wait_until
from fleet import HOST, audited, inventory, lines, play
from local_postgresql import LocalPostgresql
from running import COLLECTIONS, ROOT, PlaybookResult, private_environment
from sealing import make_key

TIMES = {"generated_at", "asked_at", "since", "until", "log_bytes", "bytes", "projected_bytes"}


@pytest.fixture(scope="module")
def databases(pg: LocalPostgresql) -> t.Iterator[list[Database]]:
    """Return databases with trails of which the second has a table without a policy, and more changes."""
    with trail_database(pg) as one, trail_database(pg) as two:
        for number, database in enumerate((one, two), 1):
            database.execute("CREATE TABLE users (id int PRIMARY KEY)")
            database.execute("CREATE TABLE patients (id int PRIMARY KEY, ssn text)")
            rollout(database, policies=policies(number))
            database.execute(f"INSERT INTO users SELECT generate_series(1, {number})")
            counted(database, number)
        yield [one, two]


def counted(database: Database, rows: int) -> None:
    """Wait for the server's statistics, which reports estimate sizes from; a session tells of its work when it ends."""
    database.disconnect()
    inserted = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relid = 'users'::regclass"
    wait_until(lambda: database.value(inserted) == rows)


def policies(number: int) -> list[dict[str, t.Any]]:
    return [{"tables": ["public.*"] if number == 1 else ["public.users"]}]


def fleet(databases: t.Sequence[Database], **variables: t.Any) -> dict[str, t.Any]:
    """Return an inventory with a host for each database."""
    hosts = {
        f"pg{number}": inventory(database.server, [audited(database, *policies(number))])["postgresql"]["hosts"][HOST]
        for number, database in enumerate(databases, 1)
    }
    return {"postgresql": {"hosts": hosts, "vars": variables}}


def in_slices(playbook: str, hosts: dict[str, t.Any], *arguments: str, **options: t.Any) -> list[PlaybookResult]:
    """Run a playbook once for each host, all at once."""
    with ThreadPoolExecutor() as threads:
        runs = [
            threads.submit(play, playbook, hosts, "--limit", host, *arguments, **options)
            for host in hosts["postgresql"]["hosts"]
        ]
        return [run.result() for run in runs]


def without_times(value: t.Any) -> t.Any:
    """Leave out of a report what depends on when it was made."""
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if key not in TIMES}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def read(dest: pathlib.Path) -> dict[str, t.Any]:
    return json.loads((dest / "report.json").read_text(encoding="utf-8"))


def test_slices_that_share_a_fact_cache_give_the_report_of_one_run(databases: list[Database], tmp_path: pathlib.Path):
    # Other tests' databases come and go on this server.
    hosts = fleet(databases, audit_report_cache_hours=1, audit_report_exempt_databases=["*"])
    cache = {"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path / "facts")}
    in_slices("report", hosts, "--tags", "ask", environment=cache)
    assert not (tmp_path / "slices").exists()
    play("report", hosts, "--tags", "write", "-e", f"audit_report_dest={tmp_path}/slices", environment=cache)
    play("report", hosts, "-e", f"audit_report_dest={tmp_path}/whole")
    slices, whole = read(tmp_path / "slices"), read(tmp_path / "whole")
    coverage = {host["name"]: host["checks"]["coverage"]["level"] for host in slices["hosts"]}
    assert coverage == {"pg1": "ok", "pg2": "amber"}
    assert without_times(slices) == without_times(whole)
    # What a host has answered before is no answer of one that fails now.
    (kept,) = (tmp_path / "facts").glob("*pg1")
    assert "asked_at" in kept.read_text(encoding="utf-8")
    fails = ("--tags", "ask", "--limit", "pg1", "-e", "audit_report_no_such=1")
    assert play("report", hosts, *fails, environment=cache, check=False).rc == 2
    assert "asked_at" not in kept.read_text(encoding="utf-8")


def test_ansible_builder_finds_what_the_controller_needs_and_takes_the_example(tmp_path: pathlib.Path):
    def builder(*arguments: str) -> str:
        command = [os.path.join(os.path.dirname(sys.executable), "ansible-builder"), *arguments]
        return subprocess.run(command, env=private_environment(), capture_output=True, text=True, check=True).stdout

    found = builder("introspect", str(COLLECTIONS))
    assert "psycopg2-binary" in found
    assert "PyMySQL" in found
    example = ROOT / "docs" / "examples" / "execution-environment.yml"
    builder("create", "-f", str(example), "-c", str(tmp_path / "context"))
    assert "dbfleet.audit" in (tmp_path / "context" / "_build" / "requirements.yml").read_text(encoding="utf-8")


@pytest.mark.thorough
def test_slices_roll_out_and_seal_at_once_as_one_run_does(pg: LocalPostgresql, tmp_path: pathlib.Path):
    key = make_key(tmp_path)
    seals = {"signing_key": key.private, "public_keys": [key.public], "ledger": str(tmp_path / "ledger")}
    with trail_database(pg) as one, trail_database(pg) as two:
        for database in (one, two):
            database.execute("CREATE TABLE users (id int PRIMARY KEY)")
        hosts = fleet([one, two], **{f"audit_seal_{name}": value for name, value in seals.items()})
        in_slices("site", hosts, "--skip-tags", "statements")
        again = play("site", hosts, "--skip-tags", "statements")
        assert [again.stats(host)["changed"] for host in ("pg1", "pg2")] == [0, 0]
        for database in (one, two):
            database.execute("INSERT INTO users SELECT generate_series(1, 5)")
        in_slices("seal", hosts)
        verified = play("verify", hosts, "--skip-tags", "statements")
        verdicts = [line for line in lines(verified) if line.startswith(("OK ", "FAILED "))]
        assert [line.split(":")[0] for line in verdicts] == [f"OK pg1 {one.name}", f"OK pg2 {two.name}"]
        assert all("tampering refused, 2 seals and" in line for line in verdicts), verdicts
        assert {path.parent.name for path in (tmp_path / "ledger").glob("*/*.jsonl")} == {"pg1", "pg2"}
