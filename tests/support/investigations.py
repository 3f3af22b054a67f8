# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The SQL of docs/investigations.md, for the tests and the benchmark, which run it as it stands there."""

from __future__ import annotations

import re
import typing as t

from documentation import blocks_of

#: What a query's comment ends with when it is for one engine; without, it is for all.
_ENGINES = {"PostgreSQL": ("postgresql",), "MariaDB, MySQL": ("mysql",)}
#: What the titles of the blocks begin with that no reader may run.
ERASURE = "Erasure"

_TITLE = re.compile(r"-- (?P<title>.+?)(?: \((?P<engine>PostgreSQL|MariaDB, MySQL)\))?\n(?P<query>.*)", re.DOTALL)


class Investigation(t.NamedTuple):
    """One block of the page: the comment that it begins with, the engines that it is for, and the query."""

    title: str
    engines: tuple[str, ...]
    query: str


def investigations(engine: str, kind: str | None = None) -> dict[str, str]:
    """Return the page's queries for an engine, ``postgresql`` or ``mysql``, by their titles.

    With ``kind=ERASURE`` it is what changes the log instead.

    :raises ValueError: when a block has no title, or two have the same.
    """
    found: dict[str, str] = {}
    for entry in _blocks():
        if engine in entry.engines and entry.title.startswith(ERASURE) == bool(kind):
            if entry.title in found:
                raise ValueError(f"docs/investigations.md: two queries are called {entry.title!r}")
            found[entry.title] = entry.query
    return found


def _blocks() -> t.Iterator[Investigation]:
    for block in blocks_of("docs/investigations.md", "sql"):
        match = _TITLE.fullmatch(block.text)
        if not match:
            raise ValueError(f"{block.place}: the query begins with no comment")
        engines = _ENGINES.get(match["engine"], ("postgresql", "mysql"))
        yield Investigation(match["title"], engines, match["query"].strip())
