# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What keeps triggers and masks right while users create, change, attach and detach tables."""

from __future__ import annotations

from typing import Any

from .._core.sql import Identifier, Literal, Sql, sql
from .function import PLAIN_STRINGS, SAFE_PATH, Function

# A session's settings are anybody's, and a superuser's ANALYZE runs the functions of a table's indexes in its owner's
# name: only a lock that nobody else can take shows that a rollout is at work.
_ROLLOUT_LOCK = "LOCK TABLE {schema}.setting IN SHARE ROW EXCLUSIVE MODE"
_IN_ROLLOUT = """
  current_setting('dbfleet.plan', true) <> '' AND EXISTS (
    SELECT FROM pg_locks AS l
    WHERE l.pid = pg_backend_pid() AND l.granted AND l.mode = 'ShareRowExclusiveLock'
      AND l.relation = format('%I.setting', {schema_text})::regclass)
"""

# A new table comes under its policy where the policy says auto_attach; a table that is audited already gets its
# triggers' arguments anew, because its key or its masked columns may just have changed. Children and the tables of a
# type come along: what happens to a column of their parent happens to theirs, and the server does not report them.
# Nor does it report what leaves a partitioned table; it names that table, or the partition in between.
_ATTACH_DDL = """
DECLARE
  v_relation oid;
  v_renamed  text;
  v_policy   int;
  v_auto     int;
  v_masked   text[];
BEGIN
  -- A rollout knows what it does, and does it for all tables at once.
  IF {in_rollout} THEN
    RETURN;
  END IF;
  FOR v_relation, v_renamed IN
    WITH RECURSIVE child AS (
      SELECT i.inhparent AS parent, i.inhrelid AS relation
      FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
      WHERE NOT c.relispartition
      UNION ALL
      SELECT y.typrelid, c.oid FROM pg_class AS c JOIN pg_type AS y ON y.oid = c.reloftype
    ), touched AS (
      SELECT d.objid AS relation, a.attname::text AS renamed
      FROM pg_event_trigger_ddl_commands() AS d
      LEFT JOIN pg_attribute AS a ON a.attrelid = d.objid AND a.attnum = d.objsubid AND a.attnum > 0
      WHERE d.classid = 'pg_class'::regclass AND NOT d.in_extension
      UNION
      SELECT pg_partition_root(d.objid), NULL
      FROM pg_event_trigger_ddl_commands() AS d JOIN pg_class AS c ON c.oid = d.objid
      WHERE d.classid = 'pg_class'::regclass AND TG_TAG = 'ALTER TABLE' AND c.relkind = 'p' AND c.relispartition
      UNION
      SELECT c.oid, NULL
      FROM pg_event_trigger_ddl_commands() AS d JOIN pg_class AS c ON c.relnamespace = d.objid
      WHERE d.classid = 'pg_namespace'::regclass AND TG_TAG = 'ALTER SCHEMA' AND c.relkind IN ('r', 'p')
      UNION
      SELECT c.relation, t.renamed FROM touched AS t JOIN child AS c ON c.parent = t.relation
    )
    SELECT relation, renamed FROM touched
  LOOP
    v_auto := {schema}.policy_of(v_relation);
    SELECT coalesce(v_auto, p.policy_id), {schema}.masked_columns(t.tgargs) INTO v_policy, v_masked
    FROM pg_trigger AS t JOIN pg_proc AS f ON f.oid = t.tgfoid
    LEFT JOIN {schema}.policy AS p ON p.function = f.proname AND p.valid_to IS NULL
    WHERE t.tgrelid = v_relation AND f.pronamespace = quote_ident({schema_text})::regnamespace AND t.tgparentid = 0
      AND t.tgname LIKE 'dbfleet\\_audit\\_%'
    ORDER BY t.tgname
    LIMIT 1;
    IF NOT FOUND THEN
      SELECT p.policy_id INTO v_policy FROM {schema}.policy AS p
      WHERE p.policy_id = v_auto AND ((p.definition ->> 'auto_attach')::boolean OR EXISTS (
        SELECT FROM pg_inherits AS i JOIN pg_trigger AS t ON t.tgrelid = i.inhparent
        WHERE i.inhrelid = v_relation AND t.tgname LIKE 'dbfleet\\_audit\\_%'));
      v_masked := NULL;
    END IF;
    CONTINUE WHEN v_policy IS NULL;
    PERFORM {schema}.refuse_unmasking(TG_TAG, v_relation, v_policy, v_masked, v_renamed);
    PERFORM {schema}.attach(v_relation, v_policy);
    PERFORM {schema}.leave_to_root(v_relation);
    IF TG_TAG = 'ALTER TABLE' THEN
      PERFORM {schema}.attach_detached(v_relation, v_policy);
    END IF;
  END LOOP;
END
"""

# Columns are masked by name, so that a new name would take the mask off without a word. Such a RENAME is refused, for
# superusers too: who means it tells the policy first. (objsubid is set for RENAME COLUMN alone; a dropped column needs
# no mask.) A table that was renamed out of its policy's patterns keeps its triggers until the next run, and its masks.
_REFUSE_UNMASKING = """
DECLARE
  v_policy {schema}.policy;
  v_masks  text[] := {schema}.masked_columns(NULL, {schema}.trigger_arguments(relation, policy));
  v_gone   text;
BEGIN
  SELECT * INTO v_policy FROM {schema}.policy AS p WHERE p.policy_id = policy;
  SELECT m.name INTO v_gone FROM unnest(masked) AS m (name)
  JOIN pg_attribute AS a ON a.attrelid = relation AND a.attname = m.name AND NOT a.attisdropped
  WHERE m.name <> ALL (v_masks);
  IF FOUND THEN
    RAISE EXCEPTION '% is refused: the audit log masks column % of %, but policy "%", which it comes under, does not',
        command, quote_ident(v_gone), relation::regclass, v_policy.name
      USING ERRCODE = 'insufficient_privilege',
            HINT = 'Let that policy mask the column as well and run site.yml first.';
  END IF;
  IF renamed IN (SELECT jsonb_array_elements_text(v_policy.definition -> 'columns' -> 'exclude')) THEN
    RAISE EXCEPTION '% is refused: the audit log leaves out what is called % in %', command, quote_ident(renamed),
        relation::regclass
      USING ERRCODE = 'insufficient_privilege', HINT = 'Choose another name, or change `exclude` and run site.yml.';
  END IF;
  IF renamed IS NOT NULL AND renamed <> ALL (v_masks) THEN
    SELECT m.name INTO v_gone FROM unnest(masked) AS m (name)
    WHERE NOT EXISTS (SELECT FROM pg_attribute AS a
                      WHERE a.attrelid = relation AND a.attname = m.name AND NOT a.attisdropped);
    IF FOUND THEN
      RAISE EXCEPTION '% is refused: the audit log masks column % of %, but would not mask it as %',
          command, quote_ident(v_gone), relation::regclass, quote_ident(renamed)
        USING ERRCODE = 'insufficient_privilege',
              HINT = format('Add %s to `redact` or `hash` of policy "%s" (with allow_missing: true, because the '
                'column is yet to come) and run site.yml; then rename it.', renamed, v_policy.name);
    END IF;
  END IF;
END
"""

# A detached partition has lost its root's triggers, and would be a place for changes that nobody records before it is
# attached again. That it was one is written nowhere; what gives it away is that this transaction changed it and that
# its columns are the root's. (A copy of the table that the same transaction made is taken for one until the next run.)
_ATTACH_DETACHED = """
DECLARE
  v_columns text;
  v_table   oid;
BEGIN
  SELECT string_agg(format('%s %s', a.attname, a.atttypid), ', ' ORDER BY a.attname) INTO v_columns
  FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
  WHERE a.attrelid = root AND c.relkind = 'p' AND a.attnum > 0 AND NOT a.attisdropped;
  IF v_columns IS NULL THEN
    RETURN;
  END IF;
  FOR v_table IN
    SELECT c.oid FROM pg_class AS c
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND {schema}.is_own(c.xmin)
      AND NOT EXISTS (SELECT FROM pg_trigger AS t
                      WHERE t.tgrelid = c.oid AND t.tgname LIKE 'dbfleet\\_audit\\_%')
      AND (SELECT string_agg(format('%s %s', a.attname, a.atttypid), ', ' ORDER BY a.attname)
           FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) = v_columns
  LOOP
    PERFORM {schema}.attach(v_table, policy);
  END LOOP;
END
"""

# Subtransactions have numbers of their own, all of them after that of their transaction. Rows older than half the
# numbers' circle look as if they were yet to come, which the server says in its own way.
_IS_OWN = """
DECLARE
  v_current CONSTANT numeric := pg_current_xact_id()::text::numeric;
  v_after   CONSTANT numeric := mod(xmin::text::numeric - mod(v_current, 4294967296) + 4294967296, 4294967296);
BEGIN
  IF v_after >= 2147483648 THEN
    RETURN false;
  END IF;
  BEGIN
    RETURN pg_xact_status((v_current + v_after)::text::xid8) = 'in progress';
  EXCEPTION WHEN invalid_parameter_value THEN
    RETURN false;
  END;
END
"""

# A partition that was audited before it was attached would record everything twice: its root's triggers are enough.
_LEAVE_TO_ROOT = """
DECLARE
  v_table   regclass;
  v_trigger text;
  v_masked  text[];
  v_masks   text[];
BEGIN
  SELECT {schema}.masked_columns(t.tgargs) INTO v_masks
  FROM pg_trigger AS t JOIN pg_proc AS f ON f.oid = t.tgfoid
  WHERE t.tgrelid = relation AND f.pronamespace = quote_ident({schema_text})::regnamespace
  LIMIT 1;
  FOR v_table, v_trigger, v_masked IN
    SELECT t.tgrelid, t.tgname, {schema}.masked_columns(t.tgargs)
    FROM pg_partition_tree(relation) AS p
    JOIN pg_trigger AS t ON t.tgrelid = p.relid
    JOIN pg_proc AS f ON f.oid = t.tgfoid
    WHERE p.level > 0 AND t.tgparentid = 0 AND t.tgname LIKE 'dbfleet\\_audit\\_%'
      AND f.pronamespace = quote_ident({schema_text})::regnamespace
  LOOP
    IF NOT v_masked <@ v_masks THEN
      RAISE EXCEPTION 'audit: the log masks % of %, but not of %, its new root', v_masked, v_table, relation
        USING ERRCODE = 'insufficient_privilege', HINT = 'Let the policy of the root mask them too and run site.yml.';
    END IF;
    EXECUTE format('DROP TRIGGER %I ON %s', v_trigger, v_table);
  END LOOP;
END
"""

# Redacted and hashed columns of a capture trigger, from its arguments as a list or as pg_trigger keeps them: each with
# a zero byte behind it, which no text can hold, hence the detour over hexadecimal digits.
_MASKED_COLUMNS = """
  SELECT coalesce((coalesce(a.list, k.list))[4]::text[] || (coalesce(a.list, k.list))[5]::text[], ARRAY[]::text[])
  FROM (SELECT arguments AS list) AS a,
       (SELECT array_agg(convert_from(decode(replace(part, ' ', ''), 'hex'), getdatabaseencoding()) ORDER BY nr) AS list
        FROM regexp_split_to_table(regexp_replace(encode(stored, 'hex'), '(..)', '\\1 ', 'g'), '00 ')
             WITH ORDINALITY AS u (part, nr)) AS k
"""


def rollout_lock(schema: str) -> Sql:
    """Return the statement by which the event trigger knows the transactions of a rollout."""
    return sql(_ROLLOUT_LOCK, schema=Identifier.of(schema))


def ddl_functions(schema: str) -> list[Function]:
    """Return the event trigger's function, which runs with the rights of the installing login, and its parts.

    All of it belongs to that login: whoever could replace a part would have these rights.
    """
    place = {"schema": Identifier.of(schema), "schema_text": Literal(schema)}
    settings = (SAFE_PATH, PLAIN_STRINGS)

    def part(name: str, body: str, arguments: str, returns: str = "void", **options: Any) -> Function:
        return Function(name, sql(body, **place), arguments, returns, owner=None, settings=settings, **options)

    return [
        part(
            "masked_columns",
            _MASKED_COLUMNS,
            "stored bytea, arguments text[] DEFAULT NULL",
            "text[]",
            language="sql",
            volatility="s",
        ),
        part("is_own", _IS_OWN, "xmin xid", "boolean"),
        part(
            "refuse_unmasking",
            _REFUSE_UNMASKING,
            "command text, relation oid, policy int, masked text[], renamed text",
        ),
        part("leave_to_root", _LEAVE_TO_ROOT, "relation regclass"),
        part("attach_detached", _ATTACH_DETACHED, "root oid, policy int"),
        Function(
            "attach_ddl",
            sql(_ATTACH_DDL, in_rollout=sql(_IN_ROLLOUT, schema_text=Literal(schema)), **place),
            returns="event_trigger",
            definer=True,
            owner=None,
            settings=settings,
        ),
    ]
