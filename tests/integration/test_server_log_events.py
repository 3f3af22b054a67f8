# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module server_log_events on what a real PostgreSQL server with pgaudit has written, in each of its formats."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pathlib
import typing as t

import psycopg2
import pytest
import running
from databases import connect, fetch
from local_postgresql import LocalPostgresql
from postgresql_programs import server_version

#: Everything that csvlog and jsonlog have.
PREFIX = "%m [%p] %c %x %e %q%u@%d %r %a %-20i "
FORMATS = {"stderr": "server.log", "csvlog": "server.csv", "jsonlog": "server.json"}
QUERY = "SELECT name, 'it''s \"quoted\"'\nFROM users\n\tWHERE id = 17"


@pytest.fixture(scope="module")
def server(own_server: LocalPostgresql) -> LocalPostgresql:
    """Return a server that has logged in all formats at once, audited reads of one table, and is stopped."""
    structured = "csvlog, jsonlog" if server_version(own_server.binaries)[0] >= 15 else "csvlog"
    own_server.configure(
        {
            "shared_preload_libraries": "pgaudit",
            "logging_collector": "on",
            "log_destination": f"stderr, {structured}",
            "log_filename": "server.log",
            "log_line_prefix": PREFIX,
            "log_timezone": "Europe/Berlin",
            "log_connections": "on",
            "log_disconnections": "on",
            "pgaudit.log": "read, ddl, role",
            "pgaudit.log_catalog": "off",
            "pgaudit.role": "auditor",
        }
    )
    own_server.restart()
    work(own_server)
    own_server.stop()
    return own_server


def execute(server: LocalPostgresql, statement: str, user: str = "postgres", **options: t.Any) -> None:
    with contextlib.closing(connect(server, "postgres", user, **options)) as connection:
        fetch(connection, statement)


def work(server: LocalPostgresql) -> None:
    """Do what is to be found in the logs."""
    for statement in (
        "CREATE ROLE auditor",
        "CREATE ROLE ann LOGIN PASSWORD 'never-to-be-seen'",
        "CREATE TABLE users (id int, name text)",
        "GRANT SELECT (name) ON users TO auditor",
    ):
        execute(server, statement)
    execute(server, QUERY, application_name='shop, "main"')
    with contextlib.closing(connect(server, "postgres")) as connection:
        fetch(
            connection, "SET pgaudit.log_parameter = on; SET pgaudit.log_rows = on; SET pgaudit.log_statement_once = on"
        )
        fetch(connection, "PREPARE find(int) AS SELECT name FROM users WHERE id = $1")
        fetch(connection, "EXECUTE find(17)")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        execute(server, "SELECT *\nFROM users", "ann")
    for user in ("ann", "nobody"):
        with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
            connect(server, "postgres", user, host="127.0.0.1", password="wrong")


def log(server: LocalPostgresql, name: str) -> pathlib.Path:
    return server.data / "log" / FORMATS[name]


def read(*paths: pathlib.Path, **options: t.Any) -> running.ModuleResult:
    given = {"log_line_prefix": PREFIX, "time_zone": "Europe/Berlin", **options}
    return running.run_module("server_log_events", paths=[str(path) for path in paths], **given)


def refused(*paths: pathlib.Path | str, **options: t.Any) -> str:
    return read(*map(pathlib.Path, paths), may_fail=True, **options).msg


@pytest.mark.smoke
def test_every_format_has_the_same_events_with_who_what_when_and_from_where(server):
    formats = [name for name in FORMATS if log(server, name).exists()]
    found = {name: read(log(server, name)) for name in formats}
    assert {name: [file["format"] for file in result["files"]] for name, result in found.items()} == {
        name: [name] for name in formats
    }
    assert all(result["unparsed"] == {"count": 0, "samples": []} for result in found.values())

    # What two processes write within a millisecond comes in this order in one file and in that one in another.
    def ordered(name: str) -> list[dict[str, t.Any]]:
        return sorted(found[name]["events"], key=lambda event: (event["changed_at"], event["context"]["process_id"]))

    events = ordered("csvlog")
    for name in formats:
        assert ordered(name) == events, name
    assert "never-to-be-seen" not in json.dumps(found)


def test_a_read_has_its_statement_and_what_pgaudit_only_refers_to(server):
    events = read(log(server, "csvlog"))["events"]
    reads = [event for event in events if event["table_name"] == "users" and event["action"] == "READ"]
    assert [event["new_values"]["statement"] for event in reads] == [
        QUERY,
        "PREPARE find(int) AS SELECT name FROM users WHERE id = $1",
    ]
    first, second = reads
    assert first["schema_name"] == "public"
    assert (first["changed_by"], first["db_user"], first["application_name"]) == (
        "postgres",
        "postgres",
        'shop, "main"',
    )
    assert first["context"]["audit_type"] == "OBJECT"
    assert first["context"]["database"] == "postgres"
    assert first["new_values"]["event"] == "SELECT"
    # pgaudit has written the statement with the class's entry and only referred to it with the object's.
    assert (second["new_values"]["parameters"], second["new_values"]["rows"]) == ("17", 0)


def test_refusals_and_failed_logins_are_told_and_sessions_from_beginning_to_end(server):
    events = read(log(server, "csvlog"))["events"]
    denied = [event for event in events if event["action"] == "DENIED"]
    assert [(event["db_user"], event["table_name"], event["new_values"]) for event in denied] == [
        (
            "ann",
            "users",
            {
                "event": "SELECT",
                "statement": "SELECT *\nFROM users",
                "success": False,
                "failure_reason": "permission denied for table users",
            },
        )
    ]
    assert denied[0]["context"]["sqlstate"] == "42501"
    failed = [event for event in events if event["action"] == "LOGIN" and not event["new_values"]["success"]]
    assert [(event["db_user"], event["client_ip"], event["context"]["sqlstate"]) for event in failed] == [
        ("ann", "127.0.0.1", "28P01"),
        ("nobody", "127.0.0.1", "28P01"),
    ]
    logins = [event for event in events if event["action"] == "LOGIN" and event["new_values"]["success"]]
    assert len(logins) == len([event for event in events if event["action"] == "LOGOUT"]) == 7
    assert any(event["transaction_id"] for event in events if event["action"] == "DDL")


def test_the_servers_own_prefix_is_enough_where_connections_are_logged(new_server):
    server = new_server(log_line_prefix="%m [%p] ", log_timezone="UTC", log_connections="on", logging_collector="off")
    execute(server, "CREATE ROLE ann LOGIN; CREATE TABLE users (id int)")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        execute(server, "TABLE users", "ann", application_name="shop")
    server.stop()
    (denied,) = read(server.log, log_line_prefix="%m [%p] ", actions=["denied"])["events"]
    assert (denied["db_user"], denied["application_name"], denied["context"]["database"]) == ("ann", "shop", "postgres")


def test_questions_select_and_the_latest_events_stay(server):
    path = log(server, "csvlog")
    everything = read(path)
    of_ann = read(path, db_user="ann", actions=["login", "DENIED"])["events"]
    assert {event["db_user"] for event in of_ann} == {"ann"}
    assert {event["action"] for event in of_ann} == {"LOGIN", "DENIED"}
    about = read(path, table="public.users", actions=["read", "denied"])
    assert about["total"] == 6
    assert read(path, table="other.users", actions=["read"])["total"] == len(
        [event for event in about["events"] if event["action"] == "READ" and event["table_name"] is None]
    )
    assert read(path, database="nowhere")["events"] == []
    assert read(path, database="postgres")["total"] == everything["total"]
    latest = read(path, limit=3)
    assert latest["events"] == everything["events"][-3:]
    assert latest["total"] == everything["total"]
    moment = everything["events"][5]["changed_at"]
    assert read(path, since=moment)["events"][0]["changed_at"] == moment
    assert all(event["changed_at"] < moment for event in read(path, until=moment)["events"])


def test_rotated_and_compressed_logs_are_read_in_the_order_of_time_and_exported(server, tmp_path):
    path = log(server, "csvlog")
    everything = read(path)
    half = path.read_text(encoding="utf-8").splitlines(keepends=True)
    old, new = tmp_path / "z.csv.gz", tmp_path / "a.csv"
    cut = next(number for number, line in enumerate(half) if "CREATE TABLE" in line)
    with gzip.open(old, "wt", encoding="utf-8") as compressed:
        compressed.writelines(half[:cut])
    new.write_text("".join(half[cut:]), encoding="utf-8")
    os.utime(old, (1, 1))
    parts = read(tmp_path / "*.csv*")
    assert [file["path"] for file in parts["files"]] == [str(old), str(new)]
    assert parts["events"] == everything["events"]
    dest = tmp_path / "events.jsonl"
    exported = read(path, dest=str(dest))
    assert [json.loads(line) for line in dest.read_text(encoding="utf-8").splitlines()] == everything["events"]
    assert (exported.changed, exported["written"]) == (True, everything["total"])
    assert not read(path, dest=str(dest)).changed
    assert dest.stat().st_mode & 0o777 == 0o600


def test_what_the_server_is_just_writing_is_no_error_and_what_is_cut_off_is_named(server, tmp_path):
    for name in FORMATS:
        whole = log(server, name)
        if not whole.exists():
            continue
        text = whole.read_text(encoding="utf-8")
        place = text.index("FROM users", text.index("OBJECT,"))
        writing = tmp_path / f"writing-{name}"
        writing.write_text(text[:place], encoding="utf-8")
        result = read(writing)
        assert result["files"][0]["incomplete"] is True
        assert result["unparsed"]["count"] == 0
        assert result["events"] == read(whole)["events"][: result["total"]]
        # The disk was full for a moment, and the rest of the log goes on in the next line.
        broken = tmp_path / f"broken-{name}"
        rest = text.index("\n", text.index("WHERE id = 17", place)) + 1
        broken.write_text(f"{text[:place]}\n{text[rest:]}", encoding="utf-8")
        result = read(broken)
        assert result["unparsed"]["count"] >= 1
        assert result["warnings"]
        assert result["unparsed"]["samples"][0]["path"] == str(broken)
        assert result["total"] == read(whole)["total"] - 1


def test_what_cannot_be_read_is_refused_by_name(server, tmp_path):
    stderr = log(server, "stderr")
    missing = tmp_path / "missing.log"
    assert refused(missing) == f"paths: {missing}: there is no such file, or this account cannot see it"
    assert "matches no file" in refused(tmp_path / "*.log")
    assert "is no file" in refused(tmp_path)
    wrong = refused(stderr, log_line_prefix="%t %u ")
    assert wrong.startswith(f"{stderr}: ")
    assert "SHOW log_line_prefix" in wrong
    assert "has no time" in refused(stderr, log_line_prefix="[%p] ")
    assert "time_zone" in refused(stderr, time_zone="America/New_York")
    assert "Europe/Nowhere" in refused(stderr, time_zone="Europe/Nowhere")
    assert "actions: 'INSERT'" in refused(stderr, actions=["INSERT"])
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(stderr.read_bytes())[:-100])
    assert str(cut) in refused(cut)
