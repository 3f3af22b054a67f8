# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks of the user's own: one query, one number, and what goes wrong is said."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.user_checks import of_database, result, statement

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


@pytest.mark.parametrize("value", [None, "many", True])
def test_what_is_no_number_is_not_ok(value):
    found = result(CHECK, "t_1", lambda _statement: value)
    assert (found["ok"], found["value"]) == (False, None)
    assert "which is no number" in found["error"]


def test_a_check_is_for_the_databases_that_it_names():
    assert of_database([CHECK], "t_1") == [CHECK]
    assert of_database([CHECK], "shop") == []
