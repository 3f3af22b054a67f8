# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prepared statements and procedures write records whatever becomes of the log's table: they keep what they once read.

A column that takes its default from a sequence makes MariaDB crash there.
"""

from __future__ import annotations

import threading

import pymysql
import pytest
from mysql_auditing import audit, records
from mysql_databases import Schema, fetch

SESSIONS, CHANGES = 8, 100


@pytest.fixture
def items(shop: Schema) -> Schema:
    """Return a database with one audited table, and what changes it."""
    shop.execute("CREATE TABLE item (id INT PRIMARY KEY, amount INT NOT NULL)")
    shop.execute(f"INSERT INTO item VALUES {', '.join(f'({number}, 0)' for number in range(SESSIONS))}")
    shop.execute("CREATE PROCEDURE raise_amount() UPDATE item SET amount = amount + 1 WHERE id = 0")
    audit(shop)
    return shop


def test_many_sessions_execute_prepared_statements_at_once(items):
    failures = []

    def work(number):
        session = items.connect()
        try:
            fetch(session, f"PREPARE change_it FROM 'UPDATE item SET amount = amount + 1 WHERE id = {number}'")
            for _number in range(CHANGES):
                fetch(session, "EXECUTE change_it")
        except pymysql.Error as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(records(items)) == SESSIONS * CHANGES


@pytest.mark.parametrize(
    "statement", ["EXECUTE change_it", "CALL raise_amount()", "CALL audit.log_event('x', 'y', 'z', TRUE, NULL)"]
)
def test_a_session_goes_on_when_the_log_was_opened_anew(items, statement):
    session = items.connect()
    fetch(session, "PREPARE change_it FROM 'UPDATE item SET amount = amount + 1 WHERE id = 0'")
    last = items.value("SELECT COALESCE(MAX(id), 0) FROM audit.audit_log_data")
    for _number in range(3):
        fetch(session, statement)
        items.execute("FLUSH TABLES")
    ids = [row[0] for row in items.execute("SELECT id FROM audit.audit_log_data WHERE id > %s ORDER BY id", last)]
    assert len(ids) == 3
