# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The queries of docs/investigations.md on MariaDB and MySQL find what happened in a small shop, for a reader.

The log belongs to the whole server, so that the page's example tables and users get names of this test's own.
"""

from __future__ import annotations

import json
import typing as t

import pymysql.cursors
import pytest
from databases import unique
from investigations import investigations
from mysql_auditing import audit
from mysql_databases import MysqlServer, Schema, fetch
from running import run_module

Row = dict[str, t.Any]

QUERIES = investigations("mysql")
SESSION = QUERIES.pop("The session")
PERSON = "12345"

STORY = [
    ("hr", "INSERT INTO {users} VALUES (12345, 'a.lee@example.com', 'Ada Lee'), (2, 'b@c', 'Bo')"),
    ("clerk", "INSERT INTO {orders} VALUES (1, 12345, 10), (2, 2, 20), (3, 12345, 30)"),
    ("clerk", "UPDATE {users} SET email = 'ada@example.com' WHERE id = 12345"),
    ("clerk", "UPDATE {users} SET name = 'Ada Byron' WHERE id = 12345"),
    ("mallory", "UPDATE {users} SET email = 'mallory@example.com' WHERE id = 12345"),
    ("clerk", "UPDATE {orders} SET user_id = 2 WHERE id = 3"),
    ("clerk", "DELETE FROM {orders} WHERE id = 2"),
    ("import", f"INSERT INTO {{orders}} VALUES {', '.join(f'({n}, 2, 1)' for n in range(1001, 1121))}"),
    (None, "UPDATE {orders} SET amount = 0 WHERE id = 1"),
    ("clerk", """CALL audit.log_event('login', '{users}', 'web', TRUE, NULL)"""),
    ("clerk", """CALL audit.log_event('login', '{users}', 'web', FALSE, '{{"reason": "wrong password"}}')"""),
]


class Story:
    """A shop in which something has happened, and the questions about it."""

    def __init__(self, shop: Schema) -> None:
        self.shop = shop
        self.users, self.orders, self.suffix = unique("users"), unique("orders"), f"@{unique('example')}.com"
        shop.execute(f"CREATE TABLE {self.users} (id INT PRIMARY KEY, email VARCHAR(99), name VARCHAR(99))")
        shop.execute(f"CREATE TABLE {self.orders} (id INT PRIMARY KEY, user_id INT, amount INT)")
        audit(shop)
        self.app, self.reader = shop.create_account("app"), shop.create_account("reader", grants="")
        run_module("mysql_audit_trail", readers=[f"{self.reader}@%"], applications=[f"{self.app}@%"], **shop.login)
        for who, statement in STORY:
            session = shop.connect(self.app)
            fetch(session, "CALL audit.set_context(%s)", json.dumps({"user": who + self.suffix}) if who else None)
            fetch(session, statement.format(users=self.users, orders=self.orders))

    def ask(self, title: str, *replaced: tuple[str, str]) -> list[Row]:
        """Put a question of the page as a reader; of the answer, return what concerns this shop."""
        query = self.query(title)
        for example, value in replaced:
            assert example in query
            query = query.replace(example, value)
        session = self.shop.connect(self.reader, database=None, cursorclass=pymysql.cursors.DictCursor)
        with session.cursor() as cursor:
            for statement in SESSION.rstrip(";").split(";"):
                cursor.execute(statement)
            cursor.execute(query)
            rows = list(cursor.fetchall())
        return [row for row in rows if row.get("table_name", self.users) in (self.users, self.orders)]

    def query(self, title: str) -> str:
        """Return a question with this shop's names for the page's."""
        query = QUERIES[title].replace("'users'", f"'{self.users}'").replace("'orders'", f"'{self.orders}'")
        return query.replace("user@example.com", self.who("clerk"))

    def who(self, name: str) -> str:
        """Return a person's name in the log."""
        return name + self.suffix


@pytest.fixture(scope="module")
def story(trail: MysqlServer) -> t.Iterator[Story]:
    """Return the shop after the story."""
    with Schema(trail) as shop:
        yield Story(shop)
        run_module("mysql_audit_trail", **shop.login)


def found(rows: list[Row], *columns: str) -> list[t.Any]:
    """Return some columns of an answer, JSON as values."""
    return [tuple(json.loads(row[name]) if name == "changed_columns" and row[name] else row[name] for name in columns)
            for row in rows]  # fmt: skip


@pytest.mark.parametrize("title", QUERIES)
def test_every_query_of_the_page_runs_for_a_reader(story, title):
    story.ask(title)


def test_the_history_of_a_record_shows_the_row_before_and_after(story):
    rows = story.ask("History of one record")
    assert found(rows, "action", "changed_by", "changed_columns") == [
        ("INSERT", story.who("hr"), None),
        ("UPDATE", story.who("clerk"), ["email"]),
        ("UPDATE", story.who("clerk"), ["name"]),
        ("UPDATE", story.who("mallory"), ["email"]),
    ]
    before, after = ([row[name] and json.loads(row[name]) for row in rows] for name in ("row_before", "row_after"))
    assert before == [None, *after[:-1]]


def test_a_columns_history_leaves_out_changes_of_others(story):
    assert found(story.ask("One column, value by value"), "changed_by", "email_before", "email_after") == [
        (story.who("hr"), None, "a.lee@example.com"),
        (story.who("clerk"), "a.lee@example.com", "ada@example.com"),
        (story.who("mallory"), "ada@example.com", "mallory@example.com"),
    ]


def test_who_changed_a_column(story):
    rows = story.ask("Who changed a column")
    assert sorted(found(rows, "changed_by", "changes")) == [(story.who("clerk"), 1), (story.who("mallory"), 1)]


def test_everything_one_user_did_is_listed_newest_first(story):
    rows = story.ask("Everything one user did")
    assert found(rows, "action", "record_id") == [
        *(("EVENT", "web"), ("EVENT", "web"), ("DELETE", "2"), ("UPDATE", "3"), ("UPDATE", PERSON), ("UPDATE", PERSON)),
        *(("INSERT", "3"), ("INSERT", "2"), ("INSERT", "1")),
    ]


def test_what_was_done_under_one_context_is_found_together(story):
    (first, *_rest) = story.shop.execute(
        "SELECT transaction_id FROM audit.audit_log WHERE table_name = %s AND record_id = '3' ORDER BY id", story.orders
    )
    rows = story.ask("One transaction", ("4711", first[0]))
    assert found(rows, "table_name", "record_id") == [(story.orders, str(number)) for number in (1, 2, 3)]


def test_deletions_come_with_the_values_that_are_gone(story):
    (row,) = story.ask("Deletions of the last 24 hours")
    assert (row["record_id"], row["changed_by"]) == ("2", story.who("clerk"))
    assert json.loads(row["old_values"]) == {"id": 2, "user_id": 2, "amount": 20}


@pytest.mark.parametrize("title", ["Bulk operations per hour", "Bulk operations per transaction"])
def test_a_bulk_operation_stands_out(story, title):
    rows = story.ask(title)
    assert found(rows, "changed_by", "action", "changes") == [(story.who("import"), "INSERT", 120)]


def test_work_at_night_is_found_and_work_at_noon_on_weekends_only(story):
    hour, weekday = story.shop.execute("SELECT HOUR(UTC_TIMESTAMP()), WEEKDAY(UTC_TIMESTAMP())")[0]
    at_night, at_noon = ((wanted - hour + 12) % 24 - 12 for wanted in (3, 12))
    # Takes the weekend out of the question, so that the day on which this runs does not answer it.
    any_day = ("IN (5, 6)", "IN (9)")
    assert story.ask("Off-hours and weekends", ("Europe/Berlin", f"{at_night:+03d}:00"), any_day)
    assert not story.ask("Off-hours and weekends", ("Europe/Berlin", f"{at_noon:+03d}:00"), any_day)
    weekend = (weekday * 24 + hour + at_noon) // 24 % 7 in (5, 6)
    assert bool(story.ask("Off-hours and weekends", ("Europe/Berlin", f"{at_noon:+03d}:00"))) is weekend


def test_a_zone_that_the_server_does_not_know_hides_nothing(story):
    rows = story.ask("Off-hours and weekends", ("Europe/Berlin", "No/Where"))
    assert {row["local_time"] for row in rows} == {None}
    assert len(rows) == story.shop.value(
        "SELECT COUNT(*) FROM audit.audit_log WHERE table_name IN (%s, %s)", story.users, story.orders
    )


def test_changes_without_an_application_user_name_the_login(story):
    (row,) = story.ask("Changes without an application user")
    assert (row["db_user"], row["table_name"], row["action"], row["changes"]) == (story.app, story.orders, "UPDATE", 1)


def test_failures_that_the_application_reported(story):
    (row,) = story.ask("Failed logins and denials")
    assert (row["event"], row["changed_by"]) == ("login", story.who("clerk"))
    assert json.loads(row["new_values"])["reason"] == "wrong password"


def test_a_persons_data_is_their_record_and_every_row_that_was_theirs(story):
    rows = story.ask("All changes to a person's data")
    assert found(rows, "action", "table_name", "record_id") == [
        *(("INSERT", story.users, PERSON), ("INSERT", story.orders, "1"), ("INSERT", story.orders, "3")),
        *(("UPDATE", story.users, PERSON),) * 3,
        *(("UPDATE", story.orders, "3"), ("UPDATE", story.orders, "1")),
    ]
