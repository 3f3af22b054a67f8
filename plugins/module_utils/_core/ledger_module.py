# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options and results of ledger_verify."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from . import ledger_check
from .errors import AuditError
from .ledger_archive import verify_archives
from .ledger_file import read_ledger
from .shipped_check import verify_shipped
from .signature import CRYPTOGRAPHY_ERROR, PublicKey, read_public_key, trusted_keys
from .verification import Problem, summary

LEDGER_SPEC: dict[str, Any] = {
    "ledger": {"type": "path", "required": True},
    "public_key": {"type": "list", "elements": "path", "required": True},
    "archives": {"type": "list", "elements": "path", "default": []},
    "shipped": {"type": "list", "elements": "path", "default": []},
    "first_day": {"type": "str"},
    "last_day": {"type": "str"},
    "digest": {"type": "str"},
    "fail_on_problem": {"type": "bool", "default": True},
}

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def check(module: AnsibleModule) -> None:
    """Verify what the options name, and exit with what was found."""
    started = time.monotonic()
    if CRYPTOGRAPHY_ERROR:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=CRYPTOGRAPHY_ERROR)
    try:
        results = _results(module.params)
    except AuditError as error:
        module.fail_json(msg=str(error), seconds=_since(started))
    problems = results["problems"]
    if problems and module.params["fail_on_problem"]:
        module.fail_json(msg=summary(problems), **results, seconds=_since(started))
    module.exit_json(**results, seconds=_since(started))


def _results(params: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("first_day", "last_day"):
        if params[name] and not _DAY.fullmatch(params[name]):
            raise AuditError(f"{name} is {params[name]}, which is not a day like 2026-10-31")
    given = [_key(path) for path in params["public_key"]]
    if not given:
        raise AuditError("public_key is empty; name at least one file")
    entries, digests = read_ledger(params["ledger"], must_exist=True)
    days = (params["first_day"], params["last_day"])
    problems = ledger_check.check_ledger(entries, digests, trusted_keys(given, entries))
    vouched = ledger_check.vouched(entries, problems)
    problems += ledger_check.unsettled(vouched)
    of_archives, rows = verify_archives(entries, vouched, params["archives"], days)
    of_shipped, counted = verify_shipped(entries, vouched, params["shipped"], days)
    problems += of_archives + of_shipped
    real = [entry.seal.digest() for entry in entries]
    if params["digest"] and params["digest"] not in real:
        problems.append(
            Problem(
                "not_in_ledger",
                f"no seal of the ledger has the digest {params['digest']}: its end was cut off, or it is another",
            )
        )
    plain = [problem.plain() for problem in problems]
    return {
        "changed": False,
        "valid": not plain,
        "problems": plain,
        "seals": len(entries),
        "rows_checked": rows + counted["rows"],
        **({"shipped": counted} if params["shipped"] else {}),
        "last_digest": real[-1] if real else None,
        "last_sealed_at": entries[-1].seal.sealed_at if entries else None,
    }


def _key(path: str) -> PublicKey:
    try:
        with open(path, "rb") as file:
            return read_public_key(file.read(), f"public_key {path}")
    except OSError as error:
        raise AuditError(f"public_key: {path} cannot be read: {error.strerror}") from None


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
