# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What mysql_audit_info tells of the server's trail: to root, to a reader, to a stranger."""

from __future__ import annotations

import datetime
import typing as t

import pymysql
import pytest
import running
from cutting import MysqlCutter
from mysql_auditing import install_trail, rollout
from mysql_databases import MysqlServer, Schema
from mysql_sealing import unsealed_log
from sealing import Sealer

from ansible_collections.dbfleet.audit.plugins.module_utils._core.info import PARTS
from ansible_collections.dbfleet.audit.plugins.module_utils._mysql import info_queries

MODULE = "mysql_audit_info"
PERIOD = {"since": "2025-11-17", "until": "2025-11-24"}

_RECORD = """
INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, new_values, changed_by,
                                  db_user, application_name)
VALUES (%s, %s, %s, 'app', %s, %s, %s, 'shop_app@%%', %s)
"""


def record(shop: Schema, count: int, by: str, **more: t.Any) -> None:
    """Write records as the triggers would, at a time of the test's own."""
    values = {"at": "2025-11-19 10:00:00", "transaction": None, "action": "UPDATE", "table": "orders"}
    values.update({"document": "{}", "application": "web", **more})
    row = [values[name] for name in ("at", "transaction", "action", "table", "document")]
    with shop.connect().cursor() as cursor:
        cursor.executemany(_RECORD, [[*row, by, values["application"]]] * count)


@pytest.fixture(scope="module")
def shop(trail: MysqlServer) -> t.Iterator[Schema]:
    """Return a database on a server with a trail, in whose log a year ago something has happened."""
    with Schema(trail) as made:
        unsealed_log(made)
        made.execute("CREATE TABLE users (id INT PRIMARY KEY, email VARCHAR(80), password_hash VARCHAR(80))")
        made.execute("CREATE TABLE orders (id INT PRIMARY KEY, amount DECIMAL(10, 2))")
        made.execute(
            "CREATE TABLE patients (id INT PRIMARY KEY, ssn VARCHAR(20), diagnosis TEXT, card_number VARCHAR(20), "
            "email_sent_at DATETIME)"
        )
        made.execute("CREATE TABLE plain (id INT PRIMARY KEY, note TEXT)")
        made.execute("CREATE VIEW seen AS SELECT * FROM users")
        rollout(made, *policies(made))
        install_trail(made, readers=[f"{made.create_account('compliance', '')}@%"])
        record(made, 30, "ann")
        record(made, 5, "shop_app@%", application="mysql", at="2025-11-19 22:30:00")
        record(made, 40, "import", transaction="t1", action="DELETE", table="users", at="2025-11-22 12:00:00")
        record(made, 2, "shop_app@%", action="EVENT", document='{"event": "audit_failure"}')
        record(made, 3, "eve", action="EVENT", document='{"event": "login", "success": false}')
        record(made, 7, "ann", at="2025-12-24 12:00:00")
        # More large imports than are told of, and two smaller deletions of many rows.
        load = {"at": "2026-01-01 12:00:00", "action": "INSERT"}
        for number in range(55):
            record(made, 3, "import", transaction=f"i{number}", **load)
        for number in range(2):
            record(made, 2, "eve", transaction=f"d{number}", **{**load, "action": "DELETE"})
        # In the last of the months that are made ahead, which is no catch-all.
        month = made.value("SELECT DATE_FORMAT(UTC_DATE() + INTERVAL 3 MONTH, '%Y-%m')")
        record(made, 1, "ann", at=f"{month}-02 12:00:00")
        yield made
        rollout(made)
        install_trail(made)
        unsealed_log(made)


def policies(shop: Schema) -> list[dict[str, t.Any]]:
    """Return what is audited."""
    keys = {"classification": "restricted", "retention": "financial", "tags": ["GDPR"]}
    users = {"tables": [f"{shop.name}.users"], "name": "users", **keys}
    return [users, {"tables": [f"{shop.name}.orders"], "name": "orders", "operations": ["insert", "delete"]}]


def facts(shop: Schema, *parts: str, **options: t.Any) -> running.ModuleResult:
    """Return the module's result."""
    return running.run_module(MODULE, **{**shop.login, "gather": list(parts), **options})


def trail_of(shop: Schema, *parts: str, **options: t.Any) -> dict[str, t.Any]:
    """Return the facts about the trail."""
    found = facts(shop, *parts, **options)["trails"][0]
    assert found["error"] is None
    return found


def tables_of(shop: Schema, found: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the coverage of the test's own tables."""
    tables = {entry["table"]: entry for entry in found["coverage"]["tables"]}
    return {name.split(".")[1]: entry for name, entry in tables.items() if name.startswith(f"{shop.name}.")}


def test_coverage_and_estimate(shop):
    assert "trails" not in facts(shop)
    found = trail_of(shop, "coverage")
    tables = tables_of(shop, found)
    assert {name: entry["audited"] for name, entry in tables.items()} == {
        "orders": True,
        "patients": False,
        "plain": False,
        "users": True,
    }
    users = {key: tables["users"][key] for key in ("policy", "classification", "operations", "tags", "problem")}
    assert users == {
        "policy": "users",
        "classification": "restricted",
        "operations": ["insert", "update", "delete"],
        "tags": ["GDPR"],
        "problem": None,
    }


def test_rows_written_are_counted_where_performance_schema_is_on(new_mysql_server):
    with Schema(new_mysql_server(performance_schema="ON")) as made:
        made.execute("CREATE TABLE people (id INT PRIMARY KEY, email TEXT)")
        made.execute("INSERT INTO people (id) VALUES (1), (2), (3)")
        made.execute("UPDATE people SET email = 'x' WHERE id < 3")
        found = trail_of(made, "coverage", discover=True)
        (table,) = found["coverage"]["tables"]
        assert (found["installed"], table["audited"]) == (False, False)
        assert [table[key] for key in ("inserted", "updated", "deleted")] == [3, 2, 0]
        assert found["estimate"]["rows_per_day"] == 5.0
        assert "performance_schema" in found["estimate"]["basis"]
        assert [entry["table"] for entry in found["discovery"]] == [f"{made.name}.people"]
        excepted = [{"table": f"{made.name}.p*", "reason": "load", "approved_by": "dpo"}]
        found = trail_of(made, "coverage", discover=True, exceptions=excepted)
        numbers = (found["coverage"]["excepted"], found["estimate"]["rows_per_day"])
        assert (numbers, found["discovery"]) == ((1, 0.0), [])
        made.execute("UPDATE performance_schema.setup_instruments SET enabled = 'NO' WHERE name LIKE 'wait/io/table%'")
        assert trail_of(made, "coverage")["estimate"] == {
            "counted_since": None,
            "rows_per_day": None,
            "bytes_per_day": None,
            "basis": "performance_schema, which counts the rows that are written, is off",
        }


def test_activity_is_told_by_time_user_table_and_application(shop):
    found = trail_of(shop, "activity", bulk_rows=20, time_zone="Europe/Berlin", **PERIOD)["activity"]
    assert (found["changes"], found["by_action"]) == (75, {"DELETE": 40, "UPDATE": 35})
    assert (found["without_user"], found["bulk_deletes"]) == (5, 1)
    assert found["by_day"] == [{"day": "2025-11-19", "changes": 35}, {"day": "2025-11-22", "changes": 40}]
    assert {hour: count for hour, count in enumerate(found["by_hour"]) if count} == {11: 30, 13: 40, 23: 5}
    assert found["users"] == [
        {"name": "import", "changes": 40},
        {"name": "ann", "changes": 30},
        {"name": "shop_app@%", "changes": 5},
    ]
    assert found["tables"] == [{"name": "app.users", "changes": 40}, {"name": "app.orders", "changes": 35}]
    assert found["off_hours"] == {
        "changes": 45,
        "users": [{"name": "import", "changes": 40}, {"name": "shop_app@%", "changes": 5}],
    }
    assert [
        (bulk["at"], bulk["table"], bulk["action"], bulk["rows"], bulk["changed_by"], bulk["transaction_id"])
        for bulk in found["bulk"]
    ] == [
        ("2025-11-22T12:00:00Z", "app.users", "DELETE", 40, "import", "t1"),
        # Without a transaction's name, a minute stands for it.
        ("2025-11-19T10:00:00Z", "app.orders", "UPDATE", 30, "ann", None),
    ]
    assert found["applications"] == [
        {"name": "web", "changes": 70, "without_user": 0},
        {"name": "mysql", "changes": 5, "without_user": 5},
    ]
    assert (found["failures"], found["ddl"], found["logins"], found["refused_logins"]) == (2, 0, 0, 3)


def test_bulk_deletes_that_are_too_small_to_be_listed_are_counted(shop):
    found = trail_of(shop, "activity", bulk_rows=2, since="2026-01-01", until="2026-02-01")["activity"]
    assert (found["bulk_deletes"], {bulk["action"] for bulk in found["bulk"]}) == (2, {"INSERT"})


def test_activity_reads_the_partitions_of_its_period_once(shop):
    asked = {"since": "2025-11-17", "until": "2025-11-24", "opens": 0, "closes": 9, "over_midnight": False}
    query = info_queries.activity([0]).replace("{schema}", "audit")
    explain = "EXPLAIN PARTITIONS" if shop.server.is_mariadb else "EXPLAIN FORMAT = TRADITIONAL"
    with shop.connect(cursorclass=pymysql.cursors.DictCursor).cursor() as cursor:
        cursor.execute("ANALYZE TABLE audit.audit_log_data")
        cursor.fetchall()
        cursor.execute(f"{explain} {query}", {**asked, "bulk_rows": 10})
        plan = cursor.fetchall()
    logs = [number for number, row in enumerate(plan) if row["partitions"]]
    assert [plan[number]["partitions"] for number in logs] == ["p_past", "p_past"]
    # A record of each group is looked up by its id; grouping reads the log, and joins each record with what follows.
    assert [plan[number]["type"] for number in logs] == ["ref", "ALL"]
    assert plan[logs[1] + 1]["id"] == plan[logs[1]]["id"]


def test_partitions_seals_grants_and_settings(shop):
    found = trail_of(shop, "partitions", "seals", "grants", "settings")
    today = datetime.datetime.now(datetime.timezone.utc).date()
    partitions = found["partitions"]
    assert (partitions["interval"], partitions["ahead"]) == ("month", 3)
    assert partitions["until"] > (today + datetime.timedelta(days=80)).isoformat()
    # A year ago there was no log: such records are in a catch-all.
    assert partitions["catch_all_rows"] == 30 + 5 + 40 + 2 + 3 + 7 + 55 * 3 + 2 * 2
    counting = info_queries.CATCH_ALL.replace("{schema}", "audit").replace("%(limit)s", "9")
    assert shop.value(counting.replace("%(first)s", "'2026-01-01'").replace("%(last)s", "'2026-01-01'")) == 9
    assert partitions["growth"][-1]["month"] == today.isoformat()[:7]
    seals = found["seals"]
    everything = shop.value("SELECT COUNT(*) FROM audit.audit_log_data")
    assert (seals["rows_sealed"], seals["unsealed_rows"], seals["last_sealed_at"]) == (0, everything, None)
    assert seals["oldest_unsealed_at"].startswith("2025-11-19")
    assert [grant for grant in found["grants"] if not grant["expected"]] == []
    assert found["settings"]["partition_interval"] == "month"
    assert "binlog_format" in found["settings"]
    stranger = shop.create_account("meddler")
    shop.execute(f"GRANT SELECT, DELETE ON audit.audit_log_data TO {stranger}@'%'")
    unexpected = [grant for grant in trail_of(shop, "grants")["grants"] if not grant["expected"]]
    assert unexpected == [
        {"grantee": f"{stranger}@%", "object": "audit_log_data", "privileges": ["DELETE", "SELECT"], "expected": False}
    ]
    shop.execute(f"REVOKE ALL ON audit.audit_log_data FROM {stranger}@'%'")


def test_what_is_proposed_can_be_pasted_and_rolled_out(shop):
    yaml = pytest.importorskip("yaml")
    found = trail_of(shop, discover=True)
    mine = [entry for entry in found["discovery"] if entry["table"].startswith(f"{shop.name}.")]
    assert [(entry["table"], entry["categories"]) for entry in mine] == [
        (f"{shop.name}.patients", ["financial", "health", "personal"])
    ]
    pasted = [entry for entry in yaml.safe_load(found["proposal"]) if entry["tables"] == [f"{shop.name}.patients"]]
    assert pasted == [mine[0]["policy"]]
    assert rollout(shop, *policies(shop), *pasted).changed
    assert not rollout(shop, *policies(shop), *pasted).changed
    assert tables_of(shop, trail_of(shop, "coverage"))["patients"]["audited"] is True
    rollout(shop, *policies(shop))


def test_a_reader_learns_what_is_in_the_log_and_a_stranger_nothing(shop):
    reader = shop.create_account("reader", "")
    login = {"login_user": reader, "login_password": "Secret-of-the-4-tests"}
    stranger = facts(shop, *PARTS, discover=True, **{**shop.login, **login})
    assert (stranger["trails"][0]["error"], stranger["trails"][0]["coverage"]) == (None, None)
    assert stranger["trails"][0]["discovery"] is None
    assert "accounts and their rights: the login may not read it" in stranger["limitations"]
    install_trail(shop, readers=[reader])
    result = facts(shop, *PARTS, **{**shop.login, **login, **PERIOD})
    install_trail(shop)
    found = result["trails"][0]
    assert (found["installed"], found["activity"]["changes"], found["partitions"]["ahead"]) == (True, 75, 3)
    assert (found["seals"]["rows_sealed"], found["grants"]) == (0, None)
    assert "grants: the login may not read accounts and their rights" in found["limitations"]


def test_tables_that_the_login_sees_without_their_triggers_may_need_audit(shop):
    account = shop.create_account("half", "SELECT, TRIGGER")
    with Schema(shop.server) as other:
        other.execute("CREATE TABLE patients (id INT PRIMARY KEY, ssn VARCHAR(20))")
        shop.execute(f"GRANT SELECT ON *.* TO {account}@'%'")
        login = {"login_user": account, "login_password": "Secret-of-the-4-tests"}
        found = trail_of(shop, "coverage", discover=True, **login)
        everything = trail_of(shop, discover=True)
    assert (found["discovery"], found["proposal"], found["estimate"]["rows_per_day"]) == (None, None, None)
    assert "discovery: the login does not see of every table whether it is audited" in found["limitations"]
    assert tables_of(shop, found)["patients"]["audited"] is False
    assert f"{other.name}.patients" in {entry["table"] for entry in everything["discovery"]}


def test_a_check_that_fails_quotes_no_row(shop):
    leak = "SELECT JSON_EXTRACT(email, '$') FROM (SELECT EXTRACTVALUE(1, CONCAT('~', USER())) AS email) AS t"
    (found,) = facts(shop, checks=[{"name": "leak", "query": leak, "threshold": 1}])["checks"]
    assert (found["ok"], found["value"]) == (False, None)
    assert "the message may quote data" in found["error"]


def test_more_tables_are_no_more_statements(shop):
    counts = []
    for _turn in range(2):
        cutter = MysqlCutter(shop.server)
        answer = running.run_module(MODULE, **cutter.login, gather=list(PARTS), discover=True)
        assert answer["trails"][0]["error"] is None
        cutter.close()
        counts.append(cutter.statements)
        for number in range(40):
            shop.execute(f"CREATE TABLE IF NOT EXISTS many_{number} (id INT PRIMARY KEY, email VARCHAR(80))")
    assert 10 < counts[0] == counts[1] < 60


def test_a_zone_that_nobody_knows(shop):
    result = facts(shop, "activity", time_zone="Berlin", may_fail=True)
    assert result.failed
    assert "time_zone: 'Berlin' is none that this host knows" in result.msg


def test_what_is_sealed_and_what_has_come_since(shop, tmp_path):
    Sealer(shop.login, tmp_path, "mysql", policies=policies(shop)).seal()
    record(shop, 4, "ann", at="2026-01-02 03:04:05")
    seals = trail_of(shop, "seals")["seals"]
    sealed = shop.value("SELECT COUNT(*) FROM audit.audit_log_data") - 4
    assert (seals["rows_sealed"], seals["unsealed_rows"], seals["unsigned"]) == (sealed, 4, 0)
    assert (seals["last_number"] > 0, seals["oldest_unsealed_at"]) == (True, "2026-01-02T03:04:05Z")
