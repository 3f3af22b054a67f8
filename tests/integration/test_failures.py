# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What goes wrong around a rollout: it is said clearly, nothing is half done, and the next run completes the work."""

from __future__ import annotations

import contextlib
import getpass
import os
import pathlib
import signal
import subprocess
import threading
import time
import typing as t

import psycopg2
import pytest
import running
from auditing import install_trail, records, rollout, wanted
from cutting import PostgresqlCutter
from databases import Database, fetch, wait_for_replay
from postgresql_programs import run_program

EVERYTHING = [wanted("public.*")]
MODULES: dict[str, dict[str, t.Any]] = {
    "postgresql_audit_trail": {},
    "postgresql_audit_partitions": {},
    "postgresql_audit_triggers": {"policies": EVERYTHING},
}


def tables(db: Database, count: int) -> None:
    db.execute("".join(f"CREATE TABLE t{number} (id int PRIMARY KEY);" for number in range(count)))


def run(db: Database, module: str, **options: t.Any) -> running.ModuleResult:
    return running.run_module(module, **{**db.login, **MODULES[module], **options})


def run_all(db: Database, policies: list[dict[str, t.Any]] | None = None, **options: t.Any) -> list[bool]:
    """Run the modules in the order of the role; return for each whether it changed something."""
    own = {"postgresql_audit_triggers": {"policies": policies or EVERYTHING}}
    return [run(db, module, **options, **own.get(module, {})).changed for module in MODULES]


def in_the_background(db: Database, **options: t.Any) -> subprocess.Popen[str]:
    """Start a rollout of the triggers and return it, at work."""
    return running.start_module("postgresql_audit_triggers", **{**db.login, "policies": EVERYTHING, **options})


def wait_until(db: Database, condition: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not db.value(f"SELECT coalesce(({condition}), false)"):
        assert time.monotonic() < deadline, f"never came true: {condition}"
        time.sleep(0.02)


WAITS_FOR_A_TABLE = (
    "SELECT count(*) > 0 FROM pg_locks JOIN pg_database d ON d.oid = database "
    "WHERE NOT granted AND locktype = 'relation' AND datname = current_database()"
)


# -- cut off ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.thorough
def test_a_run_that_is_cut_off_anywhere_is_finished_by_the_next(pg, new_database, module):
    """Behind each of its statements in turn: the controller killed, the host gone, the network cut."""
    before = list(MODULES)[: list(MODULES).index(module)]

    def ready() -> Database:
        db = new_database(pg)
        tables(db, 3)
        for earlier in before:
            run(db, earlier)
        return db

    whole = PostgresqlCutter(pg)
    assert run(ready(), module, **whole.login).changed
    whole.close()
    assert whole.statements > 5
    for last in range(1, whole.statements + 1):
        db, cutter = ready(), PostgresqlCutter(pg, last)
        result = run(db, module, may_fail=True, **cutter.login)
        cutter.close()
        assert result.failed, f"behind statement {last}"
        assert db.name in result.msg
        assert "Traceback" not in result.msg
        run_all(db)
        assert run_all(db) == [False, False, False], f"behind statement {last}"
        db.execute("INSERT INTO t0 VALUES (1); UPDATE t0 SET id = 2")
        assert [record.action for record in records(db, "t0")] == ["INSERT", "UPDATE"]
        db.drop()


def test_a_killed_run_that_the_server_still_works_on_is_waited_for(trail):
    """The server does not know that its client is dead before it answers; until then the run holds the lock."""
    tables(trail, 5)
    holder = trail.connect(autocommit=False)
    fetch(holder, "LOCK TABLE t2 IN ROW EXCLUSIVE MODE")
    killed = in_the_background(trail, lock_timeout=30)
    wait_until(trail, WAITS_FOR_A_TABLE)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = "SELECT relname FROM pg_class WHERE relhastriggers AND relname ~ '^t[0-9]$' ORDER BY 1"
    assert trail.execute(done) == [("t0",), ("t1",)]
    release = threading.Timer(1, holder.rollback)
    release.start()
    result = rollout(trail, policies=EVERYTHING)
    release.join()
    assert result["audited"] == 5
    assert not rollout(trail, policies=EVERYTHING).changed


def test_a_server_that_is_restarted_in_the_middle(new_server, new_database):
    """Tables that were done stay done, the one in work is as it was, writers are audited or not, never broken."""
    server = new_server()
    db = new_database(server)
    tables(db, 5)
    install_trail(db)
    holder = db.connect(autocommit=False)
    fetch(holder, "LOCK TABLE t2 IN ROW EXCLUSIVE MODE")
    run = in_the_background(db, lock_timeout=30)
    wait_until(db, WAITS_FOR_A_TABLE)
    server.stop()
    result = running.finish_module(run)
    assert result.failed
    assert "run it again" in result.msg
    server.start()
    db = Database(server, db.name, template=None)
    for number in range(5):
        db.execute(f"INSERT INTO t{number} VALUES (1)")
    assert sorted(record.table_name for record in records(db)) == ["t0", "t1"]
    assert rollout(db, policies=EVERYTHING)["changed_tables"] == ["public.t2", "public.t3", "public.t4"]
    assert run_all(db) == [False, False, False]


# -- what a server may lack ------------------------------------------------------------------------------------------


def test_a_server_without_a_free_connection(new_server, new_database):
    server = new_server(max_connections=8, superuser_reserved_connections=1, max_wal_senders=0)
    db = new_database(server)
    tables(db, 1)
    db.execute("SELECT 1")
    with contextlib.ExitStack() as full:
        with contextlib.suppress(psycopg2.OperationalError):
            while True:
                full.enter_context(contextlib.closing(db.connect()))
        for module in MODULES:
            result = run(db, module, may_fail=True)
            assert result.failed
            assert "too many clients" in result.msg
            assert f"cannot connect to database '{db.name}'" in result.msg
    assert run_all(db) == [True, True, True]


@pytest.fixture
def small_disk(new_server) -> t.Iterator[tuple[t.Any, pathlib.Path]]:
    """Return a server and a file system of 8 MB that it may write to."""
    server = new_server()
    directory = server.socket_dir / "small"
    directory.mkdir()
    sudo = [] if getpass.getuser() == "root" else ["sudo", "-n"]
    mount = [*sudo, "mount", "-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs", directory]
    mounted = subprocess.run(mount, check=False)
    if mounted.returncode and not os.environ.get("CI"):
        pytest.skip("may not mount a file system of its own here")
    assert not mounted.returncode
    space = directory / "space"
    space.mkdir()
    owner = server.data.stat()
    if sudo:
        space.chmod(0o777)
    else:
        os.chown(space, owner.st_uid, owner.st_gid)
    yield server, space
    server.stop()
    subprocess.run([*sudo, "umount", directory], check=True)


@pytest.mark.parametrize("on_failure", ["abort", "warn"])
def test_the_disk_of_the_log_is_full(small_disk, new_database, on_failure):
    server, space = small_disk
    db = new_database(server)
    db.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
    db.execute("CREATE TABLE things (id int PRIMARY KEY, text text)")
    install_trail(db, tablespace="small")
    rollout(db, policies=[wanted("public.things", on_failure=on_failure)])
    ballast = space.parent / "ballast"
    session = db.connect()
    fetch(session, "INSERT INTO things VALUES (0, 'before')")
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    big = "INSERT INTO things SELECT %s, string_agg(md5(random()::text), '') FROM generate_series(1, 10000)"
    if on_failure == "abort":
        with pytest.raises(psycopg2.errors.DiskFull):
            fetch(session, big, 1)
        left = [(0,)]
    else:
        fetch(session, big, 1)
        assert any("INSERT on public.things was not recorded" in notice for notice in session.notices)
        left = [(0,), (1,)]
    assert db.execute("SELECT id FROM things ORDER BY 1") == left
    ballast.unlink()
    fetch(session, big, 2)
    assert [record.record_id for record in records(db, "things") if record.action == "INSERT"] == ["0", "2"]


# -- what a role, a database or a server may be set to -----------------------------------------------------------------


HOSTILE = {
    "statement_timeout": "'100ms'",
    "lock_timeout": "'1ms'",
    "idle_in_transaction_session_timeout": "'1ms'",
    "search_path": "nowhere",
    "DateStyle": "'German'",
    "TimeZone": "'Asia/Kathmandu'",
    "quote_all_identifiers": "on",
    "default_transaction_isolation": "'serializable'",
    "standard_conforming_strings": "off",
    "row_security": "off",
    "check_function_bodies": "off",
    "default_tablespace": "pg_default",
    "client_min_messages": "error",
}


@pytest.mark.thorough
def test_settings_of_the_login_do_not_decide_how_a_run_ends(trail):
    login = trail.create_role("hostile", "SUPERUSER LOGIN")
    for name, value in HOSTILE.items():
        trail.execute(f"ALTER ROLE {login} SET {name} = {value}")
    tables(trail, 300)
    db = {"login_user": login}
    assert rollout(trail, policies=EVERYTHING, **db)["audited"] == 300
    assert run_all(trail, **db) == [False, False, False]
    verified = running.run_module("postgresql_audit_verify", **{**trail.login, **db, "policies": EVERYTHING})
    assert (verified["valid"], verified["recorded"], verified["tampering_refused"]) == (True, True, True)


def test_settings_of_an_application_do_not_decide_what_is_recorded(trail):
    tables(trail, 1)
    rollout(trail, policies=EVERYTHING)
    role = trail.create_role("app")
    trail.execute(f"GRANT ALL ON t0 TO {role}")
    for name, value in HOSTILE.items():
        if "timeout" not in name:
            trail.execute(f"ALTER ROLE {role} SET {name} = {value}")
    trail.execute("INSERT INTO public.t0 VALUES (1)", user=role)
    assert [(record.record_id, record.db_user) for record in records(trail)] == [("1", role)]


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
@pytest.mark.parametrize("module", MODULES)
def test_a_read_only_database_is_left_as_it_is(db, module, check_mode):
    """Somebody has set it so on purpose."""
    tables(db, 1)
    for earlier in list(MODULES)[: list(MODULES).index(module)]:
        run(db, earlier)
    db.execute(f"ALTER DATABASE {db.name} SET default_transaction_read_only = on")
    before = db.value("SELECT count(*) FROM pg_class")
    result = run(db, module, may_fail=True, check_mode=check_mode)
    assert result.failed
    for word in (db.name, "read-only", "default_transaction_read_only"):
        assert word in result.msg
    assert db.value("SELECT count(*) FROM pg_class") == before
    db.execute(f"ALTER DATABASE {db.name} RESET default_transaction_read_only")
    assert run(db, module).changed


@pytest.mark.parametrize("module", MODULES)
def test_a_standby_is_refused_with_the_way_to_its_primary(pg, pg_standby, new_database, module):
    db = new_database(pg)
    tables(db, 1)
    for earlier in list(MODULES)[: list(MODULES).index(module)]:
        run(db, earlier)
    wait_for_replay(pg, pg_standby)
    there = {"login_unix_socket": str(pg_standby.socket_dir), "login_port": pg_standby.port}
    result = run(db, module, may_fail=True, **there)
    assert result.failed
    assert "standby" in result.msg
    assert "primary" in result.msg
    run_all(db)
    wait_for_replay(pg, pg_standby)
    assert run_all(db, **there) == [False, False, False]


# -- logins and versions -----------------------------------------------------------------------------------------------


def test_logins_that_fail_name_host_database_and_user(db):
    role = db.create_role("app", "LOGIN PASSWORD 'right'")
    network = {"login_host": "127.0.0.1", "login_port": db.server.port}
    wrong = {
        "password": ({**network, "login_user": role, "login_password": "wrong-Pass"}, "password authentication failed"),
        "database": ({**db.login, "login_db": "no_such_db"}, "does not exist"),
        "user": ({**db.login, "login_user": "no_such_user"}, "does not exist"),
        "port": ({**network, "login_port": 1}, "refused"),
    }
    for module in MODULES:
        for what, (options, words) in wrong.items():
            result = run(db, module, may_fail=True, **options)
            assert result.failed, what
            assert result.msg.startswith("cannot connect to database"), what
            assert words in result.msg, what
            assert "wrong-Pass" not in str(dict(result)), what


def test_a_server_that_is_too_old_is_refused_by_its_version(db):
    """No supported distribution has one any more, so the line is drawn above the one that is here."""
    for module in MODULES:
        result = run(db, module, may_fail=True, _constants={"session.MINIMUM_VERSION": 990000})
        assert result.failed
        assert result.msg.startswith(f"PostgreSQL {db.server.version}")
        assert "needs" in result.msg
    assert db.value("SELECT to_regnamespace('audit')") is None


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_pg_upgrade_keeps_auditing_and_history(new_server):
    """From a cluster to a new one of the same version, which is all that one version's programs can do."""
    old = new_server()
    db = Database(old)
    db.execute("CREATE TABLE things (id int PRIMARY KEY, secret text)")
    policies = [wanted("public.*", when="NEW.id > 0", operations=["insert"], columns={"hash": ["secret"]})]
    install_trail(db)
    rollout(db, policies=policies)
    db.execute("INSERT INTO things VALUES (1, 's3cret')")
    before = records(db)
    assert before
    new = new_server()
    for server in (old, new):
        server.stop()
    done = run_program(
        *(old.binaries / "pg_upgrade", "-b", old.binaries, "-B", new.binaries, "-d", old.data, "-D", new.data),
        *("-p", str(old.port), "-P", str(new.port), "-s", old.socket_dir, "-U", "postgres"),
        cwd=old.socket_dir,
    )
    assert done.returncode == 0, done.stdout
    new.start()
    upgraded = Database(new, db.name, template=None)
    assert records(upgraded) == before
    assert run_all(upgraded, policies=policies) == [False, False, False]
    upgraded.execute("INSERT INTO things VALUES (2, 's3cret')")
    assert records(upgraded)[-1].id > before[-1].id
    verified = running.run_module("postgresql_audit_verify", **upgraded.login, policies=policies)
    assert verified["valid"]
