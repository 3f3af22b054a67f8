# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sphinx's configuration for the documentation as a site; docs/build runs it.

The site's source is the checkout's own Markdown, in the same folders, so that links between pages are the same on
GitHub; links to anything else of the checkout lead to the repository.
"""

from __future__ import annotations

import pathlib
import posixpath
import re
import typing as t

import yaml
from pygments.lexers import PostgresLexer

ROOT = pathlib.Path(__file__).resolve().parents[2]
GALAXY = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))
OURS = "ansible_collections.dbfleet.audit."

project = "dbfleet.audit"
version = release = GALAXY["version"]
copyright = "dbfleet.audit contributors"  # noqa: A001 - Sphinx's name for it

extensions = ["myst_parser", "sphinx_antsibull_ext"]
# A heading's anchor is the one that it has on GitHub.
myst_heading_anchors = 6
pygments_style = "ansible"
html_theme = "furo"
html_title = f"dbfleet.audit {version}"
html_show_sphinx = False
html_copy_source = False
html_use_index = False

_LINK = re.compile(r"\]\((?P<target>[^()\s#]+)(?P<anchor>#[^()\s]*)?\)")


def setup(app: t.Any) -> None:
    """Have Sphinx call what is below."""
    # It also knows $1, and what MariaDB has in common with it.
    app.add_lexer("sql", PostgresLexer)
    app.connect("config-inited", write_playbooks)
    app.connect("source-read", link_to_repository)
    app.connect("missing-reference", leave_foreign)


def write_playbooks(app: t.Any, _config: t.Any) -> None:
    """Write a page of the playbooks: the comments that they begin with."""
    parts = ["# Playbooks\n", "What each does is in [README.md](README.md#roles-playbooks-modules).\n"]
    for path in sorted(ROOT.glob("playbooks/*.yml")):
        comment = re.match(r"---\n((?:#.*\n)+)", path.read_text(encoding="utf-8"))
        if comment:
            text = re.sub(r"^# ?", "", comment[1], flags=re.MULTILINE)
            parts.append(f"## dbfleet.audit.{path.stem}\n\n```text\n{text}```\n")
    pathlib.Path(app.srcdir, "playbooks.md").write_text("\n".join(parts), encoding="utf-8")


def link_to_repository(app: t.Any, page: str, content: list[str]) -> None:
    """Have links to what is no page of the site lead to the repository."""

    def target(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link["target"]))
        shown = path.removesuffix(".md") in app.env.found_docs or path.endswith((".png", ".svg"))
        if "://" in link["target"] or shown or not (ROOT / path).exists():
            return link[0]
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"]({GALAXY['repository']}/{kind}/main/{path}{link['anchor'] or ''})"

    content[0] = _LINK.sub(target, content[0])


def leave_foreign(_app: t.Any, _env: t.Any, node: t.Any, content: t.Any) -> t.Any:
    """Leave a reference to Ansible's own documentation as text, for no build needs a network; ours have to be right."""
    return None if node["reftarget"].startswith(OURS) or node["refdomain"] == "" else content
