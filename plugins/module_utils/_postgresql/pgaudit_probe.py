# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The self-test of pgaudit: a statement of every class, in a transaction that is rolled back, found in what it logs."""

from __future__ import annotations

import re

from .pgaudit_settings import classes
from .session import Session

#: One statement of every class, in an order in which each finds what it needs.
_STATEMENTS = {
    "ddl": "CREATE TEMPORARY TABLE dbfleet_probe (id int)",
    "role": "GRANT SELECT ON dbfleet_probe TO CURRENT_USER",
    "write": "INSERT INTO dbfleet_probe VALUES (1)",
    "read": "SELECT id FROM dbfleet_probe",
    "function": "DO 'BEGIN END'",
    "misc": "DISCARD SEQUENCES",
    "misc_set": "SET LOCAL application_name TO 'dbfleet.audit'",
}

# The same line that goes into the server's log then comes to us as well, so that no file has to be read.
_LISTEN = """
SET LOCAL pgaudit.log_client TO on; SET LOCAL pgaudit.log_level TO log; SET LOCAL client_min_messages TO log
"""

_LINE = re.compile(r"AUDIT: SESSION,\d+,\d+,([A-Z_]+),([A-Z ]+),")


def _class_of(name: str, command: str) -> str:
    """Return the class that made pgaudit write a line; it writes MISC for the class misc_set as well."""
    return "misc_set" if (name, command) == ("MISC", "SET") else name.lower()


def probe(session: Session) -> tuple[list[str], list[str]]:
    """Return the classes that are logged for this login, and those that should be and are not."""
    wanted = classes(session.one("SELECT current_setting('pgaudit.log')")[0])
    notices = session.connection.notices
    session.execute("BEGIN READ WRITE")
    try:
        session.execute(_LISTEN)
        for statement in _STATEMENTS.values():
            session.execute(statement)
        logged = {_class_of(*match.groups()) for match in map(_LINE.search, notices) if match}
    finally:
        session.execute("ROLLBACK")
    return sorted(wanted & logged), sorted(wanted - logged)
