# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of pgaudit: what each may be, how it is written, and what it means. Pure.

The names of the settings differ by version and come from the server; what they take is in pgaudit's own README.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from .._core.errors import AuditError

PREFIX = "pgaudit."

#: What `log` takes, each also with a minus before it; `all` and `none` stand for every class and for no class.
CLASSES = ("ddl", "function", "misc", "misc_set", "read", "role", "write")

#: Words of `log` that stand for more than one class.
_MEANT = {"all": set(CLASSES), "misc": {"misc", "misc_set"}}

LEVELS = ("debug5", "debug4", "debug3", "debug2", "debug1", "info", "notice", "warning", "log")

#: Settings that are no switch.
_LISTS = ("log",)
_CHOICES = {"log_level": LEVELS}
_NUMBERS = ("log_parameter_max_size",)
_TEXTS = ("role",)

_BOOLEANS = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}

#: Classes whose statements carry values of rows.
_WITH_VALUES = frozenset({"function", "misc", "read", "write"})


def parse_settings(settings: Mapping[str, Any], where: str, known: Collection[str] | None) -> dict[str, str]:
    """Return settings by full name, as text for the server.

    :param where: the option that they are given in, for messages.
    :param known: names of the settings that the installed version has, without prefix; None when nobody can know yet.
    :raises AuditError: naming the setting, what is wrong with it, and what it takes.
    """
    parsed = {}
    for name, value in settings.items():
        short = str(name).removeprefix(PREFIX)
        if known is not None and short not in known:
            raise AuditError(
                f"{where}: the installed version of pgaudit has no setting {short!r}{_hint(short, known)} It has "
                f"{', '.join(sorted(known))}"
            )
        parsed[PREFIX + short] = _text(short, value, f"{where}: {short}")
    return parsed


def _text(name: str, value: Any, where: str) -> str:
    if name in _LISTS:
        return _class_list(value, where)
    text = str(value).strip() if not isinstance(value, bool) else ("on" if value else "off")
    if name in _TEXTS:
        return text
    if name in _NUMBERS:
        if not text.isdigit():
            raise AuditError(f"{where} is {value!r}, which is no number of bytes")
        return text
    if name in _CHOICES:
        if text.lower() not in _CHOICES[name]:
            raise AuditError(f"{where} is {value!r}, which is none of {', '.join(_CHOICES[name])}")
        return text.lower()
    if text.lower() not in _BOOLEANS:
        raise AuditError(f"{where} is {value!r}, which is neither on nor off")
    return "on" if _BOOLEANS[text.lower()] else "off"


def _class_list(value: Any, where: str) -> str:
    tokens = [str(token).strip().lower() for token in (value if isinstance(value, list) else str(value).split(","))]
    tokens = [token for token in tokens if token]
    known = (*CLASSES, "all", "none")
    for token in tokens:
        name = token.removeprefix("-")
        if name not in known:
            raise AuditError(
                f"{where}: {token!r} is no class of pgaudit{_hint(name, known)} The classes are {', '.join(CLASSES)}, "
                "all and none; a minus before one takes it out"
            )
    return ", ".join(tokens) or "none"


def _hint(name: str, known: Collection[str]) -> str:
    """Return the end of a sentence about a name that is not known."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else "."


def classes(text: str) -> frozenset[str]:
    """Return the classes that a value of `log` stands for: pgaudit reads the list from left to right."""
    chosen: set[str] = set()
    for token in (part.strip().lower() for part in text.split(",")):
        name = token.removeprefix("-")
        meant = _MEANT.get(name, {name} & set(CLASSES))
        chosen = chosen - meant if token.startswith("-") else chosen | meant
    return frozenset(chosen)


def meaning(name: str, text: str) -> Any:
    """Return what a value comes to, so that `write,ddl` equals `ddl, write`, and `true` equals `on`."""
    short = name.removeprefix(PREFIX)
    if short in _LISTS:
        return classes(text)
    if short in _TEXTS:
        return text
    lower = text.strip().lower()
    return _BOOLEANS.get(lower, lower)


def shows_parameters(settings: Mapping[str, str]) -> bool:
    """Tell whether pgaudit, set like this, writes parameters of statements that carry values of rows."""
    switch = meaning("log_parameter", settings.get(PREFIX + "log_parameter", "off"))
    return switch is True and bool(classes(settings.get(PREFIX + "log", "none")) & _WITH_VALUES)
