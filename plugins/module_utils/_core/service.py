# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A database server as the operating system sees it: what runs it, how it is restarted, what it says when it fails."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from .errors import AuditError

#: Seconds between two looks at a server that is on its way up.
_PAUSE = 0.2

#: Stands for a file in a command.
OUTPUT = "{output}"

#: Characters of a server's log that a message shows at most; what it died of stands at the end.
_LOG_LIMIT = 4000

#: Runs a command as an account, by its name; returns exit code and output.
Runner = Callable[[Sequence[str], str], tuple[int, str]]


@dataclass
class ServerProcess:
    """A running server.

    :ivar started: when it was started, as the kernel counts: another process may get the same number one day.
    :ivar account: name of the account that it runs as.
    :ivar unit: name of the systemd unit whose main process it is, empty where none is.
    :ivar output: the file that it writes its messages into while it starts, or is to write them into.
    :ivar logs: files that it may write its log into, with their sizes at the time.
    """

    pid: int
    started: str
    account: str
    unit: str
    output: str
    logs: dict[str, int] = field(default_factory=dict)
    since: float = field(default_factory=time.time)

    @classmethod
    def find(cls, pid: int, logs: Sequence[str], run: Runner) -> ServerProcess:
        """Look a process up.

        :raises AuditError: when there is no such process on this host.
        """
        started = _started(pid)
        if not started:
            raise AuditError(f"no process {pid} runs on this host: is the server on another one?")
        account = pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
        output = _standard_error(pid) or (logs[-1] if logs else os.devnull)
        process = cls(pid, started, account, _unit_of(pid, run), output)
        for path in (*logs, process.output):
            process.logs[path] = os.path.getsize(path) if os.path.isfile(path) else 0
        return process

    @property
    def gone(self) -> bool:
        return _started(self.pid) != self.started

    def said(self, run: Runner) -> str:
        """Return what the server has written into its log since we looked it up."""
        texts = [_text_after(path, size) for path, size in self.logs.items()]
        if self.unit:
            journal = (
                "journalctl",
                "--unit",
                self.unit,
                "--since",
                f"@{int(self.since)}",
                "--output=cat",
                "--no-pager",
            )
            texts.append(run(journal, "")[1])
        return "\n".join(text.strip() for text in texts if text.strip())[-_LOG_LIMIT:]


def _started(pid: int) -> str:
    """Return when a process was started, in ticks since the machine was; empty where none runs (proc(5), stat)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # The name of the program stands in parentheses and may hold anything.
    state, *numbers = stat.rpartition(")")[2].split()
    # A dead process stays in the list until its parent has taken notice, which in a container may be never.
    return "" if state in "ZX" else numbers[18]


def _unit_of(pid: int, run: Runner) -> str:
    """Return the unit that runs a process; one that is only somewhere below it, as in a session, does not count."""
    for name in services_of(pid):
        code, main = run(("systemctl", "show", "--property=MainPID", "--value", name), "")
        if code == 0 and main.strip() == str(pid):
            return name
    return ""


def services_of(pid: int) -> set[str]:
    """Return the names of the systemd units that a process runs in, as one of their processes or as the only one."""
    if not os.path.isdir("/run/systemd/system"):
        return set()
    cgroup = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    return {line.rsplit("/", 1)[-1] for line in cgroup.splitlines() if line.endswith(".service")}


def _standard_error(pid: int) -> str:
    """Return the file that a process writes its messages into, empty where that is a pipe, a socket or a secret."""
    try:
        target = os.readlink(f"/proc/{pid}/fd/2")
    except PermissionError:
        return ""
    return target if os.path.isfile(target) else ""


def _text_after(path: str, size: int) -> str:
    if not os.path.isfile(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as log:
        # A file that is shorter than it was has been rotated.
        log.seek(size if os.path.getsize(path) >= size else 0)
        return log.read()


@dataclass(frozen=True)
class Restart:
    """How a server is restarted, and when it is up again.

    :ivar command: the user's own command, empty where there is none.
    :ivar fallback: the command for a server that no unit runs; it runs as the server's account, and OUTPUT in it stands
        for the file that the server writes its messages into.
    :ivar ready: a command that exits with 0 as soon as the server takes connections.
    :ivar timeout: seconds that it may take.
    """

    command: Sequence[str]
    fallback: Sequence[str]
    ready: Sequence[str]
    timeout: float

    def how(self, server: ServerProcess) -> tuple[Sequence[str], str]:
        """Return the command that restarts the server, and the account that it runs as; empty is our own.

        :raises AuditError: when nothing is known that could.
        """
        if self.command:
            return self.command, ""
        if server.unit:
            return ("systemctl", "restart", server.unit), ""
        if self.fallback:
            return [server.output if part == OUTPUT else part for part in self.fallback], server.account
        raise AuditError(f"nothing is known that restarts process {server.pid}; give a restart command")

    def run(self, server: ServerProcess, run: Runner) -> str:
        """Restart the server; return an empty text when it is up, else what went wrong."""
        command, account = self.how(server)
        if server.unit and not self.command:
            # Otherwise systemd refuses a unit that has failed too often in too short a time.
            run(("systemctl", "reset-failed", server.unit), "")
        code, output = run(command, account)
        deadline = time.monotonic() + self.timeout
        while True:
            if server.gone and run(self.ready, "")[0] == 0:
                return ""
            if code or time.monotonic() > deadline:
                break
            time.sleep(_PAUSE)
        # What the server itself had to say is in its log.
        said = f"{' '.join(command)} ended with {code}: {output.strip().partition(chr(10))[0]}" if code else ""
        if not server.gone:
            return said or f"{' '.join(command)} succeeded, but process {server.pid} still runs"
        return said or f"it does not take connections {self.timeout:g} s after {' '.join(command)}"


def put_back(entry: Mapping[str, Any]) -> None:
    """Undo a change of the server's configuration: add lines to a file, the last of which count, or delete it."""
    path = Path(entry["path"])
    if entry["lines"]:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        ending = "" if not text or text.endswith("\n") else "\n"
        with path.open("a", encoding="utf-8") as file:
            file.write(ending + "".join(f"{line}\n" for line in entry["lines"]))
    else:
        path.unlink(missing_ok=True)


def run_command(command: Sequence[str], account: str) -> tuple[int, str]:
    """Run a command as an account and return its exit code and output.

    Output goes to a file: a server that the command starts may keep it open, and write to it, for as long as it lives.
    AnsibleModule.run_command has a pipe for that, which ends, and no accounts.
    """
    identity: dict[str, Any] = {}
    if account and os.geteuid() == 0:
        entry = pwd.getpwnam(account)
        identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": os.getgrouplist(account, entry.pw_gid)}
    try:
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", check=False, **identity
            )
            output.seek(0)
            return done.returncode, output.read().decode(errors="replace")
    except OSError as error:
        return 127, f"{command[0]}: {error.strerror}"
