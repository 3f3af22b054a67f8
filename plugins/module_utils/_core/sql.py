# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SQL text with named places for identifiers, values and nested SQL.

A template stays readable as SQL; names and values are put in by the engine's own quoting (:class:`Quoter`),
so nothing in a plan ever has to escape anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

_PLACE = re.compile(r"\{([a-z_]+)\}")


class Quoter(Protocol):
    """What an engine supplies: its driver's or server's quoting."""

    def identifier(self, *parts: str) -> str:
        """Return a quoted, possibly qualified, name."""

    def literal(self, value: Any) -> str:
        """Return a quoted value."""


@dataclass(frozen=True)
class Identifier:
    """A name, qualified when it has several parts."""

    parts: tuple[str, ...]

    @classmethod
    def of(cls, *parts: str) -> Identifier:
        return cls(parts)


@dataclass(frozen=True)
class Literal:
    """A value of a type that the driver can write: text, number, bool, None, list of text."""

    value: Any


@dataclass(frozen=True)
class Verbatim:
    """SQL that the server or the user wrote; braces in it are no places."""

    text: str


@dataclass(frozen=True)
class Sql:
    """A template in which ``{place}`` stands for an argument; other braces are plain text."""

    template: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def render(self, quoter: Quoter) -> str:
        """Return the text with every place filled; a place without an argument is a KeyError."""
        return _PLACE.sub(lambda place: _render(self.arguments[place.group(1)], quoter), self.template)


@dataclass(frozen=True)
class Joined:
    """Several pieces with a separator between them."""

    separator: str
    pieces: tuple[Any, ...]


def sql(template: str, **arguments: Any) -> Sql:
    """Return an :class:`Sql`; the short form that plans are written with."""
    return Sql(template, arguments)


def identifiers(names: list[str] | tuple[str, ...]) -> Joined:
    """Return names as a comma-separated list."""
    return Joined(", ", tuple(Identifier.of(name) for name in names))


def literals(values: list[Any] | tuple[Any, ...]) -> Joined:
    """Return values as a comma-separated list."""
    return Joined(", ", tuple(Literal(value) for value in values))


def _render(argument: Any, quoter: Quoter) -> str:
    if isinstance(argument, Identifier):
        return quoter.identifier(*argument.parts)
    if isinstance(argument, Literal):
        return quoter.literal(argument.value)
    if isinstance(argument, Sql):
        return argument.render(quoter)
    if isinstance(argument, Verbatim):
        return argument.text
    if isinstance(argument, Joined):
        return argument.separator.join(_render(piece, quoter) for piece in argument.pieces)
    raise TypeError(f"not an SQL argument: {argument!r}")
