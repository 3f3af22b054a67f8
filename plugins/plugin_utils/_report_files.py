# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report as files: HTML for people, JSON, JUnit and Prometheus for programs. Pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_checks import CHECKS, instant
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_html import html

#: Name of each format's file.
FILES = {"html": "report.html", "json": "report.json", "junit": "junit.xml", "prometheus": "dbfleet_audit.prom"}

#: What XML 1.0 cannot hold, whatever the escaping.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Samples = Iterable[tuple[Mapping[str, str], float]]


def files(model: Mapping[str, Any], formats: Iterable[str]) -> dict[str, str]:
    """Return the text of each file by its name."""
    makers: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "html": html,
        "json": lambda whole: json.dumps(whole, indent=1, ensure_ascii=False) + "\n",
        "junit": junit,
        "prometheus": prometheus,
    }
    return {FILES[name]: makers[name](model) for name in formats}


def lines(model: Mapping[str, Any], paths: Iterable[str]) -> list[str]:
    """Return what a person wants of the report on the screen."""
    summary = model["summary"]
    postures = ", ".join(f"{summary[posture]} {posture}" for posture in ("green", "amber", "red", "unknown"))
    changes = "unknown" if summary["changes"] is None else f"{summary['changes']:,}"
    controls = f", {summary['controls_met']} of {summary['controls']} controls met" if summary["controls"] else ""
    return [
        f"{model['title']}: {summary['hosts']} hosts: {postures}; {summary['audited']:,} of {summary['auditable']:,} "
        f"tables audited, {changes} changes{controls}",
        *(f"written: {path}" for path in paths),
        *(f"UNKNOWN {host['name']}: {host['reason']}" for host in model["hosts"] if host["posture"] == "unknown"),
        *(
            f"{finding['level'].upper()} {host['name']}"
            f"{' ' + finding['database'] if finding['database'] else ''}: {finding['check']}: {finding['text']}"
            for host in model["hosts"]
            for finding in host["findings"]
            if finding["level"] == "red"
        ),
        *(f"ALERT {alert['name']} {alert['host']}: {alert['text']}" for alert in model["alerts"]),
    ]


def junit(model: Mapping[str, Any]) -> str:
    """Return a suite for each host with a case for each check, and one suite for the thresholds.

    What is red fails, what is not known is skipped, a host that did not answer is an error; what is amber passes, and
    says why.
    """
    root = ElementTree.Element("testsuites", name=_xml(model["title"]))
    for host in model["hosts"]:
        suite = _suite(root, host["name"], model["generated_at"])
        for check, title in CHECKS.items():
            _case(suite, host, check, title)
    suite = _suite(root, "thresholds", model["generated_at"])
    for alert in model["alerts"]:
        case = ElementTree.SubElement(
            suite, "testcase", classname="thresholds", name=_xml(f"{alert['name']} {alert['host']}")
        )
        ElementTree.SubElement(case, "failure", message=_xml(alert["text"]), type="threshold")
    for element in root:
        _count(element)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(root: ElementTree.Element, name: str, at: str) -> ElementTree.Element:
    return ElementTree.SubElement(root, "testsuite", name=_xml(name), timestamp=_xml(at.removesuffix("Z")), time="0")


def _case(suite: ElementTree.Element, host: Mapping[str, Any], check: str, title: str) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", classname=_xml(f"dbfleet.audit.{host['name']}"), name=f"{check}: {title}", time="0"
    )
    found = host["checks"].get(check)
    level, text = (found["level"], _xml(found["text"])) if found else ("unknown", "not known")
    if check == "reachable" and level == "unknown":
        ElementTree.SubElement(case, "error", message=text, type="unknown")
    elif level == "unknown":
        ElementTree.SubElement(case, "skipped", message=text)
    elif level == "red":
        failure = ElementTree.SubElement(case, "failure", message=text, type="red")
        failure.text = "\n".join(
            _xml(f"{finding['database']}: {finding['text']}\nfix: {finding['fix']}")
            for finding in host["findings"]
            if finding["check"] == check and finding["level"] == "red"
        )
    else:
        ElementTree.SubElement(case, "system-out").text = f"{level}: {text}"


def _count(suite: ElementTree.Element) -> None:
    suite.set("tests", str(len(suite)))
    for kind in ("failure", "error", "skipped"):
        number = len(suite.findall(f"testcase/{kind}"))
        suite.set({"failure": "failures", "error": "errors"}.get(kind, kind), str(number))


def _xml(text: str) -> str:
    return _NOT_XML.sub("�", str(text))


def prometheus(model: Mapping[str, Any]) -> str:
    """Return the gauges for node_exporter's textfile collector."""
    text = ""
    for name, meaning, samples in _gauges(model):
        rows = [f"dbfleet_audit_{name}{_labels(labels)} {value:.15g}\n" for labels, value in samples]
        if rows:
            text += f"# HELP dbfleet_audit_{name} {meaning}\n# TYPE dbfleet_audit_{name} gauge\n" + "".join(rows)
    return text


def _gauges(model: Mapping[str, Any]) -> Iterator[tuple[str, str, Samples]]:
    summary, hosts = model["summary"], model["hosts"]
    at = instant(model["generated_at"]).timestamp()
    yield "report_timestamp_seconds", "When the report was made.", [({}, at)]
    postures = [({"posture": name}, summary[name]) for name in ("green", "amber", "red", "unknown")]
    yield "hosts", "Servers by posture.", postures
    up = [({"host": host["name"]}, float(host["posture"] != "unknown")) for host in hosts]
    yield "up", "Whether the server answered.", up
    levels = {"ok": 0, "amber": 1, "red": 2}
    checks = [
        ({"host": host["name"], "check": check}, levels[found["level"]])
        for host in hosts
        for check, found in host["checks"].items()
        if found["level"] in levels
    ]
    yield "check_level", "Worst result of a check: 0 ok, 1 amber, 2 red; missing where it is not known.", checks
    for name, key, meaning in _OF_DATABASES:
        yield name, meaning, _of_databases(hosts, key)
    yield "last_seal_timestamp_seconds", "When the log was last sealed.", _sealed_at(hosts)
    controls = [
        ({"framework": control["framework"], "control": control["control"]}, float(control["met"]))
        for control in model["controls"]
        if control["met"] is not None
    ]
    yield "control_met", "Whether a control is met; missing where that is not provable.", controls
    yield "alerts", "Thresholds that were crossed.", [({}, len(model["alerts"]))]
    own = [
        ({"host": check["host"], "database": check.get("database") or "", "name": check["name"]}, check["value"])
        for check in model["checks"]
        if isinstance(check.get("value"), (int, float))
    ]
    yield "user_check_value", "Value of a check of the user's own.", own


_OF_DATABASES = (
    ("tables_auditable", "auditable", "Tables that could be audited."),
    ("tables_audited", "audited", "Tables that are audited."),
    ("changes", "changes", "Changes that were recorded in the period."),
    ("failures", "failures", "Changes of the period that could not be recorded."),
    ("log_bytes", "log_bytes", "Size of the log."),
    ("partitions_ahead", "partitions_ahead", "Partitions ahead of time."),
    ("unsealed_rows", "unsealed_rows", "Rows that are in no seal."),
)


def _of_databases(hosts: Iterable[Mapping[str, Any]], key: str) -> Samples:
    return [
        ({"host": host["name"], "database": database["name"]}, database[key])
        for host in hosts
        for database in host["databases"]
        if database[key] is not None
    ]


def _sealed_at(hosts: Iterable[Mapping[str, Any]]) -> Samples:
    return [
        ({"host": host["name"], "database": database["name"]}, instant(database["last_sealed_at"]).timestamp())
        for host in hosts
        for database in host["databases"]
        if database["last_sealed_at"]
    ]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escaped(str(value))}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
