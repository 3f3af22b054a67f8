# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run one module of this collection; ``python module_runner.py NAME`` takes its arguments from its input, as JSON.

It is what Ansible does on a host, without the zip file around it: the module is ``__main__`` of a process of its own,
and its answer is the JSON that it prints.
"""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import runpy
import sys
import typing as t

from ansible.module_utils.testing import patch_module_args

_PLUGINS = "ansible_collections.dbfleet.audit.plugins"

#: What a server of forks imports once, so that not every process has to: this, and all that modules build upon.
PRELOAD = (
    *("module_runner", "ansible.module_utils.basic", "psycopg2.extras", "pymysql"),
    *(
        f"{_PLUGINS}.module_utils.{path.parent.name}.{path.stem}"
        for path in sorted(pathlib.Path(__file__).parents[2].glob("plugins/module_utils/*/[a-z]*.py"))
    ),
)


def run(name: str, arguments: dict[str, t.Any]) -> None:
    """Run the module and leave this process as it does."""
    # A limit that no server here reaches can be moved: {"session.MINIMUM_VERSION": 990000}, which is _postgresql's,
    # or with the engine's name: {"_mysql.session.MINIMUM_MARIADB": 990000}.
    for path, value in arguments.pop("_constants", {}).items():
        engine, module, constant = path.split(".") if path.count(".") == 2 else ("_postgresql", *path.split("."))
        setattr(importlib.import_module(f"{_PLUGINS}.module_utils.{engine}.{module}"), constant, value)
    with patch_module_args(arguments):
        runpy.run_module(f"{_PLUGINS}.modules.{name}", run_name="__main__", alter_sys=True)


def run_in_fork(name: str, arguments: str, environment: dict[str, str], output: str) -> None:
    """Run the module in a process that begins as a copy of another, with its output in files of a directory."""
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, file in ((1, "stdout"), (2, "stderr")):
        with pathlib.Path(output, file).open("w", encoding="utf-8") as opened:
            os.dup2(opened.fileno(), descriptor)
    run(name, json.loads(arguments))


if __name__ == "__main__":
    run(sys.argv.pop(1), json.load(sys.stdin))
