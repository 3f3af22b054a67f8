# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action of the archive modules, whatever the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar

from ansible.utils.display import Display

from ansible_collections.dbfleet.audit.plugins.module_utils._core import ledger_check
from ansible_collections.dbfleet.audit.plugins.module_utils._core.archive import Manifest
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.hold import Hold
from ansible_collections.dbfleet.audit.plugins.module_utils._core.retention import Retention
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import Entry
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal_step import BLOCK_IDS, CALL_SECONDS
from ansible_collections.dbfleet.audit.plugins.module_utils._core.signature import PublicKey, SigningKey, trusted_keys
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive import Archiving
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_expiry import Expiry
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_parquet import ParquetCopies
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_place import Place, place_at
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ledger import Ledger, ObjectLedger, ledger_at
from ansible_collections.dbfleet.audit.plugins.plugin_utils._processes import in_processes
from ansible_collections.dbfleet.audit.plugins.plugin_utils._seal_action import CONTROLLER, SealAction
from ansible_collections.dbfleet.audit.plugins.plugin_utils._sealing import Sealing
from ansible_collections.dbfleet.audit.plugins.plugin_utils._seals import file_name


class StorageAction(SealAction):
    """Knows where a log's archives are. Subclasses say what the log is called.

    :cvar database: the option that names it.
    :ivar title: what lines of progress call it, where they are of several.
    """

    controller: ClassVar[tuple[str, ...]] = (
        *CONTROLLER,
        *("url", "server", "storage", "storage_options", "format", "parallel"),
        *("older_than", "retention", "holds", "drop"),
        *("archive", "table", "logs"),
    )
    database: ClassVar[str] = ""
    title = ""

    def places(self) -> tuple[Place, Place]:
        """Return the folder of the log's archives, and the one that has those of all logs."""
        url = self.option("url")
        if not url:
            raise AuditError("url is missing: where archives go, a directory or a URL such as s3://bucket/audit")
        storage, options = self.option("storage", {}), self.option("storage_options", {})
        root = place_at(url, storage, options)
        root.require()
        folder = "/".join([url.rstrip("/"), *(file_name(name) for name in self.log_names())])
        return place_at(folder, storage, options), root

    def log_names(self) -> tuple[str, str]:
        """Return what the log's server and database are called in paths."""
        server = self.option("server", self.vars.get("inventory_hostname"))
        return server, self.option(self.database, self.spec[self.database]["default"])

    def say(self, line: str) -> None:
        """Show a line of progress."""
        Display().display(f"{self.vars.get('inventory_hostname', '')} {self.title and f'{self.title} '}{line}")

    def all_logs(self, logs: Sequence[Mapping[str, Any]], together: int, **usual: Any) -> dict[str, Any]:
        """Do the work for several logs of the server at a time, whichever fails.

        :param together: how many at a time.
        :param usual: options of each that are not the task's.
        """
        given = [{name: value for name, value in log.items() if value is not None} for log in logs]
        usual = {**self.arguments, "logs": None, **usual}
        done = in_processes([partial(self._one_log, {**usual, **log}) for log in given], together)
        results = [{self.database: log[self.database], **result} for log, result in zip(given, done)]
        failed = [f"{result[self.database]}: {result.get('msg')}" for result in results if result.get("failed")]
        return {
            "changed": any(result.get("changed", False) for result in results),
            "results": results,
            **({"failed": True, "msg": "; ".join(failed)} if failed else {}),
        }

    def _one_log(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Do the work for one log of several, in a process of its own."""
        self.title = given[self.database]
        return self.outcome(given)

    def sealing(self, key: SigningKey, ledger: Ledger | ObjectLedger) -> Sealing:
        """Return a run that seals."""
        seconds = self.number("call_seconds", CALL_SECONDS)
        step = partial(self.step, "seal", ids=int(self.number("block_rows", BLOCK_IDS)), seconds=seconds)
        return Sealing(step, ledger, key, self.signing_key("previous_signing_key"))


class ArchiveAction(StorageAction):
    """Archives partitions whose time in the log is over."""

    def work(self) -> dict[str, Any]:
        logs = self.arguments.get("logs")
        if logs is None:
            return self._archive()
        parallel = int(self.number("parallel", 2))
        together = min(parallel, max(len(logs), 1))
        return self.all_logs(logs, together, parallel=parallel // together)

    def _archive(self) -> dict[str, Any]:
        key = self.signing_key("signing_key")
        if key is None or not self.option("ledger"):
            missing = "ledger" if key else "signing_key"
            raise AuditError(f"{missing} is missing: only rows that are sealed may leave the log")
        retention = Retention(str(self.option("older_than", "13mo")), self.option("retention", {}))
        holds = [Hold.parse(given, f"hold {number}") for number, given in enumerate(self.option("holds", []), 1)]
        folder, root = self.places()
        known = KnownLedger(ledger_at(self.option("ledger")), [key.public])
        run = Archiving(self.step, partial(self.sealing, key, known.ledger), known.entries, folder, retention, self.say)
        run.parallel = int(self.number("parallel", 2))
        if self.option("format", "jsonl") == "parquet":
            url, storage = str(self.option("url")), self.option("storage", {})
            run.copy = ParquetCopies(url, *self.log_names(), storage, self.option("storage_options", {}))
        # Two that export the same partition would both say so in the ledger, with a file each.
        with nullcontext() if self._task.check_mode else known.ledger.alone("archive"):
            return self._result(run, Expiry(run, root), holds)

    def _result(self, run: Archiving, expiry: Expiry, holds: Sequence[Hold]) -> dict[str, Any]:
        drop = bool(self.option("drop", False))
        problems: list[str] = []
        periods = run.periods(holds)
        expiry.plan(holds)
        run.vouchers.append(expiry.vouches)
        try:
            if self._task.check_mode:
                run.predict(periods, drop)
                expiry.predict()
            else:
                run.run(periods, drop)
                expiry.run()
        except AuditError as error:
            # What was done by then has to be told, above all what was dropped.
            problems.append(str(error))
        result = {
            "changed": bool(run.archived or run.due or run.dropped or run.statements or expiry.expired),
            "archived": [_described(manifest, run.place) for manifest in run.archived],
            "due": run.due,
            "dropped": run.dropped,
            "expired": expiry.expired,
            "missing": expiry.missing,
            "kept": [{"name": name, "reason": reason} for name, reason in {**run.kept, **run.problems}.items()],
            "statements": run.statements,
        }
        problems += [f"{name}: {reason}" for name, reason in run.problems.items()]
        if expiry.missing:
            problems.append(f"archives that are not there, or not what the ledger says: {', '.join(expiry.missing)}")
        if problems:
            result.update(failed=True, msg=f"{'; '.join(problems)} (the rest is done)")
        return result


class KnownLedger:
    """A ledger that is read once, and again when something was added; its signatures are checked."""

    def __init__(self, ledger: Ledger | ObjectLedger, keys: Sequence[PublicKey]) -> None:
        self.ledger = ledger
        self._keys = keys
        self._entries: list[Entry] = []

    def entries(self) -> list[Entry]:
        """Return all entries.

        :raises AuditError: when one of them is not signed as it has to be, or the chain is broken.
        """
        if not self._entries or self.ledger.last() != self._entries[-1]:
            entries, digests = self.ledger.entries()
            problems = ledger_check.check_ledger(entries, digests, trusted_keys(self._keys, entries))
            if problems:
                raise AuditError(f"the ledger {self.ledger.path} is not whole: {problems[0].detail}; verify says more")
            self._entries = entries
        return self._entries


def _described(manifest: Manifest, place: Place) -> dict[str, Any]:
    return {**vars(manifest), "file": f"{place.url}/{manifest.file}", "manifest": manifest.digest()}
