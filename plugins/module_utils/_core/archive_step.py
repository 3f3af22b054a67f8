# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a database host does for an archive: short steps that the controller asks for, one call each.

Rows leave the host in the answers, compressed, so that nothing of the log touches another disk on the way.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, Callable, Protocol

from .errors import AuditError
from .hold import Hold
from .ledger_archive import ROW_ID
from .module import LOCK_SPEC, AuditModule
from .seal_step import LAST_ID, SEAL_SPEC, SealStore
from .seal_step import run as run_seal_step

#: Rows that the server is asked for at once: it sorts them by id, in memory.
WINDOW = 20_000

#: Bytes, compressed, that one partition has in one answer. More would not go through any faster, and both ends keep
#: what they pass on in memory.
PART_BYTES = 8 << 20

#: Bytes of lines that are compressed together.
_TOGETHER = 1 << 18

#: Of zlib: 4 takes a third less time than gzip's 6, for files that are 4 % larger (benchmarks/archive); gzip's format.
_LEVEL, _GZIP = 4, 31

ARCHIVE_SPEC: dict[str, Any] = {
    "url": {"type": "str"},
    "server": {"type": "str"},
    "older_than": {"type": "str", "default": "13mo"},
    "retention": {"type": "dict", "default": {}},
    "holds": {"type": "list", "elements": "dict", "default": []},
    "drop": {"type": "bool", "default": False},
    "format": {"type": "str", "choices": ["jsonl", "parquet"], "default": "jsonl"},
    "parallel": {"type": "int", "default": 2},
    "storage": {"type": "dict", "default": {}},
    "storage_options": {"type": "dict", "default": {}, "no_log": True},
    **SEAL_SPEC,
    **LOCK_SPEC,
}
del ARCHIVE_SPEC["resync"]

#: Of an engine that has a log in each database.
LOGS_SPEC: dict[str, Any] = {
    "logs": {
        "type": "list",
        "elements": "dict",
        "options": {
            "login_db": {"type": "str", "required": True},
            "schema": {"type": "str"},
            "ledger": {"type": "str"},
        },
    },
}


class ArchiveStore(Protocol):
    """What an engine supplies: the partitions of one log."""

    def periods(self) -> list[dict[str, Any]]:
        """Return the partitions but the catch-alls, by time.

        Each has `name`, `archive` (the name of its archive), `first_day`, `end_day` (which one that is detached does
        not know any more), `state` (attached, or detaching or detached by a run that was cut off) and `bytes`.
        """

    def whole(self) -> dict[str, Any]:
        """Return whether something still writes to the log (`written`), and which `catch_alls` hold rows."""

    def contents(self, period: Mapping[str, Any]) -> dict[str, Any]:
        """Return `rows`, `first_id`, `last_id`, `first_at`, `last_at`, and `groups` of rows.

        A group has `category`, `schema_name`, `table_name` and `rows`.
        """

    def holds(self, period: Mapping[str, Any], hold: Hold, tables: Sequence[tuple[str, str]] | None) -> bool:
        """Tell whether a row of these tables, or of any, is held."""

    def bounds_of(self, period: Mapping[str, Any], after: int) -> list[tuple[int, int]]:
        """Return last id and number of rows of each seal of the period beyond an id, by last id."""

    def lines(self, period: Mapping[str, Any], after: int, until: int, take: Callable[[bytes], None]) -> None:
        """Hand the canonical texts of the rows after an id up to another over, by id, until that raises an error."""

    def release(self, period: Mapping[str, Any], rows: int) -> list[str]:
        """Take a period out of the log and drop it, unless it has another number of rows; return the statements.

        :raises AuditError: with what keeps it; nothing is dropped then, and the next run goes on from there.
        """

    def tidy(self) -> list[str]:
        """Have no gap where periods were released; return the statements."""

    def release_statements(self, period: Mapping[str, Any]) -> list[str]:
        """Return what release() would execute."""

    def tidy_statements(self, gone: Sequence[str]) -> list[str]:
        """Return what tidy() would execute were these periods gone."""


def late(period: Mapping[str, Any], found: int, rows: int) -> str:
    """Return why a period stays that has other rows than its archive."""
    return (
        f"{period['name']} has {found} rows and its archive {rows}: a transaction that had begun in its time "
        "has only now ended; the next run seals what came late and archives the partition anew"
    )


#: Makes the stores of a session.
Stores = Callable[[Any], tuple[SealStore, ArchiveStore]]


def run(module: AuditModule, session: Any, stores: Stores) -> None:
    """Carry out the step that the action plugin of this module asks for."""
    step = module.params["step"] or {}
    seals, archives = stores(session)
    if step.get("do") == "periods":
        module.results["answer"] = _periods(step, archives)
    elif step.get("do") == "export":
        module.results["answer"] = _export(step, lambda: _own(module, stores))
    elif step.get("do") == "release":
        module.results["answer"] = _release(step, module, session, archives)
    else:
        run_seal_step(module, seals)


@contextmanager
def _own(module: AuditModule, stores: Stores) -> Iterator[ArchiveStore]:
    """Give a store with a connection of its own, for one thread."""
    session = module.connect()
    try:
        yield stores(session)[1]
    finally:
        session.close()


def _periods(step: Mapping[str, Any], store: ArchiveStore) -> dict[str, Any]:
    """Answer with all periods, those that have ended by a day with what is in them; whether all is `tidy`; today."""
    holds = [Hold.parse(given, "hold") for given in step["holds"]]
    found = store.periods()
    for period in found:
        if (period["end_day"] or "") <= step["before"]:
            period.update(store.contents(period))
            period["holds"] = [hold.reason for hold in holds if _is_held(store, period, hold)]
    today = datetime.now(timezone.utc).date().isoformat()
    answer = {"periods": found, "tidy": not store.tidy_statements([]), "today": today}
    return {**answer, **store.whole()} if step.get("everything") else answer


def _is_held(store: ArchiveStore, period: Mapping[str, Any], hold: Hold) -> bool:
    tables = hold.may_hold([(group["schema_name"], group["table_name"]) for group in period["groups"]])
    if tables == [] or not period["rows"]:
        return False
    return not hold.is_of_rows or store.holds(period, hold, tables)


def _export(step: Mapping[str, Any], own: Callable[[], Any]) -> list[dict[str, Any]]:
    """Answer with the next part of each period's file."""

    def part(period: Mapping[str, Any]) -> dict[str, Any]:
        with own() as store:
            return _part(store, period, int(step["bytes"]))

    with ThreadPoolExecutor(max(len(step["periods"]), 1)) as pool:
        return list(pool.map(part, step["periods"]))


def _part(store: ArchiveStore, period: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return `data`, how many `rows` are in it, the last id (`after`), and whether the file is `complete`."""
    part, after, complete = Part(size), int(period["after"]), True
    try:
        for until in _windows(store.bounds_of(period, after), after):
            store.lines(period, after, until, part.add)
            after = until
    except FullError:
        complete = False
    return {**part.finish(int(period["after"])), "complete": complete}


def _windows(bounds: Sequence[tuple[int, int]], after: int) -> Iterator[int]:
    """Give the ids up to which to ask for rows, one after the other, until there are none above.

    :param bounds: last id and number of rows of each seal, by last id.
    """
    for last, rows in bounds:
        count = -(-rows // WINDOW)
        yield from (after + (last - after) * number // count for number in range(1, count + 1))
        after = last
    yield LAST_ID


class FullError(Exception):
    """There is no more room in a part."""


class Part:
    """Lines, compressed as a gzip file of their own; such files one after the other are one, too."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._member = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._data = bytearray()
        self._lines: list[bytes] = []
        self._waiting = self._rows = 0
        self._last = b""

    def add(self, line: bytes) -> None:
        """Take a line; the one that fills the part is still in it."""
        self._lines.append(line)
        self._waiting += len(line)
        if self._waiting >= _TOGETHER:
            self._compress()
            if len(self._data) >= self._size:
                raise FullError

    def finish(self, after: int) -> dict[str, Any]:
        """Return what it has become.

        :param after: the last id before it.
        """
        self._compress()
        if self._rows:
            self._data += self._member.flush()
        last = ROW_ID.match(self._last)
        return {"data": bytes(self._data), "rows": self._rows, "after": int(last[1]) if last else after}

    def _compress(self) -> None:
        if self._lines:
            self._rows += len(self._lines)
            self._last = self._lines[-1]
            self._data += self._member.compress(b"\n".join(self._lines) + b"\n")
        self._lines, self._waiting = [], 0


def _release(step: Mapping[str, Any], module: AuditModule, session: Any, store: ArchiveStore) -> dict[str, Any]:
    """Take periods out of the log, as they were archived; answer with what keeps each, or nothing."""
    names = [period["name"] for period in step["periods"]]
    if module.check_mode:
        texts = [text for period in step["periods"] for text in store.release_statements(period)]
        texts += store.tidy_statements(names) if step["tidy"] else []
        return {"periods": [{"name": name, "kept": ""} for name in names], "statements": texts}
    session.require_writable()
    session.lock()
    answers = [_released(store, period) for period in step["periods"]]
    texts = [text for answer in answers for text in answer.pop("statements")]
    return {"periods": answers, "statements": texts + (store.tidy() if step["tidy"] else [])}


def _released(store: ArchiveStore, period: Mapping[str, Any]) -> dict[str, Any]:
    try:
        statements = store.release(period, int(period["rows"]))
    except AuditError as error:
        return {"name": period["name"], "kept": str(error), "statements": []}
    return {"name": period["name"], "kept": "", "statements": statements}
