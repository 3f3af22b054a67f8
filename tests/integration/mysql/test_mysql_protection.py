# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What nobody may do with the log, and what becomes of whoever does it to a trigger."""

from __future__ import annotations

import contextlib
import typing as t

import pymysql
import pytest
import running
from mysql_auditing import audit, records, rollout, verification
from mysql_databases import Schema, connect, fetch


@pytest.fixture
def people(shop: Schema) -> Schema:
    """Return a database with one audited table and one change on record."""
    shop.execute("CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(20))")
    audit(shop)
    shop.execute("INSERT INTO people VALUES (1, 'ann')")
    return shop


def error_of(schema: Schema, statement: str, user: str | None = None) -> int:
    """Return the number of the error that a statement must end with."""
    with pytest.raises(pymysql.err.MySQLError) as caught:
        schema.execute(statement, user=user)
    return int(caught.value.args[0])


def trail_options(schema: Schema, **options: t.Any) -> dict[str, t.Any]:
    return {**schema.login, **options}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit.audit_log_data SET changed_by = 'nobody'",
        "DELETE FROM audit.audit_log_data",
        "UPDATE audit.audit_log SET changed_by = 'nobody'",
        "DELETE FROM audit.audit_log",
    ],
)
def test_not_even_an_administrator_changes_the_log_by_accident(people, statement):
    assert error_of(people, statement) == 1644
    assert records(people)[0].changed_by != "nobody"


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM audit.audit_log_data",
        "SELECT * FROM audit.audit_log",
        "SELECT * FROM audit.hash_key",
        "INSERT INTO audit.audit_log_data (changed_at, action, changed_by, db_user) VALUES (NOW(), 'EVENT', 'x', 'x')",
        "UPDATE audit.audit_log_data SET changed_by = 'nobody'",
        "DELETE FROM audit.audit_log_data",
        "TRUNCATE TABLE audit.audit_log_data",
        "ALTER TABLE audit.audit_log_data TRUNCATE PARTITION p_future",
        "ALTER TABLE audit.audit_log_data EXCHANGE PARTITION p_future WITH TABLE people",
        "DROP TABLE audit.audit_log_data",
        "DROP DATABASE audit",
        "CALL audit.maintain_partitions()",
        "CALL audit.log_event('LOGIN', 'x', 'x', TRUE, NULL)",
        "SELECT audit.keyed_digest('x')",
        "CREATE DEFINER = audit_writer@localhost VIEW stolen AS SELECT * FROM audit.audit_log_data",
        "CREATE DEFINER = audit_writer@localhost PROCEDURE stolen() INSERT INTO audit.audit_log_data (id) VALUES (1)",
    ],
)
def test_an_application_with_all_rights_on_its_own_database_cannot_touch_the_trail(people, statement):
    user = people.create_account()
    people.execute("INSERT INTO people VALUES (2, 'bea')", user=user)
    assert error_of(people, statement, user) in (1044, 1142, 1143, 1227, 1370)
    assert len(records(people)) == 2


def test_applications_may_set_the_context_and_log_events_and_nothing_else(people):
    user = people.create_account()
    running.run_module("mysql_audit_trail", **trail_options(people, applications=[user]))
    people.execute('CALL audit.set_context(\'{"user": "ann"}\')', user=user)
    people.execute("CALL audit.log_event('export', %s, '7', FALSE, '{\"rows\": 3}')", people.name, user=user)
    event = people.execute(
        "SELECT action, record_id, JSON_VALUE(new_values, '$.event'), JSON_EXTRACT(new_values, '$.success'), "
        "JSON_EXTRACT(new_values, '$.rows'), db_user FROM audit.audit_log WHERE table_name = %s",
        people.name,
    )
    assert event == [("EVENT", "7", "export", "false", "3", user)]
    assert error_of(people, "SELECT * FROM audit.audit_log", user) == 1142
    assert error_of(people, "DELETE FROM audit.audit_log_data", user) == 1142


def test_readers_may_read_and_nothing_else(people):
    user = people.create_account("reader", grants="")
    account = f"{user}@%"
    running.run_module("mysql_audit_trail", **trail_options(people, readers=[account]))
    with contextlib.closing(connect(people.server, user)) as connection:
        for view in ("audit_log", "audit_logs", "audit_history", "policy"):
            assert fetch(connection, f"SELECT * FROM audit.{view} LIMIT 1")
        for statement in ("DELETE FROM audit.audit_log", "SELECT * FROM audit.hash_key"):
            with pytest.raises(pymysql.err.OperationalError):
                fetch(connection, statement)
    again = running.run_module("mysql_audit_trail", **trail_options(people, readers=[account]))
    assert not again.changed
    running.run_module("mysql_audit_trail", **people.login)
    with contextlib.closing(connect(people.server, user)) as connection, pytest.raises(pymysql.err.OperationalError):
        fetch(connection, "SELECT * FROM audit.audit_log")


def test_nobody_can_log_in_as_the_accounts_of_the_trail(people):
    for name in ("audit_writer", "audit_owner"):
        with pytest.raises(pymysql.err.OperationalError) as caught:
            connect(people.server, name, password="")
        assert caught.value.args[0] in (1045, 3118, 4151)


def test_the_event_that_a_log_entry_makes_cannot_pass_for_a_change(people):
    """log_event() writes the action EVENT and the login of whoever calls it, whatever it is told."""
    people.execute("SET @audit_user = 'somebody else'")
    people.execute("CALL audit.log_event('DELETE', %s, '1', TRUE, NULL)", people.name)
    people.execute("SET @audit_user = NULL")
    rows = people.execute("SELECT action, db_user FROM audit.audit_log WHERE table_name = %s", people.name)
    assert rows == [("EVENT", people.server.user)]


def test_a_trigger_that_its_owner_drops_is_reported_and_put_back(people):
    user = people.create_account()
    policy = {"tables": [f"{people.name}.*"]}
    (name,) = people.execute(
        "SELECT trigger_name FROM information_schema.triggers "
        "WHERE trigger_schema = %s AND event_manipulation = 'UPDATE'",
        people.name,
    )[0]
    people.execute(f"DROP TRIGGER `{name}`", user=user)
    found = verification(people, policy)
    assert [problem["type"] for problem in found["problems"]] == ["missing"]
    assert f"{people.name}.people: the trigger for AFTER UPDATE is missing" in found["problems"][0]["detail"]
    again = rollout(people, policy)
    assert again["changed_tables"] == [f"{people.name}.people"]
    assert verification(people, policy)["valid"]
    people.execute("UPDATE people SET name = 'bea'")
    assert records(people)[-1].action == "UPDATE"


def test_a_trigger_that_was_made_to_look_like_ours_is_found(people):
    (name,) = people.execute(
        "SELECT trigger_name FROM information_schema.triggers "
        "WHERE trigger_schema = %s AND event_manipulation = 'UPDATE'",
        people.name,
    )[0]
    people.execute(f"DROP TRIGGER `{name}`")
    people.execute(f"CREATE TRIGGER `{name}` AFTER UPDATE ON people FOR EACH ROW BEGIN END")
    policy = {"tables": [f"{people.name}.*"]}
    assert [problem["type"] for problem in verification(people, policy)["problems"]] == ["altered"]
    rollout(people, policy)
    people.execute("UPDATE people SET name = 'bea'")
    assert records(people)[-1].action == "UPDATE"


def test_verify_proves_capture_and_refusal_and_leaves_nothing(people):
    before = people.value("SELECT COUNT(*) FROM audit.audit_log")
    found = verification(people, {"tables": [f"{people.name}.*"]})
    assert (found["valid"], found["recorded"], found["tampering_refused"]) == (True, True, True), found["problems"]
    assert people.value("SELECT COUNT(*) FROM audit.audit_log") == before
    assert people.value("SELECT COUNT(*) FROM audit.probe") == 0


def test_verify_finds_a_log_that_takes_changes(people):
    (name,) = people.execute(
        "SELECT trigger_name FROM information_schema.triggers "
        "WHERE trigger_schema = 'audit' AND event_object_table = 'audit_log_data' AND event_manipulation = 'UPDATE'"
    )[0]
    people.execute(f"DROP TRIGGER audit.`{name}`")
    try:
        found = verification(people, {"tables": [f"{people.name}.*"]})
        assert {problem["type"] for problem in found["problems"]} == {"missing", "not_refused"}
        assert not found["tampering_refused"]
    finally:
        running.run_module("mysql_audit_trail", **people.login)
    assert verification(people, {"tables": [f"{people.name}.*"]})["valid"]


def test_rights_on_the_trail_that_nobody_asked_for_are_reported_and_taken_away(people):
    user = people.create_account()
    people.execute(f"GRANT SELECT, DELETE ON audit.audit_log_data TO '{user}'@'%'")
    people.execute(f"GRANT ALL ON audit.* TO '{user}'@'%'")
    found = verification(people, {"tables": [f"{people.name}.*"]})
    assert {problem["type"] for problem in found["problems"]} == {"grant"}
    running.run_module("mysql_audit_trail", **people.login)
    assert error_of(people, "SELECT * FROM audit.audit_log_data", user) == 1142
    assert verification(people, {"tables": [f"{people.name}.*"]})["valid"]


def test_an_account_whose_rights_reach_every_database_is_named_as_a_limitation(people):
    user = people.create_account(grants="")
    people.execute(f"GRANT DELETE ON *.* TO '{user}'@'%'")
    result = running.run_module("mysql_audit_trail", **people.login)
    assert user in str(result["limitations"])
