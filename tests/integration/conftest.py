# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures: real PostgreSQL servers, fresh databases on them, modules and playbooks run as Ansible runs them.

Servers are shared by all tests of a run, pytest-xdist's workers included, so tests use databases and roles of their
own and leave server-wide settings alone; a test that needs a server to itself takes ``new_server``.
"""

from __future__ import annotations

import fcntl
import glob
import os
import pathlib
import sys
import tempfile
import typing as t

import pytest
import running
from auditing import trail_database
from databases import Database
from local_postgresql import STATE_FILE, LocalPostgresql, standby_of

# Nothing here has to survive a power cut.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": 200}

ServerFactory = t.Callable[..., LocalPostgresql]


def run_owner() -> int:
    """Return the process whose end is the end of this run: pytest itself, or the one that started the workers."""
    return os.getppid() if "PYTEST_XDIST_TESTRUNUID" in os.environ else os.getpid()


def server_directories() -> str:
    """Return what the names of the directories of this run's shared servers begin with."""
    return os.path.join(tempfile.gettempdir(), f"dbfleet-tests-{os.getuid()}-{run_owner()}-")


def shared_server(name: str, make: ServerFactory, **settings: object) -> LocalPostgresql:
    """Return the run's server of that name; whoever asks first makes it."""
    directory = pathlib.Path(server_directories() + name)
    directory.mkdir(exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise PermissionError(f"{directory} belongs to somebody else")
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if (directory / STATE_FILE).exists():
            return LocalPostgresql.load(directory)
        return make(directory, settings={**FAST, **settings}, while_pid=run_owner())
    finally:
        os.close(handle)


def pytest_unconfigure() -> None:
    """Take the servers down at once; without this (killed, say) each one's watcher does it."""
    if run_owner() == os.getpid():
        # A standby goes before its primary, which would wait for it.
        for state in sorted(glob.glob(f"{server_directories()}*/{STATE_FILE}"), reverse=True):
            LocalPostgresql.load(os.path.dirname(state)).remove()


@pytest.fixture(scope="session")
def pg() -> LocalPostgresql:
    """Return a plain server."""
    return shared_server("pg", LocalPostgresql.create)


@pytest.fixture(scope="session")
def pg_pgaudit() -> LocalPostgresql:
    """Return a server that has pgaudit loaded."""
    return shared_server("pg_pgaudit", LocalPostgresql.create, shared_preload_libraries="pgaudit")


@pytest.fixture(scope="session")
def pg_standby(pg: LocalPostgresql) -> LocalPostgresql:
    """Return a streaming standby of ``pg``; databases.wait_for_replay(pg, pg_standby) waits for it to catch up."""

    def make(directory: pathlib.Path, **options: t.Any) -> LocalPostgresql:
        return standby_of(pg, directory, **options)

    return shared_server("pg_standby", make)


@pytest.fixture(scope="module")
def own_server() -> t.Iterator[LocalPostgresql]:
    """Return a server for the tests of one file, which change what belongs to the whole server."""
    directory = f"{server_directories()}{os.getpid()}-own"
    server = LocalPostgresql.create(directory, settings=FAST, while_pid=run_owner())
    yield server
    server.remove()


@pytest.fixture
def new_server() -> t.Iterator[ServerFactory]:
    """Return a function that makes a server for this test alone: ``new_server(name=value, ...)``."""
    servers: list[LocalPostgresql] = []

    def make(**settings: object) -> LocalPostgresql:
        directory = f"{server_directories()}{os.getpid()}-{len(servers)}"
        servers.append(LocalPostgresql.create(directory, settings={**FAST, **settings}, while_pid=run_owner()))
        return servers[-1]

    yield make
    for server in servers:
        server.remove()


@pytest.fixture
def new_database() -> t.Iterator[t.Callable[..., Database]]:
    """Return a function that makes a database on a server: ``new_database(server, name=None)``."""
    databases: list[Database] = []

    def make(server: LocalPostgresql, name: str | None = None) -> Database:
        databases.append(Database(server, name))
        return databases[-1]

    yield make
    for database in reversed(databases):
        database.drop()


@pytest.fixture
def db(pg: LocalPostgresql, new_database: t.Callable[..., Database]) -> Database:
    """Return an empty database on the plain server."""
    return new_database(pg)


@pytest.fixture
def trail(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database on the plain server that has the audit trail and its partitions, and no audited table."""
    with trail_database(pg) as database:
        yield database


@pytest.fixture
def db_pgaudit(pg_pgaudit: LocalPostgresql, new_database: t.Callable[..., Database]) -> Database:
    """Return an empty database on the server with pgaudit."""
    return new_database(pg_pgaudit)


@pytest.fixture
def run_module() -> t.Callable[..., running.ModuleResult]:
    """Return running.run_module: ``run_module("postgresql_audit_info", **db.login)``."""
    return running.run_module


@pytest.fixture
def playbook() -> t.Callable[..., running.PlaybookResult]:
    """Return running.run_playbook: ``playbook("dbfleet.audit.site", {"postgresql": {"hosts": {...}}}, "--diff")``."""
    return running.run_playbook


@pytest.fixture
def local_host() -> dict[str, t.Any]:
    """Return the inventory variables of a host that is this machine, with this environment's Python."""
    return {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
