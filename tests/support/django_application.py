# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Django application around the example of docs/context.md: its settings, its one model, its pages.

A process has one Django, so :func:`start` is called once in it; :func:`connect_to` says where the database is.
"""

from __future__ import annotations

import typing as t

import django
from client_applications import TroubleError
from client_examples import USERS, load
from django.conf import settings
from django.db import connections, models, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "none yet"}},
        MIDDLEWARE=[f"{__name__}.log_in", "django_context.AuditContextMiddleware"],
        ROOT_URLCONF=__name__,
        USE_TZ=True,
    )
    django.setup()

example = load("django_context")


class Note(models.Model):
    """The table of notes."""

    author = models.TextField()

    class Meta:
        """It is there already."""

        app_label = "notes"
        db_table = "notes"
        managed = False


class Person:
    """Whom the session of a request belongs to."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_username(self) -> str:
        """Return the name, as Django's users do; an anonymous one has an empty name."""
        return self.name


def log_in(get_response: t.Callable[[HttpRequest], HttpResponse]) -> t.Callable[[HttpRequest], HttpResponse]:
    """Stand where AuthenticationMiddleware does."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.user = Person(request.headers.get("X-User", ""))
        return get_response(request)

    return middleware


def author_of(request: HttpRequest) -> str:
    """Return whose note a request writes."""
    return request.user.get_username() or "nobody"


def plain(request: HttpRequest) -> HttpResponse:
    """Write in auto-commit mode, as Django does unless told otherwise; the second statement is a second transaction."""
    Note.objects.create(author=author_of(request)).delete()
    return HttpResponse()


def atomic(request: HttpRequest) -> HttpResponse:
    """Write in one transaction, after a savepoint that was rolled back."""
    with transaction.atomic():
        try:
            with transaction.atomic():
                Note.objects.create(author="never")
                raise TroubleError
        except TroubleError:
            Note.objects.create(author=author_of(request))
    return HttpResponse()


def streamed(request: HttpRequest) -> HttpResponse:
    """Write while the rows of a server-side cursor come in."""
    for note in Note.objects.order_by("pk").iterator(chunk_size=1):
        Note.objects.create(author=author_of(request))
        assert note.author
        break
    return HttpResponse()


@transaction.atomic
def failing(request: HttpRequest) -> HttpResponse:
    """Write and raise before it is committed."""
    Note.objects.create(author=author_of(request))
    raise TroubleError


async def asynchronous(request: HttpRequest) -> HttpResponse:
    """Write from an asynchronous view."""
    await Note.objects.acreate(author=author_of(request))
    return HttpResponse()


urlpatterns = [path(f"{view.__name__}/", view) for view in (plain, atomic, streamed, failing, asynchronous)]


def connect_to(place: dict[str, t.Any], **options: t.Any) -> None:
    """Let the connections to come lead to a place: NAME, USER, HOST, PORT. ``options`` are those of DATABASES."""
    connections["default"].close()
    connections["default"].close_pool()
    connections.settings["default"].update({**place, "OPTIONS": options})
    del connections["default"]


def headers_of(user: str | None) -> dict[str, t.Any]:
    """Return what a request of a user comes with."""
    if user is None:
        return {}
    told = USERS[user]
    return {"headers": {"X-User": user, "X-Request-Id": told["request_id"]}, "REMOTE_ADDR": told["ip_address"]}
