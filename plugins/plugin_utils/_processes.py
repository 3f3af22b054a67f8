# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several tasks' work on one host at a time, each in a process of its own.

Not in threads: a connection, its shell and its become plugin keep what belongs to one call, as who has to be believed
that sudo has let it in. Ansible itself forks a process for each host.
"""

from __future__ import annotations

import signal
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from ansible.utils.multiprocessing import context

#: Returns what a task would.
Work = Callable[[], dict[str, Any]]


def in_processes(works: Sequence[Work], most: int) -> list[dict[str, Any]]:
    """Have all works done, some at a time; return their results in the same order.

    What ends a process is the result of its work, a failed one; the others go on.

    :param most: how many at a time.
    """
    waiting = deque(enumerate(works))
    going: dict[Connection, tuple[int, BaseProcess]] = {}
    results: dict[int, dict[str, Any]] = {}
    try:
        while waiting or going:
            while waiting and len(going) < most:
                number, work = waiting.popleft()
                pipe, process = _started(work)
                going[pipe] = (number, process)
            for pipe in [pipe for pipe in wait(list(going)) if isinstance(pipe, Connection)]:
                number, process = going[pipe]
                results[number] = _result(pipe, process)
                del going[pipe]
    finally:
        for _number, process in going.values():
            process.terminate()
            process.join()
    return [results[number] for number in range(len(works))]


def _started(work: Work) -> tuple[Connection, BaseProcess]:
    """Start a process; return where its result comes from as well."""
    pipe, there = context.Pipe(duplex=False)
    process = context.Process(target=_do, args=(work, there))
    process.start()
    # The end of the process is the end of the pipe.
    there.close()
    return pipe, process


def _do(work: Work, pipe: Connection) -> None:
    # What Ansible's own process does on them ends that one and all of its children.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this work's and none of the others'
        result = {"failed": True, "msg": f"{error}" or repr(error), "exception": traceback.format_exc()}
    pipe.send(result)


def _result(pipe: Connection, process: BaseProcess) -> dict[str, Any]:
    """Return what a process has sent, or that it has ended without."""
    with pipe:
        try:
            result: dict[str, Any] = pipe.recv()
        except EOFError:
            process.join()
            result = {"failed": True, "msg": f"its process on the controller has ended ({process.exitcode})"}
    process.join()
    return result
