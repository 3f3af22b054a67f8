# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks of the user's own: one query, one number, and what goes wrong is said."""

from __future__ import annotations

from decimal import Decimal

import pymysql
import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.user_checks import (
    of_database,
    result,
    statement,
    without_database,
)
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.user_checks import _reason

CHECK = {"name": "orphans", "query": "SELECT count(*) FROM public.a -- all\n;", "threshold": 3.0, "databases": ["t_*"]}


def test_a_query_becomes_a_subquery_that_a_comment_does_not_reach_out_of():
    assert statement(CHECK["query"]) == "SELECT (\nSELECT count(*) FROM public.a -- all\n\n) AS value"


def test_more_than_one_statement_is_refused():
    with pytest.raises(AuditError, match="semicolon"):
        statement("SELECT 1); COMMIT; DROP TABLE a; SELECT (1")


@pytest.mark.parametrize(("value", "plain", "ok"), [(3, 3, True), (Decimal("3.5"), 3.5, False), (4.0, 4, False)])
def test_what_is_above_the_threshold_is_not_ok(value, plain, ok):
    assert result(CHECK, "t_1", lambda _statement: value) == {
        "name": "orphans",
        "database": "t_1",
        "threshold": 3,
        "value": plain,
        "ok": ok,
        "error": None,
    }


@pytest.mark.parametrize("value", [None, "ann@example.org", True])
def test_what_is_no_number_is_not_ok_and_not_quoted(value):
    found = result(CHECK, "t_1", lambda _statement: value)
    assert (found["ok"], found["value"]) == (False, None)
    assert found["error"] == f"the query gave a value of the type {type(value).__name__}, which is no number"


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), *(Decimal(text) for text in ("NaN", "sNaN", "-Infinity", "1E+5000"))]
)
def test_what_json_has_no_number_for_is_not_ok(value):
    found = result(CHECK, "t_1", lambda _statement: value)
    assert (found["ok"], found["value"]) == (False, None)
    assert found["error"] == "the query gave NaN, infinity or a number that is too large"


def test_a_threshold_that_is_no_number_is_not_ok():
    found = result({**CHECK, "threshold": float("nan")}, "t_1", lambda _statement: 1)
    assert (found["ok"], found["threshold"], found["error"]) == (False, None, "the threshold is no finite number")


def test_a_check_is_for_the_databases_that_it_names():
    assert of_database([CHECK], "t_1") == [CHECK]
    assert of_database([CHECK], "shop") == []
    assert without_database([CHECK], ["shop", "t_1"]) == []
    (found,) = without_database([CHECK, {**CHECK, "databases": ["shop"]}], ["shop"])
    assert (found["name"], found["database"], found["ok"]) == ("orphans", "t_*", False)
    assert found["error"] == "no database that is asked has such a name"


def test_an_error_that_may_quote_a_row_is_named_and_not_quoted():
    leak = pymysql.err.OperationalError(1105, "XPATH syntax error: '~ann@example.org'")
    assert _reason(leak) == "the query failed: OperationalError (error 1105); the message may quote data"
    missing = pymysql.err.ProgrammingError(1146, "Table 'shop.nothing' doesn't exist")
    assert _reason(missing) == "Table 'shop.nothing' doesn't exist (1146)"
