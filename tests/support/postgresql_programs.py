# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Find PostgreSQL's server programs and run them as PostgreSQL wants to be run. Standard library only."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess
import typing as t


class ServerError(Exception):
    """A server could not be made, started or stopped; the text says why."""


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


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def server_account() -> pwd.struct_passwd | None:
    """Return the account that must run the server: PostgreSQL refuses root. None: whoever we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerError("run as root, and this machine has neither a 'postgres' nor a 'nobody' account to run a server")


def run_program(
    *command: str | os.PathLike[str], timeout: float = 120, cwd: str | os.PathLike[str] = "/"
) -> subprocess.CompletedProcess[str]:
    """Run a PostgreSQL program as the server's account, in an environment that no PG* variable reaches."""
    account = server_account()
    identity: dict[str, t.Any] = {}
    if account:
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
    return subprocess.run(
        [os.fspath(part) for part in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout,
        **identity,
    )


def quote_setting(value: object) -> str:
    """Return a value as postgresql.conf wants it."""
    return "'" + str(value).replace("'", "''") + "'"


def tail(path: pathlib.Path, lines: int = 15) -> str:
    """Return the last lines of a file, or nothing where there is none."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
