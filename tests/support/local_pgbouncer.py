# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A private pgbouncer in transaction mode in front of a private PostgreSQL server, for tests."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import typing as t

from local_postgresql import LocalPostgresql
from local_server import (
    START_TIMEOUT,
    STOP_TIMEOUT,
    AnyPath,
    LocalServer,
    ServerError,
    command_parser,
    identity_of,
    run_command,
    tail,
)
from postgresql_programs import ACCOUNTS

# Every client becomes the one login, and all of them share the one connection to the server.
_CONFIGURATION = """\
[databases]
* = host={server_socket} port={server_port} user={login}

[pgbouncer]
pool_mode = transaction
default_pool_size = 1
max_client_conn = 100
auth_type = any
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir = {socket_dir}
logfile = {log}
pidfile = {pid_file}
ignore_startup_parameters = extra_float_digits
"""


@dataclasses.dataclass
class LocalPgbouncer(LocalServer):
    """One private pgbouncer. Made by :meth:`create`, found again by :meth:`load`."""

    ACCOUNTS = ACCOUNTS
    SOCKET_NAME = ".s.PGSQL.65535"

    @property
    def pid_file(self) -> pathlib.Path:
        """Where pgbouncer says which process it is."""
        return self.socket_dir / "pgbouncer.pid"

    @classmethod
    def create(cls, directory: AnyPath, server: LocalPostgresql, login: str, while_pid: int) -> LocalPgbouncer:
        """Start a pgbouncer that lends one connection of ``login`` to the databases of a server."""
        bouncer = cls._prepare(directory, None, None, while_pid)
        try:
            bouncer._secret_file(
                "pgbouncer.ini",
                _CONFIGURATION.format(
                    server_socket=server.socket_dir,
                    server_port=server.port,
                    login=login,
                    port=bouncer.port,
                    socket_dir=bouncer.socket_dir,
                    log=bouncer.log,
                    pid_file=bouncer.pid_file,
                ),
            )
            bouncer.start()
        except BaseException:
            bouncer.remove()
            raise
        return bouncer

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        command = [self.binaries / "pgbouncer", "--quiet", self.socket_dir / "pgbouncer.ini"]
        process = subprocess.Popen(
            command, cwd="/", stdout=subprocess.DEVNULL, start_new_session=True, **identity_of(self._account())
        )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"pgbouncer did not start on port {self.port}:\n{tail(self.log)}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it, and the connections of its clients."""
        deadline = time.monotonic() + STOP_TIMEOUT
        if self.running():
            os.kill(self._pid(), signal.SIGTERM)
        while self.running():
            if time.monotonic() > deadline:
                raise ServerError(f"the pgbouncer on port {self.port} does not end")
            time.sleep(0.02)

    def running(self) -> bool:
        """Tell whether it runs."""
        pid = self._pid()
        try:
            return bool(pid) and os.fsencode(self.socket_dir) in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    @classmethod
    def _programs(cls) -> dict[str, t.Any]:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
        if not program:
            raise ServerError("no pgbouncer found (looked in PATH and /usr/sbin)")
        answer = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
        return {"binaries": pathlib.Path(program).parent, "version": re.search(r"\d+(\.\d+)*", answer).group()}

    def _pid(self) -> int:
        try:
            return int(self.pid_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


def main() -> int:
    """Run the command line, which is there for the watcher."""
    parser, _start = command_parser("A private pgbouncer for tests.", "nobody")
    return run_command(LocalPgbouncer, parser.parse_args(), lambda _options: parser.error("only tests start it"))


if __name__ == "__main__":
    sys.exit(main())
