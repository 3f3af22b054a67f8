# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Find PostgreSQL's server programs and run them as PostgreSQL wants to be run. Standard library only."""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
import subprocess

import local_server
from local_server import AnyPath, ServerError, tail

__all__ = ["ACCOUNTS", "find_binaries", "quote_setting", "run_program", "server_version", "tail"]

#: PostgreSQL refuses to run as root.
ACCOUNTS = ("postgres", "nobody")


def find_binaries() -> pathlib.Path:
    """Return the directory of the newest PostgreSQL server programs of this machine."""
    candidates = [path.parent for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        bindir = subprocess.run(["pg_config", "--bindir"], check=True, capture_output=True, text=True).stdout.strip()
        candidates.append(pathlib.Path(bindir))
    on_path = shutil.which("postgres")
    if on_path:
        candidates.append(pathlib.Path(on_path).resolve().parent)
    usable = [path for path in candidates if (path / "postgres").exists() and (path / "initdb").exists()]
    if not usable:
        raise ServerError("no PostgreSQL server programs found (looked in /usr/lib/postgresql, pg_config, PATH)")
    return max(usable, key=server_version)


def server_version(binaries: pathlib.Path) -> tuple[int, ...]:
    """Return the version of the server programs in a directory, as numbers that compare."""
    answer = subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, text=True).stdout
    match = re.search(r"(\d+(?:\.\d+)*)", answer)
    return tuple(int(part) for part in match.group(1).split(".")) if match else (0,)


def run_program(*command: AnyPath, timeout: float = 120, cwd: AnyPath = "/") -> subprocess.CompletedProcess[str]:
    """Run a PostgreSQL program as the server's account, in an environment that no PG* variable reaches."""
    return local_server.run_program(*command, account=local_server.server_account(ACCOUNTS), timeout=timeout, cwd=cwd)


def quote_setting(value: object) -> str:
    """Return a value as postgresql.conf wants it."""
    return "'" + str(value).replace("'", "''") + "'"
