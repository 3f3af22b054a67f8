# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the documentation may name, variables, options, playbooks and tags; and kinds of examples in YAML."""

from __future__ import annotations

import ast
import functools
import re
import typing as t

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from documentation import ROOT, Block

#: Of a task, what is not the name of its module.
_MODULE = re.compile(r"[a-z]\w*\.[a-z]\w*\.[a-z]\w*\Z")
#: An option of ansible-doc's, as an argument spec has it.
_KEYS = ("type", "elements", "choices", "default", "required", "aliases")
OURS = "dbfleet.audit."

Options = dict[str, dict[str, t.Any]]


@functools.cache
def role_options() -> dict[str, Options]:
    """Return the options of each role, those of all its entry points together."""
    found = {}
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values()
        found[path.parents[1].name] = {name: spec for entry in entries for name, spec in entry["options"].items()}
    return found


@functools.cache
def variables() -> Options:
    """Return the variables of all roles."""
    return {name: spec for options in role_options().values() for name, spec in options.items()}


@functools.cache
def module_options(name: str) -> Options:
    """Return what a module of ours documents of its options, those of its fragments included.

    :raises FileNotFoundError: when there is no such module.
    """
    return _options(f"modules/{name}.py", "DOCUMENTATION")


def _options(path: str, name: str) -> Options:
    """Return the options of a constant below plugins/ that documents a plugin or is a part of such documentation."""
    tree = ast.parse((ROOT / "plugins" / path).read_text(encoding="utf-8"))
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    [text] = [ast.literal_eval(node.value) for node in constants if name in [ast.unparse(at) for at in node.targets]]
    found = yaml.safe_load(text)
    options = dict(found.get("options", {}))
    for fragment in found.get("extends_documentation_fragment", []):
        file, _dot, part = fragment.removeprefix(OURS).partition(".")
        options.update(_options(f"doc_fragments/{file}.py", part.upper() or "DOCUMENTATION"))
    return options


@functools.cache
def playbooks() -> dict[str, str]:
    """Return the text of each playbook by its short name."""
    return {path.stem: path.read_text(encoding="utf-8") for path in ROOT.glob("playbooks/*.yml")}


@functools.cache
def tags() -> set[str]:
    """Return the tags of all playbooks and roles, and those that Ansible has."""
    files = [*ROOT.glob("playbooks/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]
    lists = [found for path in files for found in re.findall(r"tags: \[([\w, ]+)\]", path.read_text(encoding="utf-8"))]
    return {tag for found in lists for tag in found.split(", ")} | {"always", "never", "all"}


@functools.cache
def words() -> set[str]:
    """Return every word of the collection's code."""
    files = [path for top in ("plugins", "roles", "playbooks") for path in (ROOT / top).rglob("*")]
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".yml", ".j2")]
    return {word for text in texts for pattern in (r"\w+", r"[\w.]+") for word in re.findall(pattern, text)}


def kind(block: Block) -> str:
    """Return what a block of YAML is: plays, tasks, policies, variables, an inventory; or nothing that we know."""
    found = yaml.safe_load(block.text)
    items = found if isinstance(found, list) else [found]
    if not items or not all(isinstance(item, dict) for item in items):
        return ""
    for name, keys in (("plays", {"hosts", "import_playbook"}), ("policies", {"tables"})):
        if isinstance(found, list) and all(keys & set(item) for item in items):
            return name
    if all(any(_MODULE.match(key) for key in item) for item in items):
        return "tasks"
    if isinstance(found, dict) and all(key in variables() or key.startswith("ansible_") for key in found):
        return "variables"
    if isinstance(found, dict) and all({"hosts", "children"} & set(group or {}) for group in found.values()):
        return "inventory"
    return ""


def tasks(block: Block) -> list[dict[str, t.Any]]:
    """Return the tasks of a block of tasks or plays."""
    found = yaml.safe_load(block.text)
    items = found if isinstance(found, list) else [found]
    if kind(block) == "tasks":
        return items
    return [task for play in items for part in ("pre_tasks", "tasks", "post_tasks") for task in play.get(part, [])]


def given_variables(block: Block) -> dict[str, t.Any]:
    """Return the variables that a block sets, those of a play's roles included."""
    found = yaml.safe_load(block.text)
    if kind(block) == "variables":
        return found
    plays = found if kind(block) == "plays" else []
    sets = [*(play.get("vars", {}) for play in plays)]
    sets += [role.get("vars", {}) for play in plays for role in play.get("roles", []) if isinstance(role, dict)]
    return {name: value for each in sets for name, value in each.items()}


def module_of(task: t.Mapping[str, t.Any]) -> str:
    """Return the full name of a task's module."""
    return next(key for key in task if _MODULE.match(key))


def complaints(options: Options, given: t.Mapping[str, t.Any]) -> list[str]:
    """Return what an argument spec has against values; a value that is a template has yet to become one."""
    values = {name: value for name, value in given.items() if not (isinstance(value, str) and "{{" in value)}
    spec = {name: _spec(option) for name, option in options.items() if name in given}
    return ArgumentSpecValidator(spec).validate(values).error_messages


def _spec(option: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    spec = {key: option[key] for key in _KEYS if option.get(key) is not None}
    below = option.get("suboptions") or option.get("options")
    if below:
        spec["options"] = {name: _spec(sub) for name, sub in below.items()}
    return spec
