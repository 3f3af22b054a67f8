# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Values of pgaudit's settings: checked, written, and compared by what they mean."""

from __future__ import annotations

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.pgaudit import same
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.pgaudit_settings import (
    CLASSES,
    classes,
    meaning,
    parse_settings,
    shows_parameters,
)

KNOWN = ("log", "log_catalog", "log_level", "log_parameter", "log_parameter_max_size", "role")


def parsed(**settings):
    return parse_settings(settings, "settings", KNOWN)


def refusal(**settings):
    with pytest.raises(AuditError) as caught:
        parsed(**settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("write,ddl", "ddl, write"),
        ("DDL, Write", "write, ddl"),
        ("all", "ddl, function, misc, misc_set, read, role, write"),
        ("all, -read", "ddl, function, misc, misc_set, role, write"),
        ("none", ""),
        ("none, read", "read"),
        ("read, none", "read"),
        ("read, -read", "none"),
        ("all, -all", "none"),
        ("read, read", "read"),
        ("misc", "misc_set, misc"),
        ("all, -misc", "ddl, function, read, role, write"),
        ("-read", "none"),
    ],
)
def test_lists_that_mean_the_same(one, other):
    assert same("pgaudit.log", one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-read, all", "all, -read"),
        ("misc", "misc_set"),
        ("misc", "misc, -misc_set"),
        ("read", "write"),
        ("ddl", "none"),
    ],
)
def test_lists_that_mean_something_else(one, other):
    assert not same("pgaudit.log", one, other)


def test_the_order_of_a_list_counts():
    assert classes("-read, all") == frozenset(CLASSES)
    assert classes("all, -read") == frozenset(CLASSES) - {"read"}


@pytest.mark.parametrize("text", ["on", "true", "YES", "1", " on "])
def test_words_for_on(text):
    assert meaning("pgaudit.log_catalog", text) is True
    assert not same("pgaudit.log_catalog", text, "off")


@pytest.mark.parametrize("text", ["off", "False", "no", "0"])
def test_words_for_off(text):
    assert meaning("pgaudit.log_catalog", text) is False


def test_a_role_is_compared_letter_by_letter():
    assert not same("pgaudit.role", "Auditor", "auditor")
    assert same("pgaudit.log_level", "LOG", "log")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["ddl", "role"], "ddl, role"),
        ("ddl,role", "ddl, role"),
        (["ALL", "-Misc"], "all, -misc"),
        ([], "none"),
        ("", "none"),
        (["none"], "none"),
        ([" ddl ", ""], "ddl"),
    ],
)
def test_classes_are_written_in_one_form(value, text):
    assert parsed(log=value) == {"pgaudit.log": text}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("log_catalog", True, "on"),
        ("log_catalog", False, "off"),
        ("log_catalog", "yes", "on"),
        ("log_catalog", 0, "off"),
        ("log_level", "NOTICE", "notice"),
        ("log_parameter_max_size", 1024, "1024"),
        ("role", " auditor ", "auditor"),
        ("pgaudit.role", "auditor", "auditor"),
    ],
)
def test_values_are_written_as_the_server_takes_them(name, value, text):
    assert parsed(**{name: value}) == {f"pgaudit.{name.removeprefix('pgaudit.')}": text}


def test_an_unknown_setting_is_named_with_its_neighbour_and_all_that_there_are():
    said = refusal(log_catalogue=False)
    assert (
        "settings: the installed version of pgaudit has no setting 'log_catalogue'; did you mean log_catalog?" in said
    )
    assert ", ".join(sorted(KNOWN)) in said
    assert "did you mean" not in refusal(xyz=1)


def test_any_name_is_taken_while_nobody_can_know_the_version():
    assert parse_settings({"log_rows": True}, "settings", None) == {"pgaudit.log_rows": "on"}


def test_an_unknown_class_is_named_with_its_neighbour_and_all_that_there_are():
    said = refusal(log=["ddl", "-reed"])
    assert "settings: log: '-reed' is no class of pgaudit; did you mean read?" in said
    assert "ddl, function, misc, misc_set, read, role, write, all and none" in said


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("log_catalog", "maybe", "'maybe', which is neither on nor off"),
        ("log_catalog", 2, "2, which is neither on nor off"),
        ("log_level", "loud", "'loud', which is none of debug5, "),
        ("log_level", "error", "which is none of "),
        ("log_parameter_max_size", "-1", "'-1', which is no number of bytes"),
        ("log_parameter_max_size", "1kB", "which is no number of bytes"),
    ],
)
def test_a_wrong_value_is_named(name, value, words):
    assert f"settings: {name} is " in refusal(**{name: value})
    assert words in refusal(**{name: value})


@pytest.mark.parametrize(
    ("log", "parameter", "shown"),
    [
        ("read", "on", True),
        ("ddl, WRITE", "true", True),
        ("all", "on", True),
        ("misc", "on", True),
        ("function", "1", True),
        ("ddl, role, misc_set", "on", False),
        ("all, -read, -write, -function, -misc", "on", False),
        ("all", "off", False),
        ("none", "on", False),
    ],
)
def test_parameters_are_shown_by_classes_that_carry_values(log, parameter, shown):
    assert shows_parameters({"pgaudit.log": log, "pgaudit.log_parameter": parameter}) is shown


def test_parameters_are_not_shown_by_default():
    assert not shows_parameters({"pgaudit.log": "all"})
    assert not shows_parameters({"pgaudit.log_parameter": "on"})


@pytest.mark.parametrize(
    ("current", "wanted", "equal"),
    [
        ("on", "on", True),
        ("true", "on", True),
        ("all", "on", True),
        ("receipt, authentication, authorization", "on", True),
        ("receipt,authentication", "on", False),
        ("authorization", "receipt", False),
        ("Receipt , setup_durations", "receipt", True),
        ("", "on", False),
        ("off", "on", False),
        ("off", "off", True),
        ("", "off", True),
        ("none", "off", True),
        ("receipt", "off", False),
        ("all", "off", False),
    ],
)
def test_log_connections_is_a_switch_until_postgresql_17_and_a_list_from_18_on(current, wanted, equal):
    assert same("log_connections", current, wanted) is equal


def test_settings_beside_pgaudits_own():
    assert same("log_disconnections", "true", "on")
    assert not same("log_disconnections", "off", "on")
    assert not same("log_line_prefix", "%m ", "%m")
