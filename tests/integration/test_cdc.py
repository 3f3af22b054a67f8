# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Change data capture on PostgreSQL: set up once, limited, and landed by the example consumer as triggers have it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import threading
import time
import typing as t

import pytest
import running
from auditing import install_trail, records, rollout, wanted
from cdc_consumers import Consumer
from databases import Database, connect, fetch, wait_for_replay
from local_postgresql import LocalPostgresql

pytestmark = pytest.mark.own_server

LIMIT = "64MB"

#: What the trail and a consumer say alike.
SHARED = (
    "action",
    "schema_name",
    "table_name",
    "record_id",
    "old_values",
    "new_values",
    "transaction_id",
    "changed_by",
)
CONTEXT = ("db_user", "application_name", "context")


def cdc(db: Database, *tables: str, **options: t.Any) -> running.ModuleResult:
    return running.run_module("postgresql_audit_cdc", **{**db.login, "tables": list(tables), **options})


def refusal(db: Database, *tables: str, **options: t.Any) -> str:
    result = cdc(db, *tables, may_fail=True, **options)
    assert result.failed, result
    assert result["statements"] == []
    return result.msg


def kinds(result: running.ModuleResult) -> list[str]:
    return [problem["type"] for problem in result["problems"]]


def identity(db: Database, table: str) -> str:
    return db.value("SELECT relreplident FROM pg_class WHERE oid = %s::regclass", table)


def in_use(db: Database) -> bool:
    return db.value("SELECT bool_or(active) FROM pg_replication_slots")


class Set(t.NamedTuple):
    """A database that is set up, the logins of application and consumer, and what the module said on the way."""

    db: Database
    app: str
    login: str
    refused: running.ModuleResult
    waiting: running.ModuleResult
    predicted: running.ModuleResult
    done: running.ModuleResult


@pytest.fixture(scope="module")
def stream(own_server: LocalPostgresql) -> t.Iterator[Set]:
    """Return a database with a trail, a table with triggers, and both, and two more, in the stream."""
    db = Database(own_server)
    app, login = db.create_role("app"), db.create_role("cdc", "LOGIN REPLICATION")
    install_trail(db, applications=[app])
    db.execute(
        "CREATE TABLE note (id int PRIMARY KEY, body text, amount numeric, tags jsonb, at timestamptz, done bool,"
        " password text); ALTER TABLE note ALTER body SET STORAGE EXTERNAL;"
        "CREATE TABLE part (region text, id int, PRIMARY KEY (region, id)) PARTITION BY LIST (region);"
        "CREATE TABLE part_eu PARTITION OF part FOR VALUES IN ('eu');"
        "CREATE TABLE keyless (n int) PARTITION BY LIST (n);"
        "CREATE TABLE keyless_1 PARTITION OF keyless FOR VALUES IN (1);"
        "CREATE TABLE bare (word text); CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY);"
        f"GRANT ALL ON note, part, bare TO {app}"
    )
    rollout(db, policies=[wanted("public.note", "public.part")])
    # Only later is there room for a replication slot, and anything to decode.
    tables = ("public.*",)
    refused = cdc(db, *tables, may_fail=True)
    options = {"configure": True, "max_slot_wal_keep_size": LIMIT, "emit_context": True}
    waiting = cdc(db, *tables, **options)
    db.disconnect()
    own_server.restart()
    predicted = cdc(db, *tables, check_mode=True, **options)
    done = cdc(db, *tables, **options)
    yield Set(db, app, login, refused, waiting, predicted, done)
    db.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
    db.drop()


@pytest.fixture
def consumer(stream: Set, tmp_path: pathlib.Path) -> Consumer:
    server, file = stream.db.server, tmp_path / "landed.jsonl"
    dsn = f"host={server.socket_dir} port={server.port} dbname={stream.db.name} user={stream.login}"
    return Consumer("consumer_postgresql", file, dsn, str(file))


def test_a_server_is_made_ready_in_two_runs_and_a_restart_and_then_left_alone(stream):
    assert stream.refused.msg == (
        "wal_level is replica and has to be logical: set `configure: true`, or ALTER SYSTEM SET "
        "wal_level = 'logical', or on a managed service, in its own parameters (rds.logical_replication = 1 on RDS), "
        "and restart the server"
    )
    assert (stream.refused["restart_required"], stream.refused["statements"]) == (True, [])
    assert "ALTER SYSTEM SET wal_level = 'logical'" in stream.waiting["statements"]
    assert (stream.waiting["restart_required"], kinds(stream.waiting), stream.waiting["slot"]) == (
        True,
        ["restart"],
        None,
    )
    created = "SELECT pg_create_logical_replication_slot('audit_cdc', 'pgoutput') FROM set_config"
    assert [text.startswith(created) for text in stream.done["statements"]] == [True]
    assert stream.predicted["statements"] == stream.done["statements"]
    assert kinds(stream.predicted) == ["missing"]
    assert stream.done["publication"]["tables"] == ["public.bare", "public.note", "public.part"]
    skipped = {entry["table"]: entry["reason"] for entry in stream.done["skipped_tables"]}
    assert list(skipped) == ["public.keyless", "public.scratch"]
    assert skipped["public.scratch"] == "it is unlogged: its changes are in no WAL"
    slot = stream.done["slot"]
    assert (slot["plugin"], slot["database"], slot["wal_status"]) == ("pgoutput", stream.db.name, "reserved")
    assert (kinds(stream.done), stream.done["restart_required"]) == (["inactive"], False)
    again = cdc(stream.db, "public.*", emit_context=True, max_slot_wal_keep_size=LIMIT)
    assert (again.changed, again["statements"]) == (False, [])
    assert {identity(stream.db, name) for name in ("note", "part", "part_eu", "bare")} == {"f"}
    trail = {**stream.db.login, "applications": [stream.app]}
    assert not running.run_module("postgresql_audit_trail", check_mode=True, **trail).changed


def test_what_a_consumer_lands_is_what_triggers_record(stream, consumer):
    db, app = stream.db, stream.app
    with consumer.running():
        session = db.connect(app, autocommit=False, application_name="till")
        with session.cursor() as cursor:
            cursor.execute("SELECT audit.set_context(%s)", ['{"user": "ann", "request_id": "7"}'])
            cursor.execute("SELECT audit.emit_context()")
            cursor.execute(
                "INSERT INTO note VALUES (1, repeat('x', 9000), 1.50, '{\"a\": [1, null]}', now(), true, 's3cret')"
            )
            cursor.execute("UPDATE note SET amount = 2.5, password = 'other' WHERE id = 1")
            cursor.execute("INSERT INTO part VALUES ('eu', 4)")
        session.commit()
        db.execute("UPDATE note SET id = 2, tags = NULL, done = false")
        db.execute("DELETE FROM note")
        db.execute("TRUNCATE note, part")
        landed = consumer.wait_for("note", 5) + consumer.wait_for("part", 2)
    recorded = records(db, "note") + records(db, "part")
    assert len(recorded) == 7
    for event, record in zip(landed, recorded):
        # Unlike the trail, a consumer is not told who it was where nobody has emitted it.
        told = event["changed_by"] is not None
        assert told == (record.changed_by == "ann")
        assert {key: event[key] for key in SHARED[: None if told else -1]} == {
            key: getattr(record, key) for key in SHARED[: None if told else -1]
        }
        assert sorted(event["changed_columns"] or []) == sorted(record.changed_columns or [])
        assert {key: event[key] for key in CONTEXT} == {key: getattr(record, key) if told else None for key in CONTEXT}
        assert "s3cret" not in str(event)


def test_a_consumer_that_is_killed_carries_on_and_loses_nothing(stream, consumer):
    db = stream.db

    def write() -> None:
        for number in range(300):
            db.execute("INSERT INTO bare VALUES (%s)", f"n{number}")

    writer = threading.Thread(target=write)
    with consumer.running():
        writer.start()
        consumer.wait_for("bare", 20)
    # What a write that was cut off leaves.
    with consumer.file.open("a", encoding="utf-8") as file:
        file.write('{"id": "torn')
    with consumer.running():
        landed = consumer.wait_for("bare", 300)
    writer.join()
    assert [event["new_values"]["word"] for event in landed] == [f"n{number}" for number in range(300)]
    assert {event["record_id"] for event in landed} == {None}


def test_of_a_partition_that_is_newer_than_the_last_run_no_old_value_is_made_up(stream, consumer):
    db = stream.db
    db.execute("CREATE TABLE wide (id int PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    cdc(db, "public.*", emit_context=True)
    db.execute("CREATE TABLE wide_1 PARTITION OF wide FOR VALUES FROM (0) TO (9); INSERT INTO wide VALUES (1, 'x')")
    db.execute("DELETE FROM wide")
    with consumer.running():
        landed = consumer.wait_for("wide", 2)
    assert [event["old_values"] for event in landed] == [None, {"id": 1}]
    db.execute("DROP TABLE wide")


def test_in_a_database_that_is_not_utf_8_words_and_names_are_right_too(stream, tmp_path):
    server = stream.db.server
    with contextlib.closing(connect(server, "postgres")) as session:
        fetch(session, "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    db = Database(server, "latin", template=None)
    install_trail(db, applications=[stream.app])
    db.execute(f"CREATE TABLE maß (id int PRIMARY KEY, größe text); GRANT ALL ON maß TO {stream.app}")
    cdc(db, "public.*", slot="latin", emit_context=True)
    file = tmp_path / "landed.jsonl"
    dsn = f"host={server.socket_dir} port={server.port} dbname=latin user={stream.login}"
    consumer = Consumer("consumer_postgresql", file, dsn, str(file), "--slot", "latin")
    session = db.connect(stream.app, autocommit=False)
    with session.cursor() as cursor:
        cursor.execute("SELECT audit.set_context(%s)", ['{"user": "Jürgen"}'])
        cursor.execute("SELECT audit.emit_context(); INSERT INTO maß VALUES (1, 'é')")
    session.commit()
    with consumer.running():
        (event,) = consumer.wait_for("maß", 1)
    assert (event["changed_by"], event["new_values"]) == ("Jürgen", {"id": 1, "größe": "é"})
    while in_use(db):
        time.sleep(0.02)
    cdc(db, slot="latin", state="absent")
    db.drop()


def test_who_emits_a_context_on_a_standby_is_not_stopped(stream, tmp_path):
    standby = stream.db.server.standby_of_this(tmp_path / "standby", while_pid=os.getpid())
    try:
        wait_for_replay(stream.db.server, standby)
        with contextlib.closing(connect(standby, stream.db.name, stream.app)) as session:
            assert fetch(session, "SELECT audit.emit_context()")
    finally:
        standby.remove()
    while in_use(stream.db):
        time.sleep(0.02)
    stream.db.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_type = 'physical'"
    )


def test_the_owner_of_a_table_needs_no_rights_on_the_trail(stream):
    db = stream.db
    owner = db.create_role("owner", "LOGIN REPLICATION")
    db.execute(f"CREATE SCHEMA own AUTHORIZATION {owner}; GRANT CREATE ON DATABASE {db.name} TO {owner}")
    db.execute("CREATE TABLE own.item (id int PRIMARY KEY)", user=owner)
    options = {"slot": "", "publication": "own", "login_user": owner}
    assert cdc(db, "own.*", **options)["publication"]["tables"] == ["own.item"]
    assert not cdc(db, "own.*", **options).changed
    cdc(db, state="absent", **options)
    db.execute("DROP SCHEMA own CASCADE")


def test_what_cannot_be_captured_is_refused_before_anything_is_changed(stream):
    db = stream.db
    db.execute("CREATE VIEW seen AS SELECT 1 AS one; CREATE TABLE odd (word text)")
    db.execute("CREATE PUBLICATION theirs")
    db.execute("SELECT pg_create_logical_replication_slot('theirs', 'test_decoding')")
    try:
        assert "'public.nothing' matches no table" in refusal(db, "public.nothing")
        assert "public.scratch cannot be published: it is unlogged" in refusal(db, "public.scratch")
        assert "public.seen cannot be published: it is a view" in refusal(db, "public.seen")
        assert "keep: public.odd: no primary key" in refusal(db, "public.odd", replica_identity="keep")
        assert "'theirs' is there and was not made by" in refusal(db, "public.note", publication="theirs")
        assert "'theirs' is another one (plugin test_decoding" in refusal(db, "public.note", slot="theirs")
        if not pathlib.Path(db.value("SELECT setting FROM pg_config WHERE name = 'PKGLIBDIR'"), "wal2json.so").exists():
            assert "install postgresql-" in refusal(db, "public.note", slot="other", plugin="wal2json")
        assert "not made of up to 63" in refusal(db, "public.note", slot="Audit")
        assert "'plenty' is no size" in refusal(db, "public.note", max_slot_wal_keep_size="plenty")
        login = {"login_user": stream.app}
        assert f"ALTER ROLE {stream.app} REPLICATION" in refusal(db, "public.*", slot="new", publication="new", **login)
    finally:
        db.execute("SELECT pg_drop_replication_slot('theirs'); DROP PUBLICATION theirs; DROP VIEW seen; DROP TABLE odd")


def test_a_slot_without_a_limit_is_refused(stream):
    db = stream.db
    db.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
    db.execute("SELECT pg_reload_conf()")
    while db.value("SHOW max_slot_wal_keep_size") != "-1":
        time.sleep(0.02)
    try:
        assert "would fill the disk" in refusal(db, "public.note", slot="second", publication="second")
        assert "unlimited" in kinds(cdc(db, "public.*", emit_context=True, check_mode=True))
    finally:
        assert cdc(db, "public.*", emit_context=True, max_slot_wal_keep_size=LIMIT).changed


def test_a_table_that_is_locked_is_left_as_it_was_and_named(stream):
    db = stream.db
    db.execute("CREATE TABLE busy (id int PRIMARY KEY)")
    holder = db.connect(autocommit=False)
    with holder.cursor() as cursor:
        cursor.execute("LOCK TABLE busy IN ROW EXCLUSIVE MODE")
    options = {"emit_context": True, "lock_timeout": 0.1, "lock_retries": 0}
    result = cdc(db, "public.*", may_fail=True, **options)
    assert "left as before, run it again for these: public.busy: locked by another session" in result.msg
    assert "public.busy" not in result["publication"]["tables"]
    assert identity(db, "busy") == "d"
    holder.rollback()
    assert "public.busy" in cdc(db, "public.*", **options)["publication"]["tables"]
    assert identity(db, "busy") == "f"
    # What is no longer asked for leaves the stream and is as it was.
    left = cdc(db, "public.note", "public.part", "public.bare", **options)
    assert "public.busy" not in left["publication"]["tables"]
    assert identity(db, "busy") == "d"
    db.execute("DROP TABLE busy")


def test_a_consumer_that_is_far_behind_is_a_problem(stream):
    db = stream.db
    db.execute("SELECT pg_logical_emit_message(false, '', repeat('x', 100000))")
    result = cdc(db, "public.*", emit_context=True, check_mode=True, max_lag="64K")
    assert "lag" in kinds(result)
    assert result["slot"]["lag_bytes"] > 65536


def test_taking_it_out_gives_back_what_was_there_and_spares_a_slot_in_use(stream, consumer):
    db = stream.db
    db.execute("CREATE TABLE own (id int PRIMARY KEY); ALTER TABLE own REPLICA IDENTITY FULL")
    db.execute("CREATE TABLE named (id int NOT NULL CONSTRAINT named_key UNIQUE); CREATE TABLE lost (LIKE named)")
    db.execute("CREATE UNIQUE INDEX lost_key ON lost (id); ALTER TABLE lost REPLICA IDENTITY USING INDEX lost_key")
    db.execute("ALTER TABLE named REPLICA IDENTITY USING INDEX named_key")
    cdc(db, "public.*", emit_context=True, max_slot_wal_keep_size=LIMIT)
    db.execute("ALTER TABLE named RENAME TO renamed; DROP INDEX lost_key")
    assert not cdc(db, "public.*", emit_context=True, max_slot_wal_keep_size=LIMIT).changed
    with consumer.running():
        consumer.wait(lambda _events: in_use(db))
        assert "is in use" in refusal(db, state="absent")
    while in_use(db):
        time.sleep(0.02)
    predicted = cdc(db, state="absent", check_mode=True)
    done = cdc(db, state="absent")
    assert done["statements"] == predicted["statements"]
    assert not cdc(db, state="absent").changed
    assert db.execute("SELECT slot_name FROM pg_replication_slots UNION SELECT pubname FROM pg_publication") == []
    identities = {name: identity(db, name) for name in ("note", "part_eu", "bare", "own", "renamed", "lost")}
    assert identities == {"note": "d", "part_eu": "d", "bare": "d", "own": "f", "renamed": "i", "lost": "d"}
    assert db.value("SELECT to_regproc('audit.emit_context') IS NULL")


def test_a_dead_consumer_costs_the_slot_and_not_the_disk(stream):
    db = stream.db
    slot = {"slot": "dead", "publication": "dead", "max_slot_wal_keep_size": "16MB"}
    watched = {"check_mode": True, "fail_on_lag": True, "may_fail": True}
    assert "slot dead: it is not there" in cdc(db, "public.note", **watched, **slot).msg
    assert not cdc(db, "public.note", fail_on_lag=True, **slot).failed
    for _segment in range(5):
        db.execute("SELECT pg_logical_emit_message(false, '', '')")
        db.execute("SELECT pg_switch_wal()")
    db.execute("CHECKPOINT")
    result = cdc(db, "public.note", check_mode=True, **slot)
    assert (kinds(result), result["slot"]["wal_status"]) == (["lost"], "lost")
    failed = cdc(db, "public.note", **watched, **slot)
    assert "has thrown away WAL that the consumer had not read (max_slot_wal_keep_size = 16 MB)" in failed.msg
    db.execute("CHECKPOINT")
    assert (
        db.value(
            "SELECT count(*) FROM pg_ls_waldir() WHERE name < pg_walfile_name(%s)",
            failed["slot"]["confirmed_flush_lsn"],
        )
        == 0
    )
    cdc(db, state="absent", **{**slot, "max_slot_wal_keep_size": LIMIT})
