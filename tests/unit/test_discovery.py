# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What names say of columns, what becomes of it for a table, and the policy that is proposed."""

from __future__ import annotations

import pytest
import yaml

from ansible_collections.dbfleet.audit.plugins.module_utils._core.discovery import (
    LEAST_SCORE,
    Columns,
    discover,
    judge,
    pattern,
    proposal,
    words,
)
from ansible_collections.dbfleet.audit.plugins.module_utils._core.discovery_terms import KINDS
from ansible_collections.dbfleet.audit.plugins.module_utils._core.policy import OPERATIONS, parse_policies


def found(schema="public", name="t", rows=50_000, **types):
    return discover([Columns(schema, name, types, rows)], OPERATIONS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("birth_date", ["birth", "date"]),
        ("BirthDate", ["birth", "date"]),
        ("BIRTH_DATE", ["birth", "date"]),
        ("userSSNHash", ["user", "ssn", "hash"]),
        ("address2", ["address", "2"]),
        ("Straße", ["strasse"]),
        ("prénom", ["prenom"]),
        ("Behörde", ["behoerde"]),
        ("電話", []),
    ],
)
def test_words(name, expected):
    assert words(name) == expected


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("ssn", "national identifier"),
        ("patient_ssn", "national identifier"),
        ("card_holder_ssn", "national identifier"),
        ("email_token", "secret or token"),
        ("codice_fiscale", "national identifier"),
        ("passport_no", "passport or driving licence"),
        ("dob", "date of birth"),
        ("date_of_birth", "date of birth"),
        ("geburtsdatum", "date of birth"),
        ("email", "email address"),
        ("customerEmails", "email address"),
        ("phone_number", "phone number"),
        ("last_name", "name of a person"),
        ("street_address", "postal address"),
        ("iban", "bank account"),
        ("account_no", "bank account"),
        ("card_number", "card number"),
        ("cvv", "card security code"),
        ("salary", "salary or income"),
        ("diagnosis", "diagnosis"),
        ("icd10_code", "diagnosis"),
        ("mrn", "medical record number"),
        ("password_hash", "password"),
        ("mot_de_passe", "password"),
        ("api_token", "secret or token"),
        ("role_id", "role"),
        ("is_admin", "permission"),
        ("ip_address", "online identifier"),
    ],
)
def test_columns_that_are_meant(column, kind):
    finding = judge(column, "text")
    assert finding
    assert (finding.kind.name, finding.weak) == (kind, False)


@pytest.mark.parametrize(
    "column",
    ["addressed", "passenger", "compass", "passed", "granted", "tokenised", "rolled", "id", "status", "name", "note"],
)
def test_parts_of_words_mean_nothing(column):
    assert judge(column, "text") is None


@pytest.mark.parametrize(
    ("column", "type_name"),
    [
        ("email_sent_at", "timestamp with time zone"),
        ("email_verified", "boolean"),
        ("email", "boolean"),
        ("password_changed_at", "datetime"),
        ("password_attempts", "integer"),
        ("has_passport", "tinyint(1)"),
        ("address_id", "bigint"),
        ("token_count", "int(11)"),
        ("phone_type", "text"),
    ],
)
def test_names_and_types_that_speak_of_something_else_count_little_and_are_not_masked(column, type_name):
    finding = judge(column, type_name)
    assert finding
    assert finding.weak
    assert found(**{column: type_name}) == []


def test_the_name_of_a_person_is_in_a_table_of_people():
    assert judge("name", "text", of_people=True).kind.name == "name of a person"
    (entry,) = discover([Columns("public", "clients", {"id": "int", "name": "text"}, 10_000)], OPERATIONS)
    assert entry["columns"] == {"name": "name of a person"}


def test_the_score_rises_with_kinds_names_and_rows():
    email = found(email="text")[0]["score"]
    assert email == 50
    # A second address is no news, a national identifier is.
    assert found(email="text", work_email="text")[0]["score"] == email
    assert found(email="text", ssn="text")[0]["score"] == 95
    assert found(name="customers", email="text")[0]["score"] == 62
    assert found(rows=0, email="text")[0]["score"] == 40
    assert found(rows=None, email="text")[0]["score"] == email


def test_tables_are_ranked_and_what_says_nothing_is_left_out():
    tables = [
        Columns("public", "log", {"id": "int", "note": "text"}, 1_000_000),
        Columns("public", "b", {"email": "text"}, 10_000),
        Columns("public", "a", {"email": "text"}, 10_000),
        Columns("public", "patients", {"ssn": "text", "diagnosis": "text"}, 10),
    ]
    assert [entry["table"] for entry in discover(tables, OPERATIONS)] == ["public.patients", "public.a", "public.b"]
    assert all(entry["score"] >= LEAST_SCORE for entry in discover(tables, OPERATIONS))


def test_a_policy_hashes_identifiers_and_redacts_secrets():
    (entry,) = found(ssn="text", iban="text", password="text", card_number="text", diagnosis="text")
    assert entry["categories"] == ["credentials", "financial", "health", "personal"]
    assert entry["policy"] == {
        "tables": ["public.t"],
        "operations": list(OPERATIONS),
        "columns": {"hash": ["ssn"], "redact": ["password", "card_number"]},
        "classification": "restricted",
        "tags": ["GDPR", "HIPAA", "PCI", "SOX"],
    }
    (plain,) = found(email="text")
    assert (plain["policy"]["classification"], plain["policy"]["tags"]) == ("confidential", ["GDPR"])
    assert "columns" not in plain["policy"]


ODD = [
    "public",
    "Odd.Name",
    'quo"te',
    "star*",
    "[a]",
    "new\nline",
    "ünïcode",
    "on",
    "with space",
    "\u2028",
    "a: b",
    "#x",
]


@pytest.mark.parametrize("name", ODD)
def test_what_is_proposed_survives_being_pasted_whatever_the_names_are(name):
    discovered = discover([Columns(name, name, {"email": "text", f"{name}_ssn": "text"}, 7)], OPERATIONS)
    pasted = yaml.safe_load(proposal(discovered))
    assert pasted == [discovered[0]["policy"]]
    (policy,) = parse_policies(pasted, "shop")
    assert policy.matches(name, name)
    assert not policy.matches(name, name + "x")
    assert all(part.exact for part in policy.tables)


def test_a_name_is_no_template():
    text = proposal(discover([Columns("public", "{{ x }}", {"ssn": "text"}, 7)], OPERATIONS))
    assert '- tables: [!unsafe "public.\\"{{ x }}\\""]' in text


def test_patterns_are_quoted_only_where_they_must_be():
    assert pattern("public", "users") == "public.users"
    assert pattern("public", "Users") == "public.Users"
    assert pattern("a.b", "u*") == '"a.b"."u*"'


def test_no_term_means_two_things():
    terms = [term for kind in KINDS for term in kind.terms]
    assert sorted({term for term in terms if terms.count(term) > 1}) == []
    assert all(term.isascii() and term == term.lower() for term in terms)
