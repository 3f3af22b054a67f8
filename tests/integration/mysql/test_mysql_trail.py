# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The trail of a server: installed once, repaired where somebody altered it, refused where it cannot be, taken out."""

from __future__ import annotations

import typing as t

import pymysql
import pytest
import running
from cutting import MysqlCutter
from mysql_auditing import audit, install_trail, records, rollout, verification
from mysql_databases import MysqlServer, Schema, fetch


@pytest.fixture
def bare(without_trail: MysqlServer) -> t.Iterator[Schema]:
    """Return a database on a server without a trail."""
    with Schema(without_trail) as made:
        yield made


def trail_module(schema: Schema, /, **options: t.Any) -> running.ModuleResult:
    return running.run_module("mysql_audit_trail", **{**schema.login, **options})


def test_the_trail_is_installed_once_as_check_mode_has_said(bare):
    predicted = trail_module(bare, check_mode=True, diff_mode=True)
    assert bare.execute("SELECT schema_name FROM information_schema.schemata WHERE schema_name = 'audit'") == []
    done = trail_module(bare)
    assert done["statements"] == predicted["statements"]
    assert len(done["statements"]) > 30
    again = trail_module(bare)
    assert (again.changed, again["statements"]) == (False, [])


def test_a_dump_can_bring_the_triggers_back(bare):
    """A dump has a body in a comment; a semicolon at its end would end the command there, before the comment does."""
    trail_module(bare)
    bare.execute("CREATE TABLE people (id INT PRIMARY KEY)")
    audit(bare)
    bodies = bare.execute(
        "SELECT trigger_name, action_statement FROM information_schema.triggers WHERE trigger_schema IN ('audit', %s)",
        bare.name,
    )
    assert len(bodies) > 5
    assert [name for name, body in bodies if body.rstrip().endswith(";")] == []


def test_a_first_rollout_can_be_predicted_as_a_whole(bare):
    bare.execute("CREATE TABLE people (id INT PRIMARY KEY)")
    for module in ("mysql_audit_trail", "mysql_audit_partitions"):
        assert running.run_module(module, check_mode=True, **bare.login).changed
    predicted = rollout(bare, {"tables": [f"{bare.name}.*"]}, check_mode=True)
    install_trail(bare)
    assert audit(bare)["statements"] == predicted["statements"]


@pytest.mark.parametrize(
    ("change", "problem", "detail"),
    [
        ("DROP FUNCTION audit.current_context", "missing", "function current_context is missing"),
        ("DROP VIEW audit.audit_history", "missing", "view audit_history is missing"),
        ("CREATE OR REPLACE VIEW audit.audit_log AS SELECT 1 AS id", "altered", "view audit_log is altered"),
        ("ALTER PROCEDURE audit.set_context SQL SECURITY INVOKER", "altered", "set_context runs with other rights"),
        ("ALTER USER audit_writer@localhost ACCOUNT UNLOCK", "altered", "account audit_writer@localhost can log in"),
        ("REVOKE INSERT ON audit.audit_log_data FROM audit_writer@localhost", "grant", "may INSERT on audit_log_data"),
        ("DROP INDEX record ON audit.audit_log_data", "missing", "index record is missing"),
        ("DROP TABLE audit.probe", "missing", "table probe is missing"),
        ("DELETE FROM audit.hash_key", "missing", "the key of hashed columns is missing"),
    ],
)
def test_what_somebody_altered_is_named_and_put_back(trail, change, problem, detail):
    with Schema(trail) as schema:
        rollout(schema)
        schema.execute(change)
        try:
            found = verification(schema)["problems"]
            assert (problem, True) in {(entry["type"], detail in entry["detail"]) for entry in found}
            assert trail_module(schema).changed
            assert not trail_module(schema).changed
            assert verification(schema)["problems"] == []
        finally:
            install_trail(schema)


def test_a_routine_that_is_put_back_can_be_called_at_once(trail):
    """MySQL drops the rights on a routine with the routine."""
    with Schema(trail) as schema:
        schema.execute("CREATE TABLE people (id INT PRIMARY KEY, ssn VARCHAR(20))")
        audit(schema, columns={"hash": ["ssn"]})
        user = schema.create_account()
        options = {"applications": [f"{user}@%"]}
        trail_module(schema, **options)
        for kind, name in (("FUNCTION", "current_context"), ("FUNCTION", "keyed_digest"), ("PROCEDURE", "set_context")):
            schema.execute(f"ALTER {kind} audit.{name} SQL SECURITY INVOKER")
        assert trail_module(schema, **options).changed
        with schema.connect(user) as connection:
            fetch(connection, 'CALL audit.set_context(\'{"user": "ann"}\')')
            fetch(connection, "INSERT INTO people VALUES (1, '123')")
        assert records(schema)[0].changed_by == "ann"
        assert not trail_module(schema, **options).changed
        trail_module(schema)


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        ("CREATE DATABASE audit; CREATE TABLE audit.audit_log (id INT)", "database 'audit' exists (holds audit_log)"),
        ("CREATE DATABASE audit; CREATE TABLE audit.audit_log_data (id INT)", "that dbfleet.audit did not make"),
        (
            "CREATE DATABASE audit; CREATE TABLE audit.audit_log_data (id INT) COMMENT = 'dbfleet.audit'; "
            "CREATE FUNCTION audit.schema_version() RETURNS INT NO SQL RETURN 99",
            "was made by a newer dbfleet.audit (schema version 99, ",
        ),
        ("CREATE USER audit_writer@localhost", "an account 'audit_writer'@'localhost' exists"),
    ],
)
def test_what_is_not_ours_is_refused_and_stays(bare, prepare, words):
    try:
        for statement in prepare.split("; "):
            bare.execute(statement)
        result = trail_module(bare, may_fail=True)
        assert words in result.msg
        assert not result.changed
    finally:
        bare.execute("DROP DATABASE IF EXISTS audit")
        bare.execute("DROP USER IF EXISTS audit_writer@localhost")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"readers": ["nobody@%"]}, "account 'nobody'@'%' does not exist"),
        ({"readers": ["root@localhost"], "applications": ["root@localhost"]}, "must not read the log"),
    ],
)
def test_accounts_that_cannot_be_are_refused_before_anything_is_changed(bare, options, words):
    assert words in trail_module(bare, may_fail=True, **options).msg
    assert bare.execute("SELECT schema_name FROM information_schema.schemata WHERE schema_name = 'audit'") == []


def test_the_trail_can_have_another_name(bare):
    place = {**bare.login, "schema": f"{bare.name}_trail"}
    policies = [{"tables": [f"{bare.name}.people"], "columns": {"hash": ["ssn"]}}]
    bare.execute("CREATE TABLE people (id INT PRIMARY KEY, ssn VARCHAR(20))")
    try:
        for module in ("mysql_audit_trail", "mysql_audit_partitions"):
            running.run_module(module, **place)
        running.run_module("mysql_audit_triggers", policies=policies, **place)
        bare.execute(f'CALL `{place["schema"]}`.set_context(\'{{"user": "ann"}}\')')
        bare.execute("INSERT INTO people VALUES (1, '123')")
        assert bare.execute(f"SELECT changed_by, record_id FROM `{place['schema']}`.audit_log") == [("ann", "1")]
        assert running.run_module("mysql_audit_verify", policies=policies, **place)["valid"]
    finally:
        running.run_module("mysql_audit_triggers", **place)
        running.run_module("mysql_audit_trail", state="absent", drop_log=True, **place)


def test_the_trail_is_not_taken_out_while_triggers_write_to_it(bare):
    install_trail(bare)
    bare.execute("CREATE TABLE people (id INT PRIMARY KEY)")
    audit(bare)
    result = trail_module(bare, state="absent", may_fail=True)
    assert "3 triggers still write to the log" in result.msg
    bare.execute("INSERT INTO people VALUES (1)")
    assert len(records(bare)) == 1


def test_taking_the_trail_out_keeps_its_rows_guarded_and_a_new_one_carries_on(bare):
    install_trail(bare)
    bare.execute("CREATE TABLE people (id INT PRIMARY KEY)")
    audit(bare)
    bare.execute("INSERT INTO people VALUES (1)")
    rollout(bare)
    assert trail_module(bare, state="absent").changed
    assert not trail_module(bare, state="absent").changed
    assert len(records(bare)) == 1
    with pytest.raises(pymysql.err.OperationalError) as caught:
        bare.execute("DELETE FROM audit.audit_log_data")
    assert caught.value.args[0] == 1644
    install_trail(bare)
    audit(bare)
    bare.execute("INSERT INTO people VALUES (2)")
    first, second = records(bare)
    assert second.id > first.id


def test_taking_everything_out_leaves_nothing(bare):
    before = bare.execute("SELECT user, host FROM mysql.user ORDER BY 1, 2")
    install_trail(bare)
    assert trail_module(bare, state="absent", drop_log=True).changed
    assert bare.execute("SELECT user, host FROM mysql.user ORDER BY 1, 2") == before
    assert bare.execute("SELECT schema_name FROM information_schema.schemata WHERE schema_name = 'audit'") == []
    assert not trail_module(bare, state="absent", drop_log=True).changed


MODULES = ("mysql_audit_trail", "mysql_audit_partitions", "mysql_audit_triggers")


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.thorough
def test_a_run_that_is_cut_off_anywhere_is_finished_by_the_next(bare, module):
    """Behind one statement or another: the controller killed, the host gone, the network cut."""
    bare.execute("CREATE TABLE people (id INT PRIMARY KEY)")
    earlier = MODULES[: MODULES.index(module)]
    policies = {"policies": [{"tables": [f"{bare.name}.*"]}]}

    def run(name: str, **options: t.Any) -> running.ModuleResult:
        extra = policies if name == "mysql_audit_triggers" else {}
        return running.run_module(name, **{**bare.login, **extra, **options})

    def ready() -> None:
        rollout(bare)
        trail_module(bare, state="absent", drop_log=True)
        for name in earlier:
            run(name)

    ready()
    whole = MysqlCutter(bare.server)
    assert run(module, **_login(whole)).changed
    whole.close()
    # Of the many statements that only read, two stand for all.
    for last in (1, whole.statements // 2, *range(whole.statements - 4, whole.statements + 1)):
        ready()
        cutter = MysqlCutter(bare.server, last)
        result = run(module, may_fail=True, **_login(cutter))
        cutter.close()
        assert result.failed, f"behind statement {last}"
        assert "Traceback" not in result.msg
        for name in MODULES:
            run(name)
        assert [run(name).changed for name in MODULES] == [False, False, False], f"behind statement {last}"
        bare.execute("DELETE FROM people")
        before = len(records(bare))
        bare.execute("INSERT INTO people VALUES (1)")
        assert len(records(bare)) == before + 1


def _login(cutter: MysqlCutter) -> dict[str, t.Any]:
    return {**cutter.login, "login_unix_socket": None}
