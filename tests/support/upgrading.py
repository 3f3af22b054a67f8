# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds of every trail that another release has left, on any engine."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
import running
from databases import Database
from mysql_databases import Schema
from trail_fixture import TRAILS, FixtureSealer, roll_out, without_policies

from ansible_collections.dbfleet.audit.plugins.module_utils._core.schema_version import SCHEMA_VERSION

OLDEST, *BETWEEN, NEWEST = sorted(path.name for path in TRAILS.iterdir())

#: Parametrizes the fixture `restored` with all trails that are kept.
every_trail = pytest.mark.parametrize(
    "restored",
    [OLDEST, *(pytest.param(name, marks=pytest.mark.thorough) for name in BETWEEN), NEWEST],
    indirect=True,
)


def one_trail(name: str) -> pytest.MarkDecorator:
    """Return what parametrizes it with one of them."""
    return pytest.mark.parametrize("restored", [name], indirect=True)


@dataclasses.dataclass
class Restored:
    """A trail as an earlier release has left it.

    :ivar place: the database that has it, or whose server has.
    :ivar options: of a rollout.
    :ivar rows: reads the log, in the order of ids.
    :ivar catalogue: reads how its objects are made; equal to that of a trail with the same objects.
    :ivar write: makes changes as the application, with a number that makes them others than before.
    """

    engine: str
    place: Database | Schema
    options: dict[str, t.Any]
    sealer: FixtureSealer
    rows: t.Callable[[], list[tuple[t.Any, ...]]]
    catalogue: t.Callable[[], t.Any]
    write: t.Callable[[int], None]

    def run(self, module: str, **options: t.Any) -> running.ModuleResult:
        """Run one of the engine's modules."""
        return running.run_module(f"{self.engine}_audit_{module}", **self.place.login, **options)

    def trail(self, **options: t.Any) -> running.ModuleResult:
        """Run the module of the trail alone."""
        return self.run("trail", **{**without_policies(self.options), **options})

    def roll_out(self, **more: t.Any) -> list[bool]:
        """Run all modules of a rollout; return which of them changed something."""
        return roll_out(self.engine, self.place.login, self.options, **more)

    def version_told(self) -> t.Any:
        """Return what the info module says."""
        databases = {"databases": [self.place.name]} if self.engine == "postgresql" else {}
        return self.run("info", **databases, gather=["grants"])["trails"][0]["schema_version"]


def prove_upgrade(restored: Restored, fresh: t.Any) -> None:
    """An upgrade keeps rows and seals, and ends in the catalogue of a fresh trail."""
    sealer, rows, found = restored.sealer, restored.rows(), restored.version_told()
    assert sealer.seal_problems() == []
    trail = restored.trail()
    assert trail["schema_version"] == SCHEMA_VERSION
    # What belongs to the trail is new, what belongs to policies is not yet.
    restored.write(5)
    changed = [trail.changed, *restored.roll_out()[1:]]
    if found == SCHEMA_VERSION:
        assert changed == [False] * 3, "what is put into databases has changed: raise SCHEMA_VERSION"
    restored.write(6)
    assert restored.roll_out() == [False] * 3
    assert restored.rows()[: len(rows)] == rows
    assert restored.catalogue() == fresh
    assert restored.version_told() == SCHEMA_VERSION
    assert sealer.verify()["problems"] == []
    sealer.seal()
    result = sealer.verify(self_test=True)
    assert (result["problems"], result["unsealed"]) == ([], 0)


def prove_way_back(restored: Restored, newer: dict[str, t.Any]) -> None:
    """A trail of a newer release is refused before anything changes, and goes back when that is asked for.

    :param newer: what the code of the newer release differs in.
    """
    sealer = restored.sealer
    restored.roll_out()
    assert restored.trail(_constants=newer).changed
    restored.place.execute("ALTER TABLE audit.audit_log_data ADD COLUMN origin text")
    restored.write(5)
    rows, catalogue = restored.rows(), restored.catalogue()
    words = f"was made by a newer dbfleet.audit (schema version 99, this release knows {SCHEMA_VERSION})"
    for check_mode in (True, False):
        refused = restored.trail(may_fail=True, check_mode=check_mode)
        assert words in refused.msg
        assert "allow_downgrade" in refused.msg
        assert refused["schema_version"] == 99
    policies = [{**policy, "tags": ["new"]} for policy in restored.options["policies"]]
    assert words in restored.run("triggers", policies=policies, may_fail=True).msg
    assert restored.catalogue() == catalogue
    # What can go on does.
    sealer.seal()
    assert sealer.seal_problems() == []
    found = sealer.verify()["problems"]
    assert [words in problem["detail"] for problem in found if problem["type"] == "refused"] == [True]
    assert restored.roll_out(allow_downgrade=True)[0]
    restored.write(6)
    assert restored.roll_out() == [False] * 3
    assert restored.rows()[: len(rows)] == rows
    assert restored.place.value("SELECT COUNT(*) FROM audit.audit_log_data WHERE origin IS NULL") > len(rows)
    assert sealer.verify()["problems"] == []
    sealer.seal()
    assert sealer.verify()["problems"] == []
