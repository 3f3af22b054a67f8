# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sealing of one log, from the controller: the host makes seals, the controller signs them into the ledger.

Three steps, in this order: the seal in the database, without a signature; the signed seal in the ledger, on disk; the
signature in the database. Whatever ends a run between two of them, the next one begins by completing it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.ledger_check import lost_seals, retired_keys
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import (
    CATALOG,
    GENESIS,
    KEY,
    RESYNC,
    ROWS,
    Entry,
    Seal,
    within,
)
from ansible_collections.dbfleet.audit.plugins.module_utils._core.signature import PublicKey, SigningKey
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ledger import Ledger, ObjectLedger

#: Asks the host for the step `seal`.
Step = Callable[..., dict[str, Any]]


class Sealing:
    """One run.

    :ivar entries: what this run has added to the ledger.
    """

    def __init__(
        self, step: Step, ledger: Ledger | ObjectLedger, key: SigningKey, previous_key: SigningKey | None
    ) -> None:
        self.step = step
        self.ledger = ledger
        self.key = key
        self.previous_key = previous_key
        self.entries: list[Entry] = []
        self.rows = 0
        self._last: Entry | None = None
        self._asked: list[Mapping[str, Any]] = []
        #: Tells of a seal without rows, which a run that was cut off may have left unsigned, whether it is right.
        self.vouches: Callable[[Seal], bool] = lambda _seal: False

    def run(
        self, resync: Mapping[str, Any] | None = None, also: Callable[[], Mapping[str, Any] | None] = lambda: None
    ) -> dict[str, Any]:
        """Seal all that there is; return the last answer of the host. Other runs with this ledger wait.

        :param resync: what to attest before anything else: the database as it is now is right.
        :param also: returns a seal that holds no rows, to be made before others (`kind` and what is `attested`), or
            None; asked once nobody else can add to the ledger.
        """
        with self.ledger.locked():
            # Nobody else adds anything: a ledger of objects, which is not locked, refuses what does not follow.
            self._last = self.ledger.last()
            if resync is None:
                self._check_key()
            elif self.key.public.name in retired_keys(self.ledger.entries()[0]):
                raise AuditError(
                    f"signing_key is {self.key.public.name}, which the ledger says has been replaced: nobody would "
                    "believe the resync; sign it with the key that came after it, or with a new one"
                )
            return self._run(resync, also())

    def _run(self, resync: Mapping[str, Any] | None, also: Mapping[str, Any] | None) -> dict[str, Any]:
        # Before a resync nothing is sealed, which would only be thrown away.
        answer = self._step(finish=resync is not None)
        if resync is not None:
            answer = self._resync(answer, resync)
        answer = self._rotated(answer)
        if also is not None:
            answer = self._add(answer, also)
        before = None
        while not (answer["complete"] and not answer["pending"]):
            signed = self._sign(answer)
            now = (answer["cursor"], answer["last"])
            if not signed and now == before:
                raise AuditError(
                    f"sealing does not go on after seal {(answer['last'] or {}).get('number', 0)}: what waits for a "
                    "signature is not what this run has made; look for triggers and rules on the table `seal`"
                )
            before = now
            answer = self._step(signed=signed, cursor=answer["cursor"], finish=answer["complete"])
        if self._last and _key_after(self._last) != self.key.public.name:
            raise AuditError("audit objects changed at this moment, so that the signing key was not changed: run again")
        return answer

    def _step(self, **more: Any) -> dict[str, Any]:
        """Ask the host, which makes no seal unless the database ends with the ledger's last.

        :raises AuditError: when it has another seal where it was to store a signature.
        """
        last = self._last
        ends = {"chain": last.seal.chain, "number": last.seal.number, "digest": last.seal.digest()} if last else None
        answer = self.step(ledger=ends, **more)
        if answer["wrong"]:
            raise AuditError(f"seal {answer['wrong']} in the database is not the one that was signed{_RESYNC}")
        return answer

    def _sign(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Sign what is pending, into the ledger first; return what the database is to store."""
        pending = [Seal.of({**fields, "chain": answer["chain"]}) for fields in answer["pending"]]
        known = self._known(answer, pending)
        last, new = self._last, []
        for seal in pending[len(known) :]:
            if seal.kind == CATALOG and seal.attested != answer["objects"]:
                # Not what the host has just seen: it makes it anew when it is asked the next time.
                break
            self._check_asked(seal)
            last = self._signed(seal, last)
            new.append(last)
        self._append(new)
        return [_stored(entry) for entry in [*known, *new]]

    def _tail(self, number: int) -> list[Entry]:
        """Return the ledger's last entries, as many of them."""
        if self._last is None:
            return []
        return [self._last] if number == 1 else self.ledger.tail(number)

    def _append(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        self.ledger.append(entries)
        self._last = entries[-1]
        self.entries += entries
        self.rows += sum(entry.seal.rows for entry in entries)

    def _check_asked(self, seal: Seal) -> None:
        """Refuse to sign what a host makes only when it is asked to: whoever rules it could accept their own deeds.

        :raises AuditError: naming the seal.
        """
        asked = {"kind": seal.kind, "attested": seal.attested} in self._asked
        if asked or seal.kind in (ROWS, CATALOG) or self.vouches(seal):
            return
        raise AuditError(
            f"seal {seal.number} of the database, of kind {seal.kind}, waits for a signature that this run was not "
            "asked for: repeat the run that was to make it and was cut off; if there was none, somebody has put it "
            "there: find out who, then `resync` with a reason throws it away"
        )

    def _add(self, answer: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
        """Have the host make a seal that holds no rows, unless a run that was cut off has made it."""
        self._asked.append(entry)
        wanted = (entry["kind"], entry["attested"])
        made = any((fields["kind"], fields["attested"]) == wanted for fields in answer["pending"])
        signed = self._sign(answer)
        return self._step(signed=signed) if made else self._step(signed=signed, entry=entry)

    def _signed(self, seal: Seal, last: Entry | None) -> Entry:
        """Sign with the key that is in force; a change of it with the old one and the new one."""
        previous = last.seal.digest() if last else GENESIS
        if last is None or _key_after(last) == self.key.public.name:
            return self.key.sign(seal, previous)
        entry = self._old_key(last).sign(seal, previous)
        return self.key.endorse(entry) if seal.kind == KEY else entry

    def _check_key(self) -> None:
        last = self._last
        if last and _key_after(last) != self.key.public.name:
            self._old_key(last)

    def _old_key(self, last: Entry) -> SigningKey:
        if self.previous_key is None or self.previous_key.public.name != _key_after(last):
            raise AuditError(
                f"the ledger's last seal is signed with key {_key_after(last)}, and signing_key is "
                f"{self.key.public.name}: give the old one as previous_signing_key, once, to change keys"
            )
        return self.previous_key

    def _rotated(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Have a change of the signing key attested where the ledger ends with another key."""
        last = self._last
        if last is None or _key_after(last) == self.key.public.name:
            return answer
        attested = {"old_key": self._old_key(last).public.raw, "new_key": self.key.public.raw}
        return self._add(answer, {"kind": KEY, "attested": attested})

    def _known(self, answer: Mapping[str, Any], pending: Sequence[Seal]) -> list[Entry]:
        """Return the ledger's entries that the database has as pending; refuse a database that is not the ledger's.

        :raises AuditError: when the two have not the same past.
        """
        last = self._last
        stored = answer["last"] or {"number": 0, "digest": GENESIS}
        number = last.seal.number if last else 0
        if stored["number"] > number:
            self._check_alone()
            raise AuditError(
                f"the database has {stored['number']} seals and the ledger {self.ledger.path} {number or 'none'}: is "
                "it the right ledger? Another one, or a copy of it, must have the rest"
            )
        if last and last.seal.chain != answer["chain"]:
            raise AuditError(
                f"the ledger {self.ledger.path} belongs to another log (chain {last.seal.chain}, not {answer['chain']})"
            )
        tail = self._tail(number - stored["number"] + 1)
        if stored["number"] and tail[0].seal.digest() != stored["digest"]:
            self._check_alone()
            raise AuditError(f"seal {stored['number']} of the database is not the one of the ledger{_RESYNC}")
        lost = lost_seals(tail)
        known = [
            entry for entry in tail if entry.seal.number > stored["number"] and not within(entry.seal.number, lost)
        ]
        if len(known) > len(pending):
            raise AuditError(
                f"the ledger has seals up to {number}, the database lacks those from "
                f"{known[len(pending)].seal.number}: it was restored to an earlier time, or seals were removed{_RESYNC}"
            )
        for entry, seal in zip(known, pending):
            if seal.after(entry.seal.previous, entry.seal.key) != entry.seal:
                raise AuditError(
                    f"seal {seal.number} of the database is not the one of the ledger: it was restored to an earlier "
                    f"time, or somebody changed it{_RESYNC}"
                )
        return known

    def _check_alone(self) -> None:
        """Say so where the database is ahead because somebody else is sealing, which a ledger of objects allows.

        :raises AuditError: telling that there was another run.
        """
        if self.ledger.last() != self._last:
            raise AuditError(f"another run has added seals to {self.ledger.path} at this moment; run again")

    def _resync(self, answer: Mapping[str, Any], attested: Mapping[str, Any]) -> dict[str, Any]:
        """Put a word of the key's holder into the chain, after all that the ledger has."""
        last = self._last
        stored = answer["last"]["number"] if answer["last"] else 0
        number = max(last.seal.number if last else 0, stored) + 1
        lost = [[stored + 1, number - 1]] if number - 1 > stored else []
        entry = {"number": number, "kind": RESYNC, "attested": {**attested, "seals": lost}}
        answer = self._step(discard=True, entry=entry)
        seal = Seal.of({**answer["pending"][0], "chain": answer["chain"]})
        if {name: getattr(seal, name) for name in entry} != entry:
            raise AuditError(
                f"seal {seal.number} of the database does not say what this run has asked for; look for triggers and "
                "rules on the table `seal`"
            )
        signed = self.key.sign(seal, last.seal.digest() if last else GENESIS)
        self._append([signed])
        return self._step(signed=[_stored(signed)])


_RESYNC = "; verify says what differs, and `resync` with a reason accepts a restore that was meant"


def _key_after(entry: Entry) -> str:
    """Return the name of the key that signs what follows an entry."""
    return PublicKey(entry.seal.attested["new_key"]).name if entry.seal.kind == KEY else entry.seal.key


def _stored(entry: Entry) -> dict[str, Any]:
    """Return what the database keeps of a signed seal."""
    seal = entry.seal
    return {
        "number": seal.number,
        "sealed_at": seal.sealed_at,
        "root": seal.root,
        "previous": seal.previous,
        "digest": seal.digest(),
        "key": seal.key,
        "signature": entry.signature,
    }
