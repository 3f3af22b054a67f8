# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the roles reason on the controller: problems named, globs resolved, results said in a line."""

from __future__ import annotations

import datetime
from typing import Any

from ansible_collections.dbfleet.audit.plugins.plugin_utils import _rollout as rollout

POLICY = {"tables": ["public.*"]}
EXCEPTION = {"table": "shop.public.tmp", "reason": "load", "approved_by": "dpo"}


def entry(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "policies": [POLICY], **options}


def server(matches: dict[str, list[str]]) -> dict[str, Any]:
    names = sorted({name for found in matches.values() for name in found})
    return {"matches": matches, "databases": names, "unmatched": [key for key, found in matches.items() if not found]}


def common(**options: Any) -> dict[str, Any]:
    return {"schema": "audit", "policies": [], "readers": [], "applications": [], "exceptions": [], **options}


def test_a_misspelt_variable_is_named_with_the_one_that_was_meant():
    known = ["postgresql_audit_readers", "postgresql_audit_schema"]
    problems = rollout.unknown_variables(["postgresql_audit_schema", "postgresql_audit_reders"], known)
    assert problems == ["unknown variable postgresql_audit_reders; did you mean postgresql_audit_readers?"]


def test_databases_that_cannot_be_meant_are_named():
    assert rollout.database_problems([], [], []) == ["postgresql_audit_databases is empty; list at least one database"]
    assert rollout.database_problems([entry("shop")], [], []) == []
    twice, none = rollout.database_problems([entry("shop"), entry("shop"), {"name": "crm"}], [], [])
    assert "lists shop twice" in twice
    assert "crm has no policies" in none
    assert rollout.database_problems([{"name": "crm"}], [POLICY], []) == []


def test_policies_of_a_whole_server_that_cannot_be_meant_are_named():
    (empty,) = rollout.server_problems([], [], [])
    assert "mysql_audit_policies is empty" in empty
    exception = {**EXCEPTION, "table": "shop.tmp"}
    assert rollout.server_problems([POLICY], [], [exception]) == rollout.server_problems([], [POLICY], []) == []
    wrong = [{**exception, "table": "tmp"}, {**exception, "until": "March"}]
    table, until = rollout.server_problems([POLICY], [], wrong)
    assert table == "mysql_audit_exceptions: tmp is not schema.table, as in shop.tmp_load"
    assert until == "mysql_audit_exceptions: shop.tmp: until is March, which is not a date like 2027-03-31"


def test_an_instance_is_a_part_of_a_file_name():
    assert rollout.instance_problems(3306, "mysql_audit_instance") == []
    (problem,) = rollout.instance_problems("a b", "mysql_audit_instance")
    assert problem.startswith("mysql_audit_instance is a b; ")


def test_a_date_that_yaml_read_becomes_text_again():
    exceptions = [{**EXCEPTION, "until": datetime.date(2027, 3, 31)}, EXCEPTION]
    assert rollout.plain_exceptions(exceptions) == [{**EXCEPTION, "until": "2027-03-31"}, EXCEPTION]


def test_exceptions_are_checked_against_the_databases():
    databases = [entry("shop"), entry("tenant_*")]

    def problems(**changed: Any) -> list[str]:
        return rollout.database_problems(databases, [], [{**EXCEPTION, **changed}])

    assert problems() == problems(table="tenant_7.public.tmp") == problems(until="2027-03-31") == []
    assert "is not database.schema.table" in problems(table="public.tmp")[0]
    assert "does not list (shop, tenant_*)" in problems(table="crm.public.tmp")[0]
    assert "not a date like 2027-03-31" in problems(until="March")[0]


def test_an_exact_name_wins_over_a_glob_and_two_globs_are_refused():
    found = server({"tenant_*": ["tenant_a", "tenant_b"], "tenant_a": ["tenant_a"]})
    databases = [entry("tenant_*"), entry("tenant_a", readers=["ann"])]
    assert rollout.match_problems(databases, found) == []
    targets = rollout.targets(databases, found, common(readers=["bob"]))
    assert [(target["name"], target["readers"]) for target in targets] == [
        ("tenant_b", ["bob"]),
        ("tenant_a", ["bob", "ann"]),
    ]
    globs = [entry("t*"), entry("*a"), entry("x*")]
    missing, ambiguous = rollout.match_problems(globs, server({"t*": ["ta"], "*a": ["ta"], "x*": []}))
    assert "lists x*, but the server has no such database" in missing
    assert "ta is matched by t* and by *a" in ambiguous


def test_a_target_has_its_own_policies_before_the_baseline_and_its_own_exceptions():
    baseline = {"tables": ["*.*"]}
    other = {**EXCEPTION, "table": "crm.public.tmp"}
    shared = common(policies=[baseline], exceptions=[{**EXCEPTION, "until": "2027-03-31"}, other])
    (target,) = rollout.targets([entry("shop", schema="trail")], server({"shop": ["shop"]}), shared)
    assert target["policies"] == [POLICY, baseline]
    assert target["schema"] == "trail"
    assert target["exceptions"] == [{**EXCEPTION, "table": "public.tmp", "until": "2027-03-31"}]


def test_the_line_of_a_rollout_says_what_is_audited_and_what_is_not():
    result = {
        "audited": 2,
        "auditable": 4,
        "skipped_tables": [{"table": "public.v", "reason": "a view"}, {"table": "public.w", "reason": "a view"}],
        "exceptions": [{"table": "public.tmp", "until": "2020-01-01", "expired": True}],
        "limitations": ["no rights on public.w"],
        "seconds": 0.7,
    }
    trail = {"results": [{"limitations": ["no event triggers"], "seconds": 0.5}]}
    collected = rollout.outcomes([{"name": "shop"}], trail, {"results": [result]})
    assert rollout.rollout_lines(collected, "pg1") == [
        "pg1 shop: 2/4 tables audited, 2 skipped (a view: public.v, public.w), "
        "EXPIRED exception public.tmp (until 2020-01-01), 1.2 s",
        "pg1 shop: limitation: no event triggers",
        "pg1 shop: limitation: no rights on public.w",
    ]


def test_the_first_failure_of_a_database_is_kept_and_said():
    trail = {"results": [{"failed": True, "msg": "no rights"}]}
    collected = rollout.outcomes([{"name": "shop"}], trail, {"results": [{"skipped": True}]})
    assert collected[0]["failure"] == "no rights"
    assert rollout.rollout_lines(collected, "pg1") == ["pg1 shop: FAILED, 0 s"]


def test_the_line_of_a_proof_says_what_was_proven():
    proven = {"valid": True, "problems": [], "probes": 1, "recorded": True, "tampering_refused": True}
    broken = {**proven, "valid": False, "problems": [{"type": "disabled", "detail": "t"}], "recorded": False}
    failed = {"failed": True, "msg": "no trail"}
    lines = rollout.proof_lines([proven, broken, failed], ["a", "b", "c"], "pg1", "")
    assert lines == [
        "OK pg1 a: 1 policy probed, tampering refused, 0 problems",
        "FAILED pg1 b: not probed, tampering refused, 1 problem",
        "  disabled: t",
        "FAILED pg1 c: no trail",
    ]
    assert rollout.proof_lines([proven], ["a"], "pg1", "standby") == [
        "OK pg1 a: standby, catalogue compared, tampering refused, 0 problems"
    ]


def test_a_whole_server_has_a_line_without_a_database():
    result = {"audited": 2, "auditable": 2, "skipped_tables": [], "exceptions": [], "seconds": 0.7}
    collected = rollout.outcomes([{"name": ""}], {"seconds": 0.5}, result)
    assert rollout.rollout_lines(collected, "maria1") == ["maria1: 2/2 tables audited, 1.2 s"]
    proven = {"valid": True, "problems": [], "probes": 0, "recorded": False, "tampering_refused": False}
    lines = rollout.proof_lines([proven], [""], "maria1", "replica")
    assert lines == ["OK maria1: replica, catalogue compared, 0 problems"]


def test_the_line_of_a_removal_says_what_became_of_the_rows():
    shop, whole = {"name": "shop", "schema": "audit"}, {"name": "", "schema": "trail"}
    assert rollout.removal_lines([shop, whole], "db1", dropped=False, predicted=True) == [
        "db1 shop: auditing would be removed, the rows kept in audit.audit_log",
        "db1: auditing would be removed, the rows kept in trail.audit_log",
    ]
    (dropped,) = rollout.removal_lines([shop], "db1", dropped=True, predicted=False)
    assert dropped == "db1 shop: auditing removed, the log dropped with all its rows"
