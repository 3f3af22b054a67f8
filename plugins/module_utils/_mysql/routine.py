# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stored function or procedure of the trail, and how the server's differs from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core.plan import first_difference
from .._core.sql import Identifier, Quoter, Sql, Verbatim, sql
from .accounts import WRITER, Account
from .session import same_mode
from .text import same_code

_CREATE = """
CREATE {replace}DEFINER = {definer} {kind} {name}({arguments}){returns}
  {access} SQL SECURITY {security}
{body}
"""


@dataclass(frozen=True)
class Routine:
    """A routine as we want it.

    :ivar access: NO SQL, READS SQL DATA or MODIFIES SQL DATA.
    :ivar executors: accounts that may call it, beside the definer.
    """

    name: str
    body: Sql
    arguments: str = ""
    returns: str = ""
    access: str = "NO SQL"
    security: str = "DEFINER"
    definer: Account = WRITER
    executors: tuple[Account, ...] = ()

    @property
    def kind(self) -> str:
        return "FUNCTION" if self.returns else "PROCEDURE"

    def create(self, schema: str, replace: bool) -> Sql:
        """Return what makes the routine; with `replace`, in place of one that is there (MariaDB alone can)."""
        return sql(
            _CREATE,
            replace=sql("OR REPLACE " if replace else ""),
            definer=self.definer.sql(),
            kind=sql(self.kind),
            name=Identifier.of(schema, self.name),
            arguments=sql(self.arguments),
            returns=sql(f" RETURNS {self.returns}" if self.returns else ""),
            access=sql(self.access),
            security=sql(self.security),
            body=self.body,
        )

    def difference(self, current: Mapping[str, Any] | None, quoter: Quoter) -> str:
        """Return how the server's routine differs from this one, or an empty text."""
        if current is None:
            return "is missing"
        checks = {
            "is of another kind": current["kind"] == self.kind,
            "has another definer": current["definer"] == str(self.definer),
            "runs with other rights": current["security"] == self.security and current["access"] == self.access,
            "runs in another sql_mode": same_mode(current["sql_mode"]),
            "has another body": same_code(self.body.render(quoter), current["body"]),
        }
        return first_difference(checks)


def verbatim(body: str) -> Sql:
    """Return a body that has no places."""
    return sql("{text}", text=Verbatim(body.strip()))
