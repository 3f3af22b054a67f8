# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which policy rules which table."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.exemption import parse_exemptions
from ansible_collections.dbfleet.audit.plugins.module_utils._core.policy import parse_policies
from ansible_collections.dbfleet.audit.plugins.module_utils._core.selection import (
    Selection,
    other_spellings,
    select,
)


@dataclasses.dataclass
class Table:
    """A table on no particular engine."""

    schema: str
    name: str
    columns: tuple[str, ...] = ("id",)
    obstacle: str | None = None
    parent: tuple[str, str] | None = None
    root: tuple[str, str] | None = None


def choose(
    policies: list[dict[str, t.Any]],
    *tables: Table,
    exempt: t.Sequence[str] = (),
    missing: bool = False,
    ignore_case: bool = False,
) -> Selection:
    exemptions = [{"table": text, "reason": "r", "approved_by": "x"} for text in exempt]
    return select(
        parse_policies(policies, "shop"),
        parse_exemptions(exemptions, "shop"),
        {(table.schema, table.name): table for table in tables},
        "shop",
        missing,
        ignore_case=ignore_case,
    )


def names(selection: Selection) -> dict[str, str]:
    return {table: policy.name for (_unused, table), policy in selection.policies.items()}


ALL = {"tables": ["s.*"], "name": "all"}


def test_the_first_policy_that_matches_wins():
    policies = [{"tables": ["s.a"], "name": "first"}, ALL, {"tables": ["*.b"], "name": "never"}]
    assert names(choose(policies, Table("s", "a"), Table("s", "b"))) == {"a": "first", "b": "all"}


def test_what_a_policy_excludes_may_be_another_ones():
    policies = [{**ALL, "exclude": ["s.b*"]}, {"tables": ["s.b2"], "name": "later"}]
    assert names(choose(policies, Table("s", "a"), Table("s", "b1"), Table("s", "b2"))) == {"a": "all", "b2": "later"}


def test_a_partition_is_left_to_its_root_unless_the_root_is_not_audited():
    root, part = Table("s", "root"), Table("s", "part", root=("s", "root"))
    assert names(choose([ALL], root, part)) == {"root": "all"}
    assert names(choose([{"tables": ["s.part"]}], root, part)) == {"part": "s.part"}
    assert names(choose([ALL], root, part, exempt=["s.root"])) == {"part": "all"}


def test_children_follow_their_parent_and_may_have_a_policy_of_their_own():
    tables = [Table("s", "p"), Table("x", "c", parent=("s", "p")), Table("y", "g", parent=("x", "c"))]
    assert names(choose([ALL], *tables)) == {"p": "all", "c": "all", "g": "all"}
    own = {"tables": ["x.c"], "name": "own"}
    assert names(choose([ALL, own], *tables)) == {"p": "all", "c": "own", "g": "own"}


def test_inheritance_that_runs_in_a_circle_ends():
    loop = [Table("x", "a", parent=("x", "b")), Table("x", "b", parent=("x", "a")), Table("s", "c")]
    assert names(choose([ALL], *loop)) == {"c": "all"}


def test_obstacles_are_skipped_for_wildcards_and_refused_for_exact_names():
    view = Table("s", "v", obstacle="a view")
    selection = choose([ALL], Table("s", "a"), view)
    assert (selection.skipped, selection.auditable) == ({("s", "v"): "a view"}, 1)
    with pytest.raises(AuditError, match=r"'s\.v', which cannot be audited: a view"):
        choose([{"tables": ["s.v"]}], view)


def test_an_exception_goes_before_every_policy():
    selection = choose([{"tables": ["s.a"]}, ALL], Table("s", "a"), Table("s", "b"), exempt=["s.a"])
    assert names(selection) == {"b": "all"}
    assert list(selection.exempted) == [("s", "a")]


def test_a_pattern_without_a_table_is_refused_unless_it_may_be():
    policies = [{"tables": ["s.a", "s.gone"]}]
    with pytest.raises(AuditError, match=r"'s\.gone' matches no table"):
        choose(policies, Table("s", "a"))
    assert names(choose(policies, Table("s", "a"), missing=True)) == {"a": "s.a, s.gone"}


def test_a_column_must_be_in_one_of_the_policys_own_tables():
    policies = [{"tables": ["s.a"], "columns": {"hash": ["ssn"]}}, ALL]
    with pytest.raises(AuditError, match=r"column 'ssn' is in none of its tables \(s\.a\)"):
        choose(policies, Table("s", "a"), Table("s", "b", columns=("id", "ssn")))


def test_a_column_in_other_letters_is_one_where_the_server_says_so():
    policies = [{"tables": ["s.a"], "columns": {"redact": ["ssn"]}}]
    table = Table("s", "a", columns=("id", "SSN"))
    assert names(choose(policies, table, ignore_case=True)) == {"a": "s.a"}
    with pytest.raises(AuditError, match="column 'ssn' is in none of its tables"):
        choose(policies, table)
    with pytest.raises(AuditError, match="column 'ssn' is in none of its tables"):
        choose(policies, Table("s", "a", columns=("id", "SSNo")), ignore_case=True)


def test_a_column_that_only_its_letters_keep_from_its_policy_is_warned_of_once():
    tables = [Table("s", "a", columns=("id", "ssn")), Table("s", "b", columns=("id", "SSN"))]
    found = {(table.schema, table.name): table for table in tables}
    (warning,) = other_spellings(choose([{**ALL, "columns": {"redact": ["ssn"]}}], *tables), found)
    assert warning.startswith("s.b: policy 'all' names 'ssn', which to the server is another column than its 'SSN'")
    assert not other_spellings(choose([{**ALL, "columns": {"redact": ["ssn", "SSN"]}}], *tables), found)


def test_a_table_that_has_the_named_column_may_have_its_like():
    table = Table("s", "a", columns=("ssn", "SSN"))
    selection = choose([{**ALL, "columns": {"redact": ["ssn"]}}], table)
    assert not other_spellings(selection, {("s", "a"): table})
