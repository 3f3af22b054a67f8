# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Small applications around the Python examples of docs/context.md: each writes notes through one connection.

Their libraries are imported when an application is made: only the environment of the newest ansible-core has them.
psycopg does without prepared statements, for pgbouncer before 1.21 does not know them.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import typing as t

from client_examples import USERS, Notes, load


class TroubleError(Exception):
    """What goes wrong in an application."""


class Application(abc.ABC):
    """An application with a pool of one connection. Made with the place that it connects to."""

    def write(self, user: str | None) -> None:
        """Write a note on behalf of a user, or of nobody in particular, and commit."""
        with self._transaction(user) as insert:
            insert(user or "nobody")

    def fail(self, user: str) -> None:
        """Write a note on behalf of a user, and raise TroubleError before it is committed."""
        with self._transaction(user) as insert:
            insert(user)
            raise TroubleError

    @abc.abstractmethod
    def close(self) -> None:
        """Give up the connection."""

    @abc.abstractmethod
    def _transaction(self, user: str | None) -> contextlib.AbstractContextManager[t.Callable[[str], object]]:
        """Give what writes a note, in a transaction on behalf of a user."""


class Psycopg(Application):
    """psycopg 3 and its pool; the place is libpq's words."""

    def __init__(self, place: str) -> None:
        self.example = load("psycopg_context")
        import psycopg_pool

        options = {"prepare_threshold": None}
        self.pool = psycopg_pool.ConnectionPool(place, min_size=1, max_size=1, kwargs=options, open=True)

    def close(self) -> None:
        """Close the pool."""
        self.pool.close()

    @contextlib.contextmanager
    def _transaction(self, user: str | None) -> t.Iterator[t.Callable[[str], object]]:
        lent = self.example.audited(self.pool, user, **USERS[user]) if user else self.pool.connection()
        with lent as connection:
            yield lambda author: connection.execute(Notes.INSERT, [author])


class Sqlalchemy(Application):
    """SQLAlchemy's sessions and its pool; the place is libpq's words."""

    URL = "postgresql+psycopg://"

    def __init__(self, place: t.Any) -> None:
        self.example = load("sqlalchemy_context")
        import sqlalchemy.orm

        self.engine = sqlalchemy.create_engine(
            self.URL, creator=lambda: self._connect(place), pool_size=1, max_overflow=0
        )
        self.example.audit(self.engine)
        self.session = sqlalchemy.orm.sessionmaker(self.engine)
        self.insert = sqlalchemy.text("INSERT INTO notes (author) VALUES (:author)")

    def close(self) -> None:
        """Close the pool."""
        self.engine.dispose()

    @contextlib.contextmanager
    def _transaction(self, user: str | None) -> t.Iterator[t.Callable[[str], object]]:
        scope = self.example.on_behalf_of(user, **USERS[user]) if user else contextlib.nullcontext()
        with scope, self.session.begin() as session:
            yield lambda author: session.execute(self.insert, {"author": author})

    @staticmethod
    def _connect(place: str) -> t.Any:
        import psycopg

        return psycopg.connect(place, prepare_threshold=None)


class SqlalchemyMysql(Sqlalchemy):
    """SQLAlchemy with PyMySQL; the place is a function that connects."""

    URL = "mysql+pymysql://"

    @staticmethod
    def _connect(place: t.Callable[[], t.Any]) -> t.Any:
        return place()


class Pymysql(Application):
    """PyMySQL behind a pool that knows nothing of context, SQLAlchemy's; the place is a function that connects."""

    def __init__(self, place: t.Callable[[], t.Any]) -> None:
        self.example = load("pymysql_context")
        import sqlalchemy.pool

        self.pool = sqlalchemy.pool.QueuePool(place, pool_size=1, max_overflow=0)

    def close(self) -> None:
        """Close the pool."""
        self.pool.dispose()

    @contextlib.contextmanager
    def _transaction(self, user: str | None) -> t.Iterator[t.Callable[[str], object]]:
        with contextlib.closing(self.pool.connect()) as connection:
            scope = self.example.on_behalf_of(connection, user, **USERS[user]) if user else contextlib.nullcontext()
            with scope, connection.cursor() as cursor:
                yield lambda author: cursor.execute(Notes.INSERT, [author])
                connection.commit()


def write_in_tasks_of_psycopg(place: str, users: t.Sequence[str]) -> None:
    """Write a note for each user, in tasks that wait for the one connection of psycopg's asynchronous pool."""
    example = load("psycopg_context")
    import psycopg_pool

    async def write(pool: t.Any, user: str) -> None:
        async with example.audited_async(pool, user, **USERS[user]) as connection:
            await asyncio.sleep(0)
            await connection.execute(Notes.INSERT, [user])

    async def run() -> None:
        options = {"prepare_threshold": None}
        async with psycopg_pool.AsyncConnectionPool(place, min_size=1, max_size=1, kwargs=options) as pool:
            await asyncio.gather(*(write(pool, user) for user in users))

    asyncio.run(run())


def write_in_tasks_of_sqlalchemy(place: str, users: t.Sequence[str]) -> None:
    """Write a note for each user, in tasks that wait for the one connection of SQLAlchemy's asynchronous engine."""
    example = load("sqlalchemy_context")
    import psycopg
    import sqlalchemy.ext.asyncio

    async def connect() -> t.Any:
        return await psycopg.AsyncConnection.connect(place, prepare_threshold=None)

    async def write(engine: t.Any, user: str) -> None:
        with example.on_behalf_of(user, **USERS[user]):
            async with engine.begin() as connection:
                await connection.execute(sqlalchemy.text("INSERT INTO notes (author) VALUES (:a)"), {"a": user})

    async def run() -> None:
        engine = sqlalchemy.ext.asyncio.create_async_engine(
            "postgresql+psycopg://", async_creator=connect, pool_size=1, max_overflow=0
        )
        example.audit(engine.sync_engine)
        await asyncio.gather(*(write(engine, user) for user in users))
        await engine.dispose()

    asyncio.run(run())
