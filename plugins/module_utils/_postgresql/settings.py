# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of a whole server: where each one stands, and who may change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .._core.errors import AuditError
from .session import Session

#: Sources of a setting, in the words of pg_settings, that no configuration file overrides.
ABOVE_FILES = ("command line", "environment variable")

#: A superuser may, and who was granted it.
MAY_READ_FILES = (
    "has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'EXECUTE') "
    "AND has_table_privilege('pg_catalog.pg_file_settings', 'SELECT')"
)

#: As the files are now, and not as they were at the last reload. The view has names as they are written.
_LINES = """
SELECT lower(f.name), f.setting, f.sourcefile, f.sourceline,
       f.sourcefile = current_setting('data_directory') || '/postgresql.auto.conf' AS automatic
FROM pg_file_settings AS f
WHERE lower(f.name) = ANY (%(names)s) OR lower(f.name) LIKE %(pattern)s
ORDER BY f.seqno
"""


@dataclass(frozen=True)
class Line:
    """A line of a configuration file that sets something.

    :ivar automatic: the file is postgresql.auto.conf, which belongs to ALTER SYSTEM.
    """

    name: str
    text: str
    file: str
    line: int
    automatic: bool


def read_lines(session: Session, names: Sequence[str], pattern: str = "") -> list[Line]:
    """Return what the configuration files say of settings, by name or by a LIKE pattern, in the order of reading."""
    return [Line(*row) for row in session.all(_LINES, {"names": list(names), "pattern": pattern})]


def text_of(lines: Sequence[Line]) -> str:
    """Return the value that counts of the lines of one setting; the last one does."""
    return lines[-1].text if lines else ""


def place_of(lines: Sequence[Line]) -> str:
    """Return where that value stands."""
    return f"{lines[-1].file}:{lines[-1].line}" if lines else "in no configuration file"


def require_files(readable: bool, what: str) -> None:
    """Stop where a setting of the whole server is out of the login's reach.

    :raises AuditError: with who can change it.
    """
    if not readable:
        raise AuditError(
            f"{what} is a superuser's to change, and this login is none; on a managed service, set it in the service's "
            "own parameters instead"
        )
