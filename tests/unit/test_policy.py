# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Policies and exceptions as the user writes them: defaults, checks, and what is kept in the database."""

from __future__ import annotations

import datetime
import json

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.exemption import parse_exemptions
from ansible_collections.dbfleet.audit.plugins.module_utils._core.policy import (
    is_sensitive,
    parse_policies,
)


def parse(**keys):
    return parse_policies([{"tables": ["public.users"], **keys}], "shop")[0]


def test_defaults_are_the_complete_and_safe_ones():
    policy = parse()
    assert policy.name == "public.users"
    assert policy.operations == ("insert", "update", "delete", "truncate")
    assert (policy.capture, policy.update_image, policy.on_failure) == ("row", "full", "abort")
    assert (policy.when, policy.require_context, policy.auto_attach) == (None, (), False)


def test_the_order_in_which_operations_are_written_means_nothing():
    assert parse(operations=["delete", "insert"]) == parse(operations=["insert", "delete"])


def test_the_definition_is_complete_and_comparable():
    keys = {"when": "NEW.id > 0", "columns": {"redact": ["a"], "hash": ["b"]}, "tags": ["ü"], "retention": "7y"}
    definition = parse(**keys).definition()
    assert json.loads(parse(**keys).definition_text()) == definition
    assert definition["columns"] == {"only": [], "exclude": [], "redact": ["a"], "hash": ["b"]}
    for change in (
        {"when": None},
        {"tags": []},
        {"columns": {"redact": ["b"]}},
        {"capture": "row", "when": "NEW.id>0"},
    ):
        assert parse(**{**keys, **change}).definition() != definition


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"tables": []}, "`tables` is missing"),
        ({"tables": "public.users"}, "not a list"),
        ({"tables": ["public.users", 5]}, "not a list of text"),
        ({"operation": ["insert"]}, "did you mean 'operations'"),
        ({"when": 5}, "`when` is not a text"),
        ({"when": "  "}, "`when` is not a text"),
        ({"auto_attach": "yes"}, "`auto_attach` is neither true nor false"),
        ({"columns": ["a"]}, "`columns` is not a dictionary"),
        ({"columns": {"mask": ["a"]}}, "unknown key 'mask'"),
        ({"columns": {"redact": "a"}}, "`redact` is not a list"),
        ({"columns": {"redact": ["a", "a"]}}, "'a' twice"),
        ({"on_failure": "ignore"}, "abort or warn"),
        ({"require_context": ["x'; --"]}, "require_context"),
        ({"capture": "statement", "when": "true"}, "`when`"),
    ],
)
def test_a_mistake_names_database_policy_and_key(keys, words):
    with pytest.raises(AuditError) as caught:
        parse(**keys)
    assert str(caught.value).startswith("shop: policies[0]")
    assert words in str(caught.value)


def test_a_policy_that_is_no_dictionary_is_refused():
    with pytest.raises(AuditError, match=r"policies\[1\] is not a dictionary"):
        parse_policies([{"tables": ["a.b"]}, "a.c"], "shop")


@pytest.mark.parametrize(
    "column",
    [
        "password",
        "Password_Hash",
        "user_passwd",
        "client_secret",
        "ACCESS_TOKEN",
        "api_key",
        "apikey",
        "cvv2",
        "card_number",
        "cardnumber",
    ],
)
def test_names_that_say_secret(column):
    assert is_sensitive(column)


@pytest.mark.parametrize("column", ["id", "name", "pass", "key", "card", "passenger"])
def test_names_that_do_not(column):
    assert not is_sensitive(column)


def test_the_last_day_of_an_exception_is_a_day_of_it():
    entry = {"table": "a.b", "reason": "r", "approved_by": "x", "until": "2027-03-31"}
    (exemption,) = parse_exemptions([entry], "shop")
    assert not exemption.expired(datetime.date(2027, 3, 31))
    assert exemption.expired(datetime.date(2027, 4, 1))
    assert not parse_exemptions([{**entry, "until": None}], "shop")[0].expired(datetime.date(9999, 1, 1))
