# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives whose time is over: named in the ledger, then deleted, in this order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

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
    :ivar expired: names of archives that were deleted, or would be.
    :ivar missing: archives that the ledger knows and that are gone although their time is not over.
    """

    def __init__(self, run: Archiving, root: Place) -> None:
        self._run = run
        self._root = root
        self.expired: list[str] = []
        self.missing: list[str] = []

    def plan(self, holds: Sequence[Hold]) -> list[Manifest]:
        """Return the manifests of what is to be deleted; what is held is noted as kept."""
        place, today = self._run.place, self._run.today
        names = [name.removesuffix(MANIFEST_SUFFIX) for name in place.names() if name.endswith(MANIFEST_SUFFIX)]
        manifests = [manifest for name in names if (manifest := read_manifest(place, name))]
        self.missing = self._missing(names, today)
        over = [manifest for manifest in manifests if self._is_over(manifest, today)]
        held = {manifest.name: [hold.reason for hold in holds if hold.may_be_in(manifest.tables)] for manifest in over}
        self._run.kept.update((name, f"legal hold: {'; '.join(reasons)}") for name, reasons in held.items() if reasons)
        return [manifest for manifest in over if not held[manifest.name]]

    def run(self, manifests: Sequence[Manifest]) -> None:
        """Have the ledger say that archives are deleted, and delete them."""
        self._run.attest(archive.EXPIRED, manifests)
        for manifest in manifests:
            for path in manifest.copies:
                self._root.delete(path)
            self._run.place.delete(manifest.file)
            # The last, for it is what says that there is something to be deleted.
            self._run.place.delete(manifest.name + MANIFEST_SUFFIX)
            self.expired.append(manifest.name)

    def vouches(self, seal: Seal, manifests: Sequence[Manifest]) -> bool:
        """Tell whether what a run that was cut off wanted to be signed is what this one wants."""
        said = [one["name"] for one in seal.attested.get(archive.EXPIRED, ())] if seal.kind == ARCHIVE else []
        same = [manifest for manifest in manifests if manifest.name in said]
        return bool(said) and seal.attested == archive.attested(archive.EXPIRED, same)

    def _is_over(self, manifest: Manifest, today: date) -> bool:
        categories = [None if name == DEFAULT else name for name in manifest.categories]
        age = self._run.retention.of(categories).archive
        over = age is not None and age.after(date.fromisoformat(manifest.end_day)) <= today
        return over and manifest.name not in self._run.present

    def _missing(self, names: Sequence[str], today: date) -> list[str]:
        entries = self._run.ledger()
        gone = dict(archive.named(entries, archive.ARCHIVES))
        for name in (*archive.named(entries, archive.EXPIRED), *names):
            gone.pop(name, None)
        return sorted(
            name for name, said in gone.items() if not (said["expires"] and said["expires"] <= today.isoformat())
        )
