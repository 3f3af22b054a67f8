# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook subject_access: what a person's data went through, from several servers, as files for that person."""

from __future__ import annotations

import csv
import json
import pathlib
import typing as t

import psycopg2
import pytest
from auditing import install_trail, rollout
from databases import Database
from fleet import lines, play
from local_mysql import LocalMysql
from local_postgresql import LocalPostgresql
from mysql_auditing import install_trail as install_mysql_trail
from mysql_databases import Schema
from running import run_module

EVIL = "<script>alert('ann')</script>"
PREFIX = "%m [%p] %q%u@%d %h %a "

NewDatabase = t.Callable[..., Database]


@pytest.fixture
def shop(new_server: t.Callable[..., LocalPostgresql], new_database: NewDatabase) -> Database:
    """Return a database whose changes are recorded by triggers, and whose reads are by pgaudit."""
    server = new_server(shared_preload_libraries="pgaudit", log_line_prefix=PREFIX, log_timezone="UTC")
    database = new_database(server)
    database.execute("CREATE TABLE users (id int PRIMARY KEY, name text, password text)")
    install_trail(database)
    rollout(database, policies=[{"tables": ["public.users"]}])
    run_module(
        "postgresql_pgaudit",
        **{**database.login, "login_db": "postgres"},
        objects=[{"database": database.name, "table": "public.users", "privileges": ["select"]}],
    )
    return database


def request(shop: Database, dest: pathlib.Path, host: dict[str, t.Any], **variables: t.Any) -> dict[str, t.Any]:
    """Return an inventory with one host, and a request for the user 17 on it."""
    login = {name: value for name, value in shop.login.items() if name != "login_db"}
    given = {
        "subject": "Ann Lee, customer 17",
        "records": [{"database": shop.name, "table": "public.users", "record_id": 17}],
        "dest": str(dest),
        **variables,
    }
    hosts = {"pg1": {**host, "postgresql_audit_login": login}}
    everywhere = {f"audit_subject_access_{name}": value for name, value in given.items()}
    return {"all": {"vars": everywhere, "children": {"postgresql": {"hosts": hosts}}}}


def work(shop: Database) -> str:
    """Change and read the user, and somebody else; return who was refused."""
    shop.execute("SET app.\"user\" = 'ada.lee'; INSERT INTO users VALUES (17, %s, 'secret')", EVIL)
    shop.execute("UPDATE users SET name = 'Ann' WHERE id = 17")
    shop.execute("INSERT INTO users VALUES (18, 'somebody else', 'secret')")
    shop.execute("SELECT name FROM users WHERE id = 17 -- <script>")
    intruder = shop.create_role("intruder")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        shop.execute("SELECT * FROM users", user=intruder)
    return intruder


@pytest.mark.smoke
def test_changes_and_reads_are_in_every_file_and_nothing_in_them_runs(shop, local_host, tmp_path):
    intruder = work(shop)
    dest = tmp_path / "ann"
    hosts = request(shop, dest, local_host, server_logs=[str(shop.server.log)], log_line_prefix=PREFIX)
    assert "Ann Lee, customer 17: " in "\n".join(lines(play("subject_access", hosts, "--check", "--diff")))
    assert not dest.exists()
    result = play("subject_access", hosts)
    assert dest.stat().st_mode & 0o777 == 0o700
    files = {path.suffix[1:]: path for path in dest.iterdir()}
    assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o600}
    events = [json.loads(line) for line in files["jsonl"].read_text(encoding="utf-8").splitlines()]
    assert [(event["action"], event["changed_by"], event["host"], event["database"]) for event in events] == [
        ("INSERT", "ada.lee", "pg1", shop.name),
        ("UPDATE", "ada.lee", "pg1", shop.name),
        ("READ", "postgres", "pg1", shop.name),
        ("DENIED", intruder, "pg1", shop.name),
    ]
    assert events[0]["new_values"]["password"] == "[REDACTED]"
    rows = list(csv.DictReader(files["csv"].open(encoding="utf-8", newline="")))
    assert [row["action"] for row in rows] == [event["action"] for event in events]
    assert json.loads(rows[0]["new_values"]) == events[0]["new_values"]
    page = files["html"].read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#x27;ann&#x27;)&lt;/script&gt;" in page
    assert "SELECT name FROM users WHERE id = 17" in page
    assert intruder in page
    assert "secret" not in page
    assert "somebody else" not in page
    assert '<span class="masked">masked</span>' in page
    assert "whether one concerned this person can be told from its statement alone" in page
    said = "\n".join(lines(result))
    assert "Ann Lee, customer 17: INSERT 1, UPDATE 1, READ 1, DENIED 1, of 1 hosts" in said
    assert "alert" not in result.stdout


@pytest.mark.thorough
def test_without_logs_the_report_says_that_reads_are_missing_and_a_host_that_did_not_answer_is_named(
    shop, local_host, tmp_path
):
    work(shop)
    dest = tmp_path / "ann"
    hosts = request(shop, dest, local_host, formats=["html"])
    servers = hosts["all"]["children"]["postgresql"]["hosts"]
    servers["gone"] = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_common_args": "-F none"}
    servers["broken"] = {**servers["pg1"], "postgresql_audit_login": {"login_host": "127.0.0.1", "login_port": 1}}
    servers["empty"] = {**servers["pg1"], "audit_subject_access_records": []}
    # Within a limit, localhost is not.
    result = play("subject_access", hosts, "--limit", "all", check=False)
    assert result.rc != 0
    assert [path.name for path in dest.iterdir()] == ["subject_access.html"]
    page = (dest / "subject_access.html").read_text(encoding="utf-8")
    assert "Who read the data is not included: audit_subject_access_server_logs names no log of pg1." in page
    assert "<strong>gone is missing from this report:</strong> it was not reached" in page
    assert "<strong>broken is missing from this report:</strong> cannot connect to database" in page
    assert "no record of the person is listed for it" in page
    assert "the report is written, but broken, gone could not be asked" in result.stdout.replace(
        "gone, broken", "broken, gone"
    )
    assert "ada.lee" in page


def test_what_cannot_be_meant_is_refused_before_anything_is_asked(shop, local_host, tmp_path):
    dest = tmp_path / "ann"
    records = [{"database": "shop", "table": "users", "id": 17}]
    hosts = request(shop, dest, local_host, records=records, sience="7d")
    result = play("subject_access", hosts, check=False)
    assert result.rc != 0
    assert "unknown variable audit_subject_access_sience; did you mean audit_subject_access_since?" in result.stdout
    assert "audit_subject_access_records[0]: unknown key id" in result.stdout
    assert "audit_subject_access_records[0]: give either record_id" in result.stdout
    assert not dest.exists()


@pytest.mark.own_server
@pytest.mark.thorough
def test_mariadb_is_asked_too(new_mysql_server: t.Callable[..., LocalMysql], local_host, tmp_path):
    server = new_mysql_server(loose_plugin_load_add="server_audit", loose_server_audit_logging="ON")
    if not server.is_mariadb:
        pytest.skip("only MariaDB has server_audit")
    with Schema(server) as shop:
        install_mysql_trail(shop)
        shop.execute("CREATE TABLE users (id INT PRIMARY KEY, name TEXT)")
        run_module("mysql_audit_triggers", **shop.login, policies=[{"tables": [f"{shop.name}.users"]}])
        shop.execute("INSERT INTO users VALUES (17, 'Ann')")
        shop.execute("SELECT name FROM users WHERE id = 17")
        given = {
            "subject": "Ann",
            "records": [{"database": shop.name, "table": "users", "values": {"name": "Ann"}}],
            "dest": str(tmp_path / "ann"),
            "server_logs": [str(server.data / "server_audit.log")],
            "time_zone": "UTC",
        }
        variables = {f"audit_subject_access_{name}": value for name, value in given.items()}
        host = {**local_host, "mysql_audit_login": shop.login}
        hosts = {"all": {"vars": variables, "children": {"mysql": {"hosts": {"maria1": host}}}}}
        play("subject_access", hosts)
    text = (tmp_path / "ann" / "subject_access.jsonl").read_text(encoding="utf-8")
    events = [json.loads(line) for line in text.splitlines()]
    (change,) = [event for event in events if event["id"] is not None]
    assert (change["action"], change["new_values"]["name"]) == ("INSERT", "Ann")
    # Once, although the server has logged both the statement and its table.
    (read,) = [event for event in events if "WHERE id = 17" in str(event["new_values"])]
    assert (read["action"], read["schema_name"], read["table_name"]) == ("READ", shop.name, "users")
