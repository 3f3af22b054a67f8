# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is of pgaudit on a server and in its databases: one query each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._core.pattern import Pattern
from .pgaudit import ServerCatalog
from .pgaudit_before import SETTING as BEFORE
from .pgaudit_before import Before
from .pgaudit_objects import DatabaseCatalog, Relation
from .pgaudit_options import CONNECTION_SETTINGS, PgauditOptions
from .pgaudit_settings import PREFIX
from .session import Session
from .settings import patroni_cluster, read_lines

_SERVER = """
SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       (SELECT rolcreaterole FROM pg_roles WHERE rolname = current_user) AS creates_roles,
       EXISTS (SELECT FROM pg_settings WHERE name = 'pgaudit.log') AS loaded,
       (SELECT jsonb_object_agg(name, jsonb_build_array(source, setting)) FROM pg_settings
        WHERE name LIKE 'pgaudit.%%' OR name = ANY (%(names)s)) AS running,
       (SELECT jsonb_agg(jsonb_build_array(d.datname, r.rolname, split_part(entry, '=', 1),
                                           substr(entry, strpos(entry, '=') + 1)))
        FROM pg_db_role_setting AS s CROSS JOIN unnest(s.setconfig) AS entry
             LEFT JOIN pg_database AS d ON d.oid = s.setdatabase LEFT JOIN pg_roles AS r ON r.oid = s.setrole
        WHERE entry LIKE 'pgaudit.%%') AS scoped,
       -- A DROP DATABASE that was cut off has left a limit of -2, and nobody can connect.
       ARRAY(SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate AND datconnlimit <> -2
             ORDER BY datname) AS databases,
       ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY (%(roles)s)) AS roles,
       (SELECT jsonb_build_object(
                 'login', r.rolcanlogin,
                 'members', (SELECT coalesce(jsonb_agg(m.rolname), '[]')
                             FROM pg_auth_members AS a JOIN pg_roles AS m ON m.oid = a.member
                             WHERE a.roleid = r.oid AND NOT m.rolsuper AND {lends}),
                 'databases', (SELECT coalesce(jsonb_agg(DISTINCT d.datname), '[]')
                               FROM pg_shdepend AS s JOIN pg_database AS d ON d.oid = s.dbid
                               WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid))
        FROM pg_roles AS r WHERE r.rolname = %(object_role)s) AS object_role,
       (SELECT jsonb_object_agg(name, setting) FROM pg_settings
        WHERE name IN ('log_min_messages', 'log_line_prefix', 'log_destination')) AS messages,
       {silencers} AS silencers
"""

#: Roles that may turn pgaudit off for themselves; our own writer must, for its records not to be logged once more.
_SILENCERS = """
  (SELECT jsonb_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE r.rolname END)
   FROM pg_parameter_acl AS p CROSS JOIN aclexplode(p.paracl) AS a LEFT JOIN pg_roles AS r ON r.oid = a.grantee
   WHERE p.parname LIKE 'pgaudit.%%' AND r.rolname IS DISTINCT FROM 'audit_writer'
     AND r.rolsuper IS NOT TRUE)"""

#: A library that is not loaded tells its settings by their names in its file.
_NAMES_IN_FILE = r"""
SELECT ARRAY(SELECT DISTINCT found[1] FROM regexp_matches(
         encode(pg_read_binary_file(c.setting || '/pgaudit.so', 0, 16777216, true), 'escape'),
         'pgaudit\.([a-z_]{3,})\\000', 'g') AS found) AS names
FROM pg_config AS c WHERE c.name = 'PKGLIBDIR'
"""

_DATABASE = """
SELECT (SELECT extversion FROM pg_extension WHERE extname = 'pgaudit') AS extension,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'pgaudit') AS available,
       (SELECT jsonb_agg(jsonb_build_array(
          n.nspname, c.relname,
          (SELECT coalesce(jsonb_agg(a.attname ORDER BY a.attnum), '[]') FROM pg_attribute AS a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
          (SELECT coalesce(jsonb_agg(DISTINCT jsonb_build_array(lower(held.privilege_type), held.attname)), '[]')
           FROM (SELECT e.privilege_type, NULL AS attname, e.grantee FROM aclexplode(c.relacl) AS e
                 UNION ALL
                 SELECT e.privilege_type, a.attname, e.grantee
                 FROM pg_attribute AS a CROSS JOIN aclexplode(a.attacl) AS e
                 WHERE a.attrelid = c.oid AND NOT a.attisdropped) AS held
           WHERE held.grantee = to_regrole(%(role)s))
          ) ORDER BY n.nspname, c.relname)
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
          AND (EXISTS (SELECT FROM unnest(%(schemas)s::text[], %(tables)s::text[]) AS wanted (in_schema, in_table)
                       WHERE n.nspname ~ in_schema AND c.relname ~ in_table)
               OR EXISTS (SELECT FROM pg_shdepend AS s
                          WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                            AND s.classid = 'pg_class'::regclass AND s.objid = c.oid
                            AND s.refclassid = 'pg_authid'::regclass AND s.refobjid = to_regrole(%(role)s)
                            AND s.deptype = 'a'))) AS relations
"""


@dataclass(frozen=True)
class ServerFacts:
    """The answer of a server.

    :ivar catalog: what planning needs.
    :ivar databases: names of all databases that take connections.
    :ivar roles: names of those roles, of the ones that the options name, that there are.
    """

    catalog: ServerCatalog
    databases: list[str]
    roles: list[str]

    @property
    def with_object_grants(self) -> set[str]:
        """Databases in which the role for object auditing has grants, whether the options name them or not.

        None where somebody uses that role: its rights are not ours to take away.
        """
        if self.catalog.object_role_used:
            return set()
        return set((self.catalog.object_role or {}).get("databases", [])) & set(self.databases)


def read_server(session: Session, options: PgauditOptions) -> ServerFacts:
    """Read what belongs to the whole server."""
    places = {
        "names": list(CONNECTION_SETTINGS),
        "roles": list(options.params["roles"]),
        "object_role": options.object_role,
    }
    silencers = _SILENCERS if session.version_number >= 150000 else "NULL"
    # From 16 on, whoever makes a role is made a member of it, by which alone nobody gets its rights.
    lends = "(a.inherit_option OR a.set_option)" if session.version_number >= 160000 else "true"
    row = session.one(_SERVER.replace("{silencers}", silencers).replace("{lends}", lends), places)
    # A superuser's to see.
    lines = read_lines(session, [*CONNECTION_SETTINGS, BEFORE], PREFIX + "%") if row.superuser else []
    catalog = ServerCatalog(
        version_number=session.version_number,
        in_recovery=session.in_recovery,
        superuser=row.superuser,
        creates_roles=row.creates_roles,
        loaded=row.loaded,
        lines=[line for line in lines if line.name != BEFORE],
        sources={name: source for name, (source, _setting) in row.running.items()},
        current={name: setting for name, (_source, setting) in row.running.items()},
        scoped=_by_scope(row.scoped or []),
        object_role=row.object_role,
        silencers=row.silencers or [],
        messages=row.messages,
        patroni=patroni_cluster(session),
        before=Before.parse(lines),
    )
    return ServerFacts(catalog, row.databases, row.roles)


def _by_scope(rows: Sequence[Sequence[str | None]]) -> dict[tuple[str | None, str | None], dict[str, str]]:
    scoped: dict[tuple[str | None, str | None], dict[str, str]] = {}
    for database, role, name, value in rows:
        scoped.setdefault((database, role), {})[str(name)] = str(value)
    return scoped


def existing_roles(session: Session, names: Sequence[str]) -> list[str]:
    """Return those of the roles that there are."""
    found = session.all(
        "SELECT rolname::text AS name FROM pg_roles WHERE rolname = ANY (%(names)s)", {"names": list(names)}
    )
    return [row.name for row in found]


def read_setting_names(session: Session, catalog: ServerCatalog) -> list[str] | None:
    """Return the settings that the installed version has, without prefix; None when its file is not to be found."""
    if catalog.loaded:
        return [name.removeprefix(PREFIX) for name in catalog.current if name.startswith(PREFIX)]
    if not catalog.superuser:
        return None
    return session.one(_NAMES_IN_FILE).names or None


def read_database(session: Session, patterns: Sequence[Pattern], role: str) -> DatabaseCatalog:
    """Read what a database has of pgaudit.

    :param patterns: the relations that are to be audited by object.
    :param role: the role whose grants say so.
    """
    places = {
        "role": session.identifier(role) if role else None,
        "schemas": [pattern.regexes[0] for pattern in patterns],
        "tables": [pattern.regexes[1] for pattern in patterns],
    }
    row = session.one(_DATABASE, places)
    return DatabaseCatalog(row.extension, row.available, [_relation(entry) for entry in row.relations or []])


def _relation(entry: Sequence[Any]) -> Relation:
    schema, name, columns, grants = entry
    return Relation(schema, name, columns, frozenset((privilege, column) for privilege, column in grants))
