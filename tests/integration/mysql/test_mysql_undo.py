# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Records of a table are taken back to what they were: by SQL that is printed, or executed when asked."""

from __future__ import annotations

import time
import typing as t

import pytest
import running
from mysql_auditing import audit, records
from mysql_databases import Schema, fetch, quote_name


@pytest.fixture
def users(shop: Schema) -> Schema:
    """Return a database with an audited table of three users."""
    shop.execute("CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(20), email VARCHAR(20) UNIQUE, age INT)")
    audit(shop)
    shop.execute("INSERT INTO users VALUES (1, 'Ann', 'a@x', 30), (2, 'Bob', 'b@x', 40), (3, 'Cat', NULL, NULL)")
    return shop


def audited(shop: Schema, table: str, *fill: str, **keys: t.Any) -> str:
    """Make a table, audit and fill it, and return the time after that."""
    shop.execute(table)
    audit(shop, **keys)
    for statement in fill:
        shop.execute(statement)
    return now(shop)


def now(shop: Schema) -> str:
    """Return the server's time; what was done by now stays."""
    return str(shop.value("SELECT CAST(UTC_TIMESTAMP(6) AS CHAR)"))


def undo(shop: Schema, table: str = "users", **options: t.Any) -> running.ModuleResult:
    return running.run_module("mysql_audit_undo", **{**shop.login, "table": f"{shop.name}.{table}", **options})


def refusal(shop: Schema, table: str = "users", **options: t.Any) -> str:
    """Return the message of an undo that must fail."""
    result = undo(shop, table, may_fail=True, **options)
    assert result.failed, result
    return result.msg


def rows(shop: Schema, table: str = "users") -> list[tuple[t.Any, ...]]:
    return shop.execute(f"SELECT * FROM {quote_name(table)} ORDER BY 1, 2")


def client(shop: Schema, statements: list[str]) -> list[int]:
    """Run printed SQL in a session like that of the command-line client; return how many rows each statement met."""
    with shop.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET time_zone = '-07:30', sql_mode = 'TRADITIONAL'")
        return [cursor.execute(statement) for statement in statements]


def kinds(result: running.ModuleResult) -> list[tuple[str, str, str]]:
    return [(entry["record_id"], entry["now"], entry["restore"]) for entry in result["records"]]


def mix(shop: Schema) -> str:
    """Delete one user, change one, make one; return the time before that."""
    at = now(shop)
    shop.execute("DELETE FROM users WHERE id = 1")
    shop.execute("UPDATE users SET name = 'BOB', age = NULL WHERE id = 2")
    shop.execute("UPDATE users SET name = 'Eva' WHERE id = 2")
    shop.execute("INSERT INTO users VALUES (4, 'Dan', 'a@x', 4)")
    return at


def test_printed_sql_restores_what_was_deleted_changed_and_inserted(users):
    before = rows(users)
    at = mix(users)
    changed = rows(users)
    result = undo(users, to=at, diff_mode=True)
    assert kinds(result) == [("4", "inserted", "DELETE"), ("2", "changed", "UPDATE"), ("1", "deleted", "INSERT")]
    assert (result.changed, result["executed"], result["skipped"]) == (False, False, [])
    assert "email" not in result["statements"][2]
    assert result["diff"]["after"] == "".join(f"{text}\n" for text in result["statements"])
    assert rows(users) == changed
    assert client(users, result["statements"]) == [0, 1, 1, 1]
    assert rows(users) == before


def test_execution_is_audited_and_a_second_run_finds_nothing_to_do(users):
    before = rows(users)
    at = mix(users)
    predicted = undo(users, to=at, execute=True, check_mode=True)
    assert (predicted.changed, predicted["executed"]) == (True, False)
    last = records(users)[-1].id
    result = undo(users, to=at, execute=True)
    assert (result.changed, result["executed"], result["statements"]) == (True, True, predicted["statements"])
    assert rows(users) == before
    log = [record for record in records(users) if record.id > last]
    assert [(record.action, record.record_id) for record in log] == [("DELETE", "4"), ("UPDATE", "2"), ("INSERT", "1")]
    assert {record.context["business_process"] for record in log} == {"audit undo"}
    assert {record.context["undo_to"] for record in log} == {at.replace(" ", "T") + "Z"}
    assert {record.changed_by for record in log} == {users.server.user}
    again = undo(users, to=at, execute=True)
    assert (again.changed, again["executed"], again["statements"], again["records"]) == (False, False, [], [])
    (transaction,) = {record.transaction_id for record in log}
    assert len(undo(users, transaction_id=transaction)["records"]) == 3
    assert "no change of" in refusal(users, transaction_id="1")


def test_only_the_records_that_are_named(users):
    at = mix(users)
    result = undo(users, to=at, record_ids=["2", "3"])
    assert kinds(result) == [("2", "changed", "UPDATE")]
    assert result["skipped"] == [{"record_id": "3", "reason": "no such change in the log"}]


def by(shop: Schema, user: str, *statements: str) -> None:
    """Execute statements as a user of the application."""
    with shop.connect() as connection:
        fetch(connection, "SET @audit_user = %s", user)
        for statement in statements:
            fetch(connection, statement)


def test_only_what_one_user_has_changed_unless_another_has_changed_it_again(users):
    at = now(users)
    by(users, "ann", "UPDATE users SET age = 1", "DELETE FROM users WHERE id = 3")
    by(users, "bob", "UPDATE users SET name = 'Bert' WHERE id = 2", "UPDATE users SET age = 2 WHERE id = 1")
    result = undo(users, to=at, changed_by="ann", execute=True)
    assert rows(users) == [(1, "Ann", "a@x", 2), (2, "Bert", "b@x", 40), (3, "Cat", None, None)]
    (later,) = (record for record in records(users) if (record.changed_by, record.record_id) == ("bob", "1"))
    reason = f"changed again by bob at {later.changed_at:%Y-%m-%dT%H:%M:%S.%f}Z"
    assert result["skipped"] == [{"record_id": "1", "reason": reason}]


def test_what_the_log_does_not_hold_is_named_and_left_alone(shop):
    at = audited(
        shop,
        "CREATE TABLE staff (id INT PRIMARY KEY, name TEXT, ssn TEXT, pin TEXT, "
        "note INT NOT NULL DEFAULT 7, big LONGTEXT)",
        "INSERT INTO staff VALUES (1, 'Ann', '1', '11', 1, '')",
        "INSERT INTO staff VALUES (2, 'Bob', '2', '22', 2, ''), (3, 'Cat', '3', '33', 3, '')",
        "UPDATE staff SET big = REPEAT('x', 9000000) WHERE id = 3",
        columns={"hash": ["ssn"], "redact": ["pin"], "exclude": ["note"]},
    )
    shop.execute("DELETE FROM staff WHERE id = 1")
    shop.execute("UPDATE staff SET name = 'Eve', ssn = '9' WHERE id = 2")
    shop.execute("UPDATE staff SET big = '' WHERE id = 3")
    result = undo(shop, "staff", to=at, execute=True)
    _session, update, insert = result["statements"]
    assert update.startswith("-- not restored: ssn (hashed)\nUPDATE")
    assert insert.startswith("-- not restored: ssn (hashed), pin (redacted), note (not recorded)\nINSERT")
    reason = "only what the log does not hold was changed: big (too large)"
    assert result["skipped"] == [{"record_id": "3", "reason": reason}]
    assert rows(shop, "staff")[:2] == [(1, "Ann", None, None, 7, ""), (2, "Bob", "9", "22", 2, "")]


def test_an_insert_that_lacks_a_column_is_skipped(shop):
    at = audited(
        shop,
        "CREATE TABLE staff (id INT PRIMARY KEY, ssn VARCHAR(9) NOT NULL)",
        "INSERT INTO staff VALUES (1, '1')",
        columns={"hash": ["ssn"]},
    )
    shop.execute("DELETE FROM staff")
    reason = "an INSERT needs what the log does not hold: ssn (hashed)"
    assert undo(shop, "staff", to=at)["skipped"] == [{"record_id": "1", "reason": reason}]


def test_columns_that_were_dropped_and_added_since(users):
    at = mix(users)
    users.execute("ALTER TABLE users DROP COLUMN age, ADD COLUMN city VARCHAR(9) NOT NULL DEFAULT 'Rome'")
    audit(users)
    result = undo(users, to=at, execute=True)
    text = "\n".join(result["statements"])
    assert "-- not restored: age (no longer a column)\nUPDATE" in text
    assert "-- not restored: city (not recorded), age (no longer a column)\nINSERT" in text
    assert rows(users) == [(1, "Ann", "a@x", "Rome"), (2, "Bob", "b@x", "Rome"), (3, "Cat", None, "Rome")]


def test_keys_of_every_form_and_odd_names(shop):
    odd = 'Weird `"Table" {x} %s; --\nend'
    name = quote_name(odd)
    at = audited(
        shop,
        f"CREATE TABLE {name} (region VARCHAR(9), number DECIMAL(5, 2), {name} TEXT, PRIMARY KEY (number, region))",
        f"INSERT INTO {name} VALUES ('eu', 1.50, 'a'), ('us', 1.50, 'b'), ('jp', 2, 'c')",
        columns={"redact": []},
    )
    before = rows(shop, odd)
    shop.execute(f"DELETE FROM {name} WHERE region = 'us'")
    shop.execute(f"UPDATE {name} SET {name} = 'x', region = 'EU' WHERE region = 'eu'")
    shop.execute(f"UPDATE {name} SET number = 3 WHERE region = 'jp'")
    result = undo(shop, odd, to=at)
    assert [entry["restore"] for entry in result["records"]] == ["UPDATE", "UPDATE", "INSERT"]
    client(shop, result["statements"])
    assert rows(shop, odd) == before
    assert undo(shop, odd, to=at)["statements"] == []


def test_a_policy_that_records_only_one_column(shop):
    at = audited(
        shop,
        "CREATE TABLE pay (id INT PRIMARY KEY, name TEXT, salary INT)",
        "INSERT INTO pay VALUES (1, 'Ann', 10)",
        columns={"only": ["salary"]},
        update_image="changed",
    )
    shop.execute("UPDATE pay SET salary = 20, name = 'Eve'")
    undo(shop, "pay", to=at, execute=True)
    assert rows(shop, "pay") == [(1, "Eve", 10)]


def test_sql_that_was_printed_does_not_overwrite_a_newer_change(users):
    at = mix(users)
    statements = undo(users, to=at)["statements"]
    # Equal to the collation.
    users.execute("UPDATE users SET name = UPPER(name) WHERE id IN (2, 4)")
    assert client(users, statements[:3]) == [0, 0, 0]


def test_a_change_that_comes_in_between_takes_everything_back(users):
    at = mix(users)
    before = rows(users)
    other = users.connect(autocommit=False)
    fetch(other, "UPDATE users SET name = 'Newer' WHERE id = 2")
    options = {**users.login, "table": f"{users.name}.users", "to": at, "execute": True}
    process = running.start_module("mysql_audit_undo", **options, lock_timeout=60)
    wait_for_lock(users)
    other.commit()
    result = running.finish_module(process)
    expected = "users: record 2 (UPDATE): it was changed in the meantime; nothing was changed"
    assert result.msg == f"{users.name}.{expected}"
    assert rows(users) == [tuple("Newer" if value == "Eva" else value for value in row) for row in before]


def wait_for_lock(shop: Schema) -> None:
    """Wait until the module's session waits for the row."""
    deadline = time.monotonic() + 30
    query = "SELECT COUNT(*) FROM information_schema.processlist WHERE command = 'Query' AND info LIKE 'UPDATE `t_%'"
    while not shop.value(query):
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.02)
    time.sleep(0.2)


def test_a_record_that_stays_locked_takes_everything_back(users):
    at = mix(users)
    before = rows(users)
    other = users.connect(autocommit=False)
    fetch(other, "SELECT * FROM users WHERE id = 2 FOR UPDATE")
    message = refusal(users, to=at, execute=True, lock_timeout=1, lock_retries=0)
    assert f"{users.name}.users: record 2 (UPDATE): locked by another session" in message
    other.rollback()
    assert rows(users) == before


def test_a_violated_foreign_key_is_named_and_nothing_is_changed(shop):
    shop.execute("CREATE TABLE teams (id INT PRIMARY KEY)")
    at = audited(
        shop,
        "CREATE TABLE members (id INT PRIMARY KEY, team INT, "
        "CONSTRAINT in_team FOREIGN KEY (team) REFERENCES teams (id))",
        "INSERT INTO teams VALUES (1), (2)",
        "INSERT INTO members VALUES (1, 1), (2, 2), (3, 1)",
    )
    shop.execute("DELETE FROM members WHERE id = 2")
    shop.execute("DELETE FROM members")
    shop.execute("DELETE FROM teams WHERE id = 2")
    message = refusal(shop, "members", to=at, execute=True)
    assert "record 2 (INSERT)" in message
    assert "`in_team`" in message
    assert message.endswith("nothing was changed")
    assert rows(shop, "members") == []


def test_an_engine_without_transactions_is_not_written_to(shop):
    at = audited(shop, "CREATE TABLE old (id INT PRIMARY KEY)", "INSERT INTO old VALUES (1)")
    shop.execute("DELETE FROM old")
    # Only now: a server with GTIDs refuses changes of such a table whose trigger writes to another kind.
    shop.execute("ALTER TABLE old ENGINE = MyISAM")
    assert len(undo(shop, "old", to=at)["records"]) == 1
    assert "engine MyISAM has no transactions" in refusal(shop, "old", to=at, execute=True)


def test_a_timestamp_that_every_update_renews_stays_what_it_was(shop):
    at = audited(
        shop,
        "CREATE TABLE page (id INT PRIMARY KEY, name TEXT, "
        "at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, "
        "fine DATETIME(6) ON UPDATE CURRENT_TIMESTAMP(6))",
        "SET timestamp = 1700000000",
        "INSERT INTO page VALUES (1, 'a', NOW(), NOW(6)), (2, 'b', NOW(), NULL), (3, 'c', NOW(), NOW(6))",
        "SET timestamp = DEFAULT",
    )
    before = rows(shop, "page")
    # In the second of the insertion; leaving both alone; and at another time.
    by(shop, "ann", "SET timestamp = 1700000000", "UPDATE page SET name = 'x' WHERE id = 1")
    shop.execute("UPDATE page SET name = 'x', at = at, fine = fine WHERE id = 2")
    shop.execute("UPDATE page SET name = 'x' WHERE id = 3")
    assert len(undo(shop, "page", to=at, execute=True)["records"]) == 3
    assert rows(shop, "page") == before
    assert undo(shop, "page", to=at, execute=True)["statements"] == []


def test_too_many_records_are_refused(users):
    at = mix(users)
    assert "3 records would have to be undone, more than limit (2)" in refusal(users, to=at, limit=2, execute=True)
    assert len(undo(users, to=at, limit=3)["records"]) == 3


def test_a_table_that_is_not_audited_any_more_is_warned_of(users):
    at = mix(users)
    assert "warnings" not in undo(users, to=at)
    audit(users, "nothing", allow_missing=True)
    assert "users is not audited now" in str(undo(users, to=at)["warnings"])


def test_a_key_that_was_renamed_since_is_refused(users):
    at = mix(users)
    users.execute("ALTER TABLE users RENAME COLUMN id TO number")
    assert "the log has no column number, by which a record is found now" in refusal(users, to=at)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"table": "nobody"}, "nobody' names no table of"),
        ({"table": "keyless"}, "keyless: has no primary key"),
        ({"table": "seen"}, "is a view"),
        ({"to": "yesterday"}, "to: 'yesterday' is no time"),
        ({"changed_by": ""}, "changed_by: is empty"),
        ({"schema": "nowhere"}, "no audit trail in database 'nowhere'"),
        ({"to": None}, "to: is required, unless transaction_id says what to undo"),
    ],
)
def test_bad_input_is_refused_by_name(users, options, words):
    users.execute("CREATE TABLE keyless (name TEXT)")
    users.execute("CREATE VIEW seen AS SELECT * FROM users")
    assert words in refusal(users, **{"to": "1h", **options})


#: Type -> two values. Column names are the types.
VALUES = {
    "BIGINT": ("-9223372036854775808", "9007199254740993"),
    "BIGINT UNSIGNED": ("18446744073709551615", "0"),
    "INT(6) ZEROFILL": ("42", "7"),
    "DECIMAL(65,30)": (f"-{'9' * 35}.{'9' * 30}", f"{'9' * 35}.{'9' * 29}8"),
    "FLOAT": ("0.1", "16777217e10"),
    "DOUBLE": ("0.1e0 + 0.2e0", "2.2250738585072014e-308"),
    "BIT(9)": ("b'100000001'", "b'1'"),
    "BIT(64)": ("18446744073709551615", "1"),
    "YEAR": ("2155", "0"),
    "ENUM('a b', 'it''s')": ("'a b'", "'it''s'"),
    "SET('a', 'b')": ("'a,b'", "''"),
    "CHAR(10)": ("'ab'", "'ab c'"),
    "VARCHAR(60)": ("CONVERT(x'61005C27220A091FF09F98802520C3A9' USING utf8mb4)", "'x '"),
    "TEXT COLLATE utf8mb4_bin": ("'null'", "'[1]'"),
    "VARCHAR(9) CHARACTER SET latin1": ("'é€'", "'É€'"),
    "VARCHAR(9) CHARACTER SET utf16": ("'é😀'", "'é😁'"),
    "BINARY(4)": ("x'00FF'", "x'00FF20'"),
    "VARBINARY(9)": ("x'00FF27'", "x'00FF2720'"),
    "BLOB": (f"x'{(bytes(range(256)) * 2).hex()}'", "''"),
    "JSON": ("""'{"k": [1, {"ü": null}], "s": "a\\\\"b", "b": true}'""", "'[1.5, 12345678901234567, \"1\"]'"),
    "POINT": ("ST_GeomFromText('POINT(0.1 0.30000000000000004)', 4326)", "ST_GeomFromText('POINT(0.1 0.3)', 4326)"),
    "GEOMETRY": ("ST_GeomFromText('LINESTRING(0 0,1 1)')", "ST_GeomFromText('POINT(1 1)')"),
    "DATE": ("'2024-02-29'", "'0000-00-00'"),
    "DATETIME(6)": ("'9999-12-31 23:59:59.999999'", "'2024-00-00'"),
    "TIME(3)": ("'-838:59:58.999'", "'00:00:00.001'"),
    "TIMESTAMP(6) NULL": ("'2024-10-27 01:30:00.000001'", "'0000-00-00'"),
}


def test_values_of_every_type_come_back_exactly(shop):
    names = ", ".join(map(quote_name, VALUES))
    columns = ", ".join(f"{quote_name(name)} {name}" for name in VALUES)
    first, second = (", ".join(pair[number] for pair in VALUES.values()) for number in (0, 1))
    shop.execute("SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'")
    at = audited(
        shop,
        f"CREATE TABLE kinds (at TIMESTAMP(6), raw VARBINARY(9), {columns}, twice INT AS (at > 0), "
        "PRIMARY KEY (at, raw))",
        *(
            f"INSERT INTO kinds (at, raw, {names}) VALUES ('2024-10-27 01:30:00', x'{key}', {values})"
            for key, values in (("00", first), ("FF", second), ("01", first), ("02", second))
        ),
    )
    before = rows(shop, "kinds")
    shop.execute("DELETE FROM kinds WHERE raw IN (x'00', x'FF')")
    for key, number in (("01", 1), ("02", 0)):
        changes = ", ".join(f"{quote_name(name)} = {pair[number]}" for name, pair in VALUES.items())
        shop.execute(f"UPDATE kinds SET {changes} WHERE raw = x'{key}'")
    shop.execute(f"INSERT INTO kinds (at, raw, {names}) VALUES ('2024-10-27 01:30:00', x'0A', {first})")
    shop.execute(f"INSERT INTO kinds (at, raw, {names}) VALUES ('2024-10-27 01:30:00', x'0B', {second})")
    statements = undo(shop, "kinds", to=at)["statements"]
    assert client(shop, statements) == [0, 1, 1, 1, 1, 1, 1]
    assert rows(shop, "kinds") == before
    assert undo(shop, "kinds", to=at)["statements"] == []
