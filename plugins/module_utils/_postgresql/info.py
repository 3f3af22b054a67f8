# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read-only facts about a server, for roles and for people."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from .._core.errors import AuditError
from .._core.exemption import parse_exemptions_of_databases
from .._core.info import Request, parse_request
from .catalog_snapshot import catalog_changes
from .info_trail import trail_facts
from .log_files import read_logs
from .login import Login, limitations, login_query
from .module import PostgresqlModule
from .restart_facts import read_restart
from .session import Session, connect, psycopg2
from .settings import patroni_cluster
from .user_checks import user_checks

_SERVER = """
SELECT {login} AS login,
       ARRAY(SELECT datname::text FROM pg_database
             WHERE datallowconn AND NOT datistemplate AND has_database_privilege(oid, 'CONNECT')
             ORDER BY datname) AS databases,
       ARRAY(SELECT datname::text FROM pg_database WHERE NOT has_database_privilege(oid, 'CONNECT')) AS closed,
       ARRAY(SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname) AS open,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'pgaudit') AS pgaudit,
       EXISTS (SELECT FROM pg_settings WHERE name = 'pgaudit.log') AS pgaudit_loaded,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('name', s.name, 'value', s.value, 'place', s.place)
                                  ORDER BY s.name, s.place), '[]')
        FROM (SELECT name, setting AS value, coalesce(sourcefile || ':' || sourceline, source) AS place
              FROM pg_settings WHERE name LIKE 'pgaudit.%' AND source NOT IN ('default', 'database', 'user',
                'database user', 'session', 'client')
              UNION ALL
              SELECT split_part(e.entry, '=', 1), substr(e.entry, strpos(e.entry, '=') + 1),
                     concat_ws(', ', 'database ' || d.datname, 'role ' || r.rolname)
              FROM pg_db_role_setting AS c CROSS JOIN unnest(c.setconfig) AS e (entry)
              LEFT JOIN pg_database AS d ON d.oid = c.setdatabase LEFT JOIN pg_roles AS r ON r.oid = c.setrole
              WHERE e.entry LIKE 'pgaudit.%') AS s) AS pgaudit_settings,
       ARRAY(SELECT name FROM pg_settings WHERE pending_restart ORDER BY name) AS pending_restart
"""

#: Databases that every server has, or that a managed service keeps for itself on each: nobody lists them.
_OF_SERVERS = ("postgres", "rdsadmin", "cloudsqladmin", "azure_maintenance", "azure_sys")


def gather(module: PostgresqlModule, session: Session) -> None:
    """Put the facts into the module's results."""
    exemptions = parse_exemptions_of_databases(module.params["exceptions"])
    request = parse_request(module.params, datetime.now(timezone.utc), exemptions)
    if request.wanted:
        _require_zone(session, request.time_zone)
    server = session.one(_SERVER.replace("{login}", login_query(session)))
    login = Login.read(server.login, session)
    patterns = module.params["databases"]
    matched = {pattern: fnmatch.filter(server.databases, pattern) for pattern in patterns}
    module.results.update(
        version={"full": session.version, "major": session.version_number // 10000},
        in_recovery=session.in_recovery,
        superuser=login.superuser,
        databases=sorted({name for names in matched.values() for name in names}),
        matches=matched,
        unmatched=[pattern for pattern in patterns if not matched[pattern]],
        unlisted=_unlisted(server.open, patterns),
        limitations=limitations(login),
        patroni=patroni_cluster(session) or None,
        pgaudit={
            "installed": server.pgaudit,
            "loaded": server.pgaudit_loaded,
            "settings": server.pgaudit_settings,
        },
        catalog_changes=catalog_changes(session, module.params["schema"]),
        pending_restart=server.pending_restart,
        restart=read_restart(session) if login.superuser else None,
        logs=read_logs(session) if login.superuser else None,
    )
    if request.wanted:
        # That a pattern leaves out what is closed to the login is nothing to report; a name is.
        closed = set(server.closed).intersection(patterns)
        trails = [_trail(module, request, name) for name in sorted(closed.union(module.results["databases"]))]
        module.results["trails"] = trails
        module.results["limitations"] += [
            f"{trail['database']}: {lost}" for trail in trails for lost in trail.get("limitations", ())
        ]
    if module.params["checks"]:
        module.results["checks"] = user_checks(module.params, module.results["databases"])


def _unlisted(databases: Sequence[str], patterns: Sequence[str]) -> list[str]:
    left = [name for name in databases if name not in _OF_SERVERS]
    return [name for name in left if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _require_zone(session: Session, time_zone: str) -> None:
    try:
        session.one("SELECT now() AT TIME ZONE %(time_zone)s", {"time_zone": time_zone})
    except psycopg2.errors.InvalidParameterValue:
        raise AuditError(
            f"time_zone: {time_zone!r} is none that the server knows; give a name like Europe/Berlin"
        ) from None


def _trail(module: PostgresqlModule, request: Request, database: str) -> dict[str, Any]:
    """Read one database; of one that cannot be read, the error takes the place of its facts."""
    schema = module.params["schemas"].get(database, module.params["schema"])
    try:
        session = connect({**module.params, "login_db": database})
        try:
            return trail_facts(session, schema, request)
        finally:
            session.close()
    except (AuditError, psycopg2.Error) as error:
        return {"database": database, "schema": schema, "error": str(error).strip()}
