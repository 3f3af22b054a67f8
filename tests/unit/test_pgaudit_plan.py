# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Object auditing: the grants that a relation's role has become those that the options ask for, and no others."""

from __future__ import annotations

import re

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.plan import Plan
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql.pgaudit_objects import (
    AuditedObject,
    DatabaseCatalog,
    Relation,
    plan_extension,
    plan_objects,
)

COLUMNS = ("id", "name", "ssn")


class Plain:
    """A quoting that leaves names as they are: quoting has tests of its own."""

    def identifier(self, *parts):
        return ".".join(parts)

    def literal(self, value):
        return f"'{value}'"


def entry(table="care.patients", columns=(), privileges=("select",)):
    return AuditedObject.parse(
        {"database": "clinic", "table": table, "columns": list(columns), "privileges": list(privileges)}
    )


def relation(*grants, name="patients", columns=COLUMNS):
    return Relation("care", name, columns, frozenset(grants))


def planned(entries, *relations):
    plan = Plan()
    number = plan_objects(plan, entries, "auditor", "clinic", DatabaseCatalog(None, None, relations))
    return number, plan.statements(Plain())


def whole(*privileges):
    return {(privilege, None) for privilege in privileges}


def after(grants, statements):
    """Return a relation's grants after these statements, by the rules of GRANT and REVOKE."""
    held = set(grants)
    for statement in statements:
        verb, rest = statement.split(" ", 1)
        for privilege, columns in re.findall(r"([A-Z]+)(?: \(([^)]+)\))?", rest.partition(" ON TABLE ")[0]):
            names = {(privilege.lower(), column) for column in (columns.split(", ") if columns else [None])}
            if verb == "GRANT":
                held |= names
            else:
                held = {grant for grant in held if not {grant, (grant[0], None)} & names}
    return held


#: Grants that there are, and entries that are asked for -> the grants that must come out.
CHANGES = {
    "whole": ((), [entry()], whole("select")),
    "column": ((), [entry(columns=["ssn"])], {("select", "ssn")}),
    "several": (
        (),
        [entry(columns=["ssn", "name"], privileges=["select", "update"])],
        {("select", "ssn"), ("select", "name"), ("update", "ssn"), ("update", "name")},
    ),
    "whole to column": (whole("select"), [entry(columns=["ssn"])], {("select", "ssn")}),
    "column to whole": ({("select", "ssn")}, [entry()], whole("select")),
    "both to column": ({("select", None), ("select", "ssn")}, [entry(columns=["ssn"])], {("select", "ssn")}),
    "both to whole": ({("select", None), ("select", "ssn")}, [entry()], whole("select")),
    "two entries, the whole covers": ((), [entry(), entry(columns=["ssn"])], whole("select")),
    "column and delete": (
        whole("select", "delete"),
        [entry(columns=["ssn"]), entry(privileges=["delete"])],
        {("select", "ssn"), ("delete", None)},
    ),
    "other rights go": (
        whole("select", "truncate", "references") | {("update", "name")},
        [entry()],
        whole("select"),
    ),
    "nothing asked": (whole("select") | {("update", "name")}, [], set()),
    "another column": ({("select", "name"), ("update", None)}, [entry(columns=["ssn"])], {("select", "ssn")}),
}


@pytest.mark.parametrize("case", CHANGES)
def test_grants_become_what_is_asked_for_and_then_nothing_is_planned(case):
    held, entries, expected = CHANGES[case]
    _number, statements = planned(entries, relation(*held))
    assert statements != []
    assert after(held, statements) == expected
    assert planned(entries, relation(*expected))[1] == []


def test_a_column_that_loses_its_grant_with_the_whole_relation_gets_it_back():
    assert planned([entry(columns=["ssn"])], relation(("select", None), ("select", "ssn")))[1] == [
        "REVOKE SELECT ON TABLE care.patients FROM auditor",
        "GRANT SELECT (ssn) ON TABLE care.patients TO auditor",
    ]


def test_a_whole_relation_and_columns_in_one_statement():
    entries = [entry(privileges=["delete"]), entry(columns=["ssn", "name"], privileges=["select", "update"])]
    assert planned(entries, relation())[1] == [
        "GRANT DELETE, SELECT (name, ssn), UPDATE (name, ssn) ON TABLE care.patients TO auditor"
    ]


def test_relations_of_a_pattern_may_lack_the_column_but_not_all_of_them():
    visits = relation(name="visits", columns=("id",))
    number, statements = planned([entry("care.*", ["ssn"])], relation(), visits)
    assert number == 1
    assert statements == ["GRANT SELECT (ssn) ON TABLE care.patients TO auditor"]
    with pytest.raises(AuditError, match=r"care\.\* has no column ssn; it has id"):
        planned([entry("care.*", ["ssn"])], visits)


def test_a_misspelt_column_is_named_alone():
    with pytest.raises(AuditError, match=r"clinic: care\.patients has no column snn; it has id, name, ssn"):
        planned([entry(columns=["ssn", "snn"])], relation())


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(AuditError, match=r"clinic: care\.doctors matches no table, view or foreign table"):
        planned([entry("care.doctors")], relation())


@pytest.mark.parametrize("privileges", [["delete"], ["select", "delete"]])
def test_delete_is_never_limited_to_columns(privileges):
    with pytest.raises(AuditError, match="delete cannot be audited by column"):
        entry(columns=["ssn"], privileges=privileges)
    assert entry(privileges=privileges).grants == whole(*privileges)


def test_select_is_recorded_unless_something_else_is_asked_for():
    assert AuditedObject.parse({"database": "clinic", "table": "a.b"}).grants == whole("select")


@pytest.mark.parametrize(
    ("installed", "available", "loaded", "statement", "version"),
    [
        (None, "1.7", True, ["CREATE EXTENSION pgaudit SCHEMA public"], "1.7"),
        (None, "1.7", False, [], None),
        ("1.7", "1.7", True, [], "1.7"),
        ("1.6", "1.7", True, ["ALTER EXTENSION pgaudit UPDATE"], "1.7"),
        ("1.7", None, True, [], "1.7"),
    ],
)
def test_an_extension_is_made_updated_or_waits(installed, available, loaded, statement, version):
    plan = Plan()
    catalog = DatabaseCatalog(installed, available, [])
    assert plan_extension(plan, "clinic", catalog, "public", loaded) == version
    assert plan.statements(Plain()) == statement
