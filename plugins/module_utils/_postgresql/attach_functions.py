# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Auditing of tables that are created after the rollout, in the transaction that creates them.

What audit.attach() makes is exactly what the next run of postgresql_audit_triggers wants; a test holds them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._core.policy import SENSITIVE_PATTERN
from .._core.sql import Identifier, Literal, sql
from .conditions import HIDDEN_DOMAIN
from .function import PLAIN_STRINGS, SAFE_PATH, Function
from .roles import OWNER
from .trigger_catalog import CONDITION_DIGEST, KEYS

#: The row of the setting table that holds the patterns of `exceptions`.
EXCEPTIONS_SETTING = "exceptions"

_POLICY_FOR = """
  SELECT p.policy_id
  FROM {schema}.policy AS p
  WHERE p.valid_to IS NULL
    AND EXISTS (SELECT FROM jsonb_array_elements(p.patterns -> 'tables') AS m
                WHERE schema_name ~ (m ->> 0) AND table_name ~ (m ->> 1))
    AND NOT EXISTS (SELECT FROM jsonb_array_elements(p.patterns -> 'exclude') AS m
                    WHERE schema_name ~ (m ->> 0) AND table_name ~ (m ->> 1))
    AND NOT EXISTS (SELECT FROM {schema}.setting AS s, jsonb_array_elements(s.value::jsonb) AS m
                    WHERE s.name = {exceptions} AND schema_name ~ (m ->> 0) AND table_name ~ (m ->> 1))
  ORDER BY p.position
  LIMIT 1
"""

# Columns that a policy masks, and those whose names say that they must be; the same rule as in the module.
_TRIGGER_ARGUMENTS = """
  WITH policy AS (
    SELECT definition FROM {schema}.policy AS p WHERE p.policy_id = trigger_arguments.policy
  ), attribute AS (
    SELECT attname::text AS name, attnum FROM pg_attribute
    WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped
  ), hashed AS (
    SELECT array_agg(a.name ORDER BY h.ordinality) AS names
    FROM policy, jsonb_array_elements_text(definition -> 'columns' -> 'hash') WITH ORDINALITY AS h
    JOIN attribute AS a ON a.name = h.value
  ), redacted AS (
    SELECT array_agg(a.name ORDER BY a.attnum) AS names
    FROM attribute AS a, policy, hashed
    WHERE definition -> 'columns' -> 'redact' ? a.name
       OR ((definition ->> 'redact_defaults')::boolean AND lower(a.name) ~ {sensitive}
           AND a.name <> ALL (coalesce(hashed.names, ARRAY[]::text[])))
  ), key AS ({keys})
  SELECT CASE WHEN more.list = ARRAY['', '', '{}', '{}'] THEN ARRAY[more.key] ELSE more.key || more.list END
  FROM (
    SELECT CASE cardinality(key.columns) WHEN 1 THEN key.columns[1] ELSE '' END AS key,
           ARRAY[CASE c.relkind WHEN 'p' THEN n.nspname::text ELSE '' END,
                 CASE c.relkind WHEN 'p' THEN c.relname::text ELSE '' END,
                 coalesce(redacted.names, ARRAY[]::text[])::text, coalesce(hashed.names, ARRAY[]::text[])::text]
             || CASE WHEN cardinality(key.columns) > 1 THEN key.columns ELSE ARRAY[]::text[] END AS list
    FROM redacted, hashed, pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace LEFT JOIN key ON true
    WHERE c.oid = relation
  ) AS more
"""

_ATTACH = """
DECLARE
  v_policy    {schema}.policy;
  v_arguments text[] := {schema}.trigger_arguments(relation, policy);
  v_operation text;
  v_prefix    text;
  v_name      text;
  v_when      text;
  v_row       boolean;
BEGIN
  SELECT * INTO v_policy FROM {schema}.policy AS p WHERE p.policy_id = policy;
  IF v_policy.definition ->> 'when' IS NOT NULL THEN
    PERFORM {schema}.refuse_hidden_domain(relation, v_policy.name);
  END IF;
  SELECT CASE c.relkind WHEN 'p' THEN 'dbfleet_audit_tree_' ELSE 'dbfleet_audit_' END INTO v_prefix
  FROM pg_class AS c WHERE c.oid = relation;
  -- Whoever adds a partition needs EXECUTE on the functions whose triggers it inherits.
  SELECT r.rolname INTO v_name FROM pg_class AS c JOIN pg_roles AS r ON r.oid = c.relowner
  WHERE c.oid = relation AND c.relkind = 'p' AND c.relowner NOT IN (
    SELECT a.grantee FROM pg_proc AS f, aclexplode(f.proacl) AS a
    WHERE f.oid = format('%I.%I()', {schema_text}, v_policy.function)::regprocedure);
  IF FOUND THEN
    EXECUTE format('GRANT EXECUTE ON FUNCTION %I.%I() TO %I', {schema_text}, v_policy.function, v_name);
  END IF;
  FOR v_operation IN SELECT jsonb_array_elements_text(v_policy.definition -> 'operations') LOOP
    v_name := v_prefix || v_operation;
    CONTINUE WHEN EXISTS (
      SELECT FROM pg_trigger AS t JOIN pg_proc AS f ON f.oid = t.tgfoid
      WHERE t.tgrelid = relation AND t.tgname = v_name AND f.proname = v_policy.function
        AND t.tgargs = (SELECT string_agg(convert_to(a, getdatabaseencoding()) || '\\x00', '' ORDER BY nr)
                        FROM unnest(v_arguments) WITH ORDINALITY AS u (a, nr)));
    v_row := v_policy.definition ->> 'capture' = 'row' AND v_operation <> 'truncate';
    v_when := CASE WHEN v_row THEN v_policy.definition ->> 'when' END;
    EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s %s FOR EACH %s %s EXECUTE FUNCTION %I.%I(%s)',
      v_name, v_operation, relation::regclass,
      CASE WHEN NOT v_row THEN CASE v_operation
        WHEN 'insert' THEN 'REFERENCING NEW TABLE AS new_rows'
        WHEN 'update' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
        WHEN 'delete' THEN 'REFERENCING OLD TABLE AS old_rows' END END,
      CASE WHEN v_row THEN 'ROW' ELSE 'STATEMENT' END,
      'WHEN (' || nullif(v_when, '') || ')',
      {schema_text}, v_policy.function,
      (SELECT string_agg(quote_literal(a), ', ' ORDER BY nr) FROM unnest(v_arguments) WITH ORDINALITY AS u (a, nr)));
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', relation::regclass, v_name);
    IF v_row AND v_policy.definition ->> 'when' IS NOT NULL THEN
      INSERT INTO {schema}.definition (object, source_digest, server_digest)
      SELECT format('trigger %s.%s %s', n.nspname, c.relname, v_name),
             encode(sha256(convert_to(v_policy.definition ->> 'when', 'UTF8')), 'hex'),
             {condition_digest}
      FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
      WHERE t.tgrelid = relation AND t.tgname = v_name
      ON CONFLICT (object) DO UPDATE
        SET source_digest = excluded.source_digest, server_digest = excluded.server_digest;
    END IF;
  END LOOP;
END
"""

# Under the lock that the trigger takes anyway, so that no column changes its type between this and the trigger.
_REFUSE_HIDDEN_DOMAIN = """
DECLARE
  v_domain text;
BEGIN
  EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', relation);
  v_domain := ({hidden_domain});
  IF v_domain IS NOT NULL THEN
    RAISE EXCEPTION 'audit: policy "%" has a condition, and % (type %), inside an array, range or row, is a domain '
        'whose code would run with the rights of the audit functions', policy, relation, v_domain
      USING ERRCODE = 'insufficient_privilege', HINT = 'A superuser can own the domain, or leave `when` out.';
  END IF;
END
"""

# The policy of a table, or of its nearest inheritance ancestor; none for what cannot be audited and for partitions,
# which fire the triggers of their root.
_POLICY_OF = """
  SELECT coalesce(
    {schema}.policy_for(n.nspname, c.relname),
    (WITH RECURSIVE ancestor (oid, depth, position) AS (
       SELECT i.inhparent, 1, i.inhseqno FROM pg_inherits AS i WHERE i.inhrelid = relation
       UNION ALL
       SELECT i.inhparent, a.depth + 1, i.inhseqno FROM ancestor AS a JOIN pg_inherits AS i ON i.inhrelid = a.oid
     )
     SELECT p.policy_id
     FROM ancestor AS a
     JOIN pg_class AS pc ON pc.oid = a.oid
     JOIN pg_namespace AS pn ON pn.oid = pc.relnamespace
     CROSS JOIN LATERAL {schema}.policy_for(pn.nspname, pc.relname) AS p (policy_id)
     WHERE p.policy_id IS NOT NULL
     ORDER BY a.depth, a.position
     LIMIT 1))
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE c.oid = relation AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT c.relispartition
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', {schema_text})
"""

_ADD_TABLE = """
DECLARE
  v_policy int := {schema}.policy_of(relation);
BEGIN
  IF NOT pg_has_role(session_user, (SELECT relowner FROM pg_class WHERE oid = relation), 'USAGE') THEN
    RAISE EXCEPTION 'audit.add_table(): % does not own %', session_user, relation
      USING ERRCODE = 'insufficient_privilege';
  ELSIF v_policy IS NULL THEN
    RAISE EXCEPTION 'audit.add_table(): no policy matches %', relation
      USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Add a pattern to a policy and run site.yml; partitions are audited with their root.';
  END IF;
  PERFORM {schema}.attach(relation, v_policy);
END
"""


def attach_functions(schema: str, applications: Sequence[str]) -> list[Function]:
    """Return the functions; what users reach runs with the rights of the installing login, to which all belong."""
    place = {
        "schema": Identifier.of(schema),
        "schema_text": Literal(schema),
        "exceptions": Literal(EXCEPTIONS_SETTING),
        "sensitive": Literal(SENSITIVE_PATTERN),
        "condition_digest": sql(CONDITION_DIGEST),
        "keys": sql(KEYS, which=sql("= relation")),
        "hidden_domain": sql(HIDDEN_DOMAIN, relation=sql("relation")),
    }

    def part(name: str, body: str, arguments: str, returns: str, **options: Any) -> Function:
        return Function(name, sql(body, **place), arguments, returns, owner=None, **options)

    query: dict[str, Any] = {"language": "sql", "volatility": "s"}
    table_of_policy = "relation oid, policy int"
    return [
        part("policy_for", _POLICY_FOR, "schema_name text, table_name text", "int", **query),
        part("policy_of", _POLICY_OF, "relation oid", "int", **query),
        part("trigger_arguments", _TRIGGER_ARGUMENTS, table_of_policy, "text[]", **query),
        part(
            "refuse_hidden_domain",
            _REFUSE_HIDDEN_DOMAIN,
            "relation regclass, policy text",
            "void",
            executors=(OWNER,),
        ),
        part("attach", _ATTACH, table_of_policy, "void", settings=(SAFE_PATH, PLAIN_STRINGS)),
        part("add_table", _ADD_TABLE, "relation regclass", "void", definer=True, executors=tuple(applications)),
    ]
