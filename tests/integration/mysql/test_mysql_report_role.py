# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook report on a MariaDB or MySQL server: what it holds, how it differs, what a user's own query says."""

from __future__ import annotations

import json
import pathlib

import pytest
from fleet import HOST, play
from mysql_auditing import install_trail
from mysql_databases import Schema
from running import run_module


@pytest.mark.thorough
def test_a_server_is_reported_with_its_drift_and_its_checks(schema: Schema, local_host, tmp_path: pathlib.Path):
    install_trail(schema)
    schema.execute("CREATE TABLE users (id INT PRIMARY KEY, ssn TEXT)")
    schema.execute("CREATE TABLE orders (id INT PRIMARY KEY)")
    schema.execute("CREATE TABLE orders_load (id INT PRIMARY KEY)")
    run_module("mysql_audit_triggers", **schema.login, policies=[{"tables": [f"{schema.name}.users"]}])
    schema.execute("INSERT INTO users VALUES (1, 'a'), (2, 'b')")
    checks = [
        {"name": "users", "query": f"SELECT COUNT(*) FROM {schema.name}.users", "threshold": 5},
        {"name": "broken", "query": f"SELECT COUNT(*) FROM {schema.name}.nothing", "threshold": 0},
    ]
    variables = {
        "audit_report_dest": str(tmp_path / "q4"),
        "audit_report_formats": ["json"],
        "audit_report_checks": checks,
        "mysql_audit_login": schema.login,
        "mysql_audit_schedule": "none",
        "mysql_audit_policies": [{"tables": [f"{schema.name}.*"]}],
        "mysql_audit_exceptions": [{"table": f"{schema.name}.*_load", "reason": "load", "approved_by": "dpo"}],
    }
    play("report", {"all": {"vars": variables, "children": {"mysql": {"hosts": {HOST: local_host}}}}})
    model = json.loads((tmp_path / "q4" / "report.json").read_text(encoding="utf-8"))
    (host,) = model["hosts"]
    found = {finding["check"]: finding for finding in host["findings"]}
    assert host["posture"] == "red"
    assert f"{schema.name}.orders" in found["drift"]["text"]
    assert found["coverage"]["text"].endswith(f"audited; without: {schema.name}.orders")
    # Nothing has rolled the plugin out, where the server can have it at all.
    assert found["statements"]["level"] in ("red", "amber")
    tables = [table for table in host["databases"][0]["tables"] if table["table"].startswith(f"{schema.name}.")]
    assert {table["table"]: table["audited"] for table in tables} == {
        f"{schema.name}.orders": False,
        f"{schema.name}.orders_load": False,
        f"{schema.name}.users": True,
    }
    users, broken = model["checks"]
    assert (users["value"], users["ok"]) == (2, True)
    assert (broken["value"], broken["ok"]) == (None, False)
    assert "nothing" in broken["error"]
