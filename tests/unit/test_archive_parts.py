# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How rows are cut into windows and parts, and that the parts are one file."""

from __future__ import annotations

import gzip
import random
import typing as t
from collections.abc import Callable, Mapping

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core import archive_step
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal_step import LAST_ID

ROWS = 5_000


class Store:
    """Rows by id, and how many were asked for and handed over."""

    def __init__(self, width: int) -> None:
        noise = random.Random(4711)
        self.rows = {
            number: b'{"id":%d,"text":"%s"}' % (number, noise.randbytes(width // 2).hex().encode())
            for number in range(1, ROWS + 1)
        }
        self.taken = 0

    def bounds_of(self, _period: Mapping[str, t.Any], after: int) -> list[tuple[int, int]]:
        """Two seals."""
        return [(last, rows) for last, rows in ((1_000, 1_000), (ROWS, ROWS - 1_000)) if last > after]

    def lines(self, _period: Mapping[str, t.Any], after: int, until: int, take: Callable[[bytes], None]) -> None:
        """Hand rows over."""
        for number, line in self.rows.items():
            if after < number <= until:
                self.taken += 1
                take(line)


def parts(store: t.Any, size: int) -> list[dict[str, t.Any]]:
    """Return all parts of a file."""
    found: list[dict[str, t.Any]] = [{"after": 0, "complete": False}]
    while not found[-1]["complete"]:
        found.append(archive_step._part(store, {"after": found[-1]["after"]}, size))
    return found[1:]


@pytest.mark.parametrize("size", [1, 50_000, 1 << 30])
def test_parts_one_after_the_other_are_a_file_with_every_row_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_step, "_TOGETHER", 10_000)
    store = Store(100)
    made = parts(store, size)
    assert gzip.decompress(b"".join(part["data"] for part in made)) == b"".join(
        line + b"\n" for line in store.rows.values()
    )
    assert (store.taken, sum(part["rows"] for part in made)) == (ROWS, ROWS)
    assert (len(made) > 1) == (size < 1 << 30)


def test_a_part_is_hardly_larger_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_step, "_TOGETHER", 10_000)
    sizes = [len(part["data"]) for part in parts(Store(2_000), 20_000)]
    assert max(sizes) < 20_000 + 70_000


def test_no_rows_are_a_file_of_no_bytes() -> None:
    store = Store(1)
    store.rows = {}
    assert parts(store, 1_000) == [{"data": b"", "rows": 0, "after": 0, "complete": True}]


def test_windows_are_small_and_reach_beyond_every_seal() -> None:
    ends = list(archive_step._windows([(100, 100), (90_100, 90_000)], 0))
    assert ends == [100, 18_100, 36_100, 54_100, 72_100, 90_100, LAST_ID]
    assert list(archive_step._windows([], 7)) == [LAST_ID]
