# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restart of a server needs to know: what would change by it, what would break, and the way back."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .._core.service import OUTPUT
from .preload import SETTING
from .session import Session

#: A line that sets a thing which only a start can change is no error, although the server calls it one; nor is the lack
#: of a line that there was at the last start, which it reports without a file, and with the name in the message alone.
_FACTS = """
SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::int AS process,
       current_setting('data_directory') AS data_directory,
       current_setting('config_file') AS config_file,
       current_setting('unix_socket_directories') AS sockets,
       current_setting('port') AS port,
       (SELECT setting FROM pg_config WHERE name = 'BINDIR') AS binaries,
       pg_current_logfile() AS log,
       (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
       (SELECT jsonb_object_agg(s.name, s.setting) FROM pg_settings AS s
        WHERE s.pending_restart OR s.name = 'shared_preload_libraries'
           OR s.context = 'postmaster' AND lower(s.name) IN (SELECT lower(f.name) FROM pg_file_settings AS f
                                                             WHERE f.error IS NOT NULL)
           OR s.name IN (SELECT substring(f.error FROM '"([^"]+)"') FROM pg_file_settings AS f
                         WHERE f.sourcefile IS NULL)) AS running,
       (SELECT jsonb_agg(format('%s:%s: %s %s', f.sourcefile, f.sourceline, f.name, f.error) ORDER BY f.seqno)
        FROM pg_file_settings AS f LEFT JOIN pg_settings AS s ON lower(s.name) = lower(f.name)
        WHERE f.error IS NOT NULL AND f.sourcefile IS NOT NULL AND s.context IS DISTINCT FROM 'postmaster') AS errors
"""

DEBIAN_CLUSTER = re.compile(r"/etc/postgresql/([^/]+)/([^/]+)/postgresql\.conf")
_PG_CTLCLUSTER = "pg_ctlcluster"


def read_restart(session: Session) -> dict[str, Any]:
    """Return what the module server_restart takes, and what a person wants to know before it is used.

    Only a superuser may read this.
    """
    facts = session.one(_FACTS)
    debian = DEBIAN_CLUSTER.fullmatch(facts.config_file)
    return {
        "process": facts.process,
        "system_identifier": facts.system_identifier,
        "running": facts.running,
        "pending": sorted(set(facts.running) - {SETTING}),
        "errors": facts.errors or [],
        "ready": [f"{facts.binaries}/pg_isready", "-q", "-h", _host(facts.sockets), "-p", facts.port],
        "fallback": _fallback(facts, debian.groups() if debian else None),
        "restore": [{"path": f"{facts.data_directory}/postgresql.auto.conf", "lines": _lines(facts.running)}],
        "logs": _logs(facts, debian.groups() if debian else None),
    }


def debian_log(version: str, cluster: str) -> str:
    """Return the file that Debian's tools start a cluster with."""
    return f"/var/log/postgresql/postgresql-{version}-{cluster}.log"


def _logs(facts: Any, cluster: Sequence[str] | None) -> list[str]:
    """Return the file of the server's own collector, if it has one, and the file that it is to start with."""
    collected = [os.path.join(facts.data_directory, facts.log)] if facts.log else []
    if cluster:
        return [*collected, debian_log(*cluster)]
    return [*collected, f"{facts.data_directory}/dbfleet_restart.log"]


def _host(sockets: str) -> str:
    first = sockets.split(",")[0].strip().strip('"')
    return first or "127.0.0.1"


def _fallback(facts: Any, cluster: Sequence[str] | None) -> list[str]:
    if cluster:
        return [_PG_CTLCLUSTER, *cluster, "restart"]
    program = f"{facts.binaries}/pg_ctl"
    return [program, "restart", "-D", facts.data_directory, "-m", "fast", "-w", "-t", "600", "-l", OUTPUT]


def _lines(running: Mapping[str, str]) -> list[str]:
    """Return lines of a configuration file that make the server start as it runs now."""
    return [f"{name} = '{_escaped(value)}'" for name, value in sorted(running.items())]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
