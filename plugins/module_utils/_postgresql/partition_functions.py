# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Partitions ahead of time, decided in the server so that a host's timer and a playbook run the same code."""

from __future__ import annotations

from .._core.sql import Identifier, Literal, Sql, sql
from .function import PLAIN_STRINGS, SAFE_PATH, Function
from .roles import OWNER
from .session import LOCK_HOLDERS, LOCK_PLACES, LOCK_WAIT

INTERVALS = ("month", "week", "day")
DEFAULT_INTERVAL = "month"
DEFAULT_AHEAD = 3

#: The names of the rows of the setting table that maintain_partitions() follows.
INTERVAL_SETTING = "partition_interval"
AHEAD_SETTING = "partition_ahead"

_DECLARATIONS = """
  v_log        CONSTANT text := {schema_text};
  v_step       CONSTANT interval := ('1 ' || period)::interval;
  v_start      timestamptz;
  v_end        timestamptz;
  v_horizon    timestamptz;
  v_next       timestamptz;
  v_first_row  timestamptz;
  v_name       text;
  v_has_future boolean;
  v_predicted  boolean;
  v_moving     boolean := to_regclass(format('%I.audit_log_moving', v_log)) IS NOT NULL;
  v_leaves     jsonb := '[]';
  v_attach     jsonb := '[]';
  v_move       jsonb;
  v_plan       jsonb := '[]';
"""

# A period's name and bounds are those of UTC, whatever the session's time zone. The catch-all is swapped for the new
# periods and a new catch-all in one transaction; rows that it held move over, with their ids, in the next.
_PLAN = """
  SELECT true, nullif(substring(pg_get_expr(c.relpartbound, c.oid) FROM 'FROM \\(''?([^'')]+)'),
                      'MINVALUE')::timestamptz
  INTO v_has_future, v_start
  FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
  WHERE i.inhparent = to_regclass(format('%I.audit_log_data', v_log)) AND c.relname = 'audit_log_future';
  -- Check mode before the first rollout: the trail that is to come has one catch-all for everything.
  v_predicted := to_regclass(format('%I.audit_log_data', v_log)) IS NULL;
  v_has_future := coalesce(v_has_future, v_predicted);
  IF v_has_future AND NOT v_predicted THEN
    EXECUTE format('SELECT min(changed_at) FROM %I.audit_log_future', v_log) INTO v_first_row;
  END IF;
  v_next := coalesce(v_start, date_trunc(period, least(at, v_first_row)));
  v_horizon := date_trunc(period, at) + (ahead + 1) * v_step;

  IF v_start IS NULL THEN
    v_leaves := v_leaves || to_jsonb('audit_log_past'::text);
    v_attach := v_attach || jsonb_build_object('sql', format(
      'ALTER TABLE %1$I.audit_log_data ATTACH PARTITION %1$I.audit_log_past FOR VALUES FROM (MINVALUE) TO (%2$L)',
      v_log, v_next), 'reason', 'a place for rows from before the first period');
  END IF;
  WHILE v_next < v_horizon LOOP
    v_end := date_trunc(period, v_next) + v_step;
    v_name := 'audit_log_' || to_char(v_next, CASE period
      WHEN 'month' THEN 'YYYY_MM' WHEN 'week' THEN 'IYYY_"w"IW' ELSE 'YYYY_MM_DD' END);
    v_leaves := v_leaves || to_jsonb(v_name);
    v_attach := v_attach || jsonb_build_object('sql', format(
      'ALTER TABLE %1$I.audit_log_data ATTACH PARTITION %1$I.%2$I FOR VALUES FROM (%3$L) TO (%4$L)',
      v_log, v_name, v_next, v_end), 'reason', format('the period from %s', v_next::date));
    v_next := v_end;
  END LOOP;

  IF jsonb_array_length(v_attach) > 0 THEN
    IF v_first_row IS NOT NULL OR NOT v_has_future THEN
      v_leaves := v_leaves || to_jsonb('audit_log_future'::text);
    END IF;
    v_plan := jsonb_build_array(
      jsonb_build_object('sql', format('SET LOCAL ROLE %I', {owner}),
                         'reason', 'new partitions belong to the owner of the log'),
      jsonb_build_object('sql', format(
        'SELECT pg_catalog.set_config(''default_tablespace'', coalesce(max(t.spcname), ''''), true) '
        'FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_tablespace AS t ON t.oid = c.reltablespace '
        'WHERE c.oid = pg_catalog.to_regclass(%L)', format('%I.audit_log_data', v_log)),
        'reason', 'new partitions, and their indexes, go to the tablespace of the log'));
    IF v_has_future THEN
      v_plan := v_plan || jsonb_build_object('sql', format(
        'ALTER TABLE %1$I.audit_log_data DETACH PARTITION %1$I.audit_log_future', v_log),
        'reason', 'the catch-all gives way to the new periods');
    END IF;
    IF v_first_row IS NOT NULL THEN
      v_plan := v_plan || jsonb_build_object('sql', format(
        'ALTER TABLE %I.audit_log_future RENAME TO audit_log_moving', v_log),
        'reason', 'the rows of the catch-all wait for their periods');
    END IF;
    SELECT v_plan || coalesce(jsonb_agg(
             jsonb_build_object('sql', s.text, 'reason', s.reason, 'problem', CASE s.nr WHEN 1 THEN 'missing' END)
             ORDER BY l.nr, s.nr), '[]')
    INTO v_plan
    FROM jsonb_array_elements_text(v_leaves) WITH ORDINALITY AS l (name, nr)
    CROSS JOIN LATERAL (VALUES
      (1, format('CREATE TABLE %1$I.%2$I (LIKE %1$I.audit_log_data INCLUDING ALL)', v_log, l.name),
          format('partition %s is missing', l.name)),
      (2, format('CREATE TRIGGER dbfleet_audit_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON %1$I.%2$I '
                 'FOR EACH STATEMENT EXECUTE FUNCTION %1$I.refuse_change()', v_log, l.name),
          format('partition %s refuses changes', l.name)),
      (3, format('ALTER TABLE %I.%I ENABLE ALWAYS TRIGGER dbfleet_audit_guard', v_log, l.name),
          format('partition %s refuses changes from replicas too', l.name))
    ) AS s (nr, text, reason);
    v_plan := v_plan || v_attach || jsonb_build_object('sql', format(
      'ALTER TABLE %1$I.audit_log_data ATTACH PARTITION %1$I.audit_log_future FOR VALUES FROM (%2$L) TO (MAXVALUE)',
      v_log, v_next), 'reason', 'the catch-all begins after the last period');
    v_plan := jsonb_build_array(jsonb_build_object('subject', 'partitions', 'statements', v_plan));
  END IF;

  v_move := jsonb_build_object('subject', 'rows of the catch-all', 'statements', jsonb_build_array(
    jsonb_build_object('sql', format('INSERT INTO %1$I.audit_log_data SELECT * FROM %1$I.audit_log_moving', v_log),
                       'reason', 'rows of the catch-all move into their periods, with their ids',
                       'problem', 'missing'),
    jsonb_build_object('sql', format('DROP TABLE %I.audit_log_moving', v_log), 'reason', 'every row of it has moved')));
  IF v_moving THEN
    v_plan := v_move || v_plan;
  END IF;
  IF v_first_row IS NOT NULL AND jsonb_array_length(v_attach) > 0 THEN
    v_plan := v_plan || v_move;
  END IF;
"""

# Commits between the transactions of the plan, as the module does: the swap must not wait for the rows to move.
_MAINTAIN = """
DECLARE
  v_plan jsonb;
BEGIN
  IF pg_catalog.pg_is_in_recovery() THEN
    RETURN;
  END IF;
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
          pg_catalog.set_config('lock_timeout', coalesce(nullif(pg_catalog.current_setting('lock_timeout'), '0'),
                                                         {lock_wait}), true);
  BEGIN
    PERFORM pg_catalog.pg_advisory_lock({lock_class}, {lock_object});
  EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'audit: no partitions were made: another run is changing this database: %', ({lock_holders})
      USING ERRCODE = 'lock_not_available', HINT = 'Wait for it to end, or end it if it is none.';
  END;
  v_plan := {schema}.partition_plan(
    (SELECT value FROM {schema}.setting WHERE name = {interval_setting}),
    (SELECT value::int FROM {schema}.setting WHERE name = {ahead_setting}),
    at);
  FOR i IN 0 .. jsonb_array_length(v_plan) - 1 LOOP
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
            pg_catalog.set_config('lock_timeout', '2s', true);
    FOR j IN 0 .. jsonb_array_length(v_plan -> i -> 'statements') - 1 LOOP
      RAISE NOTICE '%', v_plan -> i -> 'statements' -> j ->> 'reason';
      EXECUTE v_plan -> i -> 'statements' -> j ->> 'sql';
    END LOOP;
    COMMIT;
  END LOOP;
  PERFORM pg_catalog.pg_advisory_unlock({lock_class}, {lock_object});
END
"""

_PROBE = """
DO $dbfleet$
DECLARE
  period CONSTANT text := {period};
  ahead  CONSTANT int := {ahead};
  at     CONSTANT timestamptz := {at};
{declarations}
BEGIN
  PERFORM set_config('TimeZone', 'UTC', true);
{plan}
  PERFORM set_config('dbfleet.partitions', v_plan::text, false);
END
$dbfleet$
"""


def _places(schema: str) -> dict[str, Literal]:
    return {"schema_text": Literal(schema), "owner": Literal(OWNER)}


def partition_functions(schema: str) -> list[Function]:
    """Return the plan as a function, and the procedure that a timer calls."""
    places = _places(schema)
    body = sql("\nDECLARE" + _DECLARATIONS + "BEGIN" + _PLAN + "  RETURN v_plan;\nEND\n", **places)
    maintain = sql(
        _MAINTAIN,
        schema=Identifier.of(schema),
        lock_wait=Literal(LOCK_WAIT),
        lock_holders=sql(LOCK_HOLDERS, **LOCK_PLACES),
        **LOCK_PLACES,
        interval_setting=Literal(INTERVAL_SETTING),
        ahead_setting=Literal(AHEAD_SETTING),
    )
    return [
        Function(
            "partition_plan",
            body,
            "period text, ahead int, at timestamptz",
            "jsonb",
            settings=(SAFE_PATH, PLAIN_STRINGS, ("TimeZone", "UTC")),
        ),
        Function(
            "maintain_partitions", maintain, "at timestamptz DEFAULT clock_timestamp()", procedure=True, settings=()
        ),
    ]


def partition_probe(schema: str, period: str, ahead: int) -> Sql:
    """Return a DO block that leaves the plan in the setting `dbfleet.partitions`; it needs no trail to be there."""
    places = _places(schema)
    return sql(
        _PROBE,
        period=Literal(period),
        ahead=Literal(ahead),
        at=sql("clock_timestamp()"),
        declarations=sql(_DECLARATIONS, **places),
        plan=sql(_PLAN, **places),
    )
