# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who takes part on PostgreSQL: how each is installed, and where its log is."""

from __future__ import annotations

import os
import typing as t

import postgresql_audit
import sqlalchemy
import sqlalchemy.orm
from auditing import install_trail, rollout, wanted
from databases import connect, fetch
from local_postgresql import LocalPostgresql
from postgresql_work import SQL, Audited, Extent, Work
from rounds import UnavailableError
from tampering import tamper

BARE, FLOOR, GUIDES, TABLE_LOG = "bare", "floor", "guides' trigger", "table_log"
ROW, STATEMENT, CHANGED = "ours: row", "ours: statement", "ours: row, update_image: changed"
BY_STATEMENT, BY_ROW = "PostgreSQL-Audit", "PostgreSQL-Audit, by row"
PGAUDIT, BESIDE_PGAUDIT = "pgaudit alone", "ours: row, beside pgaudit"

#: Those that keep what a row was before and after, as ours does.
PEERS = (GUIDES, TABLE_LOG, BY_STATEMENT, BY_ROW)

#: Those that take part in a full run, or when they are asked for by name.
VARIANTS = (BY_ROW, BESIDE_PGAUDIT)

#: The policies of ours, beside their tables.
POLICIES: dict[str, dict[str, t.Any]] = {
    ROW: {},
    CHANGED: {"update_image": "changed"},
    STATEMENT: {"capture": "statement"},
    "ours: row, redact: [email]": {"columns": {"redact": ["email"]}},
    "ours: row, hash: [email]": {"columns": {"hash": ["email"]}},
    "ours: row, when: half of the rows": {"when": "NEW.id % 2 = 0", "operations": ["insert", "update"]},
}


class Ours(Audited):
    """The collection, rolled out by its modules."""

    log = ("audit.audit_log_data",)

    def __init__(self, *args: t.Any, policy: dict[str, t.Any], **kwargs: t.Any) -> None:
        """Take a policy without its tables."""
        super().__init__(*args, **kwargs)
        self.policy = policy

    def install(self) -> None:
        """Install the default trail and bring the tables under the policy."""
        install_trail(self.database)
        rollout(self.database, policies=[wanted("public.item", "public.batch", **self.policy)])

    def records(self, piece: Work) -> bool:
        """Tell whether the policy asks for the operation."""
        return "delete" not in piece.file or "delete" in self.policy.get("operations", ["delete"])

    def empty_log(self) -> None:
        """Take the guards off for a moment; the log refuses this otherwise."""
        tamper(self.database, "TRUNCATE audit.audit_log_data")


class BySql(Audited):
    """What a file of SQL installs."""

    def __init__(self, *args: t.Any, file: str, log: tuple[str, ...], **kwargs: t.Any) -> None:
        """Take the file's name and the tables of the log."""
        super().__init__(*args, **kwargs)
        self.file = file
        self.log = log

    def install(self) -> None:
        """Execute the file."""
        self.database.execute((SQL / self.file).read_text(encoding="utf-8"))


class TableLog(BySql):
    """An extension in C, whose package not every release of PostgreSQL has."""

    def install(self) -> None:
        """Install it if it is there."""
        if not self.database.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'table_log'"):
            major = self.server.version.split(".")[0]
            raise UnavailableError(f"no package postgresql-{major}-tablelog here")
        super().install()


class PostgresqlAudit(Audited):
    """The extension of SQLAlchemy: its tables as SQLAlchemy creates them, its triggers by its own audit_table()."""

    log = ("activity", "transaction")

    def __init__(self, *args: t.Any, by_statement: bool, **kwargs: t.Any) -> None:
        """Take which of its two kinds of triggers to install."""
        super().__init__(*args, **kwargs)
        self.by_statement = by_statement

    def install(self) -> None:
        """Install it as its documentation does, on tables that are there already."""
        manager = postgresql_audit.VersioningManager(use_statement_level_triggers=self.by_statement)
        base = sqlalchemy.orm.declarative_base()
        manager.init(base)
        sqlalchemy.orm.configure_mappers()
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg2://", creator=lambda: connect(self.server, self.database.name, autocommit=False)
        )
        base.metadata.create_all(engine)
        engine.dispose()
        manager.remove_listeners()
        for table in ("item", "batch"):
            self.database.execute("SELECT audit_table(%s::regclass)", table)


class Pgaudit(BySql):
    """Statements in the server's log: on a server of its own, because its library works in every database."""

    def empty_log(self) -> None:
        """Empty the server's log, which the server only ever appends to."""
        os.truncate(self.server.log, 0)

    def log_size(self) -> int:
        """Return the size of the server's log."""
        return self.server.log.stat().st_size


class OursBesidePgaudit(Ours):
    """The collection on a server where pgaudit writes statements, too: what the playbook rolls out."""

    def install(self) -> None:
        """Install both."""
        self.database.execute((SQL / "pgaudit.sql").read_text(encoding="utf-8"))
        super().install()

    def empty_log(self) -> None:
        """Empty both logs."""
        super().empty_log()
        os.truncate(self.server.log, 0)


def contenders(server: LocalPostgresql, with_pgaudit: LocalPostgresql, shape: str, extent: Extent) -> list[Audited]:
    """Return who takes part, on a shape of table that both servers have."""
    place = {"server": server, "shape": shape, "extent": extent}
    beside = {**place, "server": with_pgaudit}
    return [
        Audited(BARE, **place),
        BySql(FLOOR, file="floor.sql", log=("floor_log",), **place),
        *(Ours(name, policy=policy, **place) for name, policy in POLICIES.items()),
        BySql(GUIDES, file="guides.sql", log=("audit_log",), **place),
        TableLog(TABLE_LOG, file="table_log.sql", log=("item_log", "batch_log"), **place),
        PostgresqlAudit(BY_STATEMENT, by_statement=True, **place),
        PostgresqlAudit(BY_ROW, by_statement=False, **place),
        Pgaudit(PGAUDIT, file="pgaudit.sql", log=(), **beside),
        OursBesidePgaudit(BESIDE_PGAUDIT, policy={}, **beside),
    ]


def versions(server: LocalPostgresql) -> str:
    """Return what the peers' releases are, in one line."""
    with connect(server, "postgres") as connection:
        found = dict(fetch(connection, "SELECT name, default_version FROM pg_available_extensions"))
    names = ("table_log", "pgaudit")
    extensions = [f"{name} {found[name]}" for name in names if name in found]
    return ", ".join([*extensions, f"PostgreSQL-Audit {postgresql_audit.__version__}"])
