# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which marks of earlier sealing runs are kept."""

from __future__ import annotations

import typing as t

from ansible_collections.dbfleet.audit.plugins.module_utils._core.watermark import MARKS, remaining


def marks(first: int, last: int) -> list[dict[str, t.Any]]:
    """Return marks at ids."""
    return [{"id": number} for number in range(first, last + 1)]


def test_what_lies_before_the_one_that_was_reached_goes() -> None:
    assert remaining(marks(1, 5), {"id": 3}) == marks(4, 5)
    assert remaining(marks(1, 5), None) == marks(1, 5)


def test_of_many_the_oldest_and_the_latest_are_kept() -> None:
    """The oldest is the next that can be reached, the latest moves the watermark furthest."""
    kept = remaining(marks(1, 100), {"id": 10})
    assert len(kept) == MARKS
    assert (kept[0], kept[-1]) == ({"id": 11}, {"id": 100})
