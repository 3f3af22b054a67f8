# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Facts about a trail, put together out of what engines answer."""

from __future__ import annotations

import datetime
import re

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core import info
from ansible_collections.dbfleet.audit.plugins.module_utils._core.activity import COLUMNS, Group, activity, offsets
from ansible_collections.dbfleet.audit.plugins.module_utils._core.coverage import AuditedTable, Coverage, in_force
from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.exemption import (
    parse_exemptions,
    parse_exemptions_of_databases,
)
from ansible_collections.dbfleet.audit.plugins.module_utils._core.policy import parse_policies
from ansible_collections.dbfleet.audit.plugins.module_utils._core.policy_versions import StoredPolicy
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql.partition_plan import first_day

UTC = datetime.timezone.utc
NOW = datetime.datetime(2026, 11, 20, 12, tzinfo=UTC)


def table(name, operations=(), **more):
    values = {"rows": 0, "bytes": 0, "width": 100.0, "name_bytes": 20, "columns": 5, "inserted": 0, "updated": 0}
    values.update(deleted=0, disabled=(), parent=None)
    values.update(more)
    return AuditedTable(schema="public", name=name, operations=operations, **values)


def policies(*raw):
    return parse_policies(list(raw), "shop")


def coverage(tables, rules=(), exemptions=()):
    return Coverage(tables, list(rules), exemptions, NOW.date())


def exceptions(*tables, until=None):
    return [{"table": name, "reason": "load", "approved_by": "dpo", "until": until} for name in tables]


def request(**params):
    defaults = {name: spec.get("default") for name, spec in info.INFO_SPEC.items()}
    return info.parse_request({**defaults, **params}, NOW, ())


def test_the_default_is_the_last_thirty_days():
    asked = request()
    assert (asked.until, asked.until - asked.since) == (NOW, datetime.timedelta(days=30))
    assert (asked.wanted, request(gather=["seals"]).wanted, request(discover=True).wanted) == (False, True, True)


@pytest.mark.parametrize(
    ("text", "expected"), [("07:00-19:00", (420, 1140, False)), ("22:00 - 06:30", (1320, 390, True))]
)
def test_office_hours(text, expected):
    asked = request(office_hours=text)
    assert (asked.opens, asked.closes, asked.over_midnight) == expected


@pytest.mark.parametrize("text", ["", "7-19", "07:00-25:00", "09:00-09:00", "24:30-09:00"])
def test_office_hours_that_are_none(text):
    with pytest.raises(AuditError, match="office_hours"):
        request(office_hours=text)


def test_a_table_is_audited_when_its_triggers_are_what_its_policy_asks_for():
    rules = policies({"tables": ["public.a"], "operations": ["delete"]}, {"tables": ["public.*"], "name": "all"})
    tables = [
        table("a", ("delete",)),
        table("b", ("insert", "update", "delete")),
        table("c", ("insert",)),
        table("d"),
        table("e", None),
    ]
    entries = {entry["table"]: entry for entry in coverage(tables, rules).facts()["tables"]}
    assert [entries[f"public.{name}"]["audited"] for name in "abcde"] == [True, True, False, False, None]
    assert entries["public.b"]["problem"] == "policy all asks for truncate, and no trigger records it"
    assert entries["public.e"]["problem"] == "the login does not see whether it has triggers"
    assert [found.name for found in coverage(tables[:-1], rules).missing()] == ["c", "d"]


def test_what_nobody_can_see_is_unknown_and_not_zero():
    assert coverage([table("e", None)]).facts()["audited"] is None
    assert coverage([]).facts()["audited"] == 0
    lost: list[str] = []
    # One table suffices: it may be the one that ought to be audited.
    missing = coverage([table("a", types={"ssn": "text"}), table("e", None)]).missing()
    assert info.discovered(missing, ["insert"], lost) == {"discovery": None, "proposal": None}
    assert lost == ["discovery: the login does not see of every table whether it is audited"]
    estimate = info.estimate(missing, NOW - datetime.timedelta(days=10), NOW, "counted")
    assert (estimate["rows_per_day"], estimate["basis"]) == (None, lost[0].split(": ")[1])


def group(part, changes, **more):
    values = dict.fromkeys(COLUMNS) | {"part": part, "changes": changes, "off_hours": 0, "without_user": 0}
    return Group(**values | {"bulk_deletes": 0} | more)


def test_bulk_deletes_are_all_of_them_and_not_those_that_are_listed():
    imports = [group("bulk", 10**6, action="INSERT", transaction_id=str(n), bulk_deletes=9) for n in range(50)]
    truncates = [group("bulk", 1, action="TRUNCATE", at=f"2026-11-{day:02}", bulk_deletes=9) for day in range(1, 26)]
    times = [group("time", 30, action="TRUNCATE", hour=1, day="2026-11-01")]
    found = activity([*imports, *truncates, *times], request())
    assert found["bulk_deletes"] == 9 + 30
    assert [change["rows"] for change in found["bulk"]] == [10**6] * 20 + [None] * 20
    assert [found["bulk"][number]["at"] for number in (20, 39)] == ["2026-11-25", "2026-11-06"]
    assert activity([], request())["bulk_deletes"] == 0


def test_changes_without_a_user_are_all_of_them_and_not_those_of_the_busiest_applications():
    applications = [group("application", 9, application=f"app {n}", without_user=9) for n in range(60)]
    times = [group("time", 9 * 60, action="UPDATE", hour=1, day="2026-11-01", without_user=9 * 60)]
    found = activity([*applications, *times, group("time", 5, action="EVENT", hour=1, without_user=5)], request())
    assert (found["changes"], found["without_user"], len(found["applications"])) == (540, 540, 50)


def test_a_child_is_under_the_policy_of_the_table_that_it_inherits_from():
    rules = policies({"tables": ["public.parent"], "name": "p"})
    found = coverage([table("child", parent=("public", "parent")), table("parent")], rules).facts()["tables"]
    assert [entry["policy"] for entry in found] == ["p", "p"]


ROWS = ("insert", "update", "delete")


def test_a_table_with_a_valid_exception_is_excepted_unless_it_is_audited():
    tables = [table("load_1"), table("load_2", ROWS), table("load_3", None), table("other")]
    found = coverage(tables, policies({"tables": ["public.*"]}), parse_exemptions(exceptions("public.load_*"), "shop"))
    facts = found.facts()
    assert (facts["auditable"], facts["audited"], facts["excepted"]) == (4, 1, 2)
    entries = {entry["table"]: entry for entry in facts["tables"]}
    shown = {"reason": "load", "approved_by": "dpo", "until": None, "expired": False}
    assert [entries[f"public.{name}"]["exception"] for name in ("load_1", "load_2", "other")] == [shown, shown, None]
    # What is deliberately not recorded is no fault.
    assert entries["public.load_1"]["problem"] is None
    # Nor does it matter that nobody sees the triggers of one that need not have any.
    assert [missing.name for missing in found.missing()] == ["other"]


def test_an_expired_exception_is_shown_and_counts_for_nothing():
    rules = policies({"tables": ["public.*"], "operations": list(ROWS), "name": "all"})
    expired = exceptions("public.load", until="2026-11-19")
    found = coverage([table("load")], rules, parse_exemptions(expired, "shop"))
    assert (found.facts()["excepted"], [missing.name for missing in found.missing()]) == (0, ["load"])
    (entry,) = found.facts()["tables"]
    assert entry["exception"] == {"reason": "load", "approved_by": "dpo", "until": "2026-11-19", "expired": True}
    assert entry["problem"] == "policy all asks for insert, update, delete, and no trigger records it"
    # Its last day is one of it, and it may have been approved anew.
    for valid in (exceptions("public.load", until="2026-11-20"), [*expired, *exceptions("public.load")]):
        assert coverage([table("load")], rules, parse_exemptions(valid, "shop")).missing() == []


def test_exceptions_of_several_databases_are_told_apart():
    parsed = parse_exemptions_of_databases(exceptions("tenant_*.public.load", 'shop."odd.schema".t', "*.public.tmp"))
    names = {name: [entry.pattern.text for entry in parsed if entry.concerns(name)] for name in ("tenant_1", "shop")}
    assert names == {"tenant_1": ["public.load", "public.tmp"], "shop": ['"odd.schema".t', "public.tmp"]}
    # A server's only trail has them all.
    assert parse_exemptions(exceptions("shop.load"), "audit")[0].concerns("audit")


@pytest.mark.parametrize("name", ["load", "public.load", ".public.load", "shop..load", "shop.public."])
def test_the_first_exception_without_its_database_is_named(name):
    with pytest.raises(AuditError, match=rf"exceptions\[1\]: '{re.escape(name)}' is not database.schema.table"):
        parse_exemptions_of_databases(exceptions("shop.public.ok", name, "also not"))


def test_only_policies_in_force_count_in_their_order():
    definition = policies({"tables": ["public.a"]})[0].definition()
    stored = [
        StoredPolicy(1, "old", 1, definition, False),
        StoredPolicy(2, "second", 2, definition | {"tables": ["public.*"]}, True),
        StoredPolicy(3, "first", 1, definition | {"redact_defaults": False}, True),
    ]
    assert [policy.name for policy in in_force(stored, "shop")] == ["first", "second"]


def test_an_update_costs_two_images_of_the_row():
    since = NOW - datetime.timedelta(days=10)
    image = 100 + 20 + 5 * 6
    inserts = info.estimate([table("a", inserted=1000)], since, NOW, "counted")
    updates = info.estimate([table("a", updated=1000)], since, NOW, "counted")
    assert (inserts["rows_per_day"], inserts["bytes_per_day"]) == (100.0, 100 * (300 + image))
    assert updates["bytes_per_day"] == 100 * (300 + 2 * image)
    assert inserts["counted_since"] == "2026-11-10T12:00:00Z"


def test_a_count_of_an_hour_is_not_taken_for_a_day_of_such_hours():
    answer = info.estimate([table("a", inserted=1000)], NOW - datetime.timedelta(hours=1), NOW, "counted")
    assert answer["rows_per_day"] == 1000.0


def test_without_counts_there_is_a_reason_and_no_number():
    assert info.estimate([table("a")], None, NOW, "it does not count") == {
        "counted_since": None,
        "rows_per_day": None,
        "bytes_per_day": None,
        "basis": "it does not count",
    }


def period(begin, end, size, rows=1):
    return {"name": f"p{begin}", "from": begin, "to": end, "rows": rows, "bytes": size}


def test_growth_is_by_month_and_projected_by_complete_ones():
    found = [
        period(None, "2026-08-01", 5),
        period("2026-08-01", "2026-09-01", 1),
        period("2026-09-01", "2026-10-01", 100),
        period("2026-10-01", "2026-11-01", 200, rows=7),
        period("2026-11-01", "2026-12-01", 10),
        period("2026-12-01", "2027-01-01", 1, rows=0),
        period("2027-01-01", None, 1, rows=0),
    ]
    answer = info.partitions(found, None, 0, NOW)
    assert (answer["interval"], answer["until"], answer["ahead"]) == ("month", "2027-01-01", 1)
    assert answer["growth"][2] == {"month": "2026-10", "rows": 7, "bytes": 200}
    assert [month["month"] for month in answer["growth"]] == ["2026-08", "2026-09", "2026-10", "2026-11"]
    assert answer["bytes"] == 318
    assert answer["projected_bytes"] == 318 + 12 * round((1 + 100 + 200) / 3)


def test_weeks_are_added_up_and_a_first_month_is_drawn_out():
    weeks = [period("2026-11-02", "2026-11-09", 70), period("2026-11-09", "2026-11-16", 70)]
    answer = info.partitions(weeks, None, 0, NOW)
    assert (answer["interval"], answer["growth"]) == ("week", [{"month": "2026-11", "rows": 2, "bytes": 140}])
    assert answer["projected_bytes"] == 140 + 12 * round(140 * 30 / 20)
    assert (
        info.partitions([period("2026-11-01", "2026-12-01", 8192, rows=0)], "month", 0, NOW)["projected_bytes"] == 8192
    )
    assert info.partitions([], None, None, NOW)["until"] is None


def oldest(begins, end, size, rows=1):
    """Return a log of which this is the oldest partition left, after a place for older rows that ends in January."""
    return [
        {**period(None, "2026-01-01", 1, rows=0), "begins": None},
        {**period("2026-01-01", end, size, rows), "begins": begins},
    ]


def test_a_month_that_has_left_the_log_is_none_that_it_has_grown_in():
    found = oldest("2026-10-01", "2026-11-01", 200)
    found.append({**period("2026-11-01", "2026-12-01", 20), "begins": "2026-11-01"})
    answer = info.partitions(found, "month", 0, NOW)
    assert [month["month"] for month in answer["growth"]] == ["2026-10", "2026-11"]
    assert answer["projected_bytes"] == 221 + 12 * 200
    # Where partitions end is told as the server has it.
    assert answer["list"] == [{key: entry[key] for key in entry if key != "begins"} for entry in found]


def test_the_month_that_goes_on_is_no_complete_one_where_it_alone_is_left():
    answer = info.partitions(oldest("2026-11-01", "2026-12-01", 100), None, 0, NOW)
    assert (answer["interval"], answer["growth"]) == ("month", [{"month": "2026-11", "rows": 1, "bytes": 100}])
    assert answer["projected_bytes"] == 101 + 12 * round(100 * 30 / 20)


def test_a_partition_after_a_change_of_the_interval_begins_where_the_one_before_it_ends():
    assert [first_day(name) for name in ("p2026_11", "p2026_w45", "p2026_11_09")] == [
        "2026-11-01",
        "2026-11-02",
        "2026-11-09",
    ]
    found = [{**period("2026-11-02", "2026-12-01", 7), "begins": first_day("p2026_10")}]
    assert info.partitions(found, None, 0, NOW)["growth"] == [{"month": "2026-11", "rows": 1, "bytes": 7}]


def test_the_offsets_of_a_zone_change_with_its_summer_time():
    since, until = (datetime.datetime(2026, month, 1, tzinfo=UTC) for month in (9, 12))
    end_of_summer = datetime.datetime(2026, 10, 25, 1, tzinfo=UTC)
    assert offsets("Europe/Berlin", since, until) == [(end_of_summer, 7200), (until, 3600)]
    assert offsets("UTC", since, until) == [(until, 0)]
    with pytest.raises(AuditError, match="none that this host knows"):
        offsets("Nowhere", since, until)
