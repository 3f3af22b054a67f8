# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Partitions ahead of time, decided by one query: a playbook, the event scheduler and a host's timer all ask it."""

from __future__ import annotations

import re
from datetime import date

from .._core.sql import Identifier, Literal, Sql, sql

INTERVALS = ("month", "week", "day")
DEFAULT_INTERVAL = "month"
DEFAULT_AHEAD = 3

#: The names of the rows of the setting table that maintain_partitions() follows.
INTERVAL_SETTING = "partition_interval"
AHEAD_SETTING = "partition_ahead"

#: The names that partitions are made with, and those of the tables that they are exchanged with.
PERIOD_NAME = re.compile(r"(?:p|audit_log_)\d{4}_(?:\d\d|w\d\d|\d\d_\d\d)")

# Periods are those of UTC. The catch-all is divided while it is empty, ahead of time; rows that it holds move into
# their periods, while writers wait. Before the first period there is a place for rows with an older time.
_STATEMENT = """(
  WITH RECURSIVE known AS (
    SELECT MAX(IF(p.partition_description = 'MAXVALUE', NULL,
                  CAST(REPLACE(p.partition_description, x'27', '') AS DATETIME))) AS last
    FROM information_schema.partitions AS p
    WHERE p.table_schema = {schema_name} AND p.table_name = {table_name}
  ), bounds AS (
    SELECT k.last, CAST(COALESCE(k.last, {start}) AS DATETIME) AS first, {horizon} AS horizon
    FROM known AS k
  ), periods AS (
    SELECT b.last, b.first, b.first AS starts, {first_end} AS ends, b.horizon
    FROM bounds AS b
    WHERE b.first < b.horizon
    UNION ALL
    SELECT p.last, p.first, p.ends, {next_end}, p.horizon
    FROM periods AS p
    WHERE p.ends < p.horizon
  )
  SELECT CONCAT('ALTER TABLE {table} REORGANIZE PARTITION `p_future` INTO (',
    IF(MAX(p.last) IS NULL, CONCAT('PARTITION `p_past` VALUES LESS THAN (', QUOTE(MIN(p.first)), '), '), ''),
    GROUP_CONCAT(CONCAT('PARTITION `', DATE_FORMAT(p.starts, {format}), '` VALUES LESS THAN (', QUOTE(p.ends), ')')
                 ORDER BY p.starts SEPARATOR ', '),
    ', PARTITION `p_future` VALUES LESS THAN (MAXVALUE))')
  FROM periods AS p
)"""

# The beginning of the period that a moment is in, the end of one that begins then, its name.
_TRUNCATED = """CASE {period}
      WHEN 'month' THEN CAST(DATE_FORMAT({moment}, '%Y-%m-01') AS DATETIME)
      WHEN 'week' THEN CAST(DATE({moment}) - INTERVAL WEEKDAY({moment}) DAY AS DATETIME)
      ELSE CAST(DATE({moment}) AS DATETIME) END"""
_LATER = """CASE {period}
      WHEN 'month' THEN {moment} + INTERVAL {count} MONTH
      WHEN 'week' THEN {moment} + INTERVAL {count} WEEK
      ELSE {moment} + INTERVAL {count} DAY END"""
_FORMAT = "CASE {period} WHEN 'month' THEN 'p%Y_%m' WHEN 'week' THEN 'p%x_w%v' ELSE 'p%Y_%m_%d' END"


def first_day(name: str) -> str:
    """Return the first day of the period that a partition is named after.

    The server knows only where a partition ends. The oldest one takes what is older as well, once those before it have
    been dropped; and one that follows a change of the interval may begin later than what it is named after.
    """
    year, *rest = name[1:].split("_")
    if rest[0].startswith("w"):
        return date.fromisocalendar(int(year), int(rest[0][1:]), 1).isoformat()
    return date(int(year), *map(int, (*rest, "1")[:2])).isoformat()


def partition_statement(schema: str, table: str, period: Sql, ahead: Sql, at: Sql) -> Sql:
    """Return an expression for the statement that makes what is due at a moment in UTC, or NULL.

    :param period: an expression for one of :data:`INTERVALS`.
    :param ahead: an expression for the number of whole periods to have ready after the current one.
    """

    def truncated(moment: Sql) -> Sql:
        return sql(_TRUNCATED, period=period, moment=moment)

    def later(moment: Sql, count: Sql) -> Sql:
        return sql(_LATER, period=period, moment=moment, count=count)

    one = sql("1")
    return sql(
        _STATEMENT,
        schema_name=Literal(schema),
        table_name=Literal(table),
        table=Identifier.of(schema, table),
        start=truncated(at),
        horizon=later(truncated(at), sql("({ahead} + 1)", ahead=ahead)),
        first_end=later(truncated(sql("b.first")), one),
        next_end=later(sql("p.ends"), one),
        format=sql(_FORMAT, period=period),
    )
