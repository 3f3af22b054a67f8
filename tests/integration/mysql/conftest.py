# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tests on MariaDB or MySQL: a local server, or with DBFLEET_TEST_MYSQL set one that somebody else runs."""

from __future__ import annotations

import typing as t

import pytest
from mysql_auditing import install_trail
from mysql_databases import MysqlServer, Schema


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
