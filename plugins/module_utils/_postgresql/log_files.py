# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a server writes its log, in a form that does not change with the date."""

from __future__ import annotations

import os
import re
from typing import Any

from .restart_facts import DEBIAN_CLUSTER, debian_log
from .session import Session

_SETTINGS = """
SELECT current_setting('log_destination') AS destinations,
       current_setting('logging_collector') = 'on' AS collected,
       current_setting('log_directory') AS directory,
       current_setting('log_filename') AS filename,
       current_setting('data_directory') AS data_directory,
       current_setting('config_file') AS config_file,
       current_setting('syslog_ident') AS ident
"""

#: The formats of the server's own collector, the one that says most first, and how it ends the names of their files.
_FORMATS = {"jsonlog": ".json", "csvlog": ".csv", "stderr": ".log"}


def read_logs(session: Session) -> list[dict[str, str]]:
    """Return the log that says most, of those that the server writes, as a list of {path, format} or {program}.

    One alone, because each has the same records. The path is a glob where the names of files have the time in them.
    Only a superuser may read this.
    """
    return logs_of(session.one(_SETTINGS))


def logs_of(settings: Any) -> list[dict[str, str]]:
    """Return the same of the settings, as :func:`read_logs` asks for them."""
    destinations = {part.strip() for part in settings.destinations.lower().split(",")}
    if settings.collected:
        for name, ending in _FORMATS.items():
            if name in destinations:
                return [{"path": _collected(settings, ending), "format": name}]
    debian = DEBIAN_CLUSTER.fullmatch(settings.config_file)
    if "stderr" in destinations and debian:
        return [{"path": debian_log(*debian.groups()), "format": "stderr"}]
    if "syslog" in destinations:
        return [{"program": settings.ident}]
    return []


def _collected(settings: Any, ending: str) -> str:
    filename = re.sub(r"%(.)", lambda escape: "%" if escape[1] == "%" else "*", settings.filename)
    filename = re.sub(r"\*+", "*", filename)
    if ending != ".log":
        # The server replaces the ending .log, and appends to any other.
        filename = f"{filename.removesuffix('.log')}{ending}"
    return os.path.join(settings.data_directory, settings.directory, filename)
