# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The changes of each record in the order in which they were made, which is not always that of their ids: one query."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Optional

from .._core.sql import Joined, Literal, sql
from .._core.undo import Doubt
from .._core.undo_order import Link, arrange, follows
from . import undo_queries as queries
from .session import Session

_Ordered = list[tuple[Any, Optional[Doubt]]]


def ordered(session: Session, rows: Sequence[Any], places: Mapping[str, Any], whole: bool) -> _Ordered:
    """Put the changes of each record in order, each with what is doubtful about it.

    :param rows: of the query CHANGES, ordered by record and id.
    :param whole: return the first change of each record and no more.
    """
    histories = [list(group) for _key, group in itertools.groupby(rows, attrgetter("record_id", "transaction_id"))]
    links = _links(session, histories, places)
    arranged = [_arranged(history, links.get(number)) for number, history in enumerate(histories)]
    if whole:
        return [changes[0] for changes in arranged]
    return list(itertools.chain.from_iterable(arranged))


def _links(
    session: Session, histories: Sequence[Sequence[Any]], places: Mapping[str, Any]
) -> dict[int, dict[int | None, Link]]:
    """Return what the changes found and left, by number and place, of the histories to be looked at."""
    steps: list[list[Any]] = []
    for number, history in enumerate(histories):
        last = history[-1]
        if len(history) == 1 or last.record_id is None:
            continue
        following = [*range(1, len(history)), 0]
        steps += ([number, place, following[place], row.id, row.action] for place, row in enumerate(history))
        if last.next_id is not None:
            steps.append([number, None, None, last.next_id, last.next_action])
    if not steps:
        return {}
    query = sql(
        queries.STEPS,
        steps=Literal(json.dumps(steps)),
        ids=Joined(", ", tuple(Literal(number) for number in sorted({step[3] for step in steps}))),
        old_digests=sql(queries.DIGESTS, image=sql("d.old_values")),
        new_digests=sql(queries.DIGESTS, image=sql(queries.NEW_IMAGE)),
        **places,
    )
    links: dict[int, dict[int | None, Link]] = {}
    for row in session.all(query.render(session)):
        links.setdefault(row.history, {})[row.place] = Link(row.before, row.after)
    return links


def _arranged(history: Sequence[Any], links: dict[int | None, Link] | None) -> _Ordered:
    if links is None:
        return [(row, None) for row in history]
    following = links.pop(None, None)
    order = arrange([links[place] for place in range(len(history))], following)
    moved = list(order.numbers) != list(range(len(history)))
    # What two users have changed in turn could be put in more than one order.
    mixed = moved and len({row.wanted for row in history}) > 1
    doubt = None
    if mixed or not order.certain:
        doubt = Doubt(_reason(history, links), order.closed and not mixed)
    return [(history[number], doubt) for number in order.numbers]


def _reason(history: Sequence[Any], links: Mapping[int | None, Link]) -> str:
    breaks = (place for place in range(1, len(history)) if not follows(links[place - 1].after, links[place].before))
    place = next(breaks, None)
    one, other = (history[0], history[-1]) if place is None else (history[place - 1], history[place])
    what = "either may have come first" if place is None else "the later one does not begin as the earlier one ends"
    return (
        f"the order of its changes by transaction {one.transaction_id} is not certain: records {one.id} and {other.id} "
        f"of the log ({what}; a trigger that changes its own table?); read them with postgresql_audit_events and "
        "restore it by hand"
    )
