# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How many instructions the server's process executes for an audited change, counted by valgrind.

Rates and microseconds change from one minute to the next on a machine that others use, too; these numbers do not, to
within a percent. PostgreSQL's single-user mode executes the statements, as a role that is no superuser, each in a
transaction of its own. What a change takes is the difference of two runs, one of which makes more changes. What neither
count shows: waiting for memory, the disk, locks or the network.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import typing as t

import postgresql_contenders as who
import rounds
from local_postgresql import LocalPostgresql
from postgresql import COLUMNS, HOME
from postgresql_work import APPLICATION, SQL, Audited, Extent, make_server, make_shape

EXTENT = Extent(0, 2000)

#: How often a statement is executed in the shorter run, and in the longer.
SINGLE_RUNS = (50, 150)
#: How many rows one statement changes in the shorter run, and in the longer.
BULK_RUNS = (200, 800)

CONTEXT = "SELECT set_config('app.user', 'ann', false), set_config('app.ip_address', '10.1.2.3', false);"
WITH_CONTEXT = f"{who.ROW}, user and address set"
#: What is counted on tables of other sizes, too.
ON_ALL_SHAPES = (who.BARE, who.FLOOR, who.ROW, who.CHANGED, who.STATEMENT, who.GUIDES)

Statements = t.Callable[[int], list[str]]


def _single(file: str) -> Statements:
    """Return the statement of a pgbench script, prepared, and so many executions of it."""
    text = (SQL / file).read_text(encoding="utf-8").strip().splitlines()[-1].replace(":id", "$1")
    keys = itertools.count(1_000_000) if "insert" in file else itertools.cycle(range(1, 100_000, 7))
    return lambda number: [
        f"PREPARE change_it (bigint) AS {text}",
        *(f"EXECUTE change_it ({next(keys)});" for _number in range(number)),
    ]


def _bulk(statement: str) -> Statements:
    """Return a statement on so many rows, of which nothing stays."""
    return lambda rows: ["BEGIN;", statement.format(rows=rows), "ROLLBACK;"]


WORKS: dict[str, tuple[Statements, tuple[int, int]]] = {
    "single INSERT": (_single("single_insert.sql"), SINGLE_RUNS),
    "single UPDATE": (_single("single_update.sql"), SINGLE_RUNS),
    "row of a bulk INSERT": (_bulk("INSERT INTO batch SELECT * FROM source LIMIT {rows};"), BULK_RUNS),
    "row of a bulk UPDATE": (_bulk("UPDATE item SET amount = amount + 1 WHERE id <= {rows};"), BULK_RUNS),
}


def tables(options: rounds.Options, say: t.Callable[[str], None]) -> rounds.Part:
    """Count on the ordinary table, and with ``--full`` on the narrow and the wide one."""
    if not shutil.which("valgrind"):
        return rounds.Part("valgrind is not installed: no instructions were counted", [], {})
    shapes = ["narrow", "ordinary", "wide"] if options.size == "full" else ["ordinary"]
    return rounds.Part("\n\n".join(_of_shape(shape, options, say) for shape in shapes), [], {})


def _of_shape(shape: str, options: rounds.Options, say: t.Callable[[str], None]) -> str:
    shutil.rmtree(HOME, ignore_errors=True)
    with contextlib.closing(_Counted(shape)) as counted:
        wanted = options.chosen(who.contenders(counted.server, counted.server, shape, EXTENT), who.BARE)
        names = (who.PGAUDIT, who.BESIDE_PGAUDIT)
        wanted = [one for one in wanted if one.name not in names and (shape == "ordinary" or one.name in ON_ALL_SHAPES)]
        there, missing = rounds.prepare(wanted, say)
        rows = counted.count(there, say)
    rows += [[f"{name}: {reason}", *([""] * len(WORKS))] for name, reason in missing.items()]
    table = rounds.markdown(["", *WORKS], rows)
    return f"### Thousands of instructions a change: {shape} table ({COLUMNS[shape]} columns)\n\n{table}"


class _Counted:
    """A server that is stopped once all databases are made, and then is a single process for each count."""

    def __init__(self, shape: str) -> None:
        self.server = make_server(HOME / "instructions", shared_buffers="128MB")
        make_shape(self.server, shape, EXTENT)

    def close(self) -> None:
        self.server.remove()

    def count(self, contenders: t.Sequence[Audited], say: t.Callable[[str], None]) -> list[list[str]]:
        """Return a row of the table for each contender."""
        for contender in contenders:
            _settle(contender)
        self.server.stop()
        rows = []
        for contender in contenders:
            rows.append([contender.name, *self._counts(contender, say)])
            if contender.name == who.ROW:
                rows.append([WITH_CONTEXT, *self._counts(contender, say, CONTEXT)])
        return rows

    def _counts(self, contender: Audited, say: t.Callable[[str], None], before: str = "") -> list[str]:
        say(f"counting {contender.name}")
        counts = []
        for statements, (few, many) in WORKS.values():
            spent = [
                _instructions(self.server, contender.database.name, [before, *statements(number)])
                for number in (few, many)
            ]
            counts.append(f"{(spent[1] - spent[0]) / (many - few) / 1000:,.0f}")
        return counts


def _settle(contender: Audited) -> None:
    contender.database.execute("VACUUM (FREEZE, ANALYZE)")
    contender.database.disconnect()


def _instructions(server: LocalPostgresql, database: str, statements: t.Sequence[str]) -> int:
    """Return how many instructions a process executes that starts, does this and ends; nothing of it stays."""
    script = "\n".join([f"SET SESSION AUTHORIZATION {APPLICATION};", *statements])
    done = subprocess.run(
        [
            *("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"),
            *(str(server.binaries / "postgres"), "--single", "-D", str(server.data), database),
        ],
        input=script + "\n",
        capture_output=True,
        text=True,
        check=False,
        cwd=server.data,
        **_owner_of(server),
    )
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    errors = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line or "FATAL" in line]
    if done.returncode or errors or not found:
        raise AssertionError(f"{database} ended with {done.returncode}: {errors or done.stderr[-2000:]}")
    return int(found[1].replace(",", ""))


def _owner_of(server: LocalPostgresql) -> dict[str, t.Any]:
    """Return what makes a process one of the account that the server runs as."""
    status = server.data.stat()
    if status.st_uid == os.geteuid():
        return {}
    return {"user": status.st_uid, "group": status.st_gid, "extra_groups": []}
