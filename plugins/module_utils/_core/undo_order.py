# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order in which one transaction has changed one record, where that of the log cannot be the one.

A change that a trigger of the application makes can be recorded before the change that made the trigger fire: the
triggers of a row fire by name, and those of a statement's next row only after all of those. What a change found and
what it left tell the order all the same: they are the two ends of a link, and the links have to form a chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

#: Columns and what stands for their values, of those that can be compared; None where there is no such row.
Image = Optional[Mapping[str, str]]


@dataclass(frozen=True)
class Link:
    """What one change found, and what it left."""

    before: Image
    after: Image


@dataclass(frozen=True)
class Order:
    """The order of the links, by their numbers.

    :ivar certain: whether it is known to be the order.
    :ivar closed: whether the record ends as it begins in it: if it is still like that, nothing contradicts the order.
    """

    numbers: Sequence[int]
    certain: bool = True
    closed: bool = False


def arrange(links: Sequence[Link], following: Link | None) -> Order:
    """Find the order of a transaction's changes of a record.

    :param links: in the order of the log.
    :param following: the record's next change, by another transaction. Row locks make sure that it came later.
    """
    recorded = range(len(links))
    ends = _Ends(links)
    chained = _is_chain(links)
    if ends.closed:
        return _arrange_closed(links, ends, following, chained)
    if chained:
        return Order(recorded)
    path = ends.path(ends.start) if ends.start is not _UNKNOWN else None
    if path and _is_chain([links[number] for number in path]):
        return Order(path)
    # A change that left no record (a condition, a trigger switched off) is a gap in the right order, unless a later
    # record leads to an earlier one.
    return Order(recorded, not ends.lead_back(), follows(links[-1].after, links[0].before))


def follows(left: Image, found: Image) -> bool:
    """Tell whether a change can have found what another one left, as far as both are known."""
    if left is None or found is None:
        return left is found
    return all(left[name] == found[name] for name in left.keys() & found.keys())


def _arrange_closed(links: Sequence[Link], ends: _Ends, following: Link | None, chained: bool) -> Order:
    """Order links that form a ring, which by itself may begin anywhere: it ends with what the next change found."""
    recorded = range(len(links))
    if chained and following and follows(links[-1].after, following.before):
        return Order(recorded)
    if following:
        starts = {state for state, link in zip(ends.befores, links) if follows(link.before, following.before)}
        if len(starts) == 1:
            path = ends.path(starts.pop())
            if path and _is_chain([links[number] for number in path]):
                return Order(path)
        return Order(recorded, certain=False)
    if chained:
        return Order(recorded, certain=False, closed=True)
    path = ends.path(None if None in ends.befores else ends.befores[-1])
    if path and _is_chain([links[number] for number in path]):
        return Order(path, certain=False, closed=True)
    return Order(recorded, certain=False)


def _is_chain(links: Sequence[Link]) -> bool:
    return all(follows(link.after, later.before) for link, later in zip(links, links[1:]))


_UNKNOWN = object()


class _Ends:
    """Links as what lies between two states of the record: an order that uses each of them once is an Euler path."""

    def __init__(self, links: Sequence[Link]) -> None:
        images = [image for link in links for image in (link.before, link.after) if image is not None]
        names = sorted(set(images[0]).intersection(*images)) if images else []
        self.befores = [_state(link.before, names) for link in links]
        self.afters = [_state(link.after, names) for link in links]
        balance = Counter(self.befores)
        balance.subtract(self.afters)
        uneven = {state: number for state, number in balance.items() if number}
        self.closed = not uneven
        #: The state in which the record was first, if there is but one that can be it.
        self.start: Hashable = _UNKNOWN
        if sorted(uneven.values()) == [-1, 1]:
            self.start = next(state for state, number in uneven.items() if number == 1)

    def path(self, start: Hashable) -> list[int] | None:
        """Return the numbers of the links in an order that begins with a state, or None where not all are on it."""
        leaving: dict[Hashable, list[int]] = {}
        for number in reversed(range(len(self.befores))):
            leaving.setdefault(self.befores[number], []).append(number)
        path: list[int] = []
        stack: list[tuple[Hashable, int]] = [(start, -1)]
        while stack:
            state, number = stack[-1]
            if leaving.get(state):
                further = leaving[state].pop()
                stack.append((self.afters[further], further))
            else:
                path.append(stack.pop()[1])
        path.reverse()
        return path[1:] if len(path) == len(self.befores) + 1 else None

    def lead_back(self) -> bool:
        """Tell whether a link leaves what one before it in the log found."""
        found: set[Hashable] = set()
        for before, after in zip(self.befores, self.afters):
            if after in found:
                return True
            found.add(before)
        return False


def _state(image: Image, names: Sequence[str]) -> Hashable:
    return None if image is None else tuple(image[name] for name in names)
