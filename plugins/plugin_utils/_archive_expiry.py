# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives whose time is over: named in the ledger, then deleted, in this order."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core import archive
from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive import Manifest
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.hold import Hold
from ansible_collections.dbfleet.audit.plugins.module_utils._core.ledger_archive import MANIFEST_SUFFIX
from ansible_collections.dbfleet.audit.plugins.module_utils._core.retention import DEFAULT
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import ARCHIVE, Seal
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive import Archiving, moment
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_file import read_manifest
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_place import Place


class Expiry:
    """What one run deletes.

    :param run: the run that archives; what is still in its log is not deleted.
    :param root: the folder of all logs' archives, in which copies are.
    :ivar over: manifests of what is to be deleted.
    :ivar gone: what the ledger says of archives that the storage itself has deleted when their time was over.
    :ivar missing: names of archives that the ledger knows, and that are gone before their time, or are others.
    :ivar expired: names of all whose time is over, once the ledger says so.
    """

    def __init__(self, run: Archiving, root: Place) -> None:
        self._run = run
        self._root = root
        self._held: list[Manifest] = []
        self._sizes: dict[str, int] = {}
        self._signed = archive.named(run.ledger(), archive.ARCHIVES)
        self.over: list[Manifest] = []
        self.gone: list[Mapping[str, Any]] = []
        self.missing: list[str] = []
        self.expired: list[str] = []

    def plan(self, holds: Sequence[Hold]) -> None:
        """Find what is to be deleted; what is held is noted as kept."""
        place = self._run.place
        self._sizes = place.sizes()
        names = [name.removesuffix(MANIFEST_SUFFIX) for name in self._sizes if name.endswith(MANIFEST_SUFFIX)]
        manifests = [manifest for name in names if (manifest := read_manifest(place, name))]
        self._find_gone(manifests, holds)
        reasons = {
            manifest.name: "; ".join(hold.reason for hold in holds if hold.may_be_in(manifest.tables))
            for manifest in manifests
        }
        over = [manifest for manifest in manifests if self._is_over(manifest)]
        self.over = [manifest for manifest in over if not reasons[manifest.name]]
        self._held = [manifest for manifest in manifests if reasons[manifest.name] or self._is_kept_longer(manifest)]
        held = [manifest.name for manifest in over if reasons[manifest.name]]
        self._run.kept.update((name, f"legal hold: {reasons[name]}") for name in held)

    def predict(self) -> None:
        """Note what run() would do."""
        self.expired = [one["name"] for one in self._leaving() if one["name"] not in self._run.kept]

    def run(self) -> None:
        """Have the ledger say that archives are deleted, and delete them."""
        for manifest in self._held:
            # A rule of the storage knows nothing of holds, nor of an age that has become another.
            until = moment(self._end(manifest))
            for place, name in self._files(manifest):
                with contextlib.suppress(FileNotFoundError):
                    place.keep(name, until)
        self._run.attest(self._unsaid)
        for manifest in self.over:
            self._delete(manifest)
        self.predict()
        self._run.place.sweep()
        for folder in sorted({posixpath.dirname(path) for manifest in self.over for path in manifest.copies}):
            self._root.sweep(folder)

    def _delete(self, manifest: Manifest) -> None:
        try:
            for place, name in [*self._replaced(manifest), *self._files(manifest)]:
                place.delete(name)
        except AuditError as error:
            # A lock of the storage that ends later.
            self._run.kept[manifest.name] = str(error)

    def vouches(self, seal: Seal) -> bool:
        """Tell whether what a run that was cut off wanted to be signed is what this one wants."""
        said = [one["name"] for one in seal.attested.get(archive.EXPIRED, ())] if seal.kind == ARCHIVE else []
        same = [one for one in self._leaving() if one["name"] in said]
        return bool(said) and seal.attested == archive.attested_expiry(same)

    def _leaving(self) -> list[Mapping[str, Any]]:
        return [*(archive.in_ledger(manifest) for manifest in self.over), *self.gone]

    def _unsaid(self) -> dict[str, Any] | None:
        said = archive.named(self._run.ledger(), archive.EXPIRED)
        new = [one for one in self._leaving() if said.get(one["name"]) != one]
        return archive.attested_expiry(new) if new else None

    def _files(self, manifest: Manifest) -> list[tuple[Place, str]]:
        """Return an archive's files; the manifest comes last, for it is what says that there are others."""
        place = self._run.place
        copies = [(self._root, path) for path in manifest.copies]
        return [*copies, (place, manifest.file), (place, manifest.name + MANIFEST_SUFFIX)]

    def _replaced(self, manifest: Manifest) -> list[tuple[Place, str]]:
        """Return files that a later one has replaced, and that a lock or the end of a run has left there."""
        names = [name for name in self._sizes if archive.is_file_of(name, manifest.name)]
        return [(self._run.place, name) for name in names if name != manifest.file]

    def _is_over(self, manifest: Manifest) -> bool:
        """Tell whether an archive's time is over. Of what is not signed for, the storage could say anything."""
        if self._signed.get(manifest.name) != archive.in_ledger(manifest):
            return False
        end = self._end(manifest)
        return end is not None and end <= self._run.today and manifest.name not in self._run.present

    def _is_kept_longer(self, manifest: Manifest) -> bool:
        """Tell whether an archive is to be kept for longer than it was when it was written."""
        end = self._end(manifest)
        return manifest.expires is not None and (end is None or end.isoformat() > manifest.expires)

    def _end(self, manifest: Manifest) -> date | None:
        """Return the day from which an archive is to be deleted, by the ages of today."""
        end = date.fromisoformat(manifest.end_day)
        categories = [None if name == DEFAULT else name for name in manifest.categories]
        age = self._run.retention.of(categories, end).archive
        return age.after(end) if age else None

    def _find_gone(self, manifests: Sequence[Manifest], holds: Sequence[Hold]) -> None:
        """Find the archives that the ledger knows, and that are not there as it says.

        :raises AuditError: when none of them is, as in a directory that is not mounted.
        """
        there = {manifest.name: manifest for manifest in manifests}
        expired = archive.named(self._run.ledger(), archive.EXPIRED)
        known = {name: said for name, said in self._signed.items() if expired.get(name) != said}
        if known and not self._sizes:
            raise AuditError(
                f"the ledger knows {len(known)} archives, and {self._run.place.url} has none: is it the right place, "
                "and mounted? (With any file in it, it is taken for the right one that has lost them.)"
            )
        for name, said in known.items():
            manifest = there.get(name)
            if manifest and archive.in_ledger(manifest) == said and self._sizes.get(manifest.file) == manifest.size:
                continue
            if manifest is None and not holds and self._was_deleted_by_rule(said):
                self.gone.append(said)
            elif name not in self._run.present:
                self.missing.append(name)

    def _was_deleted_by_rule(self, said: Mapping[str, Any]) -> bool:
        """Tell whether the storage may have deleted an archive that is gone.

        What categories and tables it had, nobody knows without its manifest: so any age of today may be its own, and
        any hold may have applied to it.
        """
        today = self._run.today
        over = said["expires"] is not None and said["expires"] <= today.isoformat()
        return self._run.place.deletes and over and self._run.retention.may_be_over(said["end_day"], today)
