# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Marks: ids that a watermark may move up to as soon as those who held the log at that moment have ended. Pure."""

from __future__ import annotations

from typing import Any

#: Marks that are kept of runs whose transactions have not ended; more would not let the watermark move any sooner.
MARKS = 20


def remaining(marks: list[dict[str, Any]], reached: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the marks beyond the one that was reached: the oldest and the latest, when there are many.

    The watermark moves as far with these, in larger steps.
    """
    left = [mark for mark in marks if not reached or mark["id"] > reached["id"]]
    half = MARKS // 2
    return left if len(left) <= MARKS else [*left[:half], *left[-half:]]
