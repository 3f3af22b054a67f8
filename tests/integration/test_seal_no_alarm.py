# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What may happen to a sealed log without anybody having touched it: verification stays clean, and sealing goes on."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import typing as t

import pytest
import running
from auditing import install_trail, rollout, wanted
from databases import Database, fetch
from local_postgresql import LocalPostgresql
from sealing import Sealer
from tampering import SealedLog, sealed, stays_clean, unseen

ServerFactory = t.Callable[..., LocalPostgresql]


#: Its partitions get their triggers from it.
PARTITIONED = """
CREATE TABLE visit (id int, day date, name text) PARTITION BY RANGE (day);
CREATE TABLE visit_2026 PARTITION OF visit FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (id);
CREATE TABLE visit_2026_1 PARTITION OF visit_2026 FOR VALUES IN (1)
"""


@pytest.fixture
def log(trail: Database, tmp_path: pathlib.Path) -> SealedLog:
    """Return a sealed log."""
    return sealed(trail, tmp_path)


# -- maintenance -------------------------------------------------------------------------------------------------------


def test_maintenance_of_the_tables(trail: Database, tmp_path: pathlib.Path) -> None:
    install_trail(trail, indexes=["changed_by", "transaction"])
    log = sealed(trail, tmp_path)
    log.sealer.rollout["indexes"] = ["changed_by", "transaction"]
    leaves = "SELECT relid::regclass::text FROM pg_partition_tree('audit.audit_log_data') WHERE isleaf"
    for (leaf,) in trail.execute(leaves):
        trail.execute(f"VACUUM FULL {leaf}")
        index = "SELECT indexrelid::regclass::text FROM pg_index AS i WHERE indrelid = %s::regclass AND EXISTS ("
        index += "SELECT FROM pg_class AS c WHERE c.oid = i.indexrelid AND c.relam = 403)"
        trail.execute(f"CLUSTER {leaf} USING {trail.value(index, leaf).split('.')[1]}")
    for statement in ("REINDEX TABLE audit.audit_log_data", "VACUUM FULL audit.seal", "ANALYZE", "VACUUM FREEZE",
                      "VACUUM FULL pg_proc", "VACUUM FULL pg_trigger", f"REINDEX DATABASE {trail.name}"):  # fmt: skip
        trail.execute(statement)
    stays_clean(log, 101)
    trail.execute("ALTER TABLE audit.audit_log_data ADD COLUMN later text")
    stays_clean(log, 201)


def partition(db: Database) -> tuple[str, str]:
    """Return the partition of today and its bounds."""
    query = "SELECT c.oid::regclass::text, pg_get_expr(c.relpartbound, c.oid) FROM pg_class AS c "
    query += "WHERE c.oid = (SELECT max(tableoid::oid) FROM audit.audit_log_data WHERE action <> 'DDL')"
    return t.cast("tuple[str, str]", db.execute(query)[0])


def test_a_partition_that_was_detached_and_attached_again(log: SealedLog) -> None:
    name, bounds = partition(log.db)
    log.db.execute(f"ALTER TABLE audit.audit_log_data DETACH PARTITION {name}")
    assert "deleted_row" in {kind for kind, _block, _id in log.problems()}
    log.db.execute(f"ALTER TABLE audit.audit_log_data ATTACH PARTITION {name} {bounds}")
    log.db.execute(f"ALTER TABLE {name} ENABLE ALWAYS TRIGGER dbfleet_audit_row_guard")
    stays_clean(log, 101)


def test_a_partition_that_was_detached_while_sealing_went_on(log: SealedLog) -> None:
    """Its rows were sealed; the objects of a table that is no partition any more are nothing to explain."""
    log.db.execute("CREATE TABLE kept AS SELECT 1 AS id")
    stays_clean(log, 101)
    empty = log.db.value(
        "SELECT relid::regclass::text FROM pg_partition_tree('audit.audit_log_data') WHERE isleaf "
        "AND relid NOT IN (SELECT tableoid FROM audit.audit_log_data) AND relid::regclass::text NOT LIKE '%future' "
        "ORDER BY 1 DESC LIMIT 1"
    )
    log.db.execute(f"ALTER TABLE audit.audit_log_data DETACH PARTITION {empty}")
    log.change(201, 203)
    log.sealer.seal()
    assert [text for text in (entry["detail"] for entry in log.sealer.verify()["problems"]) if "seal" in text] == []


def test_rows_of_the_catch_all_that_move(log: SealedLog) -> None:
    """Between the swap of the catch-all and the move of its rows, they are in no partition."""
    later = "clock_timestamp() + interval '2 years'"
    rows = "INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, changed_by, db_user) "
    rows += f"SELECT {later}, '7', 'EVENT', 'x', 'x' FROM generate_series(1, 20)"
    log.db.execute(rows)
    log.sealer.seal()
    log.db.execute(rows)
    sealed_up_to = log.db.value("SELECT watermark FROM audit.seal_state")
    plan = log.db.value("SELECT audit.partition_plan('month', 3, clock_timestamp() + interval '2 years')")
    swap, *move = plan
    with contextlib.closing(log.db.connect(autocommit=False)) as connection:
        for statement in swap["statements"]:
            fetch(connection, statement["sql"])
        connection.commit()
    assert log.db.value("SELECT count(*) FROM audit.audit_log_moving") == 40
    # That rows are to move is a difference, as before, and no more.
    assert log.problems() == [("missing", None, None)]
    log.change(101, 103)
    log.sealer.seal()
    log.sealer.seal()
    assert log.problems() == [("missing", None, None)]
    # Rows that nobody could see are not taken for sealed.
    assert log.db.value("SELECT watermark FROM audit.seal_state") == sealed_up_to
    with contextlib.closing(log.db.connect()) as connection:
        for transaction in move:
            for statement in transaction["statements"]:
                fetch(connection, statement["sql"])
    stays_clean(log, 201)
    assert log.db.value("SELECT watermark FROM audit.seal_state") > sealed_up_to


def test_rows_that_moved_between_two_calls_of_one_run(log: SealedLog) -> None:
    """The run that saw no sign of it, before and after, must not take the rows in between for sealed."""
    later = "INSERT INTO audit.audit_log_data (changed_at, transaction_id, action, changed_by, db_user) "
    later += "SELECT clock_timestamp() + interval '2 years', '7', 'EVENT', 'x', 'x' FROM generate_series(1, 20)"
    log.change(101, 120)
    log.db.execute(later)
    log.change(201, 220)
    plan = log.db.value("SELECT audit.partition_plan('month', 3, clock_timestamp() + interval '2 years')")
    sealer, calls = log.sealer, []

    def between() -> None:
        calls.append("")
        # The second call makes the blocks that would have had the rows: they are out of sight for it.
        for transaction in {2: plan[:1], 4: plan[1:]}.get(len(calls), []):
            with contextlib.closing(log.db.connect(autocommit=False)) as connection:
                for statement in transaction["statements"]:
                    fetch(connection, statement["sql"])
                connection.commit()

    sealer.meanwhile = between
    sealer.seal(call_seconds=0.001, block_rows=20)
    sealer.meanwhile = None
    assert len(calls) > 5
    stays_clean(log, 301)


# -- our own rollouts, and the owners of tables ------------------------------------------------------------------------


def test_changes_of_policies(log: SealedLog) -> None:
    """The log has a record of each: DDL is recorded."""
    db, options = log.db, log.sealer.rollout
    role = db.create_role("app")
    db.execute("CREATE TABLE item_2 (id int PRIMARY KEY, name text)")
    db.execute(PARTITIONED)
    for trail, policies in (
        ({}, [wanted("public.visit")]),
        ({}, [wanted("public.visit", columns={"redact": ["name"]})]),
        ({}, [wanted("public.item", columns={"hash": ["name"]})]),
        ({"indexes": ["record"]}, [wanted("public.item", columns={"hash": ["name"]})]),
        ({}, [wanted("public.item", capture="statement")]),
        ({"applications": [role]}, [wanted("public.item", name="other", operations=["insert"])]),
        ({}, [wanted("public.item_2")]),
        ({"readers": [role]}, [wanted("public.item*", auto_attach=True)]),
    ):
        install_trail(db, **trail)
        rollout(db, policies=policies)
        for name in ("indexes", "applications", "readers"):
            options.pop(name, None)
        options.update(trail, policies=policies)
        stays_clean(log)
    log.db.execute("CREATE TABLE item_3 (id int PRIMARY KEY); INSERT INTO item_3 VALUES (1)")
    stays_clean(log)


@pytest.mark.parametrize("events", [["ddl", "login"], []], ids=["DDL is recorded", "DDL is not recorded"])
def test_auditing_that_is_taken_out_and_put_back(db: Database, tmp_path: pathlib.Path, events: list[str]) -> None:
    install_trail(db, events=events)
    log = sealed(db, tmp_path)
    log.sealer.rollout["events"] = events
    rollout(db, policies=[])
    assert running.run_module("postgresql_audit_trail", **db.login, state="absent").changed
    assert db.value("SELECT count(*) FROM audit.audit_log_data") > 0
    install_trail(db, events=events)
    rollout(db, policies=[wanted("public.item")])
    stays_clean(log, 101)
    assert not running.run_module("postgresql_audit_trail", **db.login, events=events).changed


def test_recorded_events_that_are_turned_off_and_on_again(log: SealedLog) -> None:
    for events in (["ddl", "app"], ["app"], ["ddl", "app"]):
        install_trail(log.db, events=events)
        log.sealer.rollout["events"] = events
        details = [problem["detail"] for problem in log.sealer.verify()["problems"]]
        assert details == [], events
        log.sealer.seal()
        assert log.problems() == []


def test_what_owners_do_to_their_tables(log: SealedLog) -> None:
    db = log.db
    owner = db.create_role("owner")
    policies = [wanted("public.item"), wanted("public.own_*", auto_attach=True)]
    rollout(db, policies=policies, allow_missing=True)
    log.sealer.rollout.update(policies=policies, allow_missing=True)
    db.execute(f"GRANT CREATE ON SCHEMA public TO {owner}")
    stays_clean(log)
    for statement in (
        "CREATE TABLE own_1 (id int PRIMARY KEY, name text)",
        "ALTER TABLE own_1 RENAME COLUMN name TO title; ALTER TABLE own_1 ADD COLUMN size int",
        "CREATE TABLE own_2 (id int, day date) PARTITION BY RANGE (day)",
        "CREATE TABLE own_2_a PARTITION OF own_2 FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
        "ALTER TABLE own_2 DETACH PARTITION own_2_a",
        "ALTER TABLE own_2 ATTACH PARTITION own_2_a FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
        "ALTER TABLE own_1 RENAME TO own_3; CREATE TABLE own_1 (id int)",
        "ALTER TABLE own_3 ALTER COLUMN id TYPE bigint",
        "DROP TABLE own_1; DROP TABLE own_2",
    ):
        db.execute(statement, user=owner)
        found = log.sealer.verify()["problems"]
        assert [entry["detail"] for entry in found if entry["type"] == "altered_between_seals"] == [], statement
        log.sealer.seal()
        found = log.sealer.verify()["problems"]
        assert [entry["detail"] for entry in found if entry["type"] == "altered_between_seals"] == [], statement
    db.execute("DROP TABLE own_3, item")
    assert [kind for kind, _block, _id in log.problems() if kind == "altered_between_seals"] == []


def test_settings_and_encodings(pg: LocalPostgresql, tmp_path: pathlib.Path) -> None:
    database = Database(pg, template=None, name=f"latin_{os.getpid()}")
    database._on_server("CREATE DATABASE {} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'", database.name)
    try:
        install_trail(database)
        log = sealed(database, tmp_path)
        database.execute("INSERT INTO item VALUES (50, 'Ærøskøbing')")
        stays_clean(log, 101)
        for setting in ("TimeZone = 'Asia/Kathmandu'", "DateStyle = 'SQL, DMY'", "bytea_output = 'escape'",
                        "extra_float_digits = -15", "client_encoding = 'SQL_ASCII'", "IntervalStyle = 'iso_8601'",
                        "standard_conforming_strings = off", "quote_all_identifiers = on"):  # fmt: skip
            database.execute(f"ALTER DATABASE {database.name} SET {setting}")
        stays_clean(log, 201)
    finally:
        database.drop()


def _seal_at(at: int, calls: list[int], log: SealedLog, other: Sealer) -> None:
    """Have somebody else change and seal things before one of the calls."""
    calls.append(at)
    if len(calls) == at:
        log.change(100 * at, 100 * at + 5)
        log.db.execute("ALTER TABLE item RENAME TO moved; ALTER TABLE moved RENAME TO item")
        log.db.execute("ALTER TABLE item DISABLE TRIGGER dbfleet_audit_insert")
        log.db.execute("ALTER TABLE item ENABLE ALWAYS TRIGGER dbfleet_audit_insert")
        other.seal()


def test_a_sealing_run_between_two_calls_of_a_verification(
    log: SealedLog, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A verification may take long; what is sealed meanwhile, objects included, is no alarm."""
    other = Sealer(log.db.login, tmp_path_factory.mktemp("other"))
    other.key, other.ledger = log.sealer.key, log.sealer.ledger
    for number in (1, 2, 3, 4):
        calls: list[int] = []
        log.sealer.meanwhile = functools.partial(_seal_at, number, calls, log, other)
        assert [entry["detail"] for entry in log.sealer.verify()["problems"]] == [], number
        assert len(calls) >= 4
    log.sealer.meanwhile = None


def test_a_policy_change_where_no_ddl_is_recorded(db: Database, tmp_path: pathlib.Path) -> None:
    """The rollout itself leaves a record, which nobody else can write for it."""
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    db.execute(PARTITIONED)
    role = db.create_role("app")
    policy = wanted("public.item", "public.visit")
    install_trail(db, events=["app"], applications=[role])
    rollout(db, policies=[policy])
    sealer = Sealer(db.login, tmp_path, events=["app"], applications=[role], policies=[policy])
    sealer.seal()
    policy = wanted("public.item", "public.visit", columns={"hash": ["name"]})
    rollout(db, policies=[policy])
    sealer.rollout["policies"] = [policy]
    assert sealer.problems() == []
    sealer.seal()
    assert sealer.problems() == []
    with unseen(db) as connection:
        fetch(connection, "ALTER TABLE item DISABLE TRIGGER USER")
        fetch(connection, "ALTER TABLE item ENABLE ALWAYS TRIGGER dbfleet_audit_insert")
        fetch(connection, "ALTER TABLE item ENABLE ALWAYS TRIGGER dbfleet_audit_update")
        fetch(connection, "ALTER TABLE item ENABLE ALWAYS TRIGGER dbfleet_audit_delete")
        fetch(connection, "ALTER TABLE item ENABLE ALWAYS TRIGGER dbfleet_audit_truncate")
    objects = '{"objects": ["trigger dbfleet_audit_insert on public.item"]}'
    db.execute("SELECT audit.log_event('audit_rollout', 'audit_rollout', NULL, true, %s)", objects, user=role)
    found = [problem for problem in sealer.verify()["problems"] if "dbfleet_audit_insert" in problem["detail"]]
    assert [problem["type"] for problem in found] == ["altered_between_seals"]
