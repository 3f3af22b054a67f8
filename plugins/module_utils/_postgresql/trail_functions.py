# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The functions that every trail has, whatever its policies. ``{schema}`` is the trail's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .._core.schema_version import FUNCTION, SCHEMA_VERSION
from .._core.sql import Identifier, Joined, Literal, Sql, sql
from .attach_functions import attach_functions
from .canonical import DIGESTED_AS, canonical
from .capture import IMAGE_LIMITS
from .catalog_snapshot import snapshot_functions
from .ddl_functions import ddl_functions
from .event_functions import event_functions, login_function
from .function import PLAIN_STRINGS, SAFE_PATH, Function
from .guard_functions import guard_functions
from .partition_functions import partition_functions
from .roles import READER, WRITER
from .session import LOGIN_EVENTS_VERSION
from .trail_options import TrailOptions

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
SELECT (greatest({settings}) > '') IS TRUE OR current_setting('role') <> 'none'
"""

# Functions with a query in them are PL/pgSQL, which keeps its plan for the session. That of an SQL function is made
# anew in every transaction, for several times of what its work takes.
_SNAKE_CASE = """
BEGIN
  RETURN (
    SELECT jsonb_object_agg(lower(regexp_replace(e.key, '([a-z0-9])([A-Z])', '\\1_\\2', 'g')), e.value)
    FROM jsonb_each(value) AS e);
END
"""

_SET_CONTEXT = """
BEGIN
  IF context IS NOT NULL AND jsonb_typeof(context) <> 'object' THEN
    RAISE EXCEPTION 'audit.set_context() takes a JSON object, not %', jsonb_typeof(context)
      USING ERRCODE = 'invalid_parameter_value',
            HINT = 'For example: SELECT audit.set_context(''{"user": "ann", "request_id": "42"}'')';
  END IF;
  IF octet_length(context::text) > 65536 THEN
    RAISE EXCEPTION 'audit.set_context() takes 64 kB, not %', pg_size_pretty(octet_length(context::text)::bigint)
      USING ERRCODE = 'program_limit_exceeded';
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
    v_value := CASE WHEN octet_length(v_text) <= 65536 THEN {schema}.try_jsonb(v_text) END;
    -- 1e131071 is short in a setting, and long in a record.
    IF octet_length(v_value::text) > 262144 THEN
      v_value := NULL;
    END IF;
    IF jsonb_typeof(v_value) = 'object' THEN
      IF lower(v_value::text) <> v_value::text THEN
        v_value := coalesce({schema}.snake_case(v_value), '{}');
      END IF;
      v_context := v_value || v_context;
    ELSIF jsonb_typeof(v_value) IN ('string', 'number') THEN
      v_context := jsonb_build_object('user', v_value #>> '{}') || v_context;
    ELSE
      v_context := v_context
        || jsonb_build_object('unreadable', coalesce(v_context -> 'unreadable', '[]') || to_jsonb(v_setting));
    END IF;
  END LOOP;
{plain_settings}
  IF v_context ->> 'user' = '' THEN
    v_context := v_context - 'user';
  END IF;
  IF NOT v_context ? 'user' THEN
    v_value := coalesce(v_context -> 'user_id', v_context -> 'username', v_context -> 'sub',
                        v_context -> 'user_email', v_context -> 'email', v_context -> 'id');
    IF v_value IS NOT NULL THEN
      v_context := v_context || jsonb_build_object('user', v_value #>> '{}');
    END IF;
  END IF;
  -- The address of the connection, which the record has instead, is not the one that was meant.
  IF v_context ->> 'ip_address' <> '' AND {schema}.try_inet(v_context ->> 'ip_address') IS NULL THEN
    v_context := v_context - 'ip_address' || jsonb_build_object('claimed_ip_address', v_context -> 'ip_address',
      'unreadable', coalesce(v_context -> 'unreadable', '[]') || '"ip_address"');
  END IF;
  -- `role` is what SET ROLE has done, whatever the application says.
  v_context := v_context - 'role' || jsonb_strip_nulls(jsonb_build_object(
    'claimed_role', v_context -> 'role', 'role', nullif(current_setting('role'), 'none')));
  RETURN v_context || CASE WHEN v_context ? 'user'
    THEN jsonb_build_object('user', left(v_context ->> 'user', 500)) ELSE '{}' END;
END
"""

_PLAIN_SETTING = """
  v_text := coalesce({settings});
  IF v_text IS NOT NULL THEN
    v_context := v_context || jsonb_build_object({key}, left(v_text, 500));
  END IF;"""

_KEYED_DIGEST = """
BEGIN
  RETURN (
    SELECT 'hmac-sha256:'
           || encode(sha256(k.outer_pad || sha256(k.inner_pad || convert_to(value, {digested_as}))), 'hex')
    FROM {schema}.hash_key AS k);
END
"""

# Column by column, for a row that cannot become jsonb as a whole: a json value with an escape that jsonb does not take
# (\u0000, half a surrogate pair) is kept as it is written, a very large value as the length and digest of its text. A
# row beyond all limits raises: a record without content would be a way to hide one. json_each() wants every escape to
# be valid, so \u goes through it as \\u (and \\ as four, to be told apart). No regular expression: it would need four
# bytes a character, and fail at 256 MB.
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
      v_name := replace(v_name, '\\', '\');
    END IF;
    IF octet_length(v_text) > 1048576 THEN
      BEGIN
        v_text := v_text::json #>> '{}';
      EXCEPTION WHEN data_exception THEN
        NULL;
      END;
      v_value := jsonb_build_object('omitted', 'too large', 'characters', length(v_text),
        'sha256', encode(sha256(convert_to(v_text, {digested_as})), 'hex'));
    ELSE
      v_value := coalesce({schema}.try_jsonb(v_text), {schema}.try_jsonb(
        replace(replace(replace(v_text, '\\', e'\x01'), '\u', '\\u'), e'\x01', '\\')), to_jsonb(v_text));
    END IF;
    v_image := v_image || jsonb_build_object(v_name, v_value);
  END LOOP;
  RETURN v_image;
END
"""

_MASK = """
DECLARE
  v_column text;
BEGIN
  FOREACH v_column IN ARRAY redacted LOOP
    image := jsonb_set(image, ARRAY[v_column], '"[REDACTED]"', false);
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
DECLARE
  v_column text;
  v_hidden text[];
BEGIN
  FOREACH v_column IN ARRAY redacted LOOP
    IF (old_image -> v_column)::text IS DISTINCT FROM (new_image -> v_column)::text THEN
      v_hidden := v_hidden || v_column;
    END IF;
  END LOOP;
  RETURN v_hidden;
END
"""

_PICK = """
BEGIN
  RETURN (
    SELECT CASE WHEN image IS NOT NULL THEN coalesce(jsonb_object_agg(e.key, e.value), '{}') END
    FROM jsonb_each(image) AS e
    WHERE e.key = ANY (columns));
END
"""

_DIFFERENCE = """
BEGIN
  RETURN (
    SELECT coalesce(jsonb_object_agg(n.key, n.value), '{}')
    FROM jsonb_each(new_image) AS n
    WHERE n.value::text IS DISTINCT FROM (old_image -> n.key)::text OR n.key = ANY (hidden));
END
"""

# The text of a row must fit into 1 GB, or nobody could ever read or seal it. What is small as jsonb is never too long
# as text, although jsonb holds 1e131071 in a few bytes.
_BOUNDED = """
BEGIN
  IF pg_column_size(image) > {small} AND octet_length(image::text) > {longest} THEN
    RAISE EXCEPTION 'audit: the record of this row would be longer than 256 MB'
      USING ERRCODE = 'program_limit_exceeded';
  END IF;
  RETURN image;
END
"""

# Longer keys than an index takes are found by their digest; the key itself is in the images.
_INDEXABLE = """
  SELECT CASE WHEN octet_length(key) > 2000 THEN 'sha256:' || encode(sha256(convert_to(key, {digested_as})), 'hex')
              ELSE key END
"""

_COMPOSITE_KEY = """
BEGIN
  RETURN (
    SELECT jsonb_agg(image -> c.name ORDER BY c.ordinality)::text
    FROM unnest(columns) WITH ORDINALITY AS c (name, ordinality)
    WHERE image IS NOT NULL);
END
"""

_CANONICAL = """
  SELECT {text}
"""


def trail_functions(options: TrailOptions, version_number: int) -> list[Function]:
    """Return the functions of a trail on a server of that version."""
    schema, applications = options.schema, options.applications
    place = {"schema": Identifier.of(schema), "digested_as": sql(DIGESTED_AS), **IMAGE_LIMITS}

    def stable(name: str, body: str, arguments: str, returns: str, **more: object) -> Function:
        options = {"volatility": "s", "executors": (WRITER,), **more}
        return Function(name, sql(body, **place), arguments, returns, **options)  # type: ignore[arg-type]

    literal = (SAFE_PATH, PLAIN_STRINGS)
    return [
        *guard_functions(schema),
        *_context_functions(schema, options.context),
        Function("set_context", sql(_SET_CONTEXT), "context jsonb", "void", executors=tuple(applications)),
        stable("keyed_digest", _KEYED_DIGEST, "value text", "text"),
        stable("safe_image", _SAFE_IMAGE, "row_value anyelement", "jsonb", settings=literal),
        stable("mask", _MASK, "image jsonb, redacted text[], hashed text[]", "jsonb"),
        stable("hidden_changes", _HIDDEN_CHANGES, "old_image jsonb, new_image jsonb, redacted text[]", "text[]"),
        stable("pick", _PICK, "image jsonb, columns text[]", "jsonb"),
        stable("difference", _DIFFERENCE, "old_image jsonb, new_image jsonb, hidden text[]", "jsonb"),
        stable("bounded", _BOUNDED, "image jsonb", "jsonb"),
        stable("indexable", _INDEXABLE, "key text", "text", language="sql"),
        stable("composite_key", _COMPOSITE_KEY, "image jsonb, columns text[]", "text"),
        *event_functions(schema, applications if "app" in options.events else ()),
        *([login_function(schema)] if version_number >= LOGIN_EVENTS_VERSION else []),
        *snapshot_functions(schema, version_number),
        Function(
            FUNCTION,
            sql(f"SELECT {SCHEMA_VERSION}"),
            returns="integer",
            language="sql",
            volatility="i",
            executors=(READER, *options.readers),
        ),
        *partition_functions(schema),
        *ddl_functions(schema),
        *attach_functions(schema, applications),
        Function(
            "canonical",
            sql(_CANONICAL, text=canonical("r")),
            "r {schema}.audit_log_data",
            "text",
            "sql",
            volatility="s",
            executors=(READER, *options.readers),
        ),
    ]


def _context_functions(schema: str, context: Mapping[str, Sequence[str]]) -> list[Function]:
    """Return what reads a session's context; event triggers call it in the sessions of superusers."""
    place = {"schema": Identifier.of(schema)}
    common = {"volatility": "s", "owner": None, "executors": (WRITER,)}
    literal = {"settings": (SAFE_PATH, PLAIN_STRINGS)}
    return [
        Function("try_jsonb", sql(_TRY_JSONB), "value text", "jsonb", **common),
        Function("try_inet", sql(_TRY_INET), "value text", "inet", **common),
        Function("snake_case", sql(_SNAKE_CASE, **place), "value jsonb", "jsonb", **literal, **common),
        Function("has_context", _has_context(context), "", "boolean", "sql", settings=(), **common),
        Function("current_context", _current_context(schema, context), "", "jsonb", **common),
    ]


def _read(setting: str) -> Sql:
    return sql("nullif(current_setting({name}, true), '')", name=Literal(setting))


def _has_context(context: Mapping[str, Sequence[str]]) -> Sql:
    settings = [CONTEXT_SETTING, *(name for names in context.values() for name in names)]
    values = tuple(sql("current_setting({name}, true)", name=Literal(name)) for name in settings)
    return sql(_HAS_CONTEXT, settings=Joined(",\n    ", values))


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
