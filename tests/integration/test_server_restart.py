# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A restart of a real server: it is another process afterwards, or it runs as it did before."""

from __future__ import annotations

import os
import pathlib
import pwd
import shutil
import tempfile
import typing as t

import pytest
import running
from local_postgresql import LocalPostgresql, ServerError
from statement_auditing import (
    PRELOAD,
    as_made,
    ask,
    automatic,
    preload,
    restart_facts,
    restart_server,
    show,
    written,
)

# More than any machine has, and yet a value that the server takes until it starts.
TOO_MUCH = "7TB"


@pytest.fixture
def server(own_server: LocalPostgresql) -> t.Iterator[LocalPostgresql]:
    """Return a server that nothing has been changed on."""
    made = (own_server.data / "postgresql.conf").read_text(encoding="utf-8")
    yield own_server
    as_made(own_server, made)


def process_of(server: LocalPostgresql) -> int:
    return int(restart_facts(server)["process"])


def owner(path: str | os.PathLike[str]) -> str:
    return pwd.getpwuid(os.stat(path).st_uid).pw_name


def test_a_server_that_no_unit_runs_is_restarted_by_its_own_pg_ctl_as_its_own_account(server):
    before = process_of(server)
    ask(server, "ALTER SYSTEM SET max_connections = 33")
    result = restart_server(server)
    after = process_of(server)
    assert result.changed
    assert result["command"][0].endswith("/pg_ctl")
    assert before != after
    assert owner(f"/proc/{after}") == owner(server.data)
    assert show(server, "max_connections") == "33"


def test_check_mode_says_so_and_restarts_nothing(server):
    before = process_of(server)
    assert restart_server(server, check_mode=True).changed
    assert process_of(server) == before


def test_the_users_own_command_comes_first(server, tmp_path):
    before = process_of(server)
    account = ["runuser", "-u", owner(server.data), "--"] if os.getuid() == 0 else []
    told = tmp_path / "told"
    own = " ".join([*account, *restart_facts(server)["fallback"]]).replace("{output}", str(server.log))
    result = restart_server(server, command=["sh", "-c", f"touch {told}; {own}"], fallback=["false"])
    assert result["command"][0] == "sh"
    assert told.exists()
    assert process_of(server) != before


def broken_by_a_setting(server: LocalPostgresql) -> str:
    ask(server, f"ALTER SYSTEM SET shared_buffers = '{TOO_MUCH}'")
    return "could not map anonymous shared memory"


def broken_by_a_reloaded_setting(server: LocalPostgresql) -> str:
    broken_by_a_setting(server)
    ask(server, "SELECT pg_reload_conf()")
    return "could not map anonymous shared memory"


def broken_by_a_library(server: LocalPostgresql) -> str:
    """Have the server load a library that is there when it is asked for, and gone when the server starts."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="dbfleet-library-", dir="/tmp"))
    directory.chmod(0o755)
    installed = ask(server, "SELECT setting FROM pg_config WHERE name = 'PKGLIBDIR'")[0][0]
    shutil.copy(f"{installed}/auto_explain.so", directory / "soon_gone.so")
    preload(server, "pgaudit", str(directory / "soon_gone.so"))
    shutil.rmtree(directory)
    return f'could not access file "{directory}/soon_gone.so"'


@pytest.mark.parametrize("breaking", [broken_by_a_setting, broken_by_a_reloaded_setting, broken_by_a_library])
def test_a_server_that_does_not_come_up_runs_again_with_its_old_settings(server, breaking):
    server.configure({PRELOAD: "auto_explain", "cluster_name": "it's \\\\ x"})
    server.restart()
    ask(server, "ALTER SYSTEM SET cluster_name = 'other'")
    ask(server, "ALTER SYSTEM SET work_mem = '5MB'")
    before, memory = process_of(server), show(server, "shared_buffers")
    reason = breaking(server)
    result = restart_server(server, may_fail=True)
    assert result.failed
    assert result["restored"] is True
    assert "it has its old settings back and runs with them" in result.msg
    assert reason in result["log"]
    assert reason in result.msg
    assert process_of(server) != before
    assert (show(server, PRELOAD), show(server, "shared_buffers")) == ("auto_explain", memory)
    assert (show(server, "cluster_name"), show(server, "work_mem")) == ("it's \\ x", "5MB")
    assert owner(automatic(server)) == owner(server.data)
    # The next restart, whoever does it, finds the same.
    server.restart()
    assert show(server, PRELOAD) == "auto_explain"


@pytest.mark.parametrize(
    ("command", "problem"),
    [(["true"], "true succeeded, but process {} still runs"), (["false"], "false ended with 1"), (["no-such"], "127")],
)
def test_a_command_that_does_not_restart_leaves_everything_as_it_is(server, command, problem):
    ask(server, "ALTER SYSTEM SET max_connections = 33")
    before, lines = process_of(server), written(server)
    result = restart_server(server, may_fail=True, command=command, timeout=0.5)
    assert result.failed
    assert "the server was not restarted and runs as before" in result.msg
    assert problem.format(before) in result.msg
    assert result["restored"] is False
    assert process_of(server) == before
    assert written(server) == lines


def test_a_server_that_does_not_come_up_with_its_old_settings_either_is_said_to_be_down(server):
    rules = server.data / "pg_hba.conf"
    facts = restart_facts(server)
    text = rules.read_text(encoding="utf-8")
    rules.write_text("nonsense\n", encoding="utf-8")
    try:
        result = running.run_module(
            "server_restart",
            may_fail=True,
            **{name: facts[name] for name in ("process", "ready", "fallback", "restore", "logs")},
        )
        assert result.failed
        assert result["restored"] is False
        assert "IT IS DOWN" in result.msg
        assert "pg_hba.conf" in result["log"]
        assert not server.running()
    finally:
        rules.write_text(text, encoding="utf-8")


def test_a_stop_without_a_start_is_undone(server):
    stop = " ".join([*restart_facts(server)["fallback"][:1], "-D", str(server.data), "stop"])
    account = f"runuser -u {owner(server.data)} -- " if os.getuid() == 0 else ""
    once = server.socket_dir / "once"
    start = f"{account}{server.binaries}/pg_ctl -D {server.data} -w -l {server.log} start"
    command = ["sh", "-c", f"if [ -e {once} ]; then {start}; else touch {once}; {account}{stop}; fi"]
    result = restart_server(server, may_fail=True, command=command, timeout=1)
    once.unlink()
    assert result["restored"] is True
    assert "does not take connections 1 s after" in result.msg
    assert ask(server, "SELECT 1") == [(1,)]


def test_what_a_server_was_told_by_a_file_of_its_own_goes_with_that_file(server):
    """A way back can also be to delete a file, as that of a server that includes a directory."""
    extra = server.data / "extra.conf"
    extra.write_text(f"shared_buffers = '{TOO_MUCH}'\n", encoding="utf-8")
    server.configure({"include_if_exists": "extra.conf"})
    result = restart_server(server, may_fail=True, restore=[{"path": str(extra)}])
    assert result["restored"] is True
    assert not extra.exists()


@pytest.mark.parametrize("process", [2**22 + 1, 999999999])
def test_a_process_that_is_not_here_is_named(server, process):
    before = process_of(server)
    result = restart_server(server, may_fail=True, process=process)
    assert result.failed
    assert f"no process {process} runs on this host" in result.msg
    assert process_of(server) == before


def test_without_any_command_nothing_is_done(server):
    before = process_of(server)
    assert "give a restart command" in restart_server(server, may_fail=True, fallback=[]).msg
    assert process_of(server) == before


def test_a_setting_that_was_taken_out_of_a_file_is_pending_and_no_error_and_comes_back(server):
    file = server.data / "postgresql.conf"
    text = file.read_text(encoding="utf-8")
    server.configure({"max_prepared_transactions": 7})
    server.restart()
    file.write_text(text, encoding="utf-8")
    facts = restart_facts(server)
    assert (facts["pending"], facts["errors"]) == (["max_prepared_transactions"], [])
    assert "max_prepared_transactions = '7'" in facts["restore"][0]["lines"]


def test_what_a_restart_would_change_is_told_and_what_would_break_it_by_file_and_line(server):
    calm = restart_facts(server)
    assert (calm["pending"], calm["errors"]) == ([], [])
    server.configure({"MAX_connections": 44, "TimeZone": "UTC"})
    ask(server, "ALTER SYSTEM SET max_wal_senders = 3")
    waiting = restart_facts(server)
    assert (waiting["pending"], waiting["errors"]) == (["max_connections", "max_wal_senders"], [])
    file = server.data / "postgresql.conf"
    with file.open("a", encoding="utf-8") as config:
        config.write("work_mem = 5MB\nnonsense = = here\n")
    place = len(file.read_text(encoding="utf-8").splitlines())
    errors = restart_facts(server)["errors"]
    assert any(f"{file}:{place}:" in error and "syntax error" in error for error in errors), errors
    with pytest.raises(ServerError):
        server.next_start("work_mem")
