# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Glob patterns on ``schema.table``, the two halves matched apart so that no ``*`` crosses the dot."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import AuditError

_HALF = r'(?:"(?:[^"]|"")+"|[^."]+)'
_GLOB = re.compile(r"\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_SPECIAL = re.compile(r"[\\.^$*+?()\[\]{}|]")
_PATTERN = re.compile(rf"({_HALF})\.({_HALF})")


@dataclass(frozen=True)
class Pattern:
    """A pattern as written, and its two halves; a half in double quotes is an exact name, whatever it holds."""

    text: str
    schema: str
    table: str

    @classmethod
    def parse(cls, text: str, where: str) -> Pattern:
        match = _PATTERN.fullmatch(text)
        if not match:
            raise AuditError(
                f"{where}: {text!r} is not `schema.table`; write for example 'public.users', 'billing.*', "
                'or \'"odd.schema"."odd table"\' for a name that holds a dot'
            )
        pattern = cls(text, *match.groups())
        try:
            for regex in pattern.regexes:
                re.compile(regex)
        except re.error as error:
            raise AuditError(f"{where}: {text!r} is not a pattern: {error}") from None
        return pattern

    def matches(self, schema: str, table: str) -> bool:
        return _matches(self.schema, schema) and _matches(self.table, table)

    @property
    def regexes(self) -> list[str]:
        """The two halves as anchored regular expressions, for matching in the server."""
        return [f"^(?:{_regex(half)})$" for half in (self.schema, self.table)]

    @property
    def exact(self) -> bool:
        """True when the pattern can only ever mean one table."""
        return not (_is_glob(self.schema) or _is_glob(self.table))


def _is_glob(half: str) -> bool:
    return not half.startswith('"') and any(character in half for character in "*?[")


def _matches(half: str, name: str) -> bool:
    return re.fullmatch(_regex(half), name, re.DOTALL) is not None


def _regex(half: str) -> str:
    """Return a regular expression that Python and PostgreSQL read alike, without anchors."""
    if half.startswith('"'):
        return _escape(half[1:-1].replace('""', '"'))
    return _GLOB.sub(lambda match: _translate(match.group()), half)


def _translate(part: str) -> str:
    if part in ("*", "?"):
        return ".*" if part == "*" else "."
    if part.startswith("[") and len(part) > 1:
        # Doubled, the last ones may come to mean operations on sets in a future Python.
        inside = re.sub(r"^-|[\\\[^&~|]", r"\\\g<0>", part[1:-1])
        return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
    return _escape(part)


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", text)
