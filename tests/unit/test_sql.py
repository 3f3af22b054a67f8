# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SQL templates: places are filled by the engine's quoting, and nothing else in a text is touched."""

from __future__ import annotations

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.sql import (
    Identifier,
    Joined,
    Literal,
    Verbatim,
    identifiers,
    literals,
    sql,
)


class Brackets:
    """A quoting that shows what was quoted, and how."""

    def identifier(self, *parts):
        return "[" + "][".join(parts) + "]"

    def literal(self, value):
        return f"<{value}>"


def render(statement):
    return statement.render(Brackets())


def test_names_values_and_nested_sql_take_their_places():
    inner = sql("f({value})", value=Literal("{name}"))
    statement = sql("CALL {name}({inner})", name=Identifier.of("a", "b"), inner=inner)
    assert render(statement) == "CALL [a][b](f(<{name}>))"


def test_other_braces_are_plain_text():
    assert render(sql("SELECT '{}', '{1,2}', '{A}', '{\"a\": {}}', {x}", x=Literal(1))) == (
        "SELECT '{}', '{1,2}', '{A}', '{\"a\": {}}', <1>"
    )


def test_braces_in_what_the_user_wrote_are_no_places():
    assert render(sql("WHEN ({text})", text=Verbatim("NEW.a = '{text}'"))) == "WHEN (NEW.a = '{text}')"


def test_a_place_without_an_argument_is_an_error():
    with pytest.raises(KeyError, match="missing"):
        render(sql("SELECT {missing}"))


def test_plain_text_is_no_argument():
    with pytest.raises(TypeError, match="not an SQL argument"):
        render(sql("SELECT {x}", x="1; DROP TABLE t"))


def test_lists():
    assert render(sql("{n} {v}", n=identifiers(["a", "b"]), v=literals((1, None)))) == "[a], [b] <1>, <None>"
    assert render(sql("{j}", j=Joined(" OR ", (sql("x"), Identifier.of("y"))))) == "x OR [y]"
