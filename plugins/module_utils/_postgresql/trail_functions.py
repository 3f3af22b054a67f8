# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The functions that every trail has, whatever its policies. ``{schema}`` is the trail's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .._core.sql import Identifier, Joined, Literal, Sql, sql
from .attach_functions import attach_functions
from .function import PLAIN_STRINGS, READER, SAFE_PATH, WRITER, Function
from .partition_functions import partition_functions

#: Which settings of a session feed the record: key of the context -> names of settings, the first that is set wins.
#: `json` lists settings that hold a whole JSON object (or, for a user alone, a JSON string).
DEFAULT_CONTEXT: dict[str, list[str]] = {
    "user": ["app.user", "app.user_id"],
    "ip_address": ["app.ip_address"],
    "business_process": ["app.business_process"],
    "json": ["app.audit_context", "app.current_user", "request.jwt.claims"],
}

#: Where audit.set_context() keeps what it was given, until the transaction ends.
CONTEXT_SETTING = "audit.context"

_REFUSE_CHANGE = """
BEGIN
  RAISE EXCEPTION 'the audit log is append-only: % on %.% is refused', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege',
          HINT = 'Rows are only ever added to it.';
END
"""

_TRY_JSONB = """
BEGIN
  RETURN value::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded OR statement_too_complex THEN
  RETURN NULL;
END
"""

_TRY_INET = """
BEGIN
  RETURN value::inet;
EXCEPTION WHEN data_exception THEN
  RETURN NULL;
END
"""

# A plain SQL expression, so that the planner inlines it into the capture functions: a session that sets no context
# pays for a few hash look-ups and nothing else.
_HAS_CONTEXT = """
SELECT coalesce({settings}) IS NOT NULL OR current_setting('role') <> 'none'
"""

_SNAKE_CASE = """
SELECT jsonb_object_agg(lower(regexp_replace(key, '([a-z0-9])([A-Z])', '\\1_\\2', 'g')), value)
FROM jsonb_each(value)
"""

_SET_CONTEXT = """
BEGIN
  IF context IS NOT NULL AND jsonb_typeof(context) <> 'object' THEN
    RAISE EXCEPTION 'audit.set_context() takes a JSON object, not %', jsonb_typeof(context)
      USING ERRCODE = 'invalid_parameter_value',
            HINT = 'For example: SELECT audit.set_context(''{"user": "ann", "request_id": "42"}'')';
  END IF;
  PERFORM set_config('audit.context', coalesce(context::text, ''), true);
END
"""

# Never raises: what an application put into its settings must not break its writes. What cannot be read is named
# under "unreadable", so that it does not go unnoticed either.
_CURRENT_CONTEXT = """
DECLARE
  v_context jsonb := '{}';
  v_setting text;
  v_text    text;
  v_value   jsonb;
BEGIN
  FOREACH v_setting IN ARRAY {json_settings} LOOP
    v_text := nullif(current_setting(v_setting, true), '');
    CONTINUE WHEN v_text IS NULL;
    v_value := {schema}.try_jsonb(v_text);
    IF jsonb_typeof(v_value) = 'object' THEN
      v_context := coalesce({schema}.snake_case(v_value), '{}') || v_context;
    ELSIF jsonb_typeof(v_value) IN ('string', 'number') THEN
      v_context := jsonb_build_object('user', v_value #>> '{}') || v_context;
    ELSE
      v_context := v_context
        || jsonb_build_object('unreadable', coalesce(v_context -> 'unreadable', '[]') || to_jsonb(v_setting));
    END IF;
  END LOOP;
{plain_settings}
  IF NOT v_context ? 'user' THEN
    v_value := coalesce(v_context -> 'user_id', v_context -> 'username', v_context -> 'sub',
                        v_context -> 'user_email', v_context -> 'email', v_context -> 'id');
    IF v_value IS NOT NULL THEN
      v_context := v_context || jsonb_build_object('user', v_value #>> '{}');
    END IF;
  END IF;
  IF current_setting('role') <> 'none' THEN
    v_context := v_context || jsonb_build_object('role', current_setting('role'));
  END IF;
  RETURN v_context;
END
"""

_PLAIN_SETTING = """
  v_text := coalesce({settings});
  IF v_text IS NOT NULL THEN
    v_context := v_context || jsonb_build_object({key}, v_text);
  END IF;"""

_KEYED_DIGEST = """
  SELECT 'hmac-sha256:' || encode(sha256(k.outer_pad || sha256(k.inner_pad || convert_to(value, 'UTF8'))), 'hex')
  FROM {schema}.hash_key AS k
"""

# Column by column, for a row that cannot become jsonb as a whole: a json value with an escape that jsonb does not take
# (\u0000, half a surrogate pair) is kept as it is written, a very large value as the length and digest of its text; a
# row beyond all limits leaves the reason. json_each() wants every escape to be valid, so \u goes through it as \\u
# (and \\ as four, to be told apart). No regular expression: it would need four bytes a character, and fail at 256 MB.
_SAFE_IMAGE = r"""
DECLARE
  v_image   jsonb := '{}';
  v_row     json;
  v_escapes boolean;
  v_name    text;
  v_text    text;
  v_value   jsonb;
BEGIN
  v_row := row_to_json(row_value);
  v_escapes := position('\u' in v_row::text) > 0;
  IF v_escapes THEN
    v_row := replace(replace(replace(v_row::text, '\\', e'\x01'), '\u', '\\u'), e'\x01', '\\\\');
  END IF;
  FOR v_name, v_text IN SELECT key, value::text FROM json_each(v_row) LOOP
    IF v_escapes THEN
      v_text := replace(replace(replace(v_text, '\\\\', e'\x01'), '\\u', '\u'), e'\x01', '\\');
    END IF;
    IF octet_length(v_text) > 1048576 THEN
      BEGIN
        v_text := v_text::json #>> '{}';
      EXCEPTION WHEN data_exception THEN
        NULL;
      END;
      v_value := jsonb_build_object('omitted', 'too large', 'characters', length(v_text),
        'sha256', encode(sha256(convert_to(v_text, 'UTF8')), 'hex'));
    ELSE
      v_value := coalesce({schema}.try_jsonb(v_text), {schema}.try_jsonb(
        replace(replace(replace(v_text, '\\', e'\x01'), '\u', '\\u'), e'\x01', '\\')), to_jsonb(v_text));
    END IF;
    v_image := v_image || jsonb_build_object(v_name, v_value);
  END LOOP;
  RETURN v_image;
EXCEPTION WHEN OTHERS THEN
  RETURN jsonb_build_object('omitted', SQLERRM);
END
"""

_MASK = """
DECLARE
  v_column text;
BEGIN
  FOREACH v_column IN ARRAY redacted LOOP
    IF image ? v_column THEN
      image := image || jsonb_build_object(v_column, '[REDACTED]');
    END IF;
  END LOOP;
  FOREACH v_column IN ARRAY hashed LOOP
    IF image ->> v_column IS NOT NULL THEN
      image := image || jsonb_build_object(v_column, {schema}.keyed_digest(image ->> v_column));
    END IF;
  END LOOP;
  RETURN image;
END
"""

_HIDDEN_CHANGES = """
  SELECT array_agg(c.name ORDER BY c.name)
  FROM unnest(redacted) AS c (name)
  WHERE (old_image -> c.name)::text IS DISTINCT FROM (new_image -> c.name)::text
"""

_PICK = """
  SELECT CASE WHEN image IS NOT NULL THEN coalesce(jsonb_object_agg(e.key, e.value), '{}') END
  FROM jsonb_each(image) AS e
  WHERE e.key = ANY (columns)
"""

_DIFFERENCE = """
  SELECT coalesce(jsonb_object_agg(n.key, n.value), '{}')
  FROM jsonb_each(new_image) AS n
  WHERE n.value::text IS DISTINCT FROM (old_image -> n.key)::text OR n.key = ANY (hidden)
"""

_COMPOSITE_KEY = """
  SELECT jsonb_agg(image -> c.name ORDER BY c.ordinality)::text
  FROM unnest(columns) WITH ORDINALITY AS c (name, ordinality)
  WHERE image IS NOT NULL
"""

_LOG_EVENT = """
DECLARE
  v_context jsonb := {schema}.current_context();
BEGIN
  IF action IS NULL OR action = '' THEN
    RAISE EXCEPTION 'audit.log_event() needs an action, for example ''login_failed'''
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  INSERT INTO {schema}.audit_log_data (changed_at, transaction_id, action, table_name, record_id, new_values,
    changed_by, db_user, client_ip, application_name, context)
  VALUES (clock_timestamp(), pg_current_xact_id(), 'EVENT', resource_type, resource_id,
    CASE WHEN metadata IS NULL THEN '{}' WHEN jsonb_typeof(metadata) = 'object' THEN metadata
      ELSE jsonb_build_object('metadata', metadata) END || jsonb_build_object('event', action, 'success', success),
    coalesce(v_context ->> 'user', session_user), session_user,
    coalesce({schema}.try_inet(v_context ->> 'ip_address'), inet_client_addr()),
    current_setting('application_name'), nullif(v_context - ARRAY['user', 'ip_address'], '{}'));
END
"""

# Names every column and takes no value through a session-dependent output function: the text of a record is the same
# in every session, on every server, for as long as its archive is kept.
_CANONICAL = """
  SELECT jsonb_build_object(
    'id', r.id,
    'changed_at', to_char(r.changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'transaction_id', r.transaction_id::text,
    'action', r.action, 'schema_name', r.schema_name, 'table_name', r.table_name, 'record_id', r.record_id,
    'old_values', r.old_values, 'new_values', r.new_values, 'hidden_changes', r.hidden_changes,
    'changed_by', r.changed_by, 'db_user', r.db_user, 'client_ip', host(r.client_ip),
    'application_name', r.application_name, 'context', r.context, 'policy_id', r.policy_id)::text
"""

_GUARD_DDL = """
DECLARE
  v_problem text;
BEGIN
  IF (SELECT bool_or(rolsuper) FROM pg_roles WHERE rolname IN (session_user, current_user)) THEN
    RETURN;
  END IF;
  IF TG_TAG = 'CREATE CAST' THEN
    SELECT format('a cast from %s to %s would run %s inside the audit functions',
                  format_type(k.castsource, NULL), format_type(k.casttarget, NULL), k.castfunc::regprocedure)
    INTO v_problem
    FROM pg_event_trigger_ddl_commands() AS d
    JOIN pg_cast AS k ON k.oid = d.objid AND d.classid = 'pg_cast'::regclass
    WHERE k.casttarget IN ('json'::regtype, 'jsonb'::regtype) AND k.castfunc <> 0;
  ELSE
    SELECT format('trigger %s on %s would no longer record every change', t.tgname, t.tgrelid::regclass)
    INTO v_problem
    FROM pg_event_trigger_ddl_commands() AS d
    JOIN pg_trigger AS t ON (d.classid = 'pg_class'::regclass AND t.tgrelid = d.objid)
                         OR (d.classid = 'pg_trigger'::regclass AND t.oid = d.objid)
    JOIN pg_proc AS p ON p.oid = t.tgfoid
    CROSS JOIN LATERAL (SELECT p.pronamespace = quote_ident({schema_text})::regnamespace AS ours,
                               t.tgname LIKE 'dbfleet\\_audit\\_%' AS named) AS mark
    WHERE (mark.ours OR mark.named) AND NOT (mark.ours AND mark.named AND t.tgenabled = 'A');
  END IF;
  IF v_problem IS NOT NULL THEN
    RAISE EXCEPTION '% is refused: %', TG_TAG, v_problem
      USING ERRCODE = 'insufficient_privilege', HINT = 'A superuser may do it; verify.yml will report it.';
  END IF;
END
"""

_GUARD_DROP = """
DECLARE
  v_object text;
BEGIN
  IF (SELECT bool_or(rolsuper) FROM pg_roles WHERE rolname IN (session_user, current_user)) THEN
    RETURN;
  END IF;
  SELECT d.object_identity INTO v_object
  FROM pg_event_trigger_dropped_objects() AS d
  WHERE d.schema_name = {schema_text}
     OR (d.object_type = 'trigger' AND d.address_names[3] LIKE 'dbfleet\\_audit\\_%'
         AND NOT EXISTS (SELECT FROM pg_event_trigger_dropped_objects() AS t
                         WHERE t.object_type = 'table' AND t.address_names = d.address_names[1:2]))
  LIMIT 1;
  IF v_object IS NOT NULL THEN
    RAISE EXCEPTION '% is refused: % is part of the audit trail', TG_TAG, v_object
      USING ERRCODE = 'insufficient_privilege', HINT = 'A superuser may do it; verify.yml will report it.';
  END IF;
END
"""


def trail_functions(
    schema: str, context: Mapping[str, Sequence[str]], applications: Sequence[str], readers: Sequence[str]
) -> list[Function]:
    """Return the functions of a trail whose records take their context from `context`."""
    place = {"schema": Identifier.of(schema), "schema_text": Literal(schema)}

    def stable(name: str, body: str, arguments: str, returns: str, **more: object) -> Function:
        options = {"language": "sql", "volatility": "s", "executors": (WRITER,), **more}
        return Function(name, sql(body, **place), arguments, returns, **options)  # type: ignore[arg-type]

    literal = (SAFE_PATH, PLAIN_STRINGS)
    return [
        Function("refuse_change", sql(_REFUSE_CHANGE)),
        Function("guard_ddl", sql(_GUARD_DDL, **place), returns="event_trigger", settings=literal),
        Function("guard_drop", sql(_GUARD_DROP, **place), returns="event_trigger", settings=literal),
        stable("try_jsonb", _TRY_JSONB, "value text", "jsonb", language="plpgsql"),
        stable("try_inet", _TRY_INET, "value text", "inet", language="plpgsql"),
        stable("snake_case", _SNAKE_CASE, "value jsonb", "jsonb", settings=literal),
        Function(
            "has_context", _has_context(context), "", "boolean", "sql", volatility="s", settings=(), executors=(WRITER,)
        ),
        Function(
            "current_context", _current_context(schema, context), "", "jsonb", volatility="s", executors=(WRITER,)
        ),
        Function("set_context", sql(_SET_CONTEXT), "context jsonb", "void", executors=tuple(applications)),
        stable("keyed_digest", _KEYED_DIGEST, "value text", "text"),
        stable("safe_image", _SAFE_IMAGE, "row_value anyelement", "jsonb", language="plpgsql", settings=literal),
        stable("mask", _MASK, "image jsonb, redacted text[], hashed text[]", "jsonb", language="plpgsql"),
        stable("hidden_changes", _HIDDEN_CHANGES, "old_image jsonb, new_image jsonb, redacted text[]", "text[]"),
        stable("pick", _PICK, "image jsonb, columns text[]", "jsonb"),
        stable("difference", _DIFFERENCE, "old_image jsonb, new_image jsonb, hidden text[]", "jsonb"),
        stable("composite_key", _COMPOSITE_KEY, "image jsonb, columns text[]", "text"),
        Function(
            "log_event",
            sql(_LOG_EVENT, **place),
            "action text, resource_type text DEFAULT NULL, resource_id text DEFAULT NULL, "
            "success boolean DEFAULT true, metadata jsonb DEFAULT NULL",
            "void",
            definer=True,
            owner=WRITER,
            executors=tuple(applications),
            settings=(SAFE_PATH, ("TimeZone", "UTC")),
        ),
        *partition_functions(schema),
        *attach_functions(schema, applications),
        Function(
            "canonical",
            sql(_CANONICAL),
            "r {schema}.audit_log_data",
            "text",
            "sql",
            volatility="s",
            executors=(READER, *readers),
        ),
    ]


def _read(setting: str) -> Sql:
    return sql("nullif(current_setting({name}, true), '')", name=Literal(setting))


def _has_context(context: Mapping[str, Sequence[str]]) -> Sql:
    settings = [CONTEXT_SETTING, *(name for names in context.values() for name in names)]
    return sql(_HAS_CONTEXT, settings=Joined(",\n    ", tuple(_read(name) for name in settings)))


def _current_context(schema: str, context: Mapping[str, Sequence[str]]) -> Sql:
    json_settings = [CONTEXT_SETTING, *context.get("json", [])]
    plain = tuple(
        sql(_PLAIN_SETTING, key=Literal(key), settings=Joined(", ", tuple(_read(name) for name in names)))
        for key, names in context.items()
        if key != "json" and names
    )
    return sql(
        _CURRENT_CONTEXT,
        schema=Identifier.of(schema),
        json_settings=sql("ARRAY[{names}]", names=Joined(", ", tuple(Literal(name) for name in json_settings))),
        plain_settings=Joined("", plain),
    )
