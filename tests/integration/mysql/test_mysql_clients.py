# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The examples of docs/context.md for MariaDB and MySQL, on a pool of one connection."""

from __future__ import annotations

import concurrent.futures
import contextlib
import typing as t

import pytest
from client_applications import Application, Pymysql, SqlalchemyMysql, TroubleError
from client_examples import USERS, assert_as_told, assert_nobody_else_s, load, needs_clients
from mysql_auditing import Record, audit, records
from mysql_databases import MysqlServer, Schema, connect, fetch


@pytest.fixture(scope="module")
def audited(trail: MysqlServer) -> t.Iterator[tuple[Schema, str]]:
    """Return a database with the audited table, and a login that may write to it and no more."""
    with Schema(trail) as shop:
        login = shop.create_account("shop_app", grants="SELECT, INSERT, UPDATE, DELETE")
        shop.execute("CREATE TABLE notes (id int AUTO_INCREMENT PRIMARY KEY, author varchar(100))")
        audit(shop, "notes")
        yield shop, login


class Notes:
    """What one test writes into the table."""

    def __init__(self, shop: Schema, login: str) -> None:
        self.shop = shop
        self.login = login
        self._before = shop.value("SELECT COALESCE(MAX(id), 0) FROM audit.audit_log_data")

    def written(self) -> list[Record]:
        return [record for record in records(self.shop, "notes") if record.id > self._before]

    def who(self) -> list[tuple[str, str]]:
        """Return (author, changed_by) of each note; the login stands for nobody."""
        pairs = [(record.new_values["author"], record.changed_by) for record in self.written()]
        return [(author, "nobody" if name.partition("@")[0] == self.login else name) for author, name in pairs]


@pytest.fixture
def notes(audited: tuple[Schema, str]) -> Notes:
    """Return the notes that this test writes."""
    return Notes(*audited)


@pytest.fixture(params=[Pymysql, SqlalchemyMysql], ids=lambda kind: kind.__name__)
def application(request: pytest.FixtureRequest, notes: Notes) -> t.Iterator[Application]:
    """Return the application."""
    needs_clients()

    def connection() -> t.Any:
        return connect(notes.shop.server, notes.login, database=notes.shop.name, autocommit=False)

    with contextlib.closing(request.param(connection)) as made:
        yield made


@pytest.mark.parametrize("user", USERS)
def test_a_change_is_recorded_with_what_the_application_told(application: Application, notes: Notes, user: str):
    application.write(user)
    [record] = notes.written()
    assert_as_told(record, user)


def test_users_who_work_side_by_side_are_told_apart(application: Application, notes: Notes):
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(application.write, ["ada", "bob", None] * 10))
    assert_nobody_else_s(notes.who(), 30)


@pytest.mark.parametrize("before", ["write", "fail"])
def test_the_connection_remembers_nobody(application: Application, notes: Notes, before: str):
    with contextlib.suppress(TroubleError):
        getattr(application, before)("ada")
    application.write(None)
    assert notes.who()[-1] == ("nobody", "nobody")
    assert notes.written()[-1].context is None


def test_without_a_reset_the_next_use_of_the_connection_is_recorded_under_the_last_user(notes: Notes):
    """Why the page says so: the variables belong to the session."""
    session = notes.shop.connect(notes.login)
    fetch(session, "SET @audit_user = 'ada'")
    session.begin()
    session.rollback()
    fetch(session, "INSERT INTO notes (author) VALUES ('nobody')")
    assert notes.who() == [("nobody", "ada")]


def test_a_connection_that_cannot_forget_is_closed(notes: Notes):
    session = notes.shop.connect(notes.login)
    with load("pymysql_context").on_behalf_of(session, "ada"):
        notes.shop.execute(f"KILL {session.thread_id()}")
    assert not session.open
