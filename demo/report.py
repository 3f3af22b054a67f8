# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the demo prints in the end: every line of it is an answer of a server or of a playbook."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import statistics
import sys
import textwrap
import typing as t

from fleet import Fleet
from servers import DemoError, Row

#: What no role may do, the superuser included.
ATTACK = "DELETE FROM audit.audit_log_data"
#: Who works on the servers whose logs are shown, and who may read the logs.
APPLICATIONS = {"clinic": "clinic_app", "shop": "shop_app"}
READER = "compliance"
#: A column whose values are hashed, and what the logs are searched for.
MASKED = {"clinic": ("ssn", "password hash and ssn"), "shop": ("email", "password hash, email and card number")}
#: Whose reads and grants are shown, of which no row tells.
WATCHED, CURIOUS = "clinic", "dba_kim"
#: Who is named in her place by somebody who may do everything.
NOBODY = "nobody"
#: What pgaudit wrote of somebody, behind the prefix that the inventory sets. That it does not log parameters, which it
#: says at the end of every line, is left out.
AUDIT_LINE = (
    r"^(?P<at>\S+ [\d:]+)\.\d+ (?P<zone>\S+) \[\d+\] {user}@\S+ (?P<client>\S+) (?P<application>.*?) "
    r"LOG:  (?P<record>AUDIT: (?:[^,]*,){{3}}(?P<kind>[^,]*),.*?)(?:,<not logged>)?$"
)
#: By pgaudit's class, in the order in which they come.
STATEMENTS = {"READ": "a read", "ROLE": "a grant"}
MARGIN = 14
WIDTH = 112

Ask = t.Callable[..., list[Row]]


@dataclasses.dataclass
class Round:
    """The rates of one round of a foreign client, in transactions a second."""

    bare: float
    audited: float

    @property
    def share(self) -> float:
        """The audited rate as a part of the bare one."""
        return self.audited / self.bare


@dataclasses.dataclass
class Cost:
    """What a foreign client program did on one server."""

    program: str
    product: str
    rounds: list[Round] = dataclasses.field(default_factory=list)
    transactions: int = 0
    records: int = 0


@dataclasses.dataclass
class Findings:
    """What the steps learnt."""

    changed: dict[str, int] = dataclasses.field(default_factory=dict)
    secrets: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    refusals: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    costs: list[Cost] = dataclasses.field(default_factory=list)
    conditions: str = ""
    audited: list[str] = dataclasses.field(default_factory=list)
    verified: list[str] = dataclasses.field(default_factory=list)
    sealed: list[str] = dataclasses.field(default_factory=list)
    tampered: list[str] = dataclasses.field(default_factory=list)
    reported: list[str] = dataclasses.field(default_factory=list)


def show(fleet: Fleet, findings: Findings) -> None:
    """Print everything."""
    for name in APPLICATIONS:
        show_log(fleet, findings, name)
    show_statements(fleet)
    heading(f"{ATTACK}, as the applications and as the superusers")
    for name, words in findings.refusals.items():
        entries(name, words)
    heading(f"Somebody with all rights puts {NOBODY} for {CURIOUS} into the {WATCHED}'s log, every guard off")
    entries("verify.yml", findings.tampered)
    heading("The fleet")
    entries("site.yml", findings.audited)
    entry("a second run", ", ".join(f"{name} changed={count}" for name, count in findings.changed.items()))
    entries("seal.yml", findings.sealed)
    entries("verify.yml", findings.verified)
    entries("report.yml", findings.reported)
    heading("What auditing cost in this run")
    for cost in findings.costs:
        show_cost(cost)
    entry("measured in", findings.conditions)


def show_log(fleet: Fleet, findings: Findings, name: str) -> None:
    """Print what one server's log says; not every server has an answer to every question."""
    server = fleet.servers[name]
    names = server.queries()

    def ask(question: str, **values: t.Any) -> list[Row]:
        return server.ask(names[question], READER, **values) if question in names else []

    heading(f"What the {name}'s log says ({server.product}), as its reader (role {READER}) sees it")
    show_change(ask("change")[0])
    show_secret(ask("secret")[0], ask("leaks", secrets=findings.secrets[name])[0], *MASKED[name])
    show_rest(ask)


def show_change(row: Row) -> None:
    """Print one change with all that is known about it."""
    columns = [f"{column}: {before} -> {bold(after)}" for column, before, after in json.loads(row["columns"])]
    entries(
        "a change",
        [
            f"{row['action']} {row['table']}, record {row['record_id']}, {row['at']} UTC",
            *columns,
            f"by {bold(row['changed_by'])} from {row['client_ip']}, {row['process']}, request {row['request']}",
            f"(database user {row['db_user']}, application {row['application_name']})",
        ],
    )


def show_secret(row: Row, leaks: Row, hashed: str, sought: str) -> None:
    """Print what became of secrets."""
    what = "{action} {table}, record {record_id}, by {changed_by}, changed: {changed}".format(**row)
    search = f"every {sought} looked for in {leaks['records']} records"
    entries(
        "a new password",
        [
            what,
            f"stored as {row['before']} -> {row['after']}; the {hashed} beside it as {row['hashed']}...",
            f"{search}: {bold(leaks['leaks'])} in clear",
        ],
    )


def show_rest(ask: Ask) -> None:
    """Print bulk work, an erasure, a document, changes that came without any context, and a table that came later."""
    for row in ask("bulk"):
        statement = f"{row['records']} records of one {row['action']} of {row['table']}"
        entry("bulk work", f"{statement}, by {row['changed_by']}, transaction {row['transaction']}")
    for row in ask("document"):
        entry("a document", "{action} {table}, record {record_id}: {before} -> {after}".format(**row))
    for row in ask("cascade"):
        entry("an erasure", "by {changed_by}, {request}, along the foreign keys: {rows}".format(**row))
    plain = ask("plain")
    for row in plain:
        row["key"] = f"record {row['record_id']}" if row["record_id"] else "which has no key"
    lines = ["{action} {table}, {key}, by {changed_by} from {client_ip}".format(**row) for row in plain]
    entries("no context", lines)
    for row in ask("new_table"):
        entry("a new table", "{action} {table}, policy {policy}, its access_token as {access_token}".format(**row))


def show_statements(fleet: Fleet) -> None:
    """Print what only the server's own log knows: statements that change no row, next to what the audit log has."""
    server = fleet.servers[WATCHED]
    pattern = re.compile(AUDIT_LINE.format(user=CURIOUS), flags=re.MULTILINE)
    lines = list(pattern.finditer(server.local.log.read_text("utf-8", "replace")))
    if [line["kind"] for line in lines] != list(STATEMENTS):
        raise DemoError(f"pgaudit did not log what {CURIOUS} did", server.local.log)
    heading(f"What the {WATCHED}'s server log says of statements that change no row (pgaudit)")
    for line in lines:
        who = f"by {bold(CURIOUS)} from {line['client']}, application {line['application']}"
        entries(STATEMENTS[line["kind"]], [f"{who}, {line['at']} {line['zone']}", line["record"]])
    for command in server.ask(server.queries()["commands_by"], READER, db_user=CURIOUS):
        who = f"by {bold(CURIOUS)}, application {command['application_name']}"
        entries("the audit log", [f"{command['action']} {bold(command['event'])} {who}", command["statement"]])


def show_cost(cost: Cost) -> None:
    """Print what auditing cost a foreign client, as a measurement of this run and no more."""
    bare, audited = (statistics.mean(getattr(one, name) for one in cost.rounds) for name in ("bare", "audited"))
    shares = sorted(one.share for one in cost.rounds)
    changes = cost.records / cost.transactions
    price = (1 / audited - 1 / bare) / changes * 1000
    share = bold(f"{audited / bare:.0%}")
    lines = [
        f"{share} of the bare rate (rounds {shares[0]:.0%} to {shares[-1]:.0%}), {price:.2f} ms more for each change",
        f"({cost.product}: {bare:.0f} transactions/s bare, {audited:.0f} audited, of {changes:.0f} changes each)",
    ]
    entries(cost.program, lines)


def show_connections(fleet: Fleet) -> None:
    """Print how to look around on servers that are left up."""
    heading("The servers are up; demo/run --stop takes them down")
    for name, server in fleet.servers.items():
        print(f"  {server.client_command(READER if name in APPLICATIONS else server.SUPERUSER)}")
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
