# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The libraries that a server loads when it starts: the list as it is written, and what to write instead. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from .._core.errors import AuditError
from .._core.plan import Plan
from .._core.sql import Sql, literals, sql
from .settings import ABOVE_FILES, Line, place_of, require_patroni_counts, text_of

SETTING = "shared_preload_libraries"

_ELEMENT = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,"]*))\s*(?:,|$)')

_RESET = f"ALTER SYSTEM RESET {SETTING}"


@dataclass(frozen=True)
class PreloadCatalog:
    """What the server has.

    :ivar running: the list that it has started with.
    :ivar source: where that list came from, in the words of pg_settings.
    :ivar lines: what the configuration files say, in the order in which they are read: the last one counts.
    :ivar patroni: name of the Patroni cluster that the server is a member of, empty where it is of none.
    """

    running: str
    source: str
    lines: Sequence[Line]
    patroni: str = ""

    @property
    def fixed(self) -> bool:
        """Whether the list is given where no configuration file reaches it."""
        return self.source in ABOVE_FILES

    @property
    def configured(self) -> list[str]:
        """The libraries that the server loads when it starts again."""
        return parse(self.running if self.fixed else text_of(self.lines))

    @property
    def nameless(self) -> bool:
        """Whether the files list a library without a name, with which the server would not start."""
        return not self.fixed and "" in _names(text_of(self.lines))

    @property
    def beneath(self) -> Sequence[Line]:
        """What the files say beneath postgresql.auto.conf, which belongs to ALTER SYSTEM."""
        return [line for line in self.lines if not line.automatic]


def parse(text: str) -> list[str]:
    """Return the names in a list as the server reads it, without empty ones.

    ALTER SYSTEM SET shared_preload_libraries = '' writes one, and the server, looking for a library of that name, does
    not start.
    """
    return [name for name in _names(text) if name]


def _names(text: str) -> list[str]:
    """Return all names in a list (SplitDirectoriesString): quotes keep commas and spaces."""
    names = []
    position = 0
    while position < len(text):
        match = _ELEMENT.match(text, position)
        if not match:
            raise AuditError(f"{SETTING} is {text!r}, which is no list: correct it by hand, the server cannot read it")
        quoted, plain = match.groups()
        names.append(quoted.replace('""', '"') if quoted is not None else plain.strip())
        position = match.end()
    return names


def same_library(one: str, other: str) -> bool:
    """Tell whether two names mean one file: pgaudit, pgaudit.so and $libdir/pgaudit do."""
    return _stem(one) == _stem(other)


def _stem(name: str) -> str:
    return PurePosixPath(name).name.removesuffix(".so")


def holds(names: Sequence[str], library: str) -> bool:
    return any(same_library(name, library) for name in names)


def merged(current: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the list with what it lacks at its end: some libraries must come first, and others know their order."""
    return [*current, *(name for name in dict.fromkeys(wanted) if not holds(current, name))]


def without(current: Sequence[str], unwanted: Sequence[str]) -> list[str]:
    return [name for name in current if not holds(unwanted, name)]


def plan_libraries(catalog: PreloadCatalog, target: Sequence[str]) -> Plan:
    """Plan the statement that makes the server load these libraries, and no others, when it starts again.

    :raises AuditError: where ALTER SYSTEM cannot do that, with the place that has to be changed.
    """
    plan = Plan()
    reason = difference(catalog, target)
    if reason:
        plan.transaction(SETTING, required=True, alone=True).add(_statement(catalog, target), reason, "altered")
    return plan


def difference(catalog: PreloadCatalog, target: Sequence[str]) -> str:
    """Return what is not as it is to be, in words, or an empty text.

    :raises AuditError: where that is configured out of reach, with the place that has to be changed.
    """
    if list(target) == catalog.configured and not catalog.nameless:
        return ""
    if catalog.fixed:
        raise AuditError(
            f"{SETTING} is given to the server by its {catalog.source}, which no configuration file overrides; change "
            f"it there to {render(target)}"
        )
    if catalog.patroni:
        require_patroni_counts(catalog.lines)
    current = f"{text_of(catalog.lines) or 'empty'} ({place_of(catalog.lines)})"
    return f"{SETTING} is {current}, to be {render(target) or 'empty'}"


def _statement(catalog: PreloadCatalog, target: Sequence[str]) -> Sql:
    """Return what makes the list the configured one; what stands in a person's own file comes to count again."""
    beneath = text_of(catalog.beneath)
    if list(target) == _names(beneath):
        return sql(_RESET)
    if not target:
        raise AuditError(
            f"{SETTING} is {beneath} in {place_of(catalog.beneath)}; take the library out there: ALTER SYSTEM "
            "cannot write an empty list (the server would look for a library without a name, and not start)"
        )
    return sql(f"ALTER SYSTEM SET {SETTING} = {{names}}", names=literals(list(target)))


def render(names: Sequence[str]) -> str:
    """Return a list of names as it stands in a configuration file."""
    return ", ".join(
        name if re.fullmatch(r"[\w$/.-]+", name) else '"' + name.replace('"', '""') + '"' for name in names
    )
