# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report's page as text: what is embedded in it comes back as it was, and nothing of it is markup."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html.parser
import json
import pathlib
import re
import subprocess
import sys
import typing as t

import running
from report_model import report_model

from ansible_collections.dbfleet.audit.plugins.plugin_utils import _report_html

EVIL = "</script><script>alert(1)</script><!--\"'><img src=x onerror=alert(1)>&amp;\u2028\u2029"


class Elements(html.parser.HTMLParser):
    """What a browser would find: elements with their attributes, and the text of each."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=False)
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        # What comes after an element's end is not its text.
        self.found.append(("", {}, []))

    def handle_data(self, data: str) -> None:
        if self.found:
            self.found[-1][2].append(data)

    def named(self, tag: str, **wanted: str) -> list[str]:
        """Return the text of each element of a name that has these attributes."""
        return ["".join(text) for name, given, text in self.found if name == tag and wanted.items() <= given.items()]


def page(model: dict[str, t.Any]) -> Elements:
    return Elements(_report_html.html(model))


def details(found: Elements) -> list[dict[str, t.Any]]:
    (packed,) = found.named("script", id="details")
    return [json.loads(line) for line in gzip.decompress(base64.b64decode(packed)).decode().split("\n")]


def test_a_model_comes_back_whole_and_no_value_becomes_markup():
    model = report_model(3)
    for entry in (model, model["hosts"][0], model["hosts"][0]["databases"][0], model["activity"]["users"][0]):
        entry["title" if entry is model else "name"] = EVIL
    model["hosts"][0]["databases"][0]["tables"][0]["table"] = EVIL
    found = page(model)
    assert len(found.named("script")) == 3
    assert not found.named("img")
    shown = json.loads(found.named("script", id="model")[0])
    assert shown["title"] == shown["hosts"][0]["name"] == shown["hosts"][0]["databases"][0]["name"] == EVIL
    assert shown["activity"] == model["activity"]
    for host, light, lines in zip(model["hosts"], shown["hosts"], details(found)):
        assert lines["checks"] == host["checks"]
        for database, plain, rest in zip(host["databases"], light["databases"], lines["databases"]):
            tables = rest.pop("tables")
            rows = [dict(zip(tables["keys"], row)) for row in tables["rows"]]
            assert {**plain, **rest, "tables": rows} == database


def test_the_policy_allows_the_page_s_own_script_and_style_and_no_request():
    found = page(report_model(1))
    (policy,) = (given["content"] for _tag, given, _text in found.found if given.get("http-equiv"))
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "connect-src" not in rules
    for rule, text in (("style-src", found.named("style")[0]), ("script-src", found.named("script")[-1])):
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_no_part_of_the_page_loads_anything_or_makes_markup_of_text():
    folder = pathlib.Path(_report_html.__file__).parent / "report_page"
    files = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert {*_report_html._SCRIPTS, "page.html", "page.css"} == set(files)
    for name, text in files.items():
        # Of addresses, the name of SVG's elements alone.
        assert set(re.findall(r"https?://[\w./]+", text)) <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(r"@import|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), name
        assert "</" not in text or name == "page.html", f"{name} would end its element"
        assert len(text.splitlines()) < 400, f"{name} is long"
        assert max(map(len, text.splitlines())) <= 120, name


def test_what_a_model_lacks_is_left_out_of_the_page():
    for model in ({}, {"hosts": [{"name": "pg1"}], "summary": None}):
        assert "The report on the auditing of a fleet" not in page(model).named("h1")
    assert "Hosts that are not green" in _report_html.html({})


def test_ansible_s_own_loader_of_collections_finds_the_page():
    code = (
        "from ansible.plugins.loader import init_plugin_loader\n"
        f"init_plugin_loader([{str(running.COLLECTIONS)!r}])\n"
        "from ansible_collections.dbfleet.audit.plugins.plugin_utils import _report_html\n"
        "print(type(_report_html.__loader__).__name__, 'Tables audited' in _report_html.html({}))\n"
    )
    environment = {name: value for name, value in running.private_environment().items() if name != "PYTHONPATH"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["_AnsibleCollectionLoader", "True"]
