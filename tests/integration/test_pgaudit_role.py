# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role pgaudit and its playbooks on servers of their own: restarts, and what is said while one is pending."""

from __future__ import annotations

import os
import typing as t

import pytest
from databases import Database, wait_for_replay
from fleet import HOST, inventory, lines, play, sql_shown
from local_postgresql import LocalPostgresql, standby_of
from statement_auditing import (
    PRELOAD,
    ask,
    audit_entries,
    automatic,
    everything,
    preload,
    restart_facts,
    show,
    written,
)

NewDatabase = t.Callable[..., Database]
NewServer = t.Callable[..., LocalPostgresql]

ROLLOUT = {"pgaudit_enabled": True, "pgaudit_restart": "auto", "become_root": False}


@pytest.fixture
def shop(new_server: NewServer, new_database: NewDatabase) -> Database:
    """Return a database with a table on a server that nothing has been changed on."""
    database = new_database(new_server())
    database.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    return database


def process_of(server: LocalPostgresql) -> int:
    return int(restart_facts(server)["process"])


def started(server: LocalPostgresql) -> t.Any:
    return ask(server, "SELECT pg_postmaster_start_time()")[0][0]


def whole_log(server: LocalPostgresql) -> list[str]:
    """Return the server's log, which goes on in the same file after a restart."""
    return server.log.read_text(encoding="utf-8").splitlines()


def execute(shop: Database, statement: str) -> list[tuple[t.Any, ...]]:
    """Execute a statement in a new session: a restart has ended those that there were."""
    return ask(shop.server, statement, database=shop.name)


def records(shop: Database) -> list[str]:
    return [row[0] for row in execute(shop, "SELECT action FROM audit.audit_log WHERE action <> 'DDL' ORDER BY id")]


@pytest.mark.smoke
@pytest.mark.thorough
def test_a_server_is_rolled_out_as_predicted_restarted_once_proven_and_given_back(shop: Database):
    server = shop.server
    app = shop.create_role("app")
    hosts = inventory(
        server,
        [shop],
        **ROLLOUT,
        pgaudit_settings={"log": ["ddl", "read"]},
        pgaudit_exempt_roles=[app],
        pgaudit_objects=[{"database": shop.name, "table": "public.users", "columns": ["name"]}],
        pgaudit_log_connections=False,
        pgaudit_log_disconnections=False,
    )
    before, process = everything(server, shop.name), process_of(server)
    predicted = play("site", hosts, "--check", "--diff")
    assert everything(server, shop.name) == before
    executed = play("site", hosts, "--diff")
    # The extension waits for the restart, so that it comes last in the real run.
    assert sorted(sql_shown(predicted)) == sorted(sql_shown(executed))
    assert {"ALTER SYSTEM SET shared_preload_libraries = 'pgaudit';", 'CREATE EXTENSION pgaudit SCHEMA "public";'} <= {
        *sql_shown(executed)
    }
    assert any("CREATE TRIGGER" in line for line in sql_shown(executed))
    restarted = process_of(server)
    assert restarted != process
    assert lines(executed)[0].startswith(
        f"{HOST}: pgaudit logs ddl, read, 1 object audited, extension in 1 database, restart pending: no, "
    )
    # Rows and statements are recorded.
    execute(shop, "INSERT INTO users VALUES (1, 'ann')")
    execute(shop, "SELECT id FROM users")
    assert records(shop) == ["INSERT"]
    assert any("SELECT id FROM users" in entry for entry in audit_entries(whole_log(server)))
    again = play("site", hosts)
    assert again.stats(HOST)["changed"] == 0
    assert process_of(server) == restarted
    verified = play("verify", hosts)
    assert lines(verified)[0] == f"OK {HOST}: pgaudit recorded ddl, read, 0 problems"
    removed = play("remove", hosts)
    assert f"{HOST}: pgaudit removed, restart pending: no" in removed.stdout
    assert show(server, PRELOAD) == ""
    assert process_of(server) != restarted
    after = everything(server, shop.name)
    # The log of connections, which the role had managed, is as it was too.
    assert after["files"] == before["files"]
    assert after["scopes"] == before["scopes"]
    assert "pgaudit" not in str(after[shop.name])
    assert "audit_objects" not in str(after)
    assert records(shop) == ["INSERT"]


@pytest.mark.thorough
def test_without_leave_to_restart_all_else_is_done_and_the_restart_is_reported(shop: Database):
    server = shop.server
    never = inventory(server, [shop], **{**ROLLOUT, "pgaudit_restart": "never"})
    process = process_of(server)
    first = play("site", never)
    assert lines(first)[0].startswith(f"{HOST}: pgaudit logs ddl, role, extension in 0 databases, restart pending: yes")
    execute(shop, "INSERT INTO users VALUES (1, 'ann')")
    assert records(shop) == ["INSERT"]
    assert process_of(server) == process
    assert any(line.startswith("pgaudit.log = 'ddl, role'") for line in written(server))
    verified = play("verify", never, "--tags", "statements", check=False)
    assert verified.rc == 2
    assert f"FAILED {HOST}: pgaudit not probed, 1 problem" in lines(verified)
    assert "  the server has not loaded pgaudit: restart it" in lines(verified)
    # Now it may, but could not start again.
    auto = inventory(server, [shop], **ROLLOUT)
    file = server.data / "postgresql.conf"
    text = file.read_text(encoding="utf-8")
    file.write_text(f"{text}this is no setting\n", encoding="utf-8")
    refused = play("site", auto, check=False)
    assert refused.rc == 2
    assert f"{file}:{len(text.splitlines()) + 1}:" in refused.stdout
    assert "its configuration has errors with which it would not come up again" in refused.stdout
    assert process_of(server) == process
    file.write_text(text, encoding="utf-8")
    finished = play("site", auto)
    assert "restart pending: no" in lines(finished)[0]
    assert "extension in 1 database" in lines(finished)[0]
    assert show(server, "pgaudit.log") == "ddl, role"
    execute(shop, "INSERT INTO users VALUES (2, 'bob')")
    assert records(shop) == ["INSERT", "INSERT"]


def test_the_library_stays_where_a_database_keeps_the_extension_without_which_no_ddl_works(shop: Database):
    server = shop.server
    ask(server, f"ALTER SYSTEM SET {PRELOAD} = 'pgaudit'")
    shop.disconnect()
    server.restart()
    ask(server, "CREATE EXTENSION pgaudit")
    removed = play("remove", inventory(server, [shop], **ROLLOUT), "--tags", "statements")
    assert "the library pgaudit stays loaded, for without it no DDL works in postgres" in removed.stdout
    server.restart()
    ask(server, "CREATE TABLE made (id int)")


class Pair(t.NamedTuple):
    """A primary with its standby, as hosts of one inventory, the primary first."""

    primary: LocalPostgresql
    standby: LocalPostgresql
    hosts: dict[str, t.Any]


@pytest.fixture
def pair(new_server: NewServer, tmp_path: t.Any) -> t.Iterator[Pair]:
    """Return two servers; neither has pgaudit."""
    primary = new_server()
    standby = standby_of(primary, tmp_path / "standby", {"fsync": "off"}, os.getpid())
    options = {**ROLLOUT, "pgaudit_restart_timeout": 20, "pgaudit_extension_databases": ["postgres"]}
    entries = [inventory(server, ["postgres"], **options)["postgresql"]["hosts"][HOST] for server in (primary, standby)]
    yield Pair(primary, standby, {"postgresql": {"hosts": {"first": entries[0], "second": entries[1]}}})
    standby.remove()


@pytest.mark.thorough
def test_standbys_come_first_and_a_primary_whose_standby_fails_is_spared(pair: Pair):
    primary, standby, hosts = pair
    before = {server.port: started(server) for server in (primary, standby)}
    ask(standby, "ALTER SYSTEM SET shared_buffers = '7TB'")
    failed = play("site", hosts, "--tags", "statements", check=False)
    assert failed.rc == 2
    assert "it has its old settings back and runs with them" in failed.stdout
    assert "first: not restarted, for its standby second has failed" in failed.stdout
    assert started(primary) == before[primary.port]
    assert (show(primary, PRELOAD), show(standby, PRELOAD)) == ("", "")
    ask(standby, "ALTER SYSTEM RESET shared_buffers")
    ask(standby, f"ALTER SYSTEM RESET {PRELOAD}")
    play("site", hosts, "--tags", "statements")
    assert (show(primary, PRELOAD), show(standby, PRELOAD)) == ("pgaudit", "pgaudit")
    assert before[standby.port] < started(standby) < started(primary)
    wait_for_replay(primary, standby)
    assert ask(standby, "SELECT count(*) FROM pg_extension WHERE extname = 'pgaudit'") == [(1,)]
    # One at a time, and not in the order of the inventory.
    for server in (standby, primary):
        preload(server, "pgaudit", state="absent")
        server.restart()
    again = play("site", hosts, "--tags", "statements", "-e", "audit_serial=1")
    assert again.stats("first")["failed"] == again.stats("second")["failed"] == 0
    assert (show(primary, PRELOAD), show(standby, PRELOAD)) == ("pgaudit", "pgaudit")
    assert started(standby) < started(primary)


def test_an_unknown_variable_is_named_before_anything_is_done(pg: LocalPostgresql):
    hosts = inventory(pg, ["postgres"], **{**ROLLOUT, "pgaudit_setings": {}})
    result = play("site", hosts, "--tags", "statements", "--check", check=False)
    assert result.rc == 2
    assert "unknown variable pgaudit_setings; did you mean pgaudit_settings?" in result.stdout
    assert result.stats(HOST)["changed"] == 0


def test_a_host_that_does_not_want_it_is_left_alone(pg: LocalPostgresql, db: Database):
    db.execute("CREATE TABLE users (id int PRIMARY KEY)")
    before = automatic(pg).read_text(encoding="utf-8")
    hosts = inventory(pg, [db])
    assert hosts["postgresql"]["hosts"][HOST]["pgaudit_enabled"] is False
    result = play("site", hosts, "--diff")
    assert "pgaudit" not in "".join(lines(result))
    assert not any("ALTER SYSTEM" in line or "pgaudit" in line for line in sql_shown(result))
    assert automatic(pg).read_text(encoding="utf-8") == before
