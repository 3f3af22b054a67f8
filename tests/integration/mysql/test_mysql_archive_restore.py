# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An archive's rows come back into a table beside the log, each as it was."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from archiving import months_ago, period
from mysql_archiving import MysqlArchiver, add_old, old_log
from mysql_databases import MysqlServer, Schema

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError

_ODD = """
INSERT INTO audit.audit_log_data (changed_at, action, schema_name, table_name, record_id, old_values, new_values,
  changed_columns, changed_by, db_user, client_ip, context)
VALUES (%s, 'UPDATE', 'odd.schema', 'tab\tle\\\\', '["a", 1]', %s, %s,
  '["n"]', 'x\ny', 'u', '10.1.2.3', 'null')
"""


_IMAGE = '{"n": 1.5, "e": 1e300, "s": "ä \\n 😀"'
#: MariaDB calls this JSON.
_ONLY_MARIADB = ', "x": [11e, -], "y": "\\q", "z": 1. '


@pytest.fixture
def archiver(trail: MysqlServer, tmp_path: pathlib.Path) -> t.Iterator[MysqlArchiver]:
    """Return what archives a log with odd rows of one month, and has."""
    with old_log(trail) as log:
        add_old(log, 5, 40)
        old = _IMAGE + (_ONLY_MARIADB if log.server.is_mariadb else "") + "}"
        log.execute(_ODD, months_ago(5), old, '{ "spaces":\t[1 , 2 ]\n}')
        archiver = MysqlArchiver(log, tmp_path)
        archiver.expected = rows(log, "audit_log_data")
        archiver.run()
        try:
            yield archiver
        finally:
            log.execute(f"DROP TABLE IF EXISTS audit.restored_{period(5)}, audit.looking")


def rows(log: Schema, table: str) -> list[t.Any]:
    """Return all rows of that month in a table of the trail."""
    return log.execute(f"SELECT * FROM audit.{table} WHERE changed_at < %s ORDER BY id", months_ago(4))


def test_every_row_is_what_it_was(archiver: MysqlArchiver) -> None:
    first = archiver.restore(period(5))
    assert (first["changed"], first["rows"], first["table"]) == (True, 41, f"restored_{period(5)}")
    assert rows(archiver.log, f"restored_{period(5)}") == archiver.expected
    assert not archiver.restore(period(5))["changed"]
    assert archiver.problems() == []
    assert not archiver.run()["changed"]


def test_a_run_that_was_cut_off_is_begun_again(archiver: MysqlArchiver) -> None:
    for calls in (1, 2, 3):
        archiver.cut = calls
        with pytest.raises(ConnectionAbortedError):
            archiver.restore(period(5))
    archiver.cut = None
    assert archiver.restore(period(5))["changed"]
    assert rows(archiver.log, f"restored_{period(5)}") == archiver.expected


def test_a_table_that_is_not_ours_stays_as_it_is(archiver: MysqlArchiver) -> None:
    with pytest.raises(AuditError, match="the table policy is there, and no restore has made it"):
        archiver.restore(period(5), table="policy")
