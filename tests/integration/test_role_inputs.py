# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot be meant is refused by name, before anything is changed; and nothing is green by silence."""

from __future__ import annotations

import getpass
import pathlib
import shutil
import subprocess
import sys
import typing as t

import databases
import pytest
from databases import Database
from fleet import HOST, POLICIES, audited, inventory, play
from local_postgresql import LocalPostgresql

NewDatabase = t.Callable[..., Database]


def refusal(server: LocalPostgresql, entries: list[t.Any], **variables: t.Any) -> str:
    """Return what site.yml says when it refuses these variables."""
    result = play("site", inventory(server, entries, **variables), check=False)
    assert result.rc == 2
    assert result.stats(HOST)["changed"] == 0
    return result.stdout.rpartition("fatal: ")[2].partition("PLAY RECAP")[0]


@pytest.mark.smoke
@pytest.mark.parametrize("playbook", ["site", "verify", "remove"])
def test_an_empty_group_fails(playbook: str):
    result = play(playbook, {"postgresql": {"hosts": {}}, "web": {"hosts": {"web1": {}}}}, check=False)
    assert result.rc == 2
    assert "no host of the inventory is in postgresql" in result.stdout


def test_an_empty_inventory_fails():
    assert play("site", {}, check=False).rc == 2


def test_a_limit_outside_the_group_fails(pg: LocalPostgresql):
    hosts = {**inventory(pg, ["x"]), "web": {"hosts": {"web1": {}}}}
    result = play("site", hosts, "--limit", "web1", check=False)
    assert result.rc == 2
    assert "within --limit web1" in result.stdout


@pytest.mark.thorough
def test_another_group_can_be_named(pg: LocalPostgresql, db: Database):
    db.execute("CREATE TABLE users (id int PRIMARY KEY)")
    hosts = {"primaries": inventory(pg, [db])["postgresql"]}
    assert play("site", hosts, "--check", "-e", "audit_postgresql_hosts=primaries").stats(HOST)["changed"] > 0


@pytest.mark.smoke
def test_everything_wrong_with_the_variables_is_said_at_once(pg: LocalPostgresql):
    exceptions = [
        {"table": "public.orders", "reason": "r", "approved_by": "a"},
        {"table": "crm.public.orders", "reason": "r", "approved_by": "a"},
        {"table": "shop.public.orders", "reason": "r", "approved_by": "a", "until": "next year"},
    ]
    said = refusal(
        pg,
        [audited("shop"), audited("shop"), {"name": "bare"}, audited("tenant_*")],
        exceptions=[*exceptions, {"table": "tenant_1.public.orders", "reason": "r", "approved_by": "a"}],
        baseline_polices=POLICIES,
        instance="a b",
    )
    assert (
        "unknown variable postgresql_audit_baseline_polices; did you mean postgresql_audit_baseline_policies?" in said
    )
    assert "lists shop twice" in said
    assert "database bare has no policies" in said
    assert "public.orders is not database.schema.table" in said
    assert "names the database crm, which postgresql_audit_databases does not list" in said
    assert "until is next year, which is not a date" in said
    assert "postgresql_audit_instance is a b" in said
    assert "tenant_1" not in said


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("postgresql_audit_database", "postgresql_audit_databases"),
        ("postgresql_audit_lock_time", "postgresql_audit_lock_timeout"),
        ("postgresql_audit_exeptions", "postgresql_audit_exceptions"),
        ("postgresql_audit_partitions_ahead", "postgresql_audit_partition_ahead"),
    ],
)
def test_an_unknown_variable_is_named_with_its_nearest_neighbour(pg: LocalPostgresql, wrong: str, right: str):
    said = refusal(pg, ["shop"], **{wrong.removeprefix("postgresql_audit_"): 1})
    assert f"unknown variable {wrong}; did you mean {right}?" in said


def test_a_missing_list_of_databases_is_named(pg: LocalPostgresql):
    hosts = inventory(pg, [])
    assert "postgresql_audit_databases is empty" in refusal(pg, [])
    del hosts["postgresql"]["hosts"][HOST]["postgresql_audit_databases"]
    result = play("site", hosts, check=False)
    assert result.rc == 2
    assert "missing required arguments: postgresql_audit_databases" in result.stdout


def test_an_unknown_connection_option_is_named(pg: LocalPostgresql):
    assert "login_hots" in refusal(pg, ["shop"], login={"login_hots": "pg.example.org"})


def test_a_pattern_that_matches_no_database_is_named(db: Database):
    said = refusal(db.server, [db, "nowhere", "tenant_of_nobody_*"])
    assert "lists nowhere, but the server has no such database" in said
    assert "lists tenant_of_nobody_*, but the server has no such database" in said
    assert db.value("SELECT to_regnamespace('audit') IS NULL")


def test_a_database_that_two_globs_match_is_named_with_both(pg: LocalPostgresql, new_database: NewDatabase):
    name = new_database(pg, databases.unique("tenant") + "_x").name
    said = refusal(pg, [audited(f"{name[:-1]}*"), audited(f"{name[:-1]}?")])
    assert f"database {name} is matched by {name[:-1]}* and by {name[:-1]}?" in said


def test_a_login_that_is_refused_is_said_clearly(db: Database):
    login = {"login_host": "127.0.0.1", "login_port": db.server.port, "login_password": "wrong-Pass"}
    said = refusal(db.server, [db], login=login)
    assert "cannot connect to database 'postgres' on 127.0.0.1" in said
    assert "wrong-Pass" not in said


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return a Python that has no psycopg2."""
    directory = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    return directory / "bin" / "python"


def test_a_missing_driver_fails_where_packages_are_not_managed(db: Database, bare_python: pathlib.Path):
    hosts = inventory(db.server, [db], manage_packages=False)
    hosts["postgresql"]["hosts"][HOST]["ansible_python_interpreter"] = str(bare_python)
    result = play("site", hosts, check=False)
    assert result.rc == 2
    assert "psycopg2" in result.stdout


@pytest.mark.skipif(
    getpass.getuser() != "root" or not shutil.which("apt-get"), reason="asks apt what it would install, as root"
)
@pytest.mark.thorough
def test_check_mode_on_a_host_without_the_driver_predicts_the_package(db: Database, bare_python: pathlib.Path):
    hosts = inventory(db.server, [db], packages=["sl"])
    hosts["postgresql"]["hosts"][HOST]["ansible_python_interpreter"] = str(bare_python)
    result = play("site", hosts, "--check")
    assert result.stats(HOST)["changed"] == 1
    assert "sl would be installed; what would change in the databases can be told once it is there" in result.stdout
