# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role audit_archive works out on the controller: what cannot be meant, and what was archived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.hold import Hold
from ansible_collections.dbfleet.audit.plugins.module_utils._core.retention import Retention
from ansible_collections.dbfleet.audit.plugins.plugin_utils._rollout import counted, heading
from ansible_collections.dbfleet.audit.plugins.plugin_utils._seals import ledger_path


def archive_problems(given: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the variables of archiving, before a server is asked.

    :param given: values by the names of the variables, without their prefix.
    """
    problems = []
    if not given["url"]:
        problems.append(
            "audit_archive_url is missing: an absolute path on the controller, or a URL such as s3://bucket/audit"
        )
    try:
        Retention(given["older_than"], given["retention"])
        for number, hold in enumerate(given["holds"], 1):
            Hold.parse(hold, f"hold {number}")
    except AuditError as error:
        problems.append(f"audit_archive_{error}")
    return problems


def restore_problems(given: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the variables of a restore, before a server is asked.

    :param given: as archive_problems() has it, with the name of the `archive` and `public_keys`.
    """
    problems = archive_problems(given)
    if not given["archive"]:
        problems.append("audit_archive_restore is missing: the name of the archive, as audit_log_2025_10")
    if not given["public_keys"]:
        problems.append("audit_seal_public_keys is missing: an archive is verified before it is restored")
    return problems


def restore_lines(results: Sequence[Mapping[str, Any]], names: Sequence[str], host: str) -> list[str]:
    """Return the line that a person wants of each archive that was restored."""
    return [
        f"{heading(host, name)}{counted(result['rows'], 'row')} of {result['first_day']} to before {result['end_day']} "
        f"in the table {result['table']}, {result['seconds']:.1f} s"
        for name, result in zip(names, results)
    ]


def archive_logs(targets: Sequence[Mapping[str, Any]], directory: str, server: str) -> list[dict[str, str]]:
    """Return what the archive module is told of each database: its name, the log's schema and ledger."""
    return [
        {
            "login_db": target["name"],
            "schema": target["schema"],
            "ledger": ledger_path(directory, server, target["name"]),
        }
        for target in targets
    ]


def archive_lines(
    results: Sequence[Mapping[str, Any]], names: Sequence[str], host: str, predicted: bool = False
) -> list[str]:
    """Return the line that a person wants of each log after it was archived, and what was kept below."""
    lines = []
    for name, result in zip(names, results):
        where = heading(host, name)
        if result.get("failed"):
            lines.append(f"FAILED {where}{result['msg']}")
        if "archived" in result:
            said = _due(result) if predicted else _done(result)
            lines.append(where + ", ".join([*said, f"{result['seconds']:.1f} s"]))
            lines += [f"  kept {kept['name']}: {kept['reason']}" for kept in result["kept"]]
    return lines


def _done(result: Mapping[str, Any]) -> list[str]:
    archived = result["archived"]
    size = sum(manifest["size"] for manifest in archived)
    rows = sum(manifest["rows"] for manifest in archived)
    written = f"{counted(rows, 'row')} in {counted(len(archived), 'archive')} ({size / 1e6:,.1f} MB)"
    return [
        written if archived else "nothing to archive",
        f"{counted(len(result['dropped']), 'partition')} dropped",
        f"{counted(len(result['expired']), 'archive')} expired",
    ]


def _due(result: Mapping[str, Any]) -> list[str]:
    return [
        f"{counted(len(result['due']), 'partition')} to archive",
        f"{len(result['dropped'])} to drop",
        f"{counted(len(result['expired']), 'archive')} to delete",
    ]
