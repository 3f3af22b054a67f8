# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role audit_seal works out on the controller: where ledgers are, what cannot be meant, what was sealed."""

from __future__ import annotations

import json
import os.path
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import in_words
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ledger import ledger_at
from ansible_collections.dbfleet.audit.plugins.plugin_utils._rollout import counted, heading


def ledger_path(directory: str, server: str, database: str = "") -> str:
    """Return the path, or URL, of the ledger of a database, or of a whole server, whose database is empty.

    Names are percent-encoded, so that no name leaves the directory and no two names share a file.
    """
    parts = [file_name(part) for part in (server, database) if part]
    return os.path.join(directory, *parts) + ".jsonl"


def last_verified(directory: str, server: str, databases: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return, by database, up to which seal and when all of a log was last found as it was sealed.

    What was never verified has nothing, and what cannot be read an `error`.
    """
    return {database: _mark(ledger_path(directory, server, database)) for database in databases}


def _mark(path: str) -> dict[str, Any]:
    try:
        text = ledger_at(path).mark()
    except (AuditError, OSError) as error:
        return {"error": f"the ledger {path} cannot be read: {error}"}
    return json.loads(text) if text else {}


def file_name(name: str) -> str:
    """Return a name, percent-encoded, as that of one file or folder."""
    encoded = quote(name, safe="")
    return f"%2E{encoded[1:]}" if encoded.startswith(".") else encoded


def seal_problems(given: Mapping[str, Any], hosts: Sequence[str]) -> list[str]:
    """Return what is wrong with the variables of sealing, before a server is asked.

    :param given: values by the names of the variables, without their prefix.
    :param hosts: those that the run is about.
    """
    problems = [
        f"audit_seal_{name} and audit_seal_{name}_content are both set; one key is enough"
        for name in ("signing_key", "previous_signing_key")
        if given[name] and given[f"{name}_content"]
    ]
    if not (given["signing_key"] or given["signing_key_content"]):
        problems.append(
            "audit_seal_signing_key is missing: the path on the controller of an Ed25519 key, as "
            "`openssl genpkey -algorithm ed25519 -out seal.pem` makes it; or its text as audit_seal_signing_key_content"
        )
    if given["resync"] and len(hosts) > 1:
        problems.append(
            f"audit_seal_resync accepts what is in the logs of {', '.join(hosts)}; --limit the run to the one server "
            "that is meant"
        )
    if given["resync_databases"] and not given["resync"]:
        problems.append("audit_seal_resync_databases is set without audit_seal_resync, the reason")
    return problems + ledger_problems(given["ledger"])


def ledger_problems(ledger: str) -> list[str]:
    """Return what is wrong with where the ledgers are to be."""
    if "://" in ledger or os.path.isabs(os.path.expanduser(ledger)):
        return []
    return [
        f"audit_seal_ledger is {ledger!r}, which would be another directory wherever the run is started; give an "
        "absolute path on the controller, or a URL"
    ]


def seal_lines(results: Sequence[Mapping[str, Any]], names: Sequence[str], host: str) -> list[str]:
    """Return the line that a person wants of each log after it was sealed."""
    lines = []
    for name, result in zip(names, results):
        where = heading(host, name)
        if result.get("failed"):
            lines.append(f"FAILED {where}{result['msg']}")
            continue
        lines.append(where + ", ".join([*_sealed(result), f"{result['seconds']:.1f} s"]))
    return lines


def _sealed(result: Mapping[str, Any]) -> list[str]:
    # Check mode looks at no row: it knows how far the ids reach, and not how many of them became rows.
    if "number" not in result:
        return [f"{counted(result['unsealed'], 'id')} to look through for rows to seal"]
    return [
        f"{counted(result['rows'], 'row')} in {counted(len(result['seals']), 'seal')}",
        f"last seal {result['number']}",
        f"unsealed {result['unsealed']:,}",
    ]


def _of_shipped(shipped: Mapping[str, Any] | None) -> list[str]:
    if not shipped:
        return []
    whole = in_words(shipped["whole_seals"]) or "none"
    said = [f"whole seals {whole}", f"{shipped['duplicates']:,} rows twice"]
    for name, words in (("absent_seals", "nothing of seals"), ("accepted_seals", "accepted and not proven: seals")):
        if shipped[name]:
            said.insert(1, f"{words} {in_words(shipped[name])}")
    return [*said, f"{shipped['of_other_logs']:,} of other logs"] if shipped["of_other_logs"] else said


def ledger_lines(result: Mapping[str, Any], ledger: str) -> list[str]:
    """Return the line that a person wants of a ledger that was verified without a database, and its problems below."""
    proven = [
        counted(result["seals"], "seal"),
        f"{counted(result['rows_checked'], 'row')} verified",
        *_of_shipped(result.get("shipped")),
        f"last digest {result['last_digest']} of {result['last_sealed_at']}",
        counted(len(result["problems"]), "problem"),
    ]
    problems = [f"  {problem['type']}: {problem['detail']}" for problem in result["problems"]]
    return [f"{'OK' if result['valid'] else 'FAILED'} {ledger}: {', '.join(proven)}", *problems]
