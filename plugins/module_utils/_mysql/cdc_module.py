# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading, options and results of mysql_audit_cdc."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core.cdc import CDC_SPEC, raise_failures
from .._core.errors import AuditError
from .accounts import Account
from .cdc import (
    VARIABLES,
    BinlogState,
    check,
    differences,
    limitations,
    plan_variables,
    problems,
    wanted_variables,
)
from .cdc_file import CdcFile, desired_file
from .module import MysqlModule
from .option_file import AUTO, note, written
from .server_host import find_host, note_restart, option_files
from .session import Session

MYSQL_CDC_SPEC: dict[str, Any] = {
    **CDC_SPEC,
    "binlog_expire_logs_seconds": {"type": "int"},
    "account": {"type": "str"},
    "option_file": {"type": "str", "default": AUTO},
}

_VARIABLES = f"SHOW GLOBAL VARIABLES WHERE variable_name IN ({', '.join(repr(name) for name in VARIABLES)})"

_RIGHTS = "SELECT u.privilege_type AS name FROM information_schema.user_privileges AS u WHERE u.grantee = %(grantee)s"

_CONNECTED = """
SELECT COUNT(*) AS number FROM information_schema.processlist AS p
WHERE p.user = %(user)s AND p.command LIKE 'Binlog Dump%%'
"""

_POSITIONS = {"mariadb": "SELECT @@gtid_binlog_pos AS gtid", "mysql": "SELECT @@gtid_executed AS gtid"}

#: The first MySQL that no longer says MASTER.
_NEW_WORDS = (8, 2)


def read(session: Session, account: Account | None) -> BinlogState:
    """Read what the server has of a binary log, and of the consumer's account."""
    current = {row["Variable_name"].lower(): row["Value"] or "" for row in session.all(_VARIABLES)}
    rights, connected = None, False
    if account:
        rights = frozenset(row["name"] for row in session.all(_RIGHTS, {"grantee": account.grantee}))
        connected = bool(session.one(_CONNECTED, {"user": account.user})["number"])
    status = _status(session) if current["log_bin"] == "ON" else {}
    filters = {name: status[name] for name in ("Binlog_Do_DB", "Binlog_Ignore_DB") if status.get(name)}
    return BinlogState(session.vendor, current, filters, rights, connected, session.read_only)


def _status(session: Session) -> Mapping[str, Any]:
    words = "MASTER" if session.is_mariadb or session.version_number < _NEW_WORDS else "BINARY LOG"
    rows = session.all(f"SHOW {words} STATUS")
    return rows[0] if rows else {}


def run(module: MysqlModule, session: Session) -> None:
    """Bring the binary log's settings about, or say what is missing, and report what a person wants to know."""
    params, results = module.params, module.results
    results.update(statements=[], restart_required=False, restart=None, problems=[], limitations=[], option_file="")
    account = Account.parse(params["account"]) if params["account"] else None
    retention = params["binlog_expire_logs_seconds"]
    state = read(session, account)
    check(state, retention)
    wanted = wanted_variables(state, retention)
    found = differences(state, wanted)
    results.update(differences=found, restart_required=not state.logs)
    file = None
    if params["configure"]:
        file = _configure(module, session, account, wanted)
        state = read(session, account)
    elif found:
        raise AuditError(f"{session.database}: {'; '.join(found)}: set `configure: true`, or set it by hand")
    _report(module, session, state, wanted, file)


def _configure(
    module: MysqlModule, session: Session, account: Account | None, wanted: Mapping[str, str]
) -> CdcFile | None:
    host = find_host(session)
    files = option_files(module, host) if session.is_mariadb else None
    file = desired_file(module.params["option_file"], files, module.run_command, wanted) if files else None
    if module.results["restart_required"] and not file:
        raise AuditError(
            f"{session.database}: log_bin is OFF, which only an option file and a restart change: take skip_log_bin "
            "out or put log_bin in; on a managed service, turn on its backups or binary logs"
        )
    if file and not file.changed:
        file.require_effective(module)
    with written(module, file):
        failures = module.reconcile(session, lambda s: plan_variables(read(s, account), wanted), on_replica=True)
        raise_failures(failures, session.database)
        note(module, file)
    note_restart(module, host, file)
    return file


def _report(
    module: MysqlModule, session: Session, state: BinlogState, wanted: Mapping[str, str], file: CdcFile | None
) -> None:
    logs = session.all("SHOW BINARY LOGS") if state.logs else []
    predicted = wanted if module.params["configure"] else {}
    module.results.update(
        option_file=file.path if file else "",
        settings={**state.current, **predicted},
        position=session.one(_POSITIONS[state.vendor])["gtid"].replace("\n", ""),
        binary_logs={"files": len(logs), "bytes": sum(int(log["File_size"]) for log in logs)},
        problems=[problem.as_result() for problem in problems(state, module.params["account"])],
        limitations=limitations(bool(file) or not module.params["configure"] or not session.is_mariadb),
    )
