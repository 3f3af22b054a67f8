# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a policy's other keys do to capture: when, operations, update_image, require_context, on_failure."""

from __future__ import annotations

import json
import typing as t

import psycopg2
import pytest
from auditing import changes, records, refusal, rollout, trail_database, wanted
from databases import Database, fetch
from local_postgresql import LocalPostgresql

TABLES = """
CREATE TABLE picky (id int PRIMARY KEY, amount int, status text);
CREATE TABLE steps (id int PRIMARY KEY, status text);
CREATE TABLE inserts_only (id int PRIMARY KEY);
CREATE TABLE deletes_only (id int PRIMARY KEY);
CREATE TABLE wide (id int PRIMARY KEY, a int, b text, document json, salary int);
CREATE TABLE wide_partly (id int PRIMARY KEY, a int, b text);
CREATE TABLE strict (id int PRIMARY KEY, name text, note text);
CREATE TABLE strict_bulk (id int PRIMARY KEY, name text);
CREATE TABLE strict_user (id int PRIMARY KEY);
CREATE TABLE strict_address (id int PRIMARY KEY);
CREATE TABLE strict_address_bulk (id int PRIMARY KEY);
"""

POLICIES = [
    wanted("public.picky", when="NEW.amount > 100", operations=["insert", "update"]),
    wanted("public.steps", when="OLD.status IS DISTINCT FROM NEW.status", operations=["update"]),
    wanted("public.inserts_only", operations=["insert"]),
    wanted("public.deletes_only", operations=["delete", "truncate"]),
    wanted("public.wide", update_image="changed", columns={"redact": ["salary"]}),
    wanted("public.wide_partly", update_image="changed", columns={"exclude": ["a"]}),
    wanted("public.strict", require_context=["changed_by", "business_process"], columns={"exclude": ["note"]}),
    wanted("public.strict_bulk", require_context=["changed_by"], capture="statement"),
    wanted("public.strict_user", require_context=["user", "ip_address"]),
    wanted("public.strict_address", require_context=["ip_address"]),
    wanted("public.strict_address_bulk", require_context=["ip_address"], capture="statement"),
]


@pytest.fixture(scope="module")
def shop(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database whose tables are audited by the policies above."""
    with trail_database(pg) as database:
        database.execute(TABLES)
        rollout(database, policies=POLICIES)
        yield database


def ids(db: Database, table: str) -> list[tuple[str, str | None]]:
    return [(record.action, record.record_id) for record in records(db, table)]


def test_when_records_only_the_rows_for_which_it_is_true(shop):
    shop.execute("INSERT INTO picky VALUES (1, 100), (2, 101), (3, NULL)")
    shop.execute("UPDATE picky SET amount = amount + 1")
    shop.execute("UPDATE picky SET amount = amount")
    assert ids(shop, "picky") == [("INSERT", "2"), ("UPDATE", "1"), ("UPDATE", "2")]


def test_when_can_compare_the_old_row_with_the_new(shop):
    shop.execute("INSERT INTO steps VALUES (1, 'new'), (2, 'done')")
    shop.execute("UPDATE steps SET status = 'done'")
    assert ids(shop, "steps") == [("UPDATE", "1")]


@pytest.mark.parametrize(
    ("condition", "operations", "named"),
    [
        ("NEW.amount > ", ["insert"], "INSERT on public.things"),
        ("NEW.missing = 1", ["insert"], "INSERT on public.things"),
        ("OLD.amount = 1", ["insert", "update"], "INSERT on public.things"),
        ("NEW.amount = 1", ["update", "delete"], "DELETE on public.things"),
        ("NEW.amount IN (SELECT 1)", ["insert"], "INSERT on public.things"),
    ],
)
def test_a_condition_that_the_server_does_not_take_is_refused_before_anything_changes(
    trail, condition, operations, named
):
    trail.execute("CREATE TABLE things (id int PRIMARY KEY, amount int); CREATE TABLE another (id int PRIMARY KEY)")
    policies = [wanted("public.another"), wanted("public.things", when=condition, operations=operations)]
    for check_mode in (True, False):
        message = refusal(trail, policies=policies, check_mode=check_mode)
        assert named in message
        assert condition.strip() in message
    assert (
        trail.value(
            "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'dbfleet%' AND tgrelid::regclass::text !~ '^audit'"
        )
        == 0
    )
    assert trail.value("SELECT count(*) FROM audit.policy") == 0


def test_a_condition_with_statement_capture_is_refused(trail):
    """There is no row to look at there; it would be ignored without a word."""
    trail.execute("CREATE TABLE things (id int PRIMARY KEY)")
    message = refusal(trail, policies=[wanted("public.things", when="NEW.id > 0", capture="statement")])
    assert "`when`" in message
    assert "statement" in message


def test_operations_that_are_not_asked_for_are_not_recorded(shop):
    for table in ("inserts_only", "deletes_only"):
        shop.execute(f"INSERT INTO {table} VALUES (1), (2)")
        shop.execute(f"UPDATE {table} SET id = id + 10")
        shop.execute(f"DELETE FROM {table} WHERE id = 11")
        shop.execute(f"TRUNCATE {table}")
    assert ids(shop, "inserts_only") == [("INSERT", "1"), ("INSERT", "2")]
    assert ids(shop, "deletes_only") == [("DELETE", "11"), ("TRUNCATE", None)]


def test_update_image_changed_stores_only_what_differs(shop):
    shop.execute("""INSERT INTO wide VALUES (1, 1, 'x', '{"k": 1}', 5)""")
    shop.execute("UPDATE wide SET b = NULL, salary = 6")
    shop.execute("""UPDATE wide SET document = '{"k": 2}', a = a""")
    before = {"id": 1, "a": 1, "b": "x", "document": {"k": 1}, "salary": "[REDACTED]"}
    update, document = records(shop, "wide")[1:]
    assert (update.old_values, update.new_values) == (before, {"b": None, "salary": "[REDACTED]"})
    assert (update.changed_columns, document.changed_columns) == (["b", "salary"], ["document"])
    history = "SELECT row_before, row_after FROM audit.audit_history WHERE table_name = 'wide' AND action = 'UPDATE'"
    afters = shop.execute(history + " ORDER BY id")
    assert afters[0] == (before, {**before, "b": None})
    assert afters[1][1] == {**before, "b": None, "document": {"k": 2}}


def test_update_image_changed_knows_nothing_of_columns_that_are_left_out(shop):
    shop.execute("INSERT INTO wide_partly VALUES (1, 1, 'x')")
    shop.execute("UPDATE wide_partly SET a = 2")
    shop.execute("UPDATE wide_partly SET a = 3, b = 'y'")
    assert changes(shop, "wide_partly")[1:] == [("UPDATE", {"id": 1, "b": "x"}, {"b": "y"})]


@pytest.mark.parametrize(
    "context", [None, {"user": "ann"}, {"business_process": "hiring"}, {"user": None, "business_process": "hiring"}]
)
def test_a_change_without_the_required_context_is_refused_by_the_keys_names(shop, context):
    session = shop.connect(autocommit=False)
    if context:
        fetch(session, "SELECT audit.set_context(%s)", json.dumps(context))
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="changed_by, business_process"):
        fetch(session, "INSERT INTO strict VALUES (99, 'nobody')")
    session.rollback()
    assert shop.value("SELECT count(*) FROM strict WHERE id = 99") == 0


def test_a_change_with_the_required_context_is_recorded_with_it(shop):
    session = shop.connect(autocommit=False)
    fetch(session, """SELECT audit.set_context('{"user": "ann", "business_process": "hiring"}')""")
    fetch(session, "INSERT INTO strict VALUES (1, 'eve')")
    session.commit()
    (record,) = records(shop, "strict")
    assert (record.changed_by, record.context) == ("ann", {"business_process": "hiring"})


def test_a_statement_that_leaves_nothing_to_record_needs_no_context(shop):
    session = shop.connect(autocommit=False)
    fetch(session, """SELECT audit.set_context('{"user": "ann", "business_process": "hiring"}')""")
    fetch(session, "INSERT INTO strict VALUES (5, 'eve')")
    fetch(session, "INSERT INTO strict_bulk VALUES (5, 'eve')")
    session.commit()
    before = len(records(shop))
    for table in ("strict", "strict_bulk"):
        shop.execute(f"UPDATE {table} SET name = name")
        shop.execute(f"DELETE FROM {table} WHERE id = 1000")
    shop.execute("UPDATE strict SET note = 'excluded columns are no record either'")
    assert len(records(shop)) == before


def test_statement_capture_requires_the_context_too(shop):
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="changed_by"):
        shop.execute("INSERT INTO strict_bulk VALUES (99, 'nobody')")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="changed_by"):
        shop.execute("TRUNCATE strict_bulk")
    assert shop.value("SELECT count(*) FROM strict_bulk WHERE id = 99") == 0


def test_a_required_key_may_be_called_as_set_context_calls_it(shop):
    session = shop.connect(autocommit=False)
    fetch(session, """SELECT audit.set_context('{"user": "ann", "ip_address": "192.0.2.1"}')""")
    fetch(session, "INSERT INTO strict_user VALUES (1)")
    session.commit()
    assert [(record.changed_by, record.client_ip) for record in records(shop, "strict_user")] == [("ann", "192.0.2.1")]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="user, ip_address"):
        shop.execute("INSERT INTO strict_user VALUES (2)")


@pytest.mark.parametrize("table", ["strict_address", "strict_address_bulk"])
def test_the_address_of_the_connection_is_not_the_users(shop, table):
    session = shop.connect(host="127.0.0.1", password=shop.server.password)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="ip_address"):
        fetch(session, f"INSERT INTO {table} VALUES (1)")


BROKEN = "ALTER TABLE audit.audit_log_data ADD CONSTRAINT broken CHECK (action = 'EVENT') NOT VALID"


@pytest.mark.parametrize("capture", ["row", "statement"])
def test_on_failure_warn_lets_the_write_through_and_says_so(trail, capture):
    trail.execute("CREATE TABLE things (id int PRIMARY KEY)")
    rollout(trail, policies=[wanted("public.things", on_failure="warn", capture=capture)])
    trail.execute(BROKEN)
    session = trail.connect()
    fetch(session, "INSERT INTO things VALUES (1)")
    assert trail.execute("SELECT id FROM things") == [(1,)]
    (event,) = records(trail)
    assert (event.action, event.table_name, event.schema_name) == ("EVENT", "things", "public")
    assert event.new_values["event"] == "audit_failure"
    assert (event.new_values["operation"], event.new_values["sqlstate"]) == ("INSERT", "23514")
    assert any(n.startswith("WARNING:  audit: INSERT on public.things was not recorded") for n in session.notices)


def test_on_failure_warn_survives_a_log_that_takes_nothing_at_all(trail):
    trail.execute("CREATE TABLE things (id int PRIMARY KEY)")
    rollout(trail, policies=[wanted("public.things", on_failure="warn")])
    trail.execute("ALTER TABLE audit.audit_log_data ADD CONSTRAINT broken CHECK (false) NOT VALID")
    session = trail.connect()
    fetch(session, "INSERT INTO things VALUES (1)")
    assert trail.execute("SELECT id FROM things") == [(1,)]
    assert any("nor could the failure be recorded" in notice for notice in session.notices)


@pytest.mark.parametrize("capture", ["row", "statement"])
def test_on_failure_abort_is_the_default_and_refuses_the_change(trail, capture):
    trail.execute("CREATE TABLE things (id int PRIMARY KEY)")
    rollout(trail, policies=[wanted("public.things", capture=capture)])
    trail.execute(BROKEN)
    with pytest.raises(psycopg2.errors.CheckViolation, match="broken"):
        trail.execute("INSERT INTO things VALUES (1)")
    assert (trail.execute("SELECT id FROM things"), records(trail)) == ([], [])
