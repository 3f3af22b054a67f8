# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Logs with rows of past months, and the archive action without the process of ansible-playbook around it."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import importlib
import json
import pathlib
import typing as t

import running
from auditing import install_trail, rollout, wanted
from databases import Database
from local_postgresql import LocalPostgresql
from sealing import Sealer

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.ledger_archive import MANIFEST_SUFFIX

SERVER = "pg3"

#: Of the retention of rows by the policy that they are of.
POLICIES = [
    {**wanted("public.payment"), "retention": "financial"},
    {**wanted("public.patient"), "retention": "hipaa"},
    wanted("public.item"),
]

_ADD = """
INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, record_id,
  new_values, changed_by, db_user, application_name, policy_id)
SELECT %(at)s::timestamptz + n * interval '1 minute', pg_current_xact_id(), 'INSERT', 'public', %(table)s, n::text,
       jsonb_build_object('id', n, 'name', format('Änne "%%s" \\ %%s', n, repeat('x', n %% 50))),
       'user' || n %% 7, 'shop_app', 'shop',
       (SELECT p.policy_id FROM audit.policy AS p
        WHERE p.retention IS NOT DISTINCT FROM %(category)s AND p.valid_to IS NULL LIMIT 1)
FROM generate_series(1, %(rows)s) AS n
"""


def months_ago(number: int) -> datetime.date:
    """Return the first day of the month so long ago."""
    today = datetime.datetime.now(datetime.timezone.utc).date()
    months = today.year * 12 + today.month - 1 - number
    return datetime.date(months // 12, months % 12 + 1, 1)


def period(number: int) -> str:
    """Return the name of the partition of the month so long ago."""
    return months_ago(number).strftime("audit_log_%Y_%m")


@contextlib.contextmanager
def old_log(server: LocalPostgresql, months: int = 6) -> t.Iterator[Database]:
    """Give a database whose log has partitions of so many past months, and tables of three categories."""
    log = Database(server)
    try:
        running.run_module("postgresql_audit_trail", **log.login)
        log.execute("CALL audit.maintain_partitions(%s)", months_ago(months))
        install_trail(log)
        for table in ("payment", "patient", "item"):
            log.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, name text)")
        rollout(log, policies=POLICIES)
        yield log
    finally:
        log.drop()


def add_old(log: Database, ago: int, rows: int = 5, table: str = "item") -> None:
    """Add records of a month so long ago."""
    connection = log.connect()
    with connection.cursor() as cursor:
        category = {"payment": "financial", "patient": "hipaa"}.get(table)
        cursor.execute(_ADD, {"at": months_ago(ago), "table": table, "rows": rows, "category": category})


def tamper(log: Database, ago: int, statement: str) -> None:
    """Execute something on the `{table}` of a month so long ago, as a superuser who has turned every guard off."""
    table = f"audit.{period(ago)}"
    connection = log.connect()
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(statement.format(table=table))


def partitions(log: Database) -> list[str]:
    """Return the names of the log's partitions."""
    rows = log.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit.audit_log_data'::regclass ORDER BY 1"
    )
    return [name.removeprefix("audit.") for (name,) in rows]


#: Records that are not of the log's own partitions.
OF_OTHERS = "action <> 'DDL' AND schema_name IS DISTINCT FROM 'audit'"


def ids(log: Database) -> set[int]:
    """Return the ids of what is in the log, but of what was done to itself."""
    return {number for (number,) in log.execute(f"SELECT id FROM audit.audit_log_data WHERE {OF_OTHERS}")}


class Archiver(Sealer):
    """Archives the log of a database into a directory.

    :ivar place: where archives of the log are.
    """

    def __init__(self, log: Database, directory: pathlib.Path) -> None:
        self._begin(log.login, directory, log.name)

    @classmethod
    def of_nothing(cls, directory: pathlib.Path) -> Archiver:
        """Return one that has no database to ask."""
        archiver = cls.__new__(cls)
        archiver._begin({}, directory, "nothing")
        return archiver

    def _begin(self, login: t.Mapping[str, t.Any], directory: pathlib.Path, name: str) -> None:
        super().__init__(login, directory, policies=POLICIES)
        self.url = directory / "archive"
        self.url.mkdir()
        self.place = self.url / SERVER / name

    def run(self, **options: t.Any) -> dict[str, t.Any]:
        """Run the archive action; an error of it is raised."""
        arguments = {
            "signing_key": self.key.private,
            "ledger": str(self.ledger),
            "url": str(self.url),
            "server": SERVER,
            "older_than": "3mo",
            "drop": True,
            **options,
        }
        return self._work("archive", arguments)

    def refused(self, **options: t.Any) -> str:
        """Return the message of a run that must fail."""
        try:
            result = self.run(**options)
        except AuditError as error:
            return str(error)
        assert result.get("failed"), result
        return str(result["msg"])

    def restore(self, archive: str, **options: t.Any) -> dict[str, t.Any]:
        """Run the restore action; an error of it is raised."""
        arguments = {
            "public_key": [self.key.public],
            "ledger": str(self.ledger),
            "url": str(self.url),
            "server": SERVER,
            "archive": archive,
            **options,
        }
        return self._work("restore", arguments)

    def _work(self, what: str, arguments: dict[str, t.Any]) -> dict[str, t.Any]:
        module = f"{self.engine}_audit_{what}"
        action = importlib.import_module(f"ansible_collections.dbfleet.audit.plugins.action.{module}")
        return self._act(action.ActionModule, module, arguments)

    def files(self) -> list[str]:
        """Return the names of all files of the log's archive."""
        return sorted(path.name for path in self.place.iterdir()) if self.place.exists() else []

    def archived(self, name: str) -> list[dict[str, t.Any]]:
        """Return the rows of an archive."""
        with gzip.open(self.place / self.manifest(name)["file"], "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def ids(self) -> set[int]:
        """Return the ids that are in archives, each of them once."""
        names = [name.removesuffix(MANIFEST_SUFFIX) for name in self.files() if name.endswith(MANIFEST_SUFFIX)]
        found = [row["id"] for name in names for row in self.archived(name)]
        assert len(found) == len(set(found))
        return set(found)

    def manifest(self, name: str) -> dict[str, t.Any]:
        """Return what a manifest says."""
        return dict(json.loads((self.place / f"{name}.manifest.json").read_text()))
