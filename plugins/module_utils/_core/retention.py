# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long rows stay in the log, and how long the archive keeps them. Pure: ages, and what they mean for a period."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from .errors import AuditError

#: The category of rows whose policy names none, and of events, which have no policy.
DEFAULT = "default"

_AGE = re.compile(r"([1-9]\d{0,4})(d|w|mo|y)")
_LONGEST_YEARS = 200
_A_YEAR = {"d": 365, "w": 52, "mo": 12, "y": 1}
_DAYS = {"d": 1, "w": 7}
_MONTHS = {"mo": 1, "y": 12}

#: The age of every row, those of the present period too.
EVERYTHING = "0d"

#: Ages are compared by when they end; months differ in length, so they are all counted from one day.
_REFERENCE = date(2000, 1, 1)


@dataclass(frozen=True)
class Age:
    """A length of time by the calendar: `90d`, `26w`, `13mo`, `7y`."""

    text: str
    number: int
    unit: str

    @classmethod
    def parse(cls, text: object, option: str) -> Age:
        """Return the age of a text.

        :param option: what an error calls the option.
        """
        found = _AGE.fullmatch(str(text))
        if not found:
            raise AuditError(
                f"{option} is {text!r}, which is no age: give days, weeks, months or years as 90d, 26w, 13mo, 7y"
            )
        age = cls(str(text), int(found[1]), found[2])
        if age.number / _A_YEAR[age.unit] > _LONGEST_YEARS:
            raise AuditError(f"{option} is {text!r}, which is longer than {_LONGEST_YEARS} years")
        return age

    @classmethod
    def usual(cls, text: object) -> Age:
        """Return the age of `older_than`, which alone may be :data:`EVERYTHING`."""
        return cls(EVERYTHING, 0, "d") if text == EVERYTHING else cls.parse(text, "older_than")

    def after(self, day: date) -> date:
        """Return the day that comes so much later; the last of a month that has not as many days."""
        if not self.number:
            return date.min
        return self._moved(day, self.number)

    def before(self, day: date) -> date:
        """Return a day that is not before the latest that is so old on a day; months differ in length."""
        if not self.number:
            return date.max
        return self._moved(day, -self.number) + timedelta(days=3)

    def _moved(self, day: date, number: int) -> date:
        if self.unit in _DAYS:
            return day + timedelta(days=_DAYS[self.unit] * number)
        year, month = divmod(day.year * 12 + day.month - 1 + _MONTHS[self.unit] * number, 12)
        return day.replace(year=year, month=month + 1, day=min(day.day, calendar.monthrange(year, month + 1)[1]))

    def __lt__(self, other: Age) -> bool:
        return self.after(_REFERENCE) < other.after(_REFERENCE)


@dataclass(frozen=True)
class Ages:
    """How long rows are kept.

    :ivar database: after which they leave the log for the archive.
    :ivar archive: after which the archive deletes them, counted like the other from the end of their period; None for
        never.
    """

    database: Age
    archive: Age | None


class Retention:
    """The ages of every category.

    :param older_than: the age at which rows leave the database whose category says nothing else.
    :ivar everything: whether all rows are to leave it, whatever their category.
    :param categories: by category, an age, or `database` and `archive`, each an age.
    :raises AuditError: naming the category.
    """

    def __init__(self, older_than: str, categories: Mapping[str, Any]) -> None:
        usual = Age.usual(older_than)
        self.everything = not usual.number
        self._ages = {name: _ages(given, usual, f"retention of {name!r}") for name, given in categories.items()}
        if self.everything:
            self._ages = {name: replace(ages, database=usual) for name, ages in self._ages.items()}
        self._usual = self._ages.get(DEFAULT, Ages(usual, None))

    def shortest(self) -> list[Age]:
        """Return all ages in the database: a period that none of them has passed need not be looked at."""
        return [ages.database for ages in (self._usual, *self._ages.values())]

    def may_be_over(self, end_day: str, today: date) -> bool:
        """Tell whether there is a category whose archives of a period that ended on a day are to be gone by today."""
        end = date.fromisoformat(end_day)
        kept = [ages.archive for ages in (self._usual, *self._ages.values()) if ages.archive]
        return any(age.after(end) <= today for age in kept)

    def of(self, categories: Iterable[str | None], end: date = _REFERENCE) -> Ages:
        """Return the ages of rows that lie together: the longest of each counts for all of them.

        :param end: from which they are counted, for a month may be longer or shorter than 30 days.
        :raises AuditError: when a category has no age although others have.
        """
        found = [self._of(category) for category in categories] or [self._usual]
        database = max((ages.database for ages in found), key=lambda age: age.after(end))
        kept = [ages.archive for ages in found if ages.archive]
        return Ages(database, max(kept, key=lambda age: age.after(end)) if len(kept) == len(found) else None)

    def _of(self, category: str | None) -> Ages:
        if category is None or not self._ages:
            return self._usual
        if category not in self._ages:
            raise AuditError(
                f"the log has rows of the category {category!r} (`retention` of their policy), and retention says "
                f"nothing of it; it has {', '.join(sorted(self._ages))}: add it"
            )
        return self._ages[category]


def _ages(given: Any, usual: Age, what: str) -> Ages:
    if not isinstance(given, Mapping):
        archive = Age.parse(given, what)
        return Ages(min(usual, archive), archive)
    unknown = sorted(set(given) - {"database", "archive"})
    if unknown:
        raise AuditError(f"{what} has {', '.join(map(repr, unknown))}; it may have database and archive")
    kept = Age.parse(given["archive"], f"{what}: archive") if given.get("archive") else None
    database = Age.parse(given["database"], f"{what}: database") if given.get("database") else usual
    if kept and kept < database:
        raise AuditError(
            f"{what}: rows would stay in the database for {database.text}, and are to be deleted after {kept.text}; "
            "archive is counted from the same day as database, and cannot be shorter"
        )
    return Ages(database, kept)
