# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The archiving of one log, from the controller: the host sends rows, the controller keeps them and signs that it does.

In this order: the file, read back and compared with the ledger; its manifest; a signed word of the ledger that these
rows leave the log; the partition. Whatever ends a run between two of them, the next one finds how far it came: a file
without a manifest is written anew, one with it is read back again, and a partition goes last.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from datetime import date, datetime, timezone
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core import archive
from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive import Manifest
from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive_step import PART_BYTES
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.hold import Hold
from ansible_collections.dbfleet.audit.plugins.module_utils._core.retention import Age, Ages, Retention
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import ARCHIVE, Entry, Seal
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_file import Upload, read_manifest, write_manifest
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_known import Archives, Period, facts
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_place import Place
from ansible_collections.dbfleet.audit.plugins.plugin_utils._sealing import Sealing

#: Asks the host for a step by name.
Step = Callable[..., Any]


class Archiving:
    """One run.

    :param sealing: makes a run that seals; each is used once.
    :param ledger: returns the ledger's entries, all of them signed as they have to be.
    :param say: shows a line of progress.
    :ivar copy: makes what else becomes of an archive's rows, while they are read back: `add` takes lines, and once the
        block has ended without an error, `paths` are the files, below the URL of all archives.
    :ivar kept: what is not dropped although its time is over, by name, and why that is meant to be.
    :ivar problems: the same where it is not meant to be.
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
        self.archives = Archives(place, ledger)
        self.retention = retention
        self.say = say
        self.parallel = 2
        self.copy: Callable[[Manifest], AbstractContextManager[Any]] = lambda _manifest: nullcontext()
        self.today = datetime.now(timezone.utc).date()
        self.archived: list[Manifest] = []
        self.due: list[str] = []
        self.dropped: list[str] = []
        self.kept: dict[str, str] = {}
        self.problems: dict[str, str] = {}
        self.statements: list[str] = []
        self.present: list[str] = []
        #: Others who may know of what is to be signed that it is right.
        self.vouchers: list[Callable[[Seal], bool]] = []
        self._tidy = True
        self._due: list[dict[str, Any]] = []

    def periods(self, holds: Sequence[Hold]) -> list[dict[str, Any]]:
        """Return the partitions whose time in the log is over, by time."""
        before = max(age.before(self.today) for age in self.retention.shortest())
        everything = {"everything": True} if self.retention.everything else {}
        answer = self.step("periods", before=before.isoformat(), holds=[hold.plain() for hold in holds], **everything)
        if everything:
            self._check_whole(answer)
        self._check_clock(answer["today"])
        self._tidy = answer["tidy"]
        self.present = [period["archive"] for period in answer["periods"]]
        with_days = [period for period in answer["periods"] if "groups" in period and self._find_days(period)]
        self._due = [period for period in with_days if _end(period, self._ages(period).database) <= self.today]
        self.kept.update(
            (period["name"], f"legal hold: {'; '.join(period['holds'])}") for period in self._due if period["holds"]
        )
        return self._due

    def _check_whole(self, answer: Mapping[str, Any]) -> None:
        """Refuse to archive the present period of a log in use; name the rows that are in none.

        :raises AuditError: with what has to be done first.
        """
        if answer["written"]:
            raise AuditError(
                "older_than is 0d, which takes the present period out of the log as well, and auditing still writes to "
                "it; take auditing out first (playbooks/remove.yml)"
            )
        reason = "holds rows from outside of all periods, which no archive takes"
        self.problems.update(dict.fromkeys(answer["catch_alls"], reason))

    def _check_clock(self, there: str) -> None:
        """Refuse to tell ages by a clock that is wrong; what is deleted by it stays deleted."""
        days = abs((date.fromisoformat(there) - self.today).days)
        if days > 1:
            raise AuditError(
                f"it is {self.today} on the controller and {there} on the host; set the clock that is wrong, for by it "
                "rows would be dropped and archives deleted"
            )

    def run(self, periods: Sequence[dict[str, Any]], drop: bool) -> None:
        """Archive periods, and drop them when told to."""
        # What a run that was cut off has detached comes first: should late rows be in it, sealing has to see them.
        begun = [period for period in periods if period["state"] != "attached"]
        left = [period for period in periods if period["state"] == "attached"]
        self._work(begun, drop)
        if any(period["rows"] for period in left):
            self.seal(lambda: None)
        self._work(left, drop)
        if self.dropped or (drop and not self._tidy):
            self._release([], tidy=True)

    def _work(self, periods: Sequence[dict[str, Any]], drop: bool) -> None:
        for start in range(0, len(periods), self.parallel):
            together = periods[start : start + self.parallel]
            archives = self._archive([period for period in together if period["rows"]])
            if drop:
                self._drop(self._going(together), archives)

    def _going(self, periods: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return those that nothing keeps."""
        return [period for period in periods if period["name"] not in {**self.kept, **self.problems}]

    def predict(self, periods: Sequence[dict[str, Any]], drop: bool) -> None:
        """Note what run() would do, from what is there now."""
        for period in periods:
            with self._noted(period):
                if not period["rows"]:
                    self.archives.require_empty(period)
                elif self.archives.of(period) is None:
                    self.due.append(period["name"])
        if drop:
            self._release(self._going(periods), tidy=True)

    def seal(self, also: Callable[[], Mapping[str, Any] | None]) -> None:
        """Seal all that there is, and have the ledger say something more."""
        sealing = self.sealing()
        sealing.vouches = self._vouches
        sealing.run(also=also)

    def attest(self, unsaid: Callable[[], dict[str, Any] | None]) -> None:
        """Have the ledger say something of archives, unless it has; asked again once nobody else can add to it."""

        def entry() -> dict[str, Any] | None:
            attested = unsaid()
            return {"kind": ARCHIVE, "attested": attested} if attested else None

        if unsaid():
            self.seal(entry)
            if unsaid():
                raise AuditError("the ledger does not say what this run had it say; nothing was dropped or deleted")

    def _vouches(self, seal: Seal) -> bool:
        """Tell whether what a run that was cut off wanted to be signed is so."""
        return any(vouches(seal) for vouches in self.vouchers) or self.archives.vouch(seal, self._due)

    def _archive(self, periods: Sequence[dict[str, Any]]) -> dict[str, Manifest]:
        """Have an archive of each period that is what the ledger says; return their manifests by the period's name."""
        archives: dict[str, Manifest] = {}
        missing = []
        for period in periods:
            with self._noted(period):
                manifest = self.archives.of(period)
                if manifest is None:
                    missing.append(period)
                    continue
                self.archives.check(manifest)
                # Of two controllers, the other may have replaced the archive during the check: its file is no leftover.
                if read_manifest(self.place, manifest.name) == manifest:
                    self._clear(manifest)
                archives[period["name"]] = manifest
        for period, upload in zip(missing, self._export(missing)):
            with self._noted(period):
                archives[period["name"]] = self._finished(period, upload)
        return archives

    @contextmanager
    def _noted(self, period: Period) -> Iterator[None]:
        """Note what is wrong with a period's archive, and go on with the others."""
        try:
            yield
        except AuditError as error:
            self.problems[period["name"]] = str(error)

    def _export(self, periods: Sequence[dict[str, Any]]) -> list[Upload]:
        """Write the files of periods, a part of each at a time."""
        taken = self.place.names() if periods else []
        with ExitStack() as files:
            uploads = []
            for period in periods:
                name = archive.file_name(period["archive"], taken, secrets.token_hex(4))
                until = moment(self._expires(period))
                uploads.append(Upload(name, files.enter_context(self.place.writing(name, until, new=True))))
            while going := [pair for pair in zip(periods, uploads) if not pair[1].complete]:
                asked = [{**_plain(period), "after": upload.after} for period, upload in going]
                for (period, upload), part in zip(going, self.step("export", periods=asked, bytes=PART_BYTES)):
                    upload.add(part)
                    self.say(_progress(period, upload))
        return uploads

    def _finished(self, period: Period, upload: Upload) -> Manifest:
        """Read a file back and write its manifest."""
        expires = self._expires(period)
        manifest = Manifest(
            chain=self.ledger()[-1].seal.chain,
            name=period["archive"],
            file=upload.name,
            size=upload.size,
            sha256=upload.sha256.hexdigest(),
            rows=upload.rows,
            seals=(),
            expires=expires and expires.isoformat(),
            **facts(period),
        )
        with self.copy(manifest) as copy:
            seals = self.archives.seals_of(manifest, copy.add if copy else None)
        manifest = replace(manifest, seals=seals, copies=copy.paths if copy else ())
        write_manifest(self.place, manifest, moment(expires))
        if read_manifest(self.place, manifest.name) != manifest:
            raise AuditError(f"the manifest {self.place.url}/{manifest.name}, read back, is not what was written")
        self._clear(manifest)
        self.archived.append(manifest)
        return manifest

    def _clear(self, manifest: Manifest) -> None:
        """Delete what runs that were cut off have left, and the file that this one replaces."""
        for name in self.place.names():
            if archive.is_file_of(name, manifest.name) and name != manifest.file:
                try:
                    self.place.delete(name)
                except AuditError as error:
                    # A lock of the storage ends some day.
                    self.say(str(error))

    def _drop(self, periods: Sequence[dict[str, Any]], archives: Mapping[str, Manifest]) -> None:
        """Sign that rows leave the log, then have them leave it."""
        leaving = self._with_manifests(periods, archives)
        manifests = [archives[period["name"]] for period in leaving if period["rows"]]
        self.attest(lambda: self.archives.unsaid(manifests))
        # That took a while.
        leaving = self._with_manifests(leaving, archives)
        if leaving:
            self._release(leaving)

    def _with_manifests(
        self, periods: Sequence[dict[str, Any]], archives: Mapping[str, Manifest]
    ) -> list[dict[str, Any]]:
        """Return the periods whose archives are there, with as many rows as their manifests say."""
        found, sizes = [], self.place.sizes() if archives else {}
        for period in periods:
            with self._noted(period):
                found.append({**period, "rows": self._rows_of(period, archives, sizes)})
        return found

    def _rows_of(self, period: Period, archives: Mapping[str, Manifest], sizes: Mapping[str, int]) -> int:
        """Return how many rows of a period are in its archive, which must be there.

        :param sizes: of the files that there are, by their names.
        :raises AuditError: when its file or its manifest is not.
        """
        if not period["rows"]:
            self.archives.require_empty(period)
            return 0
        manifest = read_manifest(self.place, period["archive"])
        if manifest != archives[period["name"]]:
            raise AuditError(
                f"the manifest {self.place.url}/{period['archive']} is missing or has changed; nothing was dropped"
            )
        if sizes.get(manifest.file) != manifest.size:
            # Another controller that archives the same log takes what its own manifest does not name for a leftover.
            raise AuditError(f"{self.place.url}/{manifest.file} is missing or has changed; nothing was dropped")
        return manifest.rows

    def _release(self, periods: Sequence[dict[str, Any]], tidy: bool = False) -> None:
        answer = self.step("release", periods=[_plain(period) for period in periods], tidy=tidy)
        self.statements += answer["statements"]
        for period in answer["periods"]:
            if period["kept"]:
                self.problems[period["name"]] = period["kept"]
            else:
                self.dropped.append(period["name"])

    def _find_days(self, period: dict[str, Any]) -> bool:
        """Complete what a run that was cut off has detached by its days, which its manifest knows; tell if it does."""
        if period["end_day"] is None:
            manifest = read_manifest(self.place, period["archive"])
            if manifest is None:
                self.problems[period["name"]] = (
                    "is not attached to the log, and has no manifest: no archive run has detached it; attach it again"
                )
                return False
            period.update(first_day=manifest.first_day, end_day=manifest.end_day)
        return True

    def _ages(self, period: Period) -> Ages:
        categories = [group["category"] for group in period["groups"]]
        return self.retention.of(categories, date.fromisoformat(period["end_day"]))

    def _expires(self, period: Period) -> date | None:
        age = self._ages(period).archive
        return _end(period, age) if age else None


def _plain(period: Period) -> dict[str, Any]:
    """Return what the host needs of a period that it has described."""
    return {name: period[name] for name in ("name", "first_day", "end_day", "state", "rows")}


def _end(period: Period, age: Age) -> date:
    """Return the day from which all rows of a period have an age."""
    return age.after(date.fromisoformat(period["end_day"]))


def moment(day: date | None) -> datetime | None:
    """Return when a day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc) if day else None


def _progress(period: Period, upload: Upload) -> str:
    share = 100 * upload.rows // max(period["rows"], 1)
    return f"{period['name']}: {upload.rows:,} of {period['rows']:,} rows, {share} %, {upload.size / 1e6:,.1f} MB"
