# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run one module of this collection with the arguments that arrive on standard input as JSON.

``python module_runner.py postgresql_audit_info`` is what Ansible does on a host, without the zip file around it:
the module is ``__main__`` of a process of its own, and its answer is the JSON that it prints.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys

from ansible.module_utils.testing import patch_module_args

_PLUGINS = "ansible_collections.dbfleet.audit.plugins"


def main() -> None:
    """Run the module that the first argument names."""
    name = sys.argv.pop(1)
    arguments = json.load(sys.stdin)
    # A limit that no server here reaches can be moved: {"session.MINIMUM_VERSION": 990000}.
    for path, value in arguments.pop("_constants", {}).items():
        module, constant = path.split(".")
        setattr(importlib.import_module(f"{_PLUGINS}.module_utils._postgresql.{module}"), constant, value)
    with patch_module_args(arguments):
        runpy.run_module(f"{_PLUGINS}.modules.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
