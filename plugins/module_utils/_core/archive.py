# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an archive says of itself: one manifest a file, which the ledger names by its digest. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .errors import AuditError
from .ledger_archive import FILE_SUFFIX
from .seal import ARCHIVE, ROWS, Entry, Seal, within

#: Raised when a manifest means something else than before.
FORMAT = 1

#: Where copies are, below the URL of all archives.
_COPY = re.compile(r"host=[^/]+/db=[^/]+/month=\d{4}-\d\d/\w+\.parquet")


@dataclass(frozen=True)
class Manifest:
    """Of the rows of one partition, what was archived.

    :ivar chain: the log's own identifier, as in its seals.
    :ivar name: the archive's name, `audit_log_2026_01`: that of its files without what follows the dot.
    :ivar file: the name of its file.
    :ivar first_day: YYYY-MM-DD, the first day (UTC) of the period.
    :ivar end_day: the first day after it.
    :ivar size: bytes of the file, compressed.
    :ivar sha256: of the file as it is, hex.
    :ivar first_at: changed_at of the earliest row, UTC.
    :ivar seals: numbers of the seals that its rows are in, as pairs of first and last.
    :ivar categories: of retention; `default` for rows that have none.
    :ivar tables: rows of each `schema.table`; of events without a table under an empty name.
    :ivar expires: the day from which it may be deleted, or None for never.
    :ivar copies: other files with its rows, below the URL of all archives.
    """

    chain: str
    name: str
    file: str
    first_day: str
    end_day: str
    size: int
    sha256: str
    rows: int
    first_id: int
    last_id: int
    first_at: str
    last_at: str
    seals: tuple[tuple[int, int], ...]
    categories: tuple[str, ...]
    tables: Mapping[str, int]
    expires: str | None
    copies: tuple[str, ...] = ()

    def text(self) -> str:
        """Return what stands in the manifest's file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True, indent=1, ensure_ascii=False) + "\n"

    def digest(self) -> str:
        """Return the SHA-256 of the text, in hex."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    @classmethod
    def parse(cls, text: str, name: str, where: str) -> Manifest:
        """Return what a file says.

        :param name: of the archive that it is beside.
        :param where: what an error calls it.
        :raises AuditError: when it is no manifest.
        """
        try:
            fields = json.loads(text)
            form = fields.pop("format")
            if form != FORMAT:
                raise AuditError(f"{where} is a manifest of format {form}; this release reads {FORMAT}")
            pairs = tuple((int(first), int(last)) for first, last in fields.pop("seals"))
            texts = {name: tuple(fields.pop(name)) for name in ("categories", "copies")}
            manifest = cls(seals=pairs, **texts, **fields)
            # Whoever can write to the storage must not have files deleted elsewhere by it.
            ours = manifest.name == name and is_file_of(manifest.file, name)
            if not (ours and all(_COPY.fullmatch(path) for path in manifest.copies)):
                raise AuditError(f"{where} is the manifest of something else: {manifest.name}, {manifest.copies}")
            return manifest
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AuditError(f"{where} is not the manifest of an archive: {error!r}") from None


#: What the ledger says of archives: that their rows are about to leave the log; that they are about to be deleted, for
#: their time is over.
ARCHIVES, EXPIRED = "archives", "expired"


def file_name(name: str, taken: Collection[str], token: str) -> str:
    """Return the name for the file of an archive: no file is ever written over one that is there.

    :param token: 8 hex digits, used where the name that it should have is taken.
    """
    plain = name + FILE_SUFFIX
    return f"{name}.{token}{FILE_SUFFIX}" if plain in taken else plain


def is_file_of(file: str, name: str) -> bool:
    """Tell whether a file is, or was, that of the archive of a name."""
    return re.fullmatch(re.escape(name) + r"(\.[0-9a-f]{8})?" + re.escape(FILE_SUFFIX), file) is not None


def in_ledger(manifest: Manifest) -> dict[str, Any]:
    """Return what the ledger says of an archive, whatever it says that becomes of it."""
    fields = ("name", "sha256", "rows", "first_day", "end_day", "expires")
    return {"manifest": manifest.digest(), **{name: getattr(manifest, name) for name in fields}}


def attested(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """Return what the ledger is to say of archives whose rows are about to leave the log."""
    seals = [list(pair) for manifest in manifests for pair in manifest.seals]
    return {"seals": seals, ARCHIVES: [in_ledger(manifest) for manifest in manifests]}


def attested_expiry(gone: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the ledger is to say of archives that are about to be deleted, or were by the storage.

    :param gone: what it says of them already.
    """
    return {"seals": [], EXPIRED: [dict(one) for one in gone]}


def named(entries: Sequence[Entry], what: str) -> dict[str, dict[str, Any]]:
    """Return what the ledger says of archives, by name; the last word counts.

    :param what: :data:`ARCHIVES` or :data:`EXPIRED`.
    """
    seals: list[Seal] = [entry.seal for entry in entries if entry.seal.kind == ARCHIVE]
    return {said["name"]: said for seal in seals for said in seal.attested.get(what, ())}


def without_others(entries: Sequence[Entry], name: str) -> list[Entry]:
    """Return the ledger without the seals whose rows are in other archives than the one of that name."""
    others = [
        pair
        for entry in entries
        if entry.seal.kind == ARCHIVE and name not in [said["name"] for said in entry.seal.attested.get(ARCHIVES, ())]
        for pair in entry.seal.numbers()
    ]
    return [entry for entry in entries if entry.seal.kind != ROWS or not within(entry.seal.number, others)]
