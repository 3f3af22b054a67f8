# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A log that was sealed once, more rows for it, and all that a sealing run could change."""

from __future__ import annotations

import itertools
import pathlib
import typing as t

from auditing import rollout, wanted
from databases import Database
from sealing import Sealer

from ansible_collections.dbfleet.audit.plugins.plugin_utils import _ledger

DOUBLED_OR_MISSING = """
SELECT coalesce(d.id, s.id), count(s.number)
FROM audit.audit_log_data AS d
FULL JOIN (SELECT s.number, i AS id
           FROM audit.seal AS s, unnest(s.ids) AS u (r), generate_series(lower(u.r), upper(u.r) - 1) AS i) AS s
  ON s.id = d.id
GROUP BY 1
HAVING count(s.number) <> 1 OR count(d.id) <> 1
"""

UNSIGNED = "SELECT count(*) FROM audit.seal WHERE signature IS NULL"

_serial = itertools.count(1)


def first_sealed(log: Database, directory: pathlib.Path) -> Sealer:
    """Return a sealer of a database with one audited table, `item (id)`, that has sealed once."""
    log.execute("CREATE TABLE item (id int PRIMARY KEY)")
    rollout(log, policies=[wanted("public.item")])
    sealer = Sealer(log.login, directory, policies=[wanted("public.item")])
    sealer.seal()
    add(log)
    return sealer


def add(log: Database, rows: int = 3) -> None:
    """Make audited changes."""
    for _time in range(rows):
        log.execute("INSERT INTO item VALUES (%s)", next(_serial))


def digest_of_all(log: Database, sealer: Sealer) -> list[t.Any]:
    """Return all that a sealing run could change."""
    tables = ("seal", "seal_state", "seal_inventory", "audit_log_data")
    ledger = sealer.ledger.read_bytes() if sealer.ledger.exists() else None
    return [
        ledger,
        *(
            log.value(f"SELECT md5(string_agg(x::text, ' ' ORDER BY x::text)) FROM audit.{name} AS x")
            for name in tables
        ),
    ]


def assert_completed(log: Database, sealer: Sealer) -> None:
    """Have the next run complete what there is; everything is sealed once then."""
    sealer.cut = None
    sealer.seal()
    assert log.execute(DOUBLED_OR_MISSING) == []
    assert log.value(UNSIGNED) == 0
    verified = sealer.verify()
    assert (verified["problems"], verified["seal_state"], verified["unsealed"]) == ([], "", 0)
    numbers = [entry.seal.number for entry in _ledger.Ledger(str(sealer.ledger)).entries()[0]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert not sealer.seal()["changed"]
