# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report as one HTML file that asks the network for nothing. Pure functions; the page itself is in report_page/."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from string import Template
from typing import Any

#: In the order in which they build on each other.
_SCRIPTS = (
    "dom.js",
    "format.js",
    "table.js",
    "charts.js",
    "overview.js",
    "hosts.js",
    "controls.js",
    "activity.js",
    "log.js",
    "discovery.js",
    "page.js",
)
#: What ends a script element or a line of JavaScript is written as an escape, which JSON reads back as it was.
_ESCAPED = "<>&\u2028\u2029"
_POSTURES = {
    "green": "in order",
    "amber": "to be looked at",
    "red": "not as it has to be",
    "unknown": "not known, the host could not be asked",
}


def html(model: Mapping[str, Any]) -> str:
    """Return the page that shows a report model.

    :param model: what ``_report.report()`` returns; missing parts are left out of the page.
    """
    style, script = _read("page.css"), _script()
    return Template(_read("page.html")).substitute(
        policy=_policy(style, script),
        title=escape(str(model.get("title") or "Database audit report")),
        style=style,
        script=script,
        summary=_summary(model),
        model=_embedded(_light(model)),
        details=_packed(_details(host) for host in model.get("hosts") or []),
    )


def _read(name: str) -> str:
    # By this module's name and not its package's: a folder of a collection need not be a package with a loader.
    data = pkgutil.get_data(__name__, f"report_page/{name}")
    if data is None:
        raise FileNotFoundError(f"the collection is not complete: plugin_utils/report_page/{name} is missing")
    # A browser hashes what it reads, and reads line ends so.
    return data.decode("utf-8").replace("\r\n", "\n")


def _script() -> str:
    # In a block, so that the names of one file are known to the others and none meets one of the browser's.
    return '"use strict";\n{\n' + "\n".join(_read(name) for name in _SCRIPTS) + "}\n"


def _policy(style: str, script: str) -> str:
    """Return a policy that allows this style and this script, and no request to anywhere."""
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hash(style)}",
            f"script-src {_hash(script)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embedded(value: Any) -> str:
    """Return a value as JSON on one line, fit for a script element."""
    text = _json(value)
    for character in _ESCAPED:
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _packed(values: Iterable[Any]) -> str:
    """Return values as JSON, one a line, compressed: a large fleet's tables would keep a browser reading."""
    text = "\n".join(map(_json, values))
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def _light(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model with plain values only of its databases: a fleet has more than a page can read when it opens."""
    return {**model, "hosts": [_light_host(host) for host in model.get("hosts") or []]}


def _light_host(host: Mapping[str, Any]) -> dict[str, Any]:
    databases = [
        {
            **{key: value for key, value in database.items() if not _is_bulky(value)},
            "tables": len(database.get("tables") or []),
        }
        for database in host.get("databases") or []
    ]
    return {**{key: value for key, value in host.items() if key != "checks"}, "databases": databases}


def _details(host: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is read when a host is opened: all its checks, and what is no plain value of its databases."""
    databases = [
        {
            **{key: value for key, value in database.items() if _is_bulky(value)},
            "tables": _columnar(database.get("tables") or []),
        }
        for database in host.get("databases") or []
    ]
    return {"checks": host.get("checks") or {}, "databases": databases}


def _is_bulky(value: Any) -> bool:
    return isinstance(value, (Mapping, list))


def _columnar(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return tables with each key once, and not in every one of them."""
    keys = list(dict.fromkeys(key for table in tables for key in table))
    return {"keys": keys, "rows": [[table.get(key) for key in keys] for table in tables]}


def _summary(model: Mapping[str, Any]) -> str:
    """Return what a browser without JavaScript shows."""
    summary, period = model.get("summary") or {}, model.get("period") or {}
    facts = [
        ("Period", f"{str(period.get('since') or '')[:10]} to {str(period.get('until') or '')[:10]}"),
        ("Made", model.get("generated_at")),
        ("Hosts", summary.get("hosts")),
        *((f"{posture.capitalize()} ({meaning})", summary.get(posture)) for posture, meaning in _POSTURES.items()),
        ("Tables audited", _of(summary.get("audited"), summary.get("auditable"))),
        ("Changes recorded", summary.get("changes")),
        ("Controls met", _of(summary.get("controls_met"), summary.get("controls"))),
        ("Audit failures", summary.get("failures")),
        ("Rows not sealed yet", summary.get("unsealed_rows")),
    ]
    return (
        "<p>This is the report on the auditing of a fleet of databases. Its tables and charts need JavaScript, which "
        "is part of this file and loads nothing; without it, this is the summary:</p>"
        f"<table>{_rows(facts)}</table>"
        "<h2>Hosts that are not green</h2>"
        f"<table>{_rows(_not_green(model.get('hosts') or []))}</table>"
    )


def _not_green(hosts: Iterable[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    found = [host for host in hosts if host.get("posture") != "green"]
    return [
        (
            str(host.get("name")),
            f"{host.get('posture')}: "
            + "; ".join(str(finding.get("text")) for finding in host.get("findings") or [{"text": host.get("reason")}]),
        )
        for host in found
    ] or [("none", "")]


def _of(part: Any, whole: Any) -> str | None:
    return None if part is None else f"{part} of {whole}"


def _rows(pairs: Iterable[tuple[str, Any]]) -> str:
    return "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape("not known" if value is None else str(value))}</td></tr>'
        for name, value in pairs
    )
