# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A run does what is missing and nothing else: repeated, predicted, in parallel, on locked tables, and taken back."""

from __future__ import annotations

import concurrent.futures
import threading
import time
import typing as t

import psycopg2
import pytest
import running
from auditing import install_trail, records, rollout, trail_database, wanted
from databases import Database, fetch

#: Everything that a run of ours could touch, each row with the transaction that wrote it last.
CATALOG = """
SELECT tableoid::regclass::text, ctid::text, xmin::text, xmax::text FROM {} ORDER BY 2
"""
CATALOGS = (
    "pg_class",
    "pg_proc",
    "pg_trigger",
    "pg_namespace",
    "pg_attribute",
    "pg_event_trigger",
    "pg_inherits",
    "pg_description",
    "pg_index",
    "audit.policy",
    "audit.setting",
    "audit.definition",
)


def catalog(db: Database) -> list[t.Any]:
    present = [name for name in CATALOGS if db.value("SELECT to_regclass(%s)", name)]
    # A lock or a vacuum leaves marks of its own; what was written does not change with them.
    return [(row[0], row[1], row[2]) for name in present for row in db.execute(CATALOG.format(name))]


def trail_module(db: Database, **options: t.Any) -> running.ModuleResult:
    return running.run_module("postgresql_audit_trail", **{**db.login, **options})


def make_tables(db: Database, count: int, prefix: str = "t") -> None:
    for number in range(count):
        db.execute(f"CREATE TABLE {prefix}{number} (id int PRIMARY KEY, name text, password text)")


@pytest.mark.smoke
def test_a_second_run_changes_nothing_at_all(db):
    make_tables(db, 3)
    db.execute("CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p DEFAULT")
    policies = [
        wanted("public.t0", when="NEW.id  >  0 AND NEW.name <> ''", operations=["insert", "update"]),
        wanted("public.t1", capture="statement", update_image="changed", columns={"hash": ["name"], "exclude": ["id"]}),
        wanted("public.*", on_failure="warn", require_context=["changed_by"], tags=["a", "ü"], auto_attach=True),
    ]
    options = {
        "readers": [db.create_role("reader")],
        "applications": [db.create_role("app")],
        "indexes": ["changed_by"],
    }
    install_trail(db, **options)
    assert rollout(db, policies=policies).changed
    before = catalog(db)
    again = [
        trail_module(db, **options),
        running.run_module("postgresql_audit_partitions", **db.login),
        rollout(db, policies=policies, diff_mode=True),
    ]
    assert [(result.changed, result["statements"]) for result in again] == [(False, [])] * 3
    assert catalog(db) == before


def test_a_second_run_waits_for_no_lock_on_an_audited_table(trail):
    """Not even AccessShare on it: another session may hold it exclusively for as long as it likes."""
    make_tables(trail, 2)
    trail.execute("CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p DEFAULT")
    policies = [wanted("public.t0", when="NEW.id > 0", operations=["insert"]), wanted("public.*")]
    rollout(trail, policies=policies)
    holder = trail.connect(autocommit=False)
    fetch(holder, "LOCK TABLE t0, t1, p, p1 IN ACCESS EXCLUSIVE MODE")
    release = threading.Timer(4, holder.rollback)
    release.start()
    result = rollout(trail, policies=policies)
    held = release.is_alive()
    release.cancel()
    assert (held, result.changed) == (True, False)


def snapshot(db: Database) -> dict[str, t.Any]:
    """Return what a user would see of tables, triggers and functions."""
    return {
        "triggers": db.execute(
            "SELECT tgrelid::regclass::text, pg_get_triggerdef(oid), tgenabled FROM pg_trigger "
            "WHERE NOT tgisinternal ORDER BY 1, 2"
        ),
        "functions": db.execute(
            "SELECT proname, prosrc, proacl::text, proowner FROM pg_proc WHERE prosrc ~ 'audit' ORDER BY 1"
        ),
        "relations": db.execute(
            "SELECT relname, relacl::text, relowner FROM pg_class WHERE relname !~ '^pg_' ORDER BY 1"
        ),
        "schemas": db.execute("SELECT nspname, nspacl::text FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1"),
    }


def assert_predicted(db: Database, module: str, **options: t.Any) -> running.ModuleResult:
    """Run in check mode, see that nothing was done, run in earnest, see that it did just what was foretold."""
    before = snapshot(db)
    predicted = running.run_module(module, check_mode=True, diff_mode=True, **db.login, **options)
    assert snapshot(db) == before
    done = running.run_module(module, diff_mode=True, **db.login, **options)
    assert predicted["statements"] == done["statements"] != []
    assert (predicted.changed, predicted["diff"]) == (True, done["diff"])
    assert not running.run_module(module, check_mode=True, **db.login, **options)["statements"]
    return done


def test_check_mode_foretells_rollout_change_and_removal(db):
    make_tables(db, 2)
    triggers = "postgresql_audit_triggers"
    first = {"policies": [wanted("public.*")]}
    early = rollout(db, check_mode=True, **first)
    assert_predicted(db, "postgresql_audit_trail")
    assert_predicted(db, "postgresql_audit_partitions")
    assert assert_predicted(db, triggers, **first)["statements"] == early["statements"]
    changed = {"policies": [wanted("public.t0", operations=["insert"]), wanted("public.*", columns={"hash": ["name"]})]}
    assert_predicted(db, triggers, **changed)
    assert_predicted(db, triggers, policies=[])
    assert_predicted(db, "postgresql_audit_trail", state="absent")


def test_purge_decides_whether_unwanted_triggers_stay(trail):
    make_tables(trail, 2)
    rollout(trail, policies=[wanted("public.t0"), wanted("public.t1")])
    assert not rollout(trail, policies=[wanted("public.t0")], purge=False).changed
    trail.execute("INSERT INTO t1 VALUES (1)")
    assert rollout(trail, policies=[wanted("public.t0")]).changed
    trail.execute("INSERT INTO t1 VALUES (2); INSERT INTO t0 VALUES (3)")
    assert [(record.table_name, record.record_id) for record in records(trail)] == [("t1", "1"), ("t0", "3")]
    assert trail.value("SELECT count(*) FROM pg_proc WHERE proname LIKE 'capture\\_%'") == 1


def test_state_absent_keeps_the_rows_and_their_guards(trail):
    make_tables(trail, 1)
    rollout(trail, policies=[wanted("public.*")])
    trail.execute("INSERT INTO t0 VALUES (1)")
    before = records(trail)
    refused = trail_module(trail, state="absent", may_fail=True)
    assert refused.failed
    assert "public.t0" in refused.msg
    rollout(trail, policies=[])
    assert trail_module(trail, state="absent").changed
    trail.execute("INSERT INTO t0 VALUES (2)")
    assert records(trail) == before
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="append-only"):
        trail.execute("DELETE FROM audit.audit_log_data")
    assert not trail_module(trail, state="absent").changed
    assert trail_module(trail).changed
    rollout(trail, policies=[wanted("public.*")])
    trail.execute("INSERT INTO t0 VALUES (3)")
    assert [record.record_id for record in records(trail)] == ["1", "3"]


def test_drop_log_leaves_nothing(new_server):
    """On a server of its own: the roles belong to the whole server."""
    server = new_server()
    with trail_database(server) as database:
        options = {"state": "absent", "drop_log": True}
        assert trail_module(database, **options).changed
        assert database.value("SELECT to_regnamespace('audit')") is None
        assert database.execute("SELECT evtname FROM pg_event_trigger") == []
        # Another database of the server still needs them.
        assert database.value("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'audit\\_%'") == 3
        assert not trail_module(database, **options).changed
        other = Database(server)
        fetch(other.connect(), "SELECT 1")
        other.execute("DROP DATABASE dbfleet_trail WITH (FORCE)")
        trail_module(other)
        trail_module(other, **options)
        assert other.value("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'audit\\_%'") == 0


def test_a_locked_table_is_named_and_the_others_are_done(trail):
    make_tables(trail, 3)
    options = {"policies": [wanted("public.*")], "lock_timeout": 0.1, "lock_retries": 1}
    holder = trail.connect(autocommit=False)
    fetch(holder, "LOCK TABLE t1 IN ROW EXCLUSIVE MODE")
    result = rollout(trail, may_fail=True, **options)
    assert result.failed
    assert [entry["table"] for entry in result["failed_tables"]] == ["public.t1"]
    assert "public.t1" in result.msg
    assert "locked by another session" in result.msg
    assert (result["audited"], result["changed_tables"]) == (2, ["public.t0", "public.t2"])
    holder.rollback()
    assert rollout(trail, **options)["changed_tables"] == ["public.t1"]
    trail.execute("INSERT INTO t1 VALUES (1)")
    assert len(records(trail)) == 1


def test_a_locked_table_that_is_let_go_in_time_is_done(trail):
    make_tables(trail, 1)
    holder = trail.connect(autocommit=False)
    fetch(holder, "LOCK TABLE t0 IN ROW EXCLUSIVE MODE")
    release = threading.Timer(1.5, holder.rollback)
    release.start()
    assert rollout(trail, policies=[wanted("public.*")], lock_timeout=0.1, lock_retries=30)["audited"] == 1
    release.join()


def test_two_runs_at_once_do_the_work_once(db):
    make_tables(db, 20)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        trails = list(pool.map(lambda _: trail_module(db), range(2)))
        rollouts = list(pool.map(lambda _: rollout(db, policies=[wanted("public.*")]), range(2)))
    assert sorted(result.changed for result in rollouts) == sorted(result.changed for result in trails) == [False, True]
    assert db.value("SELECT count(*) FROM audit.policy") == 1


def test_two_databases_of_a_server_that_has_no_trail_yet_can_be_done_at_once(new_server):
    databases = [Database(new_server()) for _unused in range(1)]
    databases += [Database(databases[0].server) for _unused in range(3)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = list(pool.map(trail_module, databases))
    assert all(result.changed for result in results)


def test_a_changed_policy_leaves_no_moment_without_auditing(trail):
    """Four writers, while the policy goes from one form to the other and back."""
    trail.execute("CREATE TABLE things (id serial PRIMARY KEY, n int)")
    policies = [
        {"policies": [wanted("public.things")]},
        {"policies": [wanted("public.things", update_image="changed", columns={"redact": ["n"]})]},
        {"policies": [wanted("public.things", capture="statement")]},
    ]
    rollout(trail, **policies[0])
    stop, failures = threading.Event(), []

    def write(session: t.Any) -> None:
        try:
            while not stop.is_set():
                fetch(session, "INSERT INTO things (n) VALUES (0)")
                fetch(session, "UPDATE things SET n = n + 1 WHERE id = currval('things_id_seq')")
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is to show it
            failures.append(error)

    threads = [threading.Thread(target=write, args=(trail.connect(),)) for _unused in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(1, 6):
        assert rollout(trail, **policies[turn % 3], lock_retries=50).changed
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    counted = trail.execute("SELECT action, count(*) FROM audit.audit_log WHERE action <> 'DDL' GROUP BY 1 ORDER BY 1")
    written = trail.value("SELECT count(*) FROM things")
    assert written > 50
    assert counted == [("INSERT", written), ("UPDATE", written)]


def statements_seen(db: Database, run: t.Callable[[], t.Any]) -> int:
    """Return how many statements the server was sent while something ran."""
    mark = f"mark {time.monotonic_ns()}"
    db.execute(f"ALTER DATABASE {db.name} SET log_statement = 'all'; SELECT '{mark}'")
    before = db.server.log.read_text(encoding="utf-8", errors="replace").count(f"@{db.name} ")
    run()
    lines = db.server.log.read_text(encoding="utf-8", errors="replace").splitlines()
    db.execute(f"ALTER DATABASE {db.name} RESET log_statement")
    mine = [line for line in lines if f"@{db.name} " in line][before:]
    return sum("LOG:  statement:" in line or "LOG:  execute" in line for line in mine)


def test_the_number_of_round_trips_does_not_depend_on_the_number_of_tables(trail):
    policies = [wanted("public.*")]
    counts = []
    for first, last in ((0, 10), (10, 100)):
        trail.execute("".join(f"CREATE TABLE t{n} (id int PRIMARY KEY);" for n in range(first, last)))
        rolled = statements_seen(trail, lambda: rollout(trail, policies=policies))
        counts.append((rolled, statements_seen(trail, lambda: rollout(trail, policies=policies))))
    assert counts[0][1] > 2
    assert counts[0] == counts[1]
