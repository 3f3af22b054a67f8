# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where server_audit writes."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .audit_plugin import PLUGIN, PREFIX
from .session import Session

_SETTINGS = rf"""
SHOW GLOBAL VARIABLES WHERE variable_name = 'datadir' OR variable_name LIKE '{PLUGIN}\_%'
"""


def read_logs(session: Session) -> list[dict[str, str]]:
    """Return the log of the plugin as {path, format} or {program}; nothing where there is no plugin."""
    rows = session.all(_SETTINGS)
    return logs_of({row["Variable_name"].lower().removeprefix(PREFIX): row["Value"] or "" for row in rows})


def logs_of(settings: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the same of the settings, less their prefix."""
    output = settings.get("output_type", "").lower()
    if output == "syslog":
        return [{"program": settings["syslog_ident"]}]
    if output == "file":
        return [{"path": log_path(settings["datadir"], settings["file_path"]), "format": PLUGIN}]
    return []


def log_path(data_directory: str, file_path: str) -> str:
    """Return the file that the setting file_path makes the plugin write to."""
    path = os.path.join(data_directory, file_path)
    return os.path.join(path, f"{PLUGIN}.log") if not file_path or os.path.isdir(path) else path
