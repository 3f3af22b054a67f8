# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The schedule that makes partitions between two rollouts: its files, and a year of it."""

from __future__ import annotations

import datetime
import getpass
import pathlib
import subprocess
import typing as t

import databases
import pytest
from databases import Database
from fleet import HOST, inventory, play
from local_postgresql import LocalPostgresql

NewDatabase = t.Callable[..., Database]

LEAVES = """
SELECT substring(pg_get_expr(c.relpartbound, c.oid) FROM 'FROM \\(''(\\d{4}-\\d{2})')
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'audit.audit_log_data'::regclass AND c.relname <> 'audit_log_future'
"""


@pytest.fixture
def schedule(tmp_path: pathlib.Path) -> dict[str, t.Any]:
    """Return the variables of a schedule whose files all go to a directory of the test's own."""
    (tmp_path / "cron.d").mkdir()
    return {
        "schedule": "cron",
        "instance": "main",
        "become_root": False,
        "schedule_user": getpass.getuser(),
        "schedule_script": str(tmp_path / "maintain"),
        "cron_dir": str(tmp_path / "cron.d"),
        "systemd_dir": str(tmp_path),
    }


@pytest.fixture
def shop(db: Database) -> Database:
    db.execute("CREATE TABLE users (id int PRIMARY KEY)")
    return db


def run(schedule: dict[str, t.Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([schedule["schedule_script"], *arguments], capture_output=True, text=True, check=False)


def months_from(start: datetime.date) -> t.Iterator[datetime.date]:
    while True:
        start = start.replace(day=1)
        yield start
        start += datetime.timedelta(days=31)


@pytest.mark.thorough
def test_a_year_of_the_schedule_keeps_every_month_ahead_and_the_catch_all_empty(
    shop: Database, schedule: dict[str, t.Any]
):
    play("site", inventory(shop.server, [shop], partition_ahead=2, **schedule))
    calendar = months_from(datetime.datetime.now(datetime.timezone.utc).date())
    months = [next(calendar) for _unused in range(16)]
    assert (f"{months[12]:%Y-%m}",) not in shop.execute(LEAVES)
    for index, month in enumerate(months[:13]):
        done = run(schedule, f"{month}T12:00:00Z")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        made = {row[0] for row in shop.execute(LEAVES)}
        assert {f"{due:%Y-%m}" for due in months[index : index + 3]} <= made
        assert f"{months[index + 3]:%Y-%m}" not in made
    assert shop.value("SELECT count(*) FROM audit.audit_log_future") == 0


@pytest.mark.thorough
def test_a_second_rollout_leaves_the_files_alone_and_remove_takes_them_away(
    shop: Database, schedule: dict[str, t.Any], tmp_path: pathlib.Path
):
    hosts = inventory(shop.server, [shop], **schedule)
    play("site", hosts)
    crontab = tmp_path / "cron.d" / "dbfleet-audit-partitions-main"
    job = crontab.read_text().splitlines()[-1]
    second = play("site", hosts)
    assert job.startswith(f"0 3 * * * {getpass.getuser()} sleep ")
    assert job.endswith(f" && {schedule['schedule_script']}")
    assert second.stats(HOST)["changed"] == 0
    play("remove", hosts)
    assert not crontab.exists()
    assert not pathlib.Path(schedule["schedule_script"]).exists()


def test_units_say_what_runs_when_and_as_whom(shop: Database, schedule: dict[str, t.Any], tmp_path: pathlib.Path):
    schedule.update(schedule="systemd", schedule_user="dba", schedule_calendar="Mon 04:00", schedule_delay=60)
    shown = play("site", inventory(shop.server, [shop], **schedule), "--check", "--diff").stdout
    assert f"{tmp_path}/dbfleet-audit-partitions-main.timer" in shown
    for line in ("+OnCalendar=Mon 04:00", "+RandomizedDelaySec=60", "+Persistent=true", "+User=dba"):
        assert line in shown.splitlines()
    assert f"+ExecStart={schedule['schedule_script']}" in shown.splitlines()


@pytest.mark.thorough
def test_a_database_that_fails_is_named_after_the_others_are_done(
    shop: Database, new_database: NewDatabase, schedule: dict[str, t.Any]
):
    broken, dropped = new_database(shop.server), new_database(shop.server)
    for database in (broken, dropped):
        database.execute("CREATE TABLE users (id int PRIMARY KEY)")
    play("site", inventory(shop.server, [broken, dropped, shop], **schedule))
    broken.execute("DROP PROCEDURE audit.maintain_partitions")
    dropped.drop()
    done = run(schedule, "2040-01-01T00:00:00Z")
    assert done.returncode == 1
    assert f"{broken.name}: not maintained" in done.stderr
    assert f"{dropped.name}: no longer there" in done.stderr
    assert ("2040-01",) in shop.execute(LEAVES)


@pytest.mark.thorough
def test_a_server_that_is_down_fails_loudly(new_server: t.Any, new_database: NewDatabase, schedule: dict[str, t.Any]):
    server = new_server()
    server_database = new_database(server)
    server_database.execute("CREATE TABLE users (id int PRIMARY KEY)")
    play("site", inventory(server, [server_database], **schedule))
    server.stop()
    done = run(schedule)
    server.start()
    assert done.returncode == 1
    assert done.stderr


def test_the_schedule_idles_on_a_standby(
    pg: LocalPostgresql, pg_standby: LocalPostgresql, shop: Database, schedule: dict[str, t.Any]
):
    databases.wait_for_replay(pg, pg_standby)
    result = play("site", inventory(pg_standby, [shop], **schedule))
    done = run(schedule, "2040-01-01T00:00:00Z")
    assert f"{HOST}: standby; " in result.stdout
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.thorough
def test_names_that_a_shell_or_psql_could_misread(
    pg: LocalPostgresql, new_database: NewDatabase, schedule: dict[str, t.Any]
):
    odd = new_database(pg, databases.unique("host=x dbname=$(touch x) 'q' \"d\" \\"))
    odd.execute("CREATE TABLE users (id int PRIMARY KEY)")
    play("site", inventory(pg, [odd], **schedule))
    done = run(schedule, "2040-01-01T00:00:00Z")
    assert (done.returncode, done.stderr) == (0, "")
    assert ("2040-01",) in odd.execute(LEAVES)
