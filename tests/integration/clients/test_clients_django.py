# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The example of docs/context.md for Django, in an application that knows nothing else of auditing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import types
import typing as t

import pytest
from client_examples import USERS, Notes, assert_as_told, assert_nobody_else_s, needs_clients
from local_pgbouncer import LocalPgbouncer


@pytest.fixture
def place(notes: Notes) -> dict[str, t.Any]:
    """Return where the application finds the database, in Django's words."""
    server = notes.db.server
    return {"NAME": notes.db.name, "USER": notes.login, "HOST": str(server.socket_dir), "PORT": server.port}


@pytest.fixture
def application(place: dict[str, t.Any]) -> t.Iterator[types.ModuleType]:
    """Return the application, with a pool of one connection."""
    needs_clients()
    import django_application

    django_application.connect_to(place, pool={"min_size": 1, "max_size": 1})
    yield django_application
    django_application.connect_to(place)


def ask(application: types.ModuleType, page: str, user: str | None) -> None:
    """Ask for a page on behalf of a user, in a thread of this request's own, as a server of threads does."""
    from django.db import connections
    from django.test import Client

    def answer() -> None:
        try:
            Client().get(f"/{page}/", **application.headers_of(user))
        finally:
            connections.close_all()

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        thread.submit(answer).result()


@pytest.mark.parametrize(("page", "count"), [("plain", 2), ("atomic", 1), ("asynchronous", 1)])
@pytest.mark.parametrize("user", USERS)
def test_a_change_is_recorded_with_what_the_request_tells(application, notes, page: str, count: int, user: str):
    ask(application, page, user)
    written = notes.written()
    assert [record.action for record in written] == ["INSERT", "DELETE"][:count]
    for record in written:
        told = USERS[user]
        assert (record.changed_by, record.client_ip) == (user, told["ip_address"])
        assert (record.context, record.db_user) == ({"request_id": told["request_id"]}, notes.login)


@pytest.mark.parametrize("page", ["plain", "atomic", "failing"])
def test_the_connection_remembers_nobody(application, notes, page: str):
    from django.db import connections

    try:
        ask(application, page, "ada")
    except application.TroubleError:
        assert page == "failing"
    application.Note.objects.create(author="nobody")
    connections.close_all()
    ask(application, "atomic", None)
    unsaid, anonymous = notes.written()[-2:]
    assert (unsaid.changed_by, unsaid.client_ip, unsaid.context) == (notes.login, None, None)
    assert (anonymous.changed_by, anonymous.client_ip, anonymous.context) == (notes.login, "127.0.0.1", None)


def test_users_who_work_side_by_side_are_told_apart(application, notes):
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        pages = [("atomic", "plain")[number // 2 % 2] for number in range(20)]
        list(threads.map(lambda page, user: ask(application, page, user), pages, ["ada", "bob"] * 10))
    assert_nobody_else_s(notes.who(), 30)


def test_users_behind_pgbouncer_are_told_apart(application, notes, place, bouncer: LocalPgbouncer):
    application.connect_to({**place, "HOST": "127.0.0.1", "PORT": bouncer.port})
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda user: ask(application, "plain", user), ["ada", "bob"] * 10))
    assert_nobody_else_s(notes.who(), 40)


def test_a_cursor_of_the_server_s_goes_on_while_something_is_written(application, notes):
    ask(application, "atomic", "ada")
    ask(application, "streamed", "bob")
    assert notes.who() == [("ada", "ada"), ("bob", "bob")]


@pytest.mark.usefixtures("application")
def test_requests_of_an_asynchronous_server_are_told_apart(notes):
    from django.test import AsyncClient

    async def run() -> None:
        requests = ("ada", "bob") * 5
        await asyncio.gather(*(AsyncClient().get("/asynchronous/", headers={"X-User": user}) for user in requests))

    asyncio.run(run())
    assert_nobody_else_s(notes.who(), 10)


def test_a_job_says_itself_on_whose_behalf_it_works(application, notes):
    with application.example.on_behalf_of("ada", **USERS["ada"]):
        application.Note.objects.create(author="ada")
        with application.example.on_behalf_of("bob", **USERS["bob"]):
            application.Note.objects.create(author="bob")
        application.Note.objects.create(author="ada")
    application.Note.objects.create(author="nobody")
    *told, last = notes.written()
    for record, user in zip(told, ("ada", "bob", "ada"), strict=True):
        assert_as_told(record, user)
    assert (last.changed_by, last.context) == (notes.login, None)
