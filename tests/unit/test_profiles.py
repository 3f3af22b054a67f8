# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Compliance profiles: what they hold is known, cited and wired, and the strictest of several counts."""

from __future__ import annotations

import re

import pytest
import running
import yaml

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.retention import Age
from ansible_collections.dbfleet.audit.plugins.plugin_utils import _profiles
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_alerts import THRESHOLDS
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_checks import CHECKS

ROLES = running.ROOT / "roles"


def options_of_roles() -> set[str]:
    names = set()
    for path in ROLES.glob("*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            names |= set(entry.get("options", {}))
    return names


@pytest.mark.parametrize("name", _profiles.PROFILES)
def test_every_control_names_known_checks_and_says_where_it_is_from_and_what_auditing_leaves_open(name):
    profile = _profiles.load([name])[name]
    assert profile["controls"]
    assert len({control["control"] for control in profile["controls"]}) == len(profile["controls"])
    for control in profile["controls"]:
        where = (name, control["control"])
        assert set(control) == {"control", "title", "source", "says", "covers", "leaves", "checks"}, where
        assert control["source"].startswith("https://"), where
        assert all(isinstance(control[key], str) and control[key] for key in control if key != "checks"), where
        assert set(control["checks"]) <= set(CHECKS), where
    if profile["retention"]:
        least = Age.parse(profile["retention"], name)
        ages = profile["defaults"]["audit_archive_retention"]
        assert not any(Age.parse(age, category) < least for category, age in ages.items())


@pytest.mark.parametrize("name", _profiles.PROFILES)
def test_every_default_is_one_of_a_role_that_asks_for_it(name):
    defaults = _profiles.load([name])[name]["defaults"]
    assert set(defaults) <= options_of_roles()
    assert set(defaults.get("audit_report_thresholds", {})) <= set(THRESHOLDS)
    texts = "".join(path.read_text(encoding="utf-8") for path in ROLES.glob("*/defaults/main.yml"))
    asked = set(re.findall(r"profile_default\(audit_profiles \| default\(\[\]\),\s+'(\w+)'\)", texts))
    assert set(defaults) <= asked
    for variable, value in defaults.items():
        assert _profiles.default(value, [name], variable) == value


def test_without_a_profile_the_roles_own_default_stays():
    given = {"log": ["ddl", "role"], "log_catalog": False}
    assert _profiles.default(given, [], "pgaudit_settings") == given


@pytest.mark.parametrize(
    ("variable", "given", "stricter", "expected"),
    [
        (
            "pgaudit_settings",
            {"log": ["ddl"], "log_catalog": False},
            {"log": ["read", "ddl"]},
            {"log": ["ddl", "read"], "log_catalog": False},
        ),
        ("postgresql_audit_events", ["ddl", "app"], ["login"], ["ddl", "app", "login"]),
        ("audit_archive_older_than", "13mo", "2y", "2y"),
        ("audit_archive_older_than", "13mo", "90d", "13mo"),
        # One log is kept for all frameworks: the longest age is that of each category.
        ("audit_archive_retention", {"a": "6y"}, {"b": "7y", "c": "1y"}, {"a": "7y", "b": "7y", "c": "7y"}),
        ("audit_archive_retention", {}, {"pci": "1y"}, {"pci": "1y"}),
        ("audit_seal_max_unsealed_hours", 24, 4, 4),
        ("pgaudit_restart", "auto", "never", "never"),
        ("audit_controller_seal_calendar", "*:0/15", "*:0/5", "*:0/5"),
        ("audit_controller_seal_cron", "*/15 * * * *", "*/5 * * * *", "*/5 * * * *"),
        (
            "audit_report_thresholds",
            {"coverage": 90, "unsealed_hours": 24},
            {"coverage": 100, "unsealed_hours": 4, "bulk_deletes": 0},
            {"coverage": 100, "unsealed_hours": 4, "bulk_deletes": 0},
        ),
    ],
)
def test_the_stricter_of_two_values_counts_whichever_comes_first(variable, given, stricter, expected):
    rule = _profiles._RULES[variable]
    assert rule(given, stricter) == expected
    turned = rule(stricter, given)
    if isinstance(expected, (str, int)):
        assert turned == expected
    elif isinstance(expected, list):
        assert set(turned) == set(expected)
    else:
        assert {key: sorted(value) if isinstance(value, list) else value for key, value in turned.items()} == expected


def test_several_profiles_together():
    assert _profiles.default(24, ["hipaa", "pci_dss"], "audit_seal_max_unsealed_hours") == 4
    assert _profiles.least_retention(["pci_dss", "sox", "gdpr", "hipaa"]) == "7y"
    assert _profiles.least_retention(["gdpr"]) is None


def test_a_profile_that_there_is_none_of_is_named_with_those_that_there_are():
    with pytest.raises(AuditError, match=r"there is no hippa; choose from gdpr, hipaa, iso27001"):
        _profiles.default(24, ["hippa"], "audit_seal_max_unsealed_hours")
