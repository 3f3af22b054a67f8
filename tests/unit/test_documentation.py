# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""README.md and the guides lead nowhere that is not there, and name nothing that the collection does not have."""

from __future__ import annotations

import json
import operator
import os
import posixpath
import re
import subprocess
import urllib.parse

import documented_names as names
import pytest
from documentation import ROOT, Block, anchors, blocks, code_spans, links, pages, taken

TOPS = "benchmarks|changelogs|demo|docs|examples|meta|molecule|playbooks|plugins|roles|tests"
ROLE_PREFIXES = "|".join(sorted(names.role_options(), key=len, reverse=True))


def each(*languages: str) -> pytest.MarkDecorator:
    """Have a test once for each block in some languages, under its place."""
    found = [block for block in blocks() if block.language in languages]
    return pytest.mark.parametrize("block", found, ids=operator.attrgetter("place"))


@pytest.mark.parametrize("page", pages())
def test_every_link_leads_somewhere(page: str):
    broken = [f"{page}:{line}: {target}" for line, target in links(page) if not leads_somewhere(page, target)]
    assert broken == []


def leads_somewhere(page: str, target: str) -> bool:
    if re.match(r"[a-z]+:", target):
        # No test asks the network.
        url = urllib.parse.urlsplit(target)
        return url.scheme == "https" and re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", url.netloc) is not None
    path, _sharp, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page
    return (ROOT / path).exists() and (not anchor or anchor in anchors(path))


@pytest.mark.parametrize("page", pages())
def test_every_path_of_the_checkout_that_is_named_is_there(page: str):
    missing = [
        f"{page}:{line}: {path}"
        for line, code in [*code_spans(page), *((block.line, block.text) for block in blocks() if block.page == page)]
        for path in re.findall(rf"(?:^|[ (=])((?:{TOPS})/[\w./*-]*\w)", code, re.MULTILINE)
        if not is_there(page, path)
    ]
    assert missing == []


def is_there(page: str, path: str) -> bool:
    # An example of a repository names its own files.
    return any(any((ROOT / base).glob(path)) for base in ("", posixpath.dirname(page)))


@pytest.mark.parametrize("page", pages())
def test_every_module_role_playbook_and_variable_that_is_named_is_there(page: str):
    texts = [*code_spans(page), *((block.line, block.text) for block in blocks() if block.page == page)]
    named = [(line, name) for line, text in texts for name in re.findall(r"dbfleet\.audit\.\w+", text)]
    named += [(line, name) for line, text in texts for name in re.findall(rf"\b(?:{ROLE_PREFIXES})_\w*[a-z]\b", text)]
    assert [f"{page}:{line}: {name}" for line, name in named if not is_known(name)] == []


def is_known(name: str) -> bool:
    if not name.startswith(names.OURS):
        return name in names.words() or (ROOT / "plugins" / "modules" / f"{name}.py").exists()
    short = name.removeprefix(names.OURS)
    kinds = (f"plugins/*/{short}.py", f"plugins/*/{short}.yml", f"roles/{short}", f"playbooks/{short}.yml")
    return name in names.words() or any(any(ROOT.glob(pattern)) for pattern in kinds)


@pytest.mark.parametrize("page", pages())
def test_every_extra_variable_and_tag_of_a_command_is_known(page: str):
    commands = [code for _line, code in code_spans(page)]
    commands += [block.text for block in blocks() if block.page == page and block.language == "sh"]
    text = "\n".join(commands)
    asked = re.findall(r"-e ([a-z]\w*)=", text) + re.findall(r"-e '?\{\"(\w+)\"", text)
    in_playbooks = {word for playbook in names.playbooks().values() for word in re.findall(r"\w+", playbook)}
    assert [name for name in asked if name not in names.variables() and name not in in_playbooks] == []
    asked = [tag for found in re.findall(r"--(?:skip-)?tags[ =]([\w,]+)", text) for tag in found.split(",")]
    assert [tag for tag in asked if tag not in names.tags()] == []


def test_every_language_is_one_that_tests_look_at():
    """Another name of one of them would keep an example from being looked at."""
    known = {"yaml", "sql", "sh", "json", "python", "js", "ini"}
    assert [block.place for block in blocks() if block.language not in known] == []


@each("sh")
def test_a_shell_takes_the_syntax_of_every_command(block: Block):
    done = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    programs = [word for word in re.findall(r"^\(?([\w./-]+)", block.text, re.MULTILINE) if "/" in word]
    assert [path for path in programs if not os.access(ROOT / path, os.X_OK)] == []


@each("json")
def test_json_is_json(block: Block):
    json.loads(block.text)


@each("yaml", "sql", "python", "js")
def test_every_example_is_executed_or_says_why_not(block: Block):
    """tests/integration/test_documentation.py executes all SQL and each kind of YAML that no test of its own takes."""
    if block.language == "yaml":
        executed = names.kind(block) != ""
    else:
        executed = block.language == "sql" or (block.page, block.language) in taken()
    assert executed or block.excuse, "needs a test, or a line above it: <!-- not run: the reason -->"


@each("yaml")
def test_variables_and_options_are_of_the_right_types(block: Block):
    variables = {name: value for name, value in names.given_variables(block).items() if not name.startswith("ansible_")}
    assert names.complaints(names.variables(), variables) == []
    for task in names.tasks(block) if names.kind(block) in ("tasks", "plays") else []:
        module = names.module_of(task)
        if module.startswith(names.OURS):
            options = names.module_options(module.removeprefix(names.OURS))
            assert names.complaints(options, task[module]) == []


def test_a_misspelt_variable_or_option_is_found():
    assert names.complaints(names.variables(), {"audit_archive_older": "1y"}) != []
    assert names.complaints(names.variables(), {"audit_seal_public_keys": {"a": 1}}) != []
    assert names.complaints(names.module_options("postgresql_audit_events"), {"tabel": "public.users"}) != []
