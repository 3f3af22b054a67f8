# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Trails as releases leave them, with rows, policies and seals: made by this checkout's code, dumped, and restored.

    python trail_fixture.py NAME    # of PostgreSQL and MariaDB; with DBFLEET_TEST_MYSQL, of that server alone

They are kept below tests/fixtures/trails, by the release's name.
"""

from __future__ import annotations

import gzip
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import typing as t

import mysql_sealing
import running
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from databases import Database
from local_mysql import LocalMysql
from local_postgresql import LocalPostgresql
from mysql_databases import ACCOUNT_PASSWORD, ExternalMysql, MysqlServer, Schema
from sealing import Sealer

TRAILS = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "trails"

READER, APPLICATION = "fixture_reader", "fixture_app"
#: The audited database on MariaDB and MySQL.
SHOP = "fixture_shop"
VIEWS = ("audit_log", "audit_history", "audit_logs")

PERSON = {
    "name": "people",
    "columns": {"redact": ["password"], "hash": ["ssn"]},
    "classification": "restricted",
    "retention": "health",
    "tags": ["HIPAA"],
}
LOT = {"name": "lots", "update_image": "changed", "operations": ["insert", "update"], "when": "NEW.number > 0"}
POSTGRESQL = {
    "policies": [
        {"tables": ["public.person"], **PERSON},
        {"tables": ["public.lot"], **LOT},
        {"tables": ["public.visit"], "name": "visits"},
        {"tables": ["public.bulk"], "name": "bulk", "capture": "statement"},
    ],
    "readers": [READER],
    "applications": [APPLICATION],
    "indexes": ["record", "changed_by"],
}
MYSQL = {
    "policies": [{"tables": [f"{SHOP}.person"], **PERSON}, {"tables": [f"{SHOP}.lot"], **LOT}],
    "readers": [f"{READER}@%"],
    "applications": [f"{APPLICATION}@%"],
    "indexes": ["record", "changed_by"],
}

#: Problems that are differences between the database and what the rollout asks for.
NOT_AS_ASKED = ("missing", "altered", "disabled", "grant", "refused")

_ROLE = """
DO $$ BEGIN
  CREATE ROLE {0} LOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
"""
_TABLES = """
CREATE TABLE person (id int PRIMARY KEY, name varchar(40), password varchar(40), ssn varchar(40));
CREATE TABLE lot (code varchar(10), number int, note text, PRIMARY KEY (code, number));
"""
_POSTGRESQL_TABLES = (
    _TABLES
    + """
CREATE TABLE visit (id int PRIMARY KEY, day date) PARTITION BY RANGE (id);
CREATE TABLE visit_1 PARTITION OF visit FOR VALUES FROM (0) TO (1000);
CREATE TABLE bulk (id int PRIMARY KEY, name text);
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {application};
"""
)
_WRITES = """
INSERT INTO person VALUES ({n}1, 'Ann', 'secret', '123-45'), ({n}2, 'Bob "the \u00e4" O''Hara', 'secret', NULL);
UPDATE person SET password = 'other', name = 'Anna' WHERE id = {n}1;
DELETE FROM person WHERE id = {n}2;
INSERT INTO lot VALUES ('A{n}', 1, 'first'), ('A{n}', -1, 'not audited');
UPDATE lot SET note = NULL WHERE code = 'A{n}' AND number = 1;
"""
_POSTGRESQL_WRITES = (
    _WRITES
    + """
INSERT INTO visit VALUES ({n}1, '2026-11-01');
INSERT INTO bulk SELECT {n}0 + i, 'x' FROM generate_series(0, 9) AS i;
SELECT audit.set_context('{{"user": "ann", "request_id": "{n}"}}');
SELECT audit.log_event('export', 'person', '{n}1', true, '{{"rows": 2}}')
"""
)
_MYSQL_WRITES = (
    _WRITES
    + """
CALL audit.set_context('{{"user": "ann", "request_id": "{n}"}}');
CALL audit.log_event('export', 'person', '{n}1', TRUE, '{{"rows": 2}}')
"""
)


def write_postgresql(db: Database, number: int) -> None:
    """Make changes as the application, in one transaction."""
    db.execute(_POSTGRESQL_WRITES.format(n=number), user=APPLICATION)


def write_mysql(schema: Schema, number: int) -> None:
    """Make changes as the application."""
    for statement in _MYSQL_WRITES.format(n=number).strip().split(";\n"):
        schema.execute(statement, user=APPLICATION)


def without_policies(options: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return what of a rollout's options is the trail's."""
    return {key: value for key, value in options.items() if key != "policies"}


def roll_out(engine: str, login: dict[str, t.Any], options: dict[str, t.Any], **more: t.Any) -> list[bool]:
    """Run the modules of a rollout in their order; return which of them changed something."""
    done = [
        running.run_module(f"{engine}_audit_trail", **login, **without_policies(options), **more),
        running.run_module(f"{engine}_audit_partitions", **login),
        running.run_module(f"{engine}_audit_triggers", **login, policies=options["policies"]),
    ]
    return [result.changed for result in done]


def fill(
    engine: str, login: dict[str, t.Any], options: dict[str, t.Any], write: t.Callable[[int], None], sealer: Sealer
) -> None:
    """Make a trail with two versions of a policy, rows that are sealed, and rows that are not."""
    first, *others = options["policies"]
    roll_out(engine, login, {**options, "policies": [{**first, "tags": []}, *others]})
    write(1)
    sealer.seal()
    roll_out(engine, login, options)
    write(2)
    sealer.seal()
    write(3)


def fill_postgresql(db: Database, directory: pathlib.Path) -> Sealer:
    """Make such a trail in an empty database."""
    db.execute("".join(_ROLE.format(role) for role in (READER, APPLICATION)))
    db.execute(_POSTGRESQL_TABLES.format(application=APPLICATION))
    sealer = FixtureSealer(db.login, directory, "postgresql")
    fill("postgresql", db.login, POSTGRESQL, lambda number: write_postgresql(db, number), sealer)
    return sealer


def fill_mysql(schema: Schema, directory: pathlib.Path) -> Sealer:
    """Make such a trail on a server without one, in an empty database called SHOP."""
    make_accounts(schema)
    for statement in _TABLES.strip().split(";\n"):
        schema.execute(statement)
    sealer = FixtureSealer(schema.login, directory, kind_of(schema.server))
    fill("mysql", schema.login, MYSQL, lambda number: write_mysql(schema, number), sealer)
    return sealer


def make_accounts(schema: Schema) -> None:
    """Make the accounts of a reader and of the application."""
    for name in (READER, APPLICATION):
        schema.execute(f"CREATE USER IF NOT EXISTS {name}@'%' IDENTIFIED BY '{ACCOUNT_PASSWORD}'")
    schema.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {SHOP}.* TO {APPLICATION}@'%'")


class FixtureSealer(Sealer):
    """Seals and verifies such a trail with the key of all fixtures, which is made anew each time.

    :param restored: the name of the fixture whose ledger it goes on with.
    """

    def __init__(
        self, login: t.Mapping[str, t.Any], directory: pathlib.Path, kind: str, restored: str | None = None
    ) -> None:
        engine, rollout = ("postgresql", POSTGRESQL) if kind == "postgresql" else ("mysql", MYSQL)
        super().__init__(login, directory, engine, **rollout)
        key = ed25519.Ed25519PrivateKey.from_private_bytes(b"trails of dbfleet.audit in tests")
        pem, info = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        pathlib.Path(self.key.private).write_bytes(private)
        pathlib.Path(self.key.public).write_bytes(key.public_key().public_bytes(pem, info))
        if restored:
            shutil.copy(TRAILS / restored / f"{kind}.ledger.jsonl", self.ledger)

    def seal_problems(self) -> list[dict[str, t.Any]]:
        """Return what verification finds wrong with seals, rows and objects that were sealed."""
        return [problem for problem in self.verify()["problems"] if problem["type"] not in NOT_AS_ASKED]


def _keep(name: str, kind: str, dump: str, sealer: Sealer) -> None:
    place = TRAILS / name
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{kind}.sql.gz").write_bytes(gzip.compress(dump.encode(), mtime=0))
    shutil.copy(sealer.ledger, place / f"{kind}.ledger.jsonl")


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


def dump_postgresql(db: Database) -> str:
    """Return a database and its roles as psql takes them."""
    server = db.server
    place = ["-h", str(server.socket_dir), "-p", str(server.port), "-U", "postgres"]
    roles = _output(server.binaries / "pg_dumpall", *place, "--roles-only", "--no-role-passwords")
    dump = _output(server.binaries / "pg_dump", *place, db.name)
    ours = re.findall(r"^.*\b(?:audit|fixture)_(?:owner|writer|reader|app)\b.*;$", roles, re.MULTILINE)
    # The server that it is restored on may have the roles.
    lines = ["\\set ON_ERROR_STOP 0", *ours, "\\set ON_ERROR_STOP 1"]
    # A psql of last year does not know \restrict.
    lines += [line for line in dump.splitlines() if not re.match(r"\\(un)?restrict ", line)]
    return "\n".join(lines) + "\n"


def restore_postgresql(db: Database, name: str) -> None:
    """Load a dump into an empty database."""
    server = db.server
    place = ["-h", str(server.socket_dir), "-p", str(server.port), "-U", "postgres", "-d", db.name]
    dump = gzip.decompress((TRAILS / name / "postgresql.sql.gz").read_bytes())
    _output(server.binaries / "psql", *place, "-q", "-v", "VERBOSITY=terse", given=dump.decode())


def _output(*command: t.Any, given: str = "") -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [os.fspath(part) for part in command], input=given, text=True, capture_output=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- MariaDB and MySQL -------------------------------------------------------------------------------------------------


def kind_of(server: MysqlServer) -> str:
    """Return what the files of a server's fixtures are called."""
    return "mariadb" if server.is_mariadb else "mysql"


def dump_mysql(schema: Schema) -> str:
    """Return the trail, the audited database and the trail's accounts, in an order that can be restored."""
    definers = ["audit_writer@localhost", "audit_owner@localhost"]
    accounts = [*definers, f"{READER}@'%'", f"{APPLICATION}@'%'"]
    lines = [schema.value(f"SHOW CREATE USER {account}") for account in definers]
    grants = [row[0] for account in accounts for row in schema.execute(f"SHOW GRANTS FOR {account}")]
    grants = [grant for grant in grants if not grant.startswith("GRANT USAGE ")]
    # Views that call functions can be made only when their definer may call them; before, they are no views to grant.
    late = [grant for grant in grants if re.search(r" ON `audit`\.`audit_(log|logs|history)` ", grant)]
    early = [grant for grant in grants if grant not in late]
    views = [schema.execute(f"SHOW CREATE VIEW audit.{view}")[0][1] for view in VIEWS]
    views = [view.replace("CREATE ", "CREATE OR REPLACE ", 1) for view in views]
    # Of what MySQL and MariaDB call a blob, no byte is a character.
    dump = mysql_sealing.dump(schema.server, "audit", schema.name, options=["--hex-blob"]).decode()
    # Clients of last year do not know it, and it has to be the first line.
    dump = re.sub(r"^/\*M!999999.*\n", "", dump)
    return "".join([*(f"{line};\n" for line in lines), dump, *(f"{line};\n" for line in early + views + late)])


def restore_mysql(schema: Schema, name: str) -> None:
    """Load a dump onto a server without a trail; the database of `schema` is the one that is audited."""
    make_accounts(schema)
    dump = (TRAILS / name / f"{kind_of(schema.server)}.sql.gz").read_bytes()
    mysql_sealing.restore(schema.server, gzip.decompress(dump))


def make_postgresql(name: str, place: pathlib.Path) -> None:
    """Make the fixture of PostgreSQL, on a server in a directory."""
    server = LocalPostgresql.create(place / "server", while_pid=os.getpid())
    try:
        db = Database(server, "fixture")
        sealer = fill_postgresql(db, place)
        _keep(name, "postgresql", dump_postgresql(db), sealer)
        db.disconnect()
    finally:
        server.remove()


def make_mysql(name: str, server: MysqlServer, place: pathlib.Path) -> None:
    """Make the fixture of MariaDB or MySQL, on a server without a trail."""
    with Schema(server, SHOP) as schema:
        sealer = fill_mysql(schema, place)
        _keep(name, kind_of(server), dump_mysql(schema), sealer)


def main() -> None:
    """Make the fixtures of this release."""
    (name,) = sys.argv[1:]
    external = ExternalMysql.from_environment()
    with tempfile.TemporaryDirectory() as scratch:
        place = pathlib.Path(scratch)
        # The servers run as accounts of their own.
        place.chmod(0o755)
        if external:
            make_mysql(name, external, place)
            return
        make_postgresql(name, place)
        local = LocalMysql.create(place / "server", while_pid=os.getpid())
        try:
            make_mysql(name, local, place)
        finally:
            local.remove()


if __name__ == "__main__":
    main()
