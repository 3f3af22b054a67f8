# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options, planning and results of mysql_audit_plugin."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .._core.errors import AuditError
from .._core.plan import Plan
from . import audit_plugin_catalog as catalog
from .audit_plugin import USER_LISTS, PluginState, limitations, plan_absent, plan_present, wanted_settings
from .audit_plugin_file import AuditFile, desired_file
from .log_files import log_path
from .module import MysqlModule
from .option_file import AUTO, note, written
from .server_host import Host, find_host, note_restart, option_files
from .session import Session

PLUGIN_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "settings": {"type": "dict", "default": {}},
    "option_file": {"type": "str", "default": AUTO},
    "allow_unavailable": {"type": "bool", "default": False},
}

_COMMUNITY = (
    "MySQL Community has no audit log (MySQL Enterprise, Percona Server and MariaDB have one); row changes are "
    "audited by triggers all the same"
)
_ENTERPRISE = (
    "this is MySQL Enterprise, whose audit log this collection does not manage: run "
    "audit_log_filter_linux_install.sql "
    "of its share directory, then SELECT audit_log_filter_set_filter('all', '{\"filter\": {\"log\": true}}') and "
    "SELECT audit_log_filter_set_user('%', 'all'); row changes are audited by triggers all the same"
)
_PERCONA = (
    "this is Percona Server, whose audit_log_filter (a plugin in 8.0.34, a component since 8.4) this collection does "
    "not manage: run audit_log_filter_linux_install.sql of its share directory, then SELECT "
    "audit_log_filter_set_filter('all', '{\"filter\": {\"log\": true}}') and SELECT audit_log_filter_set_user('%', "
    "'all'); row changes are audited by triggers all the same"
)


class UnavailableError(AuditError):
    """The server, or the login, cannot have the plugin, whatever is asked of it."""


def run(module: MysqlModule, session: Session) -> None:
    """Bring the plugin into its state, or say why this server cannot have it."""
    work = _present if module.params["state"] == "present" else _absent
    module.results.update(available=True, reason="", limitations=[], restart_required=False)
    module.results.update(restart=None, statements=[])
    try:
        _require_mariadb(session)
        work(module, session)
    except UnavailableError as error:
        module.results.update(available=False, reason=str(error))
        # What cannot be there need not be taken out.
        if not (module.params["allow_unavailable"] or module.params["state"] == "absent"):
            raise


def _require_mariadb(session: Session) -> None:
    if session.is_mariadb:
        return
    comment = catalog.server_facts(session)["version_comment"].lower()
    reason = _PERCONA if "percona" in comment else _ENTERPRISE if "enterprise" in comment else _COMMUNITY
    raise UnavailableError(reason)


def _present(module: MysqlModule, session: Session) -> None:
    state = catalog.read(session)
    if not state.library:
        raise UnavailableError(
            "the server's plugin directory has no server_audit; install the package that brings it (the server's own "
            "on most distributions), or turn it on in the option group of a managed service"
        )
    wanted = wanted_settings(module.params["settings"], state.variables)
    host = find_host(session)
    file = _file(module, host, state, wanted)
    plan = plan_present(state, wanted, file is not None)
    differences = plan.differences() + ([f"{file.path} does not say what is wanted"] if file and file.changed else [])
    missing = catalog.missing_rights(session, plan)
    if missing:
        raise UnavailableError(_refusal(session, missing))
    _require_log_directory(host, wanted)
    _warn_of_unknown_users(module, session, wanted)
    with written(module, file):
        _carry_out(module, session, wanted, file is not None)
    _report(module, session, host, wanted, file)
    module.results["differences"] = differences


def _absent(module: MysqlModule, session: Session) -> None:
    state = catalog.read(session)
    host = find_host(session)
    file = _file(module, host, state, None)
    missing = catalog.missing_rights(session, plan_absent(state))
    if missing:
        raise AuditError(_refusal(session, missing))
    module.reconcile(session, lambda s: plan_absent(catalog.read(s)), on_replica=True)
    with written(module, file):
        note(module, file)
    module.results["restart_required"] = state.loaded and state.permanent
    note_restart(module, host, None)
    if file and file.others:
        said = ", ".join(f"{name}={value}" for name, value in file.others)
        module.results["limitations"].append(f"another option file, or the command line, still says {said}")


def _file(module: MysqlModule, host: Host, state: PluginState, wanted: Mapping[str, str] | None) -> AuditFile | None:
    """Return the option file, or nothing where there is none to be.

    :raises AuditError: where there is to be one and the server would not read it.
    """
    files = option_files(module, host)
    option_file = module.params["option_file"]
    if files is None or (option_file == AUTO and wanted is None and not files.directories):
        return None
    return desired_file(option_file, files, module.run_command, state, wanted)


def _refusal(session: Session, missing: Sequence[str]) -> str:
    return (
        f"the login {session.account} may not do it; GRANT {', '.join(missing)}; on a managed service, which gives "
        "that to nobody, the plugin is turned on and off in the option group"
    )


def _require_log_directory(host: Host, wanted: Mapping[str, str]) -> None:
    """Refuse a log that the server could not write: it would run all the same, and log nothing."""
    if not host.process or wanted["output_type"] != "file" or wanted["logging"] == "OFF":
        return
    path = log_path(host.facts["datadir"], wanted["file_path"])
    directory = os.path.dirname(path)
    if wanted["file_rotations"] == "0" and os.path.exists(path):
        return
    if not os.path.isdir(directory):
        raise AuditError(f"settings: file_path: there is no directory {directory}; make it, for the server's account")
    if not host.process.may_write(directory):
        raise AuditError(
            f"settings: file_path: the server's account may not write to {directory}; let it, or take another"
        )


def _warn_of_unknown_users(module: MysqlModule, session: Session, wanted: Mapping[str, str]) -> None:
    for setting in USER_LISTS:
        names = [name for name in wanted[setting].split(",") if name]
        for name, near in catalog.unknown_accounts(session, names).items() if names else ():
            hint = f"; did you mean {near}?" if near else ""
            module.warn(f"settings: {setting}: no account is called {name} (names go without a host){hint}")


def _carry_out(module: MysqlModule, session: Session, wanted: Mapping[str, str], persisted: bool) -> None:
    def planner(open_session: Session) -> Plan:
        return plan_present(catalog.read(open_session), wanted, persisted)

    # Loading the plugin may bring in what option files say that cannot be seen from here.
    for _attempt in range(2):
        failures = module.reconcile(session, planner, on_replica=True)
        if failures:
            raise AuditError(f"{session.database}: {failures[0].explanation}")
        if module.results["statements"] and not module.check_mode:
            # Whether a record can be written, the server knows once there is one: of this login.
            module.connect().close()
        state = catalog.read(session)
        pending = plan_present(state, wanted, persisted)
        if pending and module.check_mode:
            return
        if wanted["logging"] == "ON" and not state.active:
            raise AuditError(f"{session.database}: NOTHING IS BEING LOGGED: {_why_not(state)}")
        if not pending:
            return
    told = "; ".join(module.results["statements"])
    raise AuditError(f"{session.database}: the server does not keep what it is told: {told}")


def _why_not(state: PluginState) -> str:
    said = state.status.get("last_error") or f"{state.status.get('writes_failed')} records could not be written"
    return f"{said}; see that the server may write to file_path, and that its disk is not full"


def _report(
    module: MysqlModule, session: Session, host: Host, wanted: Mapping[str, str], file: AuditFile | None
) -> None:
    results = module.results
    state = catalog.read(session)
    note(module, file)
    results.update(
        option_file=file.path if file else "",
        settings=dict(wanted),
        log=log_path(host.facts["datadir"], wanted["file_path"]) if wanted["output_type"] == "file" else "syslog",
        restart_required=bool(file and state.loaded and not state.permanent),
        limitations=limitations(state, wanted),
    )
    note_restart(module, host, file)
    if results["restart_required"]:
        results["limitations"].append("until the server restarts, UNINSTALL SONAME ends auditing")
    if not file:
        results["limitations"].append(
            "no option file says this to the server, so that its next start undoes it; on a managed service, set the "
            "same in its option group"
        )
