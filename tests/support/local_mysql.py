# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Private MariaDB or MySQL servers, whichever is installed, for the demo, the tests and the benchmarks.

A server lives in a directory of the caller's choice, listens on a socket of its own and on 127.0.0.1, reads no
configuration but its own, and knows nothing of any other server on the machine. Standard library only.

    python3 local_mysql.py start --dir D [--port P] [--set name=value]... [--while-pid PID]
    python3 local_mysql.py show --dir D [FIELD]             python3 local_mysql.py restart --dir D
    python3 local_mysql.py stop --dir D                     python3 local_mysql.py port

With --while-pid the server goes away, with all that it wrote, as soon as that process has ended, however it ended.
"""

from __future__ import annotations

import argparse
import contextlib
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

from local_server import (
    START_TIMEOUT,
    STATE_FILE,
    STOP_TIMEOUT,
    AnyPath,
    LocalServer,
    ServerError,
    Settings,
    command_parser,
    identity_of,
    run_command,
    tail,
)

__all__ = ["PRIMARY", "STATE_FILE", "LocalMysql", "ServerError"]

#: Where packages put the programs of servers, beside PATH: Debian's, Red Hat's, Oracle's.
PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/mysql/bin", "/usr/bin")

#: MySQL has to be asked for GTIDs, MariaDB always has them.
GTID: Settings = {"loose_enforce_gtid_consistency": "ON", "loose_gtid_mode": "ON"}

#: What a server must be created with to have a replica later.
PRIMARY: Settings = {"log_bin": "binlog", **GTID}

#: Nothing here has to survive a power cut, and a start should take no longer than it must.
FAST: Settings = {
    "innodb_buffer_pool_size": "64M",
    "innodb_flush_log_at_trx_commit": 0,
    "innodb_doublewrite": 0,
    "sync_binlog": 0,
    "key_buffer_size": "1M",
    "loose_aria_pagecache_buffer_size": "8M",
    # MySQL's second protocol would have a port of its own.
    "loose_mysqlx": "OFF",
}


@dataclasses.dataclass
class LocalMysql(LocalServer):
    """One private server. Made by :meth:`create`, found again by :meth:`load`."""

    ACCOUNTS = ("mysql", "nobody")
    SOCKET_NAME = "server.sock"

    #: Who may do everything, and where TCP brings a client.
    user: t.ClassVar[str] = "root"
    host: t.ClassVar[str] = "127.0.0.1"

    program: pathlib.Path = pathlib.Path()
    is_mariadb: bool = True

    @property
    def socket(self) -> pathlib.Path:
        """The Unix socket."""
        return self.socket_dir / self.SOCKET_NAME

    @property
    def option_file(self) -> pathlib.Path:
        """The only configuration that the server reads."""
        return self.socket_dir / "server.cnf"

    # -- life ---------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        directory: AnyPath,
        port: int | None = None,
        settings: Settings | None = None,
        password: str | None = None,
        while_pid: int | None = None,
    ) -> LocalMysql:
        """Initialise a data directory and start a server on it; ``root`` may log in from this machine."""
        server = cls._prepare(directory, port, password, while_pid)
        try:
            server.configure({**FAST, **server._own_settings(), **(settings or {})})
            server._initialise()
            server._first_start(bool(settings and "skip_name_resolve" in settings))
        except BaseException:
            server.remove()
            raise
        return server

    def start(self, *options: str) -> None:
        """Start the server, with further options on its command line, and wait until it accepts connections."""
        # In a session of its own, so that no key on a terminal ends it.
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [self.program, f"--defaults-file={self.option_file}", *options],
                cwd="/",
                stdout=log,
                start_new_session=True,
                **identity_of(self._account()),
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._greets():
            if process.poll() is not None or time.monotonic() > deadline:
                self.kill9()
                reason = tail(self.log)
                raise ServerError(f"the server in {self.directory} did not start on port {self.port}:\n{reason}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server, gently at first and surely in the end; the files stay."""
        if not self._signal(signal.SIGTERM):
            self.kill9()

    def kill9(self) -> None:
        """End the server as a crash would."""
        if not self._signal(signal.SIGKILL):
            raise ServerError(f"the server in {self.directory} does not even end by SIGKILL")

    def running(self) -> bool:
        """Tell whether the server runs."""
        return bool(self._processes())

    # -- use ----------------------------------------------------------------------------------------------------

    def configure(self, settings: Settings) -> None:
        """Add settings to the option file, where the last of a name counts; they count from the next start."""
        with self.option_file.open("a", encoding="utf-8") as config:
            config.writelines(f"{name} = {_quote_option(value)}\n" for name, value in settings.items())

    def sql(self, statements: str) -> list[list[str]]:
        """Execute SQL as root with the client program, and return the rows as text."""
        client = _find("mariadb" if self.is_mariadb else "mysql", "mysql", beside=self.program)
        options = ("--batch", "--skip-column-names", "--default-character-set=utf8mb4", "--user=root")
        login = self._secret_file("client.cnf", f"[client]\npassword = {_quote_option(self.password)}\n")
        try:
            done = self._run(client, f"--defaults-file={login}", f"--socket={self.socket}", *options, "-e", statements)
        finally:
            login.unlink()
        if done.returncode:
            raise ServerError(f"{statements!r} failed on port {self.port}: {done.stdout.strip()}")
        return [line.split("\t") for line in done.stdout.splitlines()]

    def replica_of_this(
        self,
        directory: AnyPath,
        settings: Settings | None = None,
        while_pid: int | None = None,
        gtid: bool = True,
    ) -> LocalMysql:
        """Make a read-only replica, by GTID or by file and position, and return it when it replicates.

        It replays this server's life from the beginning, so this server must have been created with :data:`PRIMARY`.
        """
        logs = self.sql("SHOW BINARY LOGS") if self.sql("SELECT @@log_bin") == [["1"]] else []
        if not logs or not logs[0][0].endswith(".000001"):
            raise ServerError(f"the server on port {self.port} lacks its first binary log: create it with PRIMARY")
        settings = {**GTID, "read_only": 1, **(settings or {})}
        replica = type(self).create(directory, None, settings, self.password, while_pid)
        try:
            replica._replicate(self, logs[0][0], gtid)
        except BaseException:
            replica.remove()
            raise
        return replica

    # -- inside -------------------------------------------------------------------------------------------------

    @classmethod
    def _programs(cls) -> dict[str, t.Any]:
        program = _find("mariadbd", "mysqld")
        answer = subprocess.run(
            [program, "--no-defaults", "--version"], check=True, capture_output=True, text=True
        ).stdout
        match = re.search(r"Ver (\d+(?:\.\d+)*)", answer)
        return {
            "binaries": program.parent,
            "program": program,
            "is_mariadb": "mariadb" in answer.lower(),
            "version": match.group(1) if match else "0",
        }

    def _own_settings(self) -> dict[str, object]:
        """Return the settings that keep this server apart from every other."""
        self.option_file.write_text("[mysqld]\n", encoding="utf-8")
        return {
            "datadir": self.data,
            "socket": self.socket,
            "port": self.port,
            # Two servers of a replication must not have the same.
            "server_id": self.port,
            "bind_address": "127.0.0.1",
            "pid_file": self.socket_dir / "server.pid",
            # In a directory that servers share, one that starts deletes the temporary tables of the others.
            "tmpdir": self.socket_dir,
            "loose_secure_file_priv": self.socket_dir,
        }

    def _initialise(self) -> None:
        """Make the data directory, with a root that needs no password yet."""
        defaults = f"--defaults-file={self.option_file}"
        if self.is_mariadb:
            installer = _find("mariadb-install-db", "mysql_install_db", beside=self.program)
            options = ("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
            made = self._run(installer, defaults, *options, f"--datadir={self.data}")
        else:
            made = self._run(self.program, defaults, "--initialize-insecure")
        if made.returncode:
            raise ServerError(f"initialising {self.data} failed:\n{made.stdout.strip()}")

    def _first_start(self, numeric: bool) -> None:
        """Start the server; from its first connection on, root has the password and nobody else may log in."""
        # A server that resolves no names knows the local TCP client by nothing but its address.
        hosts = ("localhost", "127.0.0.1") if numeric else ("localhost",)
        statements = ["SET SESSION sql_log_bin = 0"]
        if self.is_mariadb:
            # The installer also lets root in from wherever, and anybody from here.
            statements += ["DELETE FROM mysql.global_priv WHERE User = '' OR User = 'root' AND Host <> 'localhost'"]
            statements += ["FLUSH PRIVILEGES"]
        for host in hosts:
            account = f"'root'@'{host}'"
            statements += [f"CREATE USER IF NOT EXISTS {account}", f"GRANT ALL ON *.* TO {account} WITH GRANT OPTION"]
            statements += [f"ALTER USER {account} IDENTIFIED BY '{_quote_text(self.password)}'"]
        first = self._secret_file("first.sql", "".join(f"{statement};\n" for statement in statements))
        try:
            self.start(f"--init-file={first}")
        finally:
            first.unlink()

    def _greets(self) -> bool:
        """Tell whether the server begins the protocol as one does that would let a client in."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(os.fspath(self.socket))
            # A packet's header is four bytes; the first of its body is the protocol's version, or 255 for an error.
            return client.recv(5)[4:] == b"\x0a"
        return False

    def _replicate(self, primary: LocalMysql, log_file: str, gtid: bool) -> None:
        """Start replication from a primary's first binary log on."""
        master, slave = ("MASTER", "SLAVE") if self.is_mariadb else ("SOURCE", "REPLICA")
        if not gtid:
            place = {"LOG_FILE": f"'{log_file}'", "LOG_POS": 4}
        elif self.is_mariadb:
            place = {"USE_GTID": "slave_pos"}
        else:
            place = {"AUTO_POSITION": 1}
        options = {
            "HOST": "'127.0.0.1'",
            "PORT": primary.port,
            "USER": "'root'",
            "PASSWORD": f"'{_quote_text(primary.password)}'",
            "CONNECT_RETRY": 1,
            **place,
        }
        words = [f"{master}_{name} = {value}" for name, value in options.items()]
        if not self.is_mariadb:
            # Or a MySQL replica would not send a password over a connection without TLS.
            words.append("GET_SOURCE_PUBLIC_KEY = 1")
        change = "CHANGE MASTER TO" if self.is_mariadb else "CHANGE REPLICATION SOURCE TO"
        self.sql(f"{change} {', '.join(words)}; START {slave}")

    def _processes(self) -> list[int]:
        """Return the processes that work on this server: they all name its option file."""
        mark = os.fsencode(f"--defaults-file={self.option_file}")
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def _signal(self, number: signal.Signals) -> bool:
        """Send a signal to the server and tell whether it is gone in time."""
        deadline = time.monotonic() + STOP_TIMEOUT
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while self._processes():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _end(self) -> None:
        # There is nothing to write to files that are about to go.
        self.kill9()


def _find(*names: str, beside: pathlib.Path | None = None) -> pathlib.Path:
    """Return the first program of these names, near another one if that is said."""
    places = [os.environ.get("PATH", os.defpath), *PLACES]
    if beside:
        near = beside.resolve().parent
        places = [os.fspath(near), os.fspath(near.parent / "bin"), os.fspath(near.parent / "scripts"), *places]
    for name in names:
        found = shutil.which(name, path=os.pathsep.join(places))
        if found:
            return pathlib.Path(found)
    raise ServerError(f"no {' or '.join(names)} found (looked in PATH, {', '.join(PLACES)})")


def _quote_text(text: str) -> str:
    """Return the inside of an SQL string."""
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _quote_option(value: object) -> str:
    """Return a value as an option file wants it."""
    text = str(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _start(options: argparse.Namespace) -> None:
    """Carry out the command ``start``."""
    settings = dict(options.set)
    if options.replica_of:
        server = LocalMysql.load(options.replica_of).replica_of_this(options.dir, settings, options.while_pid)
    else:
        server = LocalMysql.create(options.dir, options.port, settings, options.password, options.while_pid)
    name = "MariaDB" if server.is_mariadb else "MySQL"
    print(f"{name} {server.version} on 127.0.0.1:{server.port}, socket {server.socket}")


def main() -> int:
    """Run the command line."""
    parser, start = command_parser("Private MariaDB or MySQL servers for the demo, tests and benchmarks.", "root")
    start.add_argument("--replica-of", metavar="DIR", help="a replica of the server in DIR")
    return run_command(LocalMysql, parser.parse_args(), _start)


if __name__ == "__main__":
    sys.exit(main())
