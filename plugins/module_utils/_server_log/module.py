# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options and results of server_log_events."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule

from .._core.errors import AuditError
from .._core.event_export import export
from .._core.event_query import EVENTS_SPEC
from .._core.event_row import as_row
from . import server_audit, structured
from .clock import Clock
from .files import SAMPLES, Reading, find_files, open_log
from .postgresql import LogRecord, PostgresqlEvents
from .selection import Latest, Selection
from .stderr import StderrFormat

LOG_FORMATS = ("stderr", "csvlog", "jsonlog", "server_audit")

SERVER_LOG_SPEC: dict[str, Any] = {
    "paths": {"type": "list", "elements": "path", "required": True},
    "log_format": {"type": "str", "choices": ["auto", *LOG_FORMATS], "default": "auto"},
    "log_line_prefix": {"type": "str", "default": "%m [%p] "},
    "time_zone": {"type": "str"},
    "database": {"type": "str"},
    **{name: EVENTS_SPEC[name] for name in ("table", "db_user", "actions", "since", "until", "dest", "format")},
    "limit": {"type": "int", "default": 1000},
}

#: How many lines of a file are looked at to see which format it has.
_PROBED = 1000

Event = dict[str, Any]


def gather(module: AnsibleModule) -> None:
    """Read the logs that the options name, and exit with their events, or with them in a file."""
    started = time.monotonic()
    try:
        results = _results(module.params, module.check_mode)
    except AuditError as error:
        module.fail_json(msg=str(error), seconds=_since(started))
    for reading in results["files"]:
        if reading["unparsed"]:
            module.warn(f"{reading['path']}: {reading['unparsed']} lines are not of the format {reading['format']}")
    module.exit_json(**results, seconds=_since(started))


def _results(options: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    selection = Selection(options, datetime.now(timezone.utc))
    logs = ServerLogs(options["log_format"], StderrFormat(options["log_line_prefix"]), Clock(options["time_zone"]))
    files = find_files(options["paths"])
    if options["dest"]:
        exported = export(
            lambda sink: logs.read(files, selection, lambda event: sink(as_row(event))),
            options["dest"],
            options["format"],
            check_mode,
        )
        results = {**asdict(exported), "dest": options["dest"]}
    else:
        latest = Latest(options["limit"])
        logs.read(files, selection, latest.add)
        results = {"changed": False, "events": latest.events(), "total": latest.total}
    return {**results, **logs.summary()}


class ServerLogs:
    """Files of one server's logs, each read once from beginning to end.

    :param log_format: one of :data:`LOG_FORMATS` for all of them, or auto to tell it from what is in each.
    """

    def __init__(self, log_format: str, stderr: StderrFormat, clock: Clock) -> None:
        self._format = log_format
        self._stderr = stderr
        self._clock = clock
        self._postgresql = PostgresqlEvents(clock)
        self._readings: list[Reading] = []
        #: How the lines of each format begin.
        self._beginnings: dict[str, re.Pattern[str]] = {
            "jsonlog": structured.JSON_LINE,
            "csvlog": structured.CSV_LINE,
            "server_audit": server_audit.LINE,
            "stderr": stderr.line,
        }

    def read(self, files: Iterable[str], selection: Selection, take: Callable[[Event], None]) -> None:
        """Hand over the events that are asked for, file by file.

        :raises AuditError: for a file that cannot be read, or most of whose lines are of another format.
        """
        for path in files:
            reading = Reading(path, self._format_of(path))
            self._readings.append(reading)
            with open_log(path) as stream:
                for event in self._events(reading.complete_lines(stream), reading):
                    if selection.matches(event):
                        reading.events += 1
                        take(event)
            if reading.unparsed > reading.records:
                raise AuditError(f"{path}: {self._unreadable(reading)}")

    def summary(self) -> dict[str, Any]:
        """Return what became of each file, and the lines that could not be read."""
        samples = [sample for reading in self._readings for sample in reading.samples]
        return {
            "files": [reading.summary() for reading in self._readings],
            "unparsed": {
                "count": sum(reading.unparsed for reading in self._readings),
                "samples": samples[:SAMPLES],
            },
        }

    def _events(self, lines: Iterator[str], reading: Reading) -> Iterator[Event]:
        if reading.format == "server_audit":
            return server_audit.ServerAuditEvents(self._clock).events(lines, reading)
        records = {
            "csvlog": structured.csv_records,
            "jsonlog": structured.json_records,
            "stderr": self._stderr.records,
        }[reading.format]
        return _postgresql_events(records(lines, reading), reading, self._postgresql)

    def _format_of(self, path: str) -> str:
        if self._format != "auto":
            return self._format
        with open_log(path) as stream:
            for line in itertools.islice(stream, _PROBED):
                for name, beginning in self._beginnings.items():
                    if beginning.match(line):
                        return name
        return "stderr"

    def _unreadable(self, reading: Reading) -> str:
        what = f"{reading.unparsed} of its {reading.lines} lines are not of the format {reading.format}"
        if reading.format == "stderr":
            return (
                f"{what} with the log_line_prefix {self._stderr.prefix!r}; give the one of the server that wrote it "
                "(SHOW log_line_prefix), or the log_format"
            )
        return f"{what}; give the log_format"


def _postgresql_events(records: Iterable[LogRecord], reading: Reading, events: PostgresqlEvents) -> Iterator[Event]:
    broken = None
    for record in records:
        if broken:
            reading.refuse(broken.message, broken.line)
            broken = None
        try:
            event = events.event(record)
        except ValueError:
            broken = record
            continue
        if event:
            yield event
    # The server may just be writing the last one.
    reading.incomplete = reading.incomplete or broken is not None


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
