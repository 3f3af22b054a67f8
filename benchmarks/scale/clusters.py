# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Many small PostgreSQL clusters, as one host of an inventory each."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
import sys
import tempfile
import typing as t
from concurrent.futures import ThreadPoolExecutor

import psycopg2
from local_server import server_account
from postgresql_programs import ACCOUNTS, find_binaries, quote_setting, run_program, server_version

DATABASE = "shop"
TABLES = 10
_FIRST_PORT = 20001
_SETTINGS = {
    # Each server is one of hundreds on this machine.
    "listen_addresses": "",
    "shared_buffers": "2MB",
    "max_connections": 10,
    "autovacuum": "off",
    "max_logical_replication_workers": 0,
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "min_wal_size": "2MB",
    "max_wal_size": "4MB",
    # Nothing here has to survive a power cut.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}
_MAKE_TABLES = f"""DO $$BEGIN FOR n IN 1 .. {TABLES} LOOP EXECUTE format(
    'CREATE TABLE public.t%s (id int PRIMARY KEY, name text, email text, phone text, city text, amount numeric, '
    'note text, at timestamptz)', n); END LOOP; END$$"""
_WORK = "SET app.\"user\" = %s; INSERT INTO public.t1 (id, name) SELECT n, 'x' FROM generate_series(1, %s) AS n"
_POLICIES = "SELECT to_jsonb(p) - 'valid_from' FROM audit.policy AS p ORDER BY policy_id"


class Clusters:
    """Clusters with a database of ten tables each; all that they have is below a directory that remove() deletes."""

    def __init__(self, number: int) -> None:
        self.numbers = range(1, number + 1)
        self.binaries = find_binaries()
        self.version = ".".join(str(part) for part in server_version(self.binaries))
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="dbfleet-scale-"))
        account = server_account(ACCOUNTS)
        if account:
            os.chown(self.home, account.pw_uid, account.pw_gid)

    # -- life ----------------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Make the cluster that all others are copies of."""
        template = self._data(0)
        self._run("initdb", "-D", template, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
                  "--wal-segsize=1", "--auth=trust")  # fmt: skip
        settings = {**_SETTINGS, "unix_socket_directories": self.home}
        with (template / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = {quote_setting(value)}\n" for name, value in settings.items())
        self._start(0)
        self.execute(0, f"CREATE DATABASE {DATABASE}", database="postgres")
        self.execute(0, _MAKE_TABLES)
        self._stop(0)

    def start(self) -> None:
        """Copy and start all of them; those of before are gone then."""
        self.stop()
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(self._copy, self.numbers))
            list(threads.map(self._start, self.numbers))

    def stop(self) -> None:
        """Stop and delete all copies."""
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(self._stop, self.numbers))
        for number in self.numbers:
            shutil.rmtree(self._data(number), ignore_errors=True)

    def remove(self) -> None:
        """Stop all and delete everything."""
        self._stop(0)
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    # -- use -----------------------------------------------------------------------------------------------------------

    def inventory(self, numbers: t.Iterable[int]) -> dict[str, t.Any]:
        """Return an inventory of some of them; every tenth leaves tables without a policy, which the report finds."""
        hosts = {
            f"host{number:03}": {
                "postgresql_audit_login": {"login_unix_socket": str(self.home), "login_port": _port(number)},
                "postgresql_audit_databases": [
                    {"name": DATABASE, "policies": [{"tables": ["public.t1"] if number % 10 == 0 else ["public.*"]}]}
                ],
            }
            for number in numbers
        }
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "pgaudit_enabled": False,
            "postgresql_audit_become": False,
            "postgresql_audit_schedule": "none",
        }
        return {"postgresql": {"hosts": hosts, "vars": variables}}

    def work(self) -> None:
        """Change rows in each, another number of them by another user."""
        for number in self.numbers:
            self.execute(number, _WORK, f"user{number % 7}", number)

    def states(self) -> list[str]:
        """Return a digest of each: all objects of the database with their rights, and the stored policies."""
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return list(threads.map(self._state, self.numbers))

    def execute(self, number: int, statement: str, *args: t.Any, database: str = DATABASE) -> list[tuple[t.Any, ...]]:
        """Execute SQL in one of them."""
        with contextlib.closing(
            psycopg2.connect(host=str(self.home), port=_port(number), user="postgres", dbname=database)
        ) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, args or None)
                return cursor.fetchall() if cursor.description else []

    # -- inside --------------------------------------------------------------------------------------------------------

    def _state(self, number: int) -> str:
        server = ("-h", self.home, "-p", str(_port(number)), "-U", "postgres")
        dump = self._run("pg_dump", "--schema-only", *server, DATABASE)
        # pg_dump puts a random word into these.
        lines = [line for line in dump.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]
        text = "\n".join([*lines, *(str(row) for row in self.execute(number, _POLICIES))])
        return hashlib.sha256(text.encode()).hexdigest()

    def _data(self, number: int) -> pathlib.Path:
        return self.home / f"data{number}"

    def _copy(self, number: int) -> None:
        done = run_program("cp", "-a", "--reflink=auto", self._data(0), self._data(number))
        if done.returncode:
            raise SystemExit(f"benchmarks/scale: {done.stdout}")

    def _start(self, number: int) -> None:
        self._run("pg_ctl", "start", "-w", "-D", self._data(number), "-l", self._data(number) / "log",
                  "-o", f"-p {_port(number)}")  # fmt: skip

    def _stop(self, number: int) -> None:
        if (self._data(number) / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "-D", self._data(number), "-m", "fast")

    def _run(self, program: str, *arguments: str | os.PathLike[str]) -> str:
        done = run_program(self.binaries / program, *arguments)
        if done.returncode:
            raise SystemExit(f"benchmarks/scale: {program}: {done.stdout}")
        return done.stdout


def _port(number: int) -> int:
    return _FIRST_PORT + number
