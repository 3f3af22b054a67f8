# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options and results of server_restart, and the options that every module has which restarts a server."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from .errors import AuditError
from .service import Restart, ServerProcess, put_back, run_command

PROCESS_SPEC: dict[str, Any] = {
    "process": {"type": "int", "required": True},
    "ready": {"type": "list", "elements": "str", "required": True},
    "logs": {"type": "list", "elements": "path", "default": []},
    "timeout": {"type": "float", "default": 60.0},
}

RESTART_SPEC: dict[str, Any] = {
    **PROCESS_SPEC,
    "command": {"type": "list", "elements": "str", "default": []},
    "fallback": {"type": "list", "elements": "str", "default": []},
    "restore": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "lines": {"type": "list", "elements": "str", "default": []},
        },
    },
}


def restart(module: AnsibleModule) -> None:
    """Restart the server that the options describe, and exit."""
    params = module.params
    how = Restart(params["command"], params["fallback"], params["ready"], params["timeout"])
    try:
        server = ServerProcess.find(params["process"], params["logs"], run_command)
        command = list(how.how(server)[0])
    except AuditError as error:
        module.fail_json(msg=str(error))
    problem = "" if module.check_mode else how.run(server, run_command)
    if not problem:
        module.exit_json(changed=True, command=command)
    log = server.said(run_command)
    restored = bool(server.gone) and _bring_back(params, how, server)
    module.fail_json(msg=_message(problem, server, restored, log), command=command, restored=restored, log=log)


def _bring_back(params: dict[str, Any], how: Restart, server: ServerProcess) -> bool:
    for entry in params["restore"]:
        put_back(entry)
    return not how.run(server, run_command)


def _message(problem: str, server: ServerProcess, restored: bool, log: str) -> str:
    if not server.gone:
        return f"the server was not restarted and runs as before: {problem}"
    outcome = (
        "it has its old settings back and runs with them"
        if restored
        else "IT IS DOWN: with its old settings it did not come up either"
    )
    return (
        f"the server did not come up with its new settings: {problem}; {outcome}. Its log says:\n{log or '(nothing)'}"
    )
