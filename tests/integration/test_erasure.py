# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What docs/investigations.md says of erasure: what it does to the log, and what it does not."""

from __future__ import annotations

import datetime

import pytest
import running
from auditing import install_trail, records, rollout, wanted
from databases import Database, fetch
from investigations import ERASURE, investigations

PARTITION = "audit_log_2026_11"


@pytest.fixture
def people(trail: Database) -> Database:
    """Return a database with one audited table and one person in it."""
    trail.execute("CREATE TABLE users (id int PRIMARY KEY, email text, ssn text)")
    policy = wanted("public.users", columns={"hash": ["ssn"]})
    rollout(trail, policies=[policy])
    trail.execute("INSERT INTO users VALUES (12345, 'ada@example.com', '078-05-1120')")
    trail.execute("UPDATE users SET email = 'ada@example.org' WHERE id = 12345")
    return trail


def erase(db: Database) -> None:
    """Do what the page says, to this month's partition."""
    partition = f"audit_log_{datetime.datetime.now(datetime.timezone.utc):%Y_%m}"
    fetch(
        db.connect(),
        investigations("postgresql", ERASURE)["Erasure of one record's values"].replace(PARTITION, partition),
    )


def test_an_erasure_takes_the_values_keeps_the_records_and_is_on_record_itself(people):
    people.execute("INSERT INTO users VALUES (2, 'bo@example.com', NULL)")
    before = records(people)
    erase(people)
    after = records(people)
    assert [record.id for record in after[:-1]] == [record.id for record in before]
    assert "ada@" not in str(after)
    assert after[1].old_values["email"] == after[1].new_values["email"] == "[ERASED]"
    assert after[1].new_values["ssn"] == before[1].new_values["ssn"]
    assert after[2] == before[2]
    assert (after[-1].action, after[-1].new_values["event"], after[-1].record_id) == ("EVENT", "erasure", "12345")


def test_after_an_erasure_the_log_is_guarded_as_before(people):
    erase(people)
    result = running.run_module("postgresql_audit_verify", **people.login, policies=[
        wanted("public.users", columns={"hash": ["ssn"]})])  # fmt: skip
    assert result["problems"] == []
    with pytest.raises(Exception, match="audit"):
        people.execute("UPDATE audit.audit_log_data SET changed_by = 'nobody'")


def test_a_period_that_has_ended_is_dropped_as_a_whole_and_nothing_is_amiss(db):
    running.run_module("postgresql_audit_trail", **db.login)
    session = db.connect()
    fetch(session, "CALL audit.maintain_partitions(now() - interval '13 months')")
    running.run_module("postgresql_audit_partitions", **db.login)
    rollout(db, policies=[])
    oldest = db.value("SELECT 'audit_log_' || to_char(now() AT TIME ZONE 'UTC' - interval '13 months', 'YYYY_MM')")
    fetch(session, f"ALTER TABLE audit.audit_log_data DETACH PARTITION audit.{oldest} CONCURRENTLY")
    fetch(session, f"DROP TABLE audit.{oldest}")
    assert running.run_module("postgresql_audit_verify", **db.login, policies=[])["problems"] == []
    assert not running.run_module("postgresql_audit_partitions", **db.login).changed


def digests(db: Database) -> list[str | None]:
    """Return what the log has for the ssn, oldest first."""
    return [record.new_values["ssn"] for record in records(db)]


def test_without_its_key_a_digest_leads_to_nobody_and_new_ones_differ(people):
    people.execute("DELETE FROM audit.hash_key")
    people.execute("UPDATE users SET email = 'in between' WHERE id = 12345")
    install_trail(people)
    people.execute("UPDATE users SET email = 'afterwards' WHERE id = 12345")
    first, second, between, afterwards = digests(people)
    assert first == second
    assert between is None
    assert afterwards.startswith("hmac-sha256:")
    assert afterwards != first
