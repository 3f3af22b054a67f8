# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Private PostgreSQL servers for the demo, the tests and the benchmarks.

A server lives in a directory of the caller's choice, listens on a socket of its own and on 127.0.0.1, and knows
nothing of any other server on the machine. Standard library only, because it runs before any environment is made.

    python3 local_postgresql.py start --dir D [--port P] [--set name=value]... [--while-pid PID]
    python3 local_postgresql.py show --dir D [FIELD]        python3 local_postgresql.py restart --dir D
    python3 local_postgresql.py stop --dir D                python3 local_postgresql.py port

With --while-pid the server goes away, with all that it wrote, as soon as that process has ended, however it ended.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import typing as t

from local_server import (
    START_TIMEOUT,
    STATE_FILE,
    STOP_TIMEOUT,
    AnyPath,
    LocalServer,
    ServerError,
    Settings,
    command_parser,
    run_command,
    tail,
)
from postgresql_programs import ACCOUNTS, find_binaries, quote_setting, server_version

__all__ = ["STATE_FILE", "LocalPostgresql", "ServerError", "standby_of"]


@dataclasses.dataclass
class LocalPostgresql(LocalServer):
    """One private server. Made by :meth:`create`, found again by :meth:`load`."""

    ACCOUNTS = ACCOUNTS
    SOCKET_NAME = ".s.PGSQL.65535"

    # -- life ---------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        directory: AnyPath,
        port: int | None = None,
        settings: Settings | None = None,
        password: str | None = None,
        trust: bool = False,
        while_pid: int | None = None,
    ) -> LocalPostgresql:
        """Initialise a cluster and start it; ``trust`` asks no password on 127.0.0.1 either."""
        server = cls._prepare(directory, port, password, while_pid)
        try:
            server._initdb(trust)
            server.configure(settings or {})
            server.start()
        except BaseException:
            server.remove()
            raise
        return server

    def start(self, options: str = "") -> None:
        """Start the server, with options of its command line, and wait until it accepts connections."""
        done = self._pg_ctl(
            "start", "-w", "-t", str(START_TIMEOUT), "-l", self.log, *(("-o", options) if options else ())
        )
        if done.returncode:
            reason = tail(self.log) or done.stdout.strip()
            raise ServerError(f"PostgreSQL in {self.directory} did not start on port {self.port}:\n{reason}")

    def stop(self) -> None:
        """Stop the server, gently at first and surely in the end; the files stay."""
        for mode in ("fast", "immediate"):
            if not self.running():
                return
            self._pg_ctl("stop", "-w", "-t", str(STOP_TIMEOUT), "-m", mode)
        pid = self._postmaster_pid()
        if pid:
            os.kill(pid, signal.SIGKILL)

    def running(self) -> bool:
        """Tell whether the server runs."""
        return self.data.exists() and self._pg_ctl("status").returncode == 0

    # -- use ----------------------------------------------------------------------------------------------------

    def configure(self, settings: Settings) -> None:
        """Add settings to postgresql.conf, which ALTER SYSTEM overrides; they count from the next start."""
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as config:
            config.writelines(f"{name} = {quote_setting(value)}\n" for name, value in settings.items())

    def next_start(self, name: str) -> str:
        """Return a setting as the server would start with it now, from the files alone."""
        done = self._run(self.binaries / "postgres", "-D", self.data, "-C", name)
        if done.returncode:
            raise ServerError(f"postgres -C {name} failed: {done.stdout.strip()}")
        return done.stdout.strip()

    def standby_of_this(
        self,
        directory: AnyPath,
        settings: Settings | None = None,
        while_pid: int | None = None,
    ) -> LocalPostgresql:
        """Make a streaming standby of this server, start it, and return it."""
        standby = type(self)._prepare(directory, None, self.password, while_pid)
        try:
            copied = standby._run(
                *(standby.binaries / "pg_basebackup", "-D", standby.data, "-R", "-X", "stream", "-c", "fast", "-N"),
                # Without a slot, a busy primary may have deleted what the standby needs before it first asks for it.
                *("-C", "-S", f"standby_{standby.port}"),
                *("-h", self.socket_dir, "-p", str(self.port), "-U", "postgres"),
            )
            if copied.returncode:
                raise ServerError(f"pg_basebackup from port {self.port} failed: {copied.stdout.strip()}")
            standby.configure({**standby._own_settings(), **(settings or {})})
            standby.start()
        except BaseException:
            standby.remove()
            raise
        return standby

    # -- inside -------------------------------------------------------------------------------------------------

    @classmethod
    def _programs(cls) -> dict[str, t.Any]:
        binaries = find_binaries()
        return {"binaries": binaries, "version": ".".join(str(part) for part in server_version(binaries))}

    def _initdb(self, trust: bool) -> None:
        """Make the cluster."""
        password_file = self._secret_file("password", self.password)
        made = self._run(
            *(self.binaries / "initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"),
            *("--no-sync", "--auth-local=trust", f"--auth-host={'trust' if trust else 'scram-sha-256'}"),
            f"--pwfile={password_file}",
        )
        password_file.unlink()
        if made.returncode:
            raise ServerError(f"initdb in {self.data} failed:\n{made.stdout.strip()}")
        self.configure(self._own_settings())

    def _own_settings(self) -> dict[str, object]:
        """Return the settings that keep this server apart from every other."""
        return {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.socket_dir,
            "logging_collector": "off",
            "log_line_prefix": "%m [%p] %q%u@%d ",
        }

    def _pg_ctl(self, *arguments: AnyPath) -> subprocess.CompletedProcess[str]:
        """Run pg_ctl on this server's data directory."""
        return self._run(self.binaries / "pg_ctl", "-D", self.data, *arguments)

    def _postmaster_pid(self) -> int | None:
        """Return the server's process id, if that process really is this server."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int((self.data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
            if os.path.realpath(f"/proc/{pid}/cwd") == os.path.realpath(self.data):
                return pid
        return None


def standby_of(
    server: LocalPostgresql,
    directory: AnyPath,
    settings: Settings | None = None,
    while_pid: int | None = None,
) -> LocalPostgresql:
    """Make a streaming-replication standby of a running server in a directory, and start it."""
    return server.standby_of_this(directory, settings, while_pid)


def _start(options: argparse.Namespace) -> None:
    """Carry out the command ``start``."""
    settings = dict(options.set)
    if options.standby_of:
        primary = LocalPostgresql.load(options.standby_of)
        server = standby_of(primary, options.dir, settings, options.while_pid)
    else:
        server = LocalPostgresql.create(
            options.dir, options.port, settings, options.password, options.trust, options.while_pid
        )
    print(f"PostgreSQL {server.version} on 127.0.0.1:{server.port}, socket in {server.socket_dir}")


def main() -> int:
    """Run the command line."""
    parser, start = command_parser("Private PostgreSQL servers for the demo, tests and benchmarks.", "postgres")
    start.add_argument("--trust", action="store_true", help="ask for no password on 127.0.0.1 either")
    start.add_argument("--standby-of", metavar="DIR", help="a streaming standby of the server in DIR")
    return run_command(LocalPostgresql, parser.parse_args(), _start)


if __name__ == "__main__":
    sys.exit(main())
