# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

r"""Texts that a server calls JSON. MariaDB's JSON_VALID() accepts `[1e]`, `[-]`, `[1.]` and `"\q"`; no parser does."""

from __future__ import annotations

import json
import re

# A number that breaks off, or has no digit before its exponent; within a string this means nothing. Looking for it is
# several times as fast as parsing.
_ODD_NUMBER = re.compile(r"[-+.eE](?:[]},\s]|$|(?<=\.)[eE])")

# No pattern for a whole string: it would take memory for every step, and a string may have megabytes.
_MARK = re.compile(r'\\.|[][{}",]', re.DOTALL)


def is_readable(text: str) -> bool:
    """Tell whether a parser reads a text that the server calls JSON; of one that is deeper than Python goes, say yes.

    :param text: a whole JSON text. Of any other text the answer means nothing.
    """
    if "\\" not in text and not _ODD_NUMBER.search(text):
        return True
    try:
        # Python refuses to make numbers of very long ones.
        json.loads(text, parse_int=str)
    except ValueError:
        return False
    except RecursionError:
        return True
    return True


def end_of_value(text: str, start: int) -> int:
    """Return the place after the value that begins at `start`, whether or not a parser reads it.

    :param text: JSON as a server has it: what else may be wrong with it is not looked at.
    :param start: the place of the value's first character, which is no blank. Blanks after it do not belong to it.
    :raises ValueError: when there is no value, or it does not end.
    """
    depth, quoted, end = 0, False, len(text)
    for mark in _MARK.finditer(text, start):
        sign = mark.group()
        if sign == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif sign in ("[", "{"):
            depth += 1
        elif not depth:
            # What comes after a number, true, false or null: the comma, or the bracket of what they are in.
            end = mark.start()
            break
        elif sign in ("]", "}"):
            depth -= 1
        if not depth and not quoted:
            return mark.end()
    end = start + len(text[start:end].rstrip())
    if depth or quoted or end == start:
        raise ValueError(f"no JSON value from place {start} on, or one without an end")
    return end
