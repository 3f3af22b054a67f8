# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The example consumers of changes, each in a process of its own, and what they have landed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import pathlib
import subprocess
import sys
import time
import types
import typing as t

import running

EXAMPLES = running.ROOT / "docs" / "examples" / "cdc"


def example(name: str) -> types.ModuleType:
    """Return an example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Consumer:
    """A consumer that is started, killed and started again on the same file."""

    def __init__(self, name: str, file: pathlib.Path, *arguments: str) -> None:
        self.file = file
        self._command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
        self._process: subprocess.Popen[str] | None = None

    @contextlib.contextmanager
    def running(self) -> t.Iterator[Consumer]:
        """Have it run in this block; its end is that of kill -9."""
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=running.private_environment(),
        )
        try:
            yield self
        finally:
            self.kill()

    def kill(self) -> None:
        """End it without a chance to clean up."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def events(self) -> list[dict[str, t.Any]]:
        """Return all that it has landed."""
        text = self.file.read_text(encoding="utf-8") if self.file.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def wait(self, reached: t.Callable[[list[dict[str, t.Any]]], bool], seconds: float = 20) -> list[dict[str, t.Any]]:
        """Return its events as soon as they are as wanted."""
        deadline = time.monotonic() + seconds
        while not reached(self.events()):
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError(f"the consumer has ended: {self._process.stdout.read()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"the consumer has landed {self.events()[-3:]}")
            time.sleep(0.02)
        return self.events()

    def wait_for(self, table: str, number: int) -> list[dict[str, t.Any]]:
        """Return the events of a table when there are that many different ones, in order and each once."""
        landed = self.wait(lambda events: len(different(events, table)) >= number)
        return different(landed, table)


def different(events: t.Sequence[dict[str, t.Any]], table: str) -> list[dict[str, t.Any]]:
    """Return a table's events without those that came again, which must be the same."""
    found: dict[str, dict[str, t.Any]] = {}
    for event in events:
        if event["table_name"] == table:
            assert found.setdefault(event["id"], event) == event
    return list(found.values())
