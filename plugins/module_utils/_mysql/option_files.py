# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which option files a running server reads, and what they say to it: its command line, and my_print_defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from .._core.errors import AuditError

#: AnsibleModule.run_command.
Runner = Callable[..., Any]
#: An option by its bare name, and its value.
Option = tuple[str, str]

_PROGRAMS = ("mariadbd", "mysqld")
_CHOICES = ("--no-defaults", "--defaults-file=", "--defaults-extra-file=", "--defaults-group-suffix=")
_SUFFIX = "--defaults-group-suffix="
_DIRECTIVE = re.compile(r"!\s*(include|includedir)\s+(.*\S)")
_DEPTH = 10


@dataclass(frozen=True)
class Process:
    """A server's process on this host."""

    pid: int
    command_line: tuple[str, ...]

    @classmethod
    def find(cls, pid_file: str) -> Process | None:
        """Return the server of a pid file, if it runs on this host and this account may see it."""
        try:
            with open(pid_file, encoding="ascii") as opened:
                pid = int(opened.read())
            with open(f"/proc/{pid}/cmdline", "rb") as opened:
                words = [os.fsdecode(word) for word in opened.read().split(b"\0")]
        except (OSError, ValueError):
            return None
        if os.path.basename(words[0]) not in _PROGRAMS:
            return None
        return cls(pid, tuple(word for word in words if word))

    def may_write(self, directory: str) -> bool:
        """Tell whether the permissions of a directory let the server make a file in it."""
        owner, found = os.stat(f"/proc/{self.pid}"), os.stat(directory)
        groups = {owner.st_gid}
        with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as opened:
            for line in opened:
                if line.startswith("Groups:"):
                    groups.update(int(word) for word in line.split()[1:])
        shift = 6 if found.st_uid == owner.st_uid else 3 if found.st_gid in groups else 0
        return owner.st_uid == 0 or (found.st_mode >> shift) & 0o3 == 0o3


@dataclass(frozen=True)
class OptionFiles:
    """The option files of one server.

    :ivar choice: what its command line says about option files.
    :ivar arguments: the rest of it, which counts more than any file.
    :ivar files: all files, and :ivar directories: all included directories, in the order in which they are read.
    """

    program: str
    choice: tuple[str, ...]
    arguments: tuple[str, ...]
    files: tuple[str, ...]
    directories: tuple[str, ...]

    @classmethod
    def of(cls, process: Process, basedir: str, run: Runner) -> OptionFiles:
        """Find the files that a server reads.

        :raises AuditError: where the program that knows them is missing.
        """
        words = process.command_line[1:]
        choice = tuple(word for word in words if word.startswith(_CHOICES))
        program = _program(basedir)
        roots = _roots(_output(run, [program, *choice, "--help"])) if "--no-defaults" not in choice else []
        found = [entry for root in roots for entry in _walk(root, _DEPTH)]
        return cls(
            program,
            choice,
            tuple(word for word in words if word not in choice),
            tuple(path for kind, path in found if kind == "file"),
            tuple(path for kind, path in found if kind == "directory"),
        )

    @property
    def suffix(self) -> str:
        """The suffix of the groups that only this one of several servers reads."""
        return next((word[len(_SUFFIX) :] for word in self.choice if word.startswith(_SUFFIX)), "")

    def reads(self, path: str) -> bool:
        """Tell whether the server reads this file, or would if it were there."""
        real = os.path.realpath(path)
        if real in [os.path.realpath(file) for file in self.files]:
            return True
        places = [os.path.realpath(directory) for directory in self.directories]
        return real.endswith(".cnf") and os.path.dirname(real) in places

    def options(self, run: Runner) -> list[Option]:
        """Return all options of the server's next start, in the order in which they count."""
        lines = _output(run, [self.program, *self.choice, "--mysqld"]).splitlines()
        return [_option(word) for word in (*lines, *self.arguments) if word.startswith("--")]

    def options_without(self, path: str, run: Runner) -> list[Option]:
        """Return all options but those of one file."""
        everything = self.options(run)
        if not os.path.exists(path):
            return everything
        suffix = [f"{_SUFFIX}{self.suffix}"] if self.suffix else []
        lines = _output(run, [self.program, f"--defaults-file={path}", *suffix, "--mysqld"]).splitlines()
        own = [_option(line) for line in lines]
        for start in range(len(everything) - len(own), -1, -1):
            if own and everything[start : start + len(own)] == own:
                return everything[:start] + everything[start + len(own) :]
        return everything


def _program(basedir: str) -> str:
    for directory in (os.path.join(basedir, "bin"), *os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/bin"):
        path = os.path.join(directory, "my_print_defaults")
        if os.access(path, os.X_OK):
            return path
    raise AuditError(
        f"no my_print_defaults in {basedir}/bin or PATH, to ask which option files the server reads; install the "
        "client's package, or go without a file that survives a restart: option_file: none"
    )


def _output(run: Runner, command: Sequence[str]) -> str:
    status, output, errors = run(list(command))
    if status:
        raise AuditError(
            f"{' '.join(command)}: {errors.strip()}; the server would not start with this either, see there"
        )
    return output


def _roots(usage: str) -> list[str]:
    match = re.search(r"following files in the given order:\s*\n(.*)\n", usage)
    # A file below ~ is that of whoever asks, and not the server's.
    return [path for path in (match[1].split() if match else []) if path.startswith("/")]


def _walk(path: str, depth: int) -> Iterator[tuple[str, str]]:
    """Find a file and all that it includes, in the order in which a server reads it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as opened:
            lines = opened.readlines()
    except OSError:
        return
    yield "file", path
    for line in lines if depth else []:
        match = _DIRECTIVE.match(line.strip())
        if match and match[1] == "include":
            yield from _walk(match[2], depth - 1)
        elif match and os.path.isdir(match[2]):
            yield "directory", match[2]
            for name in sorted(os.listdir(match[2])):
                if name.endswith(".cnf"):
                    yield from _walk(os.path.join(match[2], name), depth - 1)


def _option(word: str) -> Option:
    name, _equals, value = word[2:].partition("=")
    name = name.replace("-", "_").lower()
    return name[len("loose_") :] if name.startswith("loose_") else name, value
