# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Since when a transaction is open, which the server tells in the machine's time, in sessions of any time zone."""

from __future__ import annotations

import contextlib
import time
import typing as t

import pymysql
import pytest
from mysql_databases import Schema, fetch

from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.archive_queries import HOLDERS


@pytest.fixture
def session(log: Schema, zone: str) -> t.Any:
    """Return a session in another time zone that has little patience."""
    connection = log.connect()
    fetch(connection, f"SET SESSION time_zone = '{zone}', lock_wait_timeout = 1")
    return connection


@contextlib.contextmanager
def open_transaction(log: Schema, number: int) -> t.Iterator[t.Any]:
    """Give a connection whose transaction holds the log."""
    connection = log.connect(autocommit=False)
    fetch(connection, f"INSERT INTO item VALUES ({number}, 'open')")
    try:
        yield connection
    finally:
        connection.rollback()


@pytest.mark.parametrize("zone", ["+13:00", "-11:00"])
def test_a_transaction_that_is_open_for_long_is_known_in_any_time_zone(log: Schema, session: t.Any) -> None:
    vendor = "mariadb" if log.server.is_mariadb else "mysql"
    holders = HOLDERS[vendor].format(schema_name="'audit'", side_name="''")
    with open_transaction(log, 1) as holder:
        # Times are of whole seconds, and more than one is long.
        time.sleep(2.1)
        seconds = {number: seconds for number, _account, seconds in fetch(session, holders)}
        assert 1 < seconds[holder.thread_id()] < 60
        if vendor == "mysql":
            with pytest.raises(pymysql.MySQLError, match="a long transaction holds the log"):
                fetch(session, "CALL audit.await_writers()")
    if vendor == "mysql":
        assert any(not_waited_for(log, session, number) for number in range(2, 7))


def not_waited_for(log: Schema, session: t.Any, number: int) -> bool:
    """Tell whether a transaction that has only now begun lets others go on; on a slow machine it may not."""
    with open_transaction(log, number):
        # What the server says of transactions may be a tenth of a second old.
        time.sleep(0.3)
        try:
            fetch(session, "CALL audit.await_writers()")
        except pymysql.MySQLError:
            return False
        return True
