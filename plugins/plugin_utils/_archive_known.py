# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The archives of one log, and what of them may be believed.

Whoever can write to the storage can write manifests. So a manifest has to say what the host says of the partition, or
what the ledger says of the archive, and its file has to be made up of sealed rows of these days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core import archive
from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive import Manifest
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.ledger_archive import ArchiveCheck
from ansible_collections.dbfleet.audit.plugins.module_utils._core.retention import DEFAULT
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import ARCHIVE, Entry, Seal
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_file import (
    Lines,
    check_file,
    day_before,
    read_manifest,
)
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_place import Place

#: A partition, as the host describes it.
Period = Mapping[str, Any]


class Archives:
    """What a run knows of a log's archives.

    :param ledger: returns the ledger's entries, all of them signed as they have to be.
    """

    def __init__(self, place: Place, ledger: Callable[[], list[Entry]]) -> None:
        self.place = place
        self.ledger = ledger

    def of(self, period: Period) -> Manifest | None:
        """Return the manifest of a period's archive; None where there is none, or one of fewer rows than there are.

        What a run has detached was archived before. Should rows have come late, the release attaches it again.

        :raises AuditError: when there is another one than this run could have written: whoever can write to the storage
            could have anything dropped by it, or deleted.
        """
        manifest = read_manifest(self.place, period["archive"])
        if manifest is None:
            return None
        where, entries = f"the manifest {self.place.url}/{period['archive']}", self.ledger()
        if not entries or manifest.chain != entries[-1].seal.chain:
            raise AuditError(f"{where} is that of another log; give this one another `server` or `url`")
        if period["state"] != "attached":
            said = archive.named(entries, archive.ARCHIVES).get(manifest.name)
            if said != archive.in_ledger(manifest):
                raise AuditError(f"{where} is not the one that the ledger names; nothing was dropped")
            return manifest
        if manifest.rows > period["rows"]:
            raise AuditError(
                f"its archive {self.place.url}/{manifest.file} has {manifest.rows} rows and the log {period['rows']}, "
                "as after a restore: verify which of them is right, and move the archive and its manifest away or drop "
                "the partition"
            )
        if manifest.rows < period["rows"]:
            return None
        expected = facts(period)
        if {name: getattr(manifest, name) for name in expected} != expected:
            raise AuditError(f"{where} does not describe what is in the log; move it and its file away")
        return manifest

    def seals_of(self, manifest: Manifest, also: Lines | None = None) -> tuple[tuple[int, int], ...]:
        """Read an archive back; return the seals that its rows make up.

        :param also: gets every line as well.
        :raises AuditError: when it is not what the ledger says.
        """
        return check_file(self.place, manifest, archive.without_others(self.ledger(), manifest.name), also)

    def check(self, manifest: Manifest) -> None:
        """Read an archive back.

        :raises AuditError: when it is not what the ledger and its manifest say.
        """
        if self.seals_of(manifest) != manifest.seals:
            raise AuditError(
                f"{self.place.url}/{manifest.file}: its rows are not of the seals that its manifest names, as after a "
                "resync; move it and its manifest away, and the next run archives the partition anew"
            )

    def require_empty(self, period: Period) -> None:
        """Refuse to drop an empty period of whose days there are sealed rows that are in no archive.

        Nobody could find out any more who has deleted them, nor would a hold on them keep anything.

        :raises AuditError: naming what is missing.
        """
        entries = archive.without_others(self.ledger(), "")
        check = ArchiveCheck(entries, entries)
        check.finish(period["first_day"], day_before(period["end_day"]))
        if check.problems:
            more = f" (and {len(check.problems) - 1} more)" if len(check.problems) > 1 else ""
            raise AuditError(f"has no rows, which is not what was sealed: {check.problems[0].detail}{more}")

    def unsaid(self, manifests: Sequence[Manifest]) -> dict[str, Any] | None:
        """Return what the ledger has to say of archives whose rows are about to leave the log, if it does not yet."""
        said = archive.named(self.ledger(), archive.ARCHIVES)
        new = [manifest for manifest in manifests if said.get(manifest.name) != archive.in_ledger(manifest)]
        return archive.attested(new) if new else None

    def vouch(self, seal: Seal, periods: Iterable[Period]) -> bool:
        """Tell whether a seal that waits for a signature says what is so of the archives of periods."""
        said = [one["name"] for one in seal.attested.get(archive.ARCHIVES, ())] if seal.kind == ARCHIVE else []
        known = {period["archive"]: period for period in periods}
        manifests = [manifest for name in said if name in known and (manifest := self.of(known[name]))]
        if not manifests or seal.attested != archive.attested(manifests):
            return False
        for manifest in manifests:
            self.check(manifest)
        return True


def facts(period: Period) -> dict[str, Any]:
    """Return what a manifest says of a period by the host's word."""
    names = ("first_day", "end_day", "first_id", "last_id", "first_at", "last_at")
    return {
        "categories": tuple(sorted({group["category"] or DEFAULT for group in period["groups"]})),
        "tables": _tables(period["groups"]),
        **{name: period[name] for name in names},
    }


def _tables(groups: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for group in groups:
        name = f"{group['schema_name']}.{group['table_name']}" if group["table_name"] else ""
        found[name] = found.get(name, 0) + group["rows"]
    return found
