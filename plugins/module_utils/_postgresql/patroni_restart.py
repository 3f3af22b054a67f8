# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options and results of postgresql_patroni_restart."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from .._core.errors import AuditError
from .._core.restart import PROCESS_SPEC
from .._core.service import ServerProcess, run_command, services_of
from .patroni import restoring
from .patroni_api import API_SPEC, PatroniApi

PATRONI_RESTART_SPEC: dict[str, Any] = {
    **API_SPEC,
    **PROCESS_SPEC,
    "running": {"type": "dict", "default": {}},
}

_PAUSE = 0.5

#: Patroni looks at its configuration this often at least, unless somebody has made it slower: loop_wait, seconds.
_LOOP = 10


def restart(module: AnsibleModule) -> None:
    """Have Patroni restart the server that the options describe, and exit."""
    params = module.params
    try:
        server = ServerProcess.find(params["process"], params["logs"], run_command)
        # Patroni's, into whose journal the server writes while it starts.
        server.unit = server.unit or next(iter(services_of(server.pid)), "")
        api = PatroniApi(params)
        before = api.parameters()
        problem = "" if module.check_mode else _restart(api, server, params)
        if not problem:
            module.exit_json(changed=True)
        log = server.said(run_command)
        restored = restoring(before, params["running"])
        if restored:
            api.change(restored)
        up = _comes_up(params["ready"], params["timeout"] + 2 * _LOOP)
    except AuditError as error:
        module.fail_json(msg=str(error))
    module.fail_json(msg=_message(problem, restored, up, log), parameters=restored, restored=up, log=log)


def _restart(api: PatroniApi, server: ServerProcess, params: dict[str, Any]) -> str:
    """Restart the server; return an empty text when it is up, else what went wrong."""
    said = api.restart(params["timeout"])
    if said and not server.gone:
        return said
    if server.gone and _comes_up(params["ready"], 0 if said else params["timeout"]):
        return ""
    return said or f"it does not take connections {params['timeout']:g} s after Patroni has restarted it"


def _comes_up(ready: Sequence[str], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while run_command(ready, "")[0]:
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def _message(problem: str, restored: dict[str, Any], up: bool, log: str) -> str:
    names = ", ".join(restored)
    back = f"the cluster's configuration has its old {names} back" if names else "nothing was there to put back"
    outcome = "the server runs" if up else "IT IS DOWN: Patroni did not bring it up with them either"
    return (
        f"the server did not come up with its new settings: {problem}; {back}, and {outcome}. "
        f"Its log says:\n{log or '(nothing)'}"
    )
