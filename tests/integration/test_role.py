# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role postgresql_audit and its playbooks: rolled out, repeated, predicted, verified, removed."""

from __future__ import annotations

import typing as t

import databases
import pytest
from databases import Database
from fleet import HOST, audited, inventory, lines, play, sql_shown
from running import run_playbook

NewDatabase = t.Callable[..., Database]


@pytest.fixture
def shop(db: Database) -> Database:
    """Return a database with two tables, and a view that no trigger can audit."""
    db.execute(
        "CREATE TABLE users (id int PRIMARY KEY, name text);"
        "CREATE TABLE orders (id int PRIMARY KEY, total numeric);"
        "CREATE VIEW names AS SELECT name FROM users"
    )
    return db


def actions(database: Database) -> list[str]:
    return [row[0] for row in database.execute("SELECT action FROM audit.audit_log WHERE action <> 'DDL' ORDER BY id")]


@pytest.mark.smoke
def test_site_audits_a_database_and_a_second_run_changes_nothing(shop: Database):
    hosts = inventory(shop.server, [shop])
    first = play("site", hosts)
    shop.execute("INSERT INTO users VALUES (1, 'ann'); UPDATE users SET name = 'bob'; DELETE FROM users")
    second = play("site", hosts)
    assert first.stats(HOST)["changed"] == 3
    assert second.stats(HOST)["changed"] == 0
    assert actions(shop) == ["INSERT", "UPDATE", "DELETE"]


@pytest.mark.thorough
def test_the_playbook_is_also_found_by_its_path(shop: Database):
    assert run_playbook("playbooks/site.yml", inventory(shop.server, [shop]), "--check").stats(HOST)["changed"] == 3
    assert shop.value("SELECT to_regnamespace('audit') IS NULL")


def test_check_mode_shows_the_sql_that_a_real_run_executes(new_server: t.Any, new_database: NewDatabase):
    # A server of its own: on the shared one, another test may make the cluster's audit roles between the two runs.
    shop = new_database(new_server())
    shop.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    hosts = inventory(shop.server, [shop])
    predicted = play("site", hosts, "--check", "--diff")
    untouched = shop.value("SELECT to_regnamespace('audit') IS NULL")
    executed = play("site", hosts, "--diff")
    assert untouched
    assert any("CREATE TABLE" in line for line in sql_shown(executed))
    assert sql_shown(predicted) == sql_shown(executed)


@pytest.mark.thorough
def test_the_summary_is_one_line_a_database(shop: Database, new_database: NewDatabase):
    crm = new_database(shop.server)
    crm.execute("CREATE TABLE leads (id int PRIMARY KEY); CREATE TABLE notes (id int PRIMARY KEY)")
    result = play("site", inventory(shop.server, [shop, audited(crm, {"tables": ["public.leads"]})]))
    first, second = lines(result)
    assert first.startswith(f"{HOST} {shop.name}: 2/2 tables audited, 1 skipped (a view")
    assert "public.names), " in first
    assert second.startswith(f"{HOST} {crm.name}: 1/2 tables audited, ")
    assert first.endswith(" s")


@pytest.mark.thorough
def test_sql_is_printed_with_diff_only(shop: Database):
    assert "CREATE TRIGGER" not in play("site", inventory(shop.server, [shop]), "--check").stdout


@pytest.mark.thorough
def test_a_glob_means_every_database_that_it_matches_and_an_exact_name_wins(pg: t.Any, new_database: NewDatabase):
    prefix = databases.unique("tenant")
    tenants = [new_database(pg, f"{prefix}_{name}") for name in ("a", "b", "special")]
    for tenant in tenants:
        tenant.execute("CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE jobs (id int PRIMARY KEY)")
    entries = [audited(f"{prefix}_*", {"tables": ["public.*"]}), audited(tenants[2], {"tables": ["public.users"]})]
    result = play("site", inventory(pg, entries))
    assert [line.split(", ")[0] for line in lines(result)] == [
        f"{HOST} {tenants[0].name}: 2/2 tables audited",
        f"{HOST} {tenants[1].name}: 2/2 tables audited",
        f"{HOST} {tenants[2].name}: 1/2 tables audited",
    ]


@pytest.mark.thorough
def test_baseline_policies_and_readers_are_added_to_a_databases_own(shop: Database):
    everywhere, here = shop.create_role("everywhere"), shop.create_role("here")
    own = audited(shop, {"tables": ["public.users"]}, readers=[here])
    hosts = inventory(shop.server, [own], baseline_policies=[{"tables": ["public.orders"]}], readers=[everywhere])
    assert "2/2 tables audited" in lines(play("site", hosts))[0]
    assert shop.value("SELECT count(*) FROM audit.audit_log WHERE action <> 'DDL'", user=everywhere) == 0
    assert shop.value("SELECT count(*) FROM audit.audit_log WHERE action <> 'DDL'", user=here) == 0


@pytest.mark.thorough
def test_an_exception_counts_for_its_database_alone_and_is_reported(shop: Database, new_database: NewDatabase):
    other = new_database(shop.server)
    other.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    exception = {"table": f"{shop.name}.public.orders", "reason": "load", "approved_by": "dpo", "until": "2001-01-31"}
    hosts = inventory(shop.server, [shop, other], exceptions=[exception])
    first, second = lines(play("site", hosts))
    assert "1/2 tables audited" in first
    assert "EXPIRED exception public.orders (until 2001-01-31)" in first
    assert "1/1 tables audited" in second
    verified = play("verify", hosts, check=False)
    assert verified.rc != 0
    assert any(line.strip().startswith("exception_expired: ") for line in lines(verified))


def test_a_locked_table_fails_the_host_after_everything_else_is_done(shop: Database, new_database: NewDatabase):
    crm = new_database(shop.server)
    crm.execute("CREATE TABLE leads (id int PRIMARY KEY)")
    writer = shop.connect(autocommit=False)
    databases.fetch(writer, "INSERT INTO users VALUES (1, 'ann')")
    result = play("site", inventory(shop.server, [shop, crm], lock_timeout=0.1, lock_retries=0), check=False)
    assert result.rc == 2
    assert "1/2 tables audited" in lines(result)[0]
    assert "FAILED" in lines(result)[0]
    assert "1/1 tables audited" in lines(result)[1]
    assert "public.users" in result.stdout.rpartition("fatal: ")[2]
    writer.rollback()
    crm.execute("INSERT INTO leads VALUES (1)")
    assert actions(crm) == ["INSERT"]


@pytest.mark.thorough
def test_a_database_without_a_possible_trail_does_not_stop_the_others(shop: Database, new_database: NewDatabase):
    foreign = new_database(shop.server)
    foreign.execute("CREATE SCHEMA audit; CREATE TABLE audit.audit_log (id int); CREATE TABLE users (id int)")
    result = play("site", inventory(shop.server, [foreign, shop]), check=False)
    assert result.rc == 2
    assert lines(result)[0].startswith(f"{HOST} {foreign.name}: FAILED")
    assert "2/2 tables audited" in lines(result)[1]
    assert "audit" in result.stdout.rpartition("fatal: ")[2]


@pytest.mark.smoke
@pytest.mark.thorough
def test_verify_proves_each_database_in_a_line(shop: Database):
    hosts = inventory(shop.server, [audited(shop, {"tables": ["public.users"]}, {"tables": ["public.orders"]})])
    play("site", hosts)
    result = play("verify", hosts)
    # The line below it is about roles and databases of other tests.
    assert lines(result)[0] == f"OK {HOST} {shop.name}: 2 policies probed, tampering refused, 0 problems"
    assert all(line.startswith("  not in the log yet") for line in lines(result)[1:])
    assert result.stats(HOST)["changed"] == 0
    assert actions(shop) == []


def test_verify_names_the_problem_and_fails(shop: Database, new_database: NewDatabase):
    bare = new_database(shop.server)
    bare.execute("CREATE TABLE users (id int)")
    play("site", inventory(shop.server, [shop]))
    shop.execute("ALTER TABLE users DISABLE TRIGGER ALL")
    result = play("verify", inventory(shop.server, [bare, shop]), check=False)
    report = lines(result)
    assert result.rc == 2
    assert report[0].startswith(f"FAILED {HOST} {bare.name}: ")
    assert "no audit trail" in report[0]
    assert report[1].startswith(f"FAILED {HOST} {shop.name}: ")
    assert any(line.strip().startswith("disabled: public.users") for line in report)


@pytest.mark.thorough
def test_a_standby_is_recognised_and_its_catalogue_verified(pg: t.Any, pg_standby: t.Any, shop: Database):
    primary, standby = inventory(pg, [shop]), inventory(pg_standby, [shop])
    databases.wait_for_replay(pg, pg_standby)
    early = play("site", standby)
    play("site", primary)
    databases.wait_for_replay(pg, pg_standby)
    verified = play("verify", standby)
    assert f"{HOST}: standby; " in early.stdout
    assert early.stats(HOST)["changed"] == 0
    assert lines(verified)[0] == f"OK {HOST} {shop.name}: standby, catalogue compared, 0 problems"
    assert "configuration" not in "".join(lines(verified)[1:])


@pytest.mark.smoke
def test_remove_keeps_the_rows(shop: Database):
    hosts = inventory(shop.server, [shop])
    play("site", hosts)
    shop.execute("INSERT INTO users VALUES (1, 'ann')")
    predicted = play("remove", hosts, "--check")
    still_audited = shop.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'users'::regclass")
    removed = play("remove", hosts)
    again = play("remove", hosts)
    shop.execute("INSERT INTO users VALUES (2, 'bob')")
    assert predicted.stats(HOST)["changed"] == 1
    assert still_audited > 0
    assert removed.stats(HOST)["changed"] == 2
    assert again.stats(HOST)["changed"] == 0
    assert lines(removed) == [f"{HOST} {shop.name}: auditing removed, the rows kept in audit.audit_log"]
    assert actions(shop) == ["INSERT"]


@pytest.mark.thorough
def test_remove_drops_the_rows_only_when_told(shop: Database):
    hosts = inventory(shop.server, [shop])
    play("site", hosts)
    removed = play("remove", hosts, "-e", "audit_drop_log=true")
    assert "the log dropped with all its rows" in lines(removed)[0]
    assert shop.value("SELECT to_regnamespace('audit') IS NULL")


@pytest.mark.thorough
def test_a_server_elsewhere_gets_no_schedule_but_a_message(shop: Database):
    login = {"login_host": "127.0.0.1", "login_port": shop.server.port, "login_password": shop.server.password}
    result = play("site", inventory(shop.server, [shop], login=login, local=False, schedule="auto"))
    assert "the server is not on this host, so no schedule is installed" in result.stdout
    assert shop.server.password not in result.stdout
    assert "2/2 tables audited" in result.stdout
