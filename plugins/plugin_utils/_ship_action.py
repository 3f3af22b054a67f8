# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action of the ship modules, whatever the engine."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any, ClassVar

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.retention import Age
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import Entry, Seal
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal_step import CALL_SECONDS
from ansible_collections.dbfleet.audit.plugins.module_utils._core.ship_step import BATCH_BYTES, COLLECTOR_SPEC
from ansible_collections.dbfleet.audit.plugins.plugin_utils import _ship_http, _ship_syslog
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_action import StorageAction
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ledger import ledger_at
from ansible_collections.dbfleet.audit.plugins.plugin_utils._seals import file_name
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_cursor import Cursor
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_destination import Destination, Files
from ansible_collections.dbfleet.audit.plugins.plugin_utils._shipping import FollowedLedger, Shipping

#: Logs that are shipped at a time, unless all of them are followed.
_TOGETHER = 4

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

#: Options of a collector that are files of the controller.
_FILES = ("ca_cert", "client_cert", "client_key")

#: What only storage that locks or deletes files can do anything with.
_KEEPING = ("lock", "lifecycle")


class ShipAction(StorageAction):
    """Ships sealed rows of a log to a destination."""

    controller: ClassVar[tuple[str, ...]] = (
        *StorageAction.controller,
        *("name", "cursor", "from_seal", "follow", "interval", "timeout", "collector", "keep"),
    )
    #: The last seal that the host has told of, which the ledger may not have.
    _seen = 0

    def work(self) -> dict[str, Any]:
        logs = self.arguments.get("logs")
        if logs is None:
            return self._ship()
        # One that is followed does not end before its time.
        return self.all_logs(logs, max(len(logs), 1) if self._seconds("follow") else _TOGETHER)

    def _ship(self) -> dict[str, Any]:
        if not self.option("ledger"):
            raise AuditError("ledger is missing: only rows that are sealed are shipped")
        key, keys = self.signing_key("signing_key"), self.public_keys()
        if not (key or keys):
            raise AuditError("public_key is missing, or signing_key to seal before: rows are compared with the ledger")
        previous = self.signing_key("previous_signing_key")
        keys += [one.public for one in (key, previous) if one]
        ledger = FollowedLedger(ledger_at(self.option("ledger")), keys)
        server, database = self.log_names()
        origin = {"server": server, "database": database}
        destination = self._destination(origin, ledger.entries)
        cursor = Cursor(self._cursor(destination.name))
        run = Shipping(self.step, ledger.entries, cursor, destination, origin, self.say)
        run.from_seal = self.option("from_seal") or None
        sealed: list[Entry] = []

        def seal() -> None:
            if key is not None:
                sealing = self.sealing(key, ledger.ledger)
                sealing.run()
                sealed.extend(sealing.entries)

        problem = self._run(run, seal)
        return self._result(run, bool(sealed), problem)

    def _run(self, run: Shipping, seal: Callable[[], None]) -> str:
        """Ship for as long as the options say; return what ended it before its time."""
        if self._task.check_mode:
            if not run.due():
                run.check_ledger()
            return ""
        until = time.monotonic() + self._seconds("follow")
        with run.cursor.locked():
            try:
                seal()
                run.run()
                if not run.shipped:
                    run.check_ledger()
                while (left := until - time.monotonic()) > 0:
                    self._wait(run, left)
                    seal()
                    run.run()
            except AuditError as error:
                # What was acknowledged by then has to be told.
                return str(error)
        return ""

    def _wait(self, run: Shipping, left: float) -> None:
        """Wait until there is a seal that the ledger has not had yet, or it is time to look again."""
        entries = run.entries()
        self._seen = max(entries[-1].seal.number if entries else 0, self._seen)
        until = time.monotonic() + min(self.number("interval", 30.0), left)
        while (seconds := until - time.monotonic()) > 0:
            # No call of the host is longer than it may be.
            longest = self.number("call_seconds", CALL_SECONDS)
            last = self.step("wait", after=self._seen, seconds=min(seconds, longest))
            if last > self._seen:
                self._seen = last
                return

    def _result(self, run: Shipping, sealed: bool, problem: str) -> dict[str, Any]:
        predicted = self._task.check_mode
        known = self._left(run)
        left = known or []
        seals = left if predicted else run.shipped
        return {
            "changed": bool(seals) or sealed,
            "destination": run.destination.title,
            "seals": len(seals),
            "rows": sum(seal.rows for seal in left) if predicted else run.rows,
            "bytes": run.bytes,
            "first_seal": seals[0].number if seals else None,
            "last_seal": seals[-1].number if seals else None,
            "behind": None if known is None else len(left),
            "behind_since": left[0].sealed_at if left else None,
            **({"failed": True, "msg": problem} if problem else {}),
        }

    def _left(self, run: Shipping) -> list[Seal] | None:
        """Return what is left to ship, or None when nobody knows."""
        try:
            return run.due()
        except AuditError:
            # The run has said why.
            return None

    def _destination(self, origin: dict[str, str], entries: Callable[[], list[Entry]]) -> Destination:
        url, timeout = self.option("url"), self.number("timeout", 120.0)
        if not url:
            raise AuditError(
                "url is missing: where rows are shipped to, a directory, s3://, abfs://, https://, syslog+tls:// or "
                "syslog+tcp://"
            )
        collector = self._collector()
        scheme = url.partition("://")[0] if "://" in url else ""
        if scheme in _ship_http.SCHEMES:
            return _ship_http.Http(url, collector, timeout)
        if scheme in _ship_syslog.SCHEMES:
            return _ship_syslog.Syslog(url, origin, collector, timeout)
        storage = (self.option("storage", {}), self.option("storage_options", {}))
        folder = [file_name(name) for name in (origin["server"], origin["database"])]
        return Files(url, folder, storage, self._keep(storage[0]), entries)

    def _collector(self) -> dict[str, Any]:
        """Return how a collector is reached, with None for what was not given."""
        given = {**dict.fromkeys(COLLECTOR_SPEC), **self.option("collector", {})}
        files = {name: os.path.expanduser(given[name]) for name in _FILES if given[name]}
        for name, path in files.items():
            if not os.access(path, os.R_OK):
                raise AuditError(f"collector: {name}: {path} on the controller cannot be read")
        return {**given, **files, "headers": given["headers"] or {}, "batch_bytes": given["batch_bytes"] or BATCH_BYTES}

    def _keep(self, storage: dict[str, Any]) -> Age | None:
        """Return for how long the storage is to keep files."""
        keep = self.option("keep")
        asked = [name for name in _KEEPING if storage.get(name)]
        if bool(keep) != bool(asked):
            missing = f"storage has {asked[0]}, and keep does not say for how long" if asked else "keep needs a lock"
            raise AuditError(f"{missing}: give both, as keep: 7y with storage: {{lock: compliance}}, or neither")
        return Age.parse(keep, "keep") if keep else None

    def _cursor(self, destination: str) -> str:
        """Return the path of the cursor."""
        name, ledger = self.option("name", destination), self.option("ledger")
        if not _NAME.fullmatch(name):
            raise AuditError(f"name is {name!r}; it is a part of a file's name: letters, digits, dots, dashes, _")
        given = self.option("cursor")
        if given:
            return str(given)
        if "://" in ledger:
            raise AuditError("cursor is missing: a path on the controller; beside a ledger that is a URL there is none")
        return f"{ledger}.{name}.cursor"

    def _seconds(self, name: str) -> float:
        """Return an option that is a number of seconds, 0 for none."""
        return self.number(name, 1.0) if self.option(name) else 0.0
