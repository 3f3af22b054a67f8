# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Records of a table are taken back to what they were: by SQL that is printed, or executed when asked."""

from __future__ import annotations

import time

import pytest
import running
from auditing import records, rollout, wanted
from databases import Database, fetch
from undoing import audited, kinds, now, psql, refusal, rows, undo


@pytest.fixture
def shop(trail: Database) -> Database:
    """Return a database with an audited table of three users."""
    trail.execute("CREATE TABLE users (id int PRIMARY KEY, name text, email text UNIQUE, age int)")
    rollout(trail, policies=[wanted("public.*")])
    trail.execute("INSERT INTO users VALUES (1, 'Ann', 'a@x', 30), (2, 'Bob', 'b@x', 40), (3, 'Cat', NULL, NULL)")
    return trail


def mix(db: Database) -> str:
    """Delete one user, change one, make one; return the time before that."""
    at = now(db)
    db.execute("DELETE FROM users WHERE id = 1")
    db.execute("UPDATE users SET name = 'Eve', age = NULL WHERE id = 2")
    db.execute("UPDATE users SET name = 'Eva' WHERE id = 2")
    db.execute("INSERT INTO users VALUES (4, 'Dan', 'a@x', 4)")
    return at


def test_printed_sql_restores_what_was_deleted_changed_and_inserted(shop):
    before = rows(shop)
    at = mix(shop)
    changed = rows(shop)
    result = undo(shop, to=at, diff_mode=True)
    assert kinds(result) == [("4", "inserted", "DELETE"), ("2", "changed", "UPDATE"), ("1", "deleted", "INSERT")]
    assert (result.changed, result["executed"], result["skipped"]) == (False, False, [])
    assert "age" in result["statements"][1]
    assert "email" not in result["statements"][1]
    assert result["diff"]["after"] == "".join(f"{text}\n" for text in result["statements"])
    assert rows(shop) == changed
    assert psql(shop, result["statements"]).split("\n") == ["DELETE 1", "UPDATE 1", "INSERT 0 1", ""]
    assert rows(shop) == before


def test_execution_is_audited_and_a_second_run_finds_nothing_to_do(shop):
    before = rows(shop)
    at = mix(shop)
    predicted = undo(shop, to=at, execute=True, check_mode=True)
    assert (predicted.changed, predicted["executed"]) == (True, False)
    last = records(shop)[-1].id
    result = undo(shop, to=at, execute=True)
    assert (result.changed, result["executed"], result["statements"]) == (True, True, predicted["statements"])
    assert rows(shop) == before
    log = [record for record in records(shop) if record.id > last]
    assert [(record.action, record.record_id) for record in log] == [("DELETE", "4"), ("UPDATE", "2"), ("INSERT", "1")]
    assert {record.context["business_process"] for record in log} == {"audit undo"}
    assert {record.context["undo_to"] for record in log} == {f"{at}Z"}
    assert {record.changed_by for record in log} == {"postgres"}
    assert len({record.transaction_id for record in log}) == 1
    again = undo(shop, to=at, execute=True)
    assert (again.changed, again["executed"], again["statements"], again["records"]) == (False, False, [], [])


def test_an_undo_can_be_undone_by_its_transaction(shop):
    at = mix(shop)
    changed = rows(shop)
    undo(shop, to=at, execute=True)
    transaction = records(shop)[-1].transaction_id
    undo(shop, transaction_id=transaction, execute=True)
    assert rows(shop) == changed
    assert undo(shop, transaction_id=transaction)["statements"] == []


def test_only_the_records_that_are_named(shop):
    at = mix(shop)
    result = undo(shop, to=at, record_ids=["2", "3"])
    assert kinds(result) == [("2", "changed", "UPDATE")]
    assert result["skipped"] == [{"record_id": "3", "reason": "no such change in the log"}]


def by(db: Database, user: str, *statements: str) -> None:
    """Execute statements in one transaction as a user of the application."""
    session = db.connect(autocommit=False)
    fetch(session, "SELECT audit.set_context(%s)", f'{{"user": "{user}"}}')
    for statement in statements:
        fetch(session, statement)
    session.commit()
    session.close()


def test_only_what_one_user_has_changed(shop):
    at = now(shop)
    by(shop, "ann", "UPDATE users SET age = 1", "DELETE FROM users WHERE id = 3")
    by(shop, "bob", "UPDATE users SET name = 'Bert' WHERE id = 2", "INSERT INTO users VALUES (5, 'Pat')")
    by(shop, "ann", "INSERT INTO users VALUES (6, 'Sue')")
    undo(shop, to=at, changed_by="ann", execute=True)
    assert rows(shop) == ["(1,Ann,a@x,30)", "(2,Bert,b@x,40)", "(3,Cat,,)", "(5,Pat,,)"]


def test_a_record_that_another_user_has_changed_again_is_skipped(shop):
    at = now(shop)
    by(shop, "ann", "UPDATE users SET age = 1", "INSERT INTO users VALUES (6, 'Sue')")
    by(shop, "bob", "UPDATE users SET age = 2 WHERE id = 2", "UPDATE users SET age = 7 WHERE id = 6")
    result = undo(shop, to=at, changed_by="ann")
    assert [entry["record_id"] for entry in result["records"]] == ["3", "1"]
    later = {record.record_id: record.changed_at for record in records(shop) if record.changed_by == "bob"}
    assert result["skipped"] == [
        {"record_id": record, "reason": f"changed again by bob at {later[record]:%Y-%m-%dT%H:%M:%S.%f}Z"}
        for record in ("2", "6")
    ]


def test_one_transaction(shop):
    before = rows(shop)
    by(shop, "ann", "UPDATE users SET age = 1 WHERE id < 3", "DELETE FROM users WHERE id = 1")
    transaction = records(shop)[-1].transaction_id
    shop.execute("UPDATE users SET name = 'Bert' WHERE id = 2")
    undo(shop, transaction_id=transaction, execute=True)
    assert rows(shop) == [row.replace("Bob", "Bert") for row in before]
    assert "no change of public.users by transaction '1'" in refusal(shop, transaction_id="1")
    assert "'x1' is no transaction" in refusal(shop, transaction_id="x1")


def test_columns_that_were_dropped_and_added_since(shop):
    at = mix(shop)
    shop.execute("ALTER TABLE users DROP COLUMN age, ADD COLUMN city text NOT NULL DEFAULT 'Rome'")
    result = undo(shop, to=at, execute=True)
    assert "-- not restored: age (no longer a column)\nUPDATE" in "\n".join(result["statements"])
    assert "-- not restored: city (not recorded), age (no longer a column)\nINSERT" in "\n".join(result["statements"])
    assert rows(shop) == ["(1,Ann,a@x,Rome)", "(2,Bob,b@x,Rome)", "(3,Cat,,Rome)"]


def test_the_order_follows_references_within_the_table(trail):
    at = audited(
        trail,
        "CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree, name text UNIQUE)",
        "INSERT INTO tree VALUES (1, NULL, 'a'), (2, 1, 'b'), (3, 2, 'c')",
    )
    before = rows(trail, "tree")
    trail.execute("DELETE FROM tree WHERE id = 3")
    trail.execute("DELETE FROM tree WHERE id = 2")
    trail.execute("INSERT INTO tree VALUES (4, 1, 'b')")
    trail.execute("INSERT INTO tree VALUES (5, 4, 'c')")
    undo(trail, "public.tree", to=at, execute=True)
    assert rows(trail, "tree") == before


def test_sql_that_was_printed_does_not_overwrite_a_newer_change(shop):
    at = mix(shop)
    statements = undo(shop, to=at)["statements"]
    shop.execute("UPDATE users SET name = 'Newer' WHERE id IN (2, 4)")
    assert psql(shop, statements[:2]).split() == ["DELETE", "0", "UPDATE", "0"]


def test_a_change_that_comes_in_between_takes_everything_back(shop):
    at = mix(shop)
    before = rows(shop)
    other = shop.connect(autocommit=False)
    fetch(other, "UPDATE users SET name = 'Newer' WHERE id = 2")
    options = {**shop.login, "table": "public.users", "to": at, "execute": True}
    process = running.start_module("postgresql_audit_undo", **options, lock_timeout=60)
    wait_for_lock(shop)
    other.commit()
    result = running.finish_module(process)
    assert result.msg == (
        "public.users: record 2 (UPDATE): it was changed in the meantime, or a trigger or rule of the table refused "
        "it; nothing was changed"
    )
    assert rows(shop) == [row.replace("Eva", "Newer") for row in before]


def wait_for_lock(db: Database) -> None:
    """Wait until the module's session waits for a lock."""
    deadline = time.monotonic() + 30
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
    while not db.value(query, db.name):
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.02)


def test_a_record_that_stays_locked_takes_everything_back(shop):
    at = mix(shop)
    before = rows(shop)
    other = shop.connect(autocommit=False)
    fetch(other, "SELECT FROM users WHERE id = 2 FOR UPDATE")
    message = refusal(shop, to=at, execute=True, lock_timeout=0.1, lock_retries=1)
    assert "public.users: record 2 (UPDATE): locked by another session" in message
    other.rollback()
    assert rows(shop) == before


@pytest.mark.parametrize("deferred", ["", " DEFERRABLE INITIALLY DEFERRED"])
def test_a_violated_foreign_key_is_named_and_nothing_is_changed(trail, deferred):
    at = audited(
        trail,
        f"""
        CREATE TABLE teams (id int PRIMARY KEY);
        CREATE TABLE members (id int PRIMARY KEY, team int REFERENCES teams{deferred});
        """,
        "INSERT INTO teams VALUES (1), (2)",
        "INSERT INTO members VALUES (1, 1), (2, 2)",
    )
    trail.execute("DELETE FROM members")
    trail.execute("DELETE FROM teams WHERE id = 2")
    message = refusal(trail, "public.members", to=at, execute=True)
    assert 'violates foreign key constraint "members_team_fkey"' in message
    assert "Key (team)=(2)" in message
    assert message.endswith("nothing was changed")
    assert ("record 2 (INSERT)" in message) is not bool(deferred)
    assert rows(trail, "members") == []


def test_a_policy_that_requires_a_user_gets_the_login(trail):
    trail.execute("CREATE TABLE users (id int PRIMARY KEY)")
    rollout(trail, policies=[wanted("public.users", require_context=["changed_by", "business_process"])])
    at = now(trail)
    session = trail.connect(autocommit=False)
    fetch(session, """SELECT audit.set_context('{"user": "ann", "business_process": "test"}')""")
    fetch(session, "INSERT INTO users VALUES (1)")
    session.commit()
    undo(trail, to=at, execute=True)
    assert rows(trail) == []


def test_too_many_records_are_refused(shop):
    at = mix(shop)
    message = refusal(shop, to=at, limit=2, execute=True)
    assert "public.users: 3 records would have to be undone, more than limit (2)" in message
    assert len(undo(shop, to=at, limit=3)["records"]) == 3


def test_rows_lost_by_truncate_are_not_passed_over(shop):
    at = now(shop)
    shop.execute("DELETE FROM users WHERE id = 1")
    shop.execute("TRUNCATE users")
    truncated = records(shop)[-1].changed_at
    message = refusal(shop, to=at)
    assert f"public.users: postgres truncated it at {truncated:%Y-%m-%dT%H:%M:%S.%f}Z" in message
    assert undo(shop, to=now(shop))["statements"] == []


def test_a_key_that_was_renamed_since_is_refused(shop):
    at = mix(shop)
    shop.execute("ALTER TABLE users RENAME COLUMN id TO number")
    assert "the log has no column number, by which a record is found now" in refusal(shop, to=at)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"table": "public.nobody"}, "table: 'public.nobody' names no table of database"),
        ({"table": "users"}, "names no table"),
        ({"table": "public.keyless"}, "public.keyless: has no primary key"),
        ({"table": "public.seen"}, "is a view"),
        ({"to": "yesterday"}, "to: 'yesterday' is no time"),
        ({"to": "2999-01-01"}, "to: '2999-01-01' lies in the future"),
        ({"record_ids": []}, "record_ids: is empty"),
        ({"limit": 0}, "limit: 0 is less than 1"),
        ({"schema": "nowhere"}, "no audit trail in schema 'nowhere'"),
        ({"to": None}, "to: is required, unless transaction_id says what to undo"),
    ],
)
def test_bad_input_is_refused_by_name(shop, options, words):
    shop.execute("CREATE TABLE keyless (name text); CREATE VIEW seen AS SELECT * FROM users")
    assert words in refusal(shop, **{"to": "1h", **options})


def test_a_table_that_is_not_audited_any_more_is_warned_of(shop):
    at = mix(shop)
    assert "warnings" not in undo(shop, to=at)
    rollout(shop, policies=[], purge=True)
    assert "is not audited now" in str(undo(shop, to=at)["warnings"])


def test_a_reader_who_owns_the_table_needs_no_other_rights(shop):
    owner = shop.create_role()
    shop.execute(f"ALTER TABLE users OWNER TO {owner}; GRANT audit_reader TO {owner}")
    before = rows(shop)
    at = mix(shop)
    undo(shop, to=at, execute=True, login_user=owner)
    assert rows(shop) == before
    assert records(shop)[-1].db_user == owner
