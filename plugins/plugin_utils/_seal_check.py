# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verification of one log's seals, from the controller: ledger and keys here, leaves and rows on the host."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core import ledger_check
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.ledger_check import identity
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import ROWS, Entry, in_words, ranges, within
from ansible_collections.dbfleet.audit.plugins.module_utils._core.signature import PublicKey, trusted_keys
from ansible_collections.dbfleet.audit.plugins.module_utils._core.verification import Problem
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ledger import Ledger, ObjectLedger

#: Asks the host for a step by name.
Step = Callable[..., dict[str, Any]]

#: Problems of rows that are named one by one, and all that are looked for.
NAMED = 20
MOST = 10_000

#: How often to look at what a sealing run may just be changing, with longer and longer pauses.
_ATTEMPTS = 3

_FIRST_ID = -(2**63)

_WORDS = {
    "modified_row": "row {id} is not what was sealed",
    "deleted_row": "row {id} was sealed and is gone",
    "inserted_row": "row {id} is in no seal, although it should have been there when the rows around it were sealed",
    "beyond": "row {id} has an id that the log has not given out yet",
    "duplicate_id": "there are several rows with the id {id}",
}


class SealCheck:
    """One verification. What it finds is in its attributes.

    :param seconds: what one call of the host may take.
    """

    def __init__(self, step: Step, ledger: Ledger | ObjectLedger, keys: Sequence[PublicKey], seconds: float) -> None:
        self.step = step
        self.seconds = seconds
        self.ledger = ledger
        self._given = keys
        self._settled = 0
        self._gone: set[int | None] = set()
        self._ahead = False
        self.ledger_problems: list[Problem] = []
        self.problems: list[Problem] = []
        self.findings: list[dict[str, Any]] = []
        self.rows = self.blocks = self.unsealed = 0
        self.state = self.oldest = ""

    def run(self, scope: str, from_id: int, max_unsealed_hours: float) -> None:
        """Check the ledger, the database's seals against it, rows against leaves, objects against the last seal.

        :param scope: `new` for what was sealed after the last verification without a problem, or `all`.
        """
        self._read()
        first = self._verified() + 1 if scope == "new" else 1
        compared = self._compare_seals(first)
        self.problems += ledger_check.unexplained(self.vouched)
        self.problems += compared
        self._compare_rows(max(from_id - 1 if from_id > 0 else _FIRST_ID, self._first_id(first)))
        self._compare_objects()
        self._backlog(max_unsealed_hours)
        self._leave_out_accepted()

    def known(self) -> list[dict[str, Any]]:
        """Return all problems but the ledger's own, in the form in which a resync accepts them.

        :raises AuditError: when there are more than one entry of the ledger can name.
        """
        if len(self.findings) >= MOST:
            raise AuditError(f"resync: {MOST} rows or more are not what was sealed, too many to accept one by one")
        objects = [
            {"type": problem.type, "block": problem.block, "id": problem.id, "object": problem.object}
            for problem in self.problems
        ]
        rows = [{key: finding[key] for key in ("type", "block", "id", "leaf")} for finding in self.findings]
        return [{key: value for key, value in known.items() if value is not None} for known in [*objects, *rows]]

    def all_problems(self) -> list[Problem]:
        """Return the problems, those of rows one by one up to a number, the rest as ranges."""
        return [*self.ledger_problems, *self.problems, *_named(self.findings, self._last_id)]

    def remember(self) -> None:
        """Keep, beside the ledger, up to where all was well."""
        last = next((entry.seal for entry in reversed(self.entries) if entry.seal.number <= self._settled), None)
        if last and not self.state:
            now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            self.ledger.set_mark(json.dumps({"number": last.number, "digest": last.digest(), "verified_at": now}))

    def _read(self) -> None:
        """Read the ledger: first of all, and again where the database has more, which a sealing run has just added."""
        self.entries, digests = self.ledger.entries()
        self.ledger_problems = ledger_check.check_ledger(self.entries, digests, trusted_keys(self._given, self.entries))
        self.vouched = ledger_check.vouched(self.entries, self.ledger_problems)
        self._accepted = ledger_check.settled(self.vouched)

    @property
    def _present(self) -> list[Entry]:
        return [entry for entry in self.vouched if entry.seal.number not in self._gone]

    def _compare_seals(self, first: int) -> list[Problem]:
        self._settled = self.entries[-1].seal.number if self.entries else 0
        stored: dict[int, str] = {}
        pending: dict[int, str] = {}
        after: int | None = first - 1
        while after is not None:
            answer = self.step("headers", after=after)
            stored.update((number, mark) for number, mark in answer["stored"])
            pending.update((number, digest) for number, digest in answer["pending"])
            after = answer["next"]
        self._last_id = answer["last_id"]
        if max(stored, default=0) > self._settled:
            # Somebody may have sealed since the ledger was read.
            self._read()
        lost = ledger_check.lost_seals(self.vouched)
        compared = ledger_check.compare(self.entries, stored, pending, lost, first, self._settled)
        named = ("missing_block", "altered_block")
        self._gone = {problem.block for problem in compared.problems if problem.type in named}
        self._unchecked = [pair for entry in self.entries if entry.seal.number in self._gone for pair in entry.seal.ids]
        self._compare_watermark(int(answer["watermark"]))
        self.state, self._ahead = compared.state, compared.ahead
        self.blocks = len(stored)
        return compared.problems

    def _compare_watermark(self, watermark: int) -> None:
        sealed_up_to = ledger_check.sealed_up_to(self._present)
        if watermark < sealed_up_to:
            detail = (
                f"seal_state in the database says that all rows up to {watermark} are sealed, and seals of the ledger "
                f"that all up to {sealed_up_to} were: somebody changed it"
            )
            self.problems.append(Problem("altered_between_seals", detail, object="seal_state"))

    def _compare_rows(self, after: int) -> None:
        exempt = ledger_check.archived_seals(self.vouched)
        complete = False
        while not complete and len(self.findings) < MOST:
            answer = self.step("rows", after=after, exempt=exempt, seconds=self.seconds)
            self.findings += [finding for finding in answer["findings"] if not self._known(finding)]
            self.rows += answer["rows"]
            self.unsealed += answer["unsealed"]
            self.oldest = min(filter(None, (self.oldest, answer["oldest"])), default="")
            after, complete = answer["after"], answer["complete"]

    def _compare_objects(self) -> None:
        answer: dict[str, Any] = {}
        for attempt in range(_ATTEMPTS):
            # A sealing run may be changing both at this moment.
            time.sleep(attempt)
            answer = self.step("inventory")
            if attempt:
                self._read()
            sealed = ledger_check.inventory_digest(self._present)
            # Without the seal that says it, which is named, or with one that the database has yet to sign, there is
            # nothing to compare.
            unknown = sealed is None and (self._gone or not self.vouched)
            if sealed == answer["digest"] or unknown or self._ahead:
                break
        else:
            detail = (
                "seal_inventory in the database is not what the last seal kept there: somebody changed it, and what "
                "they did to triggers and functions is not known"
            )
            self.problems.append(Problem("altered_between_seals", detail, object="seal_inventory"))
        for change in answer["changes"]:
            if not change["recorded"]:
                self.problems.append(
                    Problem(
                        "altered_between_seals",
                        f"{change['object']} {change['change']} after the last seal, and the log has no record of who "
                        "did it",
                        object=change["object"],
                    )
                )

    def _backlog(self, most: float) -> None:
        if not self.oldest:
            return
        age = datetime.now(timezone.utc) - datetime.fromisoformat(self.oldest)
        hours = age.total_seconds() / 3600
        if hours > most:
            self.problems.append(
                Problem(
                    "unsealed",
                    f"{self.unsealed} rows are in no seal yet, the oldest for {hours:.1f} hours; run seal.yml",
                )
            )

    def _leave_out_accepted(self) -> None:
        self.problems = [problem for problem in self.problems if identity(vars(problem)) not in self._accepted]

    def _known(self, finding: Mapping[str, Any]) -> bool:
        """Tell whether a finding is accepted, or no more than that a seal is missing, which is named."""
        unsealed = finding["type"] == "inserted_row" and within(finding["id"], self._unchecked)
        return unsealed or identity(finding) in self._accepted

    def _first_id(self, first: int) -> int:
        """Return an id below all that seals from a number on speak of."""
        if first == 1:
            return _FIRST_ID
        starts = [entry.seal.ids[0][0] for entry in self._sealing_rows(first)]
        return min(starts, default=2**63 - 1) - 1

    def _sealing_rows(self, first: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.seal.number >= first and entry.seal.kind == ROWS]

    def _verified(self) -> int:
        """Return the number of the last seal that was verified without a problem, or 0."""
        text = self.ledger.mark()
        if text is None:
            return 0
        mark = json.loads(text)
        number = int(mark["number"])
        same = number <= len(self.entries) and self.entries[number - 1].seal.digest() == mark["digest"]
        return number if same else 0


def _named(findings: Sequence[Mapping[str, Any]], last_id: int) -> list[Problem]:
    problems = []
    by_type: dict[tuple[str, int], list[int]] = {}
    for number, finding in enumerate(findings):
        if number < NAMED:
            beyond = finding["type"] == "inserted_row" and finding["id"] > last_id
            words = _WORDS["beyond" if beyond else finding["type"]].format(**finding)
            detail = f"seal {finding['block']}: {words}" if finding["block"] else words
            problems.append(Problem(finding["type"], detail, block=finding["block"], id=finding["id"]))
        else:
            by_type.setdefault((finding["type"], finding["block"] or 0), []).append(finding["id"])
    for (kind, block), ids in by_type.items():
        more = f"seal {block}: {len(ids)} more rows: {in_words(ranges(ids)[:NAMED])}"
        problems.append(Problem(kind, more, block=block or None, id=ids[0]))
    return problems
