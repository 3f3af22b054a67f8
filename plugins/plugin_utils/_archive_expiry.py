# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives whose time is over: named in the ledger, then deleted, in this order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core import archive
from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive import MANIFEST_SUFFIX, Manifest
from ansible_collections.dbfleet.audit.plugins.module_utils._core.hold import Hold
from ansible_collections.dbfleet.audit.plugins.module_utils._core.retention import DEFAULT
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import ARCHIVE, Seal
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive import Archiving
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
        self._signed = archive.named(run.ledger(), archive.ARCHIVES)
        self.over: list[Manifest] = []
        self.gone: list[Mapping[str, Any]] = []
        self.missing: list[str] = []
        self.expired: list[str] = []

    def plan(self, holds: Sequence[Hold]) -> None:
        """Find what is to be deleted; what is held is noted as kept."""
        place = self._run.place
        names = [name.removesuffix(MANIFEST_SUFFIX) for name in place.names() if name.endswith(MANIFEST_SUFFIX)]
        manifests = [manifest for name in names if (manifest := read_manifest(place, name))]
        self._find_gone({manifest.name: archive.in_ledger(manifest) for manifest in manifests})
        reasons = {
            manifest.name: "; ".join(hold.reason for hold in holds if hold.may_be_in(manifest.tables))
            for manifest in manifests
        }
        self._held = [manifest for manifest in manifests if reasons[manifest.name]]
        over = [manifest for manifest in manifests if self._is_over(manifest)]
        self.over = [manifest for manifest in over if manifest not in self._held]
        held = [manifest.name for manifest in over if manifest in self._held]
        self._run.kept.update((name, f"legal hold: {reasons[name]}") for name in held)

    def predict(self) -> None:
        """Note what run() would do."""
        self.expired = [one["name"] for one in self._leaving()]

    def run(self) -> None:
        """Have the ledger say that archives are deleted, and delete them."""
        for manifest in self._held:
            # A rule of the storage knows nothing of holds.
            for place, name in self._files(manifest):
                place.keep(name)
        self._run.attest(self._unsaid)
        for manifest in self.over:
            for place, name in self._files(manifest):
                place.delete(name)
        self.predict()

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

    def _is_over(self, manifest: Manifest) -> bool:
        """Tell whether an archive's time is over. Of what is not signed for, the storage could say anything."""
        if self._signed.get(manifest.name) != archive.in_ledger(manifest):
            return False
        categories = [None if name == DEFAULT else name for name in manifest.categories]
        age = self._run.retention.of(categories).archive
        over = age is not None and age.after(date.fromisoformat(manifest.end_day)) <= self._run.today
        return over and manifest.name not in self._run.present

    def _find_gone(self, there: Mapping[str, Mapping[str, Any]]) -> None:
        """Find the archives that the ledger knows, and that are not there as it says.

        :param there: what the manifests say, by name.
        """
        today, expired = self._run.today.isoformat(), archive.named(self._run.ledger(), archive.EXPIRED)
        for name, said in self._signed.items():
            if there.get(name) == said or expired.get(name) == said or name in self._run.present:
                continue
            if name not in there and said["expires"] and said["expires"] <= today:
                self.gone.append(said)
            else:
                self.missing.append(name)
