# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of a whole server: where each one stands, who may change it, and who writes it."""

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

# A name on the command line may be anybody's.
_NAMED = """
SELECT s.setting AS cluster
FROM pg_settings AS s
WHERE s.name = 'cluster_name' AND s.source = 'command line'
  AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
"""

# A file that Patroni wrote may be left from a Patroni that is gone. Nobody but a superuser may read it, and the server
# refuses a query that names the function even where it would not call it.
_WRITTEN = (
    "SELECT pg_read_file(current_setting('config_file'), 0, 200, true) LIKE '%overwritten by Patroni%' AS written"
)


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


def patroni_cluster(session: Session) -> str:
    """Return the name of the Patroni cluster that the server is a member of, empty where it is of none."""
    named = session.all(_NAMED)
    return named[0].cluster if named and session.one(_WRITTEN).written else ""


def require_patroni_counts(lines: Sequence[Line]) -> None:
    """Refuse what ALTER SYSTEM has set where Patroni runs the server: it overrides the cluster's configuration.

    :param lines: what the configuration files say of settings that are not as they are to be.
    :raises AuditError: with the statements that take it away.
    """
    found = [line for line in {line.name: line for line in lines}.values() if line.automatic]
    if found:
        told = ", ".join(f"{line.name} = {line.text!r} ({place_of([line])})" for line in found)
        raise AuditError(
            f"the server is run by Patroni, and ALTER SYSTEM overrides its configuration on this member alone: {told}; "
            f"take it away there: {'; '.join(f'ALTER SYSTEM RESET {line.name}' for line in found)}"
        )
