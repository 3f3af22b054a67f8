# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The work on PostgreSQL, and a database that does it: with an audit that somebody installs in it, or without."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import subprocess
import time
import typing as t

from databases import Database, connect, fetch
from local_postgresql import LocalPostgresql
from rounds import Sample

SQL = pathlib.Path(__file__).with_name("sql") / "postgresql"


class Extent(t.NamedTuple):
    """How much work is one piece."""

    #: Changes of single rows, of all sessions of pgbench together.
    single: int
    #: Rows of a statement.
    bulk: int


EXTENTS = {"quick": Extent(2000, 20_000), "short": Extent(3000, 100_000), "full": Extent(6000, 100_000)}
#: Rows of 100 columns: as many of them would take more disk than many machines have.
WIDE = Extent(3000, 20_000)

#: Who works: no superuser, whom the server spares the look at every right.
APPLICATION = "shop_app"
_APPLICATION = f"CREATE ROLE {APPLICATION} LOGIN; GRANT pg_read_server_files TO {APPLICATION}"
_RIGHTS = "; ".join(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO {APPLICATION}" for kind in ("TABLES", "SEQUENCES"))

#: Above the keys of the table in which single rows are changed.
_FIRST_KEY = 1_000_000

# Nothing has to survive a power cut, and neither vacuum nor a checkpoint may hit one contender's burst. Without images
# of whole pages, the bytes written ahead do not depend on when the last checkpoint was.
SETTINGS = {
    "shared_buffers": "2GB",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "max_wal_size": "32GB",
    "checkpoint_timeout": "1d",
    "jit": "off",
}

_POSITION = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"

# With the partitions of those that have some.
_SIZE = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class AS c
WHERE c.oid = ANY (%s::regclass[]::oid[])
   OR c.oid IN (SELECT p.relid FROM unnest(%s::regclass[]) AS log (name), pg_partition_tree(log.name) AS p)
"""


class Work(t.NamedTuple):
    """A piece of work."""

    name: str
    #: In SQL: what pgbench or a session executes.
    file: str
    #: Sessions of pgbench; 0: one statement that changes many rows.
    clients: int = 0


def single(clients: int) -> tuple[Work, ...]:
    """Return the work on single rows; what is inserted is deleted by the third."""
    many = "1 client" if clients == 1 else f"{clients} clients"
    return tuple(Work(f"{op.upper()}, {many}", f"single_{op}.sql", clients) for op in ("insert", "update", "delete"))


SINGLE = (*single(1), *single(8))
COPY = Work("bulk COPY", "")
BULK = (*(Work(f"bulk {op.upper()}", f"bulk_{op}.sql") for op in ("insert", "update", "delete")), COPY)
WORKS = {work.name: work for work in (*SINGLE, *BULK)}


def make_server(home: pathlib.Path, **settings: str) -> LocalPostgresql:
    """Return a server that goes away with this process."""
    server = LocalPostgresql.create(home, settings={**SETTINGS, **settings}, while_pid=os.getpid())
    with contextlib.closing(connect(server, "postgres")) as connection:
        fetch(connection, _APPLICATION)
    return server


def make_shape(server: LocalPostgresql, shape: str, extent: Extent) -> None:
    """Make the database that those of the contenders are copied from: the tables of a shape, with their rows."""
    database = Database(server, f"shape_{shape}")
    make_tables(database, shape, extent)
    database.execute("COPY source TO %s", _copied(server, shape))
    database.disconnect()


def make_tables(database: Database, shape: str, extent: Extent) -> None:
    """Make the tables of a shape, with their rows."""
    database.execute((SQL / f"{shape}.sql").read_text(encoding="utf-8"))
    database.execute((SQL / "rows.sql").read_text(encoding="utf-8"), extent.bulk)


class Audited:
    """A contender of PostgreSQL: a copy of a shape's database, in which somebody has installed something."""

    #: Tables that the audit writes into.
    log: tuple[str, ...] = ()

    def __init__(self, name: str, server: LocalPostgresql, shape: str, extent: Extent) -> None:
        """Make nothing yet."""
        self.name = name
        self.server = server
        self.shape = shape
        self.extent = extent
        self._first = _FIRST_KEY

    def prepare(self) -> None:
        """Make the database and install the audit."""
        self.database = self.make_database()
        self.install()
        self.database.execute(_RIGHTS)
        self.session = self.database.connect()

    def make_database(self) -> Database:
        """Return the database, with its tables."""
        return Database(self.server, template=f"shape_{self.shape}")

    def install(self) -> None:
        """Install the audit on the tables item and batch."""

    def empty_log(self) -> None:
        """Delete what the audit has recorded."""
        if self.log:
            fetch(self.session, f"TRUNCATE {', '.join(self.log)}")

    def log_size(self) -> int | None:
        """Return how many bytes the audit's log has, with its indexes; None: it has no log."""
        return int(fetch(self.session, _SIZE, list(self.log), list(self.log))[0][0]) if self.log else None

    def records(self, piece: Work) -> bool:
        """Tell whether a piece of work must leave something in the log."""
        return bool(piece)

    def tidy(self) -> None:
        """Make room in the table where deleted rows were."""
        fetch(self.session, "VACUUM item")

    def measure(self, work: str) -> Sample:
        """Do a piece of work, then empty the log."""
        piece = WORKS[work]
        size, position = self.log_size(), self._position()
        sample = self._single(piece) if piece.clients else self._bulk(piece)
        sample = sample._replace(wal_bytes=self._position() - position)
        if size is not None:
            sample = sample._replace(log_bytes=(self.log_size() or 0) - size)
            if not sample.log_bytes and self.records(piece):
                raise AssertionError(f"{self.name} has recorded nothing of {work}")
        if piece.file in ("bulk_delete.sql", COPY.file):
            fetch(self.session, "TRUNCATE batch")
        self.empty_log()
        return sample

    def _position(self) -> float:
        return float(fetch(self.session, _POSITION)[0][0])

    def _bulk(self, piece: Work) -> Sample:
        """Execute a statement in the session, whose process tells how long it has been on a processor."""
        schedule = pathlib.Path(f"/proc/{self.session.info.backend_pid}/schedstat")
        statement = "COPY batch FROM %s" if piece == COPY else (SQL / piece.file).read_text(encoding="utf-8")
        arguments = [_copied(self.server, self.shape)] if piece == COPY else []
        fetch(self.session, f"SET SESSION AUTHORIZATION {APPLICATION}")
        before, began = int(schedule.read_text(encoding="ascii").split()[0]), time.monotonic()
        fetch(self.session, statement, *arguments)
        seconds, after = time.monotonic() - began, int(schedule.read_text(encoding="ascii").split()[0])
        fetch(self.session, "RESET SESSION AUTHORIZATION")
        return Sample(seconds, self.extent.bulk, processor_seconds=(after - before) / 1e9)

    def _single(self, piece: Work) -> Sample:
        """Let pgbench do it."""
        each = self.extent.single // piece.clients
        with _processor_of_new_processes(self.server) as processor:
            rate = _pgbench(self.server, self.database.name, piece, each, self._first)
        if piece.file == "single_delete.sql":
            self._first += self.extent.single
        changes = each * piece.clients
        return Sample(changes / rate, changes, processor_seconds=processor())


def _copied(server: LocalPostgresql, shape: str) -> str:
    """Return the path of the rows as COPY reads them."""
    return str(server.socket_dir / f"{shape}.copy")


def _pgbench(server: LocalPostgresql, database: str, piece: Work, transactions: int, first: int) -> float:
    """Return the rate at which the sessions worked once they were connected."""
    done = subprocess.run(
        [
            *(server.binaries / "pgbench", "-n", "-M", "prepared", "-h", server.socket_dir, "-p", str(server.port)),
            *("-U", APPLICATION, "-c", str(piece.clients), "-j", str(min(piece.clients, os.cpu_count() or 1))),
            *("-t", str(transactions), "-D", "n=-1", "-D", f"first={first}", "-D", f"clients={piece.clients}"),
            *("-f", SQL / piece.file, database),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"^tps = ([0-9.]+) \(without initial connection time\)", done.stdout, re.MULTILINE)
    expected = f"actually processed: {transactions * piece.clients}/"
    if done.returncode or not found or expected not in done.stdout:
        raise AssertionError(f"pgbench on {database} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return float(found[1])


@contextlib.contextmanager
def _processor_of_new_processes(server: LocalPostgresql) -> t.Iterator[t.Callable[[], float]]:
    """Give a function that returns the processor time of the processes which the server started and ended meanwhile."""
    pid = int((server.data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
    there, before = _children(pid), _time_of_ended_children(pid)
    spent = 0.0
    yield lambda: spent
    deadline = time.monotonic() + 5
    # A client that has disconnected does not wait for its process to end.
    while not _children(pid) <= there and time.monotonic() < deadline:
        time.sleep(0.002)
    spent = _time_of_ended_children(pid) - before


def _children(pid: int) -> set[str]:
    return set(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split())


def _time_of_ended_children(pid: int) -> float:
    # The program's name, in parentheses, may hold spaces: what follows it begins with the third field.
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def checkpoint(servers: t.Iterable[LocalPostgresql]) -> None:
    """Let the servers write what they have, so that they need not while somebody works."""
    for server in servers:
        with contextlib.closing(connect(server, "postgres")) as connection:
            fetch(connection, "CHECKPOINT")
