# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Partitioned tables, inheritance and logical replication: no way round the records."""

from __future__ import annotations

import time
import typing as t

import psycopg2
import pytest
import running
from auditing import changes, install_trail, records, rollout, trail_database, wanted
from databases import Database, fetch
from local_postgresql import LocalPostgresql

PARTITIONED = """
CREATE TABLE orders (id int, region text, amount int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE orders_eu PARTITION OF orders FOR VALUES IN ('eu');
CREATE TABLE orders_us PARTITION OF orders FOR VALUES IN ('us') PARTITION BY RANGE (id);
CREATE TABLE orders_us_low PARTITION OF orders_us FOR VALUES FROM (MINVALUE) TO (100);
"""


@pytest.fixture
def orders(trail: Database) -> Database:
    """Return a database with one audited table, partitioned at two levels."""
    trail.execute(PARTITIONED)
    rollout(trail, policies=[wanted("public.orders")])
    return trail


def names(db: Database) -> set[tuple[str, str]]:
    """Return every (schema, table) that the log names."""
    return {(record.schema_name, record.table_name) for record in records(db)}


def test_changes_through_the_root_and_to_the_leaves_are_the_roots(orders):
    orders.execute("INSERT INTO orders VALUES (1, 'eu', 10), (2, 'us', 20)")
    orders.execute("INSERT INTO orders_eu VALUES (3, 'eu', 30)")
    orders.execute("INSERT INTO orders_us VALUES (4, 'us', 40)")
    orders.execute("UPDATE orders_us_low SET amount = 41 WHERE id = 4")
    orders.execute("DELETE FROM orders_eu WHERE id = 3")
    done = [(record.action, record.record_id) for record in records(orders)]
    assert done == [
        ("INSERT", '[1, "eu"]'),
        ("INSERT", '[2, "us"]'),
        ("INSERT", '[3, "eu"]'),
        ("INSERT", '[4, "us"]'),
        ("UPDATE", '[4, "us"]'),
        ("DELETE", '[3, "eu"]'),
    ]
    assert names(orders) == {("public", "orders")}


def test_a_row_that_moves_to_another_partition_is_deleted_and_inserted(orders):
    orders.execute("INSERT INTO orders VALUES (1, 'eu', 10)")
    orders.execute("UPDATE orders SET region = 'us'")
    eu, us = ({"id": 1, "region": region, "amount": 10} for region in ("eu", "us"))
    assert changes(orders, "orders")[1:] == [("DELETE", eu, None), ("INSERT", None, us)]


def test_partitions_that_are_added_later_are_audited_at_once(orders):
    orders.execute("CREATE TABLE orders_us_high PARTITION OF orders_us FOR VALUES FROM (100) TO (200)")
    orders.execute("CREATE TABLE attached (LIKE orders INCLUDING ALL)")
    orders.execute("ALTER TABLE orders ATTACH PARTITION attached FOR VALUES IN ('asia')")
    replica = orders.connect()
    fetch(replica, "SET session_replication_role = replica")
    fetch(replica, "INSERT INTO orders_us_high VALUES (150, 'us', 1)")
    fetch(replica, "INSERT INTO attached VALUES (9, 'asia', 2)")
    assert [record.record_id for record in records(orders, "orders")] == ['[150, "us"]', '[9, "asia"]']
    assert not rollout(orders, policies=[wanted("public.orders")]).changed


def test_truncate_of_the_root_is_one_record(orders):
    orders.execute("INSERT INTO orders VALUES (1, 'eu', 10)")
    orders.execute("TRUNCATE orders")
    assert [record.action for record in records(orders, "orders")] == ["INSERT", "TRUNCATE"]


def test_a_partition_on_its_own_is_audited_under_its_own_name(trail):
    trail.execute(PARTITIONED)
    rollout(trail, policies=[wanted("public.orders_eu")])
    trail.execute("INSERT INTO orders VALUES (1, 'eu', 10), (2, 'us', 20)")
    assert [(record.table_name, record.record_id) for record in records(trail)] == [("orders_eu", '[1, "eu"]')]


def test_a_wildcard_audits_a_partitioned_table_once(trail):
    trail.execute(PARTITIONED)
    result = rollout(trail, policies=[wanted("public.*")])
    trail.execute("INSERT INTO orders VALUES (1, 'eu', 10), (2, 'us', 20)")
    assert (result["audited"], result["auditable"], result["changed_tables"]) == (1, 1, ["public.orders"])
    assert [record.record_id for record in records(trail)] == ['[1, "eu"]', '[2, "us"]']


@pytest.mark.parametrize("partition", ["orders_eu", "orders_us_low"])
def test_a_trigger_that_is_off_on_one_partition_is_put_back(orders, partition):
    orders.execute(f"ALTER TABLE {partition} DISABLE TRIGGER dbfleet_audit_tree_insert")
    result = rollout(orders, policies=[wanted("public.orders")], diff_mode=True)
    assert result["changed_tables"] == ["public.orders"]
    assert "dbfleet_audit_tree_insert" in result["diff"]["after"]
    enabled = (
        "SELECT DISTINCT tgenabled FROM pg_trigger WHERE tgname LIKE 'dbfleet_audit_%' AND tgrelid::regclass::text "
    )
    assert orders.execute(enabled + "LIKE 'orders%'") == [("A",)]


def test_a_trigger_that_is_off_below_an_audited_partition_is_put_back(trail):
    trail.execute(PARTITIONED)
    rollout(trail, policies=[wanted("public.orders_us")])
    trail.execute("ALTER TABLE orders_us_low DISABLE TRIGGER dbfleet_audit_tree_insert")
    assert rollout(trail, policies=[wanted("public.orders_us")]).changed
    trail.execute("INSERT INTO orders VALUES (1, 'us', 1)")
    assert [record.table_name for record in records(trail)] == ["orders_us"]


def test_inheritance_children_are_audited_and_so_is_a_new_one_at_once(trail):
    policies = [wanted("public.animals")]
    trail.execute("CREATE TABLE animals (id int PRIMARY KEY, name text)")
    trail.execute("CREATE TABLE cats (lives int, PRIMARY KEY (id)) INHERITS (animals)")
    assert rollout(trail, policies=policies)["changed_tables"] == ["public.animals", "public.cats"]
    trail.execute("CREATE TABLE dogs (tricks int) INHERITS (animals); CREATE TABLE puppies () INHERITS (dogs)")
    assert not rollout(trail, policies=policies).changed
    trail.execute("DROP TRIGGER dbfleet_audit_insert ON dogs")
    predicted = rollout(trail, policies=policies, check_mode=True)
    assert (predicted.changed, predicted["changed_tables"]) == (True, ["public.dogs"])
    assert rollout(trail, policies=policies)["changed_tables"] == ["public.dogs"]
    trail.execute("INSERT INTO cats VALUES (1, 'tom', 9); INSERT INTO dogs VALUES (2, 'rex', 3)")
    trail.execute("INSERT INTO puppies VALUES (3, 'pip', 0); UPDATE animals SET name = upper(name)")
    done = [(record.table_name, record.action, record.new_values["name"]) for record in records(trail)]
    assert done[:3] == [("cats", "INSERT", "tom"), ("dogs", "INSERT", "rex"), ("puppies", "INSERT", "pip")]
    assert sorted(done[3:]) == [("cats", "UPDATE", "TOM"), ("dogs", "UPDATE", "REX"), ("puppies", "UPDATE", "PIP")]


def test_unlogged_tables_are_audited_with_a_warning_and_temporary_ones_never(trail):
    trail.execute("CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY)")
    session = trail.connect()
    fetch(session, "CREATE TEMPORARY TABLE passing (id int)")
    result = rollout(trail, policies=[wanted("*.*")])
    assert (result["audited"], result["changed_tables"]) == (1, ["public.scratch"])
    assert "public.scratch is unlogged" in str(result["warnings"])


@pytest.fixture
def publisher_and_subscriber(new_server: t.Callable[..., LocalPostgresql]) -> t.Iterator[tuple[Database, Database]]:
    """Return two databases, the second of which is about to receive the changes of the first."""
    server = new_server(wal_level="logical")
    source = Database(server)
    source.execute("CREATE TABLE stock (id int PRIMARY KEY, amount int)")
    source.execute("CREATE PUBLICATION all_stock FOR TABLE stock")
    # Within one server the slot has to be there first: making it waits for every open transaction.
    source.execute("SELECT pg_create_logical_replication_slot('stock', 'pgoutput')")
    with trail_database(server) as target:
        target.execute("CREATE TABLE stock (id int PRIMARY KEY, amount int)")
        yield source, target
        target.execute("ALTER SUBSCRIPTION stock DISABLE; ALTER SUBSCRIPTION stock SET (slot_name = NONE)")
        target.execute("DROP SUBSCRIPTION stock")


def test_what_logical_replication_applies_is_recorded(publisher_and_subscriber):
    source, target = publisher_and_subscriber
    rollout(target, policies=[wanted("public.stock")])
    address = f"host={source.server.socket_dir} port={source.server.port} dbname={source.name} user=postgres"
    target.execute(
        f"CREATE SUBSCRIPTION stock CONNECTION '{address}' PUBLICATION all_stock "
        "WITH (create_slot = false, copy_data = false)"
    )
    source.execute("INSERT INTO stock VALUES (1, 10)")
    source.execute("UPDATE stock SET amount = 11")
    source.execute("DELETE FROM stock")
    source.execute("TRUNCATE stock")
    expected = ["INSERT", "UPDATE", "DELETE", "TRUNCATE"]
    deadline = time.monotonic() + 20
    while len(records(target)) < len(expected) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [record.action for record in records(target, "stock")] == expected


def test_a_trail_in_a_schema_of_another_name_records_alike(db):
    install_trail(db, schema='Trail of "us"')
    db.execute("CREATE TABLE things (id int PRIMARY KEY, ssn text, token text, n int)")
    policy = wanted("public.things", when="NEW.n > 0", operations=["insert"], columns={"hash": ["ssn"]})
    options = {"schema": 'Trail of "us"', "policies": [policy]}
    rollout(db, **options)
    db.execute("INSERT INTO things VALUES (1, 'a', 'b', 0), (2, 'a', 'b', 1)")
    log = '"Trail of ""us""".audit_log'
    assert db.execute(f"SELECT record_id, new_values ->> 'token' FROM {log} WHERE action = 'INSERT'") == [
        ("2", "[REDACTED]")
    ]
    assert not rollout(db, **options).changed
    owner = db.create_role("owner")
    db.execute(f"ALTER TABLE things OWNER TO {owner}")
    db.execute("ALTER TABLE things ADD COLUMN name text", user=owner)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="no longer record"):
        db.execute("ALTER TABLE things DISABLE TRIGGER ALL", user=owner)
    assert running.run_module("postgresql_audit_verify", **db.login, **options)["valid"]
