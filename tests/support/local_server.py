# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What private servers have in common, whatever the database system. Standard library only."""

from __future__ import annotations

import abc
import argparse
import contextlib
import dataclasses
import inspect
import json
import os
import pathlib
import pwd
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import typing as t

STATE_FILE = "server.json"
SOCKET_PATH_LIMIT = 107  # sockaddr_un holds 108 bytes, the terminating zero among them
START_TIMEOUT = 60
STOP_TIMEOUT = 20

AnyPath = t.Union[str, "os.PathLike[str]"]
Settings = t.Mapping[str, object]


class ServerError(Exception):
    """A server could not be made, started or stopped; the text says why."""


@dataclasses.dataclass
class LocalServer(abc.ABC):
    """One private server. It lives in ``directory`` as far as callers care; ``base`` is where its own files are."""

    #: Accounts that may run the server when we are root, the best first.
    ACCOUNTS: t.ClassVar[tuple[str, ...]]
    #: The longest name that the server's socket can have.
    SOCKET_NAME: t.ClassVar[str]

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
    def load(cls, directory: AnyPath) -> t.Self:
        """Return the server that lives in a directory."""
        path = pathlib.Path(directory) / STATE_FILE
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ServerError(f"no server lives in {directory}") from None
        fields = {field.name: field.type for field in dataclasses.fields(cls)}
        return cls(
            **{
                name: pathlib.Path(state[name]) if kind == "pathlib.Path" else state[name]
                for name, kind in fields.items()
            }
        )

    @abc.abstractmethod
    def start(self) -> None:
        """Start the server and wait until it accepts connections."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Stop the server, gently at first and surely in the end; the files stay."""

    @abc.abstractmethod
    def running(self) -> bool:
        """Tell whether the server runs."""

    def restart(self) -> None:
        """Restart the server, as a change of some settings needs it."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Stop the server and delete everything that it had."""
        self._end()
        for path in (self.data, self.socket_dir):
            shutil.rmtree(path, ignore_errors=True)
        if self.data.exists():
            raise ServerError(f"could not delete {self.data}: somebody still writes there")
        (self.directory / STATE_FILE).unlink(missing_ok=True)
        for path in (self.base, self.directory):
            # Somebody else's files in it are no reason to fail, and none to delete them.
            with contextlib.suppress(OSError):
                path.rmdir()

    def facts(self) -> dict[str, t.Any]:
        """Return what a caller may want to know, by name."""
        names = [field.name for field in dataclasses.fields(self)] + ["data", "socket_dir", "log"]
        values = ((name, getattr(self, name)) for name in names)
        return {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in values}

    # -- inside -------------------------------------------------------------------------------------------------

    @classmethod
    @abc.abstractmethod
    def _programs(cls) -> dict[str, t.Any]:
        """Find this machine's server programs; return the fields that say where and what they are."""

    def _end(self) -> None:
        """Stop the server for good: nobody will read its files again."""
        self.stop()

    @classmethod
    def _prepare(cls, directory: AnyPath, port: int | None, password: str | None, while_pid: int | None) -> t.Self:
        """Choose where the files go and make the empty directories."""
        home = pathlib.Path(directory).absolute()
        if (home / STATE_FILE).exists():
            raise ServerError(f"a server lives in {home} already; stop it first")
        programs = cls._programs()
        home.mkdir(parents=True, exist_ok=True)
        account = cls._account()
        server = cls(
            directory=home,
            base=_base_directory(home, cls.SOCKET_NAME, account),
            port=port or free_port(),
            password=password or secrets.token_urlsafe(16),
            **programs,
        )
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

    def _watch(self, pid: int) -> None:
        """Leave a process behind, in a session of its own, that removes this server after another process' end."""
        program = os.path.abspath(inspect.getfile(type(self)))
        subprocess.Popen(
            [sys.executable, program, "watch", "--dir", self.directory, "--pid", str(pid)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @classmethod
    def _account(cls) -> pwd.struct_passwd | None:
        return server_account(cls.ACCOUNTS)

    def _secret_file(self, name: str, text: str) -> pathlib.Path:
        """Write a file that only the server's account may read."""
        path = self.socket_dir / name
        account = self._account()
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        if account:
            os.chown(path, account.pw_uid, account.pw_gid)
        return path

    def _run(self, *command: AnyPath, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a program as the server's account."""
        return run_program(*command, account=self._account(), timeout=timeout)


def _base_directory(home: pathlib.Path, socket_name: str, account: pwd.struct_passwd | None) -> pathlib.Path:
    """Return where the server's own files go: the directory itself, unless the server could not use it there."""
    too_long = len(os.fsencode(home / "run" / socket_name)) > SOCKET_PATH_LIMIT
    # Opening up somebody's home directory for another account would be a liberty; so the files move instead.
    closed = account is not None and not _open_to_others(home)
    if not too_long and not closed:
        return home
    base = pathlib.Path(tempfile.mkdtemp(prefix="db-", dir="/tmp"))
    base.chmod(0o711)
    return base


def _open_to_others(path: pathlib.Path) -> bool:
    """Tell whether an account that owns none of it can walk to a directory."""
    return all(part.stat().st_mode & 0o001 for part in (path.resolve(), *path.resolve().parents))


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def server_account(names: t.Sequence[str]) -> pwd.struct_passwd | None:
    """Return the account that must run a server: database servers refuse root. None: whoever we are."""
    if os.geteuid() != 0:
        return None
    for name in names:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerError(f"run as root, and this machine has no account to run a server: {' or '.join(names)}")


def identity_of(account: pwd.struct_passwd | None) -> dict[str, t.Any]:
    """Return what makes subprocess run a program as an account, in an environment that no user's settings reach."""
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
    identity: dict[str, t.Any] = {"env": environment, "stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    if account:
        identity.update(user=account.pw_uid, group=account.pw_gid, extra_groups=[])
    return identity


def run_program(
    *command: AnyPath, account: pwd.struct_passwd | None, timeout: float = 120, cwd: AnyPath = "/"
) -> subprocess.CompletedProcess[str]:
    """Run a program of a server as its account."""
    return subprocess.run(
        [os.fspath(part) for part in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=timeout,
        **identity_of(account),
    )


def tail(path: pathlib.Path, lines: int = 15) -> str:
    """Return the last lines of a file, or nothing where there is none."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


# -- the command line -------------------------------------------------------------------------------------------


def watch(kind: type[LocalServer], directory: str, pid: int) -> None:
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
        # What our caller had begun may outlive it by a moment: try again until the state file is gone.
        with contextlib.suppress(ServerError):
            kind.load(directory).remove()
        time.sleep(0.1)


def setting(text: str) -> tuple[str, str]:
    """Read a ``name=value`` of the command line."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    return name, value


def command_parser(description: str, superuser: str) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Return the command line's grammar, and the part of it that is for the command ``start``."""
    parser = argparse.ArgumentParser(description=description)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("port", help="print a free port of 127.0.0.1")
    parts = {name: commands.add_parser(name) for name in ("start", "stop", "restart", "show", "watch")}
    for part in parts.values():
        part.add_argument("--dir", required=True, help="the server's directory")
    start = parts["start"]
    start.add_argument("--port", type=int, help="TCP port on 127.0.0.1 (default: a free one)")
    start.add_argument("--set", type=setting, action="append", default=[], metavar="NAME=VALUE")
    start.add_argument("--password", help=f"of the superuser {superuser} on 127.0.0.1 (default: generated)")
    start.add_argument("--while-pid", type=int, help="remove the server when this process ends")
    parts["show"].add_argument("field", nargs="?", help="port, socket_dir, password, data, log, version, ...")
    parts["watch"].add_argument("--pid", type=int, required=True)
    return parser, start


def run_command(
    kind: type[LocalServer], options: argparse.Namespace, start: t.Callable[[argparse.Namespace], None]
) -> int:
    """Carry out a command; ``start`` does that one."""
    try:
        if options.command == "port":
            print(free_port())
        elif options.command == "start":
            start(options)
        elif options.command == "show":
            facts = kind.load(options.dir).facts()
            print(facts[options.field] if options.field else json.dumps(facts, indent=2))
        elif options.command == "restart":
            kind.load(options.dir).restart()
        elif options.command == "stop":
            if pathlib.Path(options.dir, STATE_FILE).exists():
                kind.load(options.dir).remove()
        else:
            watch(kind, options.dir, options.pid)
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
