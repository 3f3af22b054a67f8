# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What records events that no row trigger sees: the application's own, DDL, logins."""

from __future__ import annotations

from collections.abc import Sequence

from .._core.policy import SENSITIVE_PATTERN
from .._core.sql import Identifier, Literal, sql
from .function import PLAIN_STRINGS, SAFE_PATH, Function
from .roles import WRITER

_RECORD_EVENT = """
DECLARE
  v_context jsonb := {schema}.current_context();
BEGIN
  INSERT INTO {schema}.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, record_id,
    old_values, new_values, changed_by, db_user, client_ip, application_name, context)
  VALUES (clock_timestamp(), pg_current_xact_id(), kind, schema_name, object_name, record_id,
    {schema}.bounded(before), {schema}.bounded(after),
    coalesce(author, v_context ->> 'user', session_user), session_user,
    coalesce({schema}.try_inet(v_context ->> 'ip_address'), inet_client_addr()),
    current_setting('application_name'), nullif(v_context - ARRAY['user', 'ip_address'], '{}'));
END
"""

# An application that logs a password reset must not log the password; keys deeper down are its own affair.
_WITHOUT_SECRETS = """
  SELECT jsonb_object_agg(e.key, CASE
    WHEN lower(e.key) ~ {sensitive} AND jsonb_typeof(e.value) IN ('string', 'number') THEN '"[REDACTED]"'
    ELSE e.value END)
  FROM jsonb_each(document) AS e
"""

_LOG_EVENT = """
DECLARE
  v_metadata CONSTANT jsonb := CASE
    WHEN metadata IS NULL THEN '{}' WHEN jsonb_typeof(metadata) = 'object' THEN metadata
    ELSE jsonb_build_object('metadata', metadata) END;
  v_old CONSTANT jsonb := coalesce(old_values, nullif(v_metadata -> 'old_values', 'null'));
  v_new CONSTANT jsonb := coalesce(new_values, nullif(v_metadata -> 'new_values', 'null'), '{}');
BEGIN
  IF action IS NULL OR action = '' THEN
    RAISE EXCEPTION 'audit.log_event() needs an action, for example ''login_failed'''
      USING ERRCODE = 'invalid_parameter_value';
  ELSIF octet_length(concat(action, resource_type, resource_id, failure_reason)) > 2000
     OR octet_length(concat(metadata, old_values, new_values)) > 1048576 THEN
    RAISE EXCEPTION 'audit.log_event() takes 2 kB of names and 1 MB of metadata'
      USING ERRCODE = 'program_limit_exceeded';
  ELSIF jsonb_typeof(v_old) <> 'object' OR jsonb_typeof(v_new) <> 'object' THEN
    RAISE EXCEPTION 'audit.log_event() takes JSON objects as old_values and new_values'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM {schema}.record_event('EVENT', NULL, resource_type, resource_id, {schema}.without_secrets(v_old),
    coalesce({schema}.without_secrets(v_metadata - ARRAY['old_values', 'new_values'] || v_new), '{}')
      || jsonb_build_object('event', action, 'success', success)
      || jsonb_strip_nulls(jsonb_build_object('failure_reason', failure_reason)));
END
"""

# One pass over a statement's tokens: a literal, a comment and a quoted name are told apart, so that no quote inside one
# of them is taken for the end of another. Of two dollar-quoted texts with the same tag, all in between counts as one.
# What continues an E literal on a later line has its escapes, too, although it has no E.
_MASK_LITERALS = r"""
  SELECT string_agg(CASE
      WHEN m[1] ~ '^([eE]?''|\$)' THEN '''***'''
      WHEN m[1] ~ '^\d' THEN '0'
      WHEN m[1] ~ '^(--|/\*)' THEN ' '
      ELSE m[1] END, '' ORDER BY nr)
  FROM regexp_matches(statement, CASE WHEN plain_strings
      THEN '(--[^\n\r]*|/\*(?:[^*]|\*+[^*/])*(?:\*+/|$)|"[^"]*(?:"|$)'
        || '|[eE]''(?:[^''\\]|''''|\\.|''[ \t\f]*(?:--[^\n\r]*)?[\n\r](?:\s|--[^\n\r]*[\n\r])*'')*(?:''|$)'
        || '|''(?:[^'']|'''')*(?:''|$)|\$(\w*)\$.*\$\2\$|[[:alpha:]_][\w$]*|\d[\w.]*|.)'
      ELSE '(--[^\n\r]*|/\*(?:[^*]|\*+[^*/])*(?:\*+/|$)|"[^"]*(?:"|$)|[eE]?''(?:[^''\\]|''''|\\.)*(?:''|$)'
        || '|\$(\w*)\$.*\$\2\$|[[:alpha:]_][\w$]*|\d[\w.]*|.)' END, 'g') WITH ORDINALITY AS t (m, nr)
"""

# First the password in a URL; then what a connection string, whose quotes are doubled, calls one; then the literal that
# follows a name that says so. All of it is guessing: where secrets are to be expected, every literal is masked instead.
_MASK_PASSWORDS = r"""
  SELECT regexp_replace(regexp_replace(regexp_replace(statement,
    '(://[^\s:/'']*:)(?:[^''\n]|''''|\\'')*@', '\1***@', 'g'),
    '(passw(?:or)?d\s*=\s*)(''''(?:[^''\\]|\\+(?:''''|[^''\\]))*''''|(?:[^\s''\\]|\\+(?:''''|[^''\\]))+)',
    '\1***', 'gi'),
    '((?:' || {sensitive} || ')\w*(?:["\s=:>(]|--[^\n]*|/\*(?:[^*]|\*+[^*/])*\*+/)*)'
      || '((?:[eE]|[uU]&)?''(?:[^''\\]|''''|\\.)*(?:''|$)|\$(\w*)\$[^$]*\$\3\$)', '\1''***''', 'gi')
"""

#: Commands that may put a value into a column (DEFAULT, USING), and those that may take the password of some server.
_SECRETIVE = "TABLE|DOMAIN|SELECT INTO|SCHEMA|SUBSCRIPTION|SERVER|FOREIGN|USER|ROLE"

# The text that the client sent may hold more than the command: other statements, with values that a policy masks. Only
# where it does not, and where the command is none of those above, do literals stay.
_RECORDABLE = r"""
DECLARE
  v_text   CONSTANT text := left(statement, 65536);
  v_masked text;
BEGIN
  -- A block is one literal. A rollout is one, with thousands of commands in it.
  IF v_text ~* '^\s*DO\s' THEN
    RETURN 'DO ''***''';
  END IF;
  -- No regular expression finds the end of a comment that has another in it, nor what is a literal after that.
  IF v_text ~ '/\*(?:[^*]|\*+[^*/])*/\*' THEN
    RETURN command || ' ''***''';
  END IF;
  v_masked := {schema}.mask_literals(v_text, plain_strings);
  IF v_masked !~ ';\s*\S' AND v_masked ~* ('^\s*' || split_part(command, ' ', 1) || '\M')
     AND command !~ {secretive} THEN
    v_masked := {schema}.mask_passwords(v_text);
  END IF;
  RETURN v_masked || CASE WHEN length(statement) > 65536
    THEN format(' ... (%s characters in all)', length(statement)) ELSE '' END;
END
"""

# DDL that cannot be recorded does not happen, except for a superuser, who may be about to make room for the log.
_UNRECORDED = """
EXCEPTION WHEN OTHERS THEN
  -- The log's own partitions are being swapped, by a transaction that leaves it as it found it.
  IF SQLSTATE = '23514' AND NOT EXISTS (
    SELECT FROM pg_inherits AS i WHERE i.inhrelid = to_regclass(format('%I.audit_log_future', {schema_text}))) THEN
    RETURN;
  END IF;
  IF current_setting('is_superuser') <> 'on' THEN
    RAISE;
  END IF;
  RAISE WARNING 'audit: % was not recorded: %', TG_TAG, SQLERRM;
END
"""

_STATEMENT = """
  v_statement := {schema}.recordable_statement(
    current_query(), TG_TAG, current_setting('standard_conforming_strings')::boolean);
"""

_WORTH_A_RECORD = """d.schema_name IS DISTINCT FROM 'pg_temp' AND NOT d.in_extension
    AND d.command_tag <> 'REFRESH MATERIALIZED VIEW'"""

_RECORD_DDL = (
    """
DECLARE
  v_statement text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger_ddl_commands() AS d WHERE {worth_a_record}) THEN
    RETURN;
  END IF;
"""
    + _STATEMENT
    + """
  PERFORM {schema}.record_event('DDL', coalesce(d.schema_name, o.schema_name), o.object_name, NULL, NULL,
    jsonb_strip_nulls(jsonb_build_object('event', d.command_tag, 'success', true,
      'object_type', lower(d.object_type), 'object', d.object_identity, 'statement', v_statement)))
  FROM pg_event_trigger_ddl_commands() AS d
  CROSS JOIN LATERAL (
    SELECT CASE WHEN cardinality(a.object_names) > 1 THEN a.object_names[1] END AS schema_name,
           coalesce(a.object_names[2], a.object_names[1]) AS object_name
    FROM pg_identify_object_as_address(d.classid, d.objid, d.objsubid) AS a) AS o
  WHERE {worth_a_record};
"""
    + _UNRECORDED
)

# What goes with its table without saying (types, defaults, indexes, triggers) is neither original nor normal.
_RECORD_DROP = (
    """
DECLARE
  v_statement text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger_dropped_objects() AS d WHERE NOT d.is_temporary) THEN
    RETURN;
  END IF;
"""
    + _STATEMENT
    + """
  PERFORM {schema}.record_event('DDL',
    coalesce(d.schema_name, CASE WHEN cardinality(d.address_names) > 1 THEN d.address_names[1] END),
    coalesce(d.address_names[2], d.address_names[1]), NULL, NULL,
    jsonb_strip_nulls(jsonb_build_object('event', TG_TAG, 'success', true, 'dropped', true,
      'object_type', d.object_type, 'object', d.object_identity, 'statement', v_statement)))
  FROM pg_event_trigger_dropped_objects() AS d
  WHERE (d.original OR d.normal AND d.object_type NOT IN ('rule', 'default value')) AND NOT d.is_temporary;
"""
    + _UNRECORDED
)

# Nobody must be kept out by the log: not by an error, a lock on it, a synchronous standby that is gone, or a timeout
# that runs out meanwhile. A WARNING would reach clients that do not expect one.
_RECORD_LOGIN = """
BEGIN
  IF pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean THEN
    RETURN;
  END IF;
  PERFORM set_config('synchronous_commit', 'local', true), set_config('transaction_timeout', '0', true);
  PERFORM {schema}.record_event('LOGIN', NULL, NULL, NULL, NULL, jsonb_strip_nulls(jsonb_build_object(
    'event', 'login', 'success', true, 'authentication', system_user)));
EXCEPTION WHEN OTHERS THEN
  RAISE LOG 'audit: the login of % was not recorded: %', session_user, SQLERRM;
END
"""


def event_functions(schema: str, applications: Sequence[str]) -> list[Function]:
    """Return audit.log_event() and the functions of the event triggers that record, with their parts.

    The latter run in the sessions of superusers: they and all that they call belong to the login that installs them.

    :param applications: roles that may call audit.log_event().
    """
    place = {
        "schema": Identifier.of(schema),
        "schema_text": Literal(schema),
        "sensitive": Literal(SENSITIVE_PATTERN),
        "secretive": Literal(_SECRETIVE),
        "worth_a_record": sql(_WORTH_A_RECORD),
    }

    def function(name: str, body: str, arguments: str, returns: str, **options: object) -> Function:
        return Function(name, sql(body, **place), arguments, returns, **options)  # type: ignore[arg-type]

    def recorder(name: str, body: str, settings: tuple[tuple[str, str], ...]) -> Function:
        return function(name, body, "", "event_trigger", definer=True, owner=None, settings=settings)

    reading = {"language": "sql", "volatility": "i", "owner": None, "settings": (SAFE_PATH, PLAIN_STRINGS)}
    return [
        function("without_secrets", _WITHOUT_SECRETS, "document jsonb", "jsonb", **{**reading, "executors": (WRITER,)}),
        function(
            "record_event",
            _RECORD_EVENT,
            "kind text, schema_name text, object_name text, record_id text, before jsonb, after jsonb, "
            "author text DEFAULT NULL",
            "void",
            owner=None,
            executors=(WRITER,),
            settings=(SAFE_PATH, ("TimeZone", "UTC")),
        ),
        function(
            "log_event",
            _LOG_EVENT,
            "action text, resource_type text DEFAULT NULL, resource_id text DEFAULT NULL, "
            "success boolean DEFAULT true, metadata jsonb DEFAULT NULL, failure_reason text DEFAULT NULL, "
            "old_values jsonb DEFAULT NULL, new_values jsonb DEFAULT NULL",
            "void",
            definer=True,
            owner=WRITER,
            executors=tuple(applications),
            settings=(SAFE_PATH, ("TimeZone", "UTC")),
        ),
        function("mask_literals", _MASK_LITERALS, "statement text, plain_strings boolean", "text", **reading),
        function("mask_passwords", _MASK_PASSWORDS, "statement text", "text", **reading),
        function(
            "recordable_statement",
            _RECORDABLE,
            "statement text, command text, plain_strings boolean",
            "text",
            **{**reading, "language": "plpgsql"},
        ),
        recorder("record_ddl", _RECORD_DDL, (SAFE_PATH,)),
        recorder("record_drop", _RECORD_DROP, (SAFE_PATH,)),
    ]


def login_function(schema: str) -> Function:
    """Return the function of the login trigger, which older servers than LOGIN_EVENTS_VERSION cannot have."""
    return Function(
        "record_login",
        sql(_RECORD_LOGIN, schema=Identifier.of(schema)),
        returns="event_trigger",
        definer=True,
        owner=None,
        settings=(SAFE_PATH, ("lock_timeout", "200ms")),
    )
