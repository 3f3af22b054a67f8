# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The examples of README.md, the guides and the roles' pages, executed as they stand there.

All on one PostgreSQL and one MariaDB or MySQL server; tests/support/documentation.py says which are left to tests of
their own. Variables of README.md are rolled out, those of other pages are predicted.
"""

from __future__ import annotations

import contextlib
import json
import operator
import os
import pathlib
import re
import subprocess
import sys
import typing as t

import documented_names as names
import pytest
import running
from databases import Database, fetch
from documentation import Block, blocks, left
from documented_fleet import POSTGRESQL_SETTINGS, Fleet, preflights_of
from local_mysql import LocalMysql
from local_postgresql import LocalPostgresql


def yaml_blocks(*kinds: str) -> list[Block]:
    """Return the blocks of YAML that are of some kinds."""
    return [block for block in left("yaml") if names.kind(block) in kinds]


def sql_blocks(engine: str) -> list[Block]:
    """Return the blocks of SQL for an engine."""
    return [block for block in left("sql") if block.engine == engine]


def of_servers(block: Block) -> bool:
    """Tell whether a block of variables is for the roles of a server, rather than for those of the controller."""
    return any(re.match("(postgresql|mysql|pg)_?audit_", name) for name in names.given_variables(block))


def each(blocks_: t.Iterable[Block]) -> pytest.MarkDecorator:
    """Have a test once for each block, under its place."""
    return pytest.mark.parametrize("block", blocks_, ids=operator.attrgetter("place"))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Fleet]:
    """Return the servers with the tables that the examples name."""
    folder = tmp_path_factory.mktemp("documentation")
    with contextlib.ExitStack() as servers:
        options: dict[str, t.Any] = {"while_pid": os.getpid()}
        postgresql = LocalPostgresql.create(folder / "pg", settings=POSTGRESQL_SETTINGS, **options)
        servers.callback(postgresql.remove)
        mysql = LocalMysql.create(folder / "mysql", settings={"log_bin": "binlog"}, **options)
        servers.callback(mysql.remove)
        made = Fleet(folder, postgresql, mysql)
        made.roll_out()
        yield made


@pytest.fixture(scope="module")
def performed(fleet: Fleet) -> running.PlaybookResult:
    """Return what Ansible said of all tasks, which find the quick start rolled out."""
    return fleet.perform()


@each(block for block in yaml_blocks("variables", "plays") if preflights_of(block))
def test_roles_take_the_variables_before_they_ask_a_server(block: Block, performed: running.PlaybookResult):
    assert_worked(performed, block.host)


@each(block for block in yaml_blocks("variables", "plays") if of_servers(block))
def test_a_server_takes_the_variables(block: Block, fleet: Fleet):
    assert fleet.apply(block) > 0


def test_ansible_reads_plays_that_include_roles(fleet: Fleet):
    done = fleet.parse()
    assert done.rc == 0, done.stderr


@each(block for block in yaml_blocks("plays", "tasks", "policies") if "roles:" not in block.text)
def test_plays_and_tasks_do_what_they_are_shown_for(block: Block, performed: running.PlaybookResult):
    assert_worked(performed, block.host)


def assert_worked(run: running.PlaybookResult, host: str) -> None:
    """Check that a host's tasks were done."""
    stats = run.stats(host)
    failures = re.findall(rf"^fatal: \[{host}\].*$", run.stdout + run.stderr, re.MULTILINE)
    assert not failures, "\n".join(failures)
    assert (stats["failed"], stats["rescued"]) == (0, 0)
    assert stats["ok"] + stats["skipped"] > 0


@each(yaml_blocks("inventory"))
def test_an_inventory_has_the_groups_of_the_playbooks(block: Block, tmp_path: pathlib.Path):
    path = tmp_path / "hosts.yml"
    path.write_text(block.text, encoding="utf-8")
    command = [pathlib.Path(sys.executable).with_name("ansible-inventory"), "-i", path, "--list"]
    done = subprocess.run(command, env=running.private_environment(), capture_output=True, check=True)
    groups = json.loads(done.stdout)
    assert set(groups["all"]["children"]) - {"ungrouped"} <= {"postgresql", "mysql"}
    assert groups["_meta"]["hostvars"] or any(group.get("hosts") for group in groups.values())


@each(sql_blocks("postgresql"))
@pytest.mark.usefixtures("performed")
def test_sql_is_executed_and_finds_something_on_postgresql(block: Block, fleet: Fleet):
    with contextlib.closing(database_of(block, fleet).connect()) as session, session.cursor() as cursor:
        for statement in executable(block.text):
            cursor.execute(statement)
        assert cursor.description is None or cursor.fetchall()


def executable(text: str) -> list[str]:
    """Return SQL as a driver sends it: what has parameters is prepared, and given texts."""
    parameters = sorted(set(re.findall(r"[$]\d", text)))
    if not parameters:
        return [text]
    return [f"PREPARE example AS {text}", f"EXECUTE example ({', '.join(map(repr, parameters))})"]


def database_of(block: Block, fleet: Fleet) -> Database:
    """Return the database that a page's tasks log in to, or the shop."""
    page = [other for other in blocks() if (other.page, other.language) == (block.page, "yaml")]
    tasks = [task for other in page if names.kind(other) in ("plays", "tasks") for task in names.tasks(other)]
    given = [task[names.module_of(task)] for task in tasks]
    logins = {options["login_db"] for options in given if "login_db" in options}
    return fleet.databases[logins.pop() if len(logins) == 1 else "shop"]


@each(sql_blocks("mysql"))
@pytest.mark.usefixtures("performed")
def test_sql_is_executed_on_mariadb_or_mysql(block: Block, fleet: Fleet):
    with contextlib.closing(fleet.schemas["shop"].connect()) as session:
        for statement in block.text.rstrip(";\n").split(";\n"):
            fetch(session, statement)


@each(block for block in left("sh") if "openssl " in block.text)
def test_keys_and_certificates_are_made(block: Block, tmp_path: pathlib.Path):
    own = [line for line in block.text.splitlines() if not line.startswith(("sudo ", "ansible-playbook "))]
    script = "\n".join(own).replace("/etc/dbfleet", str(tmp_path))
    done = subprocess.run(["bash", "-eu", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = re.findall(r"-(?:out|keyout) (\S+)", script)
    assert made
    assert all((tmp_path / name).stat().st_size for name in made)
