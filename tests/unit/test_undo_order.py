# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The order in which a record was changed, from what each change found and left."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.undo_order import Link, Order, arrange


def links(*states: str) -> list[Link]:
    """Return a link for each two letters, `-` for no row."""
    images = [tuple(None if letter == "-" else {"a": letter} for letter in pair) for pair in states]
    return [Link(*pair) for pair in images]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_a_chain_is_found_in_any_order(order):
    chain = links("-a", "ab", "bc", "cd")
    arranged = arrange([chain[number] for number in order], None)
    assert [order[number] for number in arranged.numbers] == [0, 1, 2, 3]
    assert arranged.certain


@pytest.mark.parametrize(
    ("states", "following", "numbers"),
    [
        (("ab", "bc", "cb"), None, [0, 1, 2]),
        (("bc", "ab", "bb"), None, [1, 2, 0]),
        (("ab", "ba"), "ac", [0, 1]),
        (("ab", "ba"), "bc", [1, 0]),
        (("-a", "a-"), "-b", [0, 1]),
        (("ab", "-a", "b-"), "-c", [1, 0, 2]),
        (("ab", "cd", "de"), None, [0, 1, 2]),
    ],
)
def test_orders_that_are_certain(states, following, numbers):
    order = arrange(links(*states), links(following)[0] if following else None)
    assert (list(order.numbers), order.certain) == (numbers, True)


@pytest.mark.parametrize(
    ("states", "following", "expected"),
    [
        (("ab", "ba"), None, Order([0, 1], certain=False, closed=True)),
        (("ab", "-a", "b-"), None, Order([1, 0, 2], certain=False, closed=True)),
        (("ab", "ba"), "cd", Order([0, 1], certain=False)),
        (("bc", "ab", "xy"), None, Order([0, 1, 2], certain=False)),
    ],
)
def test_orders_that_are_not_certain(states, following, expected):
    order = arrange(links(*states), links(following)[0] if following else None)
    assert Order(list(order.numbers), order.certain, order.closed) == expected


def test_only_columns_of_both_images_are_compared():
    first = Link({"a": "1", "b": "1"}, {"a": "2", "b": "1"})
    assert arrange([first, Link({"a": "2", "c": "1"}, {"a": "3", "c": "1"})], None).certain
    assert list(arrange([Link({"a": "2"}, {"a": "3"}), first], None).numbers) == [1, 0]
    assert list(arrange([Link({"c": "2"}, {"c": "3"}), first], None).numbers) == [0, 1]
