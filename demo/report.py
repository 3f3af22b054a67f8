# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the demo prints in the end: every line of it is an answer of a server or of a playbook."""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import textwrap
import typing as t

from fleet import Fleet, Row, queries

#: What no role may do, the superuser included.
ATTACK = "DELETE FROM audit.audit_log_data"
MARGIN = 14
WIDTH = 105


@dataclasses.dataclass
class Round:
    """The rates of one round of pgbench, in transactions a second."""

    bare: float
    audited: float

    @property
    def share(self) -> float:
        """The audited rate as a part of the bare one."""
        return self.audited / self.bare


@dataclasses.dataclass
class Findings:
    """What the steps learnt."""

    changed: dict[str, int] = dataclasses.field(default_factory=dict)
    secrets: list[str] = dataclasses.field(default_factory=list)
    refusals: dict[str, str] = dataclasses.field(default_factory=dict)
    rounds: list[Round] = dataclasses.field(default_factory=list)
    changes_a_transaction: float = 0
    conditions: list[str] = dataclasses.field(default_factory=list)
    audited: list[str] = dataclasses.field(default_factory=list)
    verified: list[str] = dataclasses.field(default_factory=list)


def show(fleet: Fleet, findings: Findings) -> None:
    """Print everything."""
    names = queries()

    def ask(name: str, **values: t.Any) -> list[Row]:
        return fleet.ask("clinic", "clinic", names[name], "compliance", **values)

    heading("What the clinic's log says, as its reader (role compliance) sees it")
    show_change(ask("change")[0])
    show_secret(ask("secret")[0], ask("leaks", secrets=findings.secrets)[0])
    show_rest(ask("bulk")[0], ask("cascade")[0], ask("plain"))
    for row in ask("new_table"):
        entry("a new table", "{action} {table}, policy {policy}, its access_token as {access_token}".format(**row))
    heading(f"{ATTACK}, as the application and as the superuser")
    for user, words in findings.refusals.items():
        entry(f"as {user}", words)
    heading("The fleet")
    entries("site.yml", findings.audited)
    entry("a second run", ", ".join(f"{name} changed={count}" for name, count in findings.changed.items()))
    entries("verify.yml", findings.verified)
    show_cost(findings)


def show_change(row: Row) -> None:
    """Print one change with all that is known about it."""
    columns = [f"{column}: {before} -> {bold(after)}" for column, before, after in row["columns"]]
    entries(
        "a change",
        [
            f"{row['action']} {row['table']}, record {row['record_id']}, {row['at']} UTC",
            *columns,
            f"by {bold(row['changed_by'])} from {row['client_ip']}, {row['process']}, request {row['request']}",
            f"(database user {row['db_user']}, application {row['application_name']})",
        ],
    )


def show_secret(row: Row, leaks: Row) -> None:
    """Print what became of secrets."""
    changed = ", ".join(row["changed_columns"])
    entries(
        "a new password",
        [
            f"{row['action']} {row['table']}, record {row['record_id']}, by {row['changed_by']}, changed: {changed}",
            f"stored as {row['before']} -> {row['after']}; the ssn beside it as {row['ssn']}...",
            f"every password hash and ssn looked for in {leaks['records']} records: {bold(leaks['leaks'])} in clear",
        ],
    )


def show_rest(bulk: Row, cascade: Row, plain: list[Row]) -> None:
    """Print bulk work, an erasure, and changes that came without any context."""
    statement = f"{bulk['records']} records of one {bulk['action']} of {bulk['table']}"
    entry("bulk work", f"{statement}, by {bulk['changed_by']}, transaction {bulk['transaction']}")
    entry("an erasure", f"by {cascade['changed_by']}, {cascade['request']}, along the foreign keys: {cascade['rows']}")
    for row in plain:
        row["key"] = f"record {row['record_id']}" if row["record_id"] else "which has no key"
    lines = ["{action} {table}, {key}, by {changed_by} from {client_ip}".format(**row) for row in plain]
    entries("no context", lines)


def show_cost(findings: Findings) -> None:
    """Print what auditing cost, as a measurement of this run and no more."""
    rates = [[getattr(one, name) for one in findings.rounds] for name in ("bare", "audited")]
    bare, audited = map(statistics.mean, rates)
    shares = sorted(one.share for one in findings.rounds)
    share = bold(f"{audited / bare:.0%}")
    price = (1 / audited - 1 / bare) / findings.changes_a_transaction * 1000
    heading("What auditing cost pgbench in this run")
    lines = [
        f"{share} of the bare rate (rounds {shares[0]:.0%} to {shares[-1]:.0%}), {price:.2f} ms more for each change",
        f"(means: {bare:.0f} transactions/s bare, {audited:.0f} audited)",
    ]
    entries("TPC-B", [*lines, *findings.conditions])


def show_connections(fleet: Fleet) -> None:
    """Print how to look around on servers that are left up."""
    heading("The servers are up; demo/run --stop takes them down")
    for name, user in (("clinic", "compliance"), ("bank", "postgres")):
        server = fleet.servers[name]
        print(f"  {server.binaries}/psql -h {server.socket_dir} -p {server.port} -U {user} {name}")
    print("  a query to try: SELECT changed_at, changed_by, action, table_name, record_id, changed_columns")
    print("                  FROM audit.audit_log ORDER BY id DESC LIMIT 10;")


def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n{bold(text)}")


def entry(label: str, text: str) -> None:
    """Print one line below a heading, and where it is too long, several."""
    indent = " " * (MARGIN + 4)
    first = f"  {label:<{MARGIN}}  "
    print(textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=indent + "  ", break_long_words=False))


def entries(label: str, lines: t.Sequence[str]) -> None:
    """Print several lines, the first one with a label."""
    for number, line in enumerate(lines):
        entry("" if number else label, line)


def bold(text: object) -> str:
    """Return a text in bold where the terminal shows that."""
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb":
        return f"\033[1m{text}\033[0m"
    return str(text)
