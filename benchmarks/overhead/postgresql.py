# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The benchmark's part for PostgreSQL: what is measured in which size of run, and its tables and targets."""

from __future__ import annotations

import contextlib
import shutil
import typing as t

import postgresql_contenders as who
import rounds
from local_postgresql import LocalPostgresql
from postgresql_growth import growth
from postgresql_work import BULK, EXTENTS, SINGLE, WIDE, Extent, checkpoint, make_server, make_shape
from running import CACHE

HOME = CACHE / "benchmark-overhead"

ORDINARY = "ordinary"
SHAPES = {"quick": [ORDINARY], "short": [ORDINARY], "full": ["narrow", ORDINARY, "wide"]}
COLUMNS = {"narrow": 4, ORDINARY: 10, "wide": 100}
#: Of single rows, and of bulk work.
ROUNDS = {"quick": (3, 1), "short": (4, 2), "full": (9, 5)}

INSERT, UPDATE, DELETE = (work.name for work in SINGLE[:3])
BULK_INSERT, BULK_UPDATE, BULK_DELETE, COPY = (work.name for work in BULK)

Say = t.Callable[[str], None]


def tables(options: rounds.Options, say: Say) -> rounds.Part:
    """Measure on two servers of our own: one for everybody, one with pgaudit's library."""
    shutil.rmtree(HOME, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        server = make_server(HOME / "server")
        stack.callback(server.remove)
        beside = make_server(HOME / "with_pgaudit", shared_preload_libraries="pgaudit", log_min_messages="warning")
        stack.callback(beside.remove)
        texts = [f"PostgreSQL {server.version}; {who.versions(server)}"]
        results: rounds.Results = {}
        targets: list[rounds.Target] = []
        for shape in SHAPES[options.size]:
            found, missing = measure_shape(server, beside, shape, options, say)
            texts.append(in_words(shape, options.size, found, missing))
            if shape == ORDINARY:
                targets = targets_of(found)
            results.update({f"{shape}: {work}": turns for work, turns in found.items()})
        if options.size == "full":
            text, found = growth(server, ORDINARY, say)
            texts.append(text)
            results.update(found)
    return rounds.Part("\n\n".join(texts), targets, results)


def measure_shape(
    server: LocalPostgresql, beside: LocalPostgresql, shape: str, options: rounds.Options, say: Say
) -> tuple[rounds.Results, dict[str, str]]:
    """Return what everybody needed for tables of a shape, and why some took no part."""
    say(f"PostgreSQL, {shape} table")
    extent = extent_of(shape, options.size)
    for one in (server, beside):
        make_shape(one, shape, extent)
    everybody = who.contenders(server, beside, shape, extent)
    if options.size != "full" and not options.only:
        everybody = [one for one in everybody if one.name not in who.VARIANTS]
    wanted = options.chosen(everybody, who.BARE)
    there, missing = rounds.prepare(wanted, say)

    def between() -> None:
        for contender in there:
            contender.tidy()
        checkpoint((server, beside))

    found: rounds.Results = {}
    try:
        singles, bulks = ROUNDS[options.size]
        found.update(rounds.by_turns(there, [work.name for work in SINGLE], singles, say, between))
        found.update(rounds.by_turns(there, [work.name for work in BULK], bulks, say, between, warm_up=False))
    finally:
        for contender in there:
            contender.database.drop()
    return found, missing


def extent_of(shape: str, size: str) -> Extent:
    """Return how much work is one piece."""
    return WIDE if shape == "wide" else EXTENTS[size]


def in_words(shape: str, size: str, found: rounds.Results, missing: t.Mapping[str, str]) -> str:
    """Return the tables of a shape."""
    blocks = []
    for works, costly, many in (
        (SINGLE, (INSERT, UPDATE, DELETE), "single rows"),
        (BULK, (BULK_INSERT, BULK_UPDATE, BULK_DELETE), f"{extent_of(shape, size).bulk:,} rows at once"),
    ):
        title = f"{shape} table ({COLUMNS[shape]} columns), {many}"
        blocks.append(f"### Rate: {title}\n\nShare of the bare table's in the same round.")
        blocks.append(rounds.rate_table({work.name: found[work.name] for work in works}, who.BARE, missing))
        blocks.append(f"### Bytes and processor time per change: {title}")
        blocks.append(rounds.cost_table({work: found[work] for work in costly}, "WAL"))
    return "\n\n".join(blocks)


def targets_of(found: rounds.Results) -> list[rounds.Target]:
    """Return how far the collection is, on the ordinary table."""
    targets = []
    for work in (UPDATE, INSERT):
        turns = found[work]
        peer = rounds.fastest(turns, who.PEERS)
        targets += [
            rounds.compared(f"{work}: of the best peer's rate ({peer})", turns, who.ROW, peer or "", 1.1),
            rounds.compared(f"{work}: of the floor's rate", turns, who.ROW, who.FLOOR, 0.9),
            rounds.compared(f"{work}: of the bare table's rate", turns, who.ROW, who.BARE, None, 0.85),
        ]
    for work, needed, aim in ((BULK_INSERT, 2, 3), (BULK_UPDATE, 1.3, 1.5)):
        what = f"{work}, statement capture: of the guides' rate"
        targets.append(rounds.compared(what, found[work], who.STATEMENT, who.GUIDES, needed, aim))
    mine, theirs = (rounds.per_change(found[UPDATE].get(name, []), "log_bytes") for name in (who.CHANGED, who.GUIDES))
    bytes_share = mine / theirs if mine and theirs else None
    remark = f"{mine:.0f} of {theirs:.0f} bytes" if mine and theirs else ""
    what = "UPDATE, update_image: changed: log bytes of the guides'"
    return [*targets, rounds.Target(what, bytes_share, 0.75, at_least=False, remark=remark)]
