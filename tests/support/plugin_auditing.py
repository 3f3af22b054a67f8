# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A MariaDB server and what its server_audit has written, for tests."""

from __future__ import annotations

import contextlib
import re
import time
import typing as t

import pytest
import running
from local_mysql import LocalMysql
from mysql_databases import connect, fetch

#: The option file that the module makes.
FILE = "zz-dbfleet-audit.cnf"

# timestamp, server's host, user, host, connection, query, operation, database, object, return code
_RECORD = re.compile(
    r"\d{8} [\d:]{8},[^,]*,(?P<user>[^,]*),[^,]*,\d+,\d+,(?P<operation>\w+),[^,]*,(?P<text>.*),(?P<code>\d*)"
)


class Record(t.NamedTuple):
    """A line of the log."""

    operation: str
    user: str
    text: str
    code: int


class Plugin:
    """A server, its option files, its log, and the module."""

    def __init__(self, server: LocalMysql, include: bool = True) -> None:
        if not server.is_mariadb:
            pytest.skip("only MariaDB has server_audit")
        self.server = server
        self.folder = server.socket_dir / "conf.d"
        self.folder.mkdir(mode=0o755)
        #: What a person wrote.
        self.other = self.folder / "50-server.cnf"
        self.file = self.folder / FILE
        if include:
            with server.option_file.open("a", encoding="utf-8") as opened:
                opened.write(f"!includedir {self.folder}\n")

    @property
    def login(self) -> dict[str, t.Any]:
        """The options that bring the module to this server as root."""
        return {
            "login_user": self.server.user,
            "login_password": self.server.password,
            "login_unix_socket": str(self.server.socket),
        }

    def present(self, **options: t.Any) -> running.ModuleResult:
        """Run the module."""
        return running.run_module("mysql_audit_plugin", **{**self.login, **options})

    def absent(self, **options: t.Any) -> running.ModuleResult:
        """Run the module to take the plugin out."""
        return self.present(state="absent", **options)

    def execute(self, statement: str) -> list[tuple[t.Any, ...]]:
        """Execute SQL as root, in a connection of its own; return when the plugin has written its record."""
        with contextlib.closing(connect(self.server)) as connection:
            rows = fetch(connection, statement)
            # The server answers before it tells the plugin, but takes the next command only after that.
            connection.ping(reconnect=False)
            return rows

    def value(self, statement: str) -> t.Any:
        """Return the first column of the first row."""
        return self.execute(statement)[0][0]

    def loaded(self) -> bool:
        """Tell whether the plugin works."""
        query = (
            "SELECT 1 FROM information_schema.plugins WHERE plugin_name = 'SERVER_AUDIT' AND plugin_status = 'ACTIVE'"
        )
        return bool(self.execute(query))

    def text(self, name: str = "server_audit.log") -> str:
        """Return the log as it is."""
        return (self.server.data / name).read_text(encoding="utf-8")

    def log(self) -> list[Record]:
        """Return the log, oldest record first."""
        found = [_RECORD.fullmatch(line) for line in self.text().splitlines()]
        return [
            Record(match["operation"], match["user"], _bare(match["text"]), int(match["code"] or 0))
            for match in found
            if match
        ]

    def wait_for(self, operation: str) -> None:
        """Wait for a record of an operation: the server refuses a client before it tells the plugin."""
        until = time.monotonic() + 20
        while not any(record.operation == operation for record in self.log()):
            assert time.monotonic() < until, f"no {operation} in the log of {self.server.data}"
            time.sleep(0.05)

    def everything(self) -> tuple[t.Any, ...]:
        """Return all that the module could have changed."""
        variables = self.execute("SHOW GLOBAL VARIABLES LIKE 'server_audit%'")
        text = self.file.read_text(encoding="utf-8") if self.file.exists() else None
        return self.loaded(), variables, text


def _bare(text: str) -> str:
    return text[1:-1].replace("\\'", "'").replace("\\\\", "\\") if text.startswith("'") else text
