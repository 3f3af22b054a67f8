# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a database host does to have an archive's rows in a table of their own: short steps, one call each."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .errors import AuditError
from .module import AuditModule
from .seal_step import STEP_SPEC

RESTORE_SPEC: dict[str, Any] = {
    "url": {"type": "str"},
    "server": {"type": "str"},
    "archive": {"type": "str"},
    "table": {"type": "str"},
    "ledger": {"type": "str"},
    "public_key": {"type": "list", "elements": "path", "default": []},
    "public_key_content": {"type": "list", "elements": "str", "default": []},
    "storage_options": {"type": "dict", "default": {}, "no_log": True},
    "step": STEP_SPEC["step"],
}

#: What the comment of a table says while it is filled, and what it says then.
_FILLING, _FILLED = "dbfleet.audit: being restored from ", "dbfleet.audit: restored from "


class RestoreStore(Protocol):
    """What an engine supplies: tables beside one log."""

    def comment(self, table: str) -> str | None:
        """Return the comment of a table, or None when there is none of that name."""

    def make(self, table: str, comment: str) -> None:
        """Make a table like the log, which those may read who may read the log; one that is there goes first."""

    def load(self, table: str, lines: Sequence[str]) -> int:
        """Add rows by their canonical texts, all or none; return how many do not have that text then."""

    def finish(self, table: str, comment: str) -> int:
        """Set a table's comment; return its number of rows."""


def run(module: AuditModule, session: Any, store: RestoreStore) -> None:
    """Carry out the step that the action plugin of this module asks for."""
    step = module.params["step"]
    if not step:
        raise AuditError("this module works through its action plugin, which reads the archive; call it as a task")
    if step["do"] != "look":
        session.require_writable()
    steps = {"look": _look, "begin": _begin, "load": _load, "finish": _finish}
    module.results["answer"] = steps[step["do"]](step, store)


def _look(step: Mapping[str, Any], store: RestoreStore) -> bool:
    """Tell whether the table is there with the rows of this archive.

    :raises AuditError: when there is another one of its name.
    """
    table, found = step["table"], store.comment(step["table"])
    if table.startswith("audit_log"):
        raise AuditError(f"the table {table} would look like a part of the log; give another name as `table`")
    if found is not None and not found.startswith((_FILLING, _FILLED)):
        raise AuditError(f"the table {table} is there, and no restore has made it; give another name as `table`")
    if found and found.startswith(_FILLED) and found != _FILLED + step["of"]:
        raise AuditError(
            f"the table {table} has other rows: {found}; drop it if nobody needs it, or give another name as `table`"
        )
    return found == _FILLED + step["of"]


def _begin(step: Mapping[str, Any], store: RestoreStore) -> None:
    _look(step, store)
    store.make(step["table"], _FILLING + step["of"])


def _load(step: Mapping[str, Any], store: RestoreStore) -> None:
    lines = gzip.decompress(base64.b64decode(step["data"])).decode(errors="surrogateescape").split("\n")[:-1]
    different = store.load(step["table"], lines)
    if different:
        raise AuditError(f"{different} rows are not what they were in the archive once this server has them")


def _finish(step: Mapping[str, Any], store: RestoreStore) -> None:
    rows = store.finish(step["table"], _FILLED + step["of"])
    if rows != step["rows"]:
        raise AuditError(f"the table {step['table']} has {rows} rows, the archive {step['rows']}")
