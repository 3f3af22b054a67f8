# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An application that never stops writing and remembers what it was told, and the comparison of that with the log.

Runs on hosts of the scenario, with nothing but the standard library and psql.

    application.py write --login CONNINFO --notes FILE     # until SIGTERM: numbered transactions on the table orders
    application.py check --port P --database D --notes FILE # as root: what of it is in the table and in the log

A transaction inserts the order of its number; each third then updates it, each fifth rolls back. An order's column
`version` counts its changes, so that the table says what the log must have. FILE gets a line for each outcome: "commit
N" (acknowledged), "rollback N" (meant, or refused by the server), "unknown N" (the connection broke in between).
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import signal
import subprocess
import sys
import time

PSQL = ["psql", "--no-psqlrc", "--no-password", "--tuples-only", "--no-align"]
PAUSE = 0.05
RECONNECT_PAUSE = 0.3
PATIENCE = 20
PROBLEMS = ("lost", "undead", "unrecorded", "never_happened", "twice", "mistaken")

# Both in one statement, so that one snapshot answers while the application goes on.
STATE = """
SELECT json_build_object(
    'orders', (SELECT coalesce(json_agg(json_build_array(id, version) ORDER BY id), '[]') FROM public.orders),
    'recorded', (SELECT coalesce(json_agg(json_build_array(record_id::bigint, (new_values ->> 'version')::int,
                                                           action) ORDER BY id), '[]')
                 FROM audit.audit_log
                 WHERE schema_name = 'public' AND table_name = 'orders' AND action <> 'DDL'))
"""


class Writer:
    """Writes orders through one psql after another."""

    def __init__(self, login: str, notes: pathlib.Path) -> None:
        self.login = login
        self.notes = notes
        self.number = _last_number(notes)
        self.stopped = False

    def stop(self, *_unused: object) -> None:
        """End behind the transaction that is in work."""
        self.stopped = True

    def run(self) -> None:
        """Write until told to stop; a connection that breaks is made anew."""
        with self.notes.open("a", encoding="utf-8", buffering=1) as notes:
            while not self.stopped:
                psql = subprocess.Popen(
                    [*PSQL, self.login], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
                )
                # A connection that was never made has carried no transaction.
                if self._send(psql, "\\echo ready\n", "ready") is not None:
                    self._write(psql, notes)
                psql.kill()
                psql.wait()
                time.sleep(RECONNECT_PAUSE)

    def _write(self, psql: subprocess.Popen[str], notes: object) -> None:
        while not self.stopped:
            self.number += 1
            number = self.number
            answer = self._send(psql, _transaction(number), f"end {number}")
            outcome = "unknown" if answer is None else "commit" if "COMMIT" in answer else "rollback"
            print(outcome, number, file=notes)
            if answer is None:
                return
            time.sleep(PAUSE)

    @staticmethod
    def _send(psql: subprocess.Popen[str], text: str, end: str) -> list[str] | None:
        """Send a text and return psql's lines up to the one that ends the answer; None if psql has ended."""
        answer = []
        try:
            psql.stdin.write(text)
            psql.stdin.flush()
        except BrokenPipeError:
            return None
        for line in psql.stdout:
            if line.rstrip("\n") == end:
                return answer
            answer.append(line.rstrip("\n"))
        return None


def _transaction(number: int) -> str:
    update = f"UPDATE orders SET version = 2 WHERE id = {number};\n" if number % 3 == 0 else ""
    end = "ROLLBACK" if number % 5 == 0 else "COMMIT"
    return f"BEGIN;\nINSERT INTO orders VALUES ({number}, 1);\n{update}{end};\n\\echo end {number}\n"


def _outcomes(notes: pathlib.Path) -> dict[str, set[int]]:
    outcomes = {"commit": set(), "rollback": set(), "unknown": set()}
    for line in notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []:
        # The last line may be in the writing.
        outcome, _separator, number = line.partition(" ")
        if outcome in outcomes and number:
            outcomes[outcome].add(int(number))
    return outcomes


def _last_number(notes: pathlib.Path) -> int:
    return max((max(numbers) for numbers in _outcomes(notes).values() if numbers), default=0)


def check_patiently(port: int, database: str, notes: pathlib.Path) -> dict[str, object]:
    """Give a standby and an application that looks for its server their time; a lost row does not come back by it."""
    deadline = time.monotonic() + PATIENCE
    seen = len(_outcomes(notes)["commit"])
    while True:
        result = check(port, database, notes)
        result["new"] = result["acknowledged"] - seen
        if (result["new"] and not any(result[name] for name in PROBLEMS)) or time.monotonic() > deadline:
            return result
        time.sleep(0.2)


def check(port: int, database: str, notes: pathlib.Path) -> dict[str, object]:
    """Compare what the application was told, what its table holds and what the log holds."""
    outcomes = _outcomes(notes)
    command = ["runuser", "-u", "postgres", "--", *PSQL, f"--port={port}", f"--command={STATE}", database]
    state = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout)
    orders = dict(state["orders"])
    recorded = collections.Counter((number, version) for number, version, _action in state["recorded"])
    actions = {1: "INSERT", 2: "UPDATE"}
    memory = notes.with_name(f"{notes.name}.first")
    # Where auditing began is remembered from the first check on, so that a lost beginning is a loss too.
    if not memory.exists():
        memory.write_text(str(min(number for number, _version in recorded)), encoding="utf-8")
    first = int(memory.read_text(encoding="utf-8"))
    wanted = {(number, version) for number, last in orders.items() if number >= first for version in range(1, last + 1)}
    return {
        "acknowledged": len(outcomes["commit"]),
        "refused": len([number for number in outcomes["rollback"] if number % 5]),
        "unknown": len(outcomes["unknown"]),
        "recorded": len(recorded),
        "first": first,
        # Acknowledged, and not in the table.
        "lost": sorted(outcomes["commit"] - set(orders)),
        # Rolled back, and in the table all the same.
        "undead": sorted(outcomes["rollback"] & set(orders)),
        "unrecorded": sorted(wanted - set(recorded)),
        "never_happened": sorted(set(recorded) - wanted),
        "twice": sorted(change for change, count in recorded.items() if count > 1),
        "mistaken": [entry for entry in state["recorded"] if actions.get(entry[1]) != entry[2]],
    }


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="An application that never stops writing.")
    parser.add_argument("command", choices=["write", "check"])
    parser.add_argument("--notes", type=pathlib.Path, required=True)
    parser.add_argument("--login", default="")
    parser.add_argument("--port", type=int)
    parser.add_argument("--database")
    options = parser.parse_args()
    if options.command == "write":
        writer = Writer(options.login, options.notes)
        signal.signal(signal.SIGTERM, writer.stop)
        writer.run()
    else:
        print(json.dumps(check_patiently(options.port, options.database, options.notes)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
