# SPDX-License-Identifier: 0BSD
"""SQLAlchemy: every transaction of an engine begins with the context of the request that it works for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextvars import ContextVar

from sqlalchemy import Connection, Engine, event, text

# MySQL's variables outlive the transaction; the next one of the connection writes over them, with NULL if need be.
SET_VARIABLES = text("SET @audit_context = :context, @audit_user = NULL")
SET_SETTING = text("SELECT set_config('app.audit_context', :context, true)")

_context: ContextVar[str | None] = ContextVar("audit_context", default=None)


@contextlib.contextmanager
def on_behalf_of(user: str, **context: str) -> Iterator[None]:
    """Record the transactions that begin in this block, or in tasks started from it, under ``user``."""
    token = _context.set(json.dumps({"user": user, **context}))
    try:
        yield
    finally:
        _context.reset(token)


def audit(engine: Engine) -> None:
    """Call this once for an engine; of an AsyncEngine, for its ``sync_engine``."""
    event.listen(engine, "begin", _tell)


def _tell(connection: Connection) -> None:
    statement = SET_SETTING if connection.dialect.name == "postgresql" else SET_VARIABLES
    connection.execute(statement, {"context": _context.get()})
