# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the modules that ask for events return, gathered and read back, on any engine."""

from __future__ import annotations

import csv
import json
import os
import pathlib
import time
import typing as t

import running

#: Asks for events with a module's options.
Ask = t.Callable[..., running.ModuleResult]

DOCUMENTS = ("old_values", "new_values", "changed_columns", "context")


def ids(result: running.ModuleResult) -> list[int]:
    """Return the ids of the events that a module returned."""
    assert not result.changed
    return [event["id"] for event in result["events"]]


def pages(ask: Ask, between: t.Callable[[], t.Any] = lambda: None, **options: t.Any) -> list[list[int]]:
    """Ask for page after page until there is no next one, and return their ids; something happens between two."""
    result = ask(**options)
    found = [ids(result)]
    while result["next"]:
        between()
        result = ask(**options, after=result["next"])
        found.append(ids(result))
    return found


def read_export(path: pathlib.Path) -> list[dict[str, t.Any]]:
    """Return the events of a file, of either format, with fractions as texts; it must be private."""
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text(encoding="utf-8", newline="") if path.suffix == ".csv" else path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line, parse_float=str) for line in text.splitlines()]
    return [_typed(row) for row in csv.DictReader(text.splitlines(keepends=True))]


def _typed(row: dict[str, str]) -> dict[str, t.Any]:
    read: dict[str, t.Callable[[str], t.Any]] = {"id": int, "policy_id": int}
    read.update(dict.fromkeys(DOCUMENTS, lambda text: json.loads(text, parse_float=str)))
    return {name: read.get(name, str)(text) if text else None for name, text in row.items()}


def wait_until(condition: t.Callable[[], t.Any], seconds: float = 60) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def peak_memory(module: str, **params: t.Any) -> int:
    """Run a module and return the most memory that its process has had, in bytes."""
    process = running.start_module(module, **params)
    assert process.stdout
    assert process.stderr
    output = process.stdout.read(), process.stderr.read()
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    process.stderr.close()
    assert process.returncode == 0, output
    return usage.ru_maxrss * 1024
