# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A log on MariaDB or MySQL with rows of past months, and the archive action without ansible-playbook around it."""

from __future__ import annotations

import contextlib
import datetime
import pathlib
import typing as t

import running
from archiving import SERVER, Archiver, months_ago, period
from mysql_auditing import rollout
from mysql_databases import MysqlServer, Schema, quote_name
from mysql_sealing import unsealed_log
from sealing import Sealer

_EMPTY = """
ALTER TABLE audit.audit_log_data PARTITION BY RANGE COLUMNS (changed_at)
  (PARTITION p_future VALUES LESS THAN (MAXVALUE))
"""

_ADD = """
INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, record_id, new_values,
  changed_by, db_user, application_name, policy_id)
SELECT %s, %s, 'INSERT', %s, %s, %s, JSON_OBJECT('id', %s, 'name', %s), %s, 'shop_app', 'shop',
       (SELECT MAX(p.policy_id) FROM audit.policy AS p WHERE p.valid_to IS NULL AND p.name = %s)
"""


def policies(schema: Schema) -> list[dict[str, t.Any]]:
    """Return policies of three categories of retention."""
    kinds = {"payment": "financial", "patient": "hipaa", "item": None}
    return [
        {"tables": [f"{schema.name}.{table}"], "name": table, **({"retention": kind} if kind else {})}
        for table, kind in kinds.items()
    ]


@contextlib.contextmanager
def old_log(server: MysqlServer, months: int = 6) -> t.Iterator[Schema]:
    """Give a database with three audited tables on a server whose log has partitions of so many past months."""
    with Schema(server) as log:
        unsealed_log(log)
        _partition_anew(log, months)
        for table in ("payment", "patient", "item"):
            log.execute(f"CREATE TABLE {table} (id INT PRIMARY KEY, name TEXT)")
        rollout(log, *policies(log))
        try:
            yield log
        finally:
            for side in sides(log):
                log.execute(f"DROP TABLE audit.{side}")
            unsealed_log(log)
            _partition_anew(log, 0)


def _partition_anew(log: Schema, months: int) -> None:
    log.execute(_EMPTY)
    for ago in range(months, 0, -4):
        log.execute("CALL audit.maintain_partitions_at(%s)", months_ago(ago))
    running.run_module("mysql_audit_partitions", **log.login)


def add_old(
    log: Schema, ago: int, rows: int = 5, table: str = "item", connection: t.Any = None, first: int = 1
) -> None:
    """Add records of a month so long ago; over a connection of the caller's they stay in its transaction."""
    at = datetime.datetime.combine(months_ago(ago), datetime.time())
    names = (f'Änne "{number}" \\ 😀{"x" * (number % 50)}' for number in range(first, first + rows))
    values = [
        (at + datetime.timedelta(minutes=number), f"t{number}", log.name, table, number, number, name, "ann", table)
        for number, name in enumerate(names, first)
    ]
    with (connection or log.connect()).cursor() as cursor:
        for row in values:
            cursor.execute(_ADD, row)


def name_of(ago: int) -> str:
    """Return the name of the partition of the month so long ago; that of its archive is :func:`archiving.period`."""
    return f"p{period(ago).removeprefix('audit_log_')}"


def partitions(log: Schema) -> list[str]:
    """Return the names of the log's partitions, by time."""
    rows = log.execute(
        "SELECT partition_name FROM information_schema.partitions "
        "WHERE table_schema = 'audit' AND table_name = 'audit_log_data' ORDER BY partition_ordinal_position"
    )
    return [name for (name,) in rows]


def sides(log: Schema) -> list[str]:
    """Return the names of the tables that partitions were exchanged with, and that are still there."""
    rows = log.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'audit' AND table_name REGEXP '_[0-9]+_'"
    )
    return sorted(name for (name,) in rows)


def count(log: Schema, table: str) -> int:
    """Return the number of rows of a table of the trail."""
    return int(log.value(f"SELECT COUNT(*) FROM audit.{table}"))


def exchange(log: Schema, ago: int) -> None:
    """Do what a run does first, as if it had been cut off then."""
    side, partition = (quote_name(name) for name in (period(ago), name_of(ago)))
    log.execute(f"CREATE TABLE audit.{side} LIKE audit.audit_log_data")
    log.execute(f"ALTER TABLE audit.{side} REMOVE PARTITIONING")
    if not log.server.is_mariadb:
        last = log.value("SELECT MAX(id) FROM audit.audit_log_data")
        log.execute(f"ALTER TABLE audit.audit_log_data AUTO_INCREMENT = {last + 1}")
    log.execute(f"ALTER TABLE audit.audit_log_data EXCHANGE PARTITION {partition} WITH TABLE audit.{side}")


class MysqlArchiver(Archiver):
    """Archives the log of a server into a directory."""

    def __init__(self, log: Schema, directory: pathlib.Path) -> None:
        Sealer.__init__(self, log.login, directory, "mysql", policies=policies(log))
        self.log = log
        self.url = directory / "archive"
        self.url.mkdir()
        self.place = self.url / SERVER / "audit"

    def before(self, step: str, act: t.Callable[[], None]) -> None:
        """Have something done, once, before a step of the host."""

        def meanwhile() -> None:
            if self.calls[-1]["step"]["do"] == step:
                self.meanwhile = None
                act()

        self.meanwhile = meanwhile
