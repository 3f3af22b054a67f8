# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An archive's rows come back into a table beside the log, each as it was."""

from __future__ import annotations

import contextlib
import pathlib
import typing as t

import psycopg2.errors
import pytest
import running
from archiving import Archiver, add_old, months_ago, period
from databases import Database, connect, fetch, unique
from local_postgresql import LocalPostgresql

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError

#: A row with all that a row can have, and values that are easily made others.
_ODD = """
INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, record_id, old_values,
  new_values, hidden_changes, changed_by, db_user, client_ip, application_name, context, policy_id)
VALUES (%s::timestamptz + interval '1.000001 s', '18446744073709551615', 'UPDATE', 'odd.schema', E'tab\tle\\\\',
  '["a", 1]', '{"n": 12345678901234567890.123400, "e": 1e400, "d": 1.0}', 'null', '{a,"b c",NULL}',
  E'ä "\\\\ \U0001f600\n', 'u',
  '10.1.2.0/24', '', '{"x": null}', NULL)
"""

_TEXT = "SELECT audit.canonical(r) FROM audit.{} AS r ORDER BY id"


@pytest.fixture
def log(log: Database) -> Database:
    """Return a database with a log of six months, with rows in one that is due."""
    add_old(log, 5, 40)
    log.execute(_ODD.replace("%s", f"'{months_ago(5)}'"))
    return log


def test_every_row_is_what_it_was(log: Database, archiver: Archiver) -> None:
    before = log.execute(f"SELECT r::text FROM audit.{period(5)} AS r ORDER BY id")
    archiver.run()
    first = archiver.restore(period(5))
    assert first == {
        "changed": True,
        "table": f"restored_{period(5)}",
        "rows": 41,
        "first_day": months_ago(5).isoformat(),
        "end_day": months_ago(4).isoformat(),
    }
    table = f"audit.restored_{period(5)}"
    assert log.execute(f"SELECT r::text FROM {table} AS r ORDER BY id") == before
    assert not archiver.restore(period(5))["changed"]
    assert archiver.problems() == []
    assert not archiver.run()["changed"]


def test_who_may_read_the_log_may_read_it_and_nobody_else(log: Database, archiver: Archiver) -> None:
    auditor, stranger = log.create_role("auditor"), log.create_role("stranger")
    log.execute(f"GRANT USAGE ON SCHEMA audit TO {auditor}, {stranger}")
    log.execute(f"GRANT SELECT ON audit.audit_log TO {auditor}")
    archiver.run()
    archiver.restore(period(5), table="october")
    assert log.execute("SELECT count(*) FROM audit.october", user=auditor) == [(41,)]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        log.execute("SELECT count(*) FROM audit.october", user=stranger)


def test_check_mode_verifies_and_makes_no_table(log: Database, archiver: Archiver) -> None:
    archiver.run()
    assert archiver.restore(period(5), _check_mode=True)["changed"]
    assert log.value("SELECT to_regclass(%s)", f"audit.restored_{period(5)}") is None


def test_an_archive_that_was_changed_is_not_restored(log: Database, archiver: Archiver) -> None:
    archiver.run()
    path = archiver.place / f"{period(5)}.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-8] + b"12345678")
    with pytest.raises(AuditError, match="read back, is not what was written"):
        archiver.restore(period(5))
    assert log.value("SELECT to_regclass(%s)", f"audit.restored_{period(5)}") is None


def test_a_run_that_was_cut_off_is_begun_again(log: Database, archiver: Archiver) -> None:
    archiver.run()
    for calls in (1, 2, 3):
        archiver.cut = calls
        with pytest.raises(ConnectionAbortedError):
            archiver.restore(period(5))
    archiver.cut = None
    assert archiver.restore(period(5))["changed"]
    assert log.value(f"SELECT count(DISTINCT id) FROM audit.restored_{period(5)}") == 41


def test_a_table_that_is_not_ours_stays_as_it_is(log: Database, archiver: Archiver) -> None:
    add_old(log, 4, 3)
    archiver.run()
    with pytest.raises(AuditError, match="the table policy is there, and no restore has made it"):
        archiver.restore(period(5), table="policy")
    archiver.restore(period(5), table="looking")
    with pytest.raises(AuditError, match="the table audit_log_x would look like a part of the log"):
        archiver.restore(period(5), table="audit_log_x")
    with pytest.raises(AuditError, match="the table looking has other rows: "):
        archiver.restore(period(4), table="looking")


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_bytes_come_back_in_a_database_of_any_encoding(
    pg: LocalPostgresql, tmp_path: pathlib.Path, encoding: str
) -> None:
    name = unique("encoded")
    with contextlib.closing(connect(pg, "postgres")) as connection:
        fetch(connection, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    log = Database(pg, name, template=None)
    try:
        running.run_module("postgresql_audit_trail", **log.login)
        log.execute("CALL audit.maintain_partitions(%s)", months_ago(6))
        # No UTF-8, and what COPY and JSON write otherwise.
        there = f"convert_from('\\x4772fc6e5c0922', '{encoding}')"
        log.execute(
            "INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, record_id, new_values, changed_by, "
            f"db_user) SELECT '{months_ago(5)}', '1', 'INSERT', t, jsonb_build_object('a', t), t, 'u' FROM {there} AS t"
        )
        rows = "SELECT md5(string_agg(r::text, '' ORDER BY id)) FROM audit.{} AS r"
        before = log.value(rows.format(period(5)))
        archiver = Archiver(log, tmp_path)
        archiver.run()
        assert archiver.restore(period(5))["rows"] == 1
        assert log.value(rows.format(f"restored_{period(5)}")) == before
    finally:
        log.drop()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"archive": ""}, "archive is missing"),
        ({"public_key": []}, "public_key is missing"),
        ({"archive": "audit_log_1999_01"}, "there is no archive audit_log_1999_01 in "),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_server_is_asked(
    tmp_path: pathlib.Path, options: dict[str, t.Any], said: str
) -> None:
    archiver = Archiver.of_nothing(tmp_path)
    with pytest.raises(AuditError, match=said):
        archiver.restore(**{"archive": "audit_log_2025_01", **options})
    assert archiver.calls == []
