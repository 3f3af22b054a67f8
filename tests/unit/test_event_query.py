# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is asked of the log is understood exactly, or refused with the option's name."""

from __future__ import annotations

import re
import typing as t
from datetime import datetime, timedelta, timezone

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core import event_sql
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.event_query import (
    EVENTS_SPEC,
    EventQuery,
    Position,
    parse_query,
    parse_time,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)
DIALECT = event_sql.Dialect(columns="e.id", value="%(value_{n})s IN (e.old ->> %(key_{n})s)", key=str)


def query(**options: t.Any) -> EventQuery:
    defaults = {name: entry.get("default") for name, entry in EVENTS_SPEC.items()}
    return parse_query({**defaults, **options}, NOW)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-01", utc(2026, 11, 1)),
        ("2026-11-01Z", utc(2026, 11, 1)),
        ("2026-11-01T08:30", utc(2026, 11, 1, 8, 30)),
        ("2026-11-01 08:30:15", utc(2026, 11, 1, 8, 30, 15)),
        ("2026-11-01t08:30:15.5z", utc(2026, 11, 1, 8, 30, 15, 500000)),
        ("2026-11-01T08:30:15.123456Z", utc(2026, 11, 1, 8, 30, 15, 123456)),
        ("2026-11-01T08:30:00+01:00", utc(2026, 11, 1, 7, 30)),
        ("2026-11-01T08:30:00-0530", utc(2026, 11, 1, 14)),
        ("2026-11-01 08:30:00 +02", utc(2026, 11, 1, 6, 30)),
        ("2026-11-01 08:30:00+00:30", utc(2026, 11, 1, 8)),
        (" 90m ", NOW - timedelta(minutes=90)),
        ("24h", NOW - timedelta(days=1)),
        ("7d", NOW - timedelta(days=7)),
        ("2w", NOW - timedelta(days=14)),
        ("30 s", NOW - timedelta(seconds=30)),
    ],
)
def test_a_time_is_a_moment_in_utc(text, moment):
    assert parse_time("since", text, NOW) == moment


@pytest.mark.parametrize(
    "text",
    [
        *("yesterday", "2026", "01.11.2026", "2026-13-01", "2026-02-30", "2026-11-01T25:00"),
        *("2026-11-01T08:30.5", "2026-11-01T08:30:00.1234567", "0001-01-01T00:00+14:00"),
        *("7", "7y", "-7d", "1d12h", "999999999999999d", "٣d"),
    ],
)
def test_what_is_no_time_is_refused_by_the_options_name(text):
    with pytest.raises(AuditError, match=f"until: {re.escape(repr(text))} is no time"):
        query(until=text)


def test_a_range_must_hold_something():
    assert query(since="2026-11-01", until="2026-11-02").conditions == {
        "since": utc(2026, 11, 1),
        "until": utc(2026, 11, 2),
    }
    for since in ("2026-11-02", "2026-11-03", "1h"):
        with pytest.raises(AuditError, match="is not before until"):
            query(since=since, until="2026-11-02")


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("users", {"table_name": "users"}),
        ("public.users", {"schema_name": "public", "table_name": "users"}),
        ("public.odd.name", {"schema_name": "public", "table_name": "odd.name"}),
    ],
)
def test_a_table_is_named_with_or_without_its_schema(text, conditions):
    assert query(table=text).conditions == conditions


def test_actions_are_read_in_any_case_and_once():
    assert query(actions=["delete", "Delete", "INSERT"]).conditions == {"actions": ("DELETE", "INSERT")}


def test_values_are_texts_as_json_has_them():
    values = {"id": 17, "price": "1.10", "rate": 0.5, "active": True}
    assert query(values=values).values == {"id": "17", "price": "1.10", "rate": "0.5", "active": "true"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"actions": ["insert", "read"]}, "actions: 'read' is none that the log records: INSERT, UPDATE"),
        ({"limit": 0}, "limit: 0 is not between 1 and 10000"),
        ({"limit": 10001}, "limit: 10001 is not between 1 and 10000"),
        ({"after": "4711"}, "after: '4711' is no cursor"),
        ({"after": "2026-11-21T19:03:07.123456Z"}, "is no cursor"),
        ({"after": "2026-13-21T19:03:07.123456Z,1"}, "after: .* is no time"),
        ({"values": {"id": None}}, "values: 'id' must be a text, a number or a boolean, and is None"),
        ({"values": {"id": [1]}}, "values: 'id' must be"),
        ({"table": ".users"}, "table: '.users' names no table"),
        ({"table": "public."}, "table: 'public.' names no table"),
        *(({name: ""}, f"{name}: is empty") for name in ("table", "record_id", "changed_by", "since", "after", "dest")),
        ({"actions": []}, "actions: is empty"),
        ({"values": {}}, "values: is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(options, words):
    with pytest.raises(AuditError, match=words):
        query(**options)


def test_a_cursor_stands_for_an_event_and_is_read_back():
    text = Position.of({"changed_at": "2026-11-21T19:03:07.123456Z", "id": 4711})
    assert text == "2026-11-21T19:03:07.123456Z,4711"
    assert Position.parse(text) == Position(utc(2026, 11, 21, 19, 3, 7, 123456), 4711)


@pytest.mark.parametrize(("order", "sign"), [("asc", ">"), ("desc", "<")])
def test_a_page_begins_behind_the_cursor_by_time_and_id(order, sign):
    text, parameters = event_sql.select(DIALECT, '"audit"."log"', query(after="2026-11-21T00:00:00Z,7", order=order))
    assert f"WHERE e.changed_at {sign}= %(after_time)s AND (e.changed_at, e.id) {sign} (" in text
    assert f"ORDER BY e.changed_at {order.upper()}, e.id {order.upper()}" in text
    assert parameters == {"after_time": utc(2026, 11, 21), "after_id": 7, "limit": 100}


def test_everything_that_was_given_is_bound_and_nothing_of_it_is_text_of_the_query():
    odd = "x' OR 1=1; %s %(a)s {log} --"
    options = {"table": f"{odd}.{odd}", "record_id": odd, "changed_by": odd, "values": {odd: odd}}
    text, parameters = event_sql.select(DIALECT, '"audit"."log"', query(**options))
    assert odd not in text
    bound = text % dict.fromkeys(parameters, "?")
    assert bound.count("?") == len(parameters) == 7


def test_a_count_looks_at_all_pages_and_a_percent_sign_in_a_name_is_no_place():
    text, parameters = event_sql.count(DIALECT, '"au%dit"."log"', query(after="2026-11-21T00:00:00Z,7"))
    assert " ".join((text % parameters).split()) == 'SELECT COUNT(*) AS total FROM "au%dit"."log" AS e WHERE TRUE'
