# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report on a person's data as files: jsonl and csv for programs, HTML for people. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core.event import EVENT_FIELDS
from ansible_collections.dbfleet.audit.plugins.module_utils._core.event_row import as_csv, as_row

_MASK = "[REDACTED]"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p class="quiet">Made {made_at}, for the time {period}. All times are UTC.</p>
{missing}
<section class="cards">
<div><h2>What happened</h2>{actions}</div>
<div><h2>Who did it</h2>{people}</div>
<div><h2>Servers</h2>{hosts}</div>
</section>
{notes}
<table class="events">
<thead><tr><th>When</th><th>What</th><th>Where</th><th>Who</th><th>Values before and after, or statement</th></tr>
</thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --quiet: #5d6778; --paper: #ffffff; --panel: #f3f5f9;
  --line: #d5dbe6; --old: #a12622; --new: #17693a; --warn: #fff1d6; --accent: #2453a6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8f0; --quiet: #9aa5b8; --paper: #14181f; --panel: #1d232d;
  --line: #343d4c; --old: #ff9a92; --new: #7fd6a0; --warn: #43351a; --accent: #8fb4ff; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 80rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { font-size: 1rem; margin: 0 0 .5rem; }
.quiet { color: var(--quiet); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1rem; margin: 1.5rem 0; }
.cards > div, .note { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; }
.cards td:last-child { text-align: right; padding-left: 1rem; }
.note { margin: .75rem 0; }
.missing { background: var(--warn); }
.events { border-collapse: collapse; width: 100%; }
.events th, .events td { text-align: left; vertical-align: top; padding: .5rem .75rem .5rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
.events > thead th { position: sticky; top: 0; background: var(--paper); }
.time { white-space: nowrap; font-variant-numeric: tabular-nums; }
.action { font-weight: 600; color: var(--accent); }
.values td, .values th { border: 0; padding: 0 .75rem .1rem 0; font-weight: 400; }
.values th { color: var(--quiet); }
.old { color: var(--old); }
.new { color: var(--new); }
.masked { color: var(--quiet); font-style: italic; }
pre { margin: 0; white-space: pre-wrap; font: 13px/1.4 ui-monospace, monospace; }
@media print { body { margin: 0; max-width: none; } .events > thead th { position: static; } }
"""


def files(found: Mapping[str, Any], formats: Iterable[str]) -> dict[str, str]:
    """Return the text of each file by its name."""
    makers = {"jsonl": _jsonl, "csv": _csv, "html": _html}
    return {f"subject_access.{name}": makers[name](found) for name in formats}


def _jsonl(found: Mapping[str, Any]) -> str:
    return "".join(f"{event['line']}\n" for event in found["events"])


def _csv(found: Mapping[str, Any]) -> str:
    rows = [("host", "database", *EVENT_FIELDS)]
    rows += [(event["host"], event["database"], *as_row(event)) for event in found["events"]]
    return "".join(as_csv(row) for row in rows)


def _html(found: Mapping[str, Any]) -> str:
    since, until = (escape(str(found[name])) for name in ("since", "until"))
    missing = [host for host in found["hosts"] if host["outcome"] == "missing"]
    return _PAGE.format(
        title=escape(f"Personal data of {found['subject']}: changes and reads"),
        style=_STYLE,
        made_at=escape(str(found["made_at"])),
        period=f"from {since or 'the beginning of the log'} to {until or 'now'}",
        missing="".join(
            f'<p class="note missing"><strong>{escape(host["host"])} is missing from this report:</strong> '
            f"{escape(host['detail'])}</p>"
            for host in missing
        ),
        actions=_pairs(found["actions"].items()),
        people=_pairs(found["people"].items()),
        hosts=_pairs((host["host"], host["detail"]) for host in found["hosts"] if host["outcome"] != "missing"),
        notes="".join(f'<p class="note">{escape(note)}</p>' for note in found["notes"]),
        rows="\n".join(_row(event) for event in found["events"])
        or '<tr><td colspan="5">Nothing was recorded of this data in that time.</td></tr>',
    )


def _pairs(pairs: Iterable[tuple[Any, Any]]) -> str:
    rows = "".join(f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>" for name, value in pairs)
    return f"<table>{rows}</table>" if rows else '<p class="quiet">none</p>'


def _row(event: Mapping[str, Any]) -> str:
    cells = (
        f'<td class="time">{escape(str(event["changed_at"]).replace("T", " ")[:19])}</td>',
        f'<td class="action">{escape(str(event["action"]))}</td>',
        f"<td>{_lines(_where(event))}</td>",
        f"<td>{_lines(_who(event))}</td>",
        f"<td>{_what(event)}</td>",
    )
    return f"<tr>{''.join(cells)}</tr>"


def _where(event: Mapping[str, Any]) -> list[str]:
    table = ".".join(name for name in (event["schema_name"], event["table_name"]) if name)
    record = f"record {event['record_id']}" if event["record_id"] is not None else ""
    return [event["host"], event["database"] or "", table, record]


def _who(event: Mapping[str, Any]) -> list[str]:
    person, login = event["changed_by"], event["db_user"]
    by = f"as {login}" if login and person and login != person else ""
    return [person or login or "(unknown)", by, event["client_ip"] or "", event["application_name"] or ""]


def _lines(texts: Sequence[str]) -> str:
    first, *others = [escape(text) for text in texts if text] or [""]
    return first + "".join(f'<br><span class="quiet">{text}</span>' for text in others)


def _what(event: Mapping[str, Any]) -> str:
    old, new = event["old_values"] or {}, event["new_values"] or {}
    if event["id"] is None or not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return _statement(new)
    names = event["changed_columns"] or list({**old, **new})
    rows = "".join(
        f"<tr><th>{escape(str(name))}</th><td>{_value(old, name, 'old')}</td><td>{'&rarr;' if old and new else ''}</td>"
        f"<td>{_value(new, name, 'new')}</td></tr>"
        for name in names
    )
    return f'<table class="values">{rows}</table>'


def _statement(told: Any) -> str:
    if not isinstance(told, Mapping):
        return f"<pre>{escape(str(told))}</pre>"
    statement = told.get("statement") or f"{told.get('event') or ''} (statement not logged)"
    parameters = f"\nparameters: {told['parameters']}" if told.get("parameters") else ""
    reason = told.get("failure_reason")
    refused = f'<p class="old">{escape(str(reason))}</p>' if reason else ""
    return f"{refused}<pre>{escape(statement + parameters)}</pre>"


def _value(values: Mapping[str, Any], name: str, side: str) -> str:
    if name not in values:
        return ""
    value = values[name]
    if value == _MASK:
        return '<span class="masked">masked</span>'
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f'<span class="{side}">{escape(text)}</span>'
