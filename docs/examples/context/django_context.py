# SPDX-License-Identifier: 0BSD
"""Django on PostgreSQL: every transaction begins with the context of the request that it works for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse

SET_CONTEXT = "SELECT set_config('app.audit_context', %s, true)"
IDLE = 0  # libpq's word for "no transaction has begun", in psycopg 3 and in psycopg2

_context: ContextVar[str] = ContextVar("audit_context")


class AuditContextMiddleware:
    """Add this to MIDDLEWARE below AuthenticationMiddleware."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request on behalf of the user who is logged in."""
        context = {"ip_address": request.META["REMOTE_ADDR"], "request_id": request.headers.get("X-Request-Id")}
        with on_behalf_of(request.user.get_username() or None, **context):
            return self.get_response(request)


@contextlib.contextmanager
def on_behalf_of(user: str | None, **context: str | None) -> Iterator[None]:
    """Record the changes of this block under ``user``; for jobs and commands, which no middleware serves."""
    told = {"user": user, **context}
    token = _context.set(json.dumps({key: value for key, value in told.items() if value is not None}))
    try:
        with contextlib.ExitStack() as stack:
            for connection in connections.all():
                if connection.vendor == "postgresql":
                    stack.enter_context(connection.execute_wrapper(_tell))
            yield
    finally:
        _context.reset(token)


def _tell(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
    database = context["connection"]
    if database.connection.info.transaction_status != IDLE:
        return execute(sql, params, many, context)
    # The first statement of a transaction; in auto-commit mode the only one, and then it gets a transaction.
    with contextlib.nullcontext() if database.in_atomic_block else transaction.atomic(using=database.alias):
        with database.connection.cursor() as cursor:
            cursor.execute(SET_CONTEXT, [_context.get()])
        return execute(sql, params, many, context)
