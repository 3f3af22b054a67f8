# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The benchmark's part for MariaDB: who takes part, the work, and its tables and targets.

Single rows come from sysbench through the server's socket, as pgbench's do on PostgreSQL: a client in Python could not
keep a server busy, and a loop in a stored procedure would leave out what every change of an application pays as well,
the way from the client and back.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import time
import typing as t

import rounds
from local_mysql import LocalMysql
from local_server import ServerError
from mysql_auditing import audit, install_trail
from mysql_databases import Schema, fetch
from running import CACHE

HOME = CACHE / "benchmark-overhead-mariadb"
SQL = pathlib.Path(__file__).with_name("sql") / "mariadb"

#: Rows of the table in which single rows are changed.
ROWS = 100_000
#: Rows that bulk work handles: as many, but in a quick run.
BULK_ROWS = {"quick": 20_000, "short": ROWS, "full": ROWS}

# A commit waits for no disk: the redo log is written once a second. The pages of all contenders fit into memory, and
# the redo log is so large that no checkpoint comes while somebody works.
SETTINGS = {
    "innodb_flush_log_at_trx_commit": 0,
    "innodb_buffer_pool_size": "1G",
    "innodb_log_file_size": "2G",
    "innodb_doublewrite": 0,
    "event_scheduler": "OFF",
}

BARE, OURS, CHANGED, GUIDES = "bare", "ours: row", "ours: row, update_image: changed", "guides' triggers"
PLUGIN = "server_audit alone"

#: How many single changes the sessions make in a burst, together.
BURST = {"quick": 2000, "short": 4000, "full": 8000}
#: Of single rows, and of bulk work.
ROUNDS = {"quick": (3, 1), "short": (7, 2), "full": (9, 5)}

SINGLE = {
    f"{operation.upper()}, {clients} client{'s' if clients > 1 else ''}": (operation, clients)
    for clients in (1, 8)
    for operation in ("insert", "update", "delete")
}
BULK = {f"bulk {operation.upper()}": operation for operation in ("insert", "update", "delete")}
INSERT, UPDATE, DELETE = list(SINGLE)[:3]

Say = t.Callable[[str], None]


class Audited:
    """A contender: a database with the tables, in which somebody has installed something."""

    #: Tables that the audit writes into.
    log: tuple[str, ...] = ()
    #: Whether its size grows with every change, and not by many pages at a time.
    exact_size = False

    def __init__(self, name: str, server: LocalMysql, size: str) -> None:
        """Make nothing yet; ``size`` is that of the run."""
        self.name = name
        self.server = server
        self.burst = BURST[size]
        self.bulk = BULK_ROWS[size]
        self._first = 10 * ROWS

    def prepare(self) -> None:
        """Make the database and install the audit."""
        self.schema = Schema(self.server)
        self.script("ordinary.sql")
        self.install()
        self.session = self.schema.connect()
        (pid_file,) = fetch(self.session, "SELECT @@pid_file")[0]
        self.pid = int(pathlib.Path(self.server.data, pid_file).read_text(encoding="ascii"))
        self.empty_log()

    def script(self, name: str) -> None:
        """Execute a file of SQL."""
        self.server.sql(f"USE {self.schema.name};\n" + (SQL / name).read_text(encoding="utf-8"))

    def install(self) -> None:
        """Install the audit on the tables item and batch."""

    def empty_log(self) -> None:
        """Delete what the audit has recorded."""
        for table in self.log:
            fetch(self.session, f"TRUNCATE TABLE {table}")

    def log_size(self) -> int | None:
        """Return how many bytes the pages of the audit's log have, with its indexes; None: it has no log."""
        if not self.log:
            return None
        sizes = []
        for table in self.log:
            schema, _dot, name = table.rpartition(".")
            # As they are now, and not as they were when statistics were last taken.
            fetch(self.session, f"ANALYZE TABLE {table}")
            query = "SELECT data_length + index_length FROM information_schema.tables WHERE table_schema = %s"
            sizes += fetch(self.session, f"{query} AND table_name = %s", schema or self.schema.name, name)
        return sum(int(row[0]) for row in sizes)

    def measure(self, work: str) -> rounds.Sample:
        """Do a piece of work, then empty the log."""
        await_purge(self.session)
        bulk = work in BULK
        size = self.log_size() if bulk or self.exact_size else None
        position, processor = log_position(self.session), processor_seconds(self.pid)
        sample = self._bulk(BULK[work]) if bulk else self._single(*SINGLE[work])
        sample = sample._replace(
            wal_bytes=log_position(self.session) - position,
            processor_seconds=processor_seconds(self.pid) - processor,
        )
        if size is not None:
            sample = sample._replace(log_bytes=(self.log_size() or 0) - size)
        self.empty_log()
        return sample

    def _bulk(self, operation: str) -> rounds.Sample:
        statement = (SQL / f"bulk_{operation}.sql").read_text(encoding="utf-8").format(rows=self.bulk)
        began = time.monotonic()
        fetch(self.session, statement)
        seconds = time.monotonic() - began
        if operation == "delete":
            fetch(self.session, "TRUNCATE TABLE batch")
        return rounds.Sample(seconds, self.bulk)

    def _single(self, operation: str, clients: int) -> rounds.Sample:
        each = self.burst // clients
        seconds = sysbench(self.server, self.schema.name, operation, clients, each, self._first)
        if operation == "delete":
            self._first += self.burst
        return rounds.Sample(seconds, each * clients)


class Ours(Audited):
    """The triggers of this collection, rolled out by its modules."""

    log = ("audit.audit_log_data",)

    def __init__(self, *args: t.Any, **policy: t.Any) -> None:
        """Take the keys of a policy, beside its tables."""
        super().__init__(*args)
        self.policy = policy

    def install(self) -> None:
        """Install the default trail and bring the tables under the policy."""
        install_trail(self.schema)
        # What another one of us has brought under audit stays so.
        audit(self.schema, "item", "batch", purge=False, **self.policy)


class Guides(Audited):
    """The triggers of the guides."""

    log = ("audit_log",)

    def install(self) -> None:
        """Make their log and their triggers."""
        self.script("guides.sql")


class Plugin(Audited):
    """Statements in a file: on a server of its own, because the plugin sees every database."""

    exact_size = True

    def install(self) -> None:
        """Load the plugin, and let it log what changes rows."""
        if not (self.server.is_mariadb and self._works()):
            raise rounds.UnavailableError("no plugin server_audit here")

    def _works(self) -> bool:
        with contextlib.suppress(ServerError):
            self.script("server_audit.sql")
            return True
        return False

    def empty_log(self) -> None:
        """Empty the file, which the plugin only ever appends to."""
        os.truncate(self._file, 0)

    def log_size(self) -> int:
        """Return the size of the file."""
        return self._file.stat().st_size

    @property
    def _file(self) -> pathlib.Path:
        return self.server.data / "server_audit.log"


def sysbench(server: LocalMysql, database: str, operation: str, clients: int, each: int, first: int) -> float:
    """Return the seconds that the sessions worked once they were connected."""
    login = {"user": "root", "password": server.password, "socket": server.socket, "db": database}
    file = server.socket_dir / "sysbench.cnf"
    # On a command line, everybody could read the password.
    file.touch(mode=0o600)
    file.write_text("".join(f"mysql-{name}={value}\n" for name, value in login.items()), encoding="utf-8")
    done = subprocess.run(
        [
            *("sysbench", f"--config-file={file}", "--db-driver=mysql", "--events=0", "--time=0"),
            *(f"--threads={clients}", SQL / "single.lua"),
            *(f"--operation={operation}", f"--each={each}", f"--first={first}", "run"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"^ +total time: +([0-9.]+)s$", done.stdout, re.MULTILINE)
    if done.returncode or not found or "FATAL" in done.stdout + done.stderr:
        raise AssertionError(f"sysbench on {database} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return float(found[1])


def await_purge(session: t.Any) -> None:
    """Wait until the server has cleaned up behind whoever worked before."""
    deadline = time.monotonic() + 20
    while status(session, "Innodb_history_list_length") > 20 and time.monotonic() < deadline:
        time.sleep(0.05)


def log_position(session: t.Any) -> int:
    """Return how many bytes of redo log there have ever been."""
    return status(session, "Innodb_lsn_current")


def status(session: t.Any, name: str) -> int:
    """Return a number of the server's status."""
    return int(fetch(session, "SHOW GLOBAL STATUS LIKE %s", name)[0][1])


def processor_seconds(pid: int) -> float:
    """Return how long the server's threads have been running on a processor, its purge included."""
    # The program's name, in parentheses, may hold spaces: what follows it begins with the third field.
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def contenders(server: LocalMysql, with_plugin: LocalMysql, size: str) -> list[Audited]:
    """Return who takes part."""
    return [
        Audited(BARE, server, size),
        Ours(OURS, server, size),
        Ours(CHANGED, server, size, update_image="changed"),
        Guides(GUIDES, server, size),
        Plugin(PLUGIN, with_plugin, size),
    ]


def tables(options: rounds.Options, say: Say) -> rounds.Part:
    """Measure on two servers of our own: one for everybody, one with the plugin."""
    shutil.rmtree(HOME, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        server, beside = (made_server(stack, HOME / name) for name in ("server", "with_plugin"))
        wanted = options.chosen(contenders(server, beside, options.size), BARE)
        there, missing = rounds.prepare(wanted, say)
        results: rounds.Results = {}
        for works, count in zip((SINGLE, BULK), ROUNDS[options.size]):
            results.update(rounds.by_turns(there, list(works), count, say))
        product = f"{'MariaDB' if server.is_mariadb else 'MySQL'} {server.version}"
    return rounds.Part(in_words(product, options.size, results, missing), targets_of(results), results)


def made_server(stack: contextlib.ExitStack, home: pathlib.Path) -> LocalMysql:
    """Return a server that goes away with this process."""
    home.mkdir(parents=True)
    server = LocalMysql.create(home, settings=SETTINGS, while_pid=os.getpid())
    stack.callback(server.remove)
    return server


def in_words(product: str, size: str, found: rounds.Results, missing: t.Mapping[str, str]) -> str:
    """Return the tables."""
    many_rows = f"{BULK_ROWS[size]:,} rows at once"
    blocks = [f"{product}; a table of 10 columns; commits do not wait for the disk"]
    for works, costly, many in (
        (SINGLE, (INSERT, UPDATE, DELETE), "single rows"),
        (BULK, tuple(BULK), many_rows),
    ):
        blocks.append(f"### Rate: {many}\n\nShare of the bare table's in the same round.")
        blocks.append(rounds.rate_table({work: found[work] for work in works}, BARE, missing))
        blocks.append(f"### Bytes and processor time per change: {many}")
        blocks.append(rounds.cost_table({work: found[work] for work in costly}, "redo"))
    return "\n\n".join(blocks)


def targets_of(found: rounds.Results) -> list[rounds.Target]:
    """Return how far the collection is."""
    return [rounds.compared(f"MariaDB, {UPDATE}: of the bare table's rate", found[UPDATE], OURS, BARE, 0.70, 0.75)]
