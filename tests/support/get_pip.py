# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stands in for the get-pip script that ansible-test would download, where only a package index can be reached.

A copy lies in ansible-test's cache as ``get_pip_25_2.py``, pip's wheel beside it; tests/support/sanity.sh puts both
there. Unpacking the wheel takes a tenth of a second, installing it with itself took five, in each of some twelve
environments that ansible-test makes.
"""

from __future__ import annotations

import pathlib
import sysconfig
import zipfile


def main() -> None:
    """Unpack the wheel whose version this file's name says into the environment that runs this."""
    here = pathlib.Path(__file__).resolve()
    version = here.stem.replace("get_pip_", "").replace("_", ".")
    with zipfile.ZipFile(here.with_name(f"pip-{version}-py3-none-any.whl")) as wheel:
        wheel.extractall(sysconfig.get_path("purelib"))


if __name__ == "__main__":
    main()
