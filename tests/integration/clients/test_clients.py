# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The examples of docs/context.md for PostgreSQL: run as they stand on the page, directly and through pgbouncer."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import typing as t

import psycopg2
import pytest
import running
from client_applications import (
    Application,
    Psycopg,
    Sqlalchemy,
    TroubleError,
    write_in_tasks_of_psycopg,
    write_in_tasks_of_sqlalchemy,
)
from client_examples import EXAMPLES, USERS, Notes, assert_as_told, assert_nobody_else_s, needs_clients, node
from databases import fetch
from local_pgbouncer import LocalPgbouncer


@pytest.fixture(params=["direct", "pgbouncer"])
def dsn(request: pytest.FixtureRequest, notes: Notes) -> str:
    """Return where the application connects to."""
    return notes.dsn if request.param == "direct" else through(request.getfixturevalue("bouncer"), notes)


def through(bouncer: LocalPgbouncer, notes: Notes) -> str:
    return f"host=127.0.0.1 port={bouncer.port} dbname={notes.db.name} user={notes.login}"


@pytest.fixture(params=[Psycopg, Sqlalchemy], ids=lambda kind: kind.__name__)
def application(request: pytest.FixtureRequest, dsn: str) -> t.Iterator[Application]:
    """Return the application."""
    needs_clients()
    with contextlib.closing(request.param(dsn)) as made:
        yield made


@pytest.mark.parametrize("user", USERS)
def test_a_change_is_recorded_with_what_the_application_told(application: Application, notes: Notes, user: str):
    application.write(user)
    [record] = notes.written()
    assert_as_told(record, user)
    assert record.db_user == notes.login


def test_users_who_take_turns_on_one_connection_are_told_apart(application: Application, notes: Notes):
    for user in ("ada", "bob", "ada", "bob"):
        application.write(user)
    assert_nobody_else_s(notes.who(), 4)


def test_users_who_work_side_by_side_are_told_apart(application: Application, notes: Notes):
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(application.write, ["ada", "bob"] * 20))
    assert_nobody_else_s(notes.who(), 40)


@pytest.mark.parametrize("before", ["write", "fail"])
def test_the_connection_remembers_nobody(application: Application, notes: Notes, before: str):
    with contextlib.suppress(TroubleError):
        getattr(application, before)("ada")
    application.write(None)
    assert notes.who()[-1] == ("nobody", notes.login)
    assert notes.written()[-1].context is None


@pytest.mark.parametrize("before", ["write", "fail"])
@pytest.mark.parametrize("kind", [Psycopg, Sqlalchemy])
def test_pgbouncer_s_connection_remembers_nobody(
    bouncer: LocalPgbouncer, notes: Notes, kind: type[Application], before: str
):
    """What comes next through the same connection to the server is another application, which says nothing."""
    needs_clients()
    with contextlib.closing(kind(through(bouncer, notes))) as application, contextlib.suppress(TroubleError):
        getattr(application, before)("ada")
    with contextlib.closing(psycopg2.connect(through(bouncer, notes))) as somebody:
        fetch(somebody, Notes.INSERT, "nobody")
        somebody.commit()
    assert notes.who()[-1] == ("nobody", notes.login)


def test_what_was_rolled_back_leaves_no_record(application: Application, notes: Notes):
    with pytest.raises(TroubleError):
        application.fail("ada")
    assert notes.who() == []


@pytest.mark.parametrize("write", [write_in_tasks_of_psycopg, write_in_tasks_of_sqlalchemy])
def test_asynchronous_tasks_that_wait_for_one_connection_are_told_apart(
    dsn: str, notes: Notes, write: t.Callable[[str, t.Sequence[str]], None]
):
    write(dsn, ["ada", "bob"] * 10)
    assert_nobody_else_s(notes.who(), 20)


def test_several_applications_behind_one_pgbouncer_are_told_apart(bouncer: LocalPgbouncer, notes: Notes):
    needs_clients()
    place = through(bouncer, notes)
    with (
        contextlib.closing(Psycopg(place)) as one,
        contextlib.closing(Sqlalchemy(place)) as two,
        concurrent.futures.ThreadPoolExecutor(4) as threads,
    ):
        list(threads.map(lambda user: (one.write(user), two.write(user)), ["ada", "bob"] * 10))
    assert_nobody_else_s(notes.who(), 40)


@pytest.mark.parametrize("route", ["direct", "pgbouncer"])
def test_node_s_users_are_told_apart_and_forgotten(request: pytest.FixtureRequest, notes: Notes, route: str):
    place = {"host": str(notes.db.server.socket_dir), "port": notes.db.server.port}
    if route == "pgbouncer":
        place = {"host": "127.0.0.1", "port": request.getfixturevalue("bouncer").port}
    place.update(database=notes.db.name, user=notes.login)
    driver = running.ROOT / "tests" / "support" / "client_application.mjs"
    words = (json.dumps(place), json.dumps(USERS), "5")
    assert node(driver, EXAMPLES / "node_pg.mjs", running.CACHE / "node", *words) == "trouble\n"
    *told, last = notes.written()
    for record in told:
        assert_as_told(record, record.new_values["author"])
    assert_nobody_else_s(notes.who()[:-1], 20)
    assert (last.new_values["author"], last.changed_by, last.context) == ("nobody", notes.login, None)


def test_a_setting_of_the_session_leaks_to_the_next_client_of_pgbouncer(bouncer: LocalPgbouncer, notes: Notes):
    """Why the page says so: the third argument of set_config() must be true."""
    place = through(bouncer, notes)
    with (
        contextlib.closing(psycopg2.connect(place)) as ada,
        contextlib.closing(psycopg2.connect(place)) as somebody,
    ):
        ada.autocommit = somebody.autocommit = True
        fetch(ada, "SELECT set_config('app.user', 'ada', false)")
        fetch(somebody, Notes.INSERT, "nobody")
        fetch(ada, "SELECT set_config('app.user', '', false)")
    assert notes.who() == [("nobody", "ada")]


def test_outside_a_transaction_a_transaction_s_setting_is_gone_at_once(notes: Notes):
    with contextlib.closing(notes.db.connect(notes.login)) as session:
        fetch(session, "SELECT set_config('app.user', 'ada', true)")
        fetch(session, Notes.INSERT, "nobody")
    assert notes.who() == [("nobody", notes.login)]
