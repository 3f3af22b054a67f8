# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run one module of this collection with the arguments that arrive on standard input as JSON.

``python module_runner.py postgresql_audit_info`` is what Ansible does on a host, without the zip file around it:
the module is ``__main__`` of a process of its own, and its answer is the JSON that it prints.
"""

from __future__ import annotations

import json
import runpy
import sys

from ansible.module_utils.testing import patch_module_args


def main() -> None:
    """Run the module that the first argument names."""
    name = sys.argv.pop(1)
    with patch_module_args(json.load(sys.stdin)):
        runpy.run_module(
            f"ansible_collections.dbfleet.audit.plugins.modules.{name}", run_name="__main__", alter_sys=True
        )


if __name__ == "__main__":
    main()
