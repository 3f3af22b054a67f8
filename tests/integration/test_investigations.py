# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The queries of docs/investigations.md, as they stand there, find what happened in a small shop, for a reader."""

from __future__ import annotations

import datetime
import json
import typing as t

import psycopg2.extras
import pytest
from auditing import install_trail, rollout, trail_database, wanted
from databases import Database, fetch
from investigations import investigations
from local_postgresql import LocalPostgresql

Row = dict[str, t.Any]
Ask = t.Callable[..., list[Row]]

QUERIES = investigations("postgresql")
SESSION = QUERIES.pop("The session")

CLERK, IMPORT, PERSON = "user@example.com", "import@example.com", "12345"

SCHEMA = """
CREATE TABLE users (id int PRIMARY KEY, email text, name text, password text);
CREATE TABLE orders (id int PRIMARY KEY, user_id int, amount numeric, status text);
"""

MIGRATION = "ALTER TABLE orders ALTER COLUMN status SET DEFAULT 'new'"
RECORDED_MIGRATION = "ALTER TABLE orders ALTER COLUMN status SET DEFAULT '***'"

#: Who did what, each in a transaction of its own.
STORY = [
    ("hr@example.com", "INSERT INTO users VALUES (12345, 'a.lee@example.com', 'Ada Lee', 'x'), (2, 'b@c', 'Bo', 'y')"),
    (CLERK, "INSERT INTO orders VALUES (1, 12345, 10, 'new'), (2, 2, 20, 'new'), (3, 12345, 30, 'new')"),
    (CLERK, "UPDATE users SET email = 'ada@example.com' WHERE id = 12345"),
    (CLERK, "UPDATE users SET name = 'Ada Byron' WHERE id = 12345"),
    ("mallory@example.com", "UPDATE users SET email = 'mallory@example.com' WHERE id = 12345"),
    (CLERK, "UPDATE orders SET user_id = 2 WHERE id = 3"),
    (CLERK, "DELETE FROM orders WHERE id = 2"),
    (IMPORT, "INSERT INTO orders SELECT n, 2, n, 'import' FROM generate_series(1001, 1120) AS n"),
    (None, "UPDATE orders SET amount = 0 WHERE id = 1"),
    (CLERK, """SELECT audit.log_event('login', 'session', 'web', true)"""),
    (CLERK, """SELECT audit.log_event('login', 'session', 'web', false, '{"reason": "wrong password"}')"""),
    (CLERK, """SELECT audit.log_event('export', 'orders', NULL, false, '{"reason": "not permitted"}')"""),
]


@pytest.fixture(scope="module")
def shop(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database in which the story has happened."""
    with trail_database(pg) as database:
        app, reader = database.create_role("app"), database.create_role("reader")
        database.execute(SCHEMA)
        database.execute(f"GRANT ALL ON users, orders TO {app}")
        install_trail(database, readers=[reader], applications=[app])
        rollout(database, policies=[wanted("public.*")])
        database.execute(MIGRATION)
        for who, statement in STORY:
            session = database.connect(user=app, autocommit=False, application_name="shop-web" if who else "psql")
            if who:
                fetch(session, "SELECT audit.set_context(%s)", json.dumps({"user": who, "ip_address": "192.0.2.7"}))
            fetch(session, statement)
            session.commit()
        yield database


@pytest.fixture
def ask(shop: Database) -> Ask:
    """Return a function that puts a question of the page as a reader, with values for the page's examples."""
    reader = shop.value("SELECT rolname FROM pg_roles WHERE rolname LIKE 'reader\\_%' ORDER BY oid DESC")
    session = shop.connect(user=reader)
    fetch(session, SESSION)

    def put(title: str, *replaced: tuple[str, str]) -> list[Row]:
        query = QUERIES[title]
        for example, value in replaced:
            assert example in query
            query = query.replace(example, value)
        with session.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(query)
            return [dict(row) for row in cursor.fetchall()]

    return put


def found(rows: list[Row], *columns: str) -> list[t.Any]:
    """Return some columns of an answer, or one."""
    return [tuple(row[name] for name in columns) if len(columns) > 1 else row[columns[0]] for row in rows]


@pytest.mark.parametrize("title", QUERIES)
def test_every_query_of_the_page_runs_for_a_reader(ask, title):
    ask(title)


def test_the_history_of_a_record_shows_the_row_before_and_after(ask):
    rows = ask("History of one record")
    assert found(rows, "action", "changed_by", "changed_columns") == [
        ("INSERT", "hr@example.com", None),
        ("UPDATE", CLERK, ["email"]),
        ("UPDATE", CLERK, ["name"]),
        ("UPDATE", "mallory@example.com", ["email"]),
    ]
    assert rows[0]["row_before"] is None
    assert [row["row_before"] for row in rows[1:]] == [row["row_after"] for row in rows[:-1]]
    assert rows[-1]["row_after"]["password"] == "[REDACTED]"


def test_a_columns_history_leaves_out_changes_of_others(ask):
    assert found(ask("One column, value by value"), "changed_by", "email_before", "email_after") == [
        ("hr@example.com", None, "a.lee@example.com"),
        (CLERK, "a.lee@example.com", "ada@example.com"),
        ("mallory@example.com", "ada@example.com", "mallory@example.com"),
    ]


def test_who_changed_a_column(ask):
    rows = ask("Who changed a column")
    assert sorted(found(rows, "changed_by", "changes")) == [("mallory@example.com", 1), (CLERK, 1)]


def test_everything_one_user_did_is_listed_newest_first(ask):
    rows = ask("Everything one user did")
    assert found(rows, "action", "table_name", "record_id") == [
        *(("EVENT", "orders", None), ("EVENT", "session", "web"), ("EVENT", "session", "web")),
        *(("DELETE", "orders", "2"), ("UPDATE", "orders", "3")),
        *(("UPDATE", "users", PERSON), ("UPDATE", "users", PERSON)),
        *(("INSERT", "orders", "3"), ("INSERT", "orders", "2"), ("INSERT", "orders", "1")),
    ]
    assert set(found(rows, "client_ip")) == {"192.0.2.7"}


def test_one_transactions_changes_are_found_together(shop, ask):
    (transaction,) = shop.execute(
        "SELECT transaction_id FROM audit.audit_log WHERE record_id = '3' AND action = 'INSERT'"
    )
    rows = ask("One transaction", ("4711", str(transaction[0])))
    assert found(rows, "table_name", "record_id") == [("orders", "1"), ("orders", "2"), ("orders", "3")]


def test_deletions_come_with_the_values_that_are_gone(ask):
    (row,) = ask("Deletions of the last 24 hours")
    assert (row["table_name"], row["record_id"], row["changed_by"]) == ("orders", "2", CLERK)
    assert row["old_values"] == {"id": 2, "user_id": 2, "amount": 20, "status": "new"}


@pytest.mark.parametrize(
    "title", ["Bulk operations per hour", "Bulk operations per transaction", "Guides: bulk operations"]
)
def test_a_bulk_operation_stands_out(ask, title):
    rows = [row for row in ask(title) if row["action"] != "DDL"]
    count = "count" if title.startswith("Guides") else "changes"
    assert found(rows, "changed_by", "table_name", "action", count) == [(IMPORT, "orders", "INSERT", 120)]


def zone_where_it_is(hour: int) -> tuple[str, bool]:
    """Return the name of a zone in which it is that hour now, and whether it is a weekend there."""
    now = datetime.datetime.now(datetime.timezone.utc)
    ahead = (hour - now.hour + 12) % 24 - 12
    # The signs of these names are POSIX's: Etc/GMT-3 is three hours ahead.
    return f"Etc/GMT{-ahead:+d}", (now + datetime.timedelta(hours=ahead)).isoweekday() > 5


#: Takes the weekend out of the question, so that the day on which this runs does not answer it.
ANY_DAY = ("IN (6, 7)", "IN (0)")


def test_work_at_night_is_found_by_the_clock_of_a_zone(ask):
    night, _weekend = zone_where_it_is(3)
    rows = ask("Off-hours and weekends", ("Europe/Berlin", night), ANY_DAY)
    assert CLERK in found(rows, "changed_by")
    assert {row["local_time"].hour for row in rows} <= {2, 3, 4}


def test_work_at_noon_is_found_on_weekends_only(ask):
    noon, weekend = zone_where_it_is(12)
    assert ask("Off-hours and weekends", ("Europe/Berlin", noon), ANY_DAY) == []
    assert bool(ask("Off-hours and weekends", ("Europe/Berlin", noon))) is weekend


def test_changes_without_an_application_user_name_login_and_program(ask):
    (row,) = ask("Changes without an application user")
    assert (row["application_name"], row["table_name"], row["action"], row["changes"]) == (
        "psql",
        "orders",
        "UPDATE",
        1,
    )


def test_failures_that_the_application_reported(ask):
    rows = ask("Failed logins and denials")
    assert found(rows, "event", "table_name", "changed_by") == [
        ("login", "session", CLERK),
        ("export", "orders", CLERK),
    ]
    assert [row["new_values"]["reason"] for row in rows] == ["wrong password", "not permitted"]


def test_ddl_is_listed_with_its_object_and_statement(ask):
    rows = [row for row in ask("DDL of the last week") if row["object"] == "public.orders"]
    assert found(rows, "command", "object_type", "statement")[-1] == ("ALTER TABLE", "table", RECORDED_MIGRATION)


def test_a_persons_data_is_their_record_and_every_row_that_was_theirs(ask):
    rows = ask("All changes to a person's data")
    assert found(rows, "action", "table_name", "record_id") == [
        *(("INSERT", "users", PERSON), ("INSERT", "orders", "1"), ("INSERT", "orders", "3")),
        *(("UPDATE", "users", PERSON), ("UPDATE", "users", PERSON), ("UPDATE", "users", PERSON)),
        *(("UPDATE", "orders", "3"), ("UPDATE", "orders", "1")),
    ]
    moved = rows[6]
    assert (moved["old_values"]["user_id"], moved["new_values"]["user_id"]) == (12345, 2)


def test_the_guides_queries_find_the_same_as_ours(ask):
    record = ask("Guides: one record")
    assert found(record, "id", "changed_columns") == list(
        zip(found(record, "id"), found(ask("History of one record"), "changed_columns"))
    )
    assert sorted(found(ask("Guides: one user"), "action")) == sorted(found(ask("Everything one user did"), "action"))
    assert found(ask("Guides: audit_logs"), "user_id") == [CLERK] * 10


def test_the_guides_off_hours_follow_the_sessions_zone(shop, ask):
    everything = shop.value("SELECT count(*) FROM audit.audit_log")
    hours = [row["changed_at"].hour for row in ask("Guides: off-hours")]
    assert all(not 8 <= hour <= 18 for hour in hours)
    now = datetime.datetime.now(datetime.timezone.utc)
    if now.minute not in (0, 59):
        assert len(hours) == (0 if 8 <= now.hour <= 18 else everything)
