# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""To MariaDB and MySQL, names of columns in upper and lower case are the same: so they are in a policy."""

from __future__ import annotations

import typing as t

import pymysql
import pytest
from mysql_auditing import audit, records, refusal, rollout, verification
from mysql_databases import Schema, quote_name

SECRET = "078-05-1120"
VERSION = "SELECT policy_id FROM audit.policy WHERE name = 'people' AND valid_to IS NULL"


def people(schema: Schema, table: str, column: str) -> None:
    schema.execute(f"CREATE TABLE {table} (id INT PRIMARY KEY, {quote_name(column)} VARCHAR(20), plain VARCHAR(20))")


def images(schema: Schema, table: str, column: str) -> list[dict[str, t.Any]]:
    """Change a table in every way and return the images that this leaves; the secret must be nowhere in the records."""
    name = quote_name(column)
    schema.execute(f"INSERT INTO {table} (id, {name}, plain) VALUES (1, %s, 'seen')", SECRET)
    schema.execute(f"UPDATE {table} SET {name} = CONCAT({name}, '-'), plain = 'seen too'")
    schema.execute(f"DELETE FROM {table}")
    found = records(schema, table)
    assert [record.action for record in found] == ["INSERT", "UPDATE", "DELETE"]
    assert SECRET not in str(found)
    return [image for record in found for image in (record.old_values, record.new_values) if image]


def holds(schema: Schema, policy: dict[str, t.Any]) -> bool:
    """Tell whether another run finds nothing to do, nor verify anything to say."""
    return not rollout(schema, policy, allow_missing=True).changed and not verification(schema, policy)["problems"]


def test_a_policy_masks_a_column_of_several_tables_however_each_spells_it(shop):
    spellings = {"a": "ssn", "b": "SSN", "c": "Ssn"}
    for table, column in spellings.items():
        people(shop, table, column)
    policy = {"tables": [f"{shop.name}.*"], "columns": {"redact": ["ssn"]}}
    rollout(shop, policy)
    for table, column in spellings.items():
        assert {image[column] for image in images(shop, table, column)} == {"[REDACTED]"}
    assert holds(shop, policy)


@pytest.mark.parametrize("image", ["full", "changed"])
def test_a_column_is_hashed_or_left_out_in_other_letters_too(shop, image):
    shop.execute("CREATE TABLE visit (id INT PRIMARY KEY, Diagnosis VARCHAR(20), Note VARCHAR(20), plain VARCHAR(20))")
    policy = {
        "tables": [f"{shop.name}.visit"],
        "columns": {"exclude": ["diagnosis"], "hash": ["note"]},
        "update_image": image,
    }
    rollout(shop, policy)
    shop.execute("INSERT INTO visit VALUES (1, %s, %s, 'a')", SECRET, SECRET)
    shop.execute("UPDATE visit SET Diagnosis = 'other'")
    shop.execute("UPDATE visit SET Note = CONCAT(Note, '-'), plain = 'b'")
    made, changed = records(shop, "visit")
    assert SECRET not in f"{made} {changed}"
    assert made.new_values.keys() == {"id", "Note", "plain"}
    assert all(record.new_values["Note"].startswith("hmac-sha256:") for record in (made, changed))
    assert changed.changed_columns == ["Note", "plain"]
    assert holds(shop, policy)


def test_what_alone_is_recorded_is_found_in_other_letters(shop):
    people(shop, "a", "ssn")
    people(shop, "b", "PLAIN_NUMBER")
    shop.execute("ALTER TABLE b CHANGE plain Plain VARCHAR(20)")
    policy = {"tables": [f"{shop.name}.*"], "columns": {"only": ["ID", "plain"]}}
    rollout(shop, policy)
    assert images(shop, "a", "ssn")[0] == {"id": 1, "plain": "seen"}
    assert images(shop, "b", "PLAIN_NUMBER")[0] == {"id": 1, "Plain": "seen"}
    assert holds(shop, policy)


@pytest.mark.parametrize("allow_missing", [False, True])
@pytest.mark.parametrize(("column", "named"), [("SSN", "ssn"), ("\u00c9tat", "\u00e9tat"), ("s\u0130ze", "SIZE")])
def test_one_table_is_enough_for_a_column_to_be_known(shop, column, named, allow_missing):
    people(shop, "a", column)
    with pytest.raises(pymysql.err.OperationalError, match="Duplicate column"):
        shop.execute(f"ALTER TABLE a ADD {quote_name(named)} INT")
    policy = {"tables": [f"{shop.name}.a"], "columns": {"redact": [named]}}
    rollout(shop, policy, allow_missing=allow_missing)
    assert {image[column] for image in images(shop, "a", column)} == {"[REDACTED]"}
    assert holds(shop, policy)


def test_a_key_is_masked_in_other_letters_too(shop):
    shop.execute("CREATE TABLE person (SSN VARCHAR(20) PRIMARY KEY, name VARCHAR(20))")
    audit(shop, "person", columns={"redact": ["ssn"]})
    shop.execute("INSERT INTO person VALUES (%s, 'ann')", SECRET)
    (record,) = records(shop, "person")
    assert (record.record_id, record.new_values) == ("[REDACTED]", {"SSN": "[REDACTED]", "name": "ann"})


def test_a_column_that_no_table_has_in_any_letters_is_refused(shop):
    people(shop, "a", "SSN")
    policy = {"tables": [f"{shop.name}.a"], "columns": {"redact": ["snn"]}}
    assert "column 'snn' is in none of its tables" in refusal(shop, policy)


def test_a_column_whose_letters_change_stays_masked_and_the_policy_keeps_its_version(shop):
    people(shop, "a", "ssn")
    policy = {"tables": [f"{shop.name}.a"], "columns": {"redact": ["ssn"]}, "name": "people"}
    rollout(shop, policy)
    version = shop.value(VERSION)
    shop.execute("ALTER TABLE a CHANGE ssn SSN VARCHAR(20)")
    # Until the next run the trigger is the one that masks `ssn`.
    shop.execute("INSERT INTO a VALUES (2, %s, 'x')", SECRET)
    assert rollout(shop, policy).changed
    shop.execute("INSERT INTO a VALUES (3, %s, 'x')", SECRET)
    first, second = records(shop, "a")
    assert (first.new_values["ssn"], second.new_values["SSN"]) == ("[REDACTED]", "[REDACTED]")
    assert shop.value(VERSION) == version
    assert holds(shop, policy)
