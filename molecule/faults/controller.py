# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs of the collection's playbooks that a test can start, double, kill and ask how they ended.

    python3 controller.py --dir D --inventory I start NAME PLAYBOOK [OPTION...]
    python3 controller.py --dir D --inventory I kill NAME       # SIGKILL to all of its processes
    python3 controller.py --dir D --inventory I finish NAME     # waits; prints {"rc", "recap", "output"} as JSON
    python3 controller.py --dir D --inventory I run NAME PLAYBOOK [OPTION...]   # start and finish

NAME is of the caller's choice; D gets NAME.log and NAME.rc. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMEOUT = 150

# What tests/support/env.sh and molecule set for work on this machine is not for runs against hosts.
FOREIGN = ("ANSIBLE_PYTHON_INTERPRETER", "ANSIBLE_REMOTE_TMP", "ANSIBLE_FORCE_COLOR", "PY_COLORS", "FORCE_COLOR")


class Run:
    """One run of a playbook."""

    def __init__(self, directory: pathlib.Path, name: str) -> None:
        self.log = directory / f"{name}.log"
        self.pid = directory / f"{name}.pid"
        self.rc = directory / f"{name}.rc"

    def start(self, inventory: str, playbook: str, options: t.Sequence[str]) -> None:
        """Start the run in a session of its own, whose number all of its processes share."""
        self.rc.unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        environment["ANSIBLE_NOCOLOR"] = "1"
        command = ["ansible-playbook", f"--inventory={inventory}", str(ROOT / "playbooks" / playbook), *options]
        # The shell stays to write down how the run ended, and is killed with it.
        keep = f'"$@"; echo $? >"{self.rc}.new"; mv "{self.rc}.new" "{self.rc}"'
        with self.log.open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                ["sh", "-c", keep, "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self.pid.write_text(str(process.pid), encoding="utf-8")

    def kill(self) -> None:
        """End the run as a power cut would: no process of it gets to say anything."""
        if self.rc.exists():
            raise SystemExit(f"{self.log.name}: the run had ended before it was killed")
        session = int(self.pid.read_text(encoding="utf-8"))
        for entry in pathlib.Path("/proc").iterdir():
            # Workers of ansible-playbook have process groups of their own; the session is what they share.
            with contextlib.suppress(OSError, ValueError):
                if entry.name.isdigit() and os.getsid(int(entry.name)) == session:
                    os.kill(int(entry.name), signal.SIGKILL)

    def finish(self) -> dict[str, t.Any]:
        """Wait for the end of the run and return how it went."""
        deadline = time.monotonic() + TIMEOUT
        while not self.rc.exists():
            if time.monotonic() > deadline:
                raise SystemExit(f"the run does not end:\n{self.log.read_text(encoding='utf-8')}")
            time.sleep(0.1)
        output = self.log.read_text(encoding="utf-8")
        recap = {}
        for line in output.rpartition("PLAY RECAP")[2].splitlines():
            match = re.fullmatch(r"(\S+) +: (ok=.*)", line.strip())
            if match:
                recap[match[1]] = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", match[2])}
        return {"rc": int(self.rc.read_text(encoding="utf-8")), "recap": recap, "output": output}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Runs of the collection's playbooks.")
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--inventory", required=True)
    parser.add_argument("command", choices=["start", "kill", "finish", "run"])
    parser.add_argument("name")
    parser.add_argument("playbook", nargs="?")
    options, rest = parser.parse_known_args()
    run = Run(options.dir, options.name)
    if options.command in ("start", "run"):
        run.start(options.inventory, options.playbook, rest)
    if options.command == "kill":
        run.kill()
    if options.command in ("finish", "run"):
        print(json.dumps(run.finish()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
