# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tests on MariaDB or MySQL: a local server, or with DBFLEET_TEST_MYSQL set one that somebody else runs."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
import running
from local_mysql import LocalMysql
from mysql_auditing import audit, install_trail
from mysql_databases import ExternalMysql, MysqlServer, Schema
from mysql_sealing import unsealed_log
from sealing import Sealer


@pytest.fixture(scope="session")
def trail(mysql_server: MysqlServer) -> MysqlServer:
    """Return the server with an audit trail on it."""
    with Schema(mysql_server) as scratch:
        install_trail(scratch)
    return mysql_server


@pytest.fixture
def shop(trail: MysqlServer) -> t.Iterator[Schema]:
    """Return an empty database on a server with a trail."""
    with Schema(trail) as made:
        yield made


@pytest.fixture
def without_trail(mysql_server: MysqlServer, new_mysql_server: t.Callable[..., LocalMysql]) -> t.Iterator[MysqlServer]:
    """Return a server that runs events and has no trail yet: a new one, or the one that somebody else runs."""
    if not isinstance(mysql_server, ExternalMysql):
        yield new_mysql_server(event_scheduler="ON")
        return
    with Schema(mysql_server) as scratch:
        scratch.execute("SET GLOBAL event_scheduler = ON")
        running.run_module("mysql_audit_triggers", **scratch.login)
        running.run_module("mysql_audit_trail", state="absent", drop_log=True, **scratch.login)
        yield mysql_server
        running.run_module("mysql_audit_triggers", **scratch.login)
        running.run_module("mysql_audit_trail", state="absent", drop_log=True, **scratch.login)
        # The tests to come expect one.
        install_trail(scratch)


@pytest.fixture
def log(trail: MysqlServer) -> t.Iterator[Schema]:
    """Return a database with one audited table, `item (id, name)`; the log is empty and has never been sealed."""
    with Schema(trail) as made:
        unsealed_log(made)
        made.execute("CREATE TABLE item (id INT PRIMARY KEY, name VARCHAR(40))")
        audit(made, "item")
        yield made
        unsealed_log(made)


@pytest.fixture
def sealer(log: Schema, tmp_path: pathlib.Path) -> Sealer:
    """Return a sealer of that log."""
    return Sealer(log.login, tmp_path, "mysql", policies=[{"tables": [f"{log.name}.item"]}])
