# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The archiving of one log, from the controller: the host sends rows, the controller keeps them and signs that it does.

In this order: the file, read back and compared with the ledger; its manifest; a signed word of the ledger that these
rows leave the log; the partition. Whatever ends a run between two of them, the next one finds how far it came: a file
without a manifest is written anew, one with it is read back again, and a partition goes last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from datetime import date, datetime, timezone
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core import archive
from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive import Manifest
from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive_step import PART_BYTES
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.retention import DEFAULT, Age, Ages, Retention
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import ARCHIVE, Entry, Seal
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_file import (
    Upload,
    check_file,
    read_manifest,
    write_manifest,
)
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_place import Place
from ansible_collections.dbfleet.audit.plugins.plugin_utils._sealing import Sealing

Period = Mapping[str, Any]

#: Asks the host for a step by name.
Step = Callable[..., Any]


class Archiving:
    """One run.

    :param step: asks the host.
    :param sealing: makes a run that seals; each is used once.
    :param ledger: returns the entries of the ledger that are signed as they have to be.
    :param say: shows a line of progress.
    :ivar archived: manifests of what was written.
    :ivar kept: what was not dropped although its time is over, by name, and why.
    """

    def __init__(
        self,
        step: Step,
        sealing: Callable[[], Sealing],
        ledger: Callable[[], list[Entry]],
        place: Place,
        retention: Retention,
        say: Callable[[str], None],
    ) -> None:
        self.step = step
        self.sealing = sealing
        self.ledger = ledger
        self.place = place
        self.retention = retention
        self.say = say
        self.parallel = 2
        #: Makes what else becomes of an archive's rows, while they are read back: `add` takes lines, and once the block
        #: has ended without an error, `paths` are the files, below the archive's URL.
        self.copy: Callable[[Manifest], AbstractContextManager[Any]] = lambda _manifest: nullcontext()
        self.today = datetime.now(timezone.utc).date()
        self.archived: list[Manifest] = []
        self.due: list[str] = []
        self.dropped: list[str] = []
        self.expired: list[str] = []
        self.kept: dict[str, str] = {}
        self.statements: list[str] = []

    def periods(self, holds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the partitions whose time in the log is over, by time."""
        before = max(age.before(self.today) for age in self.retention.shortest())
        found = self.step("periods", before=before.isoformat(), holds=holds)
        return [period for period in map(self._with_days, found) if "groups" in period and self._is_due(period)]

    def run(self, periods: Sequence[dict[str, Any]], drop: bool) -> None:
        """Archive periods, and drop them when told to."""
        for period in periods:
            if period["holds"]:
                self.kept[period["name"]] = _held(period)
        if any(period["rows"] for period in periods):
            self._seal(None)
        for start in range(0, len(periods), self.parallel):
            together = periods[start : start + self.parallel]
            self._archive([period for period in together if period["rows"]])
            if drop:
                self._drop([period for period in together if period["name"] not in self.kept])

    def predict(self, periods: Sequence[dict[str, Any]], drop: bool) -> None:
        """Note what run() would do, from what is there now."""
        going = [period for period in periods if not period["holds"]]
        self.kept = {period["name"]: _held(period) for period in periods if period["holds"]}
        self.due = [period["name"] for period in periods if period["rows"] and not self._has_manifest(period)]
        if drop:
            self.dropped = [period["name"] for period in going]
            for answer in self.step("release", periods=[_plain(period) for period in going]) if going else ():
                self.statements += answer["statements"]

    def result(self) -> dict[str, Any]:
        """Return what the module returns."""
        archived = [
            {**vars(manifest), "file": f"{self.place.url}/{manifest.file}", "manifest": manifest.digest()}
            for manifest in self.archived
        ]
        return {
            "changed": bool(archived or self.due or self.dropped or self.expired),
            "archived": archived,
            "due": self.due,
            "dropped": self.dropped,
            "expired": self.expired,
            "kept": [{"name": name, "reason": reason} for name, reason in self.kept.items()],
            "statements": self.statements,
        }

    def _archive(self, periods: Sequence[dict[str, Any]]) -> None:
        """Have an archive of each period that is what the ledger says."""
        missing = [period for period in periods if not self._is_archived(period)]
        if not missing:
            return
        uploads = self._export(missing)
        entries = self.ledger()
        for period, upload in zip(missing, uploads):
            manifest = self._manifest(period, upload, entries)
            write_manifest(self.place, manifest, self._locked_until(period))
            if read_manifest(self.place, manifest.name) != manifest:
                raise AuditError(f"the manifest {self.place.url}/{manifest.name}, read back, is not what was written")
            self.archived.append(manifest)

    def _has_manifest(self, period: Period) -> bool:
        manifest = read_manifest(self.place, period["archive"])
        return manifest is not None and manifest.rows == period["rows"]

    def _is_archived(self, period: Period) -> bool:
        """Tell whether there is an archive of a period, and it has all that the ledger says."""
        manifest = read_manifest(self.place, period["archive"])
        if manifest is None or manifest.rows != period["rows"]:
            return False
        self._check(manifest, self.ledger())
        return True

    def _check(self, manifest: Manifest, entries: Sequence[Entry]) -> None:
        seals = check_file(self.place, manifest, archive.without_others(entries, manifest.name))
        if seals != manifest.seals:
            raise AuditError(f"{self.place.url}/{manifest.name}: its rows are not of the seals that its manifest names")

    def _export(self, periods: Sequence[dict[str, Any]]) -> list[Upload]:
        """Write the files of periods, a part of each at a time."""
        with ExitStack() as files:
            uploads = [
                Upload(
                    files.enter_context(
                        self.place.writing(period["archive"] + archive.FILE_SUFFIX, self._locked_until(period))
                    )
                )
                for period in periods
            ]
            while not all(upload.complete for upload in uploads):
                going = [(period, upload) for period, upload in zip(periods, uploads) if not upload.complete]
                asked = [{**_plain(period), "after": upload.after} for period, upload in going]
                for (period, upload), part in zip(going, self.step("export", periods=asked, bytes=PART_BYTES)):
                    upload.add(part)
                    self.say(_progress(period, upload))
        return uploads

    def _manifest(self, period: Period, upload: Upload, entries: Sequence[Entry]) -> Manifest:
        """Read a file back; return its manifest."""
        ages = self._ages(period)
        manifest = Manifest(
            chain=entries[-1].seal.chain,
            name=period["archive"],
            first_day=period["first_day"],
            end_day=period["end_day"],
            size=upload.size,
            sha256=upload.sha256.hexdigest(),
            rows=upload.rows,
            seals=(),
            categories=tuple(sorted({group["category"] or DEFAULT for group in period["groups"]})),
            tables=_tables(period["groups"]),
            expires=ages.archive and _end(period["end_day"], ages.archive).isoformat(),
            **{name: period[name] for name in ("first_id", "last_id", "first_at", "last_at")},
        )
        left = archive.without_others(entries, manifest.name)
        with self.copy(manifest) as copy:
            seals = check_file(self.place, manifest, left, copy.add if copy else None)
        return replace(manifest, seals=seals, copies=copy.paths if copy else ())

    def _drop(self, periods: Sequence[dict[str, Any]]) -> None:
        """Sign that rows leave the log, then have them leave it."""
        manifests = [self._named(period) for period in periods if period["rows"]]
        said = archive.named(self.ledger(), "archives")
        new = [manifest for manifest in manifests if said.get(manifest.name, {}).get("manifest") != manifest.digest()]
        if new:
            self._seal({"kind": ARCHIVE, "attested": archive.attested(new)})
        for answer in self.step("release", periods=[_plain(period) for period in periods]) if periods else ():
            self.statements += answer["statements"]
            if answer["kept"]:
                self.kept[answer["name"]] = answer["kept"]
            else:
                self.dropped.append(answer["name"])

    def _named(self, period: Period) -> Manifest:
        manifest = read_manifest(self.place, period["archive"])
        if manifest is None:
            raise AuditError(
                f"{period['name']}: the manifest {self.place.url}/{period['archive']} is missing; not dropped"
            )
        return manifest

    def _seal(self, also: Mapping[str, Any] | None) -> None:
        sealing = self.sealing()
        sealing.vouches = self._vouches
        sealing.run(also=also)

    def _vouches(self, seal: Seal) -> bool:
        """Tell whether what a run that was cut off wanted to be signed is so."""
        manifests = [
            manifest
            for said in seal.attested.get("archives", ())
            if (manifest := read_manifest(self.place, said["name"])) and manifest.digest() == said["manifest"]
        ]
        if seal.kind != ARCHIVE or not manifests or seal.attested != archive.attested(manifests):
            return False
        for manifest in manifests:
            self._check(manifest, self.ledger())
        return True

    def _with_days(self, period: dict[str, Any]) -> dict[str, Any]:
        """Return a period with its days; what a run that was cut off has detached, its manifest knows them."""
        if period["end_day"] is None:
            manifest = read_manifest(self.place, period["archive"])
            if manifest is None:
                return {"name": period["name"], "unknown": True}
            period.update(first_day=manifest.first_day, end_day=manifest.end_day)
        return period

    def _is_due(self, period: Period) -> bool:
        return _end(period["end_day"], self._ages(period).database) <= self.today

    def _ages(self, period: Period) -> Ages:
        return self.retention.of([group["category"] for group in period["groups"]])

    def _locked_until(self, period: Period) -> datetime | None:
        age = self._ages(period).archive
        end = age and _end(period["end_day"], age)
        return datetime(end.year, end.month, end.day, tzinfo=timezone.utc) if end else None


def _held(period: Period) -> str:
    return f"legal hold: {'; '.join(period['holds'])}"


def _plain(period: Period) -> dict[str, Any]:
    """Return what the host needs of a period that it has described."""
    return {name: period[name] for name in ("name", "first_day", "end_day", "state", "rows")}


def _tables(groups: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for group in groups:
        name = f"{group['schema_name']}.{group['table_name']}" if group["table_name"] else ""
        found[name] = found.get(name, 0) + group["rows"]
    return found


def _end(end_day: str, age: Age) -> date:
    """Return the day on which the last row of a period that ended before `end_day` has an age."""
    return age.after(date.fromisoformat(end_day))


def _progress(period: Period, upload: Upload) -> str:
    share = 100 * upload.rows // max(period["rows"], 1)
    return f"{period['name']}: {upload.rows:,} of {period['rows']:,} rows, {share} %, {upload.size / 1e6:,.1f} MB"
