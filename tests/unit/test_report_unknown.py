# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the report does not know is never in order: no check is ok, no control met and no number 0 because of it."""

from __future__ import annotations

import pytest
from report_facts import OPTIONS, host, table, trail

from ansible_collections.dbfleet.audit.plugins.module_utils._core.info import COUNT_LIMIT
from ansible_collections.dbfleet.audit.plugins.module_utils._core.user_checks import NO_DATABASE
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.audit_plugin import NOT_LOGGING, UNWRITTEN
from ansible_collections.dbfleet.audit.plugins.plugin_utils._profiles import PROFILES
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report import report
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_checks import CHECKS
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_files import lines, prometheus
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_inputs import (
    host_facts,
    pgaudit_facts,
    plugin_facts,
)
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_settings import pgaudit_classes

UNREAD = {"database": "patients", "schema": "audit", "error": "cannot connect"}
BARE = {"database": "patients", "schema": "audit", "error": None, "installed": False, "discovery": None}
#: What no database has a part in.
OF_HOSTS = {"retention"}


def model(facts, **options):
    return report({"pg1": facts}, ["pg1"], {**OPTIONS, **options})


def checks(facts):
    return {check: found["level"] for check, found in model(facts)["hosts"][0]["checks"].items()}


def met(facts):
    found = model(facts, profiles=list(PROFILES))["controls"]
    return {(control["framework"], control["control"]) for control in found if control["met"]}


@pytest.mark.parametrize("broken", [UNREAD, BARE])
def test_a_database_without_answers_is_not_stood_for_by_another_one(broken):
    found = checks(host(trail(), broken))
    assert found["reachable" if broken is UNREAD else "trail_installed"] == "red"
    for check in ("coverage", "drift", "append_only", "sealed", "audit_failures", "ddl_recorded", "user_context"):
        assert found[check] == "unknown", check
    assert ("pci_dss", "10.3.2") in met(host())
    assert met(host(trail(), broken)) <= {("hipaa", "164.308(a)(4)(ii)(C)"), ("pci_dss", "10.2.1.5"), *KEPT}


#: Controls of the server's own audit and of archives, which that database takes nothing from.
KEPT = {("soc2", "CC6.2"), ("sox", "17 CFR 210.2-06")}


def test_a_table_whose_triggers_nobody_sees_leaves_coverage_open():
    tables = [table("public.orders"), table("public.users", None)]
    facts = host(trail(coverage={"auditable": 2, "audited": 1, "tables": tables}))
    made = model(facts)
    assert made["hosts"][0]["checks"]["coverage"] == {
        "level": "unknown",
        "text": "1 of 2 tables audited; this login does not see whether these are: public.users",
    }
    assert made["hosts"][0]["posture"] == "amber"
    assert [alert["text"] for alert in made["alerts"]] == ["shop: coverage is 50, at least 100 is asked for"]
    assert ("soc2", "CC7.2") not in met(facts)


CONFIGURED = {"differences": [], "settings": {"pgaudit.log": "ddl, role"}, "objects": 1, "loaded": True}


@pytest.mark.parametrize(
    ("configured", "preload"),
    [({**CONFIGURED, "loaded": False}, {"differences": []}), (CONFIGURED, {"restart_required": True})],
)
def test_pgaudit_that_waits_for_a_restart_records_nothing(configured, preload):
    assert checks(host(statements=pgaudit_facts(CONFIGURED, {}, True)))["statements"] == "ok"
    found = checks(host(statements=pgaudit_facts(configured, preload, True)))
    assert (found["statements"], found["reads_recorded"], found["grants_recorded"]) == ("red", "unknown", "unknown")


@pytest.mark.parametrize(
    ("setting", "classes"),
    [
        ("ddl, role", {"ddl", "role"}),
        ("all, -read,-ddl", {"write", "function", "role", "misc", "misc_set"}),
        ("-read, READ", {"read"}),
        ("all,-all", set()),
        ("none", set()),
        (None, set()),
    ],
)
def test_classes_of_pgaudit_are_added_and_taken_away_in_their_order(setting, classes):
    assert pgaudit_classes(setting) == classes


def test_a_class_that_is_taken_away_records_nothing():
    given = {**CONFIGURED, "objects": 0, "settings": {"pgaudit.log": "all, -read, -role"}}
    found = checks(host(statements=pgaudit_facts(given, {}, True)))
    assert (found["reads_recorded"], found["grants_recorded"]) == ("unknown", "amber")
    assert checks(host(trail(settings={"events": [], "pgaudit.log": "all,-ddl"})))["ddl_recorded"] == "amber"


def test_a_database_of_its_own_settings_records_no_grants_whatever_the_server_does():
    facts = host(trail(), trail(database="bank", settings={"pgaudit.log": "ddl"}))
    assert checks(facts)["grants_recorded"] == "amber"
    assert not {("pci_dss", "10.2.1.5"), ("soc2", "CC6.3"), ("hipaa", "164.308(a)(4)(ii)(C)")} & met(facts)
    assert {("pci_dss", "10.2.1.5"), ("soc2", "CC6.3"), ("hipaa", "164.308(a)(4)(ii)(C)")} <= met(host())


PLUGIN = {"available": True, "differences": [], "settings": {"events": "CONNECT,QUERY", "logging": "ON"}}


@pytest.mark.parametrize(
    ("events", "limitations", "levels"),
    [
        ("CONNECT,QUERY", [], {"statements": "ok", "grants_recorded": "ok"}),
        ("", [], {"statements": "ok", "grants_recorded": "ok"}),
        (
            "CONNECT,QUERY_DDL,QUERY_DCL",
            ["ALTER USER is not seen"],
            {"statements": "ok", "grants_recorded": "amber", "limitations": "amber"},
        ),
        ("QUERY", [NOT_LOGGING], {"statements": "red", "grants_recorded": "unknown"}),
        (
            "QUERY",
            [f"7 {UNWRITTEN}"],
            {
                "statements": "red",
                "grants_recorded": "unknown",
                "ddl_recorded": "unknown",
                "logins_recorded": "unknown",
            },
        ),
    ],
)
def test_what_server_audit_does_not_log_is_said(events, limitations, levels):
    result = {**PLUGIN, "settings": {**PLUGIN["settings"], "events": events}, "limitations": limitations}
    found = checks(host(statements=plugin_facts(result, True), engine="mysql"))
    assert {check: found.get(check) for check in levels} == levels


@pytest.mark.parametrize(
    ("facts", "check"),
    [
        (host(trail(partitions={"catch_all_rows": None})), "catch_all_empty"),
        (host(trail(seals={"unsealed_rows": None})), "sealed"),
        (host(trail(seals={"unsigned": None})), "seals_signed"),
        (host(trail(activity={"failures": None})), "audit_failures"),
        (host(trail(activity={"without_user": None})), "user_context"),
        (host(trail(problems=[{"type": "refused", "detail": "no trail"}])), "append_only"),
        (host(retention={"url": "", "older_than": "13mo", "categories": {"default": {"archive": "7y"}}}), "retention"),
        (host(server={"restart": None}), "pending_restart"),
        (host(server={"waiting": None}, engine="mysql"), "pending_restart"),
    ],
)
def test_what_was_not_read_is_unknown(facts, check):
    assert checks(facts)[check] == "unknown"


@pytest.mark.parametrize(("required", "level"), [(True, "amber"), (False, "ok")])
def test_server_audit_tells_whether_it_waits_for_a_restart(required, level):
    gathered = {"engine": "mysql", "info": {"trails": [trail()]}, "compared": [{"problems": []}], "targets": []}
    statements = plugin_facts({**PLUGIN, "restart_required": required}, True)
    facts = host_facts({**gathered, "statements": statements}, "2026-11-22")
    found = model(facts)["hosts"][0]["checks"]["pending_restart"]
    assert found["level"] == level
    assert ("server_audit" in found["text"]) is required


def test_a_host_of_which_no_database_was_asked_is_unknown():
    made = model({**host(), "trails": []}, profiles=list(PROFILES))
    entry = made["hosts"][0]
    assert (entry["posture"], entry["reason"]) == ("unknown", "no database was asked")
    assert [alert["text"] for alert in made["alerts"]] == ["no database was asked"]
    assert not any(control["met"] for control in made["controls"] if set(control["checks"]) - OF_HOSTS - set(SERVERS))


#: Checks of a server as a whole.
SERVERS = [check for check in CHECKS if check in ("reachable", "statements", "grants_recorded", "reads_recorded")]


def test_a_table_that_has_the_name_of_a_guard_is_no_guard():
    tables = [table("public.guardians"), table("public.dbfleet_audit_guard")]
    coverage = {"auditable": 2, "audited": 2, "tables": tables}
    for name in ("public.guardians", "public.dbfleet_audit_guard"):
        missing = {"type": "missing", "detail": f"{name}: dbfleet_audit_insert is missing", "table": name}
        found = checks(host(trail(coverage=coverage, problems=[missing])))
        assert (found["drift"], found["append_only"]) == ("red", "ok"), name
    detail = "audit_log_data: dbfleet_audit_row_guard does not fire in every session"
    found = checks(host(trail(problems=[{"type": "disabled", "detail": detail, "table": "trail audit"}])))
    assert (found["drift"], found["append_only"]) == ("ok", "red")


THRESHOLDS = {
    "unsealed_rows": 1,
    "unsealed_hours": 1,
    "partitions_ahead": 1,
    "bulk_deletes": 0,
    "audit_failures": 0,
    "user_context": 90,
    "pending_restarts": 0,
}


def names(facts, **thresholds):
    return sorted(alert["name"] for alert in model(facts, thresholds=thresholds)["alerts"])


def test_a_threshold_whose_value_is_not_known_alerts():
    silent = host(trail(partitions=None, activity=None, seals=None), server={"restart": None})
    assert names(silent, **THRESHOLDS) == sorted(THRESHOLDS)
    assert names(silent) == []
    (alert,) = model(silent, thresholds={"bulk_deletes": 0})["alerts"]
    assert alert["text"] == "shop: bulk_deletes is not known, and a threshold asks for it"
    # A database in which nothing was changed lacks no user.
    assert names(host(trail(activity={"changes": 0})), user_context=90) == []


@pytest.mark.parametrize(("broken", "name"), [(UNREAD, "reachable"), (BARE, "trail_installed")])
def test_a_database_that_cannot_be_measured_alerts_once(broken, name):
    assert names(host(trail(), broken), **{**THRESHOLDS, "unsealed_rows": 100}) == [name]


def test_bulk_deletes_and_changes_without_a_user_count_all_and_not_those_that_are_listed():
    facts = host(trail(activity={"bulk_deletes": 9, "without_user": 60}))
    assert names(facts, bulk_deletes=8, user_context=50) == ["bulk_deletes", "user_context"]
    assert names(facts, bulk_deletes=9, user_context=40) == []


def test_a_truncate_does_not_say_how_many_rows_it_took_and_is_among_the_bulk_changes():
    bulk = [{"action": "TRUNCATE", "rows": None}, *[{"action": "DELETE", "rows": 5000}] * 60]
    actions = [entry["action"] for entry in model(host(trail(activity={"bulk": bulk})))["activity"]["bulk"]]
    assert actions == [*["DELETE"] * 50, "TRUNCATE"]


def test_rows_are_counted_to_a_limit_and_said_so():
    facts = host(trail(seals={"unsealed_rows": COUNT_LIMIT}, partitions={"catch_all_rows": COUNT_LIMIT}))
    found = model(facts)["hosts"][0]["checks"]
    for check in ("sealed", "catch_all_empty"):
        assert f"more than {COUNT_LIMIT - 1:,} rows" in found[check]["text"]
    assert names(facts, unsealed_rows=COUNT_LIMIT - 1) == ["unsealed_rows"]


def test_numbers_that_are_not_known_are_no_zeros():
    made = model(host(UNREAD))
    assert made["summary"]["changes"] is made["summary"]["failures"] is made["summary"]["unsealed_rows"] is None
    assert not [line for line in prometheus(made).splitlines() if 'database="patients"' in line]
    assert ", unknown changes" in lines(made, [])[0]


def test_databases_that_the_inventory_does_not_list_are_named():
    facts = host()
    facts["server"]["unlisted"] = ["billing", "old"]
    (finding,) = model(facts)["hosts"][0]["findings"]
    assert (finding["level"], finding["check"], finding["database"]) == ("amber", "coverage", "")
    assert finding["text"] == "2 databases that the inventory does not list: billing, old"


@pytest.mark.parametrize(("pending", "level"), [(["max_connections"], "amber"), ([], "ok")])
def test_a_login_without_superuser_tells_what_waits_for_a_restart_too(pending, level):
    assert checks(host(server={"restart": None, "pending_restart": pending}))["pending_restart"] == level


def test_a_check_for_a_database_that_no_server_has_is_red_and_one_that_another_has_is_not():
    def own(database, **found):
        return {"name": "users", "database": database, "value": 1, "threshold": 1, "ok": True, "error": None, **found}

    nowhere = {"value": None, "ok": False, "error": NO_DATABASE}
    facts = {
        "pg1": {**host(), "checks": [own("shop")]},
        "pg2": {**host(), "checks": [own("sh*", **nowhere), own("shpo", **nowhere)]},
    }
    made = report(facts, list(facts), OPTIONS)
    assert [(check["host"], check["database"]) for check in made["checks"]] == [("pg1", "shop"), ("pg2", "shpo")]
    assert [one["checks"]["user_checks"]["level"] for one in made["hosts"]] == ["ok", "red"]


@pytest.mark.parametrize(("expired", "level"), [(False, "ok"), (True, "unknown")])
def test_a_table_whose_triggers_nobody_sees_is_in_order_as_a_valid_exception(expired, level):
    load = table("public.load", None, exception={"reason": "load", "approved_by": "dpo", "expired": expired})
    coverage = {"auditable": 2, "audited": 1, "excepted": int(not expired), "tables": [table("public.orders"), load]}
    facts = host(trail(coverage=coverage))
    assert checks(facts)["coverage"] == level
    assert names(facts, coverage=100) == (["coverage"] if expired else [])


def test_a_database_that_the_inventory_does_not_list_is_named_unless_it_is_exempt():
    gathered = {
        "engine": "postgresql",
        "info": {"trails": [trail()], "unlisted": ["billing_copy", "scratch_1"]},
        "compared": [{"problems": []}],
        "targets": [{"name": "shop"}],
        "exempt_databases": ["scratch_*"],
    }
    found = model(host_facts(gathered, "2026-11-22"))["hosts"][0]["checks"]["coverage"]
    assert (found["level"], found["text"]) == ("amber", "1 database that the inventory does not list: billing_copy")
