# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read-only facts about a server, for roles and for people."""

from __future__ import annotations

import fnmatch

from .catalog_snapshot import catalog_changes
from .login import Login, limitations, login_query
from .module import PostgresqlModule
from .restart_facts import read_restart
from .session import Session

_SERVER = """
SELECT {login} AS login,
       ARRAY(SELECT datname::text FROM pg_database
             WHERE datallowconn AND NOT datistemplate AND has_database_privilege(oid, 'CONNECT')
             ORDER BY datname) AS databases,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'pgaudit') AS pgaudit,
       EXISTS (SELECT FROM pg_settings WHERE name = 'pgaudit.log') AS pgaudit_loaded
"""


def gather(module: PostgresqlModule, session: Session) -> None:
    """Put the facts into the module's results."""
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
        limitations=limitations(login),
        pgaudit={"installed": server.pgaudit, "loaded": server.pgaudit_loaded},
        catalog_changes=catalog_changes(session, module.params["schema"]),
        restart=read_restart(session) if login.superuser else None,
    )
