# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is asked for is either done, reported as not done, or refused in one clear sentence before anything changes."""

from __future__ import annotations

import datetime
import typing as t

import pytest
from auditing import records, refusal, rollout, trail_database, wanted
from databases import Database
from local_postgresql import LocalPostgresql

TABLES = """
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE orders (id int PRIMARY KEY, total numeric);
CREATE TABLE tmp_load (id int PRIMARY KEY);
CREATE VIEW user_names AS SELECT name FROM users;
CREATE MATERIALIZED VIEW totals AS SELECT sum(total) AS total FROM orders;
CREATE SCHEMA billing;
CREATE TABLE billing.invoices (id int PRIMARY KEY);
CREATE TABLE billing.import_1 (id int PRIMARY KEY);
CREATE EXTENSION postgres_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
CREATE FOREIGN TABLE remote (id int) SERVER far;
"""


@pytest.fixture(scope="module")
def shop(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database of which nothing is audited; for tests that change nothing."""
    with trail_database(pg) as database:
        database.execute(TABLES)
        yield database


@pytest.fixture
def own(trail: Database) -> Database:
    """Return a database with the same tables for one test."""
    trail.execute(TABLES)
    return trail


def exempt(table: str, **keys: t.Any) -> dict[str, t.Any]:
    return {"table": table, "reason": "nightly load", "approved_by": "dpo", **keys}


MISTAKES: dict[str, tuple[dict[str, t.Any], list[str]]] = {
    "unknown key": ({"policies": [wanted("public.users", xyz=1)]}, ["policies[0]", "'xyz'", "operations"]),
    "typo in a key": ({"policies": [wanted("public.users", operation=["insert"])]}, ["did you mean 'operations'"]),
    "typo in a columns key": (
        {"policies": [wanted("public.users", columns={"redacted": ["name"]})]},
        ["columns", "did you mean 'redact'"],
    ),
    "no tables": ({"policies": [{"when": "true"}]}, ["policies[0]", "`tables` is missing"]),
    "not a pattern": ({"policies": [wanted("users")]}, ["'users'", "schema.table"]),
    "unknown operation": ({"policies": [wanted("public.users", operations=["upsert"])]}, ["'upsert'", "truncate"]),
    "unknown choice": ({"policies": [wanted("public.users", capture="rows")]}, ["`capture`", "'rows'", "statement"]),
    "only and exclude": (
        {"policies": [wanted("public.users", columns={"only": ["id"], "exclude": ["name"]})]},
        ["`only`", "`exclude`"],
    ),
    "redact and hash": (
        {"policies": [wanted("public.users", columns={"redact": ["name"], "hash": ["name"]})]},
        ["'name'", "`redact`", "`hash`"],
    ),
    "same pattern twice": (
        {"policies": [wanted("public.users"), wanted("public.orders", "public.users", name="b")]},
        ["policies[0]", "policies[1]", "'public.users'"],
    ),
    "same pattern twice in one": ({"policies": [wanted("public.users", "public.users")]}, ["'public.users' twice"]),
    "same name twice": (
        {"policies": [wanted("public.users", name="a"), wanted("public.orders", name="a")]},
        ["both named 'a'"],
    ),
    "no such table": ({"policies": [wanted("public.users", "public.user")]}, ["'public.user'", "allow_missing"]),
    "no such schema": ({"policies": [wanted("biling.*")]}, ["'biling.*'", "matches no table"]),
    "no such column": (
        {"policies": [wanted("public.*", columns={"redact": ["name", "nmae"]})]},
        ["'nmae'", "public.users"],
    ),
    "a view by name": ({"policies": [wanted("public.user_names")]}, ["'public.user_names'", "a view"]),
    "a materialised view": ({"policies": [wanted("public.totals")]}, ["'public.totals'", "materialised view"]),
    "a foreign table": ({"policies": [wanted("public.remote")]}, ["'public.remote'", "foreign table"]),
    "the trail itself": ({"policies": [wanted("audit.policy")]}, ["'audit.policy'", "matches no table"]),
    "a system table": ({"policies": [wanted("pg_catalog.*")]}, ["'pg_catalog.*'", "matches no table"]),
    "bad until": (
        {"policies": [wanted("public.*")], "exceptions": [exempt("public.tmp_load", until="31.3.2027")]},
        ["exceptions[0]", "'31.3.2027'"],
    ),
    "bad context key": ({"policies": [wanted("public.users", require_context=["Who?"])]}, ["'Who?'"]),
}


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_error_before_anything_changes(shop, mistake, check_mode):
    options, words = MISTAKES[mistake]
    message = refusal(shop, check_mode=check_mode, **options)
    for word in (shop.name, *words):
        assert word in message
    assert shop.value("SELECT count(*) FROM audit.policy") == 0
    assert shop.value("SELECT count(*) FROM pg_proc WHERE proname LIKE 'capture_%'") == 0


def test_without_a_trail_the_error_says_what_to_run_first(db):
    db.execute("CREATE TABLE users (id int)")
    assert "postgresql_audit_trail" in refusal(db, policies=[wanted("public.users")])


def test_what_a_wildcard_cannot_audit_is_skipped_and_named(own):
    result = rollout(own, policies=[wanted("*.*", exclude=["billing.import_*"])])
    skipped = {entry["table"]: entry["reason"] for entry in result["skipped_tables"]}
    assert set(skipped) == {"public.user_names", "public.totals", "public.remote"}
    assert skipped["public.user_names"].startswith("a view")
    assert result["changed_tables"] == ["billing.invoices", "public.orders", "public.tmp_load", "public.users"]
    assert (result["audited"], result["auditable"]) == (4, 5)


def test_the_first_policy_that_matches_wins(own):
    policies = [
        wanted("public.users", operations=["delete"], classification="restricted", retention="hr", tags=["GDPR"]),
        wanted("public.*", operations=["insert"]),
    ]
    rollout(own, policies=policies)
    own.execute("INSERT INTO users VALUES (1, 'ann'); DELETE FROM users; INSERT INTO orders VALUES (1, 2)")
    done = [(record.table_name, record.action, record.policy_id) for record in records(own)]
    assert [entry[:2] for entry in done] == [("users", "DELETE"), ("orders", "INSERT")]
    kept = "SELECT name, classification, retention, tags FROM audit.policy WHERE policy_id = %s"
    assert own.execute(kept, done[0][2]) == [("public.users", "restricted", "hr", ["GDPR"])]
    assert own.value(kept, done[1][2]) == "public.*"


def test_every_version_of_a_policy_is_kept_and_records_say_which_was_in_force(own):
    for operations in (["insert", "update"], ["insert"]):
        rollout(own, policies=[wanted("public.users", operations=operations)])
        own.execute("INSERT INTO users SELECT count(*), 'x' FROM users")
    rollout(own, policies=[])
    versions = own.execute(
        "SELECT policy_id, definition -> 'operations', valid_to IS NULL FROM audit.policy ORDER BY valid_from"
    )
    assert [version[1:] for version in versions] == [(["insert", "update"], False), (["insert"], False)]
    assert [record.policy_id for record in records(own)] == [version[0] for version in versions]
    assert own.value(
        "SELECT bool_and(a.valid_to <= b.valid_from) FROM audit.policy a JOIN audit.policy b "
        "ON b.policy_id > a.policy_id"
    )


def test_a_pattern_may_wait_for_its_table(own):
    options = {"policies": [wanted("public.users", "later.*", columns={"redact": ["name"]})], "allow_missing": True}
    assert rollout(own, **options)["changed_tables"] == ["public.users"]
    own.execute("CREATE SCHEMA later; CREATE TABLE later.things (id int PRIMARY KEY)")
    assert rollout(own, **options)["changed_tables"] == ["later.things"]
    assert not rollout(own, **options).changed


def test_a_column_need_be_in_one_of_the_tables_only(own):
    rollout(own, policies=[wanted("public.*", columns={"redact": ["name"]})])
    own.execute("INSERT INTO users VALUES (1, 'ann'); INSERT INTO orders VALUES (1, 2)")
    assert [record.new_values for record in records(own)] == [{"id": 1, "name": "[REDACTED]"}, {"id": 1, "total": 2}]


def test_exceptions_are_not_audited_and_reported_until_they_expire(own):
    today = datetime.datetime.now(datetime.timezone.utc).date()
    yesterday = str(today - datetime.timedelta(days=1))
    exceptions = [
        exempt("public.tmp_load", until=str(today)),
        exempt("billing.import_*", until=yesterday),
        exempt("public.orders"),
    ]
    result = rollout(own, policies=[wanted("*.*")], exceptions=exceptions)
    assert result["changed_tables"] == ["billing.invoices", "public.users"]
    reported = {entry["table"]: (entry["until"], entry["expired"]) for entry in result["exceptions"]}
    assert reported == {
        "public.tmp_load": (str(today), False),
        "billing.import_1": (yesterday, True),
        "public.orders": (None, False),
    }
    assert {entry["approved_by"] for entry in result["exceptions"]} == {"dpo"}


def test_an_exception_that_matches_no_table_is_named_in_a_warning(own):
    """It may be for another database, but it may as well be a typing error."""
    result = rollout(own, policies=[wanted("public.users")], exceptions=[exempt("public.tmp_lod")])
    assert "'public.tmp_lod' matches no table" in str(result["warnings"])


def test_an_exception_takes_the_triggers_off_again(own):
    policies = [wanted("public.users", "public.orders")]
    rollout(own, policies=policies)
    assert rollout(own, policies=policies, exceptions=[exempt("public.users")]).changed
    own.execute("INSERT INTO users VALUES (1, 'ann'); INSERT INTO orders VALUES (1, 1)")
    assert [record.table_name for record in records(own)] == ["orders"]


def test_a_table_without_a_key_is_audited_with_a_warning(own):
    own.execute("CREATE TABLE loose (name text)")
    result = rollout(own, policies=[wanted("public.loose")])
    assert "public.loose has no key" in str(result["warnings"])


def test_a_quoted_name_is_exact(own):
    own.execute('CREATE TABLE "a.b*" (id int PRIMARY KEY); CREATE TABLE "a.bc" (id int PRIMARY KEY)')
    assert rollout(own, policies=[wanted('public."a.b*"')])["changed_tables"] == ["public.a.b*"]


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE fresh (id int PRIMARY KEY)", "CREATE SCHEMA fresh CREATE TABLE fresh (id int PRIMARY KEY)"],
    ids=["table", "schema"],
)
def test_auto_attach_audits_a_table_from_its_first_row(own, statement):
    policies = [wanted("*.fresh", auto_attach=True)]
    rollout(own, policies=policies, allow_missing=True)
    own.execute(statement)
    own.execute(f"INSERT INTO {'fresh.fresh' if 'SCHEMA' in statement else 'fresh'} VALUES (1)")
    assert [(record.table_name, record.record_id) for record in records(own)] == [("fresh", "1")]
    assert not rollout(own, policies=policies).changed


def test_a_table_whose_column_differs_from_the_named_one_in_case_is_warned_of_once(trail):
    trail.execute('CREATE TABLE a (id int PRIMARY KEY, ssn text); CREATE TABLE b (id int PRIMARY KEY, "SSN" text)')
    policy = {"tables": ["public.*"], "columns": {"redact": ["ssn"]}}
    (said,) = map(str, rollout(trail, policies=[policy])["warnings"])
    assert "public.b: policy 'public.*' names 'ssn', which to the server is another column than its 'SSN'" in said
    named = {**policy, "columns": {"redact": ["ssn", "SSN"]}}
    assert not rollout(trail, policies=[named]).get("warnings")
