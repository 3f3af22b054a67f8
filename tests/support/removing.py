# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All that a server has, as text: what was there before auditing is compared with what is there after it."""

from __future__ import annotations

import subprocess
import typing as t

from databases import Database
from local_postgresql import LocalPostgresql
from mysql_databases import Schema, quote_name
from statement_auditing import ask, automatic

#: A new key in every dump of a recent pg_dump.
_RANDOM = ("\\restrict", "\\unrestrict")

_SYSTEM = ("information_schema", "performance_schema", "mysql", "sys")

#: Rights as the server keeps them: those on what is there no more are in no SHOW GRANTS that anybody reads.
_RIGHTS = ("tables_priv", "columns_priv", "procs_priv", "db")

_OBJECTS = """
SELECT 'TABLE', t.table_schema, t.table_name FROM information_schema.tables AS t WHERE t.table_type = 'BASE TABLE'
UNION ALL SELECT 'VIEW', v.table_schema, v.table_name FROM information_schema.views AS v
UNION ALL SELECT 'TRIGGER', t.trigger_schema, t.trigger_name FROM information_schema.triggers AS t
UNION ALL SELECT r.routine_type, r.routine_schema, r.routine_name FROM information_schema.routines AS r
UNION ALL SELECT 'EVENT', e.event_schema, e.event_name FROM information_schema.events AS e
ORDER BY 1, 2, 3
"""


def postgresql_state(server: LocalPostgresql, *databases: Database) -> dict[str, str]:
    """Return the dump of the roles, of each database with its settings, and the server's own settings."""
    state = {"roles": _dump(server, "pg_dumpall", "--globals-only")}
    for database in databases:
        state[database.name] = _dump(server, "pg_dump", "--schema-only", "--create", f"--dbname={_dsn(database)}")
    rows = ask(server, "SELECT name, setting, source, sourcefile FROM pg_settings WHERE source <> 'default' ORDER BY 1")
    state["settings"] = "\n".join(map(str, rows))
    state["postgresql.auto.conf"] = automatic(server).read_text(encoding="utf-8")
    return state


def _dsn(database: Database) -> str:
    return "dbname='" + database.name.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _dump(server: LocalPostgresql, program: str, *arguments: str) -> str:
    place = ("-h", str(server.socket_dir), "-p", str(server.port), "-U", "postgres")
    done = subprocess.run(
        [server.binaries / program, *place, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return "\n".join(line for line in done.stdout.splitlines() if line and not line.startswith(_RANDOM))


def mysql_state(schema: Schema) -> dict[str, str]:
    """Return the text of every object and account, every right, the variables and the plugins of a server."""
    state = {}
    for kind, database, name in schema.execute(_OBJECTS):
        if database not in _SYSTEM:
            row = schema.execute(f"SHOW CREATE {kind} {quote_name(database)}.{quote_name(name)}")[0]
            state[f"{kind} {database}.{name}"] = str(row[:3])
    state["databases"] = _lines(schema, "SHOW DATABASES")
    for user, host in schema.execute("SELECT user, host FROM mysql.user ORDER BY 1, 2"):
        state[f"{user}@{host}"] = _lines(schema, f"SHOW GRANTS FOR '{user}'@'{host}'") if user else ""
    for table in _RIGHTS:
        columns = [name for (name, *_rest) in schema.execute(f"DESCRIBE mysql.{table}") if name.lower() != "timestamp"]
        state[table] = _lines(schema, f"SELECT {', '.join(columns)} FROM mysql.{table} ORDER BY 1, 2, 3")
    state["variables"] = "\n".join(
        str(row) for row in schema.execute("SHOW GLOBAL VARIABLES") if row[0].lower() not in _MOVING
    )
    state["plugins"] = _lines(schema, "SHOW PLUGINS")
    return state


def _lines(schema: Schema, statement: str) -> str:
    return "\n".join(map(str, schema.execute(statement)))


#: Variables that change by themselves.
_MOVING = ("gtid_binlog_pos", "gtid_binlog_state", "gtid_current_pos", "gtid_executed", "timestamp")


def differences(before: t.Mapping[str, str], after: t.Mapping[str, str]) -> list[str]:
    """Return the lines that only one of two states has, each with a sign and with where it is."""
    found = []
    for place in sorted({*before, *after}):
        old, new = (state.get(place, "").splitlines() for state in (before, after))
        found += [f"-{place}: {line}" for line in old if line not in new]
        found += [f"+{place}: {line}" for line in new if line not in old]
        # The text of an object may be empty.
        if (place in before) != (place in after) and not (old or new):
            found.append(f"{'-' if place in before else '+'}{place}")
    return found
