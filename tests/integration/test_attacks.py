# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Attacks that once worked, by a role that owns tables and nothing else. Each was run before it was mended."""

from __future__ import annotations

import typing as t

import psycopg2
import pytest
import running
from auditing import install_trail, records, refusal, rollout, wanted
from databases import Database, fetch

REFUSED = psycopg2.errors.InsufficientPrivilege


class Owner(t.NamedTuple):
    """A database with a trail, and a role that may make tables in it."""

    db: Database
    name: str

    def do(self, *statements: str) -> None:
        for statement in statements:
            self.db.execute(statement, user=self.name)

    def is_superuser(self) -> bool:
        return self.db.value("SELECT rolsuper FROM pg_roles WHERE rolname = %s", self.name)


def owner_of(db: Database) -> Owner:
    name = db.create_role("eve")
    db.execute(f"GRANT CREATE ON SCHEMA public TO {name}; GRANT CREATE ON DATABASE {db.name} TO {name}")
    return Owner(db, name)


@pytest.fixture
def eve(trail: Database) -> Owner:
    return owner_of(trail)


def takeover(role: str, returns: str, result: str) -> str:
    """Return a function that makes the role a superuser as soon as one calls it."""
    arguments = "text" if returns != "trigger" else ""
    return (
        f"CREATE FUNCTION pwn({arguments}) RETURNS {returns} LANGUAGE plpgsql AS $$BEGIN "
        f"IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN EXECUTE 'ALTER ROLE {role} SUPERUSER'; "
        f"END IF; RETURN {result}; END$$"
    )


# -- the owner's code with another's rights ----------------------------------------------------------------------------

CONDITION = "NEW.tags @> '{vip}'"
ARRAY_OF_DOMAIN = ("CREATE DOMAIN tag AS text CHECK (pwn(VALUE))", "CREATE TABLE mine (id int PRIMARY KEY, tags tag[])")


def test_a_condition_does_not_run_the_check_of_a_domain_in_a_rollout(eve):
    eve.do(takeover(eve.name, "boolean", "true"), *ARRAY_OF_DOMAIN)
    policies = [wanted("public.*", when=CONDITION, operations=["insert"])]
    message = refusal(eve.db, policies=policies)
    assert "public.mine" in message
    assert "public.tag, a domain" in message
    assert not eve.is_superuser()
    eve.db.execute("DROP TABLE mine CASCADE; CREATE TABLE mine (id int PRIMARY KEY, tags text[])")
    rollout(eve.db, policies=policies)
    eve.db.execute("INSERT INTO mine VALUES (1, '{vip}'), (2, '{}')")
    assert [record.record_id for record in records(eve.db)] == ["1"]


def test_a_table_that_a_condition_does_not_fit_keeps_no_other_from_being_audited(eve):
    eve.do("CREATE TABLE good (id int PRIMARY KEY, tags text[])", "CREATE TABLE odd (id int PRIMARY KEY)")
    eve.do(takeover(eve.name, "boolean", "true"), *ARRAY_OF_DOMAIN)
    policies = [wanted("public.*", when=CONDITION, operations=["insert"])]
    result = rollout(eve.db, policies=policies, may_fail=True)
    assert result.failed
    assert {table["table"] for table in result["failed_tables"]} == {"public.mine", "public.odd"}
    assert "public.tag, a domain inside an array" in result.msg
    assert "does not fit INSERT on public.odd" in result.msg
    assert not eve.is_superuser()
    eve.do("INSERT INTO good VALUES (1, '{vip}')")
    assert len(records(eve.db, "good")) == 1
    again = rollout(eve.db, policies=policies, may_fail=True)
    assert (again.failed, again.changed) == (True, False)


def test_a_condition_does_not_run_the_check_of_a_domain_that_comes_after_the_look(eve):
    """A rollout looks for domains, and later makes the trigger: with a table that may have changed in between."""
    eve.do("CREATE TABLE mine (id int PRIMARY KEY, tags text[])", takeover(eve.name, "boolean", "true"))
    eve.do(ARRAY_OF_DOMAIN[0])
    planned = running.run_module(
        "postgresql_audit_triggers", check_mode=True, **eve.db.login,
        policies=[wanted("public.mine", when=CONDITION, operations=["insert"])],
    )["statements"]  # fmt: skip
    eve.do("DROP TABLE mine", ARRAY_OF_DOMAIN[1])
    with pytest.raises(REFUSED, match="is a domain whose code"):
        eve.db.execute(";".join(planned))
    assert not eve.is_superuser()


def test_a_condition_does_not_run_the_check_of_a_domain_when_a_table_is_made(eve):
    rollout(
        eve.db,
        policies=[wanted("public.*", when=CONDITION, operations=["insert"], auto_attach=True)],
        allow_missing=True,
    )
    eve.do(takeover(eve.name, "boolean", "true"), ARRAY_OF_DOMAIN[0])
    with pytest.raises(REFUSED, match="is a domain"):
        eve.do(ARRAY_OF_DOMAIN[1])
    assert not eve.is_superuser()
    eve.do("CREATE TABLE plain (id int PRIMARY KEY, tags text[])")


@pytest.mark.parametrize("mark", ["dbfleet.audit 1", "dbfleet.audit x", "dbfleet.audit 1 "])
def test_a_schema_that_only_claims_to_be_the_trail_is_refused(db, mark):
    eve = owner_of(db)
    eve.do(
        "CREATE SCHEMA audit",
        f"COMMENT ON SCHEMA audit IS '{mark}'",
        "CREATE TABLE audit.setting (name text PRIMARY KEY, value text NOT NULL)",
        takeover(eve.name, "trigger", "NEW"),
        "CREATE TRIGGER t BEFORE INSERT ON audit.setting FOR EACH ROW EXECUTE FUNCTION pwn()",
    )
    result = running.run_module("postgresql_audit_trail", may_fail=True, **db.login)
    assert result.failed
    assert "is not ours" in result.msg
    assert not eve.is_superuser()


@pytest.mark.parametrize(
    "attempt",
    [
        "ALTER TABLE things DISABLE TRIGGER ALL",
        "DROP TRIGGER dbfleet_audit_insert ON things",
        "CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood)",
        # As if it were a rollout, during which the event trigger leaves tables alone.
        "SET dbfleet.plan = 1; ALTER TABLE things RENAME password TO word",
    ],
)
def test_code_that_a_superusers_session_runs_for_the_owner_is_the_owners(eve, attempt):
    """As autovacuum and ANALYZE run the functions of indexes."""
    eve.do(
        "CREATE TABLE things (id int, password text)",
        "CREATE TABLE bait (id int)",
        "CREATE TYPE mood AS ENUM ('sad')",
        "CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE sql AS $$SELECT '1'::json$$",
        f"CREATE FUNCTION boom() RETURNS int LANGUAGE plpgsql AS $$BEGIN IF session_user <> current_user THEN "
        f"EXECUTE '{attempt}'; END IF; RETURN 1; END$$",
        "CREATE FUNCTION idx(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$BEGIN PERFORM public.boom(); "
        "RETURN $1; END$$",
        "INSERT INTO bait SELECT generate_series(1, 200)",
        "CREATE INDEX ON bait (idx(id))",
    )
    rollout(eve.db, policies=[wanted("public.*")])
    with pytest.raises(REFUSED):
        eve.db.execute("ANALYZE bait")
    eve.do("INSERT INTO things VALUES (1)")
    assert len(records(eve.db, "things")) == 1


# -- changes without a record ------------------------------------------------------------------------------------------

WAYS_AROUND = {
    "parent": "ALTER TABLE st INHERIT par",
    "root": "ALTER TABLE root ATTACH PARTITION st DEFAULT",
    "child": "CREATE TABLE kid () INHERITS (st)",
}


@pytest.mark.parametrize("way", WAYS_AROUND)
def test_statement_capture_cannot_be_written_around_through_a_parent(eve, way):
    eve.do(
        "CREATE TABLE st (id int NOT NULL, v text)",
        "CREATE TABLE par (id int NOT NULL, v text)",
        "CREATE TABLE root (id int NOT NULL, v text) PARTITION BY LIST (id)",
    )
    rollout(eve.db, policies=[wanted("public.st", capture="statement")])
    with pytest.raises(REFUSED, match="st is audited by statement"):
        eve.do(WAYS_AROUND[way])


def test_a_child_of_an_audited_table_is_audited_wherever_it_is_made(eve):
    eve.do("CREATE TABLE base (id int)", "CREATE SCHEMA elsewhere")
    rollout(eve.db, policies=[wanted("public.base")])
    eve.do("CREATE TABLE elsewhere.kid () INHERITS (base)", "INSERT INTO elsewhere.kid VALUES (1)")
    assert [record.table_name for record in records(eve.db)] == ["kid"]


MIDDLE = [
    "CREATE TABLE mid (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)",
    "ALTER TABLE things ATTACH PARTITION mid FOR VALUES FROM (10) TO (20)",
    "CREATE TABLE low PARTITION OF mid FOR VALUES FROM (10) TO (12)",
]
DETACHED = {
    "at once": ["ALTER TABLE things DETACH PARTITION part"],
    "without waiting": ["ALTER TABLE things DETACH PARTITION part CONCURRENTLY"],
    "in one transaction": ["BEGIN; ALTER TABLE things DETACH PARTITION part; ALTER TABLE part RENAME v TO w; COMMIT"],
    "in a subtransaction": [
        "DO $$BEGIN BEGIN ALTER TABLE things DETACH PARTITION part; EXCEPTION WHEN division_by_zero THEN END; END$$"
    ],
    "attached before": [
        "DROP TABLE part; CREATE TABLE part (id int PRIMARY KEY, v text)",
        "ALTER TABLE things ATTACH PARTITION part FOR VALUES FROM (10) TO (20)",
        "ALTER TABLE things DETACH PARTITION part",
    ],
    "from a partition of a partition": [
        *("DROP TABLE part", *MIDDLE, "ALTER TABLE mid DETACH PARTITION low", "ALTER TABLE low RENAME TO part")
    ],
    "with partitions of its own": [
        *("DROP TABLE part", *MIDDLE, "ALTER TABLE things DETACH PARTITION mid", "ALTER TABLE low RENAME TO part")
    ],
}


@pytest.mark.parametrize("way", DETACHED)
def test_a_detached_partition_stays_audited(eve, way):
    eve.do(
        "CREATE TABLE things (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)",
        "CREATE TABLE part PARTITION OF things FOR VALUES FROM (10) TO (20)",
        "CREATE TABLE like_it (id int PRIMARY KEY, v text)",
    )
    policies = [wanted("public.things")]
    rollout(eve.db, policies=policies)
    eve.do(*DETACHED[way])
    eve.do("INSERT INTO part VALUES (10, 'x')", "INSERT INTO like_it VALUES (10, 'x')")
    assert [record.action for record in records(eve.db)] == ["INSERT"]
    # A policy of its own takes over without a gap.
    policies.append(wanted("public.part", name="part"))
    rollout(eve.db, policies=policies)
    eve.do("DELETE FROM part")
    assert [record.action for record in records(eve.db)] == ["INSERT", "DELETE"]


def test_a_column_cannot_be_renamed_to_one_that_is_left_out(eve):
    eve.do("CREATE TABLE ex (id int, salary int, search_vector text)")
    rollout(eve.db, policies=[wanted("public.ex", columns={"exclude": ["search_vector"]})])
    eve.do("ALTER TABLE ex RENAME search_vector TO sv")
    with pytest.raises(REFUSED, match="leaves out what is called search_vector"):
        eve.do("ALTER TABLE ex RENAME salary TO search_vector")


@pytest.mark.parametrize("on_failure", ["abort", "warn"])
@pytest.mark.parametrize("capture", ["row", "statement"])
def test_nothing_that_a_session_says_is_too_long_for_the_log(db, on_failure, capture):
    db.execute("CREATE TABLE things (id text PRIMARY KEY)")
    install_trail(db, indexes=["record", "changed_by"])
    rollout(db, policies=[wanted("public.things", on_failure=on_failure, capture=capture)])
    session = db.connect()
    random = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, %s) AS i)"
    fetch(session, f"SELECT set_config('app.user', {random}, false)", 2500)
    fetch(session, f"INSERT INTO things VALUES ({random})", 82)
    (record,) = records(db)
    assert (record.action, len(record.changed_by)) == ("INSERT", 500)
    assert record.record_id.startswith("sha256:")
    assert len(record.new_values["id"]) == 82 * 32


def test_a_row_cannot_hide_behind_a_value_that_is_too_deep(eve):
    eve.do("CREATE TABLE things (id int PRIMARY KEY, extra json)")
    rollout(eve.db, policies=[wanted("public.things")])
    session = eve.db.connect(user=eve.name)
    fetch(session, "CREATE FUNCTION deep(int) RETURNS void LANGUAGE plpgsql AS $$BEGIN IF $1 > 0 THEN "
                   "PERFORM deep($1 - 1); ELSE INSERT INTO things SELECT 500, j FROM src; END IF; END$$")  # fmt: skip
    fetch(session, "CREATE TEMP TABLE src AS SELECT (repeat('[', 5500) || repeat(']', 5500))::json AS j")
    hidden = 0
    for depth in range(0, 1000, 100):
        try:
            fetch(session, "SELECT deep(%s)", depth)
        except psycopg2.errors.StatementTooComplex:
            hidden += 1
        fetch(session, "DELETE FROM things")
    assert hidden, "no depth was too much: the test tries nothing"
    assert all(record.record_id == "500" for record in records(eve.db))


# -- masks -------------------------------------------------------------------------------------------------------------

MOVES = {
    "rename": "ALTER TABLE users RENAME TO z",
    "schema": "ALTER TABLE users SET SCHEMA loose",
    "attach": "ALTER TABLE loose.root ATTACH PARTITION users DEFAULT",
}


@pytest.mark.parametrize("move", MOVES)
def test_a_mask_cannot_be_taken_off_by_moving_the_table(eve, move):
    eve.do(
        "CREATE SCHEMA loose",
        "CREATE TABLE users (id int, ssn text)",
        "CREATE TABLE loose.root (id int, ssn text) PARTITION BY LIST (id)",
    )
    masking = wanted("public.users", columns={"hash": ["ssn"]})
    rollout(eve.db, policies=[masking, wanted("public.*", "loose.*")], allow_missing=True)
    with pytest.raises(REFUSED, match="masks"):
        eve.do(MOVES[move])


def test_a_mask_holds_for_names_with_backslashes_in_rows_that_jsonb_does_not_take(eve):
    eve.do('CREATE TABLE odd (id int, "pin\\code" text, j json)')
    rollout(eve.db, policies=[wanted("public.odd", columns={"redact": ["pin\\code"]})])
    eve.do("INSERT INTO odd VALUES (1, '1234-CLEAR', '\"\\u0000\"')")
    (record,) = records(eve.db)
    assert record.new_values["pin\\code"] == "[REDACTED]"
    assert "CLEAR" not in str(record)


# -- schemas, names, context -------------------------------------------------------------------------------------------


def test_a_renamed_schema_takes_its_tables_under_the_policies_of_its_new_name(eve):
    eve.do("CREATE SCHEMA stage", "CREATE TABLE stage.loot (id int)", "CREATE SCHEMA hr",
           "CREATE TABLE hr.pay (id int) PARTITION BY LIST (id)",
           "CREATE TABLE hr.pay_1 PARTITION OF hr.pay DEFAULT")  # fmt: skip
    rollout(eve.db, policies=[wanted("hr.*", "newhr.*", auto_attach=True)], allow_missing=True)
    eve.do("ALTER SCHEMA hr RENAME TO old_hr", "ALTER SCHEMA stage RENAME TO newhr")
    eve.do("INSERT INTO newhr.loot VALUES (1)", "INSERT INTO old_hr.pay VALUES (1)")
    assert [(record.schema_name, record.table_name) for record in records(eve.db)] == [
        ("newhr", "loot"),
        ("old_hr", "pay"),
    ]


def test_a_table_may_be_called_like_a_placeholder(eve):
    eve.do('CREATE TABLE "{event}" (id int)')
    rollout(eve.db, policies=[wanted("public.*", when="NEW.id > 0", operations=["insert"])])
    eve.do('INSERT INTO "{event}" VALUES (1)')
    assert [record.table_name for record in records(eve.db)] == ["{event}"]


def test_a_claimed_role_is_not_taken_for_a_real_one_and_no_user_for_one(eve):
    eve.do("CREATE TABLE things (id int)")
    install_trail(eve.db, applications=[eve.name])
    rollout(eve.db, policies=[wanted("public.things")])
    session = eve.db.connect(user=eve.name, autocommit=False)
    fetch(session, 'SELECT audit.set_context(\'{"role": "postgres", "user": ""}\')')
    fetch(session, "INSERT INTO things VALUES (1)")
    session.commit()
    (record,) = records(eve.db)
    assert (record.context, record.changed_by) == ({"claimed_role": "postgres"}, eve.name)


@pytest.mark.parametrize(
    "call",
    ["audit.set_context(jsonb_build_object('x', repeat('x', 70000)))",
     "audit.log_event('e', metadata => jsonb_build_object('y', repeat('y', 1100000)))",
     "audit.log_event('e', resource_id => repeat('y', 3000))"],
)  # fmt: skip
def test_context_and_events_have_a_size(eve, call):
    with pytest.raises(psycopg2.errors.ProgramLimitExceeded, match="takes"):
        eve.db.execute(f"SELECT {call}")
    assert records(eve.db) == []


# -- keeping the trail from its work -----------------------------------------------------------------------------------


def test_who_keeps_rollouts_and_new_partitions_out_is_named(eve):
    install_trail(eve.db)
    holder = eve.db.connect(eve.name)
    fetch(holder, f"SELECT pg_advisory_lock({0x6462666C}, 1)")
    pid = holder.info.backend_pid
    with pytest.raises(psycopg2.errors.LockNotAvailable, match=f"process {pid} of {eve.name}"):
        eve.db.execute("SET lock_timeout = '100ms'; CALL audit.maintain_partitions()")
    eve.do("CREATE TABLE things (id int PRIMARY KEY)")
    message = refusal(eve.db, policies=[wanted("public.*")], _constants={"session.LOCK_WAIT": "100ms"})
    assert f"process {pid} of {eve.name}" in message
