# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tables that change after the rollout: writes go on, nothing is recorded in clear, the next run repairs."""

from __future__ import annotations

import json
import typing as t

import psycopg2
import pytest
from auditing import Record, records, refusal, rollout, trail_database, wanted
from databases import Database, fetch

CAPTURES = ("row", "statement")
COLUMNS = {"redact": ["pin"], "hash": ["ssn"]}
PERSON = "id int PRIMARY KEY, name text, pin text, ssn text, token text"
MARK = "[REDACTED]"


def policies(capture: str = "row", **keys: t.Any) -> list[dict[str, t.Any]]:
    return [wanted("public.person", capture=capture, **{"name": "people", "columns": COLUMNS, **keys})]


@pytest.fixture(params=CAPTURES)
def person(trail: Database, request: pytest.FixtureRequest) -> tuple[Database, list[dict[str, t.Any]]]:
    """Return a database with an audited table that masks three columns, and its policies."""
    trail.execute(f"CREATE TABLE person ({PERSON})")
    rollout(trail, policies=policies(request.param))
    trail.execute("INSERT INTO person VALUES (1, 'ann', 'PIN-1', 'SSN-1', 'TOK-1')")
    return trail, policies(request.param)


def last(db: Database) -> Record:
    return records(db)[-1]


def no_secret_in(db: Database) -> bool:
    """Tell whether no value that a column masks stands anywhere in the log."""
    return db.value("SELECT count(*) FROM audit.audit_log_data AS d WHERE d::text ~ '(PIN|SSN|TOK)-'") == 0


def settled(db: Database, wanted_policies: list[dict[str, t.Any]], **options: t.Any) -> bool:
    return not rollout(db, policies=wanted_policies, **options).changed


def test_a_column_that_is_added_is_in_the_next_record(person):
    db, wanted_policies = person
    db.execute("ALTER TABLE person ADD COLUMN city text DEFAULT 'Bonn', ADD COLUMN password text DEFAULT 'TOK-2'")
    db.execute("UPDATE person SET name = 'eve'")
    assert (last(db).new_values["city"], last(db).new_values["password"]) == ("Bonn", MARK)
    assert last(db).changed_columns == ["name"]
    assert no_secret_in(db)
    assert settled(db, wanted_policies)


@pytest.mark.parametrize("column", ["name", "token"])
def test_a_column_that_is_dropped_is_missing_from_the_next_record_and_nothing_else(person, column):
    db, wanted_policies = person
    db.execute(f"ALTER TABLE person DROP COLUMN {column}")
    db.execute("UPDATE person SET id = 2")
    assert set(last(db).new_values) == {"id", "name", "pin", "ssn", "token"} - {column}
    assert no_secret_in(db)
    assert settled(db, wanted_policies)


def test_a_masked_column_that_is_dropped_and_made_anew_is_masked(person):
    db, wanted_policies = person
    for column in ("pin", "ssn"):
        db.execute(f"ALTER TABLE person DROP COLUMN {column}")
        db.execute("UPDATE person SET id = id + 1")
        db.execute(f"ALTER TABLE person ADD COLUMN {column} text DEFAULT 'PIN-2'")
        db.execute("UPDATE person SET id = id + 1")
    assert last(db).new_values["pin"] == MARK
    assert last(db).new_values["ssn"].startswith("hmac-sha256:")
    assert no_secret_in(db)
    assert settled(db, wanted_policies)


@pytest.mark.parametrize("column", ["pin", "ssn", "token"])
@pytest.mark.parametrize("superuser", [True, False])
def test_a_masked_column_cannot_be_renamed_out_of_its_mask(person, column, superuser):
    db, wanted_policies = person
    owner = db.create_role("owner")
    db.execute(f"ALTER TABLE person OWNER TO {owner}; GRANT ALL ON SCHEMA public TO {owner}")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege) as refused:
        db.execute(f'ALTER TABLE person RENAME {column} TO "harm less"', user="postgres" if superuser else owner)
    message = refused.value.diag
    assert f"masks column {column} of public.person" in message.message_primary
    assert '"harm less"' in message.message_primary
    assert 'policy "people"' in message.message_hint
    db.execute(f"UPDATE person SET {column} = 'PIN-3'", user=owner)
    assert last(db).changed_columns == [column]
    assert no_secret_in(db)
    assert settled(db, wanted_policies)


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE"])
def test_a_masked_column_cannot_be_renamed_in_disguise(person, kind):
    """PostgreSQL renames columns of tables with the words for other relations too, under another command tag."""
    db, _unused = person
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match=r"masks column pin of public\.person"):
        db.execute(f"ALTER {kind} person RENAME COLUMN pin TO harmless")


def test_a_masked_attribute_of_a_typed_table_cannot_be_renamed(trail):
    trail.execute(f"CREATE TYPE human AS ({PERSON.replace('PRIMARY KEY', '')}); CREATE TABLE person OF human")
    rollout(trail, policies=policies())
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match=r"masks column pin of public\.person"):
        trail.execute("ALTER TYPE human RENAME ATTRIBUTE pin TO harmless CASCADE")
    trail.execute("ALTER TYPE human RENAME ATTRIBUTE name TO label CASCADE")
    trail.execute("ALTER TYPE human ADD ATTRIBUTE api_token text CASCADE")
    trail.execute("INSERT INTO person (label, pin, api_token) VALUES ('a', 'PIN-1', 'TOKEN-1')")
    values = last(trail).new_values
    assert (values["label"], values["pin"], values["api_token"]) == ("a", MARK, MARK)


def test_a_masked_column_can_be_renamed_once_the_policy_knows_its_new_name(person):
    """The remedy that the refusal names."""
    db, _unused = person
    columns = {"redact": ["pin", "code"], "hash": ["ssn", "tax_id"]}
    capture = db.value("SELECT definition ->> 'capture' FROM audit.policy")
    later = policies(capture, columns=columns)
    assert "'code'" in refusal(db, policies=later)
    rollout(db, policies=later, allow_missing=True)
    db.execute("ALTER TABLE person RENAME pin TO code")
    db.execute("ALTER TABLE person RENAME ssn TO tax_id")
    db.execute("UPDATE person SET code = 'PIN-3', tax_id = 'SSN-3'")
    assert last(db).new_values["code"] == MARK
    assert last(db).new_values["tax_id"].startswith("hmac-sha256:")
    assert last(db).changed_columns == ["code", "tax_id"]
    assert no_secret_in(db)
    assert settled(db, later, allow_missing=True)


def test_other_renames_go_through_and_into_the_next_record(person):
    db, wanted_policies = person
    db.execute("ALTER TABLE person RENAME name TO label")
    db.execute("ALTER TABLE person RENAME id TO number")
    db.execute("ALTER TABLE person RENAME token TO api_token")
    db.execute("ALTER TABLE person RENAME CONSTRAINT person_pkey TO the_key")
    db.execute("UPDATE person SET label = 'eve'")
    assert (last(db).record_id, last(db).new_values["number"], last(db).new_values["api_token"]) == ("1", 1, MARK)
    assert (last(db).changed_columns, no_secret_in(db)) == (["label"], True)
    assert settled(db, wanted_policies)


def test_a_mask_survives_the_tables_own_rename_out_of_the_policy(person):
    db, wanted_policies = person
    db.execute("ALTER TABLE person RENAME TO elsewhere")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match=r"masks column pin of public\.elsewhere"):
        db.execute("ALTER TABLE elsewhere RENAME pin TO harmless")
    db.execute("ALTER TABLE elsewhere DROP COLUMN ssn; ALTER TABLE elsewhere RENAME name TO label")
    db.execute("UPDATE elsewhere SET label = 'eve'")
    assert (last(db).table_name, last(db).new_values["pin"], no_secret_in(db)) == ("elsewhere", MARK, True)
    assert "public.person" in refusal(db, policies=wanted_policies)


def test_a_masked_column_of_inheritance_children_cannot_be_renamed_through_the_parent(trail):
    trail.execute(f"CREATE TABLE person ({PERSON}); CREATE TABLE pupil (class text) INHERITS (person)")
    rollout(trail, policies=policies())
    # The parent alone: a child that redacts what its parent does not even audit.
    rollout(trail, policies=[wanted("public.pupil", name="pupils", columns={"redact": ["pin"]})])
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match=r"masks column pin of public\.pupil"):
        trail.execute("ALTER TABLE person RENAME pin TO harmless")
    trail.execute("ALTER TABLE person RENAME name TO label")
    trail.execute("INSERT INTO pupil VALUES (1, 'a', 'PIN-1', 'b', 'c', '4b')")
    assert (last(trail).new_values["pin"], last(trail).new_values["label"]) == (MARK, "a")


def test_a_masked_column_of_a_partitioned_table_cannot_be_renamed(trail):
    trail.execute("CREATE TABLE person (id int, pin text, name text) PARTITION BY LIST (id)")
    trail.execute("CREATE TABLE person_1 PARTITION OF person FOR VALUES IN (1)")
    rollout(trail, policies=policies(columns={"redact": ["pin"]}))
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match=r"masks column pin of public\.person"):
        trail.execute("ALTER TABLE person RENAME pin TO harmless")
    trail.execute("ALTER TABLE person RENAME name TO label")
    trail.execute("INSERT INTO person_1 VALUES (1, 'PIN-1', 'x')")
    assert last(trail).new_values == {"id": 1, "pin": MARK, "label": "x"}


@pytest.mark.parametrize(
    ("column", "new_type", "using"),
    [
        ("id", "text", "id::text"),
        ("id", "numeric(9, 2)", "id"),
        ("pin", "int", "7"),
        ("ssn", "bytea", "'x'"),
        ("name", "jsonb", "'{}'"),
    ],
)
def test_a_column_of_another_type_is_recorded_as_such(person, column, new_type, using):
    db, wanted_policies = person
    db.execute(f"ALTER TABLE person ALTER {column} TYPE {new_type} USING {using}")
    db.execute("UPDATE person SET token = 'TOK-2'")
    expected = {"text": "1", "numeric(9, 2)": "1.00"}.get(new_type if column == "id" else "", "1")
    assert (last(db).record_id, last(db).changed_columns) == (expected, ["token"])
    assert last(db).new_values["pin"] == MARK
    assert last(db).new_values["ssn"].startswith("hmac-sha256:")
    assert no_secret_in(db)
    assert settled(db, wanted_policies)


def test_a_table_that_moves_within_its_policy_is_recorded_under_each_name_in_turn(trail):
    trail.execute("CREATE SCHEMA crm; CREATE SCHEMA archive; CREATE TABLE crm.client (id int PRIMARY KEY)")
    wide = [wanted("crm.*", name="all")]
    rollout(trail, policies=wide)
    trail.execute("INSERT INTO crm.client VALUES (1)")
    trail.execute("ALTER TABLE crm.client RENAME TO customer")
    trail.execute("INSERT INTO crm.customer VALUES (2)")
    trail.execute("ALTER TABLE crm.customer SET SCHEMA archive")
    trail.execute("INSERT INTO archive.customer VALUES (3)")
    found = [(record.schema_name, record.table_name, record.record_id) for record in records(trail)]
    assert found == [("crm", "client", "1"), ("crm", "customer", "2"), ("archive", "customer", "3")]
    gone = rollout(trail, policies=wide, allow_missing=True, diff_mode=True)
    assert "DROP TRIGGER" in json.dumps(gone["statements"])
    assert "no policy asks for" in json.dumps(gone["diff"])
    assert settled(trail, wide, allow_missing=True)
    trail.execute("INSERT INTO archive.customer VALUES (4)")
    assert len(records(trail)) == 3


@pytest.mark.parametrize("kind", ["TABLE", "INDEX"])
def test_a_partitioned_table_reports_its_new_name_at_once(trail, kind):
    trail.execute("CREATE TABLE person (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE SCHEMA crm")
    trail.execute("CREATE TABLE person_1 PARTITION OF person FOR VALUES IN (1, 2, 3)")
    rollout(trail, policies=[wanted("*.*")])
    trail.execute(f"ALTER {kind} person RENAME TO people")
    trail.execute("INSERT INTO person_1 VALUES (1)")
    trail.execute("ALTER TABLE people SET SCHEMA crm")
    trail.execute("INSERT INTO person_1 VALUES (2)")
    found = [(record.schema_name, record.table_name) for record in records(trail)]
    assert found == [("public", "people"), ("crm", "people")]
    assert settled(trail, [wanted("*.*")])


def test_a_table_that_is_dropped_and_made_anew_is_reported_and_audited_again(person):
    db, wanted_policies = person
    owner = db.create_role("owner")
    db.execute(f"ALTER TABLE person OWNER TO {owner}; GRANT ALL ON SCHEMA public TO {owner}")
    db.execute("DROP TABLE person", user=owner)
    assert "'public.person' matches no table" in refusal(db, policies=wanted_policies)
    db.execute(f"CREATE TABLE person ({PERSON})", user=owner)
    db.execute("INSERT INTO person VALUES (2)", user=owner)
    result = rollout(db, policies=wanted_policies, diff_mode=True)
    assert result["changed_tables"] == ["public.person"]
    assert "dbfleet_audit_insert is missing" in json.dumps(result["diff"])
    assert settled(db, wanted_policies)
    db.execute("INSERT INTO person VALUES (3)", user=owner)
    assert [record.record_id for record in records(db)] == ["1", "3"]


def test_another_owner_changes_nothing(person):
    db, wanted_policies = person
    owner = db.create_role("owner")
    db.execute(f"ALTER TABLE person OWNER TO {owner}; GRANT ALL ON SCHEMA public TO {owner}")
    db.execute("UPDATE person SET name = 'eve'", user=owner)
    assert (last(db).db_user, last(db).changed_columns) == (owner, ["name"])
    assert settled(db, wanted_policies)


def test_record_ids_follow_the_key(person):
    """A write finds the key of its time at once, and a table without one is warned of."""
    db, wanted_policies = person
    db.execute("ALTER TABLE person DROP CONSTRAINT person_pkey")
    db.execute("UPDATE person SET name = 'no key'")
    assert last(db).record_id is None
    result = rollout(db, policies=wanted_policies)
    assert not result.changed
    assert "public.person has no key" in str(result["warnings"])
    db.execute("ALTER TABLE person ADD PRIMARY KEY (name, id)")
    db.execute("UPDATE person SET token = NULL")
    assert last(db).record_id == '["no key", 1]'
    assert settled(db, wanted_policies)


def test_what_the_event_trigger_could_not_follow_the_next_run_repairs(person):
    """A login without superuser has no event triggers: the reasons are in the diff, and one run is enough."""
    db, wanted_policies = person
    db.execute("ALTER EVENT TRIGGER dbfleet_audit_attach DISABLE")
    db.execute(
        "ALTER TABLE person DROP CONSTRAINT person_pkey, ADD PRIMARY KEY (ssn), ADD COLUMN secret text DEFAULT 'TOK-9'"
    )
    db.execute("UPDATE person SET name = 'eve'")
    assert last(db).record_id == "1"
    predicted = rollout(db, policies=wanted_policies, check_mode=True, diff_mode=True)
    assert predicted["changed_tables"] == ["public.person"]
    assert "dbfleet_audit_update has other arguments" in json.dumps(predicted["diff"])
    assert rollout(db, policies=wanted_policies)["statements"] == predicted["statements"]
    assert settled(db, wanted_policies)
    db.execute("UPDATE person SET name = 'eva'")
    assert last(db).record_id == last(db).new_values["ssn"]
    assert last(db).new_values["secret"] == MARK


@pytest.fixture
def orders(trail: Database) -> Database:
    """Return a database with an audited partitioned table."""
    trail.execute("CREATE TABLE orders (id int PRIMARY KEY, n int) PARTITION BY RANGE (id)")
    trail.execute("CREATE TABLE orders_a PARTITION OF orders FOR VALUES FROM (0) TO (10)")
    rollout(trail, policies=[wanted("public.orders*")])
    return trail


def test_a_detached_partition_is_audited_by_its_own_name_at_once(orders):
    orders.execute("INSERT INTO orders VALUES (1, 1)")
    orders.execute("ALTER TABLE orders DETACH PARTITION orders_a")
    orders.execute("INSERT INTO orders_a VALUES (2, 2)")
    assert [(r.table_name, r.record_id) for r in records(orders)] == [("orders", "1"), ("orders_a", "2")]
    assert settled(orders, [wanted("public.orders*")])


def test_a_partition_that_is_attached_is_audited_as_its_root(orders):
    orders.execute("CREATE TABLE later (id int PRIMARY KEY, n int); INSERT INTO later VALUES (11, 1)")
    orders.execute("ALTER TABLE orders ATTACH PARTITION later FOR VALUES FROM (10) TO (20)")
    orders.execute("CREATE TABLE orders_c PARTITION OF orders FOR VALUES FROM (20) TO (30)")
    orders.execute("UPDATE later SET n = 2; INSERT INTO orders_c VALUES (21, 1)")
    assert [(r.action, r.table_name, r.record_id) for r in records(orders)] == [
        ("UPDATE", "orders", "11"),
        ("INSERT", "orders", "21"),
    ]
    assert settled(orders, [wanted("public.orders*")])


def test_history_stays_where_it_was_written(pg):
    with trail_database(pg) as db:
        db.execute("CREATE TABLE person (id int PRIMARY KEY, name text)")
        rollout(db, policies=[wanted("public.person")])
        db.execute("INSERT INTO person VALUES (1, 'ann')")
        rows = "SELECT * FROM audit.audit_log_data WHERE action <> 'DDL'"
        before = db.execute(rows)
        db.execute("ALTER TABLE person RENAME name TO label; ALTER TABLE person RENAME TO people; DROP TABLE people")
        db.execute("CREATE TABLE person (id text PRIMARY KEY)")
        rollout(db, policies=[wanted("public.person")])
        assert db.execute(rows) == before


def test_what_this_transaction_has_written_is_told_from_all_else(trail):
    """Of any number that a row may carry: frozen ones and those of half the circle away are no error."""
    session = trail.connect(autocommit=False)
    fetch(session, "CREATE TABLE mine (id int); SAVEPOINT s; INSERT INTO mine VALUES (1)")
    trail.execute("CREATE TABLE others (id int)")
    own = "SELECT audit.is_own(xmin) FROM {}"
    assert fetch(session, own.format("mine")) == [(True,)]
    assert fetch(session, own.format("pg_class WHERE oid IN ('mine'::regclass)")) == [(True,)]
    assert fetch(session, own.format("pg_class WHERE oid IN ('others'::regclass, 'audit.policy'::regclass)")) == [
        (False,),
        (False,),
    ]
    far = "SELECT audit.is_own(mod(pg_current_xact_id()::text::bigint + {}, 4294967296)::text::xid)"
    assert [fetch(session, far.format(offset))[0][0] for offset in (1000, 2147483647, 2147483649, -1)] == [False] * 4
    assert [fetch(session, f"SELECT audit.is_own('{xid}'::xid)")[0][0] for xid in (1, 2, 3)] == [False] * 3
    session.rollback()
