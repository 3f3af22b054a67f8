# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tables that are created after the rollout come under their policy in the transaction that creates them."""

from __future__ import annotations

import subprocess
import typing as t

import psycopg2
import pytest
from auditing import install_trail, records, rollout, wanted
from databases import Database, fetch
from local_postgresql import LocalPostgresql

POLICIES = [
    wanted(
        "app.*",
        name="app",
        auto_attach=True,
        exclude=["app.*_tmp"],
        columns={"redact": ["pin"], "hash": ["ssn"]},
    ),
    wanted("bulk.*", name="bulk", auto_attach=True, capture="statement", operations=["insert", "delete", "truncate"]),
    wanted("picky.*", name="picky", auto_attach=True, when="NEW.id > 10", operations=["insert", "update"]),
    wanted("later.*", name="later"),
]
EXCEPTIONS = [{"table": "app.cache_*", "reason": "test", "approved_by": "me"}]
OPTIONS: dict[str, t.Any] = {"policies": POLICIES, "exceptions": EXCEPTIONS, "allow_missing": True}


@pytest.fixture
def app(trail: Database) -> Database:
    """Return a database with policies that wait for tables, and schemas for everybody."""
    trail.owner = trail.create_role("owner")
    for schema in ("app", "bulk", "picky", "later", "other"):
        trail.execute(f"CREATE SCHEMA {schema}; GRANT ALL ON SCHEMA {schema} TO {trail.owner}")
    rollout(trail, **OPTIONS)
    return trail


def ids(db: Database) -> list[tuple[str, str | None]]:
    return [(record.table_name, record.record_id) for record in records(db)]


def triggers(db: Database, table: str) -> int:
    return db.value(
        "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'dbfleet_audit_%%' AND tgrelid = %s::regclass", table
    )


#: How a table may come to be -> its name; each has a column id.
WAYS = {
    "CREATE TABLE app.a (id int PRIMARY KEY)": "a",
    "CREATE TABLE IF NOT EXISTS app.a (id int)": "a",
    "CREATE TABLE app.a AS SELECT 1 AS id WHERE false": "a",
    "SELECT 1 AS id INTO app.a WHERE false": "a",
    "CREATE TABLE app.a (LIKE other.model INCLUDING ALL)": "a",
    "CREATE TABLE other.a (id int); ALTER TABLE other.a SET SCHEMA app": "a",
    "CREATE TABLE app.a_tmp (id int); ALTER TABLE app.a_tmp RENAME TO a": "a",
    "CREATE TABLE app.parent (id int); CREATE TABLE other.a () INHERITS (app.parent)": "a",
    'CREATE TABLE app."Odd; ""name"" %%s $audit$" (id int)': 'Odd; "name" %s $audit$',
    "CREATE UNLOGGED TABLE app.a (id int)": "a",
    "CREATE TYPE other.shape AS (id int); CREATE TABLE app.a OF other.shape": "a",
    "DO $$ BEGIN EXECUTE 'CREATE TABLE app.a (id int)'; END $$": "a",
}


@pytest.mark.parametrize("statement", WAYS)
def test_a_new_table_is_audited_from_its_first_row(app, statement):
    table = WAYS[statement]
    app.execute("CREATE TABLE other.model (id int PRIMARY KEY); ALTER TABLE other.model OWNER TO " + app.owner)
    session = app.connect(app.owner, autocommit=False)
    with session.cursor() as cursor:
        cursor.execute(statement.replace("%%", "%"))
        schema = "other" if "INHERITS" in statement else "app"
        cursor.execute(f'INSERT INTO {schema}."{table.replace(chr(34), chr(34) * 2)}" VALUES (1)')
    session.commit()
    (record,) = records(app)
    assert (record.table_name, record.new_values, record.db_user) == (table, {"id": 1}, app.owner)
    result = rollout(app, **OPTIONS)
    assert (result.changed, result["failed_tables"]) == (False, [])


def test_what_is_rolled_back_leaves_nothing_behind(app):
    session = app.connect(app.owner, autocommit=False)
    fetch(session, "CREATE TABLE app.a (id int); INSERT INTO app.a VALUES (1)")
    session.rollback()
    assert (records(app), rollout(app, **OPTIONS).changed) == ([], False)


@pytest.mark.parametrize("table", ["app.a_tmp", "app.cache_1", "other.a", "later.a"])
def test_tables_that_no_policy_wants_or_that_policies_leave_out_are_left_alone(app, table):
    app.execute(f"CREATE TABLE {table} (id int)", user=app.owner)
    app.execute(f"INSERT INTO {table} VALUES (1)", user=app.owner)
    assert (records(app), triggers(app, table)) == ([], 0)


def test_temporary_tables_and_views_are_left_alone(app):
    rollout(app, policies=[wanted("*.*", name="all", auto_attach=True)], allow_missing=True)
    session = app.connect()
    fetch(session, "CREATE TEMPORARY TABLE passing (id int); INSERT INTO passing VALUES (1)")
    fetch(session, "CREATE TEMPORARY TABLE copied AS SELECT 1; CREATE VIEW app.v AS SELECT 1")
    fetch(session, "CREATE MATERIALIZED VIEW app.m AS SELECT 1 AS id; CREATE SEQUENCE app.s")
    assert records(app) == []
    query = "SELECT count(*) FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = tgrelid WHERE c.relpersistence = 't'"
    assert app.value(query) == 0


TABLES = '''
CREATE TABLE app.person (id int, no text, pin text, ssn text, "my ""token""" text, "a,b{}" text, PRIMARY KEY (no, id));
CREATE TABLE app.plain (id int);
CREATE TABLE app."Größe € \\" ("é" int PRIMARY KEY, "null" text, "token\\" text, "secret x" text);
CREATE TABLE app.parts (id int, region text, pin text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE app.parts_eu PARTITION OF app.parts FOR VALUES IN ('eu') PARTITION BY RANGE (id);
CREATE TABLE app.parts_eu_1 PARTITION OF app.parts_eu FOR VALUES FROM (0) TO (100);
CREATE TABLE app.base (id int PRIMARY KEY, pin text);
CREATE TABLE other.child (more int) INHERITS (app.base);
CREATE TABLE bulk.load (id int PRIMARY KEY, password text);
CREATE TABLE picky.choice (id int PRIMARY KEY, name text)
'''


@pytest.mark.parametrize("superuser", [True, False])
def test_what_is_attached_is_exactly_what_a_rollout_makes(app, superuser):
    """Made here, found right; taken away and made by the module: the server's catalogue is the same."""
    for statement in TABLES.split(";\n"):
        app.execute(statement, user="postgres" if superuser else app.owner)
    query = """
        SELECT t.tgrelid::regclass::text, t.tgname, t.tgenabled, encode(t.tgargs, 'hex'), pg_get_triggerdef(t.oid)
        FROM pg_trigger AS t WHERE t.tgname LIKE 'dbfleet_audit_%' AND t.tgrelid::regclass::text !~ '^audit\\.'
        ORDER BY 1, 2"""
    attached = app.execute(query)
    assert {row[0] for row in attached if "parts" not in row[0]} == {
        *("app.person", "app.plain", 'app."Größe € \\"', "app.base", "other.child", "bulk.load", "picky.choice")
    }
    assert not rollout(app, **OPTIONS).changed
    own = query.replace("WHERE", "WHERE t.tgparentid = 0 AND")
    for table, name, *_unused in app.execute(own):
        app.execute(f"DROP TRIGGER {name} ON {table}")
    assert rollout(app, **OPTIONS).changed
    assert app.execute(query) == attached


def test_partitions_that_their_owner_adds_are_audited_as_the_root(app):
    for statement in TABLES.split(";\n")[3:6]:
        app.execute(statement, user=app.owner)
    app.execute("CREATE TABLE app.parts_us PARTITION OF app.parts FOR VALUES IN ('us')", user=app.owner)
    app.execute("INSERT INTO app.parts VALUES (1, 'eu', 'P'), (2, 'us', 'P')", user=app.owner)
    app.execute("DELETE FROM app.parts_us", user=app.owner)
    assert ids(app) == [("parts", '["eu", 1]'), ("parts", '["us", 2]'), ("parts", '["us", 2]')]
    assert {record.new_values["pin"] for record in records(app)[:2]} == {"[REDACTED]"}
    assert not rollout(app, **OPTIONS).changed


def test_other_policies_record_as_they_do_after_a_rollout(app):
    for statement in TABLES.split(";\n")[8:]:
        app.execute(statement, user=app.owner)
    app.execute("INSERT INTO bulk.load VALUES (1, 'x'), (2, 'y')", user=app.owner)
    app.execute("UPDATE bulk.load SET password = 'z'", user=app.owner)
    app.execute("INSERT INTO picky.choice VALUES (10, 'a'), (11, 'b')", user=app.owner)
    app.execute("UPDATE picky.choice SET name = name", user=app.owner)
    app.execute("UPDATE picky.choice SET name = 'c'", user=app.owner)
    done = [(record.action, record.record_id, record.new_values.get("password")) for record in records(app)]
    assert done == [
        ("INSERT", "1", "[REDACTED]"),
        ("INSERT", "2", "[REDACTED]"),
        ("INSERT", "11", None),
        ("UPDATE", "11", None),
    ]


def test_a_condition_that_does_not_fit_names_the_trouble_and_the_table_is_not_made(app):
    with pytest.raises(psycopg2.errors.UndefinedColumn) as refused:
        app.execute("CREATE TABLE picky.nothing (name text)", user=app.owner)
    assert "new.id" in str(refused.value)
    assert "picky.nothing" in str(refused.value)
    assert app.value("SELECT to_regclass('picky.nothing')") is None


def test_extensions_are_made_as_ever(app):
    rollout(app, policies=[wanted("*.*", name="all", auto_attach=True)], allow_missing=True)
    app.execute("CREATE EXTENSION earthdistance CASCADE; CREATE EXTENSION pg_stat_statements; CREATE EXTENSION hstore")
    app.execute("DROP EXTENSION earthdistance")
    assert not rollout(app, policies=[wanted("*.*", name="all", auto_attach=True)], allow_missing=True).changed


def test_owners_add_tables_by_hand_and_strangers_do_not(trail):
    owner, stranger = (trail.create_role(name) for name in ("owner", "stranger"))
    install_trail(trail, applications=[owner, stranger])
    trail.execute(f"CREATE SCHEMA app; GRANT ALL ON SCHEMA app TO {owner}; GRANT USAGE ON SCHEMA app TO {stranger}")
    rollout(trail, policies=[wanted("app.*", name="app", columns={"redact": ["pin"]})], allow_missing=True)
    trail.execute('CREATE TABLE app."T 1" (id int PRIMARY KEY, pin text)', user=owner)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match=r'does not own app\."T 1"'):
        trail.execute("SELECT audit.add_table('app.\"T 1\"')", user=stranger)
    assert triggers(trail, 'app."T 1"') == 0
    trail.execute("SELECT audit.add_table('app.\"T 1\"')", user=owner)
    trail.execute("INSERT INTO app.\"T 1\" VALUES (1, 'P')", user=owner)
    assert [record.new_values for record in records(trail)] == [{"id": 1, "pin": "[REDACTED]"}]
    trail.execute("SELECT audit.add_table('app.\"T 1\"')", user=owner)
    assert not rollout(trail, policies=[wanted("app.*", name="app", columns={"redact": ["pin"]})]).changed


def test_a_table_without_a_policy_is_refused_with_the_remedy(app):
    app.execute("CREATE TABLE other.a (id int)")
    with pytest.raises(psycopg2.errors.InvalidParameterValue, match=r"no policy matches other\.a") as refused:
        app.execute("SELECT audit.add_table('other.a')")
    assert "Add a pattern to a policy and run site.yml" in refused.value.diag.message_hint


def test_nobody_else_may_call_what_attaches(app):
    app.execute("CREATE TABLE other.mine (id int)", user=app.owner)
    for call in ("attach('other.mine'::regclass, 1)", "add_table('other.mine')", "attach_ddl()"):
        with pytest.raises((psycopg2.errors.InsufficientPrivilege, psycopg2.errors.FeatureNotSupported)):
            app.execute(f"SELECT audit.{call}", user=app.owner)
    assert triggers(app, "other.mine") == 0


def test_a_dump_restores_with_auditing_and_history(pg: LocalPostgresql, app: Database, tmp_path):
    for statement in TABLES.split(";\n"):
        app.execute(statement)
    app.execute("INSERT INTO app.person VALUES (1, 'a', 'P', 'S'); INSERT INTO app.parts VALUES (1, 'eu', 'P')")
    app.execute("UPDATE app.person SET ssn = 'T'; INSERT INTO bulk.load VALUES (1, 'x')")
    history = app.execute("SELECT * FROM audit.audit_history ORDER BY id")
    assert [row[2] for row in history if row[2] != "DDL"] == ["INSERT", "INSERT", "UPDATE", "INSERT"]
    server = ("-h", str(pg.socket_dir), "-p", str(pg.port), "-U", "postgres")
    dump = str(tmp_path / "dump")
    subprocess.run([pg.binaries / "pg_dump", *server, "-Fc", "-f", dump, app.name], check=True)
    copy = Database(pg, template="template0")
    try:
        done = subprocess.run(
            [pg.binaries / "pg_restore", *server, "-d", copy.name, "--exit-on-error", dump],
            check=False,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert copy.execute("SELECT * FROM audit.audit_history ORDER BY id") == history
        for module in (install_trail, lambda db: rollout(db, **OPTIONS)):
            assert not module(copy).changed
        copy.execute(
            "UPDATE app.person SET ssn = 'S'; CREATE TABLE app.fresh (id int); INSERT INTO app.fresh VALUES (1)"
        )
        update, insert = records(copy)[-2:]
        first = records(app, "person")[0]
        assert (update.new_values["ssn"], update.id) == (first.new_values["ssn"], max(row[0] for row in history) + 1)
        assert (insert.table_name, insert.new_values) == ("fresh", {"id": 1})
        with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="append-only"):
            copy.execute("DELETE FROM audit.audit_log_data")
    finally:
        copy.drop()


def test_a_table_that_is_audited_already_becomes_a_partition_and_is_recorded_once(app):
    session = app.connect(app.owner)
    fetch(session, "CREATE TABLE app.orders (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    fetch(session, "CREATE TABLE app.orders_a (LIKE app.orders INCLUDING ALL)")
    fetch(session, "INSERT INTO app.orders_a VALUES (1)")
    attach = "ALTER TABLE app.orders ATTACH PARTITION app.orders_a FOR VALUES FROM (0) TO (10)"
    fetch(session, attach)
    fetch(session, "INSERT INTO app.orders VALUES (2); INSERT INTO app.orders_a VALUES (3)")
    assert ids(app) == [("orders_a", "1"), ("orders", "2"), ("orders", "3")]
    assert not rollout(app, **OPTIONS)["changed"]
    fetch(session, "ALTER TABLE app.orders DETACH PARTITION app.orders_a")
    rollout(app, **OPTIONS)
    fetch(session, "INSERT INTO app.orders_a VALUES (4)")
    fetch(session, attach)
    fetch(session, "INSERT INTO app.orders VALUES (5)")
    assert ids(app)[3:] == [("orders_a", "4"), ("orders", "5")]
    assert not rollout(app, **OPTIONS)["changed"]
