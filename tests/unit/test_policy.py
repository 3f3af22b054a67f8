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


TABLE = ("id", "SSN", "Note", "s\u0130ze")


@pytest.mark.parametrize("key", ["only", "exclude", "redact", "hash"])
@pytest.mark.parametrize(
    ("named", "spelled"),
    [
        (["ssn"], ["SSN"]),
        (["NOTE", "Ssn", "id"], ["Note", "SSN", "id"]),
        (["note", "NOTE"], ["Note"]),
        (["size"], ["s\u0130ze"]),
        (["SSN", "id"], ["SSN", "id"]),
        # Of a table without the column: with an empty `only`, all columns would be recorded.
        (["gone"], ["gone"]),
    ],
)
def test_columns_are_spelled_as_a_table_spells_them(key, named, spelled):
    policy = parse(columns={key: named})
    found = policy.spelled(TABLE)
    assert found.definition()["columns"] == {**policy.definition()["columns"], key: spelled}


def test_a_policy_that_is_spelled_as_the_table_is_stays_as_it_is():
    policy = parse(columns={"exclude": ["Note"], "redact": ["SSN"], "hash": ["id"]}, when="NEW.ID > 0")
    assert policy.spelled(TABLE) == policy


@pytest.mark.parametrize(
    ("column", "redacted", "hashed"), [("ssn", True, False), ("SSN", False, True), ("Ssn", True, False)]
)
def test_of_two_spellings_the_tables_own_decides_what_masks_a_column(column, redacted, hashed):
    policy = parse(columns={"redact": ["ssn"], "hash": ["SSN"]}).spelled(["id", column])
    # What hashes goes before what redacts.
    assert (column in policy.redact and column not in policy.hash, column in policy.hash) == (redacted, hashed)


def test_columns_that_differ_in_letters_of_which_servers_know_no_pair_are_two():
    policy = parse(columns={"redact": ["\u019e"]})
    assert policy.spelled(["\u019e", "\u0220"]).redact == ("\u019e",)


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
