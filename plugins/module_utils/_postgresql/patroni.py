# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The configuration that the members of a Patroni cluster have in common: what to change in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .pgaudit import same
from .preload import SETTING, parse
from .settings import Line, place_of

#: Parameters by name; None stands for one that is not to be there.
Parameters = Mapping[str, Any]


def as_text(value: Any) -> str:
    """Return a value of Patroni's configuration as it stands in the server's."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def changes(current: Parameters, wanted: Parameters) -> dict[str, str | None]:
    """Return what has to be changed in a cluster's parameters; those that are not among the wanted ones stay.

    :param current: the parameters in Patroni's dynamic configuration.
    """
    changed: dict[str, str | None] = {}
    for name, value in wanted.items():
        if value is None:
            if current.get(name) is not None:
                changed[name] = None
        elif current.get(name) is None or not _same(name, as_text(current[name]), as_text(value)):
            changed[name] = as_text(value)
    return changed


def undoing(current: Parameters, changed: Parameters) -> dict[str, Any]:
    """Return what takes a change back."""
    return {name: current.get(name) for name in changed}


def restoring(current: Parameters, running: Mapping[str, str]) -> dict[str, str | None]:
    """Return what makes members start with the settings that a server runs with.

    :param running: settings that a restart would change, with the values that they have until then.
    """
    # What the cluster's configuration does not have comes from a member's own, which it cannot override.
    return changes(current, {name: value or None for name, value in running.items() if name in current})


def not_taken_over(changed: Parameters, lines: Sequence[Line]) -> list[str]:
    """Return what the server's configuration files do not say as the cluster's configuration does, in words.

    :param lines: what they say of these settings, in the order in which they are read.
    """
    found = []
    for name, text in changed.items():
        said = [line for line in lines if line.name == name]
        if text is not None and not (said and _same(name, said[-1].text, text)):
            found.append(f"{name} is {said[-1].text!r} ({place_of(said)})" if said else f"{name} is not set")
    return found


def _same(name: str, current: str, wanted: str) -> bool:
    if name == SETTING:
        return parse(current) == parse(wanted)
    return same(name, current, wanted)
