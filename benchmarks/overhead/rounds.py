# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measuring by turns: contenders that do the same work in every round, and tables of what it cost them.

Knows no database system. A machine's speed changes from one minute to the next; what counts are ratios within a round.
"""

from __future__ import annotations

import math
import statistics
import typing as t

Item = t.TypeVar("Item")


class Sample(t.NamedTuple):
    """What one burst of work took."""

    #: By the clock, without the time to connect.
    seconds: float
    #: Rows inserted, updated or deleted in that time.
    changes: int
    #: Written ahead (PostgreSQL) or into the binary log, for the whole burst.
    wal_bytes: float | None = None
    #: By which the contender's log grew, for the whole burst; None for one that has no log.
    log_bytes: float | None = None
    #: Of the server's processes that worked for the sessions, on a processor, for the whole burst.
    processor_seconds: float | None = None

    @property
    def rate(self) -> float:
        """Changes a second."""
        return self.changes / self.seconds


class UnavailableError(Exception):
    """A contender cannot take part; the text says why, and stands in its row."""


class Options(t.NamedTuple):
    """What the command line asked for."""

    #: ``quick``, ``short`` or ``full``.
    size: str = "short"
    #: Of contenders; empty: all.
    only: tuple[str, ...] = ()

    def chosen(self, contenders: t.Iterable[Item], base: str) -> list[Item]:
        """Return the contenders that are wanted; the one that the others are compared with always is."""
        names = {base, *self.only}
        return [one for one in contenders if not self.only or one.name in names]


class Part(t.NamedTuple):
    """What one database system's part of the benchmark found: ``tables(options, say)`` of its module returns it."""

    #: Markdown, with headings of the third level.
    text: str
    targets: list[Target]
    results: Results


class Contender(t.Protocol):
    """Somebody who does the work, with an audit or without."""

    #: As the tables show it.
    name: str

    def prepare(self) -> None:
        """Make everything ready, once; raises :class:`UnavailableError` when something is missing on this machine."""

    def measure(self, work: str) -> Sample:
        """Do a piece of work once and empty the log.

        A round's pieces come in their order, so that one may delete what another one has inserted; after the last one
        everything is as it was before the first.
        """


#: What each contender needed in each round: those of a round stand at the same index.
Turns = dict[str, list[Sample]]
#: The turns of each piece of work.
Results = dict[str, Turns]


class Spread(t.NamedTuple):
    """The lowest, the middle and the highest of some values."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: t.Sequence[float]) -> Spread:
        """Return the spread of at least one value."""
        return cls(min(values), statistics.median(values), max(values))

    def text(self, form: str = "{:.2f}") -> str:
        """Return ``0.83 (0.79 to 0.86)``."""
        low, middle, high = (form.format(value) for value in self)
        return f"{middle} ({low} to {high})"


def prepare(contenders: t.Sequence[Contender], say: t.Callable[[str], None]) -> tuple[list[Contender], dict[str, str]]:
    """Prepare everybody; return those who take part, and why the others do not, by name."""
    ready, missing = [], {}
    for contender in contenders:
        say(f"preparing {contender.name}")
        try:
            contender.prepare()
        except UnavailableError as reason:
            missing[contender.name] = str(reason)
        else:
            ready.append(contender)
    return ready, missing


def by_turns(
    contenders: t.Sequence[Contender],
    works: t.Sequence[str],
    rounds: int,
    say: t.Callable[[str], None],
    between: t.Callable[[], None] = lambda: None,
    warm_up: bool = True,
) -> Results:
    """Have everybody do every piece of work once a round, one after the other, in an order that moves on.

    :param between: is called before every round, outside of what is measured, for a checkpoint, say.
    :param warm_up: does one round before those that count, so that everybody's files and pages are there.
    """
    results: Results = {work: {contender.name: [] for contender in contenders} for work in works}
    for number in range(0 if warm_up else 1, rounds + 1):
        between()
        say(f"round {number} of {rounds}" if number else "warming up")
        for work in works:
            for contender in order(contenders, number, rounds):
                sample = contender.measure(work)
                if number:
                    results[work][contender.name].append(sample)
    return results


def order(contenders: t.Sequence[Item], number: int, rounds: int) -> list[Item]:
    """Return who comes when in a round: everybody starts somewhere else each time, as far apart as the rounds allow."""
    start = number * math.ceil(len(contenders) / max(rounds, 1)) % max(len(contenders), 1)
    turned = [*contenders[start:], *contenders[:start]]
    # Neighbours change places, too: nobody always runs after the same one.
    return turned[::-1] if number % 2 else turned


def ratio(turns: Turns, mine: str, other: str) -> Spread | None:
    """Return how much faster one is than the other, in each round; None when one of them did not take part."""
    if not turns.get(mine) or not turns.get(other):
        return None
    return Spread.of([one.rate / two.rate for one, two in zip(turns[mine], turns[other])])


def shares(turns: Turns, base: str) -> dict[str, Spread]:
    """Return everybody's rate as a share of that of ``base`` in the same round."""
    found = {name: ratio(turns, name, base) for name in turns}
    return {name: share for name, share in found.items() if share}


def fastest(turns: Turns, names: t.Iterable[str]) -> str | None:
    """Return who of these has the highest rate, by the median of the rounds."""
    there = [name for name in names if turns.get(name)]
    return max(there, key=lambda name: rate(turns[name]).median, default=None)


def rate(samples: t.Sequence[Sample]) -> Spread:
    """Return changes a second."""
    return Spread.of([sample.rate for sample in samples])


def per_change(samples: t.Sequence[Sample], field: str) -> float | None:
    """Return the median of what one change took of a field of Sample: bytes, or seconds."""
    values = [(getattr(sample, field), sample.changes) for sample in samples]
    known = [value / changes for value, changes in values if value is not None]
    return statistics.median(known) if known else None


class Target(t.NamedTuple):
    """A number that is to be reached."""

    what: str
    #: None: not measured in this run.
    measured: float | None
    #: None: there is only an aim.
    needed: float | None
    aim: float | None = None
    #: False: the measured value must not be above ``needed``.
    at_least: bool = True
    #: Lowest and highest of the rounds, or whatever else is to be known.
    remark: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None when it was not measured."""
        return None if self.measured is None or self.needed is None else self._reaches(self.needed)

    def verdict(self) -> str:
        """Return yes or no, and whether the aim is reached as well."""
        if self.measured is None:
            return "not measured"
        aimed = self.aim is not None and self._reaches(self.aim)
        if self.needed is None:
            return "the aim is" if aimed else "the aim is not"
        return ("yes, and the aim" if aimed else "yes") if self.met else "**no**"

    def wanted(self) -> str:
        """Return ``at least 1.30 (aim 1.50)``."""
        sign = "at least" if self.at_least else "at most"
        needed = [] if self.needed is None else [f"{sign} {self.needed:.2f}"]
        aim = [] if self.aim is None else [f"(aim {self.aim:.2f})"]
        return " ".join([*needed, *aim])

    def _reaches(self, value: float) -> bool:
        return self.measured is not None and (self.measured >= value if self.at_least else self.measured <= value)


def target_table(targets: t.Sequence[Target]) -> str:
    """Return the table of targets."""
    rows = []
    for target in targets:
        measured = "" if target.measured is None else f"{target.measured:.2f}"
        rows.append([target.what, measured, target.remark, target.wanted(), target.verdict()])
    return markdown(["target", "measured", "rounds", "needed", "met"], rows, left=(0, 2, 3, 4))


def markdown(header: t.Sequence[str], rows: t.Sequence[t.Sequence[str]], left: t.Container[int] = (0,)) -> str:
    """Return a Markdown table; ``left`` are the numbers of the columns that are not numbers."""
    rule = "|" + "|".join("---" if number in left else "---:" for number in range(len(header))) + "|"
    return "\n".join([_line(header), rule, *(_line(row) for row in rows)])


def _line(fields: t.Sequence[str]) -> str:
    return "| " + " | ".join(fields) + " |"


def compared(what: str, turns: Turns, mine: str, other: str, needed: float | None, aim: float | None = None) -> Target:
    """Return a target for how much faster one is than another, round by round."""
    found = ratio(turns, mine, other)
    if not found:
        return Target(what, None, needed, aim)
    return Target(what, found.median, needed, aim, remark=f"{found.low:.2f} to {found.high:.2f}")


def rate_table(found: Results, base: str, missing: t.Mapping[str, str]) -> str:
    """Return everybody's share of the base's rate, for each piece of work, and the base's rate.

    :param missing: why somebody took no part, by name.
    """
    rates = [f"{rate(turns[base]).median:,.0f}/s" for turns in found.values()]
    everybody = [shares(turns, base) for turns in found.values()]
    names = [name for name in next(iter(found.values())) if name != base]
    rows = [[base, *rates], *([name, *(share[name].text() for share in everybody)] for name in names)]
    rows += [[f"{name}: {reason}", *([""] * len(found))] for name, reason in missing.items()]
    return markdown(["", *found], rows)


def cost_table(found: Results, written: str) -> str:
    """Return what a change costs beside time; ``written`` is what the system calls the bytes written ahead."""
    kinds = (("log", "log_bytes", 1.0), (written, "wal_bytes", 1.0), ("µs", "processor_seconds", 1e6))
    operations = [work.split(",")[0].removeprefix("bulk ") for work in found]
    header = ["", *(f"{title}, {operation}" for title, _field, _unit in kinds for operation in operations)]
    rows = []
    for name in next(iter(found.values())):
        values = [(per_change(turns[name], field), unit) for _title, field, unit in kinds for turns in found.values()]
        rows.append([name, *("" if value is None else f"{value * unit:,.0f}" for value, unit in values)])
    return markdown(header, rows)


def raw(results: Results) -> dict[str, dict[str, list[dict[str, float | None]]]]:
    """Return every sample of every round as JSON takes it."""
    return {
        work: {name: [sample._asdict() for sample in samples] for name, samples in turns.items()}
        for work, turns in results.items()
    }
