# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a policy asks for is done, and what a session has set or sent neither shows in a record nor breaks a write."""

from __future__ import annotations

import typing as t

import pymysql
import pytest
from mysql_auditing import Record, changes, records, rollout
from mysql_databases import MysqlServer, Schema, fetch, quote_name

REDACTED = "[REDACTED]"
IMAGES = ("full", "changed")
LONG = "long name with é, it's " + "x" * 41

TABLES = """
CREATE TABLE few (id INT PRIMARY KEY, name TEXT, note TEXT);
CREATE TABLE fewer (id INT PRIMARY KEY, name TEXT, note TEXT);
CREATE TABLE masked_full (id INT PRIMARY KEY, name TEXT, salary DECIMAL(20,2), ssn VARCHAR(20), scan LONGBLOB,
  `Password` TEXT, api_token TEXT);
CREATE TABLE masked_changed LIKE masked_full;
CREATE TABLE digested (id INT PRIMARY KEY, ssn LONGTEXT, tax INT);
CREATE TABLE keys_redacted (code VARCHAR(20) PRIMARY KEY, n INT);
CREATE TABLE keys_hashed (ssn VARCHAR(20) PRIMARY KEY, n INT);
CREATE TABLE keys_pair (region VARCHAR(20), ssn VARCHAR(20), n INT, PRIMARY KEY (region, ssn));
CREATE TABLE keys_left_out (password VARCHAR(20) PRIMARY KEY, n INT);
CREATE TABLE conditional (id INT PRIMARY KEY, note TEXT, n INT);
CREATE TABLE needy_abort (id INT PRIMARY KEY, n INT);
CREATE TABLE needy_warn (id INT PRIMARY KEY, n INT);
CREATE TABLE {long} (id INT PRIMARY KEY, n INT);
CREATE TABLE broken_abort (id INT PRIMARY KEY, n INT, gone INT);
CREATE TABLE broken_warn (id INT PRIMARY KEY, n INT, gone INT);
CREATE TABLE `broken it's é` (id INT PRIMARY KEY, n INT, gone INT);
CREATE TABLE plain (id INT PRIMARY KEY, name CHAR(10), note VARCHAR(50) CHARACTER SET latin1, ratio DOUBLE,
  price DECIMAL(9,2), document JSON, raw BLOB, at TIMESTAMP(3) NULL, day DATE, flags SET('a', 'b'));
"""

CONDITION = r"""NEW.note <> 'it''s "x" \\ %s {schema} {brace' AND NEW.n > 5"""


def policies(shop: Schema) -> list[dict[str, t.Any]]:
    hashed = {"redact": ["salary"], "hash": ["ssn", "scan"]}
    needs = ["user", "application_name", "ticket_list"]
    keys: dict[str, dict[str, t.Any]] = {
        "few": {"columns": {"only": ["id", "name"]}},
        "fewer": {"columns": {"exclude": ["note"]}},
        "masked_full": {"columns": hashed},
        "masked_changed": {"columns": hashed, "update_image": "changed"},
        "digested": {"columns": {"hash": ["ssn", "tax"]}},
        "keys_redacted": {"columns": {"redact": ["code"]}},
        "keys_hashed": {"columns": {"hash": ["ssn"]}},
        "keys_pair": {"columns": {"hash": ["ssn"]}},
        "keys_left_out": {"columns": {"exclude": ["password"]}},
        "conditional": {"when": CONDITION, "operations": ["insert", "update"]},
        "needy_abort": {"require_context": needs},
        "needy_warn": {"require_context": needs, "on_failure": "warn"},
        f'"{LONG}"': {"require_context": needs},
        "broken_warn": {"on_failure": "warn"},
        '"broken it\'s é"': {"on_failure": "warn"},
        "*": {},
    }
    return [{"tables": [f"{shop.name}.{table}"], **policy} for table, policy in keys.items()]


@pytest.fixture(scope="module")
def shop(trail: MysqlServer) -> t.Iterator[Schema]:
    """Return a database whose tables are audited by these policies."""
    with Schema(trail) as made:
        for statement in TABLES.replace("{long}", quote_name(LONG)).split(";\n"):
            if statement:
                made.execute(statement)
        rollout(made, *policies(made))
        assert not rollout(made, *policies(made)).changed
        yield made
        documents = ("old_values", "new_values", "changed_columns", "context")
        invalid = " OR ".join(f"NOT JSON_VALID({column})" for column in documents)
        assert made.value(f"SELECT COUNT(*) FROM audit.audit_log_data WHERE {invalid}") == 0


def whole_log(shop: Schema) -> str:
    """Return every column of every row of the log of this database as one text."""
    names = ", ".join(f"COALESCE({name}, '')" for name in Record._fields)
    rows = shop.execute(f"SELECT CONCAT_WS('|', {names}) FROM audit.audit_log_data WHERE schema_name = %s", shop.name)
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("table", ["few", "fewer"])
def test_only_and_exclude_leave_the_other_columns_out(shop, table):
    shop.execute(f"INSERT INTO {table} VALUES (1, 'ann', 'x')")
    shop.execute(f"UPDATE {table} SET note = 'y'")
    shop.execute(f"UPDATE {table} SET note = 'z', name = 'eve'")
    ann, eve = {"id": 1, "name": "ann"}, {"id": 1, "name": "eve"}
    assert changes(shop, table) == [("INSERT", None, ann), ("UPDATE", ann, eve)]
    assert records(shop, table)[1].changed_columns == ["name"]


@pytest.mark.parametrize("image", IMAGES)
def test_masked_values_are_nowhere_in_the_log_and_their_changes_still_show(shop, image):
    table, size = f"masked_{image}", shop.value("SELECT @@max_allowed_packet") // 8
    secrets = ("1999888001", "678xq", "HunterTwo", "tokenZZ")
    shop.execute(f"INSERT INTO {table} VALUES (1, 'ann', 1999888001, '123-678xq', 'scan678xq', 'HunterTwo', 'tokenZZ')")
    shop.execute(f"UPDATE {table} SET salary = 1999888001.5, `Password` = 'HunterTwo ', api_token = NULL")
    shop.execute(f"UPDATE {table} SET ssn = NULL, scan = REPEAT('678xq', {size // 5})")
    shop.execute(f"UPDATE {table} SET ssn = '123-678xq', name = 'eve'")
    shop.execute(f"DELETE FROM {table}")
    insert, secret, null, equal, delete = records(shop, table)
    assert secret.changed_columns == ["salary", "Password", "api_token"]
    for values in (insert.new_values, secret.old_values, secret.new_values, delete.old_values):
        masks = {values.get(name, REDACTED) for name in secret.changed_columns}
        assert masks == {REDACTED}
    assert (null.changed_columns, null.new_values["ssn"], equal.changed_columns) == (
        ["ssn", "scan"],
        None,
        ["name", "ssn"],
    )
    assert insert.new_values["ssn"] == equal.new_values["ssn"] == delete.old_values["ssn"]
    digests = {insert.new_values["ssn"], insert.new_values["scan"], null.new_values["scan"]}
    assert len(digests) == 3
    assert all(digest.startswith("hmac-sha256:") and len(digest) == 76 for digest in digests)
    log = whole_log(shop)
    assert not [word for word in secrets if word in log]


def test_equal_values_have_equal_digests_in_every_table_and_type(shop):
    shop.execute("INSERT INTO digested VALUES (1, 'equal-value', 5), (2, 'equal-value ', NULL)")
    shop.execute("INSERT INTO keys_hashed VALUES ('equal-value', 1)")
    one, two = (record.new_values for record in records(shop, "digested"))
    digest = records(shop, "keys_hashed")[0].new_values["ssn"]
    assert one["ssn"] == digest != two["ssn"]
    assert (one["tax"].startswith("hmac-sha256:"), two["tax"]) == (True, None)
    assert shop.value("SELECT %s <> CONCAT('hmac-sha256:', SHA2('equal-value', 256))", digest) == 1


def test_a_masked_key_is_never_in_clear(shop):
    shop.execute("INSERT INTO keys_hashed VALUES ('321-9876q', 1)")
    shop.execute("UPDATE keys_hashed SET n = 2 WHERE ssn = '321-9876q'")
    shop.execute("DELETE FROM keys_hashed WHERE ssn = '321-9876q'")
    shop.execute("INSERT INTO keys_pair VALUES ('eu', '321-9876q', 1)")
    shop.execute("INSERT INTO keys_redacted VALUES ('321-9876q', 1)")
    shop.execute("INSERT INTO keys_left_out VALUES ('321-9876q', 1)")
    log = records(shop, "keys_hashed")[-3:]
    assert {record.record_id for record in log} == {log[0].new_values["ssn"]}
    assert records(shop, "keys_pair")[0].record_id.startswith('["eu", "hmac-sha256:')
    assert records(shop, "keys_redacted")[0].record_id == REDACTED
    (left_out,) = records(shop, "keys_left_out")
    assert (left_out.record_id, left_out.new_values) == (REDACTED, {"n": 1})
    assert "9876q" not in whole_log(shop)


def test_a_condition_is_taken_as_it_is_written(shop):
    odd = r"""it's "x" \ %s {schema} {brace"""
    rows = [(1, odd, 9), (2, "other", 9), (3, "other", 5), (4, None, 9)]
    for row in rows:
        shop.execute("INSERT INTO conditional VALUES (%s, %s, %s)", *row)
    shop.execute("UPDATE conditional SET n = 6 WHERE id = 3")
    assert [(record.action, record.record_id) for record in records(shop, "conditional")] == [
        ("INSERT", "2"),
        ("UPDATE", "3"),
    ]


CONTEXT = '{"user": "ann", "applicationName": "till", "ticketList": [7]}'


@pytest.mark.parametrize("missing", ["user", "applicationName", "ticketList"])
def test_a_required_key_that_is_missing_refuses_the_write(shop, missing):
    with shop.connect() as connection:
        fetch(connection, "SET @audit_context = JSON_REMOVE(%s, %s), @audit_user = NULL", CONTEXT, f"$.{missing}")
        with pytest.raises(pymysql.err.OperationalError) as refused:
            fetch(connection, "INSERT INTO needy_abort VALUES (1, 1)")
    assert refused.value.args == (
        1644,
        f"audit: INSERT on {shop.name}.needy_abort needs user, application_name, ticket_list: "
        "CALL audit.set_context(...)",
    )
    assert shop.execute("SELECT * FROM needy_abort") == []


@pytest.mark.parametrize("how", ["SET @audit_context = %s", "CALL audit.set_context(%s)"])
def test_a_context_with_all_keys_lets_the_write_through(shop, how):
    with shop.connect() as connection:
        fetch(connection, how, CONTEXT)
        fetch(connection, "REPLACE INTO needy_abort VALUES (2, 2)")
        fetch(connection, f"REPLACE INTO {quote_name(LONG)} VALUES (2, 2)")
    record = records(shop, "needy_abort")[-1]
    assert (record.changed_by, record.application_name, record.context) == ("ann", "till", {"ticket_list": [7]})


def test_a_long_name_is_cut_and_not_what_is_wrong(shop):
    with pytest.raises(pymysql.err.OperationalError) as refused:
        shop.execute(f"INSERT INTO {quote_name(LONG)} VALUES (1, 1)")
    code, message = refused.value.args
    assert (code, len(message)) == (1644, 128)
    assert message.startswith(f"audit: INSERT on {shop.name}.long name with é, it's x")
    assert message.endswith("x... needs user, application_name, ticket_list: CALL audit.set_context(...)")


def test_a_required_key_that_is_missing_is_a_warning_where_the_policy_says_so(shop):
    with shop.connect() as connection:
        fetch(connection, "INSERT INTO needy_warn VALUES (1, 1)")
        warnings = connection.show_warnings()
    assert len(records(shop, "needy_warn")) == 1
    if not shop.server.is_mariadb:
        assert warnings == ()
    assert shop.value("SELECT COUNT(*) FROM needy_warn") == 1


def broken(shop: Schema, table: str, statement: str) -> t.Any:
    """Make a change while a column is renamed away under the triggers; return the error."""
    name = quote_name(table)
    shop.execute(f"INSERT INTO {name} VALUES (1, 1, 1)")
    shop.execute(f"ALTER TABLE {name} RENAME COLUMN gone TO came")
    try:
        shop.execute(statement.replace("{table}", name))
    except pymysql.MySQLError as error:
        return error.args
    finally:
        shop.execute(f"ALTER TABLE {name} RENAME COLUMN came TO gone")
        shop.execute(f"DELETE FROM {name}")
    return None


STATEMENTS = {
    "INSERT": "INSERT INTO {table} VALUES (2, 2, 2)",
    "UPDATE": "UPDATE {table} SET n = 3",
    "DELETE": "DELETE FROM {table}",
}


@pytest.mark.parametrize("operation", STATEMENTS)
def test_a_change_that_cannot_be_recorded_fails_and_says_why(shop, operation):
    code, message = broken(shop, "broken_abort", STATEMENTS[operation])
    assert (code, "gone" in message) == (1054, True)


@pytest.mark.parametrize("table", ["broken_warn", "broken it's é"])
@pytest.mark.parametrize("operation", STATEMENTS)
def test_a_change_that_cannot_be_recorded_goes_through_where_the_policy_says_so(shop, operation, table):
    before = len(records(shop, table))
    assert broken(shop, table, STATEMENTS[operation]) is None
    log = records(shop, table)[before:]
    (event,) = [record for record in log if record.action == "EVENT"]
    values = {name: event.new_values[name] for name in ("event", "operation", "code")}
    assert values == {"event": "audit_failure", "operation": operation, "code": 1054}
    assert "gone" in event.new_values["error"]
    assert (event.schema_name, event.db_user, bool(event.policy_id)) == (shop.name, shop.server.user, True)


SESSIONS = {
    "ansi": "SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,IGNORE_SPACE'",
    "backslashes": "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
    "lax": "SET sql_mode = ''",
    "strict": "SET sql_mode = 'TRADITIONAL'",
    "padded": "SET sql_mode = 'PAD_CHAR_TO_FULL_LENGTH'",
    "high_not": "SET sql_mode = 'HIGH_NOT_PRECEDENCE,NO_UNSIGNED_SUBTRACTION'",
    "latin1": "SET character_set_connection = latin1, character_set_results = latin1",
    "collation": "SET collation_connection = utf8mb4_turkish_ci",
    "utf16": "SET character_set_results = utf16, collation_connection = utf16_bin",
    "precision": "SET div_precision_increment = 30",
    "transaction": "SET autocommit = 0",
    "recursion": "SET max_sp_recursion_depth = 255",
    "language": "SET lc_time_names = 'de_DE'",
    "zone": "SET time_zone = '-09:30'",
    "nulls": "SET sql_auto_is_null = 1",
    "updates": "SET sql_safe_updates = 1, sql_big_selects = 1",
    "weeks": "SET default_week_format = 7",
    "group_concat": "SET group_concat_max_len = 4",
}  # fmt: skip


def lifetime(shop: Schema, setting: str | None) -> list[tuple[t.Any, ...]]:
    """Return what a session with a setting leaves when it makes, changes and removes a row."""
    last = shop.value("SELECT COALESCE(MAX(id), 0) FROM audit.audit_log_data")
    with shop.connect() as connection:
        # Values that the setting itself would change are written before it, the row's key after.
        fetch(connection, "SET time_zone = '+00:00', @audit_context = %s", CONTEXT)
        fetch(connection, "SET @note = 'it''s \"é\" ß', @document = '{\"a\": [1.5, \"é\"]}', @raw = x'5C2700FF'")
        fetch(connection, "SET @seconds = 1700000000.125, @name = 'I i'")
        if setting:
            fetch(connection, setting)
        fetch(
            connection,
            "INSERT INTO plain VALUES (1, @name, @note, 1e0/3e0, 12.50, @document, @raw, FROM_UNIXTIME(@seconds), "
            "'2024-02-03', 'a,b')",
        )
        fetch(connection, "UPDATE plain SET name = 'i', ratio = 0.1e0, raw = NULL, at = NULL WHERE id = 1")
        fetch(connection, "DELETE FROM plain WHERE id = 1")
        connection.commit()
    return [
        (record.action, record.record_id, record.old_values, record.new_values, record.changed_columns)
        + (record.changed_by, record.application_name, record.context)
        for record in records(shop, "plain")
        if record.id > last
    ]


@pytest.mark.parametrize("name", SESSIONS)
def test_no_setting_of_a_session_shows_in_its_records(shop, name):
    plain = lifetime(shop, None)
    assert [row[0] for row in plain] == ["INSERT", "UPDATE", "DELETE"]
    assert plain[0][3]["at"] == "2023-11-14 22:13:20.125"
    assert lifetime(shop, SESSIONS[name]) == plain


def written(shop: Schema, setting: str, *args: t.Any) -> Record:
    """Return the record of a change that a session makes after a statement."""
    with shop.connect() as connection:
        fetch(connection, setting, *args)
        fetch(connection, "REPLACE INTO few (id, name) VALUES (9, UUID())")
    return records(shop, "few")[-1]


UNREADABLE = {
    "no_json": "SET @audit_context = '{user: ann}'",
    "cut": 'SET @audit_context = \'{"user": "ann"\'',
    "array": "SET @audit_context = '[1, 2]'",
    "fraction": "SET @audit_context = 1.5",
    "boolean": "SET @audit_context = 'true'",
    "binary": "SET @audit_context = x'ff'",
    "huge": "SET @audit_context = CONCAT('{\"a\": \"', REPEAT('x', 1000000), '\"}')",
    "deep": "SET @audit_context = CONCAT('{\"a\": ', REPEAT('[', 200), REPEAT(']', 200), '}')",
    "binary_user": "SET @audit_user = x'ff'",
    "mixed": "SET @audit_user = _latin1'ann' COLLATE latin1_german1_ci, @audit_context = x'ff'",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_context_that_cannot_be_read_breaks_no_write_and_is_named(shop, name):
    record = written(shop, UNREADABLE[name])
    assert record.context["unreadable"], record
    # What cannot be read of the one variable does not cost what can be read of the other.
    assert record.changed_by == ("ann" if name == "mixed" else shop.server.user)


def test_a_variable_that_was_a_number_elsewhere_breaks_no_write(shop):
    """The server keeps a trigger, and the types of what stands in it, from one session to the next."""
    for setting in ("SET @audit_user = 1.5, @audit_context = 2.5", "SET @audit_user = 'ann', @audit_context = 'x'") * 5:
        assert written(shop, setting).changed_by in ("1.5", "ann")


@pytest.mark.parametrize("depth", [28, 29, 30, 31, 32, 33, 97, 98, 99, 100, 101])
def test_a_deep_context_breaks_no_write(shop, depth):
    record = written(
        shop, f"SET @audit_context = CONCAT('{{\"a\": ', REPEAT('[', {depth}), REPEAT(']', {depth}), '}}')"
    )
    assert set(record.context) in ({"a"}, {"unreadable"})


@pytest.mark.parametrize(
    ("setting", "field", "expected"),
    [
        ("SET @audit_user = REPEAT('é', 600)", "changed_by", "é" * 500),
        ("SET @audit_user = 42", "changed_by", "42"),
        ("SET @audit_user = ''", "changed_by", None),
        ("SET @audit_user = _latin1 x'e9'", "changed_by", "é"),
        ("SET @audit_context = '{\"userId\": 7}'", "changed_by", "7"),
        ("SET @audit_context = CONCAT('{\"user\": \"', REPEAT('x', 600), '\"}')", "changed_by", "x" * 500),
        ("SET @audit_context = CONCAT('{\"ipAddress\": \"', REPEAT('x', 300), '\"}')", "client_ip", "x" * 255),
        ("SET @audit_context = CONCAT('{\"application_name\": \"', REPEAT('€', 300), '\"}')", "application_name",
         "€" * 255),
        ("SET @audit_context = CONCAT('{\"transactionId\": \"', REPEAT('x', 300), '\"}')", "transaction_id", "x" * 64),
        ("SET @audit_context = '{\"requestId\": \"r1\", \"plain_key\": [1]}'", "context",
         {"request_id": "r1", "plain_key": [1]}),
    ],
)  # fmt: skip
def test_a_context_fills_the_columns_of_the_log_as_far_as_they_go(shop, setting, field, expected):
    found = getattr(written(shop, setting), field)
    assert found == (shop.server.user if expected is None else expected)


def test_set_context_fills_it_and_null_empties_it(shop):
    record = written(shop, "CALL audit.set_context(%s)", '{"user": "ann", "requestId": "r1"}')
    assert (record.changed_by, record.context, bool(record.transaction_id)) == ("ann", {"request_id": "r1"}, True)
    with shop.connect() as connection:
        fetch(connection, 'CALL audit.set_context(\'{"user": "ann"}\')')
        fetch(connection, "CALL audit.set_context(NULL)")
        fetch(connection, "REPLACE INTO few (id, name) VALUES (9, UUID())")
    record = records(shop, "few")[-1]
    assert (record.changed_by, record.context, record.transaction_id) == (shop.server.user, None, None)
