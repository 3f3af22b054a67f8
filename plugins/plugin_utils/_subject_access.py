# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of a person's data: what to ask the servers, and their answers as one report. Pure functions."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FORMATS = ("jsonl", "csv", "html")

_RECORD_KEYS = {"database", "table", "record_id", "values"}

#: What a registered variable of the role holds for each host.
_ERROR = "_audit_subject_access_error"
_CHANGES = "_audit_subject_access_changes"
_READS = "_audit_subject_access_reads"
_LOGS = "_audit_subject_access_logs"

_NO_READS = (
    "Who read the data is not included: audit_subject_access_server_logs names no log of {hosts}. Only what was "
    "changed is known there."
)
_READS_ARE_TABLES = (
    "A server's log does not say which rows a statement has met. Listed are all reads of, and refusals for, the tables "
    "that hold the person's data; whether one concerned this person can be told from its statement alone. Reads that "
    "the server was not set up to log are not known."
)
_UNPARSED = "{host}: {count} lines of its logs could not be read, and what they record is not in this report."


def input_problems(subject: str, records: Sequence[Mapping[str, Any]], formats: Sequence[str], dest: str) -> list[str]:
    """Return what is wrong with the role's variables, before a server is asked."""
    problems = []
    for name, value in (("subject", subject), ("dest", dest), ("formats", formats)):
        if not value:
            problems.append(f"audit_subject_access_{name} is empty; set it")
    problems += [
        f"audit_subject_access_formats: there is no {name}; choose from {', '.join(FORMATS)}"
        for name in sorted(set(formats) - set(FORMATS))
    ]
    for number, record in enumerate(records):
        problems += _record_problems(f"audit_subject_access_records[{number}]", record)
    return problems


def _record_problems(where: str, record: Mapping[str, Any]) -> list[str]:
    problems = [f"{where}: unknown key {key}" for key in sorted(set(record) - _RECORD_KEYS)]
    problems += [f"{where}: {key} is missing" for key in ("database", "table") if not record.get(key)]
    if ("record_id" in record) == ("values" in record):
        problems.append(
            f"{where}: give either record_id, the key of the person's row, or values, as {{customer_id: 17}}"
        )
    return problems


def queries(records: Sequence[Mapping[str, Any]], engine: str) -> list[dict[str, Any]]:
    """Return the options of the module for events for each record, and the ``file`` that its answer goes into."""
    return [
        {
            "database": record["database"],
            "table": _table(record, engine),
            "record_id": str(record["record_id"]) if "record_id" in record else None,
            # Not `values`: in a template, that would be the dictionary's own method where it is missing.
            "columns": record.get("values"),
            "file": f"changes-{number}.jsonl",
        }
        for number, record in enumerate(records)
    ]


def tables(records: Sequence[Mapping[str, Any]], engine: str) -> list[dict[str, Any]]:
    """Return the options of the module for logs for each table that is named, once."""
    named = dict.fromkeys((record["database"], _table(record, engine)) for record in records)
    return [
        # MariaDB's log names a table by its database, which the table begins with already.
        {"table": table, "database": database if engine == "postgresql" else None, "file": f"reads-{number}.jsonl"}
        for number, (database, table) in enumerate(named)
    ]


def _table(record: Mapping[str, Any], engine: str) -> str:
    table = str(record["table"])
    return table if engine == "postgresql" or "." in table else f"{record['database']}.{table}"


def report(
    hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], subject: str, made_at: str, period: Sequence[str]
) -> dict[str, Any]:
    """Return everything that the hosts have answered, sorted by time, and what they have not.

    :param hosts: all that should have been asked.
    :param period: since and until, as the user has written them, or empty.
    """
    answers = [_answer(host, hostvars[host]) for host in hosts]
    events = _distinct(event for answer in answers for event in answer["events"])
    events.sort(key=_order)
    return {
        "subject": subject,
        "made_at": made_at,
        "since": period[0],
        "until": period[1],
        "hosts": [{key: answer[key] for key in ("host", "outcome", "detail")} for answer in answers],
        "missing": [answer["host"] for answer in answers if answer["outcome"] == "missing"],
        "events": events,
        "actions": _counted(event["action"] for event in events),
        "people": _counted(event["changed_by"] or event["db_user"] or "(unknown)" for event in events),
        "notes": _notes(answers),
    }


def report_lines(found: Mapping[str, Any], files: Iterable[str]) -> list[str]:
    """Return what a person wants of it on the screen."""
    counted = ", ".join(f"{action} {number}" for action, number in found["actions"].items()) or "nothing recorded"
    return [
        f"{found['subject']}: {counted}, of {len(found['hosts']) - len(found['missing'])} hosts",
        *(f"written: {path}" for path in files),
        *(f"MISSING {host['host']}: {host['detail']}" for host in found["hosts"] if host["outcome"] == "missing"),
        *found["notes"],
    ]


def _answer(host: str, known: Mapping[str, Any]) -> dict[str, Any]:
    changes, reads, logs = known.get(_CHANGES), known.get(_READS), known.get(_LOGS)
    answer: dict[str, Any] = {"host": host, "events": [], "outcome": "missing", "reads": False, "unparsed": 0}
    if known.get(_ERROR):
        return {**answer, "detail": str(known[_ERROR])}
    if changes is None:
        return {**answer, "detail": "it was not reached, or not asked in this run"}
    events = [*_events(host, changes), *_events(host, reads or {})]
    has_reads = bool(logs) and not logs.get("skipped")
    # Each table's run has read the same files.
    unparsed = max((result["unparsed"]["count"] for result in logs["results"]), default=0) if has_reads else 0
    if not changes["results"]:
        return {**answer, "outcome": "unasked", "detail": "no record of the person is listed for it", "reads": True}
    detail = f"{len(events)} events"
    return {
        **answer,
        "events": events,
        "outcome": "answered",
        "detail": detail,
        "reads": has_reads,
        "unparsed": unparsed,
    }


def _events(host: str, slurped: Mapping[str, Any]) -> list[dict[str, Any]]:
    events = []
    for result in slurped.get("results", []):
        database = result["item"].get("database")
        # JSON leaves U+2028, U+2029 and U+0085 in a text as they are, and splitlines() would end a line there.
        for line in base64.b64decode(result.get("content", "")).decode("utf-8", "replace").split("\n"):
            if not line:
                continue
            # A number with a fraction keeps all of its digits as a text; the line has it as it was.
            event = json.loads(line, parse_float=str)
            where = {"host": host, "database": database or _context(event).get("database")}
            events.append({**where, **event, "line": "{" + json.dumps(where)[1:-1] + ", " + line[1:]})
    return events


def _distinct(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each event once: one may concern two records, and one access to a table may be logged twice."""
    found = {}
    for event in events:
        key = (event["host"], event["database"], event["id"]) if event["id"] is not None else event["line"]
        found.setdefault(key, event)
    objects = {_access(event) for event in found.values() if _context(event).get("audit_type") == "OBJECT"}
    return [
        event
        for event in found.values()
        if _context(event).get("audit_type") != "SESSION" or _access(event) not in objects
    ]


def _order(event: Mapping[str, Any]) -> tuple[str, str, int]:
    """Place an event: a log has whole milliseconds, MariaDB's whole seconds, and comes after the changes in them."""
    time = event["changed_at"]
    if event["id"] is None:
        unknown = 6 if _context(event).get("source") == "server_audit" else 3
        time = f"{time[: -unknown - 1]}{'9' * unknown}Z"
    return (time, event["host"], event["id"] or 0)


def _access(event: Mapping[str, Any]) -> tuple[Any, ...]:
    context = _context(event)
    names = ("process_id", "statement_id", "substatement_id")
    return (event["host"], event["changed_at"], *(context.get(name) for name in names))


def _context(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an event's context; nothing where it is no object, because an application or an importer set another."""
    context = event["context"]
    return context if isinstance(context, dict) else {}


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _notes(answers: Sequence[Mapping[str, Any]]) -> list[str]:
    answered = [answer for answer in answers if answer["outcome"] == "answered"]
    without = [answer["host"] for answer in answered if not answer["reads"]]
    notes = [_NO_READS.format(hosts=", ".join(without))] if without else []
    if len(without) < len(answered):
        notes.append(_READS_ARE_TABLES)
    unparsed = [answer for answer in answers if answer["unparsed"]]
    return notes + [_UNPARSED.format(host=answer["host"], count=answer["unparsed"]) for answer in unparsed]
