# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures: real servers, fresh databases on them, modules and playbooks run as Ansible runs them.

Servers are shared by the tests of a run, pytest-xdist's workers included, so tests use databases and roles of their
own and leave server-wide settings alone; a test that needs a server to itself takes ``new_server`` or
``new_mysql_server``. A MariaDB or MySQL server has one audit trail, so there each worker has a server to itself; or
all tests run on the server that DBFLEET_TEST_MYSQL describes, {"host": ..., "port": ..., "user": ..., "password": ...}.
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
from archiving import Archiver, old_log
from auditing import trail_database
from databases import Database
from local_mysql import LocalMysql
from local_postgresql import LocalPostgresql, standby_of
from local_server import STATE_FILE, LocalServer, Settings
from mysql_databases import ExternalMysql, MysqlServer, Schema

# Nothing here has to survive a power cut.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": 200}

ServerFactory = t.Callable[..., LocalPostgresql]
Server = t.TypeVar("Server", bound=LocalServer)


def run_owner() -> int:
    """Return the process whose end is the end of this run: pytest itself, or the one that started the workers."""
    return os.getppid() if "PYTEST_XDIST_TESTRUNUID" in os.environ else os.getpid()


def server_directories() -> str:
    """Return what the names of the directories of this run's shared servers begin with."""
    return os.path.join(tempfile.gettempdir(), f"dbfleet-tests-{os.getuid()}-{run_owner()}-")


def shared_server(
    name: str, kind: type[Server], settings: Settings | None = None, make: t.Callable[..., Server] | None = None
) -> Server:
    """Return the run's server of that name; whoever asks first makes it."""
    directory = pathlib.Path(server_directories() + name)
    directory.mkdir(exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise PermissionError(f"{directory} belongs to somebody else")
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if (directory / STATE_FILE).exists():
            return kind.load(directory)
        return (make or kind.create)(directory, settings=settings, while_pid=run_owner())
    finally:
        os.close(handle)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our own option."""
    parser.addoption("--thorough", action="store_true", help="also run the tests that are marked as thorough")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave thorough tests to those who ask for them; how many there are, the last line says."""
    if not config.getoption("--thorough"):
        left = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]


def pytest_unconfigure() -> None:
    """Take the servers down at once; without this (killed, say) each one's watcher does it."""
    if run_owner() == os.getpid():
        # A standby goes before its primary, which would wait for it.
        for state in sorted(glob.glob(f"{server_directories()}*/{STATE_FILE}"), reverse=True):
            directory = os.path.dirname(state)
            # The names of the fixtures below say which kind it is.
            kind = LocalMysql if "mysql" in os.path.basename(directory) else LocalPostgresql
            kind.load(directory).remove()


def servers_for_one_test(word: str, create: t.Callable[..., Server]) -> t.Iterator[t.Callable[..., Server]]:
    """Give a function that makes servers, and remove them afterwards; what it is given goes to ``create``."""
    servers: list[Server] = []

    def make(*arguments: t.Any, **options: t.Any) -> Server:
        directory = f"{server_directories()}{os.getpid()}-{word}-{len(servers)}"
        servers.append(create(directory, *arguments, **options))
        return servers[-1]

    yield make
    for server in reversed(servers):
        server.remove()


@pytest.fixture(scope="session")
def pg() -> LocalPostgresql:
    """Return a plain server."""
    return shared_server("pg", LocalPostgresql, FAST)


@pytest.fixture(scope="session")
def pg_pgaudit() -> LocalPostgresql:
    """Return a server that has pgaudit loaded."""
    return shared_server("pg_pgaudit", LocalPostgresql, {**FAST, "shared_preload_libraries": "pgaudit"})


@pytest.fixture(scope="session")
def pg_standby(pg: LocalPostgresql) -> LocalPostgresql:
    """Return a streaming standby of ``pg``; databases.wait_for_replay(pg, pg_standby) waits for it to catch up."""

    def make(directory: pathlib.Path, **options: t.Any) -> LocalPostgresql:
        return standby_of(pg, directory, **options)

    return shared_server("pg_standby", LocalPostgresql, FAST, make)


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

    def create(directory: str, **settings: object) -> LocalPostgresql:
        return LocalPostgresql.create(directory, settings={**FAST, **settings}, while_pid=run_owner())

    yield from servers_for_one_test("pg", create)


@pytest.fixture(scope="session")
def mysql_server() -> MysqlServer:
    """Return the server that DBFLEET_TEST_MYSQL describes; without that, a private one of this worker's."""
    external = ExternalMysql.from_environment()
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if external and worker:
        pytest.fail("the server of DBFLEET_TEST_MYSQL has one audit trail: run the tests without -n")
    return external or shared_server(f"mysql_{worker}", LocalMysql)


@pytest.fixture
def new_mysql_server() -> t.Iterator[t.Callable[..., LocalMysql]]:
    """Return a function that makes a private server for this test alone: ``new_mysql_server(name=value, ...)``.

    ``new_mysql_server(replica_of=primary, gtid=True, ...)`` makes a replica of one made with ``**PRIMARY``.
    """

    def create(
        directory: str, replica_of: LocalMysql | None = None, gtid: bool = True, **settings: object
    ) -> LocalMysql:
        if replica_of:
            return replica_of.replica_of_this(directory, settings, run_owner(), gtid)
        return LocalMysql.create(directory, settings=settings, while_pid=run_owner())

    yield from servers_for_one_test("mysql", create)


@pytest.fixture
def schema(mysql_server: MysqlServer) -> t.Iterator[Schema]:
    """Return an empty database on the MariaDB or MySQL server."""
    with Schema(mysql_server) as made:
        yield made


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


@pytest.fixture
def log(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database whose log has partitions of six past months, and tables of three categories of retention."""
    with old_log(pg) as database:
        yield database


@pytest.fixture
def archiver(log: Database, tmp_path: pathlib.Path) -> Archiver:
    """Return what archives such a log."""
    return Archiver(log, tmp_path)
