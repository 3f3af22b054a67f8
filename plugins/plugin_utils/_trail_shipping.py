# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role audit_shipping works out on the controller of rows that are shipped: what cannot be meant, what was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.retention import Age
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archives import archive_logs
from ansible_collections.dbfleet.audit.plugins.plugin_utils._rollout import counted, heading
from ansible_collections.dbfleet.audit.plugins.plugin_utils._seals import ledger_path, ledger_problems

_SUFFIX = ".jsonl"


def ship_problems(given: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the variables of shipping, before a server is asked.

    :param given: `url`, `keep`, `seal`, `cursors` of shipping, and `public_keys` and `ledger` of sealing.
    """
    problems = ledger_problems(given["ledger"])
    if not given["url"]:
        problems.append(
            "audit_shipping_trail_url is missing: a directory of the controller, s3://, abfs://, https://, "
            "syslog+tls:// or syslog+tcp://"
        )
    if not (given["seal"] or given["public_keys"]):
        problems.append(
            "audit_seal_public_keys is missing: rows are compared with the ledger; or set audit_shipping_trail_seal "
            "to seal before"
        )
    if "://" in given["ledger"] and not given["cursors"]:
        problems.append(
            "audit_shipping_trail_cursors is missing: a directory of the controller, for ledgers are at a URL"
        )
    try:
        if given["keep"]:
            Age.parse(given["keep"], "audit_shipping_trail_keep")
    except AuditError as error:
        problems.append(str(error))
    return problems


def ship_logs(targets: Sequence[Mapping[str, Any]], ledgers: str, server: str, cursors: str) -> list[dict[str, str]]:
    """Return what the ship module is told of each database: its name, the log's schema, ledger and cursor.

    :param cursors: the directory of the cursors; empty to have them beside the ledgers.
    """
    logs = archive_logs(targets, ledgers, server)
    if cursors:
        for log in logs:
            log["cursor"] = ledger_path(cursors, server, log["login_db"]).removesuffix(_SUFFIX) + ".cursor"
    return logs


def ship_lines(
    results: Sequence[Mapping[str, Any]], names: Sequence[str], host: str, predicted: bool = False
) -> list[str]:
    """Return the line that a person wants of each log after it was shipped."""
    lines = []
    for name, result in zip(names, results):
        where = heading(host, name)
        if result.get("failed"):
            lines.append(f"FAILED {where}{result['msg']}")
        if "destination" in result:
            lines.append(where + ", ".join([*_shipped(result, predicted), f"{result['seconds']:.1f} s"]))
    return lines


def _shipped(result: Mapping[str, Any], predicted: bool) -> list[str]:
    amount = f"{counted(result['rows'], 'row')} of {counted(result['seals'], 'seal')}"
    if predicted:
        return [f"{amount} to ship to {result['destination']}"]
    if result["behind"] is None:
        return [f"{amount} shipped to {result['destination']}", "how far behind is not known"]
    behind = f"{counted(result['behind'], 'seal')} behind, since {result['behind_since']}"
    return [f"{amount} shipped to {result['destination']}", behind if result["behind"] else "nothing behind"]
