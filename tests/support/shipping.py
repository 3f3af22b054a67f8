# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ship action without the process of ansible-playbook around it."""

from __future__ import annotations

import dataclasses
import gzip
import importlib
import json
import pathlib
import typing as t

import killing
from running import ModuleResult, run_module
from sealing import Sealer

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_cursor import Cursor

SERVER = "pg3"


class Shipper(Sealer):
    """Seals a log and ships it.

    :ivar options: what every run is told; a run in a process of its own has nothing else.
    """

    options: t.ClassVar[dict[str, t.Any]] = {}

    def ship(self, **options: t.Any) -> dict[str, t.Any]:
        """Run the ship action; an error of it is raised."""
        module = f"{self.engine}_audit_ship"
        action = importlib.import_module(f"ansible_collections.dbfleet.audit.plugins.action.{module}")
        given = {"public_key": [self.key.public], "ledger": str(self.ledger), "server": SERVER, "timeout": 5}
        return self._act(action.ActionModule, module, {**given, **self.options, **options})

    def run(self) -> None:
        """Ship; what killing.start() calls."""
        self.ship()

    def refused(self, **options: t.Any) -> str:
        """Return the message of a run that must fail."""
        try:
            result = self.ship(**options)
        except AuditError as error:
            return str(error)
        assert result.get("failed"), result
        return str(result["msg"])

    def check(self, *shipped: pathlib.Path | str, **options: t.Any) -> ModuleResult:
        """Compare what was shipped with the ledger."""
        given = {"ledger": str(self.ledger), "public_key": [self.key.public], "fail_on_problem": False}
        return run_module("ledger_verify", **{**given, "shipped": [str(path) for path in shipped], **options})

    def seals(self) -> list[dict[str, t.Any]]:
        """Return the seals of rows in the ledger."""
        entries = [json.loads(line)["seal"] for line in self.ledger.read_text().splitlines()]
        return [seal for seal in entries if seal["kind"] == "rows"]


@dataclasses.dataclass(frozen=True)
class AtCursor:
    """Where a seal was acknowledged for the so manieth time, and the cursor is about to say so."""

    number: int

    def arrange(self, _run: t.Any) -> None:
        """Have it killed there."""
        done, count = Cursor.write, iter(range(1, self.number + 1))

        def write(cursor: Cursor, destination: str, seal: t.Any) -> None:
            if next(count) == self.number:
                killing.kill()
            done(cursor, destination, seal)

        Cursor.write = write  # type: ignore[method-assign]


def lines_of(path: pathlib.Path) -> list[dict[str, t.Any]]:
    """Return the lines of a file that a seal was shipped to."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
