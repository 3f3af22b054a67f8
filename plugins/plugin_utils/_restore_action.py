# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action of the restore modules, whatever the engine: it verifies an archive and sends its rows to the host."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Iterator
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core import archive
from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive import Manifest
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.ledger_archive import MANIFEST_SUFFIX
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_action import KnownLedger, StorageAction
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_file import check_file, lines_of, read_manifest
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_place import Place
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ledger import ledger_at

#: Bytes of lines that one call of the host takes.
_PART = 16 << 20


class RestoreAction(StorageAction):
    """Puts the rows of an archive into a table beside the log."""

    def work(self) -> dict[str, Any]:
        name, keys = self.option("archive"), self.public_keys()
        for option, missing in (("archive", not name), ("ledger", not self.option("ledger")), ("public_key", not keys)):
            if missing:
                raise AuditError(f"{option} is missing: an archive is restored by its name, and verified before")
        table = self.option("table", f"restored_{name}")
        folder, _root = self.places()
        manifest = read_manifest(folder, name)
        if manifest is None:
            raise AuditError(f"there is no archive {name} in {folder.url}; there are: {_names(folder)}")
        result = {"table": table, "rows": manifest.rows, "first_day": manifest.first_day, "end_day": manifest.end_day}
        of = {"table": table, "of": f"{name}, manifest {manifest.digest()}"}
        if self.step("look", **of):
            return {"changed": False, **result}
        entries = KnownLedger(ledger_at(self.option("ledger")), keys).entries()
        said = archive.named(entries, archive.ARCHIVES).get(name)
        if said and said != archive.in_ledger(manifest):
            raise AuditError(f"the manifest of {name} in {folder.url} is not the one that the ledger names")
        check_file(folder, manifest, archive.without_others(entries, name))
        if not self._task.check_mode:
            self.step("begin", **of)
            self._load(folder, manifest, lambda data: self.step("load", table=table, data=data))
            self.step("finish", rows=manifest.rows, **of)
        return {"changed": True, **result}

    def _load(self, folder: Place, manifest: Manifest, load: Callable[[str], Any]) -> None:
        """Send an archive's lines, some at a time."""
        sent = 0
        with folder.reading(manifest.file) as file:
            for lines in _parts(lines_of(file)):
                text = b"".join(line + b"\n" for line in lines)
                load(base64.b64encode(gzip.compress(text, 6)).decode())
                sent += len(lines)
                self.say(f"{manifest.name}: {sent:,} of {manifest.rows:,} rows restored")


def _parts(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for line in lines:
        part.append(line)
        size += len(line)
        if size >= _PART:
            yield part
            part, size = [], 0
    if part:
        yield part


def _names(folder: Place) -> str:
    suffix = MANIFEST_SUFFIX
    return ", ".join(name.removesuffix(suffix) for name in folder.names() if name.endswith(suffix)) or "none"
