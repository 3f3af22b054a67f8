# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a change costs more when the log is long: ours with an empty log and with millions of records, by turns."""

from __future__ import annotations

import typing as t

import rounds
from auditing import rollout, wanted
from databases import Database
from filled_log import trail_of_months
from local_postgresql import LocalPostgresql
from postgresql_contenders import Ours
from postgresql_work import EXTENTS, Work, checkpoint, make_tables, single
from running import run_module

RECORDS = 10_000_000
ROUNDS = 15

EMPTY = "empty log"


class OursWithRecords(Ours):
    """The collection with a log that holds a month of records already, and keeps those of the benchmark as well."""

    def __init__(self, *args: t.Any, records: int, **kwargs: t.Any) -> None:
        """Take how many records there are."""
        super().__init__(*args, policy={}, **kwargs)
        self.length = records

    def make_database(self) -> Database:
        """Return one whose log is full."""
        database = trail_of_months(self.server, self.length, 1)
        make_tables(database, self.shape, self.extent)
        return database

    def install(self) -> None:
        """Make the default trail of it, with the indexes that it was filled without, and audit the tables."""
        run_module("postgresql_audit_trail", **self.database.login)
        rollout(self.database, policies=[wanted("public.item", "public.batch")])

    def records(self, piece: Work) -> bool:
        """Tell nothing: what was filled at once has left free pages, so that the log need not grow."""
        return not piece

    def empty_log(self) -> None:
        """Keep everything."""


def growth(
    server: LocalPostgresql, shape: str, say: t.Callable[[str], None], records: int = RECORDS, count: int = ROUNDS
) -> tuple[str, rounds.Results]:
    """Return the table of updates with an empty log and with a long one, and what it is from."""
    place = {"server": server, "shape": shape, "extent": EXTENTS["short"]}
    long = OursWithRecords(f"{records:,} records", records=records, **place)
    contenders = [Ours(EMPTY, policy={}, **place), long]
    rounds.prepare(contenders, say)

    def between() -> None:
        for contender in contenders:
            contender.tidy()
        checkpoint([server])

    works = [work.name for clients in (1, 8) for work in single(clients)]
    try:
        found = rounds.by_turns(contenders, works, count, say, between)
    finally:
        for contender in contenders:
            contender.database.drop()
    rows = []
    for work, turns in found.items():
        rate = rounds.rate(turns[EMPTY]).median
        rows.append([work, f"{rate:,.0f}/s", rounds.shares(turns, EMPTY)[long.name].text(), *_processor(turns)])
    header = ["", f"rate, {EMPTY}", f"share of it with {long.name}", f"µs, {EMPTY}", f"µs, {long.name}"]
    text = f"### A long log: row capture, {shape} table, all records in the current month's partition\n\n"
    return text + rounds.markdown(header, rows), {f"long log: {work}": turns for work, turns in found.items()}


def _processor(turns: rounds.Turns) -> list[str]:
    values = [rounds.per_change(samples, "processor_seconds") for samples in turns.values()]
    return ["" if value is None else f"{value * 1e6:,.0f}" for value in values]
