# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A log on MariaDB or MySQL that a test seals, tampers with, dumps and restores."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import typing as t

import running
from mysql_auditing import install_trail
from mysql_databases import MysqlServer, Schema


def unsealed_log(schema: Schema) -> None:
    """Make the server's log one that is empty and has never been sealed."""
    running.run_module("mysql_audit_triggers", **schema.login)
    install_trail(schema)
    schema.execute("TRUNCATE TABLE audit.audit_log_data")
    schema.execute("DELETE FROM audit.seal")
    schema.execute("DELETE FROM audit.seal_inventory")
    schema.execute("UPDATE audit.seal_state SET chain = UUID(), watermark = 0, marks = '[]', marked_at = NULL")


def add(schema: Schema, first: int, last: int) -> None:
    """Make audited changes of the table `item`."""
    rows = ", ".join(f"({number}, 'item {number}')" for number in range(first, last + 1))
    schema.execute(f"INSERT INTO item VALUES {rows}")


def logged(schema: Schema, where: str = "TRUE") -> list[int]:
    """Return the ids of the log."""
    rows = schema.execute(f"SELECT id FROM audit.audit_log_data WHERE {where} ORDER BY id")
    return [number for (number,) in rows]


def sealed(schema: Schema) -> list[int]:
    """Return every id that a seal has, as often as it is in one."""
    rows = schema.execute("SELECT ids FROM audit.seal WHERE kind = 'rows'")
    pairs = [pair for (text,) in rows for pair in json.loads(text)]
    return sorted(number for first, last in pairs for number in range(first, last + 1))


def watermark(schema: Schema) -> int:
    """Return the id up to which everything is sealed for good."""
    return int(schema.value("SELECT watermark FROM audit.seal_state"))


def drop_guards(schema: Schema) -> None:
    """Let root change the log."""
    for (name,) in schema.execute(
        "SELECT trigger_name FROM information_schema.triggers "
        "WHERE event_object_schema = 'audit' AND event_object_table = 'audit_log_data'"
    ):
        schema.execute(f"DROP TRIGGER audit.`{name}`")


def dump(server: MysqlServer, *databases: str, options: t.Sequence[str] = ()) -> bytes:
    """Return a dump of databases, as a backup takes it; further options go to the program."""
    program = shutil.which("mariadb-dump" if server.is_mariadb else "mysqldump")
    # Under the locks that a dump of MariaDB takes unless told not to, it cannot read the sequence of the log's ids.
    options = ["--single-transaction", "--skip-add-locks", "--routines", "--events", *options]
    if not server.is_mariadb:
        options.append("--set-gtid-purged=OFF")
    return _run([program, *_connection(server), *options, "--databases", *databases], server, b"")


def restore(server: MysqlServer, dumped: bytes) -> None:
    """Load a dump. It has no grants, without which one of the views cannot be made; a rollout makes both."""
    program = shutil.which("mariadb" if server.is_mariadb else "mysql")
    _run([program, *_connection(server), "--force"], server, dumped, "execute command denied")


def _run(command: list[str | None], server: MysqlServer, given: bytes, known: str = "") -> bytes:
    environment = {**os.environ, "MYSQL_PWD": server.password}
    done = subprocess.run(command, check=False, input=given, capture_output=True, env=environment)
    errors = [line for line in done.stderr.decode().splitlines() if line.startswith("ERROR")]
    assert [error for error in errors if not (known and known in error)] == [], errors
    # With --force, an error that was known is no less a failure.
    assert errors or done.returncode == 0, done.stderr
    return done.stdout


def _connection(server: MysqlServer) -> list[str]:
    place = [f"--socket={server.socket}"] if server.socket else [f"--host={server.host}", f"--port={server.port}"]
    return [f"--user={server.user}", *place]
