# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading, checking and results of postgresql_patroni_settings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from .._core.errors import AuditError
from .module import PostgresqlModule
from .patroni import changes, not_taken_over, undoing
from .patroni_api import API_SPEC, Cluster, PatroniApi
from .session import Session
from .settings import patroni_cluster, read_lines

PATRONI_SPEC: dict[str, Any] = {
    **API_SPEC,
    "parameters": {"type": "dict", "default": {}},
    "timeout": {"type": "float", "default": 60.0},
}

#: Seconds between two looks at the server's files.
_PAUSE = 0.5


def reconcile(module: PostgresqlModule, session: Session) -> None:
    """Bring parameters into the configuration of the cluster, and wait until the server has them in its files."""
    api = PatroniApi(module.params)
    cluster = api.cluster()
    _require_member(session, cluster, api.url)
    current = api.parameters()
    changed = changes(current, module.params["parameters"])
    leaders = [entry.name for entry in cluster.members if entry.leader]
    module.results.update(
        cluster=cluster.name,
        member=cluster.member,
        leader=cluster.member in leaders,
        members=[asdict(entry) for entry in cluster.members],
        system_identifier=cluster.system_identifier,
        url=api.url,
        parameters=changed,
        changed=bool(changed),
    )
    if module._diff:
        header = f"Patroni cluster {cluster.name} (postgresql.parameters)"
        before = {name: current[name] for name in changed if name in current}
        after = {name: text for name, text in changed.items() if text is not None}
        module.results["diff"] = {"before_header": header, "after_header": header, "before": before, "after": after}
    if changed and not module.check_mode:
        api.change(changed)
        _wait(session, api, changed, undoing(current, changed), module.params["timeout"])


def _require_member(session: Session, cluster: Cluster, url: str) -> None:
    """Make sure that the server and the API belong together.

    :raises AuditError: when they do not.
    """
    if not patroni_cluster(session):
        raise AuditError(f"{session.database}: this server is not run by Patroni, or the login is no superuser")
    own = session.one("SELECT system_identifier::text AS own FROM pg_control_system()").own
    if own != cluster.system_identifier:
        raise AuditError(
            f"{url} is the API of cluster {cluster.name}, and this server is none of it (system identifier {own}, "
            f"not {cluster.system_identifier}): give the API's address for this server"
        )


def _wait(
    session: Session, api: PatroniApi, changed: Mapping[str, Any], before: Mapping[str, Any], timeout: float
) -> None:
    """Wait until Patroni has written the parameters.

    :raises AuditError: when it does not; the cluster's configuration is then as it was.
    """
    deadline = time.monotonic() + timeout
    while True:
        lacking = not_taken_over(changed, read_lines(session, list(changed)))
        if not lacking:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(_PAUSE)
    api.change(before)
    raise AuditError(
        f"Patroni has not brought the cluster's parameters to this server within {timeout:g} s: {'; '.join(lacking)}. "
        "What a member's own patroni.yml sets overrides them: take it out there. The cluster's configuration is as "
        "it was"
    )
