# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role mysql_audit_plugin says of the module's answer, on the controller. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def audit_plugin_lines(result: Mapping[str, Any], host: str) -> list[str]:
    """Return the line that a person wants of a server's audit plugin, and one for each of its limitations."""
    if not result["available"]:
        return [f"{host}: no server_audit: {result['reason']}"]
    pending = "yes" if result["restart_required"] else "no"
    parts = [*_logging(result), f"restart pending: {pending}", f"{round(result['seconds'], 1)} s"]
    return [f"{host}: {', '.join(parts)}"] + [
        f"{host}: limitation: {limitation}" for limitation in result["limitations"]
    ]


def audit_plugin_proof_lines(result: Mapping[str, Any], host: str) -> list[str]:
    """Return the line that a person wants of a server's audit plugin after a verification, and its problems."""
    if not result["available"]:
        return [f"{host}: no server_audit: {result['reason']}"]
    problems = result["differences"]
    verdict, number = ("FAILED" if problems else "OK"), len(problems)
    counted = f"{number} {'problem' if number == 1 else 'problems'}"
    return [f"{verdict} {host}: {', '.join([*_logging(result), counted])}", *(f"  {text}" for text in problems)]


def _logging(result: Mapping[str, Any]) -> list[str]:
    settings = result.get("settings")
    if settings is None:
        return ["server_audit taken out, its log files kept"]
    if settings["logging"] == "OFF":
        return ["server_audit is loaded and logs nothing"]
    events = settings["events"].replace(",", ", ") or "everything"
    only, without = (settings[name].replace(",", ", ") for name in ("incl_users", "excl_users"))
    users = f" of {only}" if only else f" without {without}" if without else ""
    line = f"server_audit logs {events}{users} to {result['log']}"
    return [line] if result["log"] == "syslog" else [line, _rotation(settings)]


def _rotation(settings: Mapping[str, str]) -> str:
    rotations, size = int(settings["file_rotations"]), int(settings["file_rotate_size"])
    return f"{rotations} x {_readable(size)}" if rotations else "not rotated"


def _readable(size: int) -> str:
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if size >= 1024**power:
            return f"{round(size / 1024**power, 1):g} {unit}"
    return f"{size} bytes"
