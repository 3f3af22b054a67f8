# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PostgreSQL's log to stderr: a prefix that the server is told, a severity, and a message over one or more lines."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .._core.errors import AuditError
from .files import Reading
from .postgresql import AUTHORIZED, AUTHORIZED_BEGINNINGS, LogRecord, may_be_event

#: What log_line_prefix can have, as regular expressions. Names are cut off by the server at 63 bytes.
_NAME = r".{0,63}?"
_STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
_ESCAPES = {
    "a": ("application", _NAME),
    "u": ("user", _NAME),
    "d": ("database", _NAME),
    "r": ("client_port", r"\S*?"),
    "h": ("client", r"\S*?"),
    "L": ("", r"\S*?"),
    "b": ("", r"[\w ]*?"),
    "p": ("process_id", r"\d+"),
    "P": ("", r"\d*"),
    "t": ("time", rf"{_STAMP} \S+?"),
    "m": ("time", rf"{_STAMP}\.\d{{3}} \S+?"),
    "n": ("time", r"\d+\.\d{3}"),
    # Before the server has read what is asked of it, the path of its program.
    "i": ("command", r"(?:/\S*|[\w ]*?)"),
    "e": ("sqlstate", r"[0-9A-Z]{5}"),
    "c": ("session_id", r"[0-9a-f]+\.[0-9a-f]+"),
    "l": ("", r"\d+"),
    "s": ("", rf"{_STAMP} \S+?"),
    "v": ("", r"(?:-?\d+/\d+)?"),
    "x": ("transaction_id", r"\d+"),
    "Q": ("", r"-?\d+"),
}
_PART = re.compile(r"%(-?\d*)([A-Za-z%])|([^%]+)|%")

#: Severities in the server's language; verbose messages have their SQLSTATE at the beginning.
_SEVERITY = r"(?P<severity>[^\W\d_]+[1-5]?)\x20?:\x20\x20(?:(?P<code>(?=[A-Z]*\d)[0-9A-Z]{5}): )?"

#: What is said about the record before. PostgreSQL calls the backtrace so too.
_ABOUT = ("DETAIL", "HINT", "QUERY", "CONTEXT", "LOCATION", "STATEMENT", "BACKTRACE")

_RECEIVED = "connection received: host="

#: How many sessions are remembered for prefixes that do not say whose they are.
_SESSIONS = 10_000


class StderrFormat:
    """The lines of a server with that log_line_prefix.

    :raises AuditError: for a prefix without a time.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.line = re.compile(_prefix_regex(prefix) + _SEVERITY)
        # A session may go on in the next file.
        self._sessions = _Sessions()
        self._fields = [name for name in self.line.groupindex if name not in ("severity", "code")]
        if "time" not in self._fields:
            raise AuditError(
                f"log_line_prefix {prefix!r} has no time (%m, %t or %n), and without it no line is worth anything; "
                "give the one of the server that wrote the log (SHOW log_line_prefix)"
            )

    def records(self, lines: Iterable[str], reading: Reading) -> Iterator[LogRecord]:
        """Yield the records of a log; what is said about one (DETAIL, STATEMENT, ...) belongs to it."""
        sessions = self._sessions
        for report in self._reports(lines, reading):
            reading.records += 1
            head = report[0]
            if head.text[0].startswith(_RECEIVED):
                sessions.receive(head.match, head.text[0])
            elif may_be_event(head.match["severity"], self._sqlstate(head.match), head.text[0]):
                about = {part.match["severity"]: part.message for part in report[1:]}
                yield sessions.complete(self._record(head, about))

    def _sqlstate(self, match: re.Match[str]) -> str | None:
        return (match["sqlstate"] if "sqlstate" in self._fields else None) or match["code"]

    def _record(self, part: _Part, about: dict[str, str]) -> LogRecord:
        values = {name: _value(part.match[name]) for name in self._fields}
        address = values.pop("client_port", None)
        if address:
            # 127.0.0.1(60302)
            values["client"] = address.partition("(")[0]
        if values.get("transaction_id") == "0":
            values["transaction_id"] = None
        process = values.pop("process_id", None)
        return LogRecord(
            message=part.message,
            line=part.line,
            severity=part.match["severity"],
            statement=about.get("STATEMENT"),
            process_id=int(process) if process else None,
            **{**values, "sqlstate": self._sqlstate(part.match)},
        )

    def _reports(self, lines: Iterable[str], reading: Reading) -> Iterator[list[_Part]]:
        """Yield each message with those about it."""
        report: list[_Part] = []
        for line in lines:
            if line[0] == "\t" and report:
                # The server puts one tab at the beginning of every line of a message but the first.
                report[-1].text.append(line[1:])
                continue
            match = self.line.match(line)
            is_about = bool(match) and match["severity"] in _ABOUT
            if not match or (is_about and not report):
                reading.refuse(line)
                continue
            if report and not is_about:
                yield report
                report = []
            report.append(_Part(match, [line[match.end() :]], reading.lines))
        if report:
            yield report


class _Part(NamedTuple):
    """A message, as its lines."""

    match: re.Match[str]
    text: list[str]
    line: int

    @property
    def message(self) -> str:
        return "".join(self.text)[:-1]


class _Sessions:
    """Who the sessions are, by their process: a prefix such as the server's own, ``%m [%p] ``, does not say it."""

    def __init__(self) -> None:
        self._known: OrderedDict[int | None, dict[str, str]] = OrderedDict()

    def receive(self, match: re.Match[str], message: str) -> None:
        """Take note of a new connection, before it has said whose it is."""
        if "process_id" in match.re.groupindex:
            process = int(match["process_id"])
            self._known.pop(process, None)
            self._remember(process, {"client": message[len(_RECEIVED) :].split()[0]})

    def complete(self, record: LogRecord) -> LogRecord:
        """Return a record with what the lines of its connection have said before."""
        process = record.process_id
        if process is not None and record.message.startswith(AUTHORIZED_BEGINNINGS):
            self._remember(process, _authorized(record.message))
        known = self._known.get(process, {})
        if record.message.startswith("disconnection: "):
            self._known.pop(process, None)
        if record.user and known.get("user", record.user) != record.user:
            # The process was somebody else's once.
            return record
        missing = {name: value for name, value in known.items() if getattr(record, name) is None}
        return record._replace(**missing) if missing else record

    def _remember(self, process: int, known: dict[str, str]) -> None:
        self._known.setdefault(process, {}).update(known)
        if len(self._known) > _SESSIONS:
            self._known.popitem(last=False)


def _authorized(message: str) -> dict[str, str]:
    match = AUTHORIZED.fullmatch(message)
    return {key: value for key, value in match.groupdict().items() if value} if match else {}


def _value(text: str | None) -> str | None:
    text = (text or "").strip()
    return None if text in ("", "[unknown]") else text


def _prefix_regex(prefix: str) -> str:
    """Return a regular expression with a group for each escape that we have a use for."""
    parts: list[str] = []
    seen: set[str] = set()
    session_only = 0
    for padding, letter, plain in _PART.findall(prefix):
        if plain or letter == "%":
            parts.append(re.escape(plain or "%"))
        elif letter == "q":
            parts.append("(?:")
            session_only += 1
        elif letter in _ESCAPES:
            parts.append(_escape_regex(letter, padding, seen))
    return "".join(parts) + ")?" * session_only


def _escape_regex(letter: str, padding: str, seen: set[str]) -> str:
    name, regex = _ESCAPES[letter]
    group = f"(?P<{name}>{regex})" if name and name not in seen else f"(?:{regex})"
    seen.add(name)
    return rf"\x20*{group}\x20*" if padding else group
