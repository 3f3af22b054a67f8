# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What postgresql_audit_info tells of a trail: to a superuser, a reader, a stranger; on a standby; where none is."""

from __future__ import annotations

import datetime
import re
import typing as t

import pytest
import running
from auditing import install_trail, rollout, trail_database, wanted
from cutting import PostgresqlCutter
from databases import Database, wait_for_replay
from first_seal import first_sealed

from ansible_collections.dbfleet.audit.plugins.module_utils._core.info import COUNT_LIMIT, PARTS
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql import info_queries

MODULE = "postgresql_audit_info"

# A shop on a Wednesday: bulk work of an import in one transaction, an office day, a night.
_RECORDS = """
INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, schema_name, table_name, new_values, changed_by,
                                  db_user, application_name)
SELECT {at}::timestamptz, ({transaction})::text::xid8, {action}, 'public', {table}, {document}::jsonb, {by}, 'shop_app',
       {application}
FROM generate_series(1, {count}) AS n
"""


_MANY = "DO $$ BEGIN FOR i IN 1..60 LOOP EXECUTE format('%s', i); END LOOP; END $$"


def record(db: Database, count: int, by: str, **more: str) -> None:
    """Write records as the capture functions would, at a time of the test's own."""
    values = {"at": "'2025-11-19 10:00+00'", "transaction": "1000 + n", "action": "'UPDATE'", "table": "'orders'"}
    values.update(document="'{}'", application="'web'")
    values.update(more)
    db.execute(_RECORDS.format(count=count, by=f"'{by}'", **values))


@pytest.fixture(scope="module")
def shop(pg: t.Any) -> t.Iterator[Database]:
    with trail_database(pg) as db:
        db.execute(
            """
CREATE TABLE users (id int PRIMARY KEY, email text, password_hash text);
CREATE TABLE orders (id int PRIMARY KEY, amount numeric);
CREATE TABLE half (id int PRIMARY KEY, note text);
CREATE TABLE patients (id int PRIMARY KEY, ssn text, diagnosis text, card_number text, email_sent_at timestamptz);
CREATE TABLE "Odd.Name *" ("IBAN" text, "birthDate" date, addressed boolean);
CREATE TABLE plain (id int, note text);
CREATE TABLE measures (at date, id int) PARTITION BY RANGE (at);
CREATE TABLE measures_1 PARTITION OF measures FOR VALUES FROM (MINVALUE) TO (MAXVALUE);
CREATE VIEW seen AS SELECT * FROM users;
"""
        )
        keys = {"classification": "restricted", "retention": "financial", "tags": ["GDPR"]}
        policies = [
            wanted("public.users", name="users", **keys),
            wanted("public.orders", "public.half", name="orders", operations=["insert", "delete"]),
        ]
        rollout(db, policies=policies)
        db.execute("ALTER TABLE half DISABLE TRIGGER dbfleet_audit_delete")
        db.execute("INSERT INTO patients (id) SELECT generate_series(1, 500)")
        db.execute("INSERT INTO measures SELECT '2026-01-01', n FROM generate_series(1, 300) AS n")
        db.execute("ANALYZE")
        # What a session has counted is told at the latest when it ends.
        db.disconnect()
        record(db, 30, "ann", transaction="900 + n % 3")
        record(db, 5, "shop_app", application="'psql'", at="'2025-11-19 22:30+00'")
        record(db, 40, "import", transaction="77", action="'DELETE'", table="'users'", at="'2025-11-22 12:00+00'")
        record(db, 2, "shop_app", action="'EVENT'", document='\'{"event": "audit_failure"}\'')
        record(db, 3, "eve", action="'EVENT'", document='\'{"event": "login", "success": false}\'')
        record(db, 7, "ann", at="'2025-12-24 12:00+00'")
        # More large imports than are told of, two smaller deletions of many rows, and one of all.
        load = {"at": "'2026-01-14 12:00+00'", "action": "'INSERT'"}
        record(db, 55 * 3, "import", transaction="2000 + n % 55", **load)
        record(db, 2 * 2, "eve", transaction="3000 + n % 2", **{**load, "action": "'DELETE'"})
        record(db, 1, "eve", transaction="4000", **{**load, "action": "'TRUNCATE'"})
        # In the last month that is made ahead, which is no catch-all.
        record(db, 1, "ann", at="(date_trunc('month', now()) + interval '3 months 2 days')")
        yield db


#: What the fixture writes into the catch-all.
RECORDS = 30 + 5 + 40 + 2 + 3 + 7 + 55 * 3 + 2 * 2 + 1
PERIOD = {"since": "2025-11-17", "until": "2025-11-24"}
LOAD = {"table": "public.load", "reason": "load", "approved_by": "dpo", "until": "2099-12-31"}


def facts(db: Database, **options: t.Any) -> running.ModuleResult:
    """Return the module's result about one database."""
    return running.run_module(MODULE, **{**db.login, "databases": [db.name], **options})


def trail_of(db: Database, *parts: str, **options: t.Any) -> dict[str, t.Any]:
    """Return the facts about its trail."""
    found = facts(db, gather=list(parts), **options)["trails"][0]
    assert found["error"] is None
    return found


def test_nothing_is_told_of_trails_unless_asked_for(shop):
    assert "trails" not in facts(shop)


def test_coverage_names_every_table_that_can_be_audited(shop):
    found = trail_of(shop, "coverage")
    tables = {entry["table"]: entry for entry in found["coverage"]["tables"]}
    assert list(tables) == sorted(tables)
    assert {name: entry["audited"] for name, entry in tables.items()} == {
        "public.Odd.Name *": False,
        "public.half": False,
        "public.measures": False,
        "public.orders": True,
        "public.patients": False,
        "public.plain": False,
        "public.users": True,
    }
    assert (found["coverage"]["auditable"], found["coverage"]["audited"]) == (7, 2)
    users = [tables["public.users"][key] for key in ("policy", "classification", "retention", "tags", "problem")]
    assert users == ["users", "restricted", "financial", ["GDPR"], None]
    assert tables["public.users"]["operations"] == ["insert", "update", "delete", "truncate"]
    assert tables["public.half"]["problem"] == "trigger disabled: dbfleet_audit_delete"
    # Of a partitioned table, what its partitions have.
    assert [tables["public.measures"][key] for key in ("rows", "inserted", "updated", "deleted")] == [300, 300, 0, 0]
    assert tables["public.patients"]["bytes"] > 8192


def test_the_estimate_is_of_what_is_not_audited(shop):
    estimate = trail_of(shop, "coverage")["estimate"]
    assert estimate["rows_per_day"] == pytest.approx(800, rel=0.01)
    assert 200_000 < estimate["bytes_per_day"] < 800_000
    assert "800 rows written to 5 tables that are not audited" in estimate["basis"]
    assert "pg_stat_user_tables" in estimate["basis"]


def test_a_table_that_is_an_exception_is_neither_proposed_nor_in_the_estimate(shop):
    exceptions = [{**LOAD, "table": f"{shop.name}.public.p*"}, {**LOAD, "table": "elsewhere.*.*"}]
    found = trail_of(shop, "coverage", discover=True, exceptions=exceptions)
    excepted = [entry["table"] for entry in found["coverage"]["tables"] if entry["exception"]]
    assert (found["coverage"]["excepted"], excepted) == (2, ["public.patients", "public.plain"])
    assert [entry["table"] for entry in found["discovery"]] == ["public.Odd.Name *"]
    assert "300 rows written to 3 tables that are not audited" in found["estimate"]["basis"]


def test_activity_is_told_by_time_user_table_and_application(shop):
    found = trail_of(shop, "activity", bulk_rows=20, time_zone="Europe/Berlin", **PERIOD)["activity"]
    assert (found["since"], found["until"]) == ("2025-11-17T00:00:00Z", "2025-11-24T00:00:00Z")
    assert (found["changes"], found["by_action"]) == (75, {"DELETE": 40, "UPDATE": 35})
    assert (found["without_user"], found["bulk_deletes"]) == (5, 1)
    assert found["by_day"] == [{"day": "2025-11-19", "changes": 35}, {"day": "2025-11-22", "changes": 40}]
    assert {hour: count for hour, count in enumerate(found["by_hour"]) if count} == {11: 30, 13: 40, 23: 5}
    assert found["users"] == [
        {"name": "import", "changes": 40},
        {"name": "ann", "changes": 30},
        {"name": "shop_app", "changes": 5},
    ]
    assert found["tables"] == [{"name": "public.users", "changes": 40}, {"name": "public.orders", "changes": 35}]
    # A night, and a Saturday.
    assert found["off_hours"] == {
        "changes": 45,
        "users": [{"name": "import", "changes": 40}, {"name": "shop_app", "changes": 5}],
    }
    assert found["bulk"] == [
        {
            "at": "2025-11-22T12:00:00Z",
            "table": "public.users",
            "action": "DELETE",
            "rows": 40,
            "changed_by": "import",
            "application": "web",
            "transaction_id": "77",
        }
    ]
    assert found["applications"] == [
        {"name": "web", "changes": 70, "without_user": 0},
        {"name": "psql", "changes": 5, "without_user": 5},
    ]
    assert (found["failures"], found["ddl"], found["logins"], found["refused_logins"]) == (2, 0, 0, 3)


def test_bulk_deletes_that_are_too_small_to_be_listed_are_counted(shop):
    found = trail_of(shop, "activity", bulk_rows=2, since="2026-01-01", until="2026-02-01")["activity"]
    listed = [(bulk["action"], bulk["rows"]) for bulk in found["bulk"]]
    assert (found["bulk_deletes"], listed) == (2 + 1, [*[("INSERT", 3)] * 20, ("TRUNCATE", None)])


def test_activity_reads_the_partitions_of_its_period_once(shop):
    asked = {"since": "2025-11-17", "until": "2025-11-24", "opens": 0, "closes": 9, "over_midnight": False}
    query = info_queries.ACTIVITY.replace("{schema}", "audit")
    with shop.connect().cursor() as cursor:
        cursor.execute(f"EXPLAIN {query}", {**asked, "time_zone": "UTC", "bulk_rows": 10})
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert re.findall(r"Scan (?:using \w+ )?on (audit_log\w*)", plan) == ["audit_log_past"]


def test_office_hours_can_go_over_midnight(shop):
    found = trail_of(shop, "activity", office_hours="20:00-06:00", **PERIOD)["activity"]["off_hours"]
    assert found == {"changes": 70, "users": [{"name": "import", "changes": 40}, {"name": "ann", "changes": 30}]}


def test_partitions_seals_grants_and_settings(shop):
    found = trail_of(shop, "partitions", "seals", "grants", "settings")
    today = datetime.datetime.now(datetime.timezone.utc).date()
    partitions = found["partitions"]
    assert (partitions["interval"], partitions["ahead"]) == ("month", 3)
    assert partitions["until"] > (today + datetime.timedelta(days=80)).isoformat()
    # A year ago there was no log: such records are in a catch-all.
    assert partitions["catch_all_rows"] == RECORDS
    counting = info_queries.CATCH_ALL.replace("{schema}", "audit").replace("%(limit)s", "9")
    counting = counting.replace("%(first)s", "'2026-01-01'").replace("%(last)s", "'2026-01-01'")
    assert (shop.value(counting), COUNT_LIMIT) == (9, 1_000_001)
    listed = {entry["name"]: entry for entry in partitions["list"]}
    assert (listed["audit_log_past"]["from"], listed["audit_log_future"]["to"]) == (None, None)
    assert partitions["growth"][-1]["month"] == today.isoformat()[:7]
    assert partitions["projected_bytes"] > partitions["bytes"] > 0
    seals = found["seals"]
    everything = shop.value("SELECT count(*) FROM audit.audit_log_data")
    assert (seals["rows_sealed"], seals["unsealed_rows"], seals["last_sealed_at"]) == (0, everything, None)
    assert seals["oldest_unsealed_at"].startswith("2025-11-19")
    assert seals["chain"] == shop.value("SELECT chain::text FROM audit.seal_state")
    unexpected = [grant for grant in found["grants"] if not grant["expected"]]
    assert unexpected == []
    assert {"grantee": "audit_writer", "object": "audit_log_data", "privileges": ["INSERT"], "expected": True} in (
        found["grants"]
    )
    assert found["settings"]["partition_interval"] == "month"
    assert found["settings"]["log_connections"] in ("on", "off")


def test_what_is_sealed_and_what_has_come_since(trail, tmp_path):
    first_sealed(trail, tmp_path)
    total = trail.value("SELECT count(*) FROM audit.audit_log_data")
    since = trail.value("SELECT to_char(max(changed_at), 'YYYY-MM-DD') FROM audit.audit_log_data")
    seals = trail_of(trail, "seals")["seals"]
    assert (seals["rows_sealed"], seals["unsealed_rows"], seals["unsigned"]) == (total - 3, 3, 0)
    assert seals["last_number"] > 0
    assert (seals["last_sealed_at"][:10], seals["oldest_unsealed_at"][:10]) == (since, since)


def test_a_grant_that_nobody_is_to_have_is_told(shop):
    role, reader, application = (shop.create_role(name) for name in ("meddler", "reader", "application"))
    install_trail(shop, readers=[reader], applications=[application], events=["ddl", "app"])
    found = trail_of(shop, "grants", "settings")
    assert [grant for grant in found["grants"] if not grant["expected"]] == []
    assert {(application, "set_context()"), (reader, "audit_log")} < {
        (g["grantee"], g["object"]) for g in found["grants"]
    }
    assert found["settings"]["events"] == ["ddl", "app"]
    shop.execute(f"GRANT SELECT, DELETE ON audit.audit_log_data TO {role}")
    shop.execute(f"GRANT SELECT ON audit.hash_key TO {role}; GRANT EXECUTE ON FUNCTION audit.mask TO PUBLIC")
    unexpected = {(g["grantee"], g["object"]) for g in trail_of(shop, "grants")["grants"] if not g["expected"]}
    shop.execute(f"REVOKE ALL ON audit.audit_log_data, audit.hash_key FROM {role}")
    shop.execute("REVOKE EXECUTE ON FUNCTION audit.mask FROM PUBLIC")
    assert unexpected == {(role, "audit_log_data"), (role, "hash_key"), ("PUBLIC", "mask()")}
    # Of the two that record DDL one is not enough, nor is one that replication's sessions do not fire.
    for state in ("DISABLE", "ENABLE"):
        shop.execute(f"ALTER EVENT TRIGGER dbfleet_audit_record_drop {state}")
        assert trail_of(shop, "settings")["settings"]["events"] == ["app"]
    shop.execute("ALTER EVENT TRIGGER dbfleet_audit_record_drop ENABLE ALWAYS")


def test_what_is_proposed_can_be_pasted_and_rolled_out(shop):
    yaml = pytest.importorskip("yaml")
    found = trail_of(shop, discover=True)
    assert "coverage" not in found
    assert [(entry["table"], entry["categories"]) for entry in found["discovery"]] == [
        ("public.patients", ["financial", "health", "personal"]),
        ("public.Odd.Name *", ["financial", "personal"]),
    ]
    columns = {"ssn": "national identifier", "diagnosis": "diagnosis", "card_number": "card number"}
    assert found["discovery"][0]["columns"] == columns
    pasted = yaml.safe_load(found["proposal"])
    assert pasted == [entry["policy"] for entry in found["discovery"]]
    with trail_database(shop.server) as copy:
        copy.execute(
            "CREATE TABLE patients (id int PRIMARY KEY, ssn text, card_number text); "
            'CREATE TABLE "Odd.Name *" ("IBAN" text)'
        )
        assert len(rollout(copy, policies=pasted)["changed_tables"]) == 2
        assert not rollout(copy, policies=pasted).changed
        copy.execute("INSERT INTO patients VALUES (1, '123-45-6789', '4111111111111111')")
        assert "123-45" not in str(copy.execute("SELECT new_values FROM audit.audit_log"))
        assert trail_of(copy, discover=True)["discovery"] == []


def test_a_reader_learns_everything(shop):
    reader = shop.create_role()
    shop.execute(f"GRANT audit_reader TO {reader}")
    mine = facts(shop, login_user=reader, gather=list(PARTS), discover=True, **PERIOD)
    theirs = facts(shop, gather=list(PARTS), discover=True, **PERIOD)["trails"][0]
    assert mine["trails"][0]["limitations"] == []
    assert mine["trails"][0]["activity"] == theirs["activity"]
    assert mine["trails"][0]["coverage"]["audited"] == theirs["coverage"]["audited"] == 2
    assert mine["trails"][0]["partitions"]["catch_all_rows"] == RECORDS


def test_a_stranger_learns_what_catalogues_tell_and_is_told_the_rest(shop):
    stranger = shop.create_role()
    result = facts(shop, login_user=stranger, gather=list(PARTS), **PERIOD)
    found = result["trails"][0]
    assert (found["error"], found["activity"], found["seals"]) == (None, None, None)
    assert found["coverage"]["audited"] == 1
    assert found["partitions"]["ahead"] == 3
    assert f"activity: the login {stranger} may not read it" in found["limitations"]
    assert f"{shop.name}: seals: the login {stranger} may not read it" in result["limitations"]
    assert len(set(found["limitations"])) == len(found["limitations"])


def test_databases_without_a_trail_and_such_that_cannot_be_read_stop_nothing(shop, new_database):
    bare, closed = new_database(shop.server), new_database(shop.server)
    bare.execute("CREATE TABLE clients (id int, iban text)")
    login = bare.create_role()
    bare.execute(f"REVOKE CONNECT ON DATABASE {closed.name} FROM PUBLIC")
    answer = running.run_module(
        MODULE,
        **{**bare.login, "login_user": login, "databases": [bare.name, closed.name]},
        gather=list(PARTS),
        discover=True,
    )
    trails = answer["trails"]
    assert (shop.name in answer["unlisted"], {bare.name, closed.name} & set(answer["unlisted"])) == (True, set())
    assert not {"postgres", "template1"} & set(answer["unlisted"])
    assert closed.name in running.run_module(MODULE, **{**bare.login, "databases": [bare.name]})["unlisted"]
    assert running.run_module(MODULE, **bare.login)["unlisted"] == []
    by_name = {found["database"]: found for found in trails}
    assert sorted(set(by_name[bare.name]) - {"limitations"}) == [
        *("coverage", "database", "discovery", "error", "estimate", "foreign_auditing"),
        *("installed", "proposal", "schema", "schema_version"),
    ]
    assert by_name[bare.name]["installed"] is False
    assert by_name[bare.name]["discovery"][0]["table"] == "public.clients"
    assert "permission denied" in by_name[closed.name]["error"]


def test_a_database_may_have_its_trail_in_another_schema(shop):
    ours = running.run_module(
        MODULE, **shop.login, databases=[shop.name], schema="elsewhere", schemas={shop.name: "audit"}, gather=["seals"]
    )
    assert [(trail["schema"], trail["installed"]) for trail in ours["trails"]] == [("audit", True)]


def test_a_check_that_cannot_be_asked_says_so_and_quotes_no_row(shop):
    queries = {"ratio": "SELECT 'NaN'::float8", "missing": "SELECT count(*) FROM public.nothing"}
    queries["leak"] = "SELECT e.changed_by::int FROM audit.audit_log AS e LIMIT 1"
    checks = [{"name": name, "query": query, "threshold": 1} for name, query in queries.items()]
    checks.append({**checks[0], "name": "misspelt", "databases": ["shpo"]})
    found = {check["name"]: check for check in facts(shop, checks=checks)["checks"]}
    assert [check["database"] for check in found.values() if not check["ok"]] == [*[shop.name] * 3, "shpo"]
    assert "NaN" in found["ratio"]["error"]
    assert found["leak"]["error"] == (
        "the query failed: InvalidTextRepresentation (SQLSTATE 22P02); the message may quote data"
    )
    assert found["missing"]["error"] == 'relation "public.nothing" does not exist'


def test_a_standby_answers_too(shop, pg, pg_standby):
    wait_for_replay(pg, pg_standby)
    with_standby = {**shop.login, "login_unix_socket": str(pg_standby.socket_dir), "login_port": pg_standby.port}
    found = running.run_module(MODULE, **with_standby, databases=[shop.name], gather=list(PARTS), **PERIOD)["trails"][0]
    assert found["activity"]["changes"] == 75
    assert (found["coverage"]["audited"], found["estimate"]["rows_per_day"]) == (2, None)
    assert "standby" in found["estimate"]["basis"]


def test_more_tables_are_no_more_statements(shop):
    def sent() -> int:
        cutter = PostgresqlCutter(shop.server)
        options = {**shop.login, "login_unix_socket": None, **cutter.login, "databases": [shop.name]}
        answer = running.run_module(MODULE, **options, gather=list(PARTS), discover=True)
        assert answer["trails"][0]["error"] is None
        cutter.close()
        return cutter.statements

    few = sent()
    shop.execute(_MANY % "CREATE TABLE many_%s (id int PRIMARY KEY, email text)")
    many = sent()
    shop.execute(_MANY % "DROP TABLE many_%s")
    assert 10 < few == many < 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"office_hours": "9 to 5"}, "office_hours: '9 to 5' are none"),
        ({"since": "2026-02-01", "until": "2026-01-01"}, "is not before until"),
        ({"time_zone": "Berlin"}, "time_zone: 'Berlin' is none that the server knows"),
        ({"bulk_rows": 0}, "bulk_rows: 0 is no number of rows"),
        ({"exceptions": [LOAD]}, "exceptions[0]: 'public.load' is not database.schema.table"),
    ],
)
def test_options_that_cannot_be_meant_so(shop, options, message):
    result = facts(shop, gather=["activity"], may_fail=True, **options)
    assert result.failed
    assert message in result.msg
