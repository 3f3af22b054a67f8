# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A sealed log on other servers: dumped and restored, upgraded, failed over; there is no alarm, and sealing goes on."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import typing as t

import pytest
from auditing import install_trail, rollout, trail_database, wanted
from databases import Database, connect, fetch, wait_for_replay
from local_postgresql import LocalPostgresql, standby_of
from postgresql_programs import run_program
from tampering import SealedLog, sealed, stays_clean, tamper

ServerFactory = t.Callable[..., LocalPostgresql]


@pytest.fixture
def log(trail: Database, tmp_path: pathlib.Path) -> SealedLog:
    """Return a sealed log."""
    return sealed(trail, tmp_path)


def at(log: SealedLog, server: LocalPostgresql) -> None:
    """Go on with the database of the same name on another server."""
    log.db = Database(server, log.db.name, template=None)
    log.sealer.login.update(log.db.login)


# -- other servers -----------------------------------------------------------------------------------------------------


def test_a_dump_restored_into_another_server(
    log: SealedLog, own_server: LocalPostgresql, tmp_path: pathlib.Path
) -> None:
    log.change(101, 105)
    source = ["-h", str(log.db.server.socket_dir), "-p", str(log.db.server.port), "-U", "postgres"]
    target = ["-h", str(own_server.socket_dir), "-p", str(own_server.port), "-U", "postgres"]
    binaries = own_server.binaries
    roles = shell(binaries / "pg_dumpall", *source, "--roles-only", "--no-role-passwords")
    shell(binaries / "psql", *target, "-q", "-d", "postgres", given=roles)
    dump = tmp_path / "dump"
    shell(binaries / "pg_dump", *source, "-Fc", "-f", dump, log.db.name)
    shell(binaries / "pg_restore", *target, "-C", "-d", "postgres", dump)
    at(log, own_server)
    stays_clean(log, 201)
    log.db.execute("INSERT INTO item VALUES (300)")
    stays_clean(log, 301)
    # Here as well, what is altered unseen is named.
    row = log.id_of(3)
    tamper(log.db, f"DELETE FROM audit.audit_log_data WHERE id = {row}")
    assert log.problems() == [("deleted_row", 1, row)]


def shell(*command: t.Any, given: str = "") -> str:
    """Run a client program of PostgreSQL; what psql says of roles that are there already is nothing to us."""
    done = subprocess.run(
        [os.fspath(part) for part in command], input=given, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.thorough
def test_an_upgrade_of_the_server(new_server: ServerFactory, tmp_path: pathlib.Path) -> None:
    old = new_server()
    with trail_database(old) as database:
        log = sealed(database, tmp_path)
        log.change(101, 105)
        new = new_server()
        database.disconnect()
        old.stop()
        new.stop()
        upgraded = run_program(
            *(new.binaries / "pg_upgrade", "--no-sync", "-b", old.binaries, "-B", new.binaries),
            *("-d", old.data, "-D", new.data, "-p", str(old.port), "-P", str(new.port), "-s", new.socket_dir),
            *("-U", "postgres"),
            cwd=new.socket_dir,
        )
        old.start()
        assert upgraded.returncode == 0, upgraded.stdout
        new.start()
        at(log, new)
        stays_clean(log, 201)
        stays_clean(log, 301)


@contextlib.contextmanager
def primary_and_standby(
    new_server: ServerFactory, directory: pathlib.Path
) -> t.Iterator[tuple[SealedLog, LocalPostgresql]]:
    """Give a sealed log, and a standby that has it."""
    primary = new_server(max_prepared_transactions=10)
    database = Database(primary)
    install_trail(database)
    log = sealed(database, directory)
    standby = standby_of(primary, directory / "standby", settings={"fsync": "off"}, while_pid=os.getpid())
    try:
        yield log, standby
    finally:
        standby.remove()


def promote(standby: LocalPostgresql) -> None:
    """Make a standby the primary."""
    with contextlib.closing(connect(standby, "postgres")) as connection:
        assert fetch(connection, "SELECT pg_promote()") == [(True,)]


def test_a_failover(new_server: ServerFactory, tmp_path: pathlib.Path) -> None:
    with primary_and_standby(new_server, tmp_path) as (log, standby):
        primary = log.db.server
        in_flight, prepared = (log.db.connect(autocommit=False) for _number in range(2))
        fetch(in_flight, "INSERT INTO item VALUES (900)")
        fetch(prepared, "INSERT INTO item VALUES (901); PREPARE TRANSACTION 'late'")
        log.change(101, 105)
        log.sealer.seal()
        log.change(201, 205)
        wait_for_replay(primary, standby)
        # On the standby itself, where nothing can be written.
        log.sealer.login.update(Database(standby, log.db.name, template=None).login)
        result = log.sealer.verify()
        assert (result["problems"], result["blocks_checked"]) == ([], 3)
        assert result["unsealed"] > 0
        primary.stop()
        promote(standby)
        at(log, standby)
        stays_clean(log, 301)
        log.db.execute("COMMIT PREPARED 'late'")
        stays_clean(log, 401)
        assert log.block_of(log.id_of(901)) > 4
        assert log.db.value("SELECT watermark FROM audit.seal_state") > log.id_of(901)


def test_a_failover_that_lost_the_last_seals(new_server: ServerFactory, tmp_path: pathlib.Path) -> None:
    with primary_and_standby(new_server, tmp_path) as (log, standby):
        primary = log.db.server
        with contextlib.closing(connect(standby, "postgres")) as connection:
            prepared = log.db.connect(autocommit=False)
            fetch(prepared, "INSERT INTO item VALUES (901); PREPARE TRANSACTION 'late'")
            wait_for_replay(primary, standby)
            fetch(connection, "ALTER SYSTEM SET primary_conninfo = ''")
            fetch(connection, "SELECT pg_reload_conf()")
            query = "SELECT count(*) FROM pg_stat_wal_receiver"
            while fetch(connection, query) != [(0,)]:
                pass
        for first in (101, 201):
            log.change(first, first + 4)
            # A change of triggers too, which the standby does not have.
            log.db.execute(f"CREATE TABLE other_{first} (id int PRIMARY KEY)")
            log.sealer.rollout["policies"] = [wanted("public.item"), wanted("public.other_*")]
            rollout(log.db, policies=log.sealer.rollout["policies"])
            log.sealer.seal()
        assert log.problems() == []
        before = len(log.lines())
        primary.stop()
        promote(standby)
        at(log, standby)
        log.sealer.rollout["policies"] = [wanted("public.item")]
        lost = list(range(3, before + 1))
        assert log.problems() == [("missing_block", number, None) for number in lost]
        log.change(301, 305)
        assert "the database lacks" in log.sealer.refusal() or "is not the one of the ledger" in log.sealer.refusal()
        log.sealer.seal(resync="the primary is gone; 2 runs were lost")
        resync = log.headers()[before]
        assert resync["kind"] == "resync"
        assert resync["attested"]["reason"] == "the primary is gone; 2 runs were lost"
        assert resync["attested"]["seals"] == [[3, before]]
        stays_clean(log, 401)
        log.db.execute("COMMIT PREPARED 'late'")
        stays_clean(log, 501)
        row = log.id_of(301)
        tamper(log.db, f"DELETE FROM audit.audit_log_data WHERE id = {row}")
        assert log.problems() == [("deleted_row", log.block_of(row), row)]
