# SPDX-License-Identifier: 0BSD
"""psycopg 3: a transaction on behalf of a user, on a connection of a pool.

with audited(pool, request.user, request_id=request.id, ip_address=request.ip) as connection:
    connection.execute("UPDATE invoices SET status = 'void' WHERE invoice_id = %s", [17])
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator

from psycopg import AsyncConnection, Connection
from psycopg_pool import AsyncConnectionPool, ConnectionPool

SET_CONTEXT = "SELECT set_config('app.audit_context', %s, true)"


@contextlib.contextmanager
def audited(pool: ConnectionPool, user: str, **context: str) -> Iterator[Connection]:
    """Lend a connection in a transaction that is recorded under ``user``; an exception rolls it back."""
    with pool.connection() as connection, connection.transaction():
        connection.execute(SET_CONTEXT, [json.dumps({"user": user, **context})])
        yield connection


@contextlib.asynccontextmanager
async def audited_async(pool: AsyncConnectionPool, user: str, **context: str) -> AsyncIterator[AsyncConnection]:
    """Do what ``audited`` does, for ``async with``."""
    async with pool.connection() as connection, connection.transaction():
        await connection.execute(SET_CONTEXT, [json.dumps({"user": user, **context})])
        yield connection
