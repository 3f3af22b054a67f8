# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which columns a record holds, and which values it never does: only, exclude, redact, hash, default redaction."""

from __future__ import annotations

import typing as t

import psycopg2
import pytest
from auditing import changes, records, rollout, trail_database, wanted
from databases import Database
from local_postgresql import LocalPostgresql

REDACTED = "[REDACTED]"

TABLES = """
CREATE TABLE few (id int PRIMARY KEY, name text, note text, document json);
CREATE TABLE fewer (id int PRIMARY KEY, name text, note text, document json);
CREATE TABLE masked (id int PRIMARY KEY, name text, salary numeric);
CREATE TABLE digested (id int PRIMARY KEY, ssn text, tax numeric);
CREATE TABLE digested_too (id int PRIMARY KEY, ssn text);
CREATE TABLE secret_keys (ssn text PRIMARY KEY, n int);
CREATE TABLE secret_pairs (region text, ssn text, n int, PRIMARY KEY (region, ssn));
CREATE TABLE masked_keys (code text PRIMARY KEY, n int);
CREATE TABLE logins (id int PRIMARY KEY, "Password_Hash" text, api_key text, reset_token text, client_secret text,
                     cvv2 text, card_number text, passwd text, username text);
CREATE TABLE chosen (id int PRIMARY KEY, password text, token text);
CREATE TABLE left_out (id int PRIMARY KEY, password text, name text);
CREATE TABLE picked (id int PRIMARY KEY, password text, name text);
CREATE TABLE hidden_key (password text PRIMARY KEY, name text);
"""

POLICIES = [
    wanted("public.few", columns={"only": ["name", "id"]}),
    wanted("public.fewer", columns={"exclude": ["note", "document"]}),
    wanted("public.masked", columns={"redact": ["salary"]}),
    wanted("public.digested", "public.digested_too", columns={"hash": ["ssn", "tax"]}),
    wanted("public.secret_keys", "public.secret_pairs", columns={"hash": ["ssn"]}),
    wanted("public.masked_keys", columns={"redact": ["code"]}),
    wanted("public.chosen", columns={"hash": ["password"]}),
    wanted("public.left_out", columns={"exclude": ["password"]}),
    wanted("public.picked", columns={"only": ["id", "name"]}),
    wanted("public.hidden_key", columns={"exclude": ["password"]}),
    wanted("public.*"),
]


@pytest.fixture(scope="module")
def shop(pg: LocalPostgresql) -> t.Iterator[Database]:
    """Return a database whose tables are audited by the policies above."""
    with trail_database(pg) as database:
        database.execute(TABLES)
        rollout(database, policies=POLICIES)
        yield database


def whole_log(db: Database) -> str:
    """Return every column of every row of the log as one text."""
    return db.value("SELECT coalesce(string_agg(d::text, '\n'), '') FROM audit.audit_log_data AS d")


@pytest.mark.parametrize("table", ["few", "fewer"])
def test_only_and_exclude_leave_the_other_columns_out(shop, table):
    shop.execute(f"""INSERT INTO {table} VALUES (1, 'ann', 'x', '{{"a": 1}}')""")
    shop.execute(f"""UPDATE {table} SET note = 'y', document = '{{"a": 2}}'""")
    shop.execute(f"UPDATE {table} SET note = 'z', name = 'eve'")
    shop.execute(f"DELETE FROM {table}")
    ann, eve = {"id": 1, "name": "ann"}, {"id": 1, "name": "eve"}
    assert changes(shop, table) == [("INSERT", None, ann), ("UPDATE", ann, eve), ("DELETE", eve, None)]
    assert records(shop, table)[1].changed_columns == ["name"]


def test_redacted_values_are_in_neither_image_and_their_changes_still_show(shop):
    shop.execute("INSERT INTO masked VALUES (1, 'ann', 1999888001)")
    shop.execute("UPDATE masked SET salary = 1999888002, name = 'eve'")
    shop.execute("UPDATE masked SET salary = NULL")
    shop.execute("UPDATE masked SET name = 'zoe'")
    shop.execute("DELETE FROM masked")
    log = records(shop, "masked")
    assert [record.changed_columns for record in log] == [None, ["name", "salary"], ["salary"], ["name"], None]
    images = [image for record in log for image in (record.old_values, record.new_values) if image]
    assert {image["salary"] for image in images} == {REDACTED}
    assert "1999888" not in whole_log(shop)


def test_hashed_values_are_digests_that_show_equality_and_nothing_else(shop):
    shop.execute("INSERT INTO digested VALUES (1, '123-45-678x', 1.5), (2, '123-45-678x', NULL), (3, '999-99-9999', 2)")
    shop.execute("INSERT INTO digested_too VALUES (1, '123-45-678x')")
    shop.execute("UPDATE digested SET ssn = '999-99-9999' WHERE id = 1")
    same, also, other, changed = records(shop, "digested")
    (elsewhere,) = records(shop, "digested_too")
    assert same.new_values["ssn"] == also.new_values["ssn"] == elsewhere.new_values["ssn"] == changed.old_values["ssn"]
    assert other.new_values["ssn"] == changed.new_values["ssn"] != same.new_values["ssn"]
    assert (also.new_values["tax"], changed.changed_columns) == (None, ["ssn"])
    # With a letter that no digest has.
    assert "678x" not in whole_log(shop)
    assert "999-99" not in whole_log(shop)


def test_a_digest_cannot_be_found_by_trying_values_without_the_key(shop):
    """Whoever may read the log could otherwise hash every social security number there is."""
    shop.execute("INSERT INTO digested VALUES (50, '111-11-1111', NULL)")
    digest = records(shop, "digested")[-1].new_values["ssn"].rpartition(":")[2]
    plain = (
        "SELECT %s IN (encode(sha256('111-11-1111'), 'hex'), md5('111-11-1111'), encode(sha512('111-11-1111'), 'hex'))"
    )
    assert not shop.value(plain, digest)
    role = shop.create_role("reader")
    shop.execute(f"GRANT audit_reader TO {role}")
    for attempt in ("SELECT * FROM audit.hash_key", "SELECT audit.keyed_digest('111-11-1111')"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            shop.execute(attempt, user=role)
    pads = shop.execute("SELECT encode(inner_pad, 'hex'), encode(outer_pad, 'hex') FROM audit.hash_key")[0]
    readable = shop.value("SELECT string_agg(prosrc, '') FROM pg_proc WHERE pronamespace = 'audit'::regnamespace")
    readable += shop.value("SELECT string_agg(encode(tgargs, 'escape'), '') FROM pg_trigger")
    assert not any(pad[:20] in readable for pad in pads)


def test_the_key_differs_from_database_to_database(db, trail):
    from auditing import install_trail

    install_trail(db)
    key = "SELECT outer_pad::text FROM audit.hash_key"
    assert db.value(key) != trail.value(key)


def test_a_hashed_or_redacted_key_is_never_in_clear(shop):
    shop.execute("INSERT INTO secret_keys VALUES ('321-54-987x', 1)")
    shop.execute("UPDATE secret_keys SET n = 2")
    shop.execute("DELETE FROM secret_keys")
    shop.execute("INSERT INTO secret_pairs VALUES ('eu', '321-54-987x', 1)")
    shop.execute("INSERT INTO masked_keys VALUES ('321-54-987x', 1)")
    ids = {record.record_id for record in records(shop, "secret_keys")}
    assert ids == {records(shop, "secret_keys")[0].new_values["ssn"]}
    assert records(shop, "masked_keys")[0].record_id == REDACTED
    assert records(shop, "secret_pairs")[0].record_id.startswith('["eu", "hmac-sha256:')
    # With a letter that no digest and no time has.
    assert "987x" not in whole_log(shop)


def test_columns_that_are_called_like_secrets_are_redacted_by_default(shop):
    shop.execute("INSERT INTO logins VALUES (1, 's3', 's3', 's3', 's3', 's3', 's3', 's3', 'ann')")
    values = records(shop, "logins")[0].new_values
    assert {name for name, value in values.items() if value != REDACTED} == {"id", "username"}


def test_a_default_gives_way_to_a_hash_that_the_policy_asks_for(shop):
    shop.execute("INSERT INTO chosen VALUES (1, 'hunter2', 'abc')")
    values = records(shop, "chosen")[0].new_values
    assert values["password"].startswith("hmac-sha256:")
    assert values["token"] == REDACTED


@pytest.mark.parametrize("table", ["left_out", "picked"])
def test_a_secret_that_is_left_out_leaves_no_trace_either(shop, table):
    """The default redaction must not bring back a column that the policy excludes."""
    shop.execute(f"INSERT INTO {table} VALUES (1, 'one', 'ann')")
    shop.execute(f"UPDATE {table} SET password = 'two'")
    shop.execute(f"UPDATE {table} SET password = 'three', name = 'eve'")
    ann, eve = {"id": 1, "name": "ann"}, {"id": 1, "name": "eve"}
    assert changes(shop, table) == [("INSERT", None, ann), ("UPDATE", ann, eve)]
    assert records(shop, table)[1].changed_columns == ["name"]


def test_a_secret_key_that_is_left_out_is_not_in_the_record_id(shop):
    shop.execute("INSERT INTO hidden_key VALUES ('hunter3', 'ann')")
    (record,) = records(shop, "hidden_key")
    assert (record.record_id, record.new_values) == (REDACTED, {"name": "ann"})


def test_the_default_redaction_can_be_turned_off(trail):
    trail.execute("CREATE TABLE tokens (id int PRIMARY KEY, token text, password text)")
    policies = [wanted("public.tokens", columns={"redact": ["password"]})]
    rollout(trail, policies=policies, redact_defaults=False)
    trail.execute("INSERT INTO tokens VALUES (1, 'abc', 'def')")
    assert records(trail)[0].new_values == {"id": 1, "token": "abc", "password": REDACTED}


def test_the_redaction_follows_a_column_that_is_added_later(trail):
    """Not one value is recorded in clear: the ALTER TABLE itself adds the column to those that are redacted."""
    trail.execute("CREATE TABLE users (id int PRIMARY KEY)")
    rollout(trail, policies=[wanted("public.users")])
    trail.execute("ALTER TABLE users ADD COLUMN password text")
    trail.execute("INSERT INTO users VALUES (1, 's3cret')")
    assert trail.execute("SELECT new_values ->> 'password' FROM audit.audit_log WHERE action = 'INSERT'") == [
        ("[REDACTED]",)
    ]
    assert not rollout(trail, policies=[wanted("public.users")])["changed"]


@pytest.mark.parametrize("capture", ["row", "statement"])
def test_a_record_names_its_row_whatever_it_leaves_out_of_it(trail, capture):
    ways = {
        "picked": {"columns": {"only": ["name"]}},
        "lacking": {"columns": {"exclude": ["id", "region"]}},
        "changed": {"update_image": "changed"},
        "both": {"columns": {"only": ["name"]}, "update_image": "changed"},
    }
    for name in ways:
        trail.execute(f"CREATE TABLE {name}_one (id int PRIMARY KEY, name text)")
        trail.execute(f"CREATE TABLE {name}_two (region text, id int, name text, PRIMARY KEY (region, id))")
    rollout(trail, policies=[wanted(f"public.{name}_*", capture=capture, **way) for name, way in ways.items()])
    for name in ways:
        for table, values in ((f"{name}_one", "(7, 'ann')"), (f"{name}_two", "('eu', 7, 'ann')")):
            trail.execute(f"INSERT INTO {table} VALUES {values}")
            trail.execute(f"UPDATE {table} SET name = 'bea'")
            trail.execute(f"DELETE FROM {table}")
    for name in ways:
        assert [record.record_id for record in records(trail, f"{name}_one")] == ["7"] * 3, name
        assert [record.record_id for record in records(trail, f"{name}_two")] == ['["eu", 7]'] * 3, name


@pytest.mark.parametrize("capture", ["row", "statement"])
def test_a_key_that_is_short_in_the_table_and_long_as_text_is_digested(trail, capture):
    trail.execute("CREATE TABLE keyed (id jsonb PRIMARY KEY, name text)")
    trail.execute("CREATE TABLE numbered (id numeric PRIMARY KEY, name text)")
    rollout(trail, policies=[wanted("public.*ed", capture=capture)])
    trail.execute("INSERT INTO keyed VALUES ('[1e131071, 1e131070, 1e131069]', 'x')")
    trail.execute("INSERT INTO numbered VALUES (1e2000, 'x')")
    ids = [row[0] for row in trail.execute("SELECT record_id FROM audit.audit_log WHERE action = 'INSERT'")]
    assert [record_id[:7] for record_id in ids] == ["sha256:"] * 2
