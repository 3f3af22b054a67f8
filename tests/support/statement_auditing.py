# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Servers whose statements are audited: the modules on them, their configuration files and their log, for tests."""

from __future__ import annotations

import contextlib
import pathlib
import time
import typing as t

import running
from databases import connect, fetch
from local_postgresql import LocalPostgresql

PRELOAD = "shared_preload_libraries"


def ask(server: LocalPostgresql, statement: str, *args: t.Any, database: str = "postgres") -> list[tuple[t.Any, ...]]:
    """Execute a superuser's statement in a new session, which has the settings as they are by now."""
    with contextlib.closing(connect(server, database)) as connection:
        return fetch(connection, statement, *args)


def show(server: LocalPostgresql, name: str, database: str = "postgres", user: str = "postgres") -> str:
    """Return a setting as a new session of a user has it."""
    with contextlib.closing(connect(server, database, user)) as connection:
        return str(fetch(connection, f"SHOW {name}")[0][0])


def login_of(server: LocalPostgresql) -> dict[str, t.Any]:
    """Return the options that bring a module to the server as the superuser."""
    return {"login_unix_socket": str(server.socket_dir), "login_port": server.port, "login_user": "postgres"}


def preload(server: LocalPostgresql, *names: str, **options: t.Any) -> running.ModuleResult:
    """Run postgresql_preload_libraries."""
    return running.run_module("postgresql_preload_libraries", **{**login_of(server), "name": list(names), **options})


def configure(server: LocalPostgresql, **options: t.Any) -> running.ModuleResult:
    """Run postgresql_pgaudit."""
    return running.run_module("postgresql_pgaudit", **{**login_of(server), **options})


def refused(server: LocalPostgresql, **options: t.Any) -> str:
    """Return the message with which postgresql_pgaudit refuses these options."""
    result = configure(server, may_fail=True, **options)
    assert result.failed, result
    return result.msg


def restart_facts(server: LocalPostgresql) -> dict[str, t.Any]:
    """Return what postgresql_audit_info says about a restart of the server."""
    return dict(running.run_module("postgresql_audit_info", **login_of(server))["restart"])


def restart_server(server: LocalPostgresql, may_fail: bool = False, **options: t.Any) -> running.ModuleResult:
    """Run server_restart with these facts, as the role does; ``options`` replace some of them."""
    facts = restart_facts(server)
    taken = {name: facts[name] for name in ("process", "ready", "fallback", "restore", "logs")}
    return running.run_module("server_restart", may_fail=may_fail, **{**taken, **options})


def automatic(server: LocalPostgresql) -> pathlib.Path:
    """Return the file that ALTER SYSTEM writes."""
    return server.data / "postgresql.auto.conf"


def written(server: LocalPostgresql) -> list[str]:
    """Return what ALTER SYSTEM has written, line by line."""
    return [line for line in automatic(server).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def as_made(server: LocalPostgresql, configuration: str) -> None:
    """Give a server the postgresql.conf that it was made with, and nothing else; start it if it is down."""
    (server.data / "postgresql.conf").write_text(configuration, encoding="utf-8")
    automatic(server).write_text("", encoding="utf-8")
    if not server.running():
        server.start()
    elif show(server, PRELOAD) or ask(server, "SELECT 1 FROM pg_file_settings WHERE error IS NOT NULL"):
        server.restart()


def server_log(server: LocalPostgresql) -> list[str]:
    """Return the server's log, line by line."""
    return server.log.read_text(encoding="utf-8", errors="replace").splitlines()


def logged(server: LocalPostgresql, work: t.Callable[[], t.Any]) -> list[str]:
    """Return the lines that the server's log has more after some work."""
    before = len(server_log(server))
    work()
    return server_log(server)[before:]


def wait_for_line(server: LocalPostgresql, before: int, *words: str, seconds: float = 10) -> str:
    """Return the first line after that many which has these words; the end of a session is logged after it."""
    deadline = time.monotonic() + seconds
    while True:
        for line in server_log(server)[before:]:
            if all(word in line for word in words):
                return line
        if time.monotonic() > deadline:
            raise AssertionError(f"no line with {words} in {server_log(server)[before:]}")
        time.sleep(0.05)


def audit_entries(lines: t.Iterable[str], kind: str = "SESSION") -> list[str]:
    """Return what follows the numbers in pgaudit's lines of a kind: ``READ,SELECT,TABLE,public.t,...``."""
    return [line.partition(f"AUDIT: {kind},")[2].split(",", 2)[2] for line in lines if f"AUDIT: {kind}," in line]


def everything(server: LocalPostgresql, *databases: str) -> dict[str, t.Any]:
    """Return all that can be configured of pgaudit, and of everybody else's settings beside it."""
    found: dict[str, t.Any] = {
        "files": sorted(ask(server, "SELECT name, setting, sourcefile FROM pg_file_settings")),
        "scopes": sorted(
            ask(
                server,
                "SELECT coalesce(datname, ''), coalesce(rolname, ''), entry FROM pg_db_role_setting "
                "CROSS JOIN unnest(setconfig) AS entry "
                "LEFT JOIN pg_database AS d ON d.oid = setdatabase LEFT JOIN pg_roles AS r ON r.oid = setrole",
            )
        ),
        "roles": sorted(ask(server, "SELECT rolname, rolcanlogin FROM pg_roles")),
    }
    for name in databases:
        found[name] = ask(
            server,
            "SELECT (SELECT array_agg(extname || extversion ORDER BY 1) FROM pg_extension), "
            "(SELECT array_agg(concat(oid::regclass, relacl) ORDER BY 1) FROM pg_class WHERE oid >= 16384), "
            "(SELECT array_agg(concat(attrelid::regclass, attname, attacl) ORDER BY 1) FROM pg_attribute "
            " WHERE attrelid >= 16384 AND attacl <> '{}')",
            database=name,
        )
    return found
