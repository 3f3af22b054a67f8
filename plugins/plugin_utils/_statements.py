# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles for statement auditing say of a server, on the controller. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def statement_lines(configured: Mapping[str, Any], host: str, preload: Mapping[str, Any], pending: bool) -> list[str]:
    """Return the line that a person wants of a server after a rollout of pgaudit, and its limitations below it.

    :param configured: the result of postgresql_pgaudit.
    :param preload: the result of postgresql_preload_libraries; skipped for a login that is no superuser.
    """
    settings = configured["settings"]
    parts = [
        f"pgaudit logs {settings['pgaudit.log']}" if "pgaudit.log" in settings else "pgaudit has no settings",
        *([_counted(configured["objects"], "object") + " audited"] if configured["objects"] else []),
        f"extension in {_counted(len(configured['extensions']), 'database')}",
        f"restart pending: {'yes' if pending else 'no'}",
        f"{round(configured['seconds'] + preload.get('seconds', 0), 1)} s",
    ]
    return [f"{host}: {', '.join(parts)}", *(f"{host}: limitation: {text}" for text in configured["limitations"])]


def statement_proof_lines(configured: Mapping[str, Any], host: str, preload: Mapping[str, Any]) -> list[str]:
    """Return the line that a person wants of a server after a verification, and its problems below it."""
    problems = [*preload.get("differences", []), *configured["differences"]]
    if preload.get("restart_required"):
        problems.append("the server has not loaded pgaudit: restart it")
    recorded = configured["recorded"]
    proven = f"pgaudit recorded {', '.join(recorded)}" if recorded else "pgaudit not probed"
    verdict = "FAILED" if problems else "OK"
    return [f"{verdict} {host}: {proven}, {_counted(len(problems), 'problem')}", *(f"  {text}" for text in problems)]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
