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
import json
import os
import pathlib
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing as t

from postgresql_programs import (
    ServerError,
    find_binaries,
    free_port,
    quote_setting,
    run_program,
    server_account,
    server_version,
    tail,
)

STATE_FILE = "server.json"
SOCKET_PATH_LIMIT = 107  # sockaddr_un holds 108 bytes, the terminating zero among them
START_TIMEOUT = 60
STOP_TIMEOUT = 20


@dataclasses.dataclass
class LocalPostgresql:
    """One private server. Made by :meth:`create`, found again by :meth:`load`."""

    directory: pathlib.Path
    base: pathlib.Path
    binaries: pathlib.Path
    port: int
    password: str
    version: str = ""

    @property
    def data(self) -> pathlib.Path:
        """The data directory."""
        return self.base / "data"

    @property
    def socket_dir(self) -> pathlib.Path:
        """The directory of the Unix socket; also holds the log."""
        return self.base / "run"

    @property
    def log(self) -> pathlib.Path:
        """The server's log."""
        return self.socket_dir / "server.log"

    # -- life ---------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        directory: str | os.PathLike[str],
        port: int | None = None,
        settings: t.Mapping[str, object] | None = None,
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

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> LocalPostgresql:
        """Return the server that lives in a directory."""
        path = pathlib.Path(directory) / STATE_FILE
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ServerError(f"no server lives in {directory}") from None
        return cls(
            directory=pathlib.Path(state["directory"]),
            base=pathlib.Path(state["base"]),
            binaries=pathlib.Path(state["binaries"]),
            port=state["port"],
            password=state["password"],
            version=state["version"],
        )

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        done = self._pg_ctl("start", "-w", "-t", str(START_TIMEOUT), "-l", self.log)
        if done.returncode:
            reason = tail(self.log) or done.stdout.strip()
            raise ServerError(f"PostgreSQL in {self.directory} did not start on port {self.port}:\n{reason}")

    def restart(self) -> None:
        """Restart the server, as a change of shared_preload_libraries needs it."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """Stop the server, gently at first and surely in the end; the files stay."""
        for mode in ("fast", "immediate"):
            if not self.running():
                return
            self._pg_ctl("stop", "-w", "-t", str(STOP_TIMEOUT), "-m", mode)
        pid = self._postmaster_pid()
        if pid:
            os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        """Stop the server and delete everything that it had."""
        self.stop()
        for path in (self.data, self.socket_dir):
            shutil.rmtree(path, ignore_errors=True)
        if self.data.exists():
            raise ServerError(f"could not delete {self.data}: somebody still writes there")
        (self.directory / STATE_FILE).unlink(missing_ok=True)
        for path in (self.base, self.directory):
            # Somebody else's files in it are no reason to fail, and none to delete them.
            with contextlib.suppress(OSError):
                path.rmdir()

    def running(self) -> bool:
        """Tell whether the server runs."""
        return self.data.exists() and self._pg_ctl("status").returncode == 0

    # -- use ----------------------------------------------------------------------------------------------------

    def configure(self, settings: t.Mapping[str, object]) -> None:
        """Add settings to postgresql.conf, which ALTER SYSTEM overrides; they count from the next start."""
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as config:
            config.writelines(f"{name} = {quote_setting(value)}\n" for name, value in settings.items())

    def standby_of_this(
        self,
        directory: str | os.PathLike[str],
        settings: t.Mapping[str, object] | None = None,
        while_pid: int | None = None,
    ) -> LocalPostgresql:
        """Make a streaming standby of this server, start it, and return it."""
        standby = type(self)._prepare(directory, None, self.password, while_pid)
        try:
            copied = run_program(
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
    def _prepare(
        cls, directory: str | os.PathLike[str], port: int | None, password: str | None, while_pid: int | None
    ) -> LocalPostgresql:
        """Choose where the files go and make the empty directories."""
        home = pathlib.Path(directory).absolute()
        if (home / STATE_FILE).exists():
            raise ServerError(f"a server lives in {home} already; stop it first")
        binaries = find_binaries()
        home.mkdir(parents=True, exist_ok=True)
        server = cls(
            directory=home,
            base=_base_directory(home),
            binaries=binaries,
            port=port or free_port(),
            password=password or secrets.token_urlsafe(16),
            version=".".join(str(part) for part in server_version(binaries)),
        )
        account = server_account()
        for path in (server.data, server.socket_dir):
            path.mkdir(mode=0o700 if path == server.data else 0o755)
            if account:
                os.chown(path, account.pw_uid, account.pw_gid)
        server._save()
        if while_pid:
            # The watcher comes first: a caller killed in the middle must leave neither a server nor files.
            server._watch(while_pid)
        return server

    def _save(self) -> None:
        """Write the state file whole, or not at all: an interrupted start must leave no half of one."""
        path = self.directory / STATE_FILE
        scratch = path.with_suffix(".new")
        scratch.touch(mode=0o600)
        scratch.write_text(json.dumps(self.facts(), indent=2), encoding="utf-8")
        scratch.replace(path)

    def facts(self) -> dict[str, int | str]:
        """Return what a caller may want to know, by name."""
        names = [field.name for field in dataclasses.fields(self)] + ["data", "socket_dir", "log"]
        values = ((name, getattr(self, name)) for name in names)
        return {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in values}

    def _initdb(self, trust: bool) -> None:
        """Make the cluster."""
        account = server_account()
        password_file = self.socket_dir / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password, encoding="utf-8")
        if account:
            os.chown(password_file, account.pw_uid, account.pw_gid)
        made = run_program(
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

    def _watch(self, pid: int) -> None:
        """Leave a process behind, in a session of its own, that removes this server after another process' end."""
        subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "watch", "--dir", self.directory, "--pid", str(pid)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _pg_ctl(self, *arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
        """Run pg_ctl on this server's data directory."""
        command = self.binaries / "pg_ctl"
        return run_program(command, "-D", self.data, *arguments, timeout=START_TIMEOUT + STOP_TIMEOUT)

    def _postmaster_pid(self) -> int | None:
        """Return the server's process id, if that process really is this server."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int((self.data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
            if os.path.realpath(f"/proc/{pid}/cwd") == os.path.realpath(self.data):
                return pid
        return None


def standby_of(
    server: LocalPostgresql,
    directory: str | os.PathLike[str],
    settings: t.Mapping[str, object] | None = None,
    while_pid: int | None = None,
) -> LocalPostgresql:
    """Make a streaming-replication standby of a running server in a directory, and start it."""
    return server.standby_of_this(directory, settings, while_pid)


def _base_directory(home: pathlib.Path) -> pathlib.Path:
    """Return where the server's own files go: the directory itself, unless the server could not use it there."""
    socket_path = home / "run" / ".s.PGSQL.65535"
    too_long = len(os.fsencode(socket_path)) > SOCKET_PATH_LIMIT
    # Opening up somebody's home directory for another account would be a liberty; so the files move instead.
    closed = server_account() is not None and not _open_to_others(home)
    if not too_long and not closed:
        return home
    base = pathlib.Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    base.chmod(0o711)
    return base


def _open_to_others(path: pathlib.Path) -> bool:
    """Tell whether an account that owns none of it can walk to a directory."""
    return all(part.stat().st_mode & 0o001 for part in (path.resolve(), *path.resolve().parents))


def watch(directory: str, pid: int) -> None:
    """Wait for a process to end, then remove the server; also gives up when the server was removed before."""
    watched = None
    with contextlib.suppress(ProcessLookupError):
        watched = os.pidfd_open(pid)
    state = pathlib.Path(directory, STATE_FILE)
    identity = state.read_text(encoding="utf-8")
    while watched is not None and not select.select([watched], [], [], 0.5)[0]:
        if not state.exists() or state.read_text(encoding="utf-8") != identity:
            return
    deadline = time.monotonic() + START_TIMEOUT
    while state.exists() and time.monotonic() < deadline:
        # initdb or pg_ctl may outlive our caller by a moment: try again until the state file is gone.
        with contextlib.suppress(ServerError):
            LocalPostgresql.load(directory).remove()
        time.sleep(0.1)


def _setting(text: str) -> tuple[str, str]:
    """Read a ``name=value`` of the command line."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    return name, value


def _parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argparse.ArgumentParser(description="Private PostgreSQL servers for the demo, tests and benchmarks.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("port", help="print a free port of 127.0.0.1")
    for name in ("start", "stop", "restart", "show", "watch"):
        command = commands.add_parser(name)
        command.add_argument("--dir", required=True, help="the server's directory")
        if name == "start":
            command.add_argument("--port", type=int, help="TCP port on 127.0.0.1 (default: a free one)")
            command.add_argument("--set", type=_setting, action="append", default=[], metavar="NAME=VALUE")
            command.add_argument("--password", help="of the superuser postgres on 127.0.0.1 (default: generated)")
            command.add_argument("--trust", action="store_true", help="ask for no password on 127.0.0.1 either")
            command.add_argument("--while-pid", type=int, help="remove the server when this process ends")
            command.add_argument("--standby-of", metavar="DIR", help="a streaming standby of the server in DIR")
        elif name == "show":
            command.add_argument("field", nargs="?", help="port, socket_dir, password, data, log, version, ...")
        elif name == "watch":
            command.add_argument("--pid", type=int, required=True)
    return parser


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
    options = _parser().parse_args()
    try:
        if options.command == "port":
            print(free_port())
        elif options.command == "start":
            _start(options)
        elif options.command == "show":
            facts = LocalPostgresql.load(options.dir).facts()
            print(facts[options.field] if options.field else json.dumps(facts, indent=2))
        elif options.command == "restart":
            LocalPostgresql.load(options.dir).restart()
        elif options.command == "stop":
            if pathlib.Path(options.dir, STATE_FILE).exists():
                LocalPostgresql.load(options.dir).remove()
        else:
            watch(options.dir, options.pid)
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
