# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The archive action in a process of its own, as it is in an Ansible run: what it takes is its own."""

from __future__ import annotations

import contextlib
import cProfile
import io
import multiprocessing
import os
import pathlib
import pstats
import shutil
import sys
import time
import traceback
import typing as t
from multiprocessing import forkserver

from archiving import Archiver
from databases import Database
from local_postgresql import LocalPostgresql
from memory import highest_memory

from ansible_collections.dbfleet.audit.plugins.plugin_utils import _archive as archiving

_TICKS = os.sysconf("SC_CLK_TCK")
_FUNCTIONS = 22


class Run(t.NamedTuple):
    """What an archiving run took.

    :ivar module: seconds of the processor, of all modules together.
    :ivar memory: of the server and the modules, where that was asked for.
    :ivar highest: most memory of the controller, in MB.
    :ivar text: bytes of the archives, not compressed.
    :ivar steps: seconds and number of the calls of the host, by what they did.
    """

    seconds: float
    rows: int
    files: int
    progress: list[str]
    controller: float
    module: float
    memory: str
    highest: float
    steps: dict[str, tuple[float, int]]
    profile: str


class Controller:
    """A process that archives one database's log, again and again."""

    def __init__(self, log: Database, directory: pathlib.Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        place = (log.server.directory, log.name, directory)
        self._process = context.Process(target=_control, args=(*place, there), daemon=False)
        self._process.start()
        self._pipe.recv()

    def start(self, **wanted: t.Any) -> None:
        """Have it archive, `parallel` at a time.

        With `memory` or `profile` it measures that as well, which takes time; `part` is how many bytes a call gives.
        """
        self._pipe.send(wanted)

    def finish(self) -> Run:
        """Wait for what start() began."""
        answer = self._pipe.recv()
        if isinstance(answer, str):
            raise AssertionError(answer)
        return t.cast(Run, answer)

    def __enter__(self) -> t.Self:
        """Nothing is left to be done."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the process; otherwise this one would wait for it when it ends."""
        self._process.kill()
        self._process.join()


def processor_of_children(pid: int) -> float:
    """Return the seconds of the processor that children of a process took, those that have ended."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(stat[13]) + int(stat[14])) / _TICKS


def _control(server: pathlib.Path, name: str, directory: pathlib.Path, pipe: t.Any) -> None:
    # Otherwise every process of a module would import the benchmark, which is the main module here.
    vars(sys.modules["__main__"]).pop("__file__", None)
    log = Database(LocalPostgresql.load(server), name, template=None)
    archiver = _Timed(log, directory)
    # Starts the process that modules are copies of.
    archiver.seal()
    pipe.send("ready")
    while True:
        pipe.send(_answer(archiver, pipe.recv()))


def _answer(archiver: _Timed, wanted: t.Mapping[str, t.Any]) -> Run | str:
    try:
        return _archive(archiver, **wanted)
    except Exception:  # noqa: BLE001 - whatever it is, who waits for an answer tells of it
        return traceback.format_exc()


class _Timed(Archiver):
    """Notes how long calls of the host take."""

    def __init__(self, log: Database, directory: pathlib.Path) -> None:
        directory.mkdir()
        super().__init__(log, directory)
        self.of = log
        self.steps: dict[str, tuple[float, int]] = {}

    def _act(self, action: type[t.Any], module: str, arguments: dict[str, t.Any]) -> dict[str, t.Any]:
        timed = self

        class Timed(action):  # type: ignore[misc]
            """The action."""

            def step(self, do: str, **more: t.Any) -> t.Any:
                """Ask the host, and look at the clock."""
                began = time.monotonic()
                answer = super().step(do, **more)
                seconds, calls = timed.steps.get(do, (0.0, 0))
                timed.steps[do] = (seconds + time.monotonic() - began, calls + 1)
                return answer

        return super()._act(Timed, module, arguments)


def _archive(
    archiver: _Timed, parallel: int, memory: bool = False, profile: bool = False, part: int = archiving.PART_BYTES
) -> Run:
    archiving.PART_BYTES = part
    shutil.rmtree(archiver.place, ignore_errors=True)
    archiver.steps = {}
    shown = io.StringIO()

    def act() -> t.Any:
        with contextlib.redirect_stdout(shown):
            return archiver.run(parallel=parallel, older_than="1d", drop=False)

    profiler = cProfile.Profile()
    action: t.Callable[[], t.Any] = (lambda: profiler.runcall(act)) if profile else act
    modules = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    before, module_before, began = time.process_time(), processor_of_children(modules), time.monotonic()
    words, result = highest_memory(archiver.of, action) if memory else ("", action())
    seconds = time.monotonic() - began
    return Run(
        seconds=seconds,
        rows=sum(made["rows"] for made in result["archived"]),
        files=sum(made["size"] for made in result["archived"]),
        progress=[line for line in shown.getvalue().splitlines() if line],
        controller=time.process_time() - before,
        module=processor_of_children(modules) - module_before,
        memory=words,
        highest=_highest(),
        steps=archiver.steps,
        profile=_functions(profiler) if profile else "",
    )


def _highest() -> float:
    """Return the most memory that this process had, in MB."""
    for line in pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _functions(profiler: cProfile.Profile) -> str:
    written = io.StringIO()
    pstats.Stats(profiler, stream=written).strip_dirs().sort_stats("tottime").print_stats(_FUNCTIONS)
    return written.getvalue()
