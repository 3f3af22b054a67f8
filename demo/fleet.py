# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The demo's fleet: two PostgreSQL servers of its own, the inventory that names them, and ways to talk to them."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import secrets
import shutil
import string
import subprocess
import typing as t

import psycopg2
import psycopg2.extras
from local_postgresql import STATE_FILE, LocalPostgresql
from running import CACHE, ROOT, PlaybookResult, private_environment, run_playbook

SQL = ROOT / "demo" / "sql"
HOME = CACHE / "demo"
LOGS = HOME / "logs"
INVENTORY = HOME / "inventory"
NAMES = ("clinic", "bank")

#: Notices that only say what a script asked for stay out; pgbench must not measure the machine's disk.
OPTIONS = {"psql": "-c client_min_messages=warning", "pgbench": "-c synchronous_commit=off"}

Row = dict[str, t.Any]


class DemoError(Exception):
    """A step failed; ``log`` has the details."""

    def __init__(self, message: str, log: pathlib.Path | None = None) -> None:
        super().__init__(message)
        self.log = log


class Fleet:
    """Both servers. ``keep`` leaves them up after this process."""

    def __init__(self, keep: bool) -> None:
        self._watched = None if keep else os.getpid()
        self.servers: dict[str, LocalPostgresql] = {}
        self._password = secrets.token_urlsafe(16)

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Replace whatever an earlier run left, and write the inventory of what is there now."""
        stop_all()
        shutil.rmtree(HOME, ignore_errors=True)
        LOGS.mkdir(parents=True)
        for name in NAMES:
            self.servers[name] = LocalPostgresql.create(HOME / name, while_pid=self._watched)
        shutil.copytree(ROOT / "demo" / "inventory", INVENTORY)
        hosts = INVENTORY / "hosts.yml"
        places = {f"{name}_port": server.port for name, server in self.servers.items()}
        places.update({f"{name}_socket": json.dumps(str(server.socket_dir)) for name, server in self.servers.items()})
        hosts.write_text(string.Template(hosts.read_text("utf-8")).substitute(places), "utf-8")

    # -- programs -----------------------------------------------------------------------------------------------

    def psql(self, server: str, script: str, database: str, application: bool = False, **variables: str) -> None:
        """Run a file of demo/sql: as the superuser through the socket, or as the clinic's application over TCP."""
        where = self.servers[server]
        host, user = ("127.0.0.1", "clinic_app") if application else (str(where.socket_dir), "postgres")
        variables["app_password"] = self._password
        settings = [f"--set={name}={value}" for name, value in variables.items()]
        options = ("-X", "-q", "-v", "ON_ERROR_STOP=1", *settings, "-h", host, "-U", user, "-f", str(SQL / script))
        self._program(where, "psql", *options, database)

    def pgbench(self, database: str, *options: str) -> str:
        """Run pgbench on the bank and return what it printed."""
        where = self.servers["bank"]
        return self._program(where, "pgbench", "-n", "-h", str(where.socket_dir), "-U", "bank_app", *options, database)

    def _program(self, server: LocalPostgresql, program: str, *options: str) -> str:
        environment = {**private_environment(), "PGPORT": str(server.port), "PGPASSWORD": self._password}
        environment.update(PGAPPNAME="clinic-web" if program == "psql" else program, PGOPTIONS=OPTIONS[program])
        done = subprocess.run(
            [str(server.binaries / program), *options],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        log = LOGS / f"{program}.log"
        with log.open("a", encoding="utf-8") as file:
            file.write(done.stdout)
        if done.returncode:
            raise DemoError(f"{program} ended with {done.returncode}", log)
        return done.stdout

    # -- questions ----------------------------------------------------------------------------------------------

    def ask(self, server: str, database: str, query: str, user: str = "postgres", **values: t.Any) -> list[Row]:
        """Return the rows of a query as dictionaries."""
        with contextlib.closing(self._connect(server, database, user)) as connection, connection.cursor() as cursor:
            cursor.execute(query, values)
            return [dict(row) for row in cursor.fetchall()]

    def refusal(self, server: str, database: str, statement: str, user: str) -> str:
        """Try a statement that must fail, and return the server's words."""
        with contextlib.closing(self._connect(server, database, user)) as connection, connection.cursor() as cursor:
            try:
                cursor.execute(statement)
            except psycopg2.Error as error:
                return f"ERROR {error.diag.sqlstate}: {error.diag.message_primary}"
            connection.rollback()
        raise DemoError(f"{user} was not refused: {statement}")

    def _connect(self, server: str, database: str, user: str) -> psycopg2.extensions.connection:
        where = self.servers[server]
        return psycopg2.connect(
            host=str(where.socket_dir),
            port=where.port,
            user=user,
            dbname=database,
            cursor_factory=psycopg2.extras.RealDictCursor,
        )


def playbook(name: str, log_name: str, *options: str) -> PlaybookResult:
    """Run a playbook of the collection on the fleet, with its output in a log."""
    result = run_playbook(ROOT / "playbooks" / name, INVENTORY, *options, check=False)
    log = LOGS / log_name
    log.write_text(result.stdout + result.stderr, encoding="utf-8")
    if result.rc:
        raise DemoError(f"ansible-playbook {name} ended with {result.rc}", log)
    return result


def queries() -> dict[str, str]:
    """Return the queries of report.sql by name."""
    parts = re.split(r"^-- name: (\w+)\n", (SQL / "report.sql").read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def stop_all() -> bool:
    """Stop and delete the servers of this or an earlier run; tell whether there were any. The logs stay."""
    found = [HOME / name for name in NAMES if (HOME / name / STATE_FILE).exists()]
    for directory in found:
        LocalPostgresql.load(directory).remove()
    return bool(found)
