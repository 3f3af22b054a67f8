# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Libraries come to those that a server loads when it starts, wherever these are listed, and it starts with them."""

from __future__ import annotations

import pathlib
import shutil
import tempfile
import typing as t

import pytest
from databases import Database
from local_postgresql import LocalPostgresql
from statement_auditing import PRELOAD, as_made, ask, preload, show, written

NewDatabase = t.Callable[..., Database]


@pytest.fixture
def server(own_server: LocalPostgresql) -> t.Iterator[LocalPostgresql]:
    """Return a server that loads nothing."""
    made = configuration(own_server).read_text(encoding="utf-8")
    yield own_server
    shutil.rmtree(own_server.data / "conf.d", ignore_errors=True)
    as_made(own_server, made)


@pytest.fixture
def open_directory() -> t.Iterator[pathlib.Path]:
    """Return a directory that the server's account can read."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="odd, \"dir' ", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def configuration(server: LocalPostgresql) -> pathlib.Path:
    return server.data / "postgresql.conf"


def last_line(path: pathlib.Path) -> str:
    """Return the place of a file's last line as messages have it."""
    return f"{path}:{len(path.read_text(encoding='utf-8').splitlines())}"


def include(server: LocalPostgresql, text: str) -> None:
    """Have postgresql.conf read another file, as Debian's does."""
    directory = server.data / "conf.d"
    directory.mkdir()
    directory.chmod(0o755)
    (directory / "10-libraries.conf").write_text(text, encoding="utf-8")
    server.configure({"include_dir": "conf.d"})


def refusal(server: LocalPostgresql, *names: str, **options: t.Any) -> str:
    """Return the module's message when it refuses, having written nothing."""
    before = written(server)
    result = preload(server, *names, may_fail=True, **options)
    assert result.failed, result
    assert written(server) == before
    return result.msg


#: Where somebody has listed a library -> what the server loads in the end.
LISTED: dict[str, tuple[t.Callable[[LocalPostgresql], t.Any], str]] = {
    "nowhere": (LocalPostgresql.running, "pgaudit"),
    "empty": (lambda server: server.configure({PRELOAD: ""}), "pgaudit"),
    "postgresql.conf": (lambda server: server.configure({PRELOAD: "auto_explain"}), "auto_explain, pgaudit"),
    "in capitals": (lambda server: server.configure({PRELOAD.upper(): "auto_explain"}), "auto_explain, pgaudit"),
    "included": (lambda server: include(server, f"{PRELOAD} = 'auto_explain'\n"), "auto_explain, pgaudit"),
    "waits for a restart": (
        lambda server: ask(server, f"ALTER SYSTEM SET {PRELOAD} = 'pg_stat_statements', 'auto_explain'"),
        "pg_stat_statements, auto_explain, pgaudit",
    ),
    "overridden": (
        lambda server: (
            server.configure({PRELOAD: "auto_explain"}),
            ask(server, f"ALTER SYSTEM SET {PRELOAD} = 'pg_prewarm'"),
        ),
        "pg_prewarm, pgaudit",
    ),
    "empty by ALTER SYSTEM": (lambda server: ask(server, f"ALTER SYSTEM SET {PRELOAD} = ''"), "pgaudit"),
}


@pytest.mark.parametrize("place", LISTED)
def test_what_is_listed_is_kept_and_the_library_comes_after_it(server, place):
    prepare, expected = LISTED[place]
    prepare(server)
    first = preload(server, "pgaudit")
    second = preload(server, "pgaudit")
    assert server.next_start(PRELOAD) == expected
    assert show(server, PRELOAD) == ""
    assert first.changed
    assert not second.changed
    assert (first["restart_required"], first["running"]) == (True, [])


def test_after_a_restart_the_libraries_are_loaded_and_nothing_is_pending(server):
    server.configure({PRELOAD: "auto_explain"})
    ask(server, f"ALTER SYSTEM SET {PRELOAD} = 'pg_stat_statements', 'auto_explain'")
    preload(server, "pgaudit")
    server.restart()
    assert show(server, PRELOAD) == "pg_stat_statements, auto_explain, pgaudit"
    assert [show(server, name) for name in ("pg_stat_statements.track", "pgaudit.log")] == ["top", "none"]
    assert preload(server, "pgaudit")["restart_required"] is False


def test_a_list_that_would_keep_the_server_from_starting_is_repaired_although_it_has_the_library(server):
    ask(server, f"ALTER SYSTEM SET {PRELOAD} = '', 'pgaudit'")
    assert preload(server, "pgaudit").changed
    server.restart()
    assert show(server, PRELOAD) == "pgaudit"


@pytest.mark.parametrize("state", ["present", "absent"])
def test_an_empty_name_of_a_persons_own_file_does_not_survive_unnoticed(server, state):
    server.configure({PRELOAD: '""'})
    if state == "absent":
        assert last_line(configuration(server)) in refusal(server, "pgaudit", state=state)
    else:
        assert preload(server, "pgaudit").changed
        assert server.next_start(PRELOAD) == "pgaudit"


def test_what_a_person_has_written_may_stay_while_what_we_added_goes(server):
    server.configure({PRELOAD: "pg_stat_statements"})
    preload(server, "pgaudit")
    gone = preload(server, "pgaudit", "pg_stat_statements", state="absent", keep_written=True)
    assert gone["libraries"] == ["pg_stat_statements"]
    assert written(server) == []
    again = preload(server, "pgaudit", "pg_stat_statements", state="absent", keep_written=True)
    assert not again.changed


def test_taking_a_library_out_also_repairs_an_empty_list(server):
    ask(server, f"ALTER SYSTEM SET {PRELOAD} = ''")
    assert preload(server, "pgaudit", state="absent").changed
    assert written(server) == []


def test_a_name_with_commas_quotes_and_spaces_is_carried_along(server, open_directory):
    library = open_directory / "auto explain.so"
    installed = ask(server, "SELECT setting FROM pg_config WHERE name = 'PKGLIBDIR'")[0][0]
    shutil.copy(f"{installed}/auto_explain.so", library)
    quoted = '"{}"'.format(str(library).replace('"', '""'))
    server.configure({PRELOAD: quoted})
    assert preload(server, "pgaudit")["libraries"] == [str(library), "pgaudit"]
    server.restart()
    assert ask(server, "SELECT name FROM pg_settings WHERE name IN ('auto_explain.log_level', 'pgaudit.log')") == [
        ("auto_explain.log_level",),
        ("pgaudit.log",),
    ]
    assert not preload(server, "pgaudit").changed


@pytest.mark.parametrize("name", ["pgaudit", "pgaudit.so", "$libdir/pgaudit"])
def test_other_names_of_a_library_are_no_second_one(server, name):
    server.configure({PRELOAD: f"{name}, auto_explain"})
    assert not preload(server, "pgaudit").changed
    assert written(server) == []


def test_check_mode_tells_the_statement_and_writes_nothing(server):
    server.configure({PRELOAD: "auto_explain"})
    predicted = preload(server, "pgaudit", check_mode=True)
    assert written(server) == []
    executed = preload(server, "pgaudit")
    assert predicted["statements"] == executed["statements"] != []
    assert predicted.changed
    assert predicted["differences"] == [
        f"{PRELOAD} is auto_explain ({last_line(configuration(server))}), to be auto_explain, pgaudit"
    ]
    assert written(server) == [f"{PRELOAD} = 'auto_explain, pgaudit'"]


def test_a_library_that_is_not_installed_is_refused(server):
    said = refusal(server, "pgaudit", "pg_no_such_thing")
    assert "pg_no_such_thing (could not access file" in said
    assert "install its package for this version of PostgreSQL" in said
    assert "pgaudit (" not in said


def test_a_missing_library_of_somebody_elses_is_refused_with_its_place(server):
    include(server, f"# by hand\n{PRELOAD} = 'ghost'\n")
    said = refusal(server, "pgaudit")
    assert "ghost (could not access file" in said
    assert f"it is listed in {last_line(server.data / 'conf.d' / '10-libraries.conf')}" in said
    assert "pgaudit (" not in said


def test_a_file_that_is_no_library_is_refused(server, open_directory):
    (open_directory / "text.so").write_text("nothing that a server could load\n" * 10, encoding="utf-8")
    assert "could not load library" in refusal(server, str(open_directory / "text.so"))


def test_a_library_of_something_else_is_refused(server, open_directory):
    loaded = pathlib.Path("/proc/self/maps").read_text(encoding="utf-8").split()
    shutil.copy(next(path for path in loaded if path.startswith("/") and "libc.so" in path), open_directory / "c.so")
    assert "incompatible library" in refusal(server, str(open_directory / "c.so"))


def test_a_list_of_the_command_line_is_not_overridden_in_vain(server):
    server.stop()
    server.start(f"-c {PRELOAD}=auto_explain")
    said = refusal(server, "pgaudit")
    assert "given to the server by its command line" in said
    assert "change it there to auto_explain, pgaudit" in said
    assert not preload(server, "auto_explain").changed
    assert not preload(server, "pgaudit", state="absent").changed


def test_without_the_library_a_persons_own_list_counts_again(server):
    server.configure({PRELOAD: "auto_explain"})
    preload(server, "pgaudit")
    removed = preload(server, "pgaudit", state="absent")
    assert removed["libraries"] == ["auto_explain"]
    assert written(server) == []
    assert not preload(server, "pgaudit", state="absent").changed
    assert server.next_start(PRELOAD) == "auto_explain"


def test_a_library_is_taken_off_a_persons_list_by_overriding_it(server):
    server.configure({PRELOAD: "auto_explain, pgaudit"})
    assert preload(server, "pgaudit", state="absent").changed
    assert server.next_start(PRELOAD) == "auto_explain"


def test_a_persons_only_library_is_theirs_to_take_out_and_the_line_is_named(server):
    server.configure({PRELOAD: "pgaudit"})
    said = refusal(server, "pgaudit", state="absent")
    assert last_line(configuration(server)) in said
    assert "take the library out there" in said


def test_a_list_that_the_server_cannot_read_is_refused(server):
    server.configure({PRELOAD: 'auto_explain, "pgaudit'})
    assert "which is no list" in refusal(server, "pgaudit")


def test_a_login_that_is_no_superuser_is_told_so(server: LocalPostgresql, new_database: NewDatabase):
    name = new_database(server).create_role("plain")
    assert "this login is none" in refusal(server, "pgaudit", login_user=name)


def test_a_login_that_may_only_look_is_told_what_the_server_says(server: LocalPostgresql, new_database: NewDatabase):
    database = new_database(server)
    name = database.create_role("looker", "LOGIN IN ROLE pg_read_all_settings")
    ask(server, f"GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO {name}")
    assert "this login is none" in refusal(server, "pgaudit", login_user=name)
    ask(server, f"GRANT SELECT ON pg_file_settings TO {name}")
    assert "permission denied to set parameter" in refusal(server, "pgaudit", login_user=name)
    ask(server, f"DROP OWNED BY {name}")
