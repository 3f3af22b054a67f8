# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Leaves of rows made into blocks, and compared with them."""

from __future__ import annotations

import struct

from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.seal_rows import (
    Comparison,
    Row,
    new_blocks,
    sealed_rows,
    unpack,
    unsealed,
)

DAY = 86_400_000_000


def leaf(text: str) -> bytes:
    return text.encode().ljust(32, b".")


def rows(*ids: int, day: int = 0) -> list[Row]:
    return [Row(number, day * DAY, leaf(str(number))) for number in ids]


def compared(blocks: list, found: list[Row], watermark: int = 100, next_id: int = 1000, exempt: tuple = ()) -> list:
    comparison = Comparison(sealed_rows(blocks, -100, 10_000, exempt), watermark)
    comparison.add(found)
    comparison.end(next_id)
    return [(finding["type"], finding["id"], finding["block"]) for finding in comparison.findings]


def block(number: int, *pairs: tuple[int, int]) -> tuple[int, tuple[tuple[int, int], ...], bytes]:
    leaves = b"".join(leaf(str(row)) for first, last in pairs for row in range(first, last + 1))
    return (number, pairs, leaves)


def test_packed_rows_come_by_id_whatever_its_sign() -> None:
    packed = b"".join(struct.pack(">qq32s", *row) for row in [(5, 1, leaf("a")), (-3, 2, leaf("b"))])
    assert unpack(packed) == [Row(-3, 2, leaf("b")), Row(5, 1, leaf("a"))]


def test_a_block_is_the_rows_of_one_day_with_every_id_once() -> None:
    first, second = new_blocks([*rows(1, 2, 2, 4), *rows(5, day=1)], None)
    assert (first.period, first.ids, first.rows) == ("1970-01-01", [(1, 2), (4, 4)], 3)
    assert (second.period, second.ids, second.leaves) == ("1970-01-02", [(5, 5)], leaf("5"))


def test_a_row_from_before_the_last_mark_is_backdated() -> None:
    (found,) = new_blocks(rows(1, 2, day=3), 4 * DAY)
    assert [row.id for row in found.backdated] == [1, 2]


def test_only_what_no_block_has_is_unsealed() -> None:
    assert unsealed([1, 2, 3, 5, 8, 9], [[8, 8], [2, 4]]) == [1, 5, 9]


def test_what_is_as_it_was_sealed_is_no_finding() -> None:
    assert compared([block(1, (1, 2), (4, 4)), block(3, (3, 3))], rows(1, 2, 3, 4, 150)) == []


def test_every_difference_is_named_with_its_block() -> None:
    found = [*rows(1), Row(2, 0, leaf("x")), *rows(4, 4, 7), *rows(2000)]
    assert compared([block(1, (1, 3)), block(2, (4, 4))], found) == [
        ("modified_row", 2, 1),
        ("deleted_row", 3, 1),
        ("duplicate_id", 4, 2),
        ("inserted_row", 7, None),
        ("inserted_row", 2000, None),
    ]


def test_rows_that_have_left_for_an_archive_are_not_missing() -> None:
    assert compared([block(1, (1, 3)), block(2, (4, 4))], rows(4), exempt=((1, 1),)) == []


def test_a_window_sees_the_part_of_a_block_that_is_in_it() -> None:
    found = sealed_rows([block(1, (1, 3), (8, 9))], 2, 8, ())
    assert {number: sealed.leaf for number, sealed in found.items()} == {3: leaf("3"), 8: leaf("8")}
