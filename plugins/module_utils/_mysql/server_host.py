# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host of a server, as it is seen from where the module runs: its process, programs and option files."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core.errors import AuditError
from .audit_plugin_catalog import server_facts
from .option_file import AUTO, NONE, OptionFile
from .option_files import OptionFiles, Process
from .session import Session

_LOCAL = ("", "localhost", "127.0.0.1", "::1")


@dataclass
class Host:
    """The server as seen from the machine that the module runs on; without a process, it runs elsewhere."""

    facts: Mapping[str, str]
    process: Process | None

    def client(self, name: str) -> str:
        """Return the path of a client program of the server's installation; MariaDB's also have MySQL's names."""
        names = [f"{self.facts['basedir']}/bin/{prefix}{name}" for prefix in ("mariadb-", "mysql")]
        return next((path for path in names if os.path.exists(path)), f"mariadb-{name}")

    def files(self, module: Any) -> OptionFiles:
        return OptionFiles.of(self.process, self.facts["basedir"], module.run_command)


def find_host(session: Session) -> Host:
    """Return the server's host as it is seen from here."""
    facts = server_facts(session)
    pid_file = os.path.join(facts["datadir"], facts["pid_file"])
    # A port of this machine may lead to another one.
    here = bool(session.connection.unix_socket) or facts["hostname"] == socket.gethostname()
    return Host(facts, Process.find(pid_file) if here else None)


def option_files(module: Any, host: Host) -> OptionFiles | None:
    """Return the option files that the server reads, or None where there is to be none of ours.

    :raises AuditError: where there is to be one and nothing says which ones the server reads.
    """
    option_file = module.params["option_file"]
    if option_file == NONE:
        return None
    if host.process:
        return host.files(module)
    if option_file == AUTO and (module.params["login_host"] or "") not in _LOCAL:
        return None
    raise AuditError(
        f"option_file: the server's process ({host.facts['pid_file']} on {host.facts['hostname']}) is not to be "
        "seen from here, so that nothing says which option files it reads; run as root on its own host, or go "
        "without a file that survives a restart: option_file: none"
    )


def note_restart(module: Any, host: Host, file: OptionFile | None) -> None:
    """Put what server_restart takes into the results; without our file, the server starts as it would without us."""
    if not (module.results["restart_required"] and host.process):
        return
    module.results["restart"] = {
        "process": host.process.pid,
        "ready": [host.client("admin"), "--no-defaults", f"--socket={host.facts['socket']}", "ping"],
        "restore": [{"path": file.path}] if file else [],
    }
