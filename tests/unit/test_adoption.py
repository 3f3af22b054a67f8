# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Logs of others: by what they are known, what their columns hold, what is masked of their rows."""

from __future__ import annotations

import dataclasses
import typing as t
from datetime import date, datetime, timezone

import pytest
import report_facts

from ansible_collections.dbfleet.audit.plugins.module_utils._core import adoption_import
from ansible_collections.dbfleet.audit.plugins.module_utils._core.adoption import (
    ForeignLog,
    Relation,
    Writer,
    recognise,
    written,
)
from ansible_collections.dbfleet.audit.plugins.module_utils._core.adoption_columns import (
    disorder,
    map_columns,
    obstacle,
)
from ansible_collections.dbfleet.audit.plugins.module_utils._core.adoption_import import (
    Pending,
    batches,
    months,
    pending_of,
)
from ansible_collections.dbfleet.audit.plugins.module_utils._core.adoption_rules import rules
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.policy import parse_policies
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_checks import Context, server_checks
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_trail import trail_checks

CONTEXT = Context("db1", datetime(2026, 11, 22, tzinfo=timezone.utc))
GUIDE = {"id": "number", "table_name": "other", "action": "other", "old_data": "jsonb", "performed_at": "zoned"}


@dataclasses.dataclass
class Table:
    """A table as far as an import looks at it."""

    key: tuple[str, ...] = ("id",)
    root: tuple[str, str] | None = None
    parent: tuple[str, str] | None = None


def writer(source: str, *on: str) -> Writer:
    return Writer(source, tuple(("public", name) for name in on), len(on), ("app", "public"))


def test_what_a_trigger_writes_to_is_read_from_its_code() -> None:
    source = """
    -- INSERT INTO commented
    /* insert into this */ INSERT  INTO Audit_Log (a) VALUES (1);
    insert into "Odd ""Schema".`log` SELECT 1; UPDATE other SET a = 1; INSERT INTO audit_log VALUES (2);"""
    assert written(writer(source), str.lower) == [
        [("app", "audit_log"), ("public", "audit_log")],
        [('Odd "Schema', "log")],
    ]


@pytest.mark.parametrize(
    ("columns", "name", "known"),
    [
        (GUIDE, "events", True),
        ({"id": "number", "amount": "other"}, "order_totals", False),
        ({"id": "number", "name": "other"}, "employee_history", True),
        # A table that is only written to by the trigger that is on it.
        (GUIDE, "patient", False),
    ],
)
def test_a_log_is_known_by_its_columns_or_its_name(columns: dict[str, str], name: str, known: bool) -> None:
    relations = {("public", name): Relation("public", name, columns, 1)}
    found = recognise([writer(f"INSERT INTO {name} VALUES (1)", "patient")], relations, str.lower)
    assert [log.title for log in found] == ([f"public.{name}"] if known else [])


@pytest.mark.parametrize(
    ("columns", "name", "repeats"),
    [
        (GUIDE, "audit_log", True),
        ({"id": "number", "row_data": "hstore", "action": "other", "changed_at": "zoned"}, "changes", True),
        ({"trigger_mode": "other", "trigger_tuple": "other", "trigger_changed": "zoned"}, "patient_log", True),
        # What an application lives on, filled by triggers or not.
        ({"id": "number", "operation": "other", "amount": "other", "created_at": "zoned"}, "account_movement", False),
        ({"id": "number", "account": "number", "amount": "other"}, "gl_journal", False),
        ({"id": "number", "action": "other", "record": "jsonb", "created_at": "zoned"}, "medical_history", False),
        ({"id": "number", "event_type": "other", "payload": "jsonb", "created_at": "zoned"}, "outbox", False),
        # What a row became is what it is.
        ({"id": "number", "action": "other", "new_data": "jsonb", "created_at": "zoned"}, "patient_log", True),
        ({**GUIDE, "old_data": "other", "record": "jsonb"}, "audit_log", True),
    ],
)
def test_patterns_pass_by_only_what_repeats_other_tables(columns: dict[str, str], name: str, repeats: bool) -> None:
    relations = {("public", name): Relation("public", name, columns, 1)}
    (log,) = recognise([writer(f"INSERT INTO {name} VALUES (1)", "patient")], relations, str.lower)
    assert log.repeats == repeats


def test_columns_are_found_by_the_names_that_guides_give_them() -> None:
    columns = {"Id": "number", "changedAt": "time", "tg_op": "other", "userName": "other", "changed_fields": "other"}
    assert map_columns(columns, {}, "log") == {
        "id": "Id",
        "changed_at": "changedAt",
        "action": "tg_op",
        "changed_by": "userName",
    }
    assert map_columns(columns, {"changed_by": "", "db_user": "userName"}, "log")["db_user"] == "userName"
    assert "changed_by" not in map_columns(columns, {"changed_by": ""}, "log")
    for given, named in (({"id": "nr"}, "'nr'"), ({"who": "Id"}, "'who'")):
        with pytest.raises(AuditError, match=named):
            map_columns(columns, given, "log")


def test_rows_are_numbered_by_what_ascends_and_not_by_what_is_called_id() -> None:
    columns = {**GUIDE, "history_id": "number"}
    doubts = disorder(
        {
            "id": {"nullable": False, "unique": False, "counted": False, "unsteady": None},
            "history_id": {"nullable": False, "unique": False, "counted": True, "unsteady": None},
        }.items()
    )
    assert map_columns(columns, {}, "log", doubts)["id"] == "history_id"
    assert map_columns(columns, {"id": "id"}, "log", doubts)["id"] == "id"
    assert "column id is neither numbered" in str(obstacle(GUIDE, map_columns(GUIDE, {}, "log", doubts), 1, doubts))


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ({}, None),
        ({"unique": False}, None),
        ({"counted": False}, None),
        ({"unique": False, "counted": False}, "nor unique"),
        ({"nullable": True}, "may be NULL"),
        ({"unsteady": "public.seq"}, "public.seq with another CACHE"),
    ],
)
def test_why_a_number_does_not_ascend(number: dict[str, t.Any], reason: str | None) -> None:
    usual = {"nullable": False, "unique": True, "counted": True, "unsteady": None}
    found = disorder([("id", {**usual, **number})]).get("id")
    assert (found is None) if reason is None else (reason in str(found))


def test_what_writes_to_a_part_of_a_log_writes_to_the_log() -> None:
    whole, middle, part = (("public", name) for name in ("audit_log", "audit_log_2026", "audit_log_2026_11"))
    relations = {
        whole: Relation(*whole, GUIDE, 1),
        middle: Relation(*middle, GUIDE, 1, ancestors=frozenset([whole])),
        part: Relation(*part, GUIDE, 1, ancestors=frozenset([whole, middle])),
    }
    writers = [
        writer("INSERT INTO audit_log VALUES (1)", "patient"),
        writer("INSERT INTO audit_log_2026 VALUES (NEW.*)", "audit_log"),
        writer("INSERT INTO audit_log_2026_11 VALUES (1)", "bed"),
    ]
    (log,) = recognise(writers, relations, str.lower)
    assert (log.key, log.tables, log.triggers) == (whole, (("public", "bed"), ("public", "patient")), 2)
    # Without triggers that write to the whole, the parts are logs.
    assert [one.key for one in recognise(writers[2:], relations, str.lower)] == [part]


@pytest.mark.parametrize(
    ("change", "tables", "reason"),
    [
        ({}, 2, None),
        ({"old_data": "other"}, 2, "old_data is no JSON"),
        ({"id": "other"}, 2, "id is no whole number"),
        ({"performed_at": "other"}, 2, "performed_at is no date"),
        ({"table_name": None}, 1, None),
        ({"table_name": None}, 2, "does not say which table"),
        ({"action": None}, 2, "action (what was done)"),
    ],
)
def test_why_a_log_cannot_be_imported(change: dict[str, str | None], tables: int, reason: str | None) -> None:
    columns = {name: kind for name, kind in {**GUIDE, **change}.items() if kind}
    found = obstacle(columns, map_columns(columns, {}, "log"), tables)
    assert (found is None) if reason is None else (reason in str(found))


def rule(policy: dict[str, t.Any], keys: set[str], table: Table | None = None, schema: str | None = "public") -> t.Any:
    tables = {("public", "card"): table} if table else {}
    return rules({(schema, "card"): keys}, parse_policies([{"tables": ["public.c*"], **policy}], "shop"), tables)[0]


def test_what_a_policy_masks_is_masked_in_history_too() -> None:
    found = rule({"columns": {"redact": ["note"], "hash": ["ssn"], "exclude": ["pin"]}}, {"ssn", "api_token"}, Table())
    assert (found.redact, found.hash, found.leave_out) == (("api_token", "note"), ("ssn",), ("pin",))
    assert rule({"columns": {"only": ["id"]}}, {"id", "b"}, Table()).leave_out == ("b",)
    # Without a schema in the log, the name of the table decides.
    assert rule({"columns": {"hash": ["ssn"]}}, {"ssn"}, schema=None).hash == ("ssn",)
    of_root = rule({"tables": ["public.root"], "columns": {"hash": ["ssn"]}}, {"ssn"}, Table(root=("public", "root")))
    assert of_root.hash == ("ssn",)


def test_a_name_that_the_log_spells_otherwise_is_masked_as_well() -> None:
    policy = {"columns": {"redact": ["home_phone"], "hash": ["ssn"], "exclude": ["pin"]}}
    images = {"homePhone", "SSN", "Pin", "name"}
    found = rule(policy, images, Table())
    assert "homePhone" in found.redact
    assert "SSN" in found.hash
    assert "Pin" in found.leave_out
    # A table that is not there by this name may be any one of those that are.
    unknown = rule({**policy, "tables": ["public.patient"]}, images)
    assert unknown.redact == ("Pin", "SSN", "homePhone")


def test_a_key_that_is_masked_is_not_taken_from_the_log() -> None:
    hashed = {"columns": {"hash": ["ssn"]}}
    assert not rule(hashed, {"ssn"}, Table(key=("ssn",))).plain_key
    assert rule(hashed, {"ssn"}, Table()).plain_key
    # The table is gone: nobody knows what its key was.
    assert not rule(hashed, {"ssn"}).plain_key
    assert not rule({}, {"token"}).plain_key
    assert rule({}, {"ssn"}).plain_key
    # No image need have it.
    assert not rule({}, {"owner"}, Table(key=("card_number",))).plain_key


def test_of_a_table_that_is_left_out_on_purpose_no_value_is_taken() -> None:
    policy = {"exclude": ["public.card"], "columns": {"redact": ["name"]}}
    for table, schema in ((Table(), "public"), (None, "public"), (None, None)):
        found = rule(policy, {"id", "note"}, table, schema)
        assert (found.leave_out, found.key, found.plain_key, found.excluded) == (("id", "note"), (), False, True)
    # One that no policy speaks of may hold what they mask elsewhere.
    other = rule({"tables": ["public.patient"], "columns": {"redact": ["name"]}}, {"id", "Name"}, Table())
    assert (other.redact, other.leave_out, other.excluded) == (("Name",), (), False)


def test_batches_follow_one_another_and_are_not_too_many() -> None:
    log = ForeignLog("home_made", Relation("public", "audit_log", GUIDE, 1), (), 1)
    assert list(batches(Pending(log, 5, 25_000))) == [(5, 10_005), (10_005, 20_005), (20_005, 25_000)]
    many = list(batches(Pending(log, 0, 10**9)))
    assert (len(many), many[0][0], many[-1][1]) == (adoption_import._BATCHES, 0, 10**9)
    assert pending_of(log, None, 7, 9) == Pending(log, 6, 9)
    assert not pending_of(log, "9", 1, 9).waits
    # Rows were deleted from the old log, or all of them.
    assert not pending_of(log, "9", 1, 5).waits
    assert not pending_of(log, None, None, None).waits


def test_history_gets_months_up_to_the_first_period() -> None:
    assert months(date(2026, 8, 31), date(2026, 10, 1)) == [
        (date(2026, 8, 1), date(2026, 9, 1)),
        (date(2026, 9, 1), date(2026, 10, 1)),
    ]
    # Of a log in weeks, the last one is a part of a month.
    assert months(date(2026, 10, 2), date(2026, 10, 12)) == [(date(2026, 10, 1), date(2026, 10, 12))]
    assert months(date(2026, 10, 12), date(2026, 10, 12)) == []
    assert len(months(date(1970, 1, 1), date(2026, 10, 1))) == 240


@pytest.mark.parametrize(
    ("logs", "adopt", "level"),
    [
        ({}, "report", "ok"),
        ({"public.audit_log": None}, "report", "amber"),
        ({"public.audit_log": "no JSON"}, "beside", "ok"),
        ({"public.audit_log": None}, "import", "ok"),
        ({"public.audit_log": "no JSON"}, "import", "amber"),
    ],
)
def test_the_report_asks_for_a_decision(logs: dict[str, str | None], adopt: str, level: str) -> None:
    found = [{"log": log, "tables": ["public.patient"], "rows": 7, "obstacle": reason} for log, reason in logs.items()]
    results = trail_checks(report_facts.trail(foreign_auditing=found, adopt=adopt), CONTEXT)
    (result,) = [one for one in results if one.check == "other_auditing"]
    assert result.level == level
    assert all(name in result.text for name in logs)


def test_the_report_tells_what_is_configured_by_hand() -> None:
    setting = {"name": "pgaudit.log", "value": "ddl", "place": "/etc/postgresql.conf:12"}
    facts = {"server": {"pgaudit": {"settings": [setting]}}, "statements": {"enabled": False, "problems": []}}
    texts = [one.text for one in server_checks(facts, CONTEXT) if one.check == "statements"]
    assert texts == [
        "no statement auditing: switched off for this host; set by hand: pgaudit.log = ddl (/etc/postgresql.conf:12)"
    ]
