# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Inventories and runs of the role postgresql_audit against private servers, for tests."""

from __future__ import annotations

import re
import sys
import typing as t

import running
from databases import Database
from local_postgresql import LocalPostgresql

HOST = "pg1"
POLICIES = [{"tables": ["public.*"]}]


def inventory(server: LocalPostgresql, databases: t.Sequence[t.Any], **variables: t.Any) -> dict[str, t.Any]:
    """Return an inventory with one host, :data:`HOST`: this server, with these entries of postgresql_audit_databases.

    A :class:`Database` or a name stands for an entry with :data:`POLICIES`; ``variables`` are the role's, without
    their prefix, and there is no schedule unless they ask for one. Statement auditing belongs to the whole server,
    which other tests use too: a test that has one to itself sets ``pgaudit_enabled``.
    """
    entries = [entry if isinstance(entry, dict) else audited(entry) for entry in databases]
    login = {"login_unix_socket": str(server.socket_dir), "login_port": server.port, "login_user": "postgres"}
    role = {"login": login, "schedule": "none", "databases": entries, **variables}
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    host["pgaudit_enabled"] = False
    host.update(
        (name if name.startswith("pgaudit_") else f"postgresql_audit_{name}", value) for name, value in role.items()
    )
    return {"postgresql": {"hosts": {HOST: host}}}


def audited(database: Database | str, *policies: dict[str, t.Any], **options: t.Any) -> dict[str, t.Any]:
    """Return an entry of postgresql_audit_databases."""
    name = database if isinstance(database, str) else database.name
    return {"name": name, "policies": list(policies) or POLICIES, **options}


def play(name: str, *arguments: t.Any, **options: t.Any) -> running.PlaybookResult:
    """Run a playbook of the collection by its short name."""
    return running.run_playbook(f"dbfleet.audit.{name}", *arguments, **options)


def lines(result: running.PlaybookResult) -> list[str]:
    """Return the texts that the run's debug tasks printed, in order."""
    return [text.replace('\\"', '"') for text in re.findall(r'^ +"(.*)",?$', result.stdout, re.MULTILINE)]


def sql_shown(result: running.PlaybookResult) -> list[str]:
    """Return what --diff showed, line by line."""
    return [line[1:] for line in result.stdout.splitlines() if line.startswith("+") and not line.startswith("+++")]
