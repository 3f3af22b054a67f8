# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a superuser does to the seals and to the ledger; verification names each of it, with the seal."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t

import pytest
from auditing import wanted
from local_postgresql import LocalPostgresql
from sealing import Sealer, make_key
from tampering import SealedLog, four_seals, tamper

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import Entry
from ansible_collections.dbfleet.audit.plugins.module_utils._core.signature import read_signing_key


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


# -- seals in the database ---------------------------------------------------------------------------------------------

SEAL_CHANGES = {
    "number": "number = 77",
    "kind": "kind = 'catalog'",
    "period": "period = period - 1",
    "ids": "ids = ids + '{[900,901)}'",
    "row_count": "row_count = row_count - 1",
    "leaves": "leaves = substr(leaves, 33) || substr(leaves, 1, 32)",
    "leaves and root": "leaves = substr(leaves, 33), root = sha256(substr(leaves, 33)), row_count = row_count - 1",
    "root": "root = sha256('')",
    "attested": "attested = '{}'",
    "sealed_at": "sealed_at = sealed_at - interval '1 microsecond'",
    "previous": "previous = repeat('0', 64)",
    "digest": "digest = repeat('0', 64)",
    "key": "key = 'aaaaaaaaaaaaaaaa'",
    "signature": "signature = repeat('0', 128)",
    "signature, taken away": "signature = NULL",
}


# Without its signature the last one is what a run leaves that was cut off; the test after the next.
@pytest.mark.parametrize(
    ("change", "number"),
    [*((change, 3) for change in SEAL_CHANGES), *((change, 4) for change in ("ids", "leaves and root", "signature"))],
)
def test_a_changed_seal_is_named(log: SealedLog, change: str, number: int) -> None:
    tamper(log.db, f"UPDATE audit.seal SET {SEAL_CHANGES[change]} WHERE number = {number}")
    found, texts = log.found()
    if change == "number":
        assert found == [("missing_block", number, None), ("not_in_ledger", 77, None)]
    else:
        assert found[0] == ("altered_block", number, None)
        assert texts[0] == f"seal {number} in the database is not the one of the ledger"


def test_there_is_a_change_of_every_column_of_a_seal(log: SealedLog) -> None:
    query = "SELECT attname FROM pg_attribute WHERE attrelid = 'audit.seal'::regclass AND attnum > 0"
    assert {name for (name,) in log.db.execute(query)} == {name for name in SEAL_CHANGES if "," not in name} - {
        "leaves and root"
    }


def test_a_seal_without_its_signature_is_still_compared(log: SealedLog) -> None:
    tamper(
        log.db, "UPDATE audit.seal SET signature = NULL, previous = NULL, digest = NULL, key = NULL WHERE number = 4"
    )
    result = log.sealer.verify()
    assert result["problems"] == []
    assert result["seal_state"].startswith("seal 4 is in the ledger, but not yet signed in the database; ")
    row = log.id_of(203)
    tamper(
        log.db,
        f"DELETE FROM audit.audit_log_data WHERE id = {row}",
        "UPDATE audit.seal AS c SET ids = b.ids, row_count = b.row_count, leaves = b.leaves, root = sha256(b.leaves) "
        "FROM (SELECT range_agg(int8range(d.id, d.id, '[]')) AS ids, count(*) AS row_count, "
        "string_agg(sha256(convert_to(audit.canonical(d), 'UTF8')), '' ORDER BY d.id) AS leaves "
        "FROM audit.audit_log_data AS d WHERE d.id > (SELECT upper(ids) FROM audit.seal WHERE number = 3)) AS b "
        "WHERE c.number = 4",
    )
    assert log.problems() == [("altered_block", 4, None)]
    assert "seal 4 of the database is not the one of the ledger" in log.sealer.refusal()


@pytest.mark.parametrize("number", [3, 4], ids=["in the middle", "last"])
def test_a_seal_that_was_removed_is_named(log: SealedLog, number: int) -> None:
    ids, rows = log.headers()[number - 1]["ids"], log.headers()[number - 1]["rows"]
    tamper(log.db, f"DELETE FROM audit.seal WHERE number = {number}")
    found, texts = log.found()
    assert found == [("missing_block", number, None)]
    assert texts == [
        f"seal {number} of the ledger is not in the database; the {rows} rows that it had, of ids from {ids[0][0]} to "
        f"{ids[-1][1]}, cannot be checked"
    ]


def test_seals_that_changed_places_are_named(log: SealedLog) -> None:
    tamper(log.db, "UPDATE audit.seal SET number = CASE number WHEN 3 THEN -4 ELSE -3 END WHERE number IN (3, 4)",
           "UPDATE audit.seal SET number = -number WHERE number < 0")  # fmt: skip
    assert log.problems() == [("altered_block", 3, None), ("altered_block", 4, None)]
    assert "seal 4 of the database is not the one of the ledger" in log.sealer.refusal()


@pytest.mark.parametrize("ledger_too", [False, True])
def test_a_chain_rewritten_with_another_key_is_named(log: SealedLog, tmp_path: pathlib.Path, ledger_too: bool) -> None:
    genuine = log.sealer.ledger.read_bytes()
    row = log.id_of(104)
    forger = Sealer(log.db.login, tmp_path, policies=[wanted("public.item")])
    tamper(
        log.db,
        f"DELETE FROM audit.audit_log_data WHERE id = {row}",
        "DELETE FROM audit.seal",
        "DELETE FROM audit.seal_inventory",
        "UPDATE audit.seal_state SET watermark = 0, marked_at = NULL, marks = '[]'",
    )
    forger.seal()
    assert forger.problems() == []
    if ledger_too:
        shutil.copy(forger.ledger, log.sealer.ledger)
        found = log.problems()
        assert found[:2] == [("unknown_key", 1, None), ("unknown_key", 2, None)]
        assert log.details()[0].endswith(", for which nothing vouches")
    else:
        assert log.sealer.ledger.read_bytes() == genuine
        found = log.problems()
        assert found[:2] == [("altered_block", 1, None), ("altered_block", 2, None)]
        assert ("missing_block", 3, None) in found
        assert ("missing_block", 4, None) in found


def test_a_seal_that_nobody_asked_for_is_not_signed(log: SealedLog) -> None:
    """A resync accepts what is; whoever rules the database must not have their deeds accepted by the next run."""
    row = log.id_of(104)
    accepted = json.dumps({"reason": "", "seals": [], "accepted": [{"type": "deleted_row", "block": 3, "id": row}]})
    for kind, attested in (("resync", accepted), ("archive", '{"seals": [[1, 4]]}'), ("key", "{}")):
        tamper(
            log.db,
            f"DELETE FROM audit.audit_log_data WHERE id = {row}",
            f"INSERT INTO audit.seal (number, kind, attested) VALUES (5, '{kind}', '{attested}')",
        )
        assert f"seal 5 of the database, of kind {kind}, waits for a signature" in log.sealer.refusal()
        assert log.problems() == [("deleted_row", 3, row)]
        assert len(log.lines()) == 4
        tamper(log.db, "DELETE FROM audit.seal WHERE number = 5")


# -- the ledger --------------------------------------------------------------------------------------------------------


def test_a_changed_byte_of_the_ledger_is_named(log: SealedLog) -> None:
    line = log.lines()[2]
    at = line.index('"rows":') + len('"rows":')
    log.rewrite([*log.lines()[:2], f"{line[:at]}{9 - int(line[at])}{line[at + 1 :]}", log.lines()[3]])
    found, texts = log.found()
    assert found[:3] == [("broken_chain", 3, None), ("bad_signature", 3, None), ("broken_chain", 4, None)]
    assert texts[:2] == [
        "the ledger's seal 3 is not what its digest says",
        f"the signature of seal 3 is not one of key {log.headers()[2]['key']}",
    ]


def test_a_byte_that_is_no_text_is_named(log: SealedLog) -> None:
    text = log.sealer.ledger.read_bytes()
    at = text.index(b'"sealed_at":"', text.index(b"\n") + 1) + len(b'"sealed_at":"')
    log.sealer.ledger.write_bytes(text[:at] + b"\xff" + text[at + 1 :])
    assert log.problems()[:2] == [("broken_chain", 2, None), ("bad_signature", 2, None)]


def test_a_line_that_is_none_is_named(log: SealedLog) -> None:
    log.rewrite([log.lines()[0], log.lines()[1][1:], *log.lines()[2:]])
    with pytest.raises(AuditError, match=f"line 2 of {log.sealer.ledger} is not a line of a ledger"):
        log.problems()


def test_swapped_lines_of_the_ledger_are_named(log: SealedLog) -> None:
    first, second, third, fourth = log.lines()
    log.rewrite([first, third, second, fourth])
    found, texts = log.found()
    assert found == [("broken_chain", 3, None), ("broken_chain", 2, None), ("broken_chain", 4, None)]
    assert texts[0] == "the ledger's seal 3 does not follow seal 1"


def test_lines_cut_off_the_end_of_the_ledger_are_named(log: SealedLog) -> None:
    log.rewrite(log.lines()[:2])
    found, texts = log.found()
    assert found == [("not_in_ledger", 3, None), ("not_in_ledger", 4, None)]
    assert texts[0] == "seal 3 of the database is not in the ledger"
    assert "the database has 4 seals and the ledger" in log.sealer.refusal()


def test_a_removed_line_of_the_ledger_is_named(log: SealedLog) -> None:
    log.rewrite([*log.lines()[:2], log.lines()[3]])
    found, texts = log.found()
    assert found == [("broken_chain", 4, None), ("not_in_ledger", 3, None)]
    assert texts[0] == "the ledger's seal 4 does not follow seal 2"


def test_an_emptied_ledger_is_named(log: SealedLog) -> None:
    log.rewrite([])
    assert [kind for kind, _block, _id in log.problems()] == ["not_in_ledger"] * 4


def test_a_replaced_signature_is_named(log: SealedLog) -> None:
    entry = json.loads(log.lines()[3])
    entry["signature"] = json.loads(log.lines()[2])["signature"]
    log.rewrite([*log.lines()[:3], json.dumps(entry, sort_keys=True, separators=(",", ":"))])
    found = log.problems()
    assert found[0] == ("bad_signature", 4, None)


def test_what_an_unsigned_line_accepts_is_not_accepted(log: SealedLog) -> None:
    """Whoever can write both the log and the ledger still cannot sign."""
    row = log.id_of(104)
    tamper(log.db, f"DELETE FROM audit.audit_log_data WHERE id = {row}")
    genuine, _digest = Entry.parse(log.lines()[3], "")
    forged = make_key(log.sealer.directory, "forger")
    with open(forged.private, "rb") as file:
        key = read_signing_key(file.read(), None, "")
    for kind, attested in (
        ("resync", {"reason": "", "seals": [], "accepted": [{"type": "deleted_row", "block": 3, "id": row}]}),
        ("archive", {"seals": [[1, 4]]}),
    ):
        fields = {"chain": genuine.seal.chain, "number": 5, "kind": kind, "rows": 0, "attested": attested}
        fields["sealed_at"] = genuine.seal.sealed_at
        seal = type(genuine.seal).of(fields)
        log.rewrite([*log.lines()[:4], key.sign(seal, genuine.seal.digest()).line()])
        found = log.problems()
        assert ("unknown_key", 5, None) in found
        assert ("deleted_row", 3, row) in found
