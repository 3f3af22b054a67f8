# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A run in a process of its own, which is killed at a chosen place or may write no more."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import multiprocessing
import os
import resource
import signal
import typing as t

_PLUGINS = "ansible_collections.dbfleet.audit.plugins"


def kill(*_given: t.Any, **_named: t.Any) -> None:
    """End this process without a chance to clean up."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclasses.dataclass(frozen=True)
class AtCall:
    """Before that call of the host."""

    number: int

    def arrange(self, run: t.Any) -> None:
        """Have it killed there."""
        run.meanwhile = lambda: kill() if len(run.calls) > self.number else None


@dataclasses.dataclass(frozen=True)
class AtStep:
    """Before the host is asked for that step."""

    name: str

    def arrange(self, run: t.Any) -> None:
        """Have it killed there."""
        run.meanwhile = lambda: kill() if run.calls[-1]["step"]["do"] == self.name else None


@dataclasses.dataclass(frozen=True)
class Instead:
    """Where a function of the code would be called: `plugin_utils._archive:check_file`."""

    name: str

    def arrange(self, _run: t.Any) -> None:
        """Have it killed there."""
        module, name = self.name.split(":")
        setattr(importlib.import_module(f"{_PLUGINS}.{module}"), name, kill)


@dataclasses.dataclass(frozen=True)
class After(Instead):
    """Where a function of the code has done its work."""

    def arrange(self, _run: t.Any) -> None:
        """Have it killed there."""
        module, name = self.name.split(":")
        place = importlib.import_module(f"{_PLUGINS}.{module}")
        done = getattr(place, name)

        @functools.wraps(done)
        def and_killed(*given: t.Any, **named: t.Any) -> None:
            done(*given, **named)
            kill()

        setattr(place, name, and_killed)


@dataclasses.dataclass(frozen=True)
class FullDisk:
    """No file may become larger than so many bytes."""

    size: int

    def arrange(self, _run: t.Any) -> None:
        """Limit this process."""
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


def _work(run: t.Any, trouble: t.Any) -> None:
    if trouble:
        trouble.arrange(run)
    run.run()


def start(run: t.Any, trouble: t.Any = None) -> multiprocessing.Process:
    """Begin a run in a process of its own.

    :param run: what has a method `run`, and `calls` and `meanwhile` as a Sealer has.
    :param trouble: what befalls it.
    """
    run.calls.clear()
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(run, trouble))
    process.start()
    return t.cast("multiprocessing.Process", process)


def killed(run: t.Any, trouble: t.Any) -> bool:
    """Have a run befallen by something; tell whether that has killed it."""
    process = start(run, trouble)
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == -signal.SIGKILL
