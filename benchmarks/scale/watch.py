# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What commands that run Ansible cost: seconds, processor seconds, and the memory of the controller's processes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import subprocess
import time
import typing as t

_EVERY = 1.0
_PROGRAMS = ("ansible-playbook", "ansible-runner")


class Command(t.NamedTuple):
    """A command line, its environment, and the file that takes what it prints."""

    arguments: t.Sequence[str]
    environment: t.Mapping[str, str]
    log: pathlib.Path


@dataclasses.dataclass
class Cost:
    """What one command or several at once have cost; memory in MB, what processes share counted once in the sum."""

    seconds: float = 0
    processor: float = 0
    main: float = 0
    fork: float = 0
    sum: float = 0
    changed: int = 0

    def row(self, hosts: int) -> list[str]:
        """Return the fields of a table."""
        return [
            f"{self.seconds:.0f}", f"{self.seconds / hosts:.2f}", f"{self.processor / hosts:.2f}",
            f"{self.main:.0f}", f"{self.fork:.0f}", f"{self.sum:.0f}",
        ]  # fmt: skip


HEAD = "seconds | per host | processor s per host | MB main process | MB a fork of its own | MB in all"


def run(commands: t.Sequence[Command]) -> Cost:
    """Run commands at once, watch them, and return what they cost; one that fails ends the benchmark."""
    cost = Cost()
    began = time.monotonic()
    running = {}
    for command in commands:
        with command.log.open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                command.arguments, env=dict(command.environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        running[process.pid] = (process, command)
    while running:
        _look(cost)
        for pid in list(running):
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                process, command = running.pop(pid)
                process.returncode = os.waitstatus_to_exitcode(status)
                cost.processor += usage.ru_utime + usage.ru_stime
                _finish(process.returncode, command, cost)
        time.sleep(_EVERY)
    cost.seconds = time.monotonic() - began
    return cost


def _finish(status: int, command: Command, cost: Cost) -> None:
    text = command.log.read_text(encoding="utf-8", errors="replace")
    if status:
        raise SystemExit(f"benchmarks/scale: {' '.join(command.arguments)} ended with {status}:\n{text[-3000:]}")
    cost.changed += sum(int(number) for number in re.findall(r"changed=(\d+)", text))


def _look(cost: Cost) -> None:
    """Add what is to be seen now below this process."""
    parents = _parents()
    below = {os.getpid()}
    # A child has its parent's number in it before its own is asked for, whatever their order is.
    for _generation in range(6):
        below |= {pid for pid, parent in parents.items() if parent in below}
    ours = {pid for pid in below - {os.getpid()} if _is_ansible(pid)}
    whole = 0.0
    for pid in ours:
        memory = _memory(pid)
        whole += memory.get("Pss", 0)
        if parents.get(pid) in ours and _is_ansible(parents[pid], "ansible-playbook"):
            cost.fork = max(cost.fork, memory.get("Private_Dirty", 0) + memory.get("Private_Clean", 0))
        else:
            cost.main = max(cost.main, memory.get("Rss", 0))
    cost.sum = max(cost.sum, whole)


def _parents() -> dict[int, int]:
    parents = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return parents


def _is_ansible(pid: int, *programs: str) -> bool:
    with contextlib.suppress(OSError):
        arguments = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:2]
        return any(os.path.basename(argument).decode() in (programs or _PROGRAMS) for argument in arguments)
    return False


def _memory(pid: int) -> dict[str, float]:
    """Return fields of the kernel's sums of a process' memory, in MB."""
    with contextlib.suppress(OSError):
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
        fields = (line.split() for line in lines)
        return {name.rstrip(":"): int(value) / 1024 for name, value, _unit in fields}
    return {}
