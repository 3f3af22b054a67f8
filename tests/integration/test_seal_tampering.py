# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a superuser does to the rows of a sealed log, every guard off; verification names each, with seal and row."""

from __future__ import annotations

import typing as t

import pytest
from local_postgresql import LocalPostgresql
from tampering import SealedLog, four_seals, tamper

from ansible_collections.dbfleet.audit.plugins.plugin_utils import _seal_check


@pytest.fixture(scope="module")
def sealed_log(pg: LocalPostgresql, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[SealedLog]:
    """Return a log of four seals: rows, objects, rows, rows."""
    with four_seals(pg, tmp_path_factory.mktemp("sealed")) as made:
        yield made


@pytest.fixture
def log(sealed_log: SealedLog) -> t.Iterator[SealedLog]:
    """Return that log; afterwards it is as it was."""
    yield sealed_log
    sealed_log.restore()


def test_what_nobody_touched_is_clean(log: SealedLog) -> None:
    tamper(log.db)
    assert log.problems() == []


#: A changed value of every column of audit.audit_log_data, and more than one where a careless text would hide it.
CHANGES = {
    "id": "id = -7",
    "changed_at": "changed_at = changed_at + interval '1 microsecond'",
    "changed_at, to another day": "changed_at = changed_at - interval '1 day'",
    "transaction_id": "transaction_id = '1'",
    "action": "action = 'DELETE'",
    "schema_name": "schema_name = 'publiC'",
    "schema_name, to NULL": "schema_name = NULL",
    "table_name": "table_name = 'items'",
    "record_id": "record_id = record_id || ' '",
    "old_values, to the JSON null": "old_values = 'null'",
    "old_values, to no content": "old_values = '{}'",
    "new_values": 'new_values = new_values || \'{"name": "item"}\'',
    "new_values, to a number that is equal": "new_values = jsonb_set(new_values, '{id}', '105.0')",
    "new_values, to the JSON null": "new_values = 'null'",
    "hidden_changes": "hidden_changes = '{name}'",
    "hidden_changes, to none": "hidden_changes = '{}'",
    "changed_by": "changed_by = 'eve'",
    "db_user": "db_user = 'eve'",
    "client_ip": "client_ip = '192.0.2.1'",
    "client_ip, the mask": "client_ip = set_masklen('192.0.2.7'::inet, 24)",
    "application_name": "application_name = application_name || '\t'",
    "application_name, to NULL": "application_name = NULL",
    "context": 'context = \'{"user": "eve"}\'',
    "context, to the JSON null": "context = 'null'",
    "policy_id": "policy_id = policy_id + 1",
    "a text that takes in the next column": 'schema_name = \'public","table_name":"item\', table_name = NULL',
    "a text that ends in a backslash": "changed_by = 'postgres\\', db_user = '\",\"db_user\":\"postgres'",
}


@pytest.fixture(scope="module")
def changed(sealed_log: SealedLog) -> dict[str, tuple[int, list[tuple[t.Any, ...]]]]:
    """Make each change to a row of its own; return the row's id and what verification, once, finds of it."""
    rows = {name: sealed_log.id_of(101 + number) for number, name in enumerate(CHANGES)}
    updates = [f"UPDATE audit.audit_log_data SET {CHANGES[name]} WHERE id = {row}" for name, row in rows.items()]
    tamper(sealed_log.db, *updates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_seal_check, "NAMED", 100)
        found = [tuple(problem.values()) for problem in sealed_log.sealer.verify()["problems"]]
    sealed_log.restore()
    return {name: (row, [problem for problem in found if row in problem]) for name, row in rows.items()}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_column_is_named(changed: dict[str, tuple[int, list[tuple[t.Any, ...]]]], name: str) -> None:
    row, found = changed[name]
    if name == "id":
        assert found == [("deleted_row", f"seal 3: row {row} was sealed and is gone", 3, row)]
    else:
        assert found == [("modified_row", f"seal 3: row {row} is not what was sealed", 3, row)]


def test_there_is_a_change_of_every_column(log: SealedLog) -> None:
    query = "SELECT attname FROM pg_attribute WHERE attrelid = 'audit.audit_log_data'::regclass AND attnum > 0"
    assert {name for (name,) in log.db.execute(query)} == {
        name.split(",")[0] for name in CHANGES if "a text" not in name
    }


@pytest.mark.parametrize("column", ["client_ip", "hidden_changes", "context"])
def test_a_value_that_is_taken_away_is_named(log: SealedLog, column: str) -> None:
    """The same columns as above, of a row that has values there: the mask of an address alone, and no value at all."""
    values = "client_ip = '192.0.2.7/24', hidden_changes = '{secret}', context = '{\"a\": 1.0}'"
    log.change(301, 303)
    row = log.id_of(302)
    tamper(log.db, f"UPDATE audit.audit_log_data SET {values} WHERE id = {row}")
    log.sealer.seal()
    assert log.problems() == []
    other = {"client_ip": "'192.0.2.7/25'", "hidden_changes": "NULL", "context": "'{\"a\": 1.00}'"}[column]
    tamper(log.db, f"UPDATE audit.audit_log_data SET {column} = {other} WHERE id = {row}")
    assert log.problems() == [("modified_row", 5, row)]


def test_rows_whose_values_were_swapped_are_named(log: SealedLog) -> None:
    first, second = log.id_of(3), log.id_of(104)
    swap = f"UPDATE audit.audit_log_data SET id = CASE id WHEN {first} THEN {second} ELSE {first} END "
    tamper(log.db, swap + f"WHERE id IN ({first}, {second})")
    assert log.problems() == [("modified_row", 1, first), ("modified_row", 3, second)]


def test_a_deleted_row_is_named(log: SealedLog) -> None:
    row = log.id_of(203)
    tamper(log.db, f"DELETE FROM audit.audit_log_data WHERE id = {row}")
    result = log.sealer.verify()
    assert [problem["detail"] for problem in result["problems"]] == [f"seal 4: row {row} was sealed and is gone"]
    assert result["first_tampered_id"] == row


def test_the_deleted_rows_of_a_whole_block_are_named(log: SealedLog) -> None:
    first, last = log.headers()[2]["ids"][0][0], log.headers()[2]["ids"][-1][1]
    tamper(log.db, f"DELETE FROM audit.audit_log_data WHERE id BETWEEN {first} AND {last}")
    found, texts = log.found()
    assert found[:2] == [("deleted_row", 3, first), ("deleted_row", 3, first + 1)]
    assert {kind for kind, _block, _id in found} == {"deleted_row"}
    assert {block for _type, block, _id in found} == {3}
    assert texts[-1].startswith("seal 3: 11 more rows: ")
    assert texts[-1].endswith(f", {last}")


INSERT = """
INSERT INTO audit.audit_log_data SELECT (jsonb_populate_record(d, jsonb_build_object({}))).*
FROM audit.audit_log_data AS d WHERE d.id = {}
"""


def test_a_row_put_into_a_gap_is_named(log: SealedLog) -> None:
    gap, row = log.gap(), log.id_of(203)
    tamper(log.db, INSERT.format(f"'id', {gap}", row))
    found, texts = log.found()
    assert found == [("inserted_row", 4, gap)]
    assert texts == [
        f"seal 4: row {gap} is in no seal, although it should have been there when the rows around it were sealed"
    ]
    log.sealer.seal()
    assert log.problems() == [("inserted_row", 4, gap)]


def test_a_row_put_into_a_gap_is_named_when_seal_state_says_that_it_is_new(log: SealedLog) -> None:
    gap, row = log.gap(), log.id_of(203)
    state = "UPDATE audit.seal_state SET watermark = 0, marked_at = NULL"
    tamper(log.db, state, INSERT.format(f"'id', {gap}", row))
    (detail,) = log.details()
    assert detail.startswith(
        "seal_state in the database says that all rows up to 0 are sealed, and seals of the ledger"
    )
    log.change(401, 402)
    log.sealer.seal()
    found = log.problems()
    assert found == [("altered_between_seals", 5, None)]


def test_a_row_sealed_later_than_all_rows_around_it_is_named(log: SealedLog) -> None:
    gap = log.id_of(20) + 1
    tamper(log.db, "UPDATE audit.seal_state SET watermark = 0", INSERT.format(f"'id', {gap}", log.id_of(203)))
    log.sealer.seal()
    assert log.problems() == [("inserted_row", 5, gap), ("altered_between_seals", 5, None)]


def test_a_backdated_row_is_named(log: SealedLog) -> None:
    with_time = "'id', nextval('audit.audit_log_id_seq'), 'changed_at', d.changed_at - interval '2 days'"
    log.change(401, 402)
    tamper(log.db, INSERT.format(with_time, log.id_of(402)))
    row = log.db.value("SELECT max(id) FROM audit.audit_log_data")
    log.sealer.seal()
    backdated = log.block_of(row)
    assert log.problems() == [("backdated_row", backdated, row)]
    (detail,) = log.details()
    assert detail.startswith(f"seal {backdated}: row {row} came into the log after 20")
    assert " and says 20" in detail


def test_an_id_that_the_sequence_has_not_given_out_is_named(log: SealedLog) -> None:
    tamper(log.db, INSERT.format("'id', 999999", log.id_of(203)))
    found, texts = log.found()
    assert found == [("inserted_row", None, 999999)]
    assert texts == ["row 999999 has an id that the log has not given out yet"]


@pytest.mark.parametrize("day", ["0 days", "1 day"])
def test_a_doubled_id_is_named(log: SealedLog, day: str) -> None:
    row = log.id_of(104)
    tamper(log.db, INSERT.format(f"'changed_at', d.changed_at - interval '{day}'", row))
    found, texts = log.found()
    assert found == [("duplicate_id", 3, row)]
    assert texts == [f"seal 3: there are several rows with the id {row}"]
    log.sealer.seal()
    assert log.problems() == [("duplicate_id", 3, row)]


def test_many_findings_are_named_as_ranges_and_all_of_them_counted(log: SealedLog) -> None:
    first = log.db.value("SELECT last_value FROM audit.audit_log_id_seq") + 1
    log.change(1001, 3600)
    log.sealer.seal()
    tamper(log.db, f"DELETE FROM audit.audit_log_data WHERE id BETWEEN {first} AND {first + 2499}")
    found = log.sealer.verify()["problems"]
    assert len(found) == 21
    assert found[-1]["detail"] == f"seal 5: 2480 more rows: {first + 20}-{first + 2499}"
