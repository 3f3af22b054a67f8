# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/context.md and its examples: one text, and none that its language would refuse."""

from __future__ import annotations

import pathlib
import re

import pytest
from client_examples import EXAMPLES, PAGE, needs_clients, node
from documentation import blocks_of

FILES = sorted(path for path in EXAMPLES.iterdir() if path.is_file())
#: Too long to be shown; the page links it.
LINKED = {"JdbcContext.java"}
#: What no test executes.
CHECKED_ONLY = {"Prisma": "prisma.mjs", "JDBC": "JdbcContext.java"}


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def blocks() -> list[str]:
    """Return what stands between the page's fences."""
    return [block.text for block in blocks_of("docs/context.md", "python") + blocks_of("docs/context.md", "js")]


def test_every_block_of_the_page_is_a_file_and_every_file_is_on_the_page():
    shown = {path.name: path.read_text(encoding="utf-8") for path in FILES if path.name not in LINKED}
    assert sorted(blocks()) == sorted(shown.values())
    for path in FILES:
        assert f"(examples/context/{path.name})" in page(), path.name


def test_the_page_says_which_examples_are_only_checked():
    rows = dict(re.findall(r"^\| \[([\w ]+)\]\(#.*\| ([^|]+) \|$", page(), re.MULTILINE))
    assert len(rows) == len(FILES)
    assert {name for name, word in rows.items() if word == "syntax-checked only"} == set(CHECKED_ONLY)
    assert all(word.startswith("executed: ") for name, word in rows.items() if name not in CHECKED_ONLY)


@pytest.mark.parametrize("name", [path.name for path in FILES if path.suffix == ".mjs"])
def test_node_takes_the_syntax(name: str):
    assert node("--check", EXAMPLES / name) == ""


def test_java_s_grammar_takes_the_syntax():
    source = (EXAMPLES / "JdbcContext.java").read_bytes()
    assert java_errors(source) == []
    # What a parser that accepts everything would not see.
    assert java_errors(source.replace(b";", b"", 20)) != []


def java_errors(source: bytes) -> list[str]:
    """Return where Java source breaks the language's grammar."""
    needs_clients()
    import tree_sitter
    import tree_sitter_java

    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_java.language()))
    nodes, found = [parser.parse(source).root_node], []
    while nodes:
        piece = nodes.pop()
        if piece.is_error or piece.is_missing:
            found.append(f"line {piece.start_point[0] + 1}")
        nodes.extend(piece.children)
    return found


def test_the_examples_are_small_enough_to_be_read():
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) < 80, path.name


def test_no_example_puts_a_value_into_the_text_of_a_statement():
    """Bound as parameters: the only placeholders are the drivers' own."""
    for path in map(pathlib.Path, FILES):
        for call in re.findall(r"set_config\((.*?), true\)|@audit_context = (\S+),", path.read_text(encoding="utf-8")):
            value = (call[0].rpartition(", ")[2] or call[1]).strip()
            assert value in {"%s", ":context", "$1", "?", "${json}"}, (path.name, value)
