# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a database holds of the audit trail: two queries, whatever the number of objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .._core.schema_version import FUNCTION, version_in
from .login import Login, login_query
from .roles import OWNER
from .session import Session

#: One document: every object in the trail's schema with owner, grants and what is needed to compare it.
_OBJECTS = """
WITH trail AS (
  SELECT n.oid, n.nspowner, n.nspacl, obj_description(n.oid, 'pg_namespace') AS comment
  FROM pg_namespace n
  WHERE n.nspname = %(schema)s
), relation AS (
  SELECT c.oid, c.relname, c.relkind, c.relowner, c.relpartbound,
         coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)) AS acl,
         (SELECT t.spcname FROM pg_tablespace t WHERE t.oid = c.reltablespace) AS tablespace,
         (SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = c.oid) AS parent
  FROM pg_class c
  JOIN trail ON c.relnamespace = trail.oid
  WHERE c.relkind IN ('r', 'p', 'v', 'S', 'm', 'f')
    -- What postgresql_audit_restore has made is no part of the trail.
    AND NOT (c.relkind = 'r' AND c.relname NOT LIKE 'audit\\_log%%'
             AND coalesce(obj_description(c.oid, 'pg_class'), '') ~ '^dbfleet\\.audit: (being )?restored from ')
)
SELECT
  (SELECT jsonb_build_object(
            'owner', pg_get_userbyid(nspowner),
            'trusted', EXISTS (
              SELECT FROM pg_roles r
              WHERE (rolsuper OR rolname = 'audit_owner')
                AND (r.oid = nspowner OR r.oid = (SELECT relowner FROM relation WHERE relname = 'audit_log_data'))),
            'comment', comment,
            'acl', (SELECT jsonb_agg(jsonb_build_array(coalesce(r.rolname, 'PUBLIC'), a.privilege_type, a.is_grantable))
                    FROM aclexplode(coalesce(nspacl, acldefault('n', nspowner))) a
                    LEFT JOIN pg_roles r ON r.oid = a.grantee
                    WHERE a.grantee <> nspowner))
   FROM trail) AS schema,
  (SELECT jsonb_object_agg(rolname, jsonb_build_object(
            'login', rolcanlogin, 'superuser', rolsuper,
            'comment', shobj_description(oid, 'pg_authid'),
            'members', (SELECT jsonb_agg(jsonb_build_array(m.rolname, pg_get_userbyid(g.grantor))
                                         ORDER BY m.rolname, g.grantor)
                        FROM pg_auth_members g JOIN pg_roles m ON m.oid = g.member
                        WHERE g.roleid = r.oid)))
   FROM pg_roles r
   WHERE rolname = ANY (%(roles)s)) AS roles,
  (SELECT jsonb_object_agg(relname, jsonb_build_object(
            'kind', relkind,
            'owner', pg_get_userbyid(relowner),
            'tablespace', tablespace,
            'partition', parent = (SELECT oid FROM relation WHERE relname = 'audit_log_data'),
            'definition', CASE relkind WHEN 'v' THEN md5(pg_get_viewdef(relation.oid)) END,
            'acl', (SELECT jsonb_agg(jsonb_build_array(coalesce(r.rolname, 'PUBLIC'), a.privilege_type, a.is_grantable))
                    FROM aclexplode(acl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
                    WHERE a.grantee <> relowner),
            'columns', (SELECT jsonb_agg(attname ORDER BY attnum) FROM pg_attribute
                        WHERE attrelid = relation.oid AND attnum > 0 AND NOT attisdropped),
            'column_acl', (SELECT jsonb_agg(jsonb_build_array(
                                    coalesce(r.rolname, 'PUBLIC'), a.privilege_type, t.attname))
                           FROM pg_attribute t, aclexplode(t.attacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
                           WHERE t.attrelid = relation.oid),
            'constraints', (SELECT jsonb_agg(conname) FROM pg_constraint WHERE conrelid = relation.oid),
            'triggers', (SELECT jsonb_object_agg(tgname, jsonb_build_object(
                                  'enabled', tgenabled, 'type', tgtype, 'function', p.proname,
                                  'cloned', tgparentid <> 0))
                         FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                         WHERE tgrelid = relation.oid AND (NOT tgisinternal OR tgparentid <> 0)),
            'indexes', (SELECT jsonb_agg(i.relname) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
                        WHERE x.indrelid = relation.oid AND x.indisvalid)))
   FROM relation) AS relations,
  (SELECT jsonb_object_agg(p.proname, jsonb_build_object(
            'owner', pg_get_userbyid(proowner),
            'trusted', (SELECT rolsuper FROM pg_roles WHERE oid = proowner),
            'source', prosrc, 'parameters', proargnames[:pronargs],
            'definer', prosecdef, 'volatility', provolatile, 'settings', proconfig,
            'acl', (SELECT jsonb_agg(jsonb_build_array(coalesce(r.rolname, 'PUBLIC'), a.privilege_type, a.is_grantable))
                    FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) a
                    LEFT JOIN pg_roles r ON r.oid = a.grantee
                    WHERE a.grantee <> proowner)))
   FROM pg_proc p JOIN trail ON p.pronamespace = trail.oid) AS functions,
  (SELECT jsonb_object_agg(evtname, jsonb_build_object(
            'enabled', evtenabled, 'event', evtevent, 'tags', evttags, 'function', p.proname,
            'ours', p.pronamespace = (SELECT oid FROM trail)))
   FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid) AS event_triggers,
  (SELECT jsonb_agg(format('CAST (%%s AS %%s) with function %%s of %%I', format_type(castsource, NULL),
                           format_type(casttarget, NULL), p.oid::regprocedure, r.rolname))
   FROM pg_cast c JOIN pg_proc p ON p.oid = c.castfunc JOIN pg_roles r ON r.oid = p.proowner
   WHERE c.casttarget IN ('json'::regtype, 'jsonb'::regtype) AND NOT r.rolsuper) AS foreign_casts,
  (SELECT jsonb_agg(n.nspname || '.' || c.relname || ' ' || t.tgname)
   FROM pg_trigger t
   JOIN pg_proc p ON p.oid = t.tgfoid JOIN trail ON p.pronamespace = trail.oid
   JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.oid <> trail.oid AND t.tgparentid = 0) AS table_triggers,
  {login} AS login,
  (SELECT jsonb_object_agg(spcname, jsonb_build_object(
            'default', t.oid = (SELECT dattablespace FROM pg_database WHERE datname = current_database()),
            'grantees', (SELECT jsonb_agg(r.rolname) FROM aclexplode(spcacl) a JOIN pg_roles r ON r.oid = a.grantee)))
   FROM pg_tablespace t) AS tablespaces
"""

_SETTINGS = """
SELECT (SELECT jsonb_object_agg(object, jsonb_build_array(source_digest, server_digest))
        FROM {schema}.definition) AS definitions,
       (SELECT jsonb_object_agg(name, value) FROM {schema}.setting) AS settings,
       (SELECT EXISTS (SELECT FROM {schema}.hash_key)) AS has_hash_key,
       {has_snapshot} AS has_snapshot,
       {has_chain} AS has_chain
"""

#: Tables that an older layout may lack, and what is asked of them.
_CONTENT = {"has_snapshot": "catalog_snapshot", "has_chain": "seal_state"}


@dataclass
class TrailCatalog:
    """The trail as the server has it; every attribute is empty on a database without one."""

    schema_name: str
    schema: dict[str, Any] | None
    roles: dict[str, Any]
    relations: dict[str, Any]
    functions: dict[str, Any]
    event_triggers: dict[str, Any]
    foreign_casts: list[str]
    table_triggers: list[str]
    login: Login
    tablespaces: dict[str, Any]
    definitions: dict[str, list[str]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    has_hash_key: bool = False
    has_snapshot: bool = False
    has_chain: bool = False

    @property
    def installed(self) -> bool:
        return "audit_log_data" in self.relations

    @property
    def schema_version(self) -> int:
        """The version of what the trail consists of; 0 where it does not say."""
        return version_in((self.functions.get(FUNCTION) or {}).get("source"))

    @property
    def guarded(self) -> bool:
        """Whether event triggers of ours are there, whoever has made them."""
        return any(trigger["ours"] for trigger in self.event_triggers.values())

    def partitions(self) -> list[str]:
        """Names of the log's partitions, the catch-alls included."""
        return sorted(name for name, relation in self.relations.items() if relation["partition"])


def read(session: Session, schema: str, roles: list[str]) -> TrailCatalog:
    """Read the trail in `schema`, and whether the named roles exist."""
    query = _OBJECTS.replace("{login}", login_query(session))
    row = session.one(query, {"schema": schema, "roles": roles})
    catalog = TrailCatalog(
        schema,
        row.schema,
        *(value or {} for value in (row.roles, row.relations, row.functions, row.event_triggers)),
        *(value or [] for value in (row.foreign_casts, row.table_triggers)),
        Login.read(row.login, session),
        row.tablespaces,
    )
    # A login without these rights is refused with the way to them; reading would be refused without.
    readable = catalog.login.acts_as(OWNER)
    if readable and {"definition", "setting", "hash_key", "audit_log_data"} <= set(catalog.relations):
        query = _SETTINGS
        for place, table in _CONTENT.items():
            there = f"EXISTS (SELECT FROM {{schema}}.{table})" if table in catalog.relations else "false"
            query = query.replace(f"{{{place}}}", there)
        settings = session.one(query.replace("{schema}", session.identifier(schema)))
        catalog.definitions = settings[0] or {}
        catalog.settings = settings[1] or {}
        catalog.has_hash_key, catalog.has_snapshot, catalog.has_chain = settings[2:]
    return catalog
