# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
r"""MariaDB calls `[11e]` and `"\q"` JSON, no parser does: rows that hold such texts are shown, undone and shipped."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
import running
from mysql_auditing import audit
from mysql_databases import Schema
from shipping import SERVER, Shipper, lines_of

# What MySQL has in their place, which refuses them.
ODD, EVEN = '[11e, -, "\\q"]', '[11, 0, "q"]'


@pytest.fixture
def odd(log: Schema) -> str:
    """Return a value that the server takes for JSON; the log has a change by Ann with one in its images and context."""
    value = ODD if log.server.is_mariadb else EVEN
    log.execute("CREATE TABLE odd (v JSON, id INT PRIMARY KEY, n INT)")
    audit(log)
    log.execute("SET @audit_context = %s", f'{{"user": "ann", "x": {value}}}')
    log.execute("INSERT INTO odd VALUES (%s, 1, 1), ('[1]', 2, 2)", value)
    log.execute("SET @audit_context = NULL")
    return value


def assert_shown(event: dict[str, t.Any], value: str, readable: bool) -> None:
    """An event has the documents as they are in the log, as a text where no parser reads them."""
    context, image = event["context"], event["new_values"]
    if readable:
        assert (context["x"], image["v"]) == (json.loads(value), json.loads(value))
    else:
        assert value in context
        assert value in image
    assert (event["action"], event["table_name"], event["record_id"]) == ("INSERT", "odd", "1")


def test_events_are_shown_and_exported(log: Schema, odd: str, tmp_path: pathlib.Path):
    options = {**log.login, "table": f"{log.name}.odd", "record_id": "1"}
    (event,) = running.run_module("mysql_audit_events", **options)["events"]
    assert_shown(event, odd, odd == EVEN)
    exported = tmp_path / "events.jsonl"
    running.run_module("mysql_audit_events", **options, dest=str(exported))
    (line,) = exported.read_text().splitlines()
    assert_shown(json.loads(line), odd, odd == EVEN)


def test_an_undo_brings_them_back(log: Schema, odd: str):
    before = log.execute("SELECT * FROM odd ORDER BY id")
    at = str(log.value("SELECT CAST(UTC_TIMESTAMP(6) AS CHAR)"))
    log.execute("UPDATE odd SET v = '[2]' WHERE id = 1")
    log.execute("UPDATE odd SET v = %s WHERE id = 2", odd)
    log.execute("INSERT INTO odd VALUES (%s, 3, 3)", odd)
    log.execute("DELETE FROM odd WHERE id = 2")
    options = {**log.login, "table": f"{log.name}.odd", "to": at, "execute": True}
    done = running.run_module("mysql_audit_undo", **options)
    assert (len(done["records"]), done["skipped"]) == (3, [])
    assert log.execute("SELECT * FROM odd ORDER BY id") == before
    assert running.run_module("mysql_audit_undo", **options)["statements"] == []


def test_a_newer_odd_value_is_not_overwritten(log: Schema, odd: str):
    at = str(log.value("SELECT CAST(UTC_TIMESTAMP(6) AS CHAR)"))
    log.execute("UPDATE odd SET v = %s", odd)
    options = {**log.login, "table": f"{log.name}.odd", "to": at}
    _session, *statements = running.run_module("mysql_audit_undo", **options)["statements"]
    log.execute("UPDATE odd SET v = %s WHERE id = 2", odd.replace("11", "12"))
    newer = log.execute("SELECT * FROM odd ORDER BY id")
    for statement in statements:
        log.execute(statement)
    assert log.execute("SELECT * FROM odd ORDER BY id") == newer


def test_what_is_searched_for_is_shipped_beside_them(log: Schema, odd: str, tmp_path: pathlib.Path):
    assert odd
    shipper = Shipper(log.login, tmp_path, "mysql", policies=[{"tables": [f"{log.name}.*"]}])
    (tmp_path / "shipped").mkdir()
    shipper.seal()
    shipper.ship(url=str(tmp_path / "shipped"))
    place = tmp_path / "shipped" / SERVER / "audit"
    first, second = (line for path in sorted(place.iterdir()) for line in lines_of(path))
    assert first.keys() == second.keys()
    assert {name: first[name] for name in ("action", "schema_name", "table_name", "record_id")} == {
        "action": "INSERT",
        "schema_name": log.name,
        "table_name": "odd",
        "record_id": "1",
    }
    assert (first["changed_by"], first["db_user"] != "", first["changed_at"] != "") == ("ann", True, True)
    assert odd in first["row"]
    assert shipper.check(place)["problems"] == []
