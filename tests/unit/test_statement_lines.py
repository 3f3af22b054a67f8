# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role pgaudit says of a server: one line, and what is wrong below it."""

from __future__ import annotations

from ansible_collections.dbfleet.audit.plugins.plugin_utils._statements import statement_lines, statement_proof_lines

CONFIGURED = {
    "settings": {"pgaudit.log": "ddl, role", "pgaudit.log_catalog": "off"},
    "extensions": {"shop": "1.7"},
    "objects": 0,
    "limitations": [],
    "differences": [],
    "recorded": ["ddl", "role"],
    "seconds": 0.2,
}
PRELOAD = {"restart_required": False, "differences": [], "seconds": 0.1}


def test_a_rollout_in_one_line():
    assert statement_lines(CONFIGURED, "pg1", PRELOAD, False) == [
        "pg1: pgaudit logs ddl, role, extension in 1 database, restart pending: no, 0.3 s"
    ]


def test_objects_and_a_restart_that_is_pending():
    assert statement_lines({**CONFIGURED, "objects": 3, "extensions": {}}, "pg1", PRELOAD, True) == [
        "pg1: pgaudit logs ddl, role, 3 objects audited, extension in 0 databases, restart pending: yes, 0.3 s"
    ]
    assert "1 object audited" in statement_lines({**CONFIGURED, "objects": 1}, "pg1", PRELOAD, False)[0]


def test_a_login_that_may_nothing_has_its_limitations_below():
    configured = {**CONFIGURED, "settings": {}, "limitations": ["no superuser"]}
    assert statement_lines(configured, "pg1", {"skipped": True}, False) == [
        "pg1: pgaudit has no settings, extension in 1 database, restart pending: no, 0.2 s",
        "pg1: limitation: no superuser",
    ]


def test_a_proof():
    assert statement_proof_lines(CONFIGURED, "pg1", PRELOAD) == ["OK pg1: pgaudit recorded ddl, role, 0 problems"]
    assert statement_proof_lines({**CONFIGURED, "recorded": []}, "pg1", PRELOAD) == [
        "OK pg1: pgaudit not probed, 0 problems"
    ]


def test_every_problem_is_named():
    preload = {"restart_required": True, "differences": ["the list is empty"]}
    assert statement_proof_lines({**CONFIGURED, "differences": ["log is none"], "recorded": []}, "pg1", preload) == [
        "FAILED pg1: pgaudit not probed, 3 problems",
        "  the list is empty",
        "  log is none",
        "  the server has not loaded pgaudit: restart it",
    ]


def test_one_problem_is_enough():
    assert statement_proof_lines({**CONFIGURED, "differences": ["log is none"]}, "pg1", {"skipped": True}) == [
        "FAILED pg1: pgaudit recorded ddl, role, 1 problem",
        "  log is none",
    ]
