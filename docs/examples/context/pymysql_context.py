# SPDX-License-Identifier: 0BSD
"""PyMySQL: a connection, pooled or not, that works on behalf of a user and then forgets it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pymysql
from pymysql.connections import Connection

SET_CONTEXT = "SET @audit_context = %s, @audit_user = NULL"


@contextlib.contextmanager
def on_behalf_of(connection: Connection, user: str, **context: str) -> Iterator[Connection]:
    """Record what the connection does in this block under ``user``; commit and roll back as ever."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(SET_CONTEXT, [json.dumps({"user": user, **context})])
        yield connection
    finally:
        try:
            with connection.cursor() as cursor:
                cursor.execute(SET_CONTEXT, [None])
        except pymysql.MySQLError:
            # A connection that cannot forget must not serve anybody else.
            connection.close()
