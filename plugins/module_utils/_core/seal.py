# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A seal: one link of the signed chain over a log. Pure; every engine stores it, the controller signs it.

The text of a seal is one line of JSON with sorted keys. Its digest is the SHA-256 of that text, and the next seal names
it, so that no seal can be taken out, changed or put elsewhere without all that follow becoming others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .errors import AuditError

#: What the first seal of a chain names as its predecessor.
GENESIS = "0" * 64

#: Kinds of seals: rows of one day; a change of audit objects; a new signing key; a word of the key's holder that
#: what is there is meant to be there; rows that left the log for an archive.
ROWS, CATALOG, KEY, RESYNC, ARCHIVE = "rows", "catalog", "key", "resync", "archive"

#: How a change of an object is called that was not there before.
NEW = "is new"

#: Put before what is signed, so that no signature made for something else can pass for one of a seal.
CONTEXT = b"dbfleet.audit seal 1\n"


@dataclass(frozen=True)
class Seal:
    """One link.

    :ivar chain: the log's own identifier, a UUID; a seal of another log cannot be put in.
    :ivar number: the position, from 1.
    :ivar period: the day, in UTC, of all its rows' changed_at, as YYYY-MM-DD; of no other kind than rows.
    :ivar ids: the rows' ids as pairs of first and last, in order.
    :ivar root: SHA-256 (hex) of the rows' leaves in the order of their ids; a leaf is the SHA-256 of a row's text.
    :ivar attested: what else the seal says; depends on the kind.
    :ivar sealed_at: when the server made it, UTC, YYYY-MM-DDTHH:MM:SS.ffffffZ.
    :ivar previous: digest (hex) of the seal before.
    :ivar key: identifier of the key that signs it.
    """

    chain: str
    number: int
    kind: str
    period: str | None
    ids: tuple[tuple[int, int], ...]
    rows: int
    root: str | None
    attested: Mapping[str, Any]
    sealed_at: str
    previous: str
    key: str

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Seal:
        """Return the seal that a server or a ledger describes; what has no value yet is empty."""
        return cls(
            **{
                **{name: fields.get(name) for name in cls.__dataclass_fields__},
                "ids": tuple((int(first), int(last)) for first, last in fields.get("ids") or ()),
                "previous": fields.get("previous") or "",
                "key": fields.get("key") or "",
            }
        )

    def text(self) -> str:
        """Return the one line that is hashed and signed."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def digest(self) -> str:
        """Return the SHA-256 of the text, in hex."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def message(self) -> bytes:
        """Return what a key signs."""
        return CONTEXT + self.text().encode()

    def after(self, previous: str, key: str) -> Seal:
        """Return the seal as the link after one with that digest, to be signed with that key."""
        return replace(self, previous=previous, key=key)

    def numbers(self) -> list[tuple[int, int]]:
        """Return the numbers of the seals that an entry about other seals names, as pairs of first and last."""
        return [(int(first), int(last)) for first, last in self.attested.get("seals", ())]


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: a seal and its signature.

    :ivar signature: Ed25519, 64 bytes in hex.
    :ivar endorsement: of a change of key, the signature of the new key as well.
    """

    seal: Seal
    signature: str
    endorsement: str | None = None

    def line(self) -> str:
        """Return the line without its end."""
        fields = json.loads(self.seal.text())
        entry = {"digest": self.seal.digest(), "seal": fields, "signature": self.signature}
        if self.endorsement:
            entry["endorsement"] = self.endorsement
        return json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def parse(cls, line: str, where: str) -> tuple[Entry, str]:
        """Return the entry of a line, and what the line calls the seal's digest.

        :param where: what an error calls the line's place.
        :raises AuditError: when it is no line of a ledger.
        """
        try:
            fields = json.loads(line)
            entry = cls(Seal.of(fields["seal"]), fields["signature"], fields.get("endorsement"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AuditError(f"{where} is not a line of a ledger: {error!r}") from None
        return entry, str(fields.get("digest"))


def mark(digest: str, signature: str) -> str:
    """Return the short text by which a seal with its signature is compared."""
    return hashlib.sha256(f"{digest} {signature}".encode()).hexdigest()


def check_next(entries: Iterable[Entry], last: Entry | None) -> None:
    """Refuse entries that do not follow the ledger's last, one after the other.

    :raises AuditError: naming both.
    """
    before = last.seal if last else None
    for seal in (entry.seal for entry in entries):
        number, previous = (before.number + 1, before.digest()) if before else (1, GENESIS)
        if before and seal.chain != before.chain:
            raise AuditError(
                f"the ledger belongs to another log (chain {before.chain}) than this seal (chain {seal.chain})"
            )
        if (seal.number, seal.previous) != (number, previous):
            raise AuditError(f"seal {seal.number} does not follow the ledger's last, {number - 1}")
        before = seal


def altered(changes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the changes of objects that there were before, which need an explanation."""
    return [dict(change) for change in changes if change["change"] != NEW]


def of_objects(inventory: str, compared: str | None, changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a seal of kind catalog says.

    :param inventory: digest of the objects as they are.
    :param compared: digest of what they were compared with; None for the first seal.
    """
    if compared is None:
        return {"inventory": inventory, "altered": [], "objects": len(changes)}
    return {"inventory": inventory, "compared": compared, "altered": altered(changes)}


def ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as pairs of first and last."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] + 1 == number:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def within(number: int, pairs: Sequence[tuple[int, int]]) -> bool:
    """Tell whether a number lies in one of the pairs of first and last."""
    return any(first <= number <= last for first, last in pairs)


def in_words(pairs: Iterable[tuple[int, int]]) -> str:
    """Return pairs of first and last as `1-3, 5`."""
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in pairs)
