# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The two actions, whatever the engine: sealing, and verifying with seals."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal_step import BLOCK_IDS, CALL_SECONDS
from ansible_collections.dbfleet.audit.plugins.module_utils._core.signature import PublicKey
from ansible_collections.dbfleet.audit.plugins.module_utils._core.verification import summary
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ledger import Ledger, ObjectLedger, ledger_at
from ansible_collections.dbfleet.audit.plugins.plugin_utils._seal_action import SealAction
from ansible_collections.dbfleet.audit.plugins.plugin_utils._seal_check import SealCheck
from ansible_collections.dbfleet.audit.plugins.plugin_utils._sealing import Sealing


class Seal(SealAction):
    """Seals what is committed: the action of the seal modules."""

    def work(self) -> dict[str, Any]:
        key = self.signing_key("signing_key")
        if key is None:
            raise AuditError("signing_key or signing_key_content is missing: a key on the controller, or its text")
        if not self.option("ledger"):
            raise AuditError("ledger is missing: the path on the controller of the file that the seals are added to")
        ledger = ledger_at(self.option("ledger"))
        seconds = self.number("call_seconds", CALL_SECONDS)
        step = partial(self.step, "seal", ids=int(self.number("block_rows", BLOCK_IDS)), seconds=seconds)
        if self._task.check_mode:
            return _predicted(step())
        sealing = Sealing(step, ledger, key, self.signing_key("previous_signing_key"))
        answer = sealing.run(self._attested(ledger, key.public, seconds))
        last = ledger.last()
        return {
            "changed": bool(sealing.entries),
            "seals": [_described(entry.seal) for entry in sealing.entries],
            "rows": sealing.rows,
            "unsealed": max(answer["last_id"] - answer["watermark"], 0),
            "number": last.seal.number if last else 0,
            "digest": last.seal.digest() if last else None,
            "key": key.public.name,
        }

    def _attested(self, ledger: Ledger | ObjectLedger, key: PublicKey, seconds: float) -> dict[str, Any] | None:
        """Return what a resync is to say, with all problems that there are now, or None without one."""
        reason = self.option("resync")
        if not reason:
            return None
        previous = self.signing_key("previous_signing_key")
        check = SealCheck(self.step, ledger, [key, *([previous.public] if previous else [])], seconds)
        check.run("all", 0, float("inf"))
        return {"reason": reason, "accepted": check.known()}


class Verify(SealAction):
    """Verifies, with a ledger and public keys the seals as well: the action of the verify modules."""

    def work(self) -> dict[str, Any]:
        keys, path = self.public_keys(), self.option("ledger")
        if not (keys or path):
            return self.on_host()
        if not (keys and path):
            missing = "public_key" if path else "ledger"
            raise AuditError(f"{missing} is missing: seals are verified with the ledger and a public key, together")
        result = self.on_host(fail_on_problem=False)
        check = SealCheck(self.step, ledger_at(path), keys, self.number("call_seconds", CALL_SECONDS))
        check.run(
            self.option("scope", "all"), int(self.option("from_id", 0)), float(self.option("max_unsealed_hours", 24))
        )
        found = check.all_problems()
        if not found:
            check.remember()
        problems = [*result["problems"], *(problem.plain() for problem in found)]
        result.update(
            valid=not problems,
            problems=problems,
            rows_checked=check.rows,
            blocks_checked=check.blocks,
            first_tampered_id=min((finding["id"] for finding in check.findings), default=None),
            unsealed=check.unsealed,
            seal_state=check.state,
        )
        if problems and self.option("fail_on_problem", True):
            result.update(failed=True, msg=summary(problems))
        return result


def _predicted(answer: Mapping[str, Any]) -> dict[str, Any]:
    unsealed = max(answer["last_id"] - answer["watermark"], 0)
    return {"changed": bool(answer["pending"]) or unsealed > 0, "seals": [], "rows": 0, "unsealed": unsealed}


def _described(seal: Any) -> dict[str, Any]:
    return {"number": seal.number, "kind": seal.kind, "period": seal.period, "rows": seal.rows, "digest": seal.digest()}
