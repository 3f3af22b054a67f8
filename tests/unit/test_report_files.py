# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report for programs: JUnit that a CI server reads, metrics that Prometheus reads, whatever names are in it."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest
from report_facts import OPTIONS, host, trail

from ansible_collections.dbfleet.audit.plugins.plugin_utils._report import report
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_checks import CHECKS
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_files import junit, lines, prometheus

EVIL = 'a"<b>\\\n\x00&'
SAMPLE = re.compile(r'dbfleet_audit_(\w+)(?:\{((?:\w+="(?:[^"\\\n]|\\.)*",?)*)\})? (-?[\d.e+]+)')


@pytest.fixture(scope="module")
def model():
    drift = [{"type": "missing", "detail": f"{EVIL}: trigger"}]
    facts = {
        "pg1": host(trail(database=EVIL, problems=drift, seals={"unsealed_rows": 12345678901})),
        "gone": {"engine": "mysql", "status": "unreachable", "reason": "no route"},
    }
    return report(facts, list(facts), {**OPTIONS, "profiles": ["hipaa"]})


def test_junit_has_a_suite_a_host_and_a_case_a_check(model):
    root = ElementTree.fromstring(junit(model))
    suites = {suite.get("name"): suite for suite in root}
    assert list(suites) == ["pg1", "gone", "thresholds"]
    assert len(suites["pg1"]) == len(CHECKS)
    assert suites["pg1"].get("failures") == str(len(suites["pg1"].findall("testcase/failure"))) == "1"
    (drift,) = [case for case in suites["pg1"] if case.find("failure") is not None]
    assert drift.get("name").startswith("drift: ")
    assert "ansible-playbook dbfleet.audit.site --limit pg1" in drift.findtext("failure")
    assert suites["gone"].get("errors") == "1"
    assert suites["gone"].get("skipped") == str(len(CHECKS) - 1)
    assert [case.get("name") for case in suites["thresholds"]] == ["reachable gone"]


def test_prometheus_reads_every_line(model):
    text = prometheus(model)
    samples, types = [], set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            types.add(line.split()[2])
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert f"dbfleet_audit_{match[1]}" in types
            samples.append((match[1], match[2], float(match[3])))
    assert text.endswith("\n")
    assert len(samples) == len(set(samples))
    assert ("hosts", 'posture="red"', 1.0) in samples
    assert ("up", 'host="gone"', 0.0) in samples
    assert ("check_level", 'host="pg1",check="drift"', 2.0) in samples
    assert ("report_timestamp_seconds", None, 1795341600.0) in samples
    (unsealed,) = [value for name, _labels, value in samples if name == "unsealed_rows"]
    assert unsealed == 12345678901
    escaped = EVIL.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    assert ("tables_audited", f'host="pg1",database="{escaped}"', 2.0) in samples
    # A control that is not provable has no value that somebody could take for an answer.
    assert {labels for name, labels, _value in samples if name == "control_met"} == {
        f'framework="hipaa",control="{control["control"]}"'
        for control in model["controls"]
        if control["met"] is not None
    }


def test_the_screen_has_the_fleet_in_a_line_and_names_what_is_red_or_unknown(model):
    said = lines(model, ["/srv/report.html"])
    assert said[0].startswith(
        "Fleet: 2 hosts: 0 green, 0 amber, 1 red, 1 unknown; 2 of 2 tables audited, 100 changes, 0 of"
    )
    assert "written: /srv/report.html" in said
    assert "UNKNOWN gone: no route" in said
    assert any(line.startswith("RED pg1 ") for line in said)


def test_the_model_is_plain_json(model):
    assert json.loads(json.dumps(model)) == model
