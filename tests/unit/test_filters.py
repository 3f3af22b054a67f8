# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files of filters: what they name exists, is documented, and costs nothing until it is called."""

from __future__ import annotations

import importlib
import subprocess
import sys
import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from running import ROOT, private_environment

from ansible_collections.dbfleet.audit.plugins.plugin_utils import _deferred

FOLDER = ROOT / "plugins" / "filter"
FILES = sorted(path.stem for path in FOLDER.glob("*.py"))
PACKAGE = "ansible_collections.dbfleet.audit.plugins"


def named(file: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return what a file of filters gives to deferred()."""
    module = importlib.import_module(f"{PACKAGE}.filter.{file}")
    given: dict[str, str] = {}
    monkeypatch.setattr(module, "deferred", given.update)
    module.FilterModule().filters()
    return given


@pytest.mark.parametrize("file", FILES)
def test_every_filter_has_its_function_and_its_documentation(file: str, monkeypatch: pytest.MonkeyPatch):
    found = named(file, monkeypatch)
    assert found
    for name, function in found.items():
        module, _dot, attribute = function.partition(".")
        assert callable(getattr(importlib.import_module(f"{PACKAGE}.plugin_utils.{module}"), attribute))
        assert (FOLDER / f"{name}.yml").is_file()


def test_every_documented_filter_exists(monkeypatch: pytest.MonkeyPatch):
    names = {name for file in FILES for name in named(file, monkeypatch)}
    assert names == {path.stem for path in FOLDER.glob("*.yml")}


def test_a_process_that_looks_for_a_filter_loads_the_code_of_none():
    code = "; ".join(
        [
            "import importlib, sys",
            f"files = [importlib.import_module('{PACKAGE}.filter.' + name) for name in {FILES!r}]",
            "filters = [file.FilterModule().filters() for file in files]",
            f"print(*sorted(name for name in sys.modules if name.startswith('{PACKAGE}.plugin_utils.')))",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=private_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [f"{PACKAGE}.plugin_utils._deferred"]


def test_what_is_wrong_with_an_input_is_an_error_of_the_filter():
    filters: dict[str, t.Any] = _deferred.deferred({"profile_default": "_profiles.default"})
    with pytest.raises(AnsibleFilterError, match="audit_profiles: there is no hippa"):
        filters["profile_default"](24, ["hippa"], "audit_seal_max_unsealed_hours")
