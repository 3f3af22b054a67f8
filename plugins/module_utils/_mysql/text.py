# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Text inside of triggers and routines, written so that the server gives it back as it was written."""

from __future__ import annotations

import re

from .._core.sql import Literal, Sql, sql

_QUOTED_NAME = re.compile("`((?:[^`]|``)+)`")
_PLAIN = re.compile(r"[^'`\\\x00-\x1f\x7f-\U0010ffff]*")


def text(value: str) -> Sql:
    r"""Return a text literal that reads the same in every sql_mode and comes back unaltered from the catalogue.

    information_schema.triggers of MySQL shows ' and \ in literals with one escape less than they were written with. A
    backtick is kept out so that those in code come in pairs.
    """
    if _PLAIN.fullmatch(value):
        return sql("{value}", value=Literal(value))
    return sql(f"CONVERT(x'{value.encode().hex()}' USING utf8mb4)")


def same_code(wanted: str, current: str | None) -> bool:
    """Compare code with what the catalogue shows of it, in which quotes and backslashes may have lost an escape.

    Of several statements that are sent at once, MySQL takes the semicolon that ends one into its code.
    """
    return current is not None and _bare(current) in (_bare(wanted), _bare(_QUOTED_NAME.sub(_as_mysql_shows, wanted)))


def _as_mysql_shows(name: re.Match[str]) -> str:
    """Return a quoted name as MySQL's catalogue shows it: wrong, if there is a backtick in it."""
    bare = name.group(1).replace("``", "`")
    return f"`{bare[0]}{bare}{bare[-1]}`" if "`" in bare else name.group()


def _bare(code: str) -> str:
    return re.sub(r"['\\]", "", code).rstrip("; \n").strip()
