# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a superuser can do to a log once every guard is off, and a sealed log that is as it was before, each time."""

from __future__ import annotations

import contextlib
import json
import pathlib
import time
import typing as t

import psycopg2.extensions
from auditing import rollout, trail_database, wanted
from databases import Database, fetch
from local_postgresql import LocalPostgresql
from sealing import Sealer

_GUARDED = """
SELECT format('ALTER TABLE %s {} TRIGGER %I', t.tgrelid::regclass, t.tgname)
FROM pg_trigger AS t WHERE t.tgrelid IN (SELECT relid FROM pg_partition_tree('audit.audit_log_data'))
ORDER BY t.tgparentid = 0, t.tgrelid
"""

_EVENT_TRIGGERS = "SELECT format('ALTER EVENT TRIGGER %I {}', evtname) FROM pg_event_trigger"

_TABLES = ("audit_log_data", "seal", "seal_state", "seal_inventory")


@contextlib.contextmanager
def unseen(db: Database) -> t.Iterator[psycopg2.extensions.connection]:
    """Give a superuser's connection whose DDL no event trigger sees, and which no event trigger hinders."""
    connection = db.connect()
    _switch(connection, _EVENT_TRIGGERS, "DISABLE")
    try:
        yield connection
    finally:
        _switch(connection, _EVENT_TRIGGERS, "ENABLE ALWAYS")
        connection.close()


@contextlib.contextmanager
def unguarded(db: Database) -> t.Iterator[psycopg2.extensions.connection]:
    """Give a superuser's connection to a log without guards; afterwards all of them are as they were."""
    with unseen(db) as connection:
        _switch(connection, _GUARDED, "DISABLE")
        try:
            yield connection
        finally:
            _switch(connection, _GUARDED, "ENABLE ALWAYS")


def tamper(db: Database, *statements: str) -> None:
    """Execute statements while every guard is off."""
    with unguarded(db) as connection:
        for statement in statements:
            fetch(connection, statement)


def _switch(connection: psycopg2.extensions.connection, query: str, state: str) -> None:
    for (statement,) in fetch(connection, query.format(state)):
        fetch(connection, statement)


class SealedLog:
    """A log with a few seals.

    :ivar db: has one audited table, `item (id int, name text, secret text)`.
    """

    def __init__(self, db: Database, directory: pathlib.Path) -> None:
        self.db = db
        db.execute("CREATE TABLE item (id int PRIMARY KEY, name text, secret text)")
        policies = [wanted("public.item")]
        rollout(db, policies=policies)
        # The database was copied from one that may have been made on another day, and a seal holds rows of one day.
        tamper(db, "TRUNCATE audit.audit_log_data")
        self.sealer = Sealer(db.login, directory, policies=policies)

    def change(self, first: int, last: int) -> None:
        """Make audited changes; what was rolled back leaves gaps in the ids."""
        left = 86400 - time.time() % 86400
        if left < 15:
            time.sleep(left)
        session = self.db.connect()
        fetch(session, "INSERT INTO item SELECT i, 'item ' || i, 'x' FROM generate_series(%s, %s) AS i", first, last)
        fetch(session, "BEGIN; INSERT INTO item SELECT -i FROM generate_series(1, 10) AS i; ROLLBACK")
        fetch(session, "UPDATE item SET secret = 'y', name = name || '!' WHERE id = %s", first)
        session.close()

    def id_of(self, item: int) -> int:
        """Return the id of the record of an item's INSERT."""
        query = "SELECT id FROM audit.audit_log WHERE table_name = 'item' AND action = 'INSERT' AND record_id = %s"
        return int(self.db.value(query, str(item)))

    def gap(self) -> int:
        """Return an id that no row has, between two that are sealed."""
        query = "SELECT g.id FROM generate_series(2, (SELECT watermark FROM audit.seal_state)) AS g (id) EXCEPT "
        return int(self.db.value(query + "SELECT id FROM audit.audit_log_data ORDER BY 1 DESC LIMIT 1"))

    def block_of(self, row: int) -> int:
        """Return the number of the seal that has a row."""
        return int(self.db.value("SELECT number FROM audit.seal WHERE ids @> %s::bigint", row))

    def problems(self) -> list[tuple[str, int | None, int | None]]:
        """Return what verification finds, as (type, block, id)."""
        return self.sealer.problems()

    def found(self) -> tuple[list[tuple[str, int | None, int | None]], list[str]]:
        """Return what problems() returns, and what a person reads, of one verification."""
        found = self.sealer.verify()["problems"]
        problems = [(entry["type"], entry.get("block"), entry.get("id")) for entry in found]
        return problems, [entry["detail"] for entry in found]

    def details(self) -> list[str]:
        """Return what a person reads."""
        return self.found()[1]

    def lines(self) -> list[str]:
        """Return the ledger's lines."""
        return self.sealer.ledger.read_text(encoding="utf-8").splitlines()

    def rewrite(self, lines: t.Sequence[str]) -> None:
        """Replace the ledger."""
        self.sealer.ledger.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def headers(self) -> list[dict[str, t.Any]]:
        """Return the seals of the ledger, as they are written there."""
        return [json.loads(line)["seal"] for line in self.lines()]

    # -- as it was ----------------------------------------------------------------------------------------------

    def make_room(self) -> None:
        """Make the tables that remember() fills, before anything is sealed."""
        with unseen(self.db) as connection:
            fetch(connection, "CREATE SCHEMA kept")
            for table in _TABLES:
                fetch(connection, f"CREATE TABLE kept.{table} AS TABLE audit.{table} WITH NO DATA")

    def remember(self) -> None:
        """Keep log, seals and ledger as they are now."""
        for table in _TABLES:
            self.db.execute(f"INSERT INTO kept.{table} TABLE audit.{table}")
        self._ledger = self.sealer.ledger.read_bytes()
        self._last_id = self.db.value("SELECT last_value FROM audit.audit_log_id_seq")

    def restore(self) -> None:
        """Make log, seals and ledger what they were."""
        self.db.execute("TRUNCATE item")
        with unguarded(self.db) as connection:
            for table in _TABLES:
                fetch(connection, f"TRUNCATE audit.{table}")
                fetch(connection, f"INSERT INTO audit.{table} TABLE kept.{table}")
            fetch(connection, "SELECT setval('audit.audit_log_id_seq', %s)", self._last_id)
        self.sealer.ledger.write_bytes(self._ledger)


@contextlib.contextmanager
def four_seals(server: LocalPostgresql, directory: pathlib.Path) -> t.Iterator[SealedLog]:
    """Give a log of four seals: rows, objects, rows, rows."""
    with trail_database(server) as database:
        made = SealedLog(database, directory)
        made.make_room()
        for first, last in ((1, 20), (101, 130), (201, 220)):
            made.change(first, last)
            made.sealer.seal()
        made.remember()
        yield made


def sealed(db: Database, directory: pathlib.Path) -> SealedLog:
    """Seal the log of a database with a trail."""
    made = SealedLog(db, directory)
    made.change(1, 20)
    made.sealer.seal()
    return made


def stays_clean(log: SealedLog, first: int | None = None) -> None:
    """Verify, seal more, and verify that."""
    details = [problem["detail"] for problem in log.sealer.verify()["problems"]]
    assert details == []
    if first:
        log.change(first, first + 4)
    log.sealer.seal()
    result = log.sealer.verify()
    assert [problem["detail"] for problem in result["problems"]] == []
    assert (result["unsealed"], result["seal_state"]) == (0, "")
    assert result["rows_checked"] == log.db.value("SELECT count(*) FROM audit.audit_log_data")
