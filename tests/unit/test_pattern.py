# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Patterns on schema.table match what a shell's globs would, half by half."""

from __future__ import annotations

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.pattern import Pattern


@pytest.mark.parametrize(
    ("text", "schema", "table", "expected"),
    [
        ("public.users", "public", "users", True),
        ("public.users", "public", "users2", False),
        ("public.users", "public", "Users", False),
        ("public.*", "public", "anything at all", True),
        ("public.*", "public", "a.b", True),
        ("*.*", "s", "t", True),
        ("*.users", "a.b", "users", True),
        ("pub*.u?er", "public", "user", True),
        ("pub*.u?er", "public", "uer", False),
        ("public.t[0-9]", "public", "t5", True),
        ("public.t[0-9]", "public", "tx", False),
        ("public.t[!0-9]", "public", "tx", True),
        ("public.t[!0-9]", "public", "t5", False),
        ("public.t[^0]", "public", "t^", True),
        ("public.t[^0]", "public", "t1", False),
        ("public.t[]x]", "public", "t]", True),
        ("public.t[!]x]", "public", "t]", False),
        ("public.t[[]", "public", "t[", True),
        ("public.t[\\d]", "public", "t5", False),
        ("public.a+b", "public", "a+b", True),
        ("public.a+b", "public", "aab", False),
        ("public.(a|b)", "public", "a", False),
        ("public.a$", "public", "a$", True),
        ("public.a{2}", "public", "aa", False),
        ("public.a", "public", "a\n", False),
        ("public.*", "public", "line\nbreak", True),
        ('public."a.b"', "public", "a.b", True),
        ('public."a*"', "public", "a*", True),
        ('public."a*"', "public", "ab", False),
        ('"a""b".t', 'a"b', "t", True),
        ("public.ü*", "public", "übung", True),
    ],
)
def test_matching(text, schema, table, expected):
    assert Pattern.parse(text, "here").matches(schema, table) is expected


@pytest.mark.parametrize("text", ["users", "", "a.b.c", ".users", "public.", 'public."open', "public.t[9-0]"])
def test_what_is_no_pattern_is_refused_with_its_place(text):
    with pytest.raises(AuditError, match="policies") as caught:
        Pattern.parse(text, "shop: policies[3]").matches("public", "t")
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "exact"), [("a.b", True), ("a.*", False), ("?.b", False), ("a.[bc]", False), ('a."*"', True)]
)
def test_exact_patterns_mean_one_table(text, exact):
    assert Pattern.parse(text, "here").exact is exact
