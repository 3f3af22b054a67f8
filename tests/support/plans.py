# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How PostgreSQL reads the log for a query: which partitions, by which index of the option ``indexes``."""

from __future__ import annotations

import collections
import json
import typing as t

from databases import fetch

#: A partition's index under the name of the log's index that it belongs to.
_INDEXES = """
SELECT leaf.relname, substring(parent.relname FROM '^audit_log_(.*)_idx$')
FROM pg_inherits AS i JOIN pg_class AS leaf ON leaf.oid = i.inhrelid JOIN pg_class AS parent ON parent.oid = i.inhparent
WHERE parent.relkind = 'I' AND parent.relnamespace = 'audit'::regnamespace
"""

_FILLED = """
SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'audit.audit_log_data'::regclass AND pg_relation_size(c.oid) > 0
"""


class Plan(t.NamedTuple):
    """What a query does with the log's partitions that hold rows."""

    #: How many partitions are read in which way: {"Index Scan record": 12}, {"Seq Scan": 1}.
    scans: dict[str, int]
    partitions: int
    #: None unless it was executed.
    milliseconds: float | None
    rows: int | None

    def __str__(self) -> str:
        """The scans in words."""
        words = [f"{scan}, {count} of {self.partitions}" for scan, count in self.scans.items()]
        return "; ".join(words) or f"none of {self.partitions}"


def plan_of(session: t.Any, query: str, execute: bool = False) -> Plan:
    """Return how the session's user would read the log, or with ``execute`` has read it."""
    options = "ANALYZE, TIMING OFF, FORMAT JSON" if execute else "FORMAT JSON"
    answer = fetch(session, f"EXPLAIN ({options}) {query}")[0][0]
    report = (json.loads(answer) if isinstance(answer, str) else answer)[0]
    indexes = dict(fetch(session, _INDEXES))
    filled = {name for (name,) in fetch(session, _FILLED)}
    scans: collections.Counter[str] = collections.Counter()
    for node in _nodes(report["Plan"]):
        if node.get("Relation Name") in filled:
            scans[_words(node, indexes)] += 1
    return Plan(dict(scans.most_common()), len(filled), report.get("Execution Time"), report["Plan"].get("Actual Rows"))


def _words(node: dict[str, t.Any], indexes: dict[str, str]) -> str:
    used = {indexes[below["Index Name"]] for below in _nodes(node) if below.get("Index Name") in indexes}
    kind = node["Node Type"]
    if node.get("Parallel Aware"):
        kind = f"Parallel {kind}"
    return " ".join([kind, *sorted(used)])


def _nodes(node: dict[str, t.Any]) -> t.Iterator[dict[str, t.Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)
