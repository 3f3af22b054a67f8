# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whoever may do everything on the server changes what was sealed: each change is named, by block and row."""

from __future__ import annotations

import json
import pathlib

import pytest
from mysql_auditing import audit, install_trail
from mysql_databases import Schema
from mysql_sealing import add, drop_guards, dump, logged, restore, sealed
from sealing import Sealer

_LOG = "audit.audit_log_data"


@pytest.fixture
def history(log: Schema, sealer: Sealer) -> Schema:
    """Return a database whose log is in two blocks of rows: seal 1 has 1 to 20, seal 3 has 21 to 30, by record_id."""
    add(log, 1, 20)
    sealer.seal()
    add(log, 21, 30)
    assert [seal["number"] for seal in sealer.seal()["seals"]] == [3]
    assert sealer.problems() == []
    drop_guards(log)
    return log


def row(schema: Schema, record: int) -> int:
    """Return the id in the log of a row of `item`."""
    return int(schema.value(f"SELECT id FROM {_LOG} WHERE record_id = %s", str(record)))


def found(sealer: Sealer) -> list[tuple[str, int | None, int | None]]:
    """Return what verification finds, but for the guards, which had to go first."""
    problems = [problem for problem in sealer.verify()["problems"] if "audit_log_data" not in problem["detail"]]
    return [(problem["type"], problem.get("block"), problem.get("id")) for problem in problems]


@pytest.mark.usefixtures("history")
def test_guards_that_were_dropped_are_named(sealer: Sealer) -> None:
    problems = sealer.verify()["problems"]
    assert [problem["type"] for problem in problems] == ["missing", "missing", *["altered_between_seals"] * 2]


#: One change for every column of the log but the id.
CHANGES = (
    "changed_at = changed_at + INTERVAL 1 MICROSECOND",
    "transaction_id = '1'",
    "action = 'DELETE'",
    "schema_name = NULL",
    "table_name = 'items'",
    "record_id = CONCAT(record_id, ' ')",
    "old_values = '{}'",
    "old_values = 'null'",
    "new_values = JSON_REPLACE(new_values, '$.name', 'Item')",
    "new_values = NULL",
    "changed_columns = '[]'",
    "changed_by = UPPER(changed_by)",
    "db_user = 'eve'",
    "client_ip = '10.0.0.1'",
    "application_name = ''",
    "context = '{}'",
    "policy_id = policy_id + 1",
)


def test_a_change_of_any_column_is_named(history: Schema, sealer: Sealer) -> None:
    numbers = logged(history)
    for number, change in zip(numbers, CHANGES):
        history.execute(f"UPDATE {_LOG} SET {change} WHERE id = {number}")
    assert found(sealer) == [("modified_row", 1, number) for number in numbers[: len(CHANGES)]]


def test_a_row_that_got_another_id_is_named(history: Schema, sealer: Sealer) -> None:
    number = row(history, 5)
    history.execute(f"UPDATE {_LOG} SET id = -7 WHERE id = {number}")
    assert found(sealer) == [("inserted_row", 1, -7), ("deleted_row", 1, number)]


def test_rows_whose_values_were_swapped_are_named(history: Schema, sealer: Sealer) -> None:
    one, other = row(history, 5), row(history, 25)
    history.execute(f"UPDATE {_LOG} SET id = -1 WHERE id = {one}")
    history.execute(f"UPDATE {_LOG} SET id = {one} WHERE id = {other}")
    history.execute(f"UPDATE {_LOG} SET id = {other} WHERE id = -1")
    assert found(sealer) == [("modified_row", 1, one), ("modified_row", 3, other)]


def test_what_moves_from_one_column_into_another_is_named(history: Schema, sealer: Sealer) -> None:
    if not history.server.is_mariadb:
        pytest.skip("MySQL keeps no text in its documents")
    number = row(history, 5)
    values = history.value(f"SELECT new_values FROM {_LOG} WHERE id = {number}")
    history.execute("SET SESSION check_constraint_checks = 0")
    moved = f'{{}},"new_values":{values}'
    history.execute(f"UPDATE {_LOG} SET old_values = '{{}}' WHERE id = {number}")
    text = history.value(f"SELECT record_hash FROM audit.audit_history WHERE id = {number}")
    history.execute(f"UPDATE {_LOG} SET old_values = %s, new_values = NULL WHERE id = {number}", moved)
    history.execute("SET SESSION check_constraint_checks = 1")
    assert history.value(f"SELECT record_hash FROM audit.audit_history WHERE id = {number}") != text
    assert found(sealer) == [("modified_row", 1, number)]


def test_a_deleted_row_is_named(history: Schema, sealer: Sealer) -> None:
    number = row(history, 5)
    history.execute(f"DELETE FROM {_LOG} WHERE id = {number}")
    assert found(sealer) == [("deleted_row", 1, number)]


def test_the_rows_of_a_whole_block_are_named(history: Schema, sealer: Sealer) -> None:
    numbers = [number for number in logged(history) if number >= row(history, 21)]
    history.execute(f"DELETE FROM {_LOG} WHERE id >= {numbers[0]}")
    assert found(sealer) == [("deleted_row", 3, number) for number in numbers]


def test_a_row_that_was_slipped_in_is_named(history: Schema, sealer: Sealer) -> None:
    columns = "changed_at, action, table_name, record_id, changed_by, db_user"
    history.execute(
        f"INSERT INTO {_LOG} (id, {columns}) SELECT 0, changed_at - INTERVAL 1 SECOND, action, table_name, "
        f"record_id, changed_by, db_user FROM {_LOG} WHERE record_id = '5'"
    )
    wanted = [("inserted_row", 1, 0)]
    if not history.server.is_mariadb:
        # MySQL takes 0 as a request for the next id.
        wanted = []
    assert found(sealer) == wanted


def test_a_row_with_an_id_that_nobody_was_given_is_named(history: Schema, sealer: Sealer) -> None:
    if not history.server.is_mariadb:
        pytest.skip("MySQL goes on from there")
    history.execute(
        f"INSERT INTO {_LOG} (id, changed_at, action, changed_by, db_user) "
        "VALUES (9000000000000000000, UTC_TIMESTAMP(6), 'EVENT', 'x', 'x')"
    )
    assert found(sealer) == [("inserted_row", None, 9000000000000000000)]
    add(history, 31, 40)
    assert sealer.seal()["rows"] == 10
    assert ("inserted_row", None, 9000000000000000000) in found(sealer)


def test_a_backdated_row_is_named(history: Schema, sealer: Sealer) -> None:
    history.execute(
        f"INSERT INTO {_LOG} (changed_at, action, changed_by, db_user) "
        "VALUES (UTC_TIMESTAMP(6) - INTERVAL 1 HOUR, 'EVENT', 'x', 'x')"
    )
    number = max(logged(history))
    sealer.seal()
    assert [problem for problem in found(sealer) if problem[0] == "backdated_row"] == [("backdated_row", 4, number)]


def test_a_second_row_with_an_id_is_named(history: Schema, sealer: Sealer) -> None:
    number = row(history, 5)
    history.execute(f"CREATE TEMPORARY TABLE copy AS SELECT * FROM {_LOG} WHERE id = {number}")
    history.execute("UPDATE copy SET changed_at = changed_at + INTERVAL 1 DAY, changed_by = 'eve'")
    history.execute(f"INSERT INTO {_LOG} SELECT * FROM copy")
    assert found(sealer) == [("duplicate_id", 1, number)]


#: One change for every column of a seal that is signed, or by which it is found.
SEAL_CHANGES = (
    "kind = 'resync'",
    "period = period - INTERVAL 1 DAY",
    "ids = '[[1, 2]]'",
    "first_id = first_id + 1",
    "last_id = last_id - 1",
    "row_count = row_count - 1",
    "leaves = INSERT(leaves, 1, 32, LEFT(UNHEX(SHA2('x', 256)), 32))",
    "root = UNHEX(SHA2('x', 256))",
    "attested = '{\"backdated\": []}'",
    "sealed_at = sealed_at + INTERVAL 1 SECOND",
    "previous = SHA2('x', 256)",
    "key_name = 'x'",
)


def test_a_change_of_any_column_of_a_seal_is_named(history: Schema, sealer: Sealer) -> None:
    history.execute("CREATE TEMPORARY TABLE kept AS SELECT * FROM audit.seal")
    unnamed = []
    for change in SEAL_CHANGES:
        history.execute(f"UPDATE audit.seal SET {change} WHERE number = 1")
        if ("altered_block", 1, None) not in found(sealer):
            unnamed.append(change)
        history.execute("REPLACE INTO audit.seal SELECT * FROM kept")
    assert unnamed == []
    assert found(sealer) == []


def test_a_row_and_its_leaf_changed_together_are_named(history: Schema, sealer: Sealer) -> None:
    number = row(history, 21)
    history.execute(f"UPDATE {_LOG} SET changed_by = 'eve' WHERE id = {number}")
    digest = history.value(f"SELECT record_hash FROM audit.audit_history WHERE id = {number}")
    history.execute(f"UPDATE audit.seal SET leaves = INSERT(leaves, 1, 32, UNHEX('{digest}')) WHERE number = 3")
    history.execute("UPDATE audit.seal SET root = UNHEX(SHA2(leaves, 256)) WHERE number = 3")
    assert found(sealer) == [("altered_block", 3, None)]


def test_a_removed_last_seal_is_named(history: Schema, sealer: Sealer) -> None:
    history.execute("DELETE FROM audit.seal WHERE number = 3")
    assert ("missing_block", 3, None) in found(sealer)
    assert "resync" in sealer.refusal()


def test_a_chain_that_was_written_anew_is_named(history: Schema, sealer: Sealer, tmp_path: pathlib.Path) -> None:
    history.execute(f"UPDATE {_LOG} SET changed_by = 'eve'")
    history.execute("DELETE FROM audit.seal")
    history.execute("UPDATE audit.seal_state SET watermark = 0, marks = '[]', marked_at = NULL")
    (tmp_path / "eve").mkdir()
    Sealer(history.login, tmp_path / "eve", "mysql").seal()
    problems = found(sealer)
    assert ("altered_block", 1, None) in problems
    assert ("missing_block", 3, None) in problems
    assert "not the one of the ledger" in sealer.refusal() or "missing" in sealer.refusal()


@pytest.mark.own_server
def test_an_older_backup_is_named_until_it_is_accepted(log: Schema, sealer: Sealer) -> None:
    add(log, 1, 5)
    sealer.seal()
    backup = dump(log.server, "audit")
    add(log, 6, 9)
    sealer.seal()
    restore(log.server, backup)
    install_trail(log)
    assert ("missing_block", 3, None) in sealer.problems()
    assert "resync" in sealer.refusal()
    sealer.seal(resync="restored to what it was at noon")
    kinds = {kind for kind, _block, _id in sealer.problems()}
    assert "missing_block" not in kinds
    assert "altered_between_seals" not in kinds
    add(log, 10, 12)
    sealer.seal()
    assert sealed(log) == logged(log)
    assert not {"missing_block", "altered_block", "deleted_row", "inserted_row"} & {
        kind for kind, _block, _id in sealer.problems()
    }


def _trigger(schema: Schema, event: str) -> tuple[str, str]:
    name, body = schema.execute(
        "SELECT trigger_name, action_statement FROM information_schema.triggers "
        "WHERE event_object_schema = %s AND event_manipulation = %s",
        schema.name,
        event,
    )[0]
    return name, body


@pytest.mark.parametrize("altered", [True, False])
def test_a_capture_trigger_that_was_gone_for_a_while_is_named(log: Schema, sealer: Sealer, altered: bool) -> None:
    add(log, 1, 5)
    sealer.seal()
    name, body = _trigger(log, "INSERT")
    log.execute("SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'")
    log.execute(f"DROP TRIGGER `{name}`")
    add(log, 6, 7)
    if altered:
        body = body.replace("IF TRUE THEN", "IF CURRENT_USER() <> 'eve@%' THEN")
    log.execute(f"CREATE DEFINER = audit_writer@localhost TRIGGER `{name}` AFTER INSERT ON item FOR EACH ROW " + body)
    wanted = f"trigger {name} on {log.name}.item"
    problems = sealer.verify()["problems"]
    assert [problem["object"] for problem in problems if problem["type"] == "altered_between_seals"] == [wanted]
    # And it stays on record when the next seal has seen it.
    sealer.seal()
    problems = [problem for problem in sealer.verify()["problems"] if problem["type"] == "altered_between_seals"]
    assert [(problem["object"], problem["block"]) for problem in problems] == [(wanted, 3)]


def test_a_trigger_that_a_rollout_has_put_right_is_named_all_the_same(log: Schema, sealer: Sealer) -> None:
    add(log, 1, 5)
    sealer.seal()
    name, _body = _trigger(log, "INSERT")
    log.execute(f"DROP TRIGGER `{name}`")
    audit(log, "item")
    problems = sealer.verify()["problems"]
    assert [problem["object"] for problem in problems] == [f"trigger {name} on {log.name}.item"]


def test_a_forged_seal_that_says_that_nothing_changed_is_not_signed(log: Schema, sealer: Sealer) -> None:
    add(log, 1, 5)
    sealer.seal()
    name, body = _trigger(log, "INSERT")
    log.execute("SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'")
    log.execute(f"DROP TRIGGER `{name}`")
    log.execute("INSERT INTO item VALUES (666, 'unseen')")
    log.execute(f"CREATE DEFINER = audit_writer@localhost TRIGGER `{name}` AFTER INSERT ON item FOR EACH ROW " + body)
    log.execute(
        "INSERT INTO audit.seal (number, kind, row_count, attested, sealed_at) "
        "SELECT 3, c.kind, 0, JSON_OBJECT('inventory', 'no matter', 'altered', JSON_ARRAY(), 'compared', "
        "JSON_VALUE(c.attested, '$.inventory')), c.sealed_at FROM audit.seal AS c WHERE c.number = 2"
    )
    log.execute(
        "INSERT INTO audit.seal_inventory SELECT 3, k.object, k.schema_name, k.table_name, k.definition, "
        "COALESCE((SELECT DATE_FORMAT(t.created, '%%Y-%%m-%%d %%H:%%i:%%s.%%f') FROM information_schema.triggers AS t "
        "WHERE t.trigger_name = %s AND t.event_object_schema = %s AND k.object LIKE CONCAT('trigger ', %s, '%%')), "
        "k.version), k.server FROM audit.seal_inventory AS k",
        *(name, log.name, name),
    )
    wanted = f"trigger {name} on {log.name}.item"
    assert [problem["object"] for problem in sealer.verify()["problems"]] == [wanted]
    assert [seal["kind"] for seal in sealer.seal()["seals"]] == ["catalog"]
    problems = sealer.verify()["problems"]
    assert [(problem["object"], problem["block"]) for problem in problems] == [(wanted, 3)]
    assert not sealer.seal()["changed"]


@pytest.mark.usefixtures("history")
def test_an_edited_ledger_is_named(sealer: Sealer) -> None:
    lines = sealer.ledger.read_text().splitlines()
    entry = json.loads(lines[0])
    entry["seal"]["rows"] -= 1
    sealer.ledger.write_text("\n".join([json.dumps(entry), *lines[1:]]) + "\n")
    problems = found(sealer)
    assert ("broken_chain", 1, None) in problems
    assert ("bad_signature", 1, None) in problems


@pytest.mark.usefixtures("history")
def test_a_cut_ledger_is_named(sealer: Sealer) -> None:
    lines = sealer.ledger.read_text().splitlines()
    sealer.ledger.write_text("\n".join(lines[:-1]) + "\n")
    assert ("not_in_ledger", 3, None) in found(sealer)


def test_what_a_resync_has_accepted_is_named_no_more_and_other_things_are(history: Schema, sealer: Sealer) -> None:
    history.execute(f"DELETE FROM {_LOG} WHERE id = {row(history, 5)}")
    sealer.seal(resync="record 5 was taken out on a court's order")
    assert found(sealer) == []
    number = row(history, 6)
    history.execute(f"DELETE FROM {_LOG} WHERE id = {number}")
    assert found(sealer) == [("deleted_row", 1, number)]
