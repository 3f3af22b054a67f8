# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ages by the calendar, the longest of several, and what holds apply to."""

from __future__ import annotations

import datetime
import re
import typing as t

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.hold import Hold
from ansible_collections.dbfleet.audit.plugins.module_utils._core.retention import Age, Retention

GIVEN = {"financial": {"database": "13mo", "archive": "7y"}, "hipaa": "6y", "pci": "90d", "forever": {"database": "2y"}}


def day(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)


@pytest.mark.parametrize(
    ("age", "begun", "ended"),
    [
        ("90d", "2026-01-01", "2026-04-01"),
        ("26w", "2026-01-01", "2026-07-02"),
        ("13mo", "2025-10-01", "2026-11-01"),
        ("1mo", "2026-01-31", "2026-02-28"),
        ("1mo", "2028-01-31", "2028-02-29"),
        ("12mo", "2024-02-29", "2025-02-28"),
        ("7y", "2019-12-01", "2026-12-01"),
    ],
)
def test_an_age_ends_by_the_calendar(age: str, begun: str, ended: str) -> None:
    assert Age.parse(age, "x").after(day(begun)) == day(ended)


def test_no_day_that_is_so_old_lies_after_the_one_before_which_all_are_looked_at() -> None:
    for text in ("1mo", "13mo", "1y", "90d"):
        age = Age.parse(text, "x")
        for number in range(800):
            today = day("2026-01-01") + datetime.timedelta(days=number)
            latest = max(
                begun
                for begun in (today - datetime.timedelta(days=back) for back in range(450))
                if age.after(begun) <= today
            )
            assert latest <= age.before(today) <= latest + datetime.timedelta(days=3)


@pytest.mark.parametrize(
    ("categories", "database", "archive"),
    [
        ([], "13mo", None),
        ([None], "13mo", None),
        (["financial"], "13mo", "7y"),
        (["hipaa"], "13mo", "6y"),
        (["pci"], "90d", "90d"),
        (["pci", "hipaa", "financial"], "13mo", "7y"),
        (["pci", "forever"], "2y", None),
        (["pci", None], "13mo", None),
    ],
)
def test_the_longest_of_all_categories_counts(categories: list[str | None], database: str, archive: str | None) -> None:
    ages = Retention("13mo", GIVEN).of(categories)
    assert ages.database.text == database
    assert (ages.archive and ages.archive.text) == archive


@pytest.mark.parametrize(
    ("retention", "today", "over"),
    [
        (GIVEN, "2026-03-31", False),
        (GIVEN, "2026-04-01", True),
        ({"default": {"archive": "2y"}, "hipaa": "6y"}, "2027-12-31", False),
        ({"default": {"archive": "2y"}, "hipaa": "6y"}, "2028-01-01", True),
        ({"forever": {"database": "2y"}}, "2200-01-01", False),
        ({}, "2200-01-01", False),
    ],
)
def test_an_archive_of_any_category_may_be_over_when_the_shortest_age_is(
    retention: dict[str, t.Any], today: str, over: bool
) -> None:
    assert Retention("13mo", retention).may_be_over("2026-01-01", day(today)) is over


def test_rows_without_a_category_have_one_called_default() -> None:
    ages = Retention("13mo", {"default": {"archive": "2y"}, "hipaa": "6y"}).of([None, "hipaa"])
    assert (ages.database.text, ages.archive and ages.archive.text) == ("13mo", "6y")


def test_everything_is_due_at_once_and_archives_are_kept_as_long_as_ever() -> None:
    ages = Retention("0d", GIVEN).of(["financial", "hipaa"], day("2026-12-01"))
    assert ages.database.after(day("2026-12-01")) < day("2026-11-01")
    assert ages.archive == Age.parse("7y", "x")


@pytest.mark.parametrize(
    ("older_than", "retention", "said"),
    [
        ("13 months", {}, "older_than is '13 months', which is no age"),
        ("0mo", {}, "older_than is '0mo', which is no age"),
        ("1y", {"hipaa": "0d"}, "retention of 'hipaa' is '0d', which is no age"),
        ("1y", {"hipaa": 6}, "retention of 'hipaa' is 6, which is no age"),
        ("1y", {"hipaa": {"archiv": "6y"}}, "retention of 'hipaa' has 'archiv'; it may have database and archive"),
        ("1y", {"pci": {"database": "2y", "archive": "1y"}}, "archive is counted from the same day as database"),
    ],
)
def test_what_is_no_age_is_named(older_than: str, retention: dict[str, t.Any], said: str) -> None:
    with pytest.raises(AuditError, match=re.escape(said)):
        Retention(older_than, retention)


def test_a_category_that_has_no_age_is_not_kept_for_some_other_time() -> None:
    with pytest.raises(AuditError, match=r"'finacial' .* it has financial, forever, hipaa, pci: add it"):
        Retention("1y", GIVEN).of(["hipaa", "finacial"])
    assert Retention("1y", {}).of(["finacial"]).archive is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"table": "a.b"}, "hold 1 has no reason"),
        ({"reason": "case 1"}, "names neither a table nor a user"),
        ({"reason": "case 1", "record_id": "7"}, "names neither a table nor a user"),
        ({"reason": "case 1", "tables": ["a.b"]}, "hold 1 has 'tables'; it may have reason, table"),
        ({"reason": "case 1", "table": "orders"}, "hold 1: table: 'orders' is not `schema.table`"),
    ],
)
def test_a_hold_that_cannot_be_meant_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(AuditError, match=re.escape(said)):
        Hold.parse(given, "hold 1")


def test_what_an_archive_may_have_in_it_is_held() -> None:
    hold = Hold.parse({"reason": "case 1", "table": "billing.*", "record_id": 7}, "hold 1")
    assert hold.may_be_in(["public.users", "billing.invoice"])
    assert not hold.may_be_in(["public.users", ""])
    assert Hold.parse({"reason": "case 1", "changed_by": "eve"}, "hold 1").may_be_in([""])
