# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What takes a record back, decided from its changes and from how it is now."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.undo import (
    Change,
    Found,
    Restoration,
    Skip,
    UndoColumn,
    UndoTable,
    restore,
    trace,
)
from ansible_collections.dbfleet.audit.plugins.module_utils._core.undo_module import parse_undo
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.column import Column
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.undo_value import (
    image_of,
    literal,
    masked,
    members,
    same,
)

NOW = datetime.datetime(2026, 11, 21, 19, 0, tzinfo=datetime.timezone.utc)
TABLE = UndoTable("public", "users", tuple(UndoColumn(name, "text") for name in ("id", "name", "age")), ("id",), True)


class Plain:
    """Writes SQL without quotes."""

    insert_hint = ""
    preamble = ()

    def identifier(self, *parts: str) -> str:
        return ".".join(parts)

    def relation(self, table: UndoTable) -> str:
        return table.name

    def matches(self, column: UndoColumn, literal: str) -> str:
        return f"{column.name} is {literal}"

    def literal(self, value: t.Any) -> str:
        return repr(value)


def change(number: int, action: str, record: str | None = "1", /, **more: t.Any) -> Change:
    values: dict[str, t.Any] = {
        "key": f"[{record}]",
        "wanted": True,
        "moved": False,
        "changed_by": "ann",
        "changed_at": f"T{number}",
        "image": dict.fromkeys(("id", "name", "age")),
        "changed_columns": (),
        "last_id": number,
        **more,
    }
    return Change(number, record, action, **values)


def other(number: int, action: str, **more: t.Any) -> Change:
    """Return a change of somebody else's, which is to stay."""
    return change(number, action, wanted=False, changed_by="bob", **more)


def undone(*changes: Change, found: Found, whole: bool = True) -> tuple[list[Restoration], list[Skip]]:
    """Return what undoes the changes of one record, and why it is skipped."""
    targets, skipped = trace(changes, TABLE, whole)
    done, kept = restore(targets, [found] * len(targets), TABLE, Plain())
    return done, skipped + kept


GONE = Found(False, {"id": "1"}, {"id": "1", "name": "'a'", "age": "3"}, {})
SAME = Found(True, {"id": "1"}, {}, {})
RENAMED = Found(True, {"id": "1"}, {"name": "'a'"}, {"name": "'b'"})


@pytest.mark.parametrize(
    ("first", "found", "now", "statement"),
    [
        ("UPDATE", RENAMED, "changed", "UPDATE users\nSET name = 'a'\nWHERE id is 1\n  AND name is 'b';"),
        ("UPDATE", GONE, "deleted", "INSERT INTO public.users (id, name, age)\nVALUES (1, 'a', 3);"),
        ("DELETE", GONE, "deleted", "INSERT INTO public.users (id, name, age)\nVALUES (1, 'a', 3);"),
        ("DELETE", RENAMED, "changed", "UPDATE users\nSET name = 'a'\nWHERE id is 1\n  AND name is 'b';"),
        ("INSERT", RENAMED, "inserted", "DELETE FROM users\nWHERE id is 1\n  AND name is 'b';"),
    ],
)
def test_the_first_change_says_what_the_record_was(first, found, now, statement):
    (done,), skipped = undone(change(5, first), found=found)
    assert (done.now, done.statement, skipped) == (now, statement, [])


@pytest.mark.parametrize(("wanted", "value"), [({"name": "'a'"}, "at"), ({"at": "'t'", "name": "'a'"}, "'t'")])
def test_a_column_that_every_update_renews_is_named_in_it(wanted, value):
    table = dataclasses.replace(TABLE, columns=(*TABLE.columns, UndoColumn("at", "timestamp", renewed=True)))
    targets, _skipped = trace([change(5, "UPDATE", changed_columns=tuple(wanted))], table, True)
    (done,), _kept = restore(targets, [Found(True, {"id": "1"}, wanted, {})], table, Plain())
    assert done.statement == f"UPDATE users\nSET at = {value},\n    name = 'a'\nWHERE id is 1;"


@pytest.mark.parametrize(("first", "found"), [("UPDATE", SAME), ("DELETE", SAME), ("INSERT", GONE)])
def test_what_is_as_it_was_needs_nothing(first, found):
    assert undone(change(5, first), found=found) == ([], [])


@pytest.mark.parametrize(
    ("history", "conflict"),
    [
        ([change(1, "UPDATE", changed_columns=("name",)), other(2, "UPDATE", changed_columns=("age",))], ""),
        ([change(1, "UPDATE", changed_columns=("name",)), other(2, "UPDATE", changed_columns=("name",))], "T2"),
        ([change(1, "UPDATE", changed_columns=("name",)), other(2, "DELETE")], "T2"),
        ([change(1, "DELETE"), other(2, "INSERT")], "T2"),
        ([change(1, "INSERT"), other(3, "UPDATE", changed_columns=("age",)), other(4, "UPDATE")], "T3"),
        ([other(1, "UPDATE", changed_columns=("age",)), change(2, "UPDATE", changed_columns=("age",))], ""),
    ],
)
def test_a_later_change_of_the_same_columns_by_another_is_not_overwritten(history, conflict):
    done, skipped = undone(*history, found=RENAMED, whole=False)
    reason = f"changed again by bob at {conflict}"
    assert (bool(done), skipped) == (not conflict, [Skip("1", reason)] if conflict else [])


def test_a_conflict_over_what_is_as_it_was_already_is_none():
    history = [change(1, "UPDATE", changed_columns=("name",)), other(2, "UPDATE", changed_columns=("name",))]
    assert undone(*history, found=SAME, whole=False) == ([], [])


def test_each_column_comes_from_the_first_of_the_changes_that_touched_it():
    history = [
        change(1, "UPDATE", changed_columns=("name",)),
        other(2, "UPDATE", changed_columns=("age",)),
        change(3, "UPDATE", changed_columns=("name",)),
        change(4, "DELETE"),
    ]
    ((target,), _skipped) = trace(history, TABLE, whole=False)
    assert target.sources == {"name": 1, "id": 4, "age": 4}
    assert (target.exists, target.whole) == (True, True)


def test_masked_columns_are_lost_and_only_named_where_they_have_changed():
    image = {"id": None, "name": "hashed", "age": None}
    found = Found(True, {"id": "1"}, {"age": "3"}, {"age": "4"})
    (done,), _skipped = undone(change(1, "UPDATE", image=image, changed_columns=("age",)), found=found)
    assert done.statement.startswith("UPDATE")
    (done,), _skipped = undone(change(1, "UPDATE", image=image, changed_columns=("name", "age")), found=found)
    assert done.statement.startswith("-- not restored: name (hashed)\nUPDATE")
    _done, (skip,) = undone(change(1, "UPDATE", image=image, changed_columns=("name",)), found=SAME)
    assert skip.reason == "only what the log does not hold was changed: name (hashed)"


def test_a_name_cannot_end_the_comment_that_it_stands_in():
    image = {"id": None, "x\nDROP TABLE users;\r\u2028": None}
    found = Found(False, {"id": "1"}, {"id": "1"}, {})
    (done,), _skipped = undone(change(1, "DELETE", image=image), found=found)
    assert done.statement.splitlines()[0].endswith("x DROP TABLE users;   (no longer a column)")
    assert [line.split()[0] for line in done.statement.splitlines()] == ["--", "INSERT", "VALUES"]


def test_a_masked_missing_or_unknown_key():
    masked_key = {"id": "redacted", "name": None}
    assert undone(change(1, "UPDATE", image=masked_key), found=SAME)[1][0].reason == (
        "its key is not in the log: id (redacted)"
    )
    assert "recorded without a key" in undone(change(1, "UPDATE", None), found=SAME)[1][0].reason
    with pytest.raises(AuditError, match=r"public\.users: the log has no column id"):
        undone(change(1, "UPDATE", key=None), found=SAME)


def test_the_latest_change_is_undone_first():
    table = [change(1, "DELETE", "a", last_id=9), change(2, "INSERT", "b", last_id=8), change(3, "UPDATE", "c")]
    targets, _skipped = trace(table, TABLE, whole=True)
    done, _kept = restore(targets, [GONE, RENAMED, RENAMED], TABLE, Plain())
    assert [entry.restore for entry in done] == ["INSERT", "UPDATE", "DELETE"]


def test_one_update_takes_back_an_update_of_the_key():
    moved = [change(7, "DELETE", "1", moved=True), change(7, "INSERT", "2", moved=True)]
    targets, _skipped = trace(moved, TABLE, whole=True)
    came = Found(True, {"id": "2"}, {}, {"id": "2", "name": "'b'", "age": "3"})
    (done,), _kept = restore(targets, [GONE, came], TABLE, Plain())
    assert done.record == {"record_id": "1", "now": "changed", "restore": "UPDATE"}
    assert done.statement == ("UPDATE users\nSET id = 1,\n    name = 'a'\nWHERE id is 2\n  AND name is 'b';")
    done_apart, _kept = restore(targets, [SAME, came], TABLE, Plain())
    assert [entry.restore for entry in done_apart] == ["DELETE"]


OPTIONS: dict[str, t.Any] = {
    "schema": "audit",
    "table": "public.users",
    "to": "24h",
    "record_ids": None,
    "changed_by": None,
    "transaction_id": None,
    "limit": 10,
    "lock_timeout": 2.0,
    "lock_retries": 5,
}


def test_options():
    options = parse_undo(OPTIONS, NOW)
    assert (options.to, options.whole) == (NOW - datetime.timedelta(hours=24), True)
    assert options.context == {"business_process": "audit undo", "undo_to": "2026-11-20T19:00:00.000000Z"}
    options = parse_undo({**OPTIONS, "to": None, "transaction_id": "7"}, NOW)
    assert options.context == {"business_process": "audit undo", "undo_transaction_id": "7"}
    assert not options.whole


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"to": "2026-11-21T19:00:01Z"}, "lies in the future"),
        ({"to": None}, "to: is required"),
        ({"table": ""}, "table: is empty"),
        ({"record_ids": []}, "record_ids: is empty"),
        ({"limit": 0}, "limit: 0"),
    ],
)
def test_bad_options_are_named(wrong, words):
    with pytest.raises(AuditError, match=words):
        parse_undo({**OPTIONS, **wrong}, NOW)


def test_members_of_a_recorded_image_keep_every_digit():
    text = '{"a": 1.50, "b\\"": "x\\u00e9, {}", "c" : {"d": [1.0,  2]}, "e": null, "f": -1e5}'
    assert members(text) == {
        "a": "1.50",
        'b"': '"x\\u00e9, {}"',
        "c": '{"d": [1.0,  2]}',
        "e": "null",
        "f": "-1e5",
    }
    assert members("{}") == {}


def test_members_that_only_mariadb_reads():
    text = '{"a": [11e], "b": 1e , "c": {"x":-}, "d": "\\q\\"}", "e": [-,1]}'
    assert members(text) == {"a": "[11e]", "b": "1e", "c": '{"x":-}', "d": '"\\q\\"}"', "e": "[-,1]"}
    assert image_of(text) == dict.fromkeys("abcde")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ('"[REDACTED]"', "redacted"),
        (f'"hmac-sha256:{"0" * 64}"', "hashed"),
        ('{"omitted": "too large", "bytes": 9, "sha256": "00"}', "too large"),
        ('{"omitted": "too large"}', None),
        ('"hmac-sha256:0"', None),
        ("null", None),
    ],
)
def test_masked_values_are_recognised(value, why):
    assert masked(value) == why


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("decimal", "12.50", "12.50"),
        ("bigint", '"5"', "5"),
        ("bigint", '"5; DROP"', "'5; DROP'"),
        ("varchar", '"12"', "'12'"),
        ("blob", '"AP8="', "FROM_BASE64('AP8=')"),
        ("point", '"SRID=4326;POINT(1 2)"', "ST_GeomFromText('POINT(1 2)', 4326)"),
        ("json", '{"a": 1.0}', "'{\"a\": 1.0}'"),
        ("text", "null", "NULL"),
    ],
)
def test_recorded_values_as_sql(kind, value, text):
    assert literal(Column("c", kind, None), value, Plain()) == text


def test_documents_that_are_only_written_differently_are_the_same():
    column = Column("c", "json_text", None)
    assert same(column, '{"a":1.0}', '{"a": 1.0}')
    assert not same(column, '{"a": 1.0}', '{"a": 1}')
    assert not same(Column("c", "text", "utf8mb4"), '"a"', '"A"')
    assert same(column, "[1e]", "[1e]")
    assert not same(column, "[1e]", "[2e]")
    assert not same(column, "[1e]", '"[1e]"')
