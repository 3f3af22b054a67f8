# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pages of the documentation, their headings, links and examples. Standard library only.

Every fenced block of SQL, YAML, Python or JavaScript is executed by a test, or a comment above it says why not:

    <!-- not run: needs a bucket of Amazon's -->

Tests of one page take its blocks by :func:`blocks_of`, which is how :func:`taken` knows of them; all others are
executed by tests/integration/test_documentation.py.
"""

from __future__ import annotations

import functools
import pathlib
import re
import textwrap
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+)(?P<language>\w*)\n(?P<body>.*?)^ *(?P=fence) *$", re.M | re.S)
_EXCUSE = re.compile(r"<!-- not run: (?P<reason>[^>]+?) -->\s*\Z")
_HEADING = re.compile(r"^(?P<depth>#+) +(?P<title>.+?) *#* *$", re.MULTILINE)
_ENGINES = {"(PostgreSQL)": "postgresql", "(MariaDB, MySQL)": "mysql"}
#: Of a link: its text without brackets of its own, and its target without a title.
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^()\s]+(?:\([^()\s]*\))?)\)")
_CODE_SPAN = re.compile(r"(?P<ticks>`+)(?P<code>.+?)(?P=ticks)", re.DOTALL)
_TAKER = re.compile(r"\bblocks_of\(\s*\"(?P<page>[^\"]+)\",\s*\"(?P<language>\w+)\"\)")


class Block(t.NamedTuple):
    """One fenced block of a page."""

    page: str
    #: Of the fence, counted from 1.
    line: int
    language: str
    text: str
    #: The titles that it is below, the innermost first.
    headings: tuple[str, ...]
    #: Why no test executes it; empty for one that is executed.
    excuse: str

    @property
    def place(self) -> str:
        """Where it is: ``docs/cdc.md:15``."""
        return f"{self.page}:{self.line}"

    @property
    def host(self) -> str:
        """Its place as the name of an inventory's host: ``docs_cdc_15``."""
        return re.sub(r"\W+", "_", self.page.removesuffix(".md")) + f"_{self.line}"

    @property
    def engine(self) -> str:
        """The engine that it is for, by its title comment or else by a heading: ``postgresql`` or ``mysql``."""
        for ending, engine in _ENGINES.items():
            if self.text.partition("\n")[0].endswith(ending):
                return engine
        for heading in self.headings:
            if "PostgreSQL" in heading:
                return "postgresql"
            if "MariaDB" in heading or "MySQL" in heading:
                return "mysql"
        return "postgresql"


@functools.cache
def pages() -> dict[str, str]:
    """Return the text of every page, by its path in the checkout."""
    patterns = ("README.md", "docs/**/*.md", "roles/*/README.md", "examples/**/*.md")
    found = sorted(path for pattern in patterns for path in ROOT.glob(pattern))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in found}


def prose(page: str) -> str:
    """Return a page without its fenced blocks, whose lines are left empty."""
    return _FENCE.sub(lambda block: "\n" * block[0].count("\n"), pages()[page])


@functools.cache
def blocks() -> tuple[Block, ...]:
    """Return the blocks of all pages that say in which language they are."""
    return tuple(block for page, text in pages().items() for block in _blocks(page, text) if block.language)


def blocks_of(page: str, language: str) -> list[Block]:
    """Return a page's blocks in one language, for the tests of that page, which have to execute all of them.

    The two arguments are written out where it is called, for :func:`taken` reads them there.
    """
    return [block for block in blocks() if (block.page, block.language) == (page, language)]


def taken() -> set[tuple[str, str]]:
    """Return the (page, language) whose blocks a test of their own executes."""
    files = (ROOT / "tests").rglob("*.py")
    return {(call["page"], call["language"]) for file in files for call in _TAKER.finditer(file.read_text("utf-8"))}


def left(language: str) -> list[Block]:
    """Return the blocks in a language that are to be executed and that no test of their own takes."""
    elsewhere = taken()
    return [
        block
        for block in blocks()
        if block.language == language and not block.excuse and (block.page, language) not in elsewhere
    ]


def _blocks(page: str, text: str) -> t.Iterator[Block]:
    for fence in _FENCE.finditer(text):
        before = text[: fence.start()]
        excuse = _EXCUSE.search(before)
        yield Block(
            page,
            before.count("\n") + 1,
            fence["language"],
            textwrap.dedent(fence["body"]),
            _headings_above(_FENCE.sub("", before)),
            excuse["reason"] if excuse else "",
        )


def _headings_above(text: str) -> tuple[str, ...]:
    above: list[str] = []
    depth = 7
    for heading in reversed(list(_HEADING.finditer(text))):
        if len(heading["depth"]) < depth:
            depth = len(heading["depth"])
            above.append(heading["title"])
    return tuple(above)


def links(page: str) -> list[tuple[int, str]]:
    """Return (line, target) of every link and image of a page."""
    # What looks like a link within code is none; its length is kept for the sake of the lines.
    text = _CODE_SPAN.sub(lambda span: re.sub(r"[^\n]", " ", span[0]), prose(page))
    return [(text.count("\n", 0, link.start()) + 1, link["target"]) for link in _LINK.finditer(text)]


def code_spans(page: str) -> list[tuple[int, str]]:
    """Return (line, code) of every span of code in a page's prose, a line's end in it as a blank."""
    text = prose(page)
    return [
        (text.count("\n", 0, span.start()) + 1, span["code"].replace("\n", " ")) for span in _CODE_SPAN.finditer(text)
    ]


def anchors(page: str) -> set[str]:
    """Return what ``#...`` may lead to in a page: its headings, as GitHub makes anchors of them."""
    found: set[str] = set()
    for heading in _HEADING.finditer(prose(page)):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading["title"]).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
        number = 0
        while (f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(f"{slug}-{number}" if number else slug)
    return found
