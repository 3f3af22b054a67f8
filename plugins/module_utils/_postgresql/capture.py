# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The capture function of a policy: what the policy asks for is its text, what a table adds comes as arguments.

Arguments of every capture trigger: the column of the key, empty when it is none or several. Where there is more to
say, in order: schema and table to report (empty: those of the trigger's own table; given for partitioned tables, whose
partitions fire the trigger), redacted columns, hashed columns (both as text[]), then the columns of a key of several.
Columns are found by name in the row's JSON, so that adding, dropping or renaming one never breaks a write.

In a short transaction PL/pgSQL prepares every expression of its own anew, and each function that is called in it costs
about a microsecond there, whatever it does. So the usual row gets by with few, and what few rows need stands in
branches (docs/performance.md).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from .._core.policy import Policy
from .._core.sql import Identifier, Joined, Literal, Sql, sql
from .function import SAFE_PATH, Function
from .roles import WRITER

#: What the text of a value depends on in a session; a record must not. An amount of money is thus recorded as locale C
#: writes it, whatever the currency (measured: 1 µs a row, like every other of these).
_PINNED = (
    SAFE_PATH,
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("quote_all_identifiers", "off"),
    ("lc_monetary", "C"),
)

#: Keeps pgaudit from logging the INSERT into the log, with the values in it, once more for every row.
_PGAUDIT_SILENT = ("pgaudit.log", "none")

#: Bytes of an image: what is small as jsonb is never too long as text. See audit.bounded().
IMAGE_LIMITS = {"small": Literal(8192), "longest": Literal(268435456)}

_PREFIX = "capture_"

#: Raised when arguments change their meaning. It is a part of the functions' names: tables get their triggers one after
#: the other, and one that has the old ones still must not meet the new function, which would not mask its columns.
_LAYOUT = 1

_DECLARE = """
DECLARE
  v_schema   text;
  v_table    text;
  v_context  jsonb;
  v_user     text;
  v_client   inet;
"""

# That an UPDATE changes no byte of the row is seen here and not in the trigger's WHEN, which the server would read out
# of the catalogue as text for every statement.
_ROW_SAME = """
  IF OLD *= NEW THEN
    RETURN NULL;
  END IF;
"""

_CONTEXT = """
  IF {schema}.has_context() THEN
    v_context := {schema}.current_context();
    v_user := v_context ->> 'user';
    v_client := {schema}.try_inet(v_context ->> 'ip_address');
    v_context := nullif(v_context - ARRAY['user', 'ip_address'], '{}');
  END IF;
"""

_REQUIRE = """
  IF {condition}({missing}) THEN
    RAISE {level} '% on %.% needs an audit context with {keys}', TG_OP, {table}
      USING ERRCODE = 'insufficient_privilege',
            HINT = 'Call SELECT {schema}.set_context(''{"user": "...", ...}'') at the start of the transaction.';
  END IF;
"""

# From here on the values are in variables of our own: OLD and NEW must not stand in an SQL statement, where pgaudit
# would log the whole row with every column that is about to be redacted. What jsonb cannot hold (more than 256 MB, or
# a \u0000 in a json value) must not cost the application its write, nor the log its record.
_ROW_IMAGES = """
  BEGIN
    v_old := to_jsonb(OLD);
    v_new := to_jsonb(NEW);
  EXCEPTION WHEN OTHERS THEN{safe}
  END;
"""

_ROW_SAFE_IMAGES = """
    IF TG_OP <> 'INSERT' THEN
      v_old := {schema}.bounded({schema}.safe_image(OLD));
    END IF;
    IF TG_OP <> 'DELETE' THEN
      v_new := {schema}.bounded({schema}.safe_image(NEW));
    END IF;"""

# The key is taken from the whole row, of which a record may leave it out. One test for what is rare.
_ROW_KEY = """
  v_record := coalesce(v_new, v_old) ->> TG_ARGV[0];
  IF TG_ARGV[1] IS NOT NULL OR octet_length(v_record) > {longest_key}
     OR greatest(pg_column_size(v_old), pg_column_size(v_new)) > {small} THEN
    IF greatest(pg_column_size(v_old), pg_column_size(v_new)) > {small}
       AND greatest(octet_length(v_old::text), octet_length(v_new::text)) > {longest} THEN{safe}
    END IF;
    v_schema := nullif(TG_ARGV[1], '');
    v_table := nullif(TG_ARGV[2], '');
    IF TG_ARGV[3] <> '{}' OR TG_ARGV[4] <> '{}' THEN
      IF TG_OP = 'UPDATE' THEN
        v_hidden := {schema}.hidden_changes({old}, {new}, TG_ARGV[3]::text[]);
      END IF;
      v_old := {schema}.mask(v_old, TG_ARGV[3]::text[], TG_ARGV[4]::text[]);
      v_new := {schema}.mask(v_new, TG_ARGV[3]::text[], TG_ARGV[4]::text[]);
    END IF;
    v_record := CASE WHEN TG_NARGS > 5 THEN {schema}.composite_key(coalesce(v_new, v_old), TG_ARGV[5:])
      ELSE coalesce(v_new, v_old) ->> TG_ARGV[0] END;
    IF octet_length(v_record) > {longest_key} THEN
      v_record := {schema}.indexable(v_record);
    END IF;
  END IF;
"""

#: The longest key that is stored as it is, in bytes, so that the index takes it (a third of a page).
_LONGEST_KEY = Literal(2000)

#: What a record calls the table.
_TABLE = sql("coalesce(v_schema, TG_TABLE_SCHEMA), coalesce(v_table, TG_TABLE_NAME)")
#: The same where the variables may not be set yet.
_NAMED = sql("coalesce(nullif(TG_ARGV[1], ''), TG_TABLE_SCHEMA), coalesce(nullif(TG_ARGV[2], ''), TG_TABLE_NAME)")

# jsonb calls 1.0 and 1.00 equal, hence the text.
_ROW_LEFT_OUT = """
  v_old := {old};
  v_new := {new};
  IF TG_OP = 'UPDATE' AND v_old = v_new AND v_old::text = v_new::text AND v_hidden IS NULL THEN
    RETURN NULL;
  END IF;
"""

_ROW_CHANGED_ONLY = """
  IF TG_OP = 'UPDATE' THEN
    v_new := {schema}.difference(v_old, v_new, v_hidden);
  END IF;
"""

_INSERT = """
  INSERT INTO {schema}.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, record_id,
    old_values, new_values, hidden_changes, changed_by, db_user, client_ip, application_name, context, policy_id)
"""

_WHO = """coalesce(v_user, session_user), session_user, coalesce(v_client, inet_client_addr()),
    current_setting('application_name'), v_context, {policy_id}"""

_ROW_INSERT = (
    _INSERT
    + """  VALUES (clock_timestamp(), pg_current_xact_id(), TG_OP, {table}, v_record,
    v_old, v_new, v_hidden, {who});
"""
)

# OFFSET 0 keeps the planner from computing an image once for every place it is used in.
_STATEMENT_INSERT = (
    """
  {branch} TG_OP = {operation} THEN"""
    + _INSERT
    + """  SELECT clock_timestamp(), pg_current_xact_id(), TG_OP, v_schema, v_table,
    CASE WHEN octet_length({key}) > {longest_key} THEN {schema}.indexable({key}) ELSE {key} END,
    {old_values}, {new_values}, r.hidden, {who}
  FROM ({rows}
    OFFSET 0
  ) AS r
  WHERE {bounded}{filter};"""
)

_STATEMENT_KEY = """CASE WHEN v_columns IS NULL THEN coalesce(r.new_full, r.old_full) ->> v_key
      ELSE {schema}.composite_key(coalesce(r.new_full, r.old_full), v_columns) END"""

# Always true, unless it raises.
_STATEMENT_BOUNDED = """(r.{image} IS NULL OR pg_column_size(r.{image}) <= {small}
         OR {schema}.bounded(r.{image}) IS NOT NULL)"""

# What is the same for all rows is computed once; a client's address alone costs microseconds.
_STATEMENT_WHO = "coalesce(v_user, v_session), v_session, v_address, v_program, v_context, {policy_id}"

_STATEMENT_DECLARE = """
  v_session  CONSTANT text := session_user;
  v_program  CONSTANT text := current_setting('application_name');
  v_address  inet;
  v_key      CONSTANT text := TG_ARGV[0];
  v_columns  CONSTANT text[] := nullif(TG_ARGV[5:], '{}');
  v_redacted CONSTANT text[] := coalesce(TG_ARGV[3], '{}');
  v_hashed   CONSTANT text[] := coalesce(TG_ARGV[4], '{}');
  v_masked   CONSTANT boolean := v_redacted <> '{}' OR v_hashed <> '{}';
  v_safe     boolean := false;
"""

# The transition tables hold old and new rows in the same order, which is what pairs them: a key may be missing, or be
# what was changed. Rows become columns of our own first (coalesce, because a plain t.* would be spread out): next to
# the table's columns, one that has the name of an alias or of a variable would be taken for it.
_STATEMENT_ROWS = {
    "INSERT": """
    SELECT NULL::jsonb AS old_full, {new} AS new_full, NULL::text[] AS hidden
    FROM (SELECT coalesce(t.*) AS n FROM new_rows AS t) AS b""",
    "UPDATE": """
    SELECT {old} AS old_full, {new} AS new_full,
      CASE WHEN v_redacted <> '{}' THEN {schema}.hidden_changes({old_plain}, {new_plain}, v_redacted) END AS hidden
    FROM (SELECT row_number() OVER () AS position, coalesce(t.*) AS o FROM old_rows AS t) AS a
    JOIN (SELECT row_number() OVER () AS position, coalesce(t.*) AS n FROM new_rows AS t) AS b USING (position)
    WHERE NOT o *= n""",
    "DELETE": """
    SELECT {old} AS old_full, NULL::jsonb AS new_full, NULL::text[] AS hidden
    FROM (SELECT coalesce(t.*) AS o FROM old_rows AS t) AS a""",
}

_STATEMENT_TRUNCATE = (
    """
  ELSE"""
    + _INSERT
    + """  VALUES (clock_timestamp(), pg_current_xact_id(), TG_OP, v_schema, v_table, NULL,
    NULL, NULL, NULL, {who});
  END IF;
"""
)

_STATEMENT_IMAGE = "CASE WHEN v_safe THEN {schema}.safe_image({row}) ELSE to_jsonb({row}) END"
_STATEMENT_MASK = "CASE WHEN v_masked THEN {schema}.mask({image}, v_redacted, v_hashed) ELSE {image} END"

# One row that jsonb cannot hold sends the whole statement round a second time, the safe and slow way.
_STATEMENT_BODY = """
  v_schema := coalesce(nullif(TG_ARGV[1], ''), TG_TABLE_SCHEMA);
  v_table := coalesce(nullif(TG_ARGV[2], ''), TG_TABLE_NAME);
  v_address := coalesce(v_client, inet_client_addr());
  LOOP
    BEGIN{inserts}      EXIT;
    EXCEPTION WHEN program_limit_exceeded OR data_exception OR internal_error THEN
      IF v_safe THEN
        RAISE;
      END IF;
      v_safe := true;
    END;
  END LOOP;
"""

# The write goes through, and that its record is missing is itself on record, or, should that fail as well, in the
# server's log and the client's hands.
_WARN = """
  BEGIN{capture}  EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
    RAISE WARNING 'audit: % on %.% was not recorded: % (%)', TG_OP, {named}, v_message, v_state;
    BEGIN
      INSERT INTO {schema}.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, new_values,
        changed_by, db_user, client_ip, application_name, policy_id)
      VALUES (clock_timestamp(), pg_current_xact_id(), 'EVENT', {named},
        jsonb_build_object('event', 'audit_failure', 'operation', TG_OP, 'sqlstate', v_state, 'error', v_message),
        session_user, session_user, inet_client_addr(), current_setting('application_name'), {policy_id});
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING 'audit: nor could the failure be recorded: %', SQLERRM;
    END;
  END;
"""


def capture_name(policy: Policy) -> str:
    """Return the name of a policy's function: readable, and the same for as long as the policy keeps its name."""
    slug = re.sub(r"[^a-z0-9]+", "_", policy.name.lower()).strip("_")[:32].rstrip("_")
    digest = hashlib.sha256(f"{_LAYOUT} {policy.name}".encode()).hexdigest()[:8]
    # The two kinds read different things, so that a trigger of the one must never meet a function of the other.
    kind = "" if policy.capture == "row" else "statement_"
    return f"{_PREFIX}{kind}{slug}_{digest}" if slug else f"{_PREFIX}{kind}{digest}"


def is_capture(function: str) -> bool:
    """Tell such names; one that only begins like them is somebody else's."""
    return bool(re.fullmatch(_PREFIX + r"([a-z0-9_]+_)?[0-9a-f]{8}", function))


def capture_function(
    policy: Policy, policy_id: int, schema: str, silence_pgaudit: bool, owners: Sequence[str] = ()
) -> Function:
    """Return the capture function of a policy version.

    :param owners: owners of its partitioned tables: whoever adds a partition needs EXECUTE on the functions whose
        triggers it inherits. No other trigger can be made with it, the guard on DDL sees to that.
    """
    place: dict[str, Any] = {"schema": Identifier.of(schema), "policy_id": Literal(policy_id), "table": _TABLE}
    place["who"] = sql(_WHO if policy.capture == "row" else _STATEMENT_WHO, **place)
    place.update(IMAGE_LIMITS, longest_key=_LONGEST_KEY)
    work = _row_body(policy, place) if policy.capture == "row" else _statement_body(policy, place)
    same = sql(_ROW_SAME if policy.capture == "row" else "")
    capture = Joined("", (same, sql(_CONTEXT, **place), work))
    if policy.on_failure == "warn":
        capture = sql(_WARN, capture=capture, named=_NAMED, **place)
    body = Joined("", (_declarations(policy), sql("BEGIN"), capture, sql("  RETURN NULL;\nEND\n")))
    settings = (*_PINNED, _PGAUDIT_SILENT) if silence_pgaudit else _PINNED
    return Function(
        capture_name(policy),
        sql("{body}", body=body),
        definer=True,
        owner=WRITER,
        settings=settings,
        executors=tuple(owners),
    )


def _declarations(policy: Policy) -> Sql:
    lines = _DECLARE
    if policy.capture == "row":
        lines += "  v_old      jsonb;\n  v_new      jsonb;\n  v_hidden   text[];\n  v_record   text;\n"
    else:
        lines += _STATEMENT_DECLARE.lstrip("\n")
    if policy.on_failure == "warn":
        lines += "  v_state    text;\n  v_message  text;\n"
    return sql(lines)


def _require(policy: Policy, place: dict[str, Any]) -> Sql:
    """Refuse what has a record but no context, or warn of it; what leaves nothing to record needs none."""
    if not policy.require_context:
        return sql("")
    user, client = "v_user IS NULL", "v_client IS NULL"
    variables = {"changed_by": user, "user": user, "client_ip": client, "ip_address": client}
    tests = tuple(
        sql(variables[key]) if key in variables else sql("v_context ->> {key} IS NULL", key=Literal(key))
        for key in policy.require_context
    )
    return sql(
        _REQUIRE,
        condition=sql("" if policy.capture == "row" else "FOUND AND "),
        missing=Joined(" OR ", tests),
        keys=sql(", ".join(policy.require_context)),
        level=sql("WARNING" if policy.on_failure == "warn" else "EXCEPTION"),
        **place,
    )


def _row_body(policy: Policy, place: dict[str, Any]) -> Joined:
    old, new = (_left_out(policy, image, place) for image in (sql("v_old"), sql("v_new")))
    safe = sql(_ROW_SAFE_IMAGES, **place)
    parts = [sql(_ROW_IMAGES, safe=safe), sql(_ROW_KEY, safe=safe, old=old, new=new, **place)]
    if policy.only or policy.excluded_columns:
        parts.append(sql(_ROW_LEFT_OUT, old=old, new=new))
    if policy.update_image == "changed":
        parts.append(sql(_ROW_CHANGED_ONLY, **place))
    parts += [_require(policy, place), sql(_ROW_INSERT, **place)]
    return Joined("", tuple(parts))


def _statement_body(policy: Policy, place: dict[str, Any]) -> Joined:
    raw = {name: sql(_STATEMENT_IMAGE, row=sql(name[0]), **place) for name in ("old", "new")}
    images = {name: sql(_STATEMENT_MASK, image=image, **place) for name, image in raw.items()}
    old, new = (_left_out(policy, sql(column), place) for column in ("r.old_full", "r.new_full"))
    changed = sql("{schema}.difference({old}, {new}, r.hidden)", old=old, new=new, **place)
    left_out = policy.only or policy.excluded_columns
    plain = {f"{name}_plain": _left_out(policy, image, place) for name, image in raw.items()}
    silent = sql("\n    AND (({old})::text <> ({new})::text OR r.hidden IS NOT NULL)", old=old, new=new)
    place["key"] = sql(_STATEMENT_KEY, **place)
    images_of = {"INSERT": ("new_full",), "UPDATE": ("old_full", "new_full"), "DELETE": ("old_full",)}
    branches = []
    for operation, rows in _STATEMENT_ROWS.items():
        update = operation == "UPDATE"
        branches.append(
            sql(
                _STATEMENT_INSERT,
                branch=sql("ELSIF" if branches else "IF"),
                operation=Literal(operation),
                old_values=old,
                new_values=changed if update and policy.update_image == "changed" else new,
                rows=sql(rows, **images, **plain, **place),
                bounded=Joined(
                    "\n    AND ",
                    tuple(sql(_STATEMENT_BOUNDED, image=sql(image), **place) for image in images_of[operation]),
                ),
                filter=silent if update and left_out else sql(""),
                **place,
            )
        )
    inserts = Joined("", (*branches, sql(_STATEMENT_TRUNCATE, **place)))
    return Joined("", (sql(_STATEMENT_BODY, inserts=inserts), _require(policy, place)))


def _left_out(policy: Policy, image: Sql, place: dict[str, Any]) -> Sql:
    if policy.only:
        return sql("{schema}.pick({image}, {columns})", image=image, columns=Literal(list(policy.only)), **place)
    if policy.excluded_columns:
        return sql("({image}) - {columns}", image=image, columns=Literal(list(policy.excluded_columns)))
    return image
