# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report's model: postures with their reasons, controls with their evidence, the fleet's numbers, alerts."""

from __future__ import annotations

import datetime

import pytest
from report_facts import NOW, OPTIONS, host, table, trail

from ansible_collections.dbfleet.audit.plugins.plugin_utils._report import report
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_inputs import (
    host_facts,
    input_problems,
    period,
    pgaudit_facts,
    plugin_facts,
)


def model(facts, hosts=None, **options):
    return report(facts, hosts or list(facts), {**OPTIONS, **options})


ARCHIVED = {"url": "/mnt/archive", "older_than": "13mo"}


def only(facts, **options):
    return model({"pg1": facts}, **options)["hosts"][0]


def test_a_host_that_is_as_it_has_to_be_is_green_and_has_no_finding():
    entry = only(host())
    assert (entry["posture"], entry["findings"]) == ("green", [])
    assert entry["checks"]["coverage"] == {"level": "ok", "text": "2 of 2 tables audited"}


COVERAGE = {"auditable": 2, "audited": 1, "tables": [table("public.orders"), table("public.users", audited=False)]}
BROKEN = {
    "auditable": 1,
    "audited": 1,
    "tables": [table("public.users", problem="trigger disabled: dbfleet_audit_update")],
}
EXPIRED = [{"table": "public.users", "reason": "load", "until": "2026-11-01", "expired": True}]
STRANGER = [{"grantee": "eve", "object": "audit_log", "privileges": ["DELETE"], "expected": False}]
FOUND = [{"table": "public.patients", "score": 87, "categories": ["health"], "columns": {}, "policy": {}}]


@pytest.mark.parametrize(
    ("facts", "level", "check", "text"),
    [
        (host(trail(coverage=COVERAGE)), "amber", "coverage", "1 of 2 tables audited; without: public.users"),
        (host(trail(coverage=BROKEN)), "red", "coverage", "public.users (trigger disabled: dbfleet_audit_update)"),
        (host(trail(problems=[{"type": "missing", "detail": "users: trigger"}])), "red", "drift", "users: trigger"),
        (host(trail(exceptions=EXPIRED)), "red", "exceptions", "expired: public.users (2026-11-01)"),
        (host(trail(partitions={"ahead": 0})), "amber", "partitions_ahead", "0 months ahead, until 2027-03-01"),
        (host(trail(partitions={"catch_all_rows": 3})), "amber", "catch_all_empty", "3 rows in it"),
        (host(trail(seals={"oldest_unsealed_at": "2026-11-20T09:00:00Z"})), "red", "sealed", "more than 24 hours"),
        (host(trail(seals={"last_number": None})), "amber", "sealed", "the log was never sealed"),
        (host(trail(seals={"unsigned": 2})), "amber", "seals_signed", "2 seals not signed"),
        (host(trail(grants=STRANGER)), "red", "append_only", "eve has DELETE on audit_log"),
        (host(trail(problems=[{"type": "grant", "detail": "eve may write"}])), "red", "append_only", "eve may write"),
        (
            host(trail(settings={"events": ["app"], "pgaudit.log": "role"})),
            "amber",
            "ddl_recorded",
            "nothing records DDL",
        ),
        (host(trail(settings={"log_connections": "off"})), "amber", "logins_recorded", "nothing records logins"),
        (host(trail(activity={"failures": 2})), "red", "audit_failures", "2 changes not recorded"),
        (
            host(
                trail(
                    activity={
                        "without_user": 90,
                        "applications": [{"name": "shop", "changes": 10, "without_user": 9}],
                    }
                )
            ),
            "amber",
            "user_context",
            "10 % of the changes name the application's user; without, at times: shop",
        ),
        (host(trail(discovery=FOUND)), "amber", "sensitive_columns", "not audited: public.patients (health)"),
        (host(trail(limitations=["no superuser"])), "amber", "limitations", "no superuser"),
        (host(trail(installed=False)), "red", "trail_installed", "there is no audit trail, and it was asked for"),
        (host(trail(error="connection refused")), "red", "reachable", "could not be read: connection refused"),
        (host(statements={"enabled": False, "problems": []}), "amber", "statements", "switched off for this host"),
        (host(statements={"enabled": True, "problems": ["pgaudit.log is 'none'"]}), "red", "statements", "is 'none'"),
        (
            host(server={"restart": {"pending": ["max_connections"], "errors": []}}),
            "amber",
            "pending_restart",
            "a restart is pending: max_connections",
        ),
        (
            host(server={"restart": {"pending": [], "errors": ["postgresql.conf:7"]}}),
            "red",
            "pending_restart",
            "conf:7",
        ),
        (
            host(checks=[{"name": "orphans", "database": "shop", "value": 3, "threshold": 0, "ok": False}]),
            "red",
            "user_checks",
            "orphans: 3, at most 0",
        ),
    ],
)
def test_what_is_wrong_is_a_finding_with_its_reason(facts, level, check, text):
    entry = only(facts)
    assert entry["posture"] == level
    (found,) = [finding for finding in entry["findings"] if finding["check"] == check]
    assert found["level"] == level
    assert text in found["text"]


def test_findings_name_the_command_that_mends_them():
    (finding,) = only(host(trail(problems=[{"type": "missing", "detail": "trigger"}])))["findings"]
    assert finding["fix"] == "ansible-playbook dbfleet.audit.site --limit pg1"


def excepted(**exception):
    users = table("public.users", audited=False, exception={"reason": "load", "approved_by": "dpo", **exception})
    coverage = {**COVERAGE, "excepted": int(not exception["expired"]), "tables": [table("public.orders"), users]}
    # The comparison with the inventory tells patterns.
    return model({"pg1": host(trail(coverage=coverage, exceptions=[{"table": "public.u*", **exception}]))})


def test_a_valid_exception_leaves_coverage_in_order():
    made = excepted(until="2030-01-01", expired=False)
    assert made["hosts"][0]["posture"] == "green"
    assert made["alerts"] == []


def test_an_expired_exception_leaves_its_table_uncovered():
    made = excepted(until="2026-01-01", expired=True)
    assert {finding["check"] for finding in made["hosts"][0]["findings"]} == {"coverage", "exceptions"}
    assert [alert["name"] for alert in made["alerts"]] == ["coverage"]


@pytest.mark.parametrize("turned", [False, True])
def test_a_host_is_as_its_worst_database(turned):
    trails = [trail(), trail(database="bank", problems=[{"type": "missing", "detail": "trigger"}])]
    entry = only(host(*reversed(trails)) if turned else host(*trails))
    assert entry["posture"] == "red"
    assert entry["checks"]["drift"]["level"] == "red"
    assert [finding["database"] for finding in entry["findings"]] == ["bank"]


def test_what_the_login_cannot_see_is_unknown_and_not_green():
    hidden = {"auditable": 1, "audited": None, "tables": [table("public.users", None, "the login does not see it")]}
    made = model({"pg1": host(trail(coverage=hidden)), "pg2": host()})
    entry = made["hosts"][0]
    assert entry["checks"]["coverage"]["level"] == "unknown"
    assert (entry["posture"], entry["reason"]) == ("amber", "not known: Every table that could be audited is")
    assert (made["summary"]["auditable"], made["summary"]["coverage"]) == (2, 1.0)
    # What nobody has seen to be audited is not, where somebody wants to be told.
    assert [(alert["name"], alert["host"]) for alert in made["alerts"]] == [("coverage", "pg1")]


def test_a_host_that_did_not_answer_is_unknown_whether_it_said_why_or_not():
    gone = {"engine": "postgresql", "status": "unreachable", "reason": "no route to host"}
    made = model({"pg1": host(), "gone": gone}, ["pg1", "gone", "limited"], profiles=["hipaa"])
    postures = {entry["name"]: (entry["posture"], entry["reason"]) for entry in made["hosts"]}
    assert postures["gone"] == ("unknown", "no route to host")
    assert postures["limited"] == ("unknown", "it was not reached, or not asked in this run")
    assert made["summary"]["unknown"] == 2
    assert [(alert["name"], alert["host"]) for alert in made["alerts"]] == [
        ("reachable", "gone"),
        ("reachable", "limited"),
    ]
    # Nothing of the fleet is proven while a part of it is not known.
    assert made["summary"]["controls_met"] == 0
    audit_controls = made["controls"][0]
    assert audit_controls["met"] is None
    assert {"host": "gone", "text": "reachable: no route to host"} in audit_controls["evidence"]


def test_a_control_is_met_not_met_or_not_provable():
    def met(facts, control):
        (found,) = [
            entry for entry in model({"pg1": facts}, profiles=["hipaa"])["controls"] if entry["control"] == control
        ]
        return found["met"]

    assert met(host(), "164.312(b)") is True
    assert met(host(trail(coverage=COVERAGE)), "164.312(b)") is None
    assert met(host(trail(problems=[{"type": "missing", "detail": "trigger"}])), "164.312(b)") is False
    assert met(host(statements={"enabled": True, "problems": [], "reads": False}), "164.312(b)") is None


@pytest.mark.parametrize(
    ("framework", "categories", "met"),
    [
        ("hipaa", {}, True),
        ("hipaa", {"default": {"archive": "7y"}}, True),
        ("hipaa", {"default": {"archive": "7y"}, "pci": "1y"}, False),
        ("pci_dss", {"default": {"archive": "7y"}, "pci": "1y"}, True),
    ],
)
def test_ages_are_measured_by_what_each_framework_asks_for(framework, categories, met):
    facts = host(retention={**ARCHIVED, "categories": categories})
    controls = model({"pg1": facts}, profiles=[framework])["controls"]
    assert [control["met"] for control in controls if "retention" in control["checks"]] == [met]


def test_each_framework_has_its_own_age_when_there_are_several():
    facts = host(retention={**ARCHIVED, "categories": {"default": {"archive": "2y"}}})
    controls = model({"pg1": facts}, profiles=["hipaa", "pci_dss"])["controls"]
    met = {control["framework"]: control["met"] for control in controls if "retention" in control["checks"]}
    assert met == {"hipaa": False, "pci_dss": True}


def test_a_control_without_a_check_is_never_met():
    controls = model({"pg1": host()}, profiles=["iso27001"])["controls"]
    assert [control["met"] for control in controls if control["control"] == "8.17"] == [None]


@pytest.mark.parametrize("chain", ["5f0c", None])
def test_numbers_of_the_fleet_count_a_standby_once(chain):
    log = trail(seals={"chain": chain})
    standby = host(log, server={"version": {"full": "17.6"}, "in_recovery": True})
    made = model({"standby": standby, "primary": host(log)})
    summary = made["summary"]
    assert (summary["changes"], summary["auditable"], summary["coverage"]) == (100, 2, 1.0)
    assert {entry["name"]: entry["databases"][0]["counted"] for entry in made["hosts"]} == {
        "standby": False,
        "primary": True,
    }
    # Its primary may be no host of this report.
    assert model({"standby": standby})["summary"]["changes"] == 100


def test_nodes_of_one_cluster_have_one_log_and_other_databases_their_own():
    nodes = {name: host(trail(seals={"chain": "5f0c"})) for name in ("node1", "node2", "node3")}
    assert model(nodes)["summary"]["changes"] == 100
    assert model({**nodes, "other": host(trail(seals={"chain": "9a1d"}))})["summary"]["changes"] == 200


def test_activity_and_growth_of_several_hosts_are_put_together():
    bulk = [{"at": NOW, "table": "public.users", "action": "DELETE", "rows": 5000, "changed_by": "ann"}]
    made = model({"pg1": host(), "pg2": host(trail(), trail(database="bank", activity={"bulk": bulk}))})
    assert made["activity"]["users"] == [{"name": "ann", "changes": 300, "hosts": ["pg1", "pg2"]}]
    assert made["activity"]["by_day"] == [{"day": "2026-11-01", "changes": 300}]
    assert made["activity"]["by_hour"][9] == 300
    assert made["activity"]["bulk"] == [{"host": "pg2", "database": "bank", **bulk[0]}]
    assert made["growth"] == [{"month": "2026-10", "rows": 300, "bytes": 3 * 8192}]


def test_only_thresholds_that_were_asked_for_alert():
    facts = {"pg1": host(trail(coverage=COVERAGE, activity={"failures": 2}))}
    texts = {alert["name"]: alert["text"] for alert in model(facts)["alerts"]}
    assert texts == {
        "coverage": "shop: coverage is 50, at least 100 is asked for",
        "audit_failures": "shop: audit_failures is 2, at most 0 is asked for",
    }
    assert model(facts, thresholds={"unsealed_rows": 4})["alerts"][0]["text"].startswith("shop: unsealed_rows is 5")
    assert model(facts, thresholds={})["alerts"] == []


def test_discovery_is_ranked_over_the_fleet():
    low, high = {**FOUND[0], "score": 10, "table": "public.a"}, FOUND[0]
    made = model({"pg1": host(trail(discovery=[low])), "pg2": host(trail(discovery=[high], proposal="- tables: []"))})
    assert [(entry["host"], entry["table"]) for entry in made["discovery"]] == [
        ("pg2", "public.patients"),
        ("pg1", "public.a"),
    ]
    assert made["proposals"] == [{"host": "pg2", "database": "shop", "yaml": "- tables: []"}]


def test_what_the_modules_answered_becomes_the_facts_of_a_host():
    info = {"version": {"full": "17.6"}, "limitations": ["no superuser"], "trails": [trail(), trail(database="new")]}
    gathered = {
        "engine": "postgresql",
        "info": info,
        "compared": [
            {
                "problems": [{"type": "missing", "detail": "trigger"}],
                "limitations": ["no superuser", "no login events"],
            },
            {"failed": True, "msg": "new: no audit trail in schema 'audit'"},
        ],
        "targets": [
            {"name": "shop", "exceptions": [{"table": "public.a", "until": "2026-11-21"}, {"table": "public.b"}]},
            {"name": "new", "exceptions": []},
        ],
        "statements": {"enabled": True, "problems": [], "restart_required": True},
    }
    facts = host_facts(gathered, "2026-11-22")
    shop, new = facts["trails"]
    assert [exception["expired"] for exception in shop["exceptions"]] == [True, False]
    assert shop["limitations"] == ["no login events"]
    assert shop["problems"] == [{"type": "missing", "detail": "trigger"}]
    assert new["problems"] == [{"type": "refused", "detail": "new: no audit trail in schema 'audit'"}]
    assert only(facts)["checks"]["pending_restart"]["text"] == "a restart is pending: pgaudit"


def test_when_a_log_was_last_verified_is_told_and_that_a_ledger_cannot_be_read():
    gathered = {
        "engine": "postgresql",
        "info": {"trails": [trail(), trail(database="new")]},
        "compared": [{"problems": []}, {"problems": []}],
        "targets": [{"name": "shop"}, {"name": "new"}],
        "verified": {"shop": {"number": 7, "verified_at": "2026-11-22T05:00:12Z"}, "new": {"error": "no such bucket"}},
    }
    facts = host_facts(gathered, "2026-11-22")
    shop, new = only(facts)["databases"]
    assert (shop["verified_at"], new["verified_at"]) == ("2026-11-22T05:00:12Z", None)
    assert [trail["limitations"] for trail in facts["trails"]] == [[], ["no such bucket"]]


def test_a_server_with_one_trail_is_compared_under_whatever_name_it_has():
    gathered = {
        "engine": "mysql",
        "info": {"trails": [trail(database="audit")]},
        "compared": [{"problems": []}],
        "targets": [{"name": "", "exceptions": []}],
    }
    assert host_facts(gathered, "2026-11-22")["trails"][0]["problems"] == []


def test_a_host_whose_asking_ended_early_says_why():
    facts = host_facts({"engine": "mysql", "error": "cannot connect"}, "2026-11-22")
    assert (facts["status"], facts["reason"]) == ("failed", "cannot connect")


def test_statement_auditing_is_read_from_predictions():
    configured = {"settings": {"pgaudit.log": "ddl, read"}, "objects": 0, "differences": [], "loaded": False}
    preload = {"differences": ["pgaudit is not preloaded"], "restart_required": True}
    assert pgaudit_facts({**configured, "limitations": ["no superuser"]}, preload, True) == {
        "enabled": True,
        "problems": ["pgaudit is not preloaded", "the server has not loaded pgaudit"],
        "limitations": ["no superuser"],
        "restart_required": True,
        "grants": False,
        "reads": True,
    }
    assert pgaudit_facts({}, {}, True) is None
    missing = plugin_facts({"available": False, "reason": "MySQL Community has none"}, True)
    assert (missing["enabled"], missing["reason"]) == (False, "MySQL Community has none")
    plugin = {"available": True, "settings": {"events": "CONNECT,QUERY_DDL"}, "differences": []}
    assert plugin_facts(plugin, True)["reads"] is False


@pytest.mark.parametrize(
    ("given", "since"),
    [("week", "2026-11-15T10:00:00Z"), ("quarter", "2026-08-22T10:00:00Z"), ("year", "2025-11-22T10:00:00Z")],
)
def test_a_named_period_ends_now(given, since):
    assert period(given, NOW) == {"name": given, "since": since, "until": NOW}


def test_a_period_of_one_s_own_is_named_by_its_ends():
    given = {"since": datetime.date(2026, 4, 1), "until": "2026-07-01"}
    assert period(given, NOW) == {"name": "2026-04-01 to 2026-07-01", "since": "2026-04-01", "until": "2026-07-01"}


def test_a_month_that_is_shorter_ends_earlier():
    assert period("month", "2026-03-31T10:00:00Z")["since"] == "2026-02-28T10:00:00Z"


def test_what_cannot_be_meant_is_named():
    checks = [{"name": "orphans", "sql": "SELECT 1", "threshold": 0}, {"name": "orphans", "threshold": 1}]
    thresholds = {"covrage": 1, "coverage": "100", "unsealed_rows": 5_000_000}
    given = {"period": "decade", "thresholds": thresholds, "checks": checks, "profiles": ["hippa"]}
    problems = "\n".join(input_problems(given))
    for text in (
        "audit_report_thresholds: there is no covrage; choose from coverage, ",
        "audit_profiles: there is no hippa",
        "audit_report_period is 'decade'",
        "audit_report_checks[0]: unknown key sql",
        "audit_report_checks[0]: query is missing",
        # Prometheus takes one value for a name.
        "audit_report_checks[1]: there is another one with the name 'orphans'",
        "audit_report_thresholds: coverage is no number",
        "audit_report_thresholds: unsealed_rows are counted to ",
    ):
        assert text in problems
