# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What no event trigger sees (roles, databases, configuration, event triggers), found by comparison with a snapshot.

A rollout takes the first snapshot; from then on audit.record_catalog_changes() writes what has changed into the log
and takes the next one. Verify and info say what it would write.
"""

from __future__ import annotations

from typing import Any

from .._core.policy import SENSITIVE_PATTERN
from .._core.sql import Identifier, Literal, sql
from .function import PLAIN_STRINGS, SAFE_PATH, Function
from .session import Session

# Parameters have grants since PostgreSQL 15.
_PARAMETERS = """
  UNION ALL
  SELECT 'parameter', p.parname, jsonb_build_object('grants', p.paracl::text[])
  FROM pg_parameter_acl AS p
"""

# Only who may read the configuration files compares them, and only on the primary, whose they were; for everybody else
# they are as they were.
_CATALOG_STATE = """
BEGIN
  RETURN QUERY
  SELECT 'role', r.rolname::text, jsonb_build_object(
           'superuser', r.rolsuper, 'createrole', r.rolcreaterole, 'createdb', r.rolcreatedb, 'login', r.rolcanlogin,
           'inherit', r.rolinherit, 'replication', r.rolreplication, 'bypassrls', r.rolbypassrls,
           'connection_limit', r.rolconnlimit, 'valid_until', r.rolvaliduntil,
           'member_of', ARRAY(SELECT DISTINCT g.rolname::text FROM pg_auth_members AS m JOIN pg_roles AS g
                              ON g.oid = m.roleid WHERE m.member = r.oid ORDER BY 1))
  FROM pg_roles AS r
  WHERE r.rolname !~ '^pg_'
  UNION ALL
  SELECT 'database', d.datname::text, jsonb_build_object(
           'owner', pg_get_userbyid(d.datdba), 'connections', d.datallowconn, 'connection_limit', d.datconnlimit,
           'template', d.datistemplate, 'grants', d.datacl::text[])
  FROM pg_database AS d
  UNION ALL
  SELECT 'tablespace', t.spcname::text, jsonb_build_object(
           'owner', pg_get_userbyid(t.spcowner), 'grants', t.spcacl::text[], 'location', pg_tablespace_location(t.oid))
  FROM pg_tablespace AS t
  UNION ALL
  SELECT 'setting', format('%s of role %s in database %s', lower(split_part(c.line, '=', 1)),
                           coalesce(r.rolname, '(any)'), coalesce(d.datname, '(any)')),
         jsonb_build_object('value', {schema}.setting_value(split_part(c.line, '=', 1),
                                                            substr(c.line, strpos(c.line, '=') + 1)))
  FROM pg_db_role_setting AS s CROSS JOIN unnest(s.setconfig) AS c (line)
  LEFT JOIN pg_roles AS r ON r.oid = s.setrole LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
  UNION ALL
  SELECT 'event trigger', e.evtname::text, jsonb_build_object(
           'event', e.evtevent, 'function', e.evtfoid::regproc::text, 'owner', pg_get_userbyid(e.evtowner),
           'enabled', e.evtenabled, 'tags', e.evttags)
  FROM pg_event_trigger AS e{parameters};
  IF has_function_privilege('pg_show_all_file_settings()', 'EXECUTE') AND NOT pg_is_in_recovery() THEN
    RETURN QUERY
    SELECT DISTINCT ON (lower(f.name)) 'configuration', lower(f.name),
           jsonb_build_object('value', {schema}.setting_value(f.name, f.setting), 'file', f.sourcefile)
    FROM pg_show_all_file_settings() AS f
    WHERE f.name IS NOT NULL
    ORDER BY lower(f.name), f.seqno DESC;
  ELSE
    RETURN QUERY
    SELECT s.kind, s.name, {known_state}
    FROM {schema}.catalog_snapshot AS s
    WHERE s.kind = 'configuration';
  END IF;
END
"""

# A value that says "password" or the like may hold one from there on, as archive_command can. What connects to a server
# is hidden whole: it takes a parser to tell where a password ends in it.
_SETTING_VALUE = r"""
  SELECT CASE WHEN lower(name) ~ ({sensitive} || '|conninfo|passphrase') THEN '***'
    ELSE regexp_replace(regexp_replace({schema}.mask_passwords(value), '(://[^\s:/]*:).*@', '\1***@'),
                        '((?:' || {sensitive} || ')\w*["'']*[=:\s]\s*)\S.*', '\1***', 'i') END
"""

# A snapshot of an earlier release may hold what this one masks.
_KNOWN_STATE = """CASE WHEN s.state ? 'value'
                THEN s.state || jsonb_build_object('value', {schema}.setting_value(split_part(s.name, ' ', 1),
                                                                                   s.state ->> 'value'))
                ELSE s.state END"""

_CATALOG_CHANGES = """
  SELECT kind, name,
         CASE WHEN s.state IS NULL THEN 'appeared' WHEN c.state IS NULL THEN 'disappeared' ELSE 'changed' END,
         s.state, c.state, coalesce(s.seen_at, (SELECT max(a.seen_at) FROM {schema}.catalog_snapshot AS a))
  FROM (SELECT s.kind, s.name, {known_state} AS state, s.seen_at
        FROM {schema}.catalog_snapshot AS s) AS s
  FULL JOIN {schema}.catalog_state() AS c USING (kind, name)
  WHERE s.state IS DISTINCT FROM c.state AND EXISTS (SELECT FROM {schema}.catalog_snapshot)
  ORDER BY kind, name
"""

# The first snapshot is what everything later is compared with. Who made a change, nobody knows.
_RECORD_CATALOG_CHANGES = """
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
BEGIN
  LOCK TABLE {schema}.catalog_snapshot IN SHARE ROW EXCLUSIVE MODE;
  PERFORM {schema}.record_event('DDL', NULL, c.name, NULL, c.before,
    coalesce(c.after, '{}') || jsonb_build_object('success', true, 'object_type', c.kind, 'object', c.name,
      'event', c.change, 'found_by', 'catalog snapshot', 'not_before', c.since), '(unknown)')
  FROM {schema}.catalog_changes() AS c;
  DELETE FROM {schema}.catalog_snapshot AS s
  USING {schema}.catalog_changes() AS c
  WHERE (s.kind, s.name) = (c.kind, c.name) AND c.after IS NULL;
  INSERT INTO {schema}.catalog_snapshot AS s (kind, name, state, seen_at)
  SELECT c.kind, c.name, c.state, v_now FROM {schema}.catalog_state() AS c
  ON CONFLICT (kind, name) DO UPDATE SET state = excluded.state, seen_at = excluded.seen_at;
END
"""


# A superuser calls nothing that somebody else could have replaced.
_MAY_COMPARE = """
SELECT count(*) = 4
       AND bool_and(has_function_privilege(p.oid, 'EXECUTE') AND (r.rolsuper OR NOT l.rolsuper)) AS compares
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_roles AS r ON r.oid = p.proowner
JOIN pg_roles AS l ON l.rolname = current_user
WHERE n.nspname = %(schema)s AND has_schema_privilege(n.oid, 'USAGE')
  AND p.proname IN ('catalog_changes', 'catalog_state', 'setting_value', 'mask_passwords')
"""

_CHANGES = """
SELECT kind AS object_type, name AS object, change, before, after, to_char(since, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS since
FROM {schema}.catalog_changes()
"""


def catalog_changes(session: Session, schema: str) -> list[dict[str, Any]]:
    """Return what has changed since the last snapshot; nothing where there is none, or none for this login."""
    if not session.one(_MAY_COMPARE, {"schema": schema}).compares:
        return []
    return [row._asdict() for row in session.all(_CHANGES.replace("{schema}", session.identifier(schema)))]


def snapshot_functions(schema: str, version_number: int) -> list[Function]:
    """Return the functions that compare and record.

    They run in the sessions of superusers (the schedule's, for one), and belong to the login that installs them.
    """
    names = {"schema": Identifier.of(schema)}
    place = {
        **names,
        "sensitive": Literal(SENSITIVE_PATTERN),
        "known_state": sql(_KNOWN_STATE, **names),
        "parameters": sql(_PARAMETERS.rstrip() if version_number >= 150000 else ""),
    }

    def function(name: str, body: str, arguments: str, returns: str, language: str, volatility: str) -> Function:
        settings = (SAFE_PATH, ("TimeZone", "UTC"), PLAIN_STRINGS)
        return Function(
            name, sql(body, **place), arguments, returns, language, volatility=volatility, owner=None, settings=settings
        )

    states = "TABLE (kind text, name text, state jsonb)"
    changes = "TABLE (kind text, name text, change text, before jsonb, after jsonb, since timestamptz)"
    return [
        function("setting_value", _SETTING_VALUE, "name text, value text", "text", "sql", "s"),
        function("catalog_state", _CATALOG_STATE, "", states, "plpgsql", "s"),
        function("catalog_changes", _CATALOG_CHANGES, "", changes, "sql", "s"),
        Function(
            "record_catalog_changes",
            sql(_RECORD_CATALOG_CHANGES, **place),
            procedure=True,
            owner=None,
            settings=(SAFE_PATH, ("TimeZone", "UTC")),
        ),
    ]
