# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stands in for the get-pip script that ansible-test would download, where only a package index can be reached.

A copy lies in ansible-test's cache as ``get_pip_25_2.py``, the wheel that it installs beside it; tests/support/
sanity.sh puts both there. Runs on every Python that ansible-test makes environments for, with no pip to import.
"""

from __future__ import annotations

import os
import runpy
import sys


def main() -> None:
    """Install pip from the wheel whose version this file's name says."""
    directory, name = os.path.split(os.path.abspath(__file__))
    version = os.path.splitext(name)[0].replace("get_pip_", "").replace("_", ".")
    wheel = os.path.join(directory, f"pip-{version}-py3-none-any.whl")
    sys.path.insert(0, wheel)
    sys.argv = ["pip", "install", "--quiet", "--no-index", "--no-deps", wheel]
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
