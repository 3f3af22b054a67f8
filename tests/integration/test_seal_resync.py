# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the holder of the key says: rows that were erased or archived are no alarm, others are; keys change."""

from __future__ import annotations

import pathlib
import typing as t
import unittest.mock

import pytest
from databases import Database
from local_postgresql import LocalPostgresql
from sealing import make_key
from tampering import SealedLog, sealed, stays_clean, tamper

from ansible_collections.dbfleet.audit.plugins.plugin_utils import _sealing

ServerFactory = t.Callable[..., LocalPostgresql]


@pytest.fixture
def log(trail: Database, tmp_path: pathlib.Path) -> SealedLog:
    """Return a sealed log."""
    return sealed(trail, tmp_path)


# -- what the key's holder says ----------------------------------------------------------------------------------------


def test_rows_that_were_erased_on_purpose(log: SealedLog) -> None:
    first = log.db.value("SELECT last_value FROM audit.audit_log_id_seq") + 1
    log.change(101, 1700)
    log.sealer.seal()
    tamper(log.db, f"DELETE FROM audit.audit_log_data WHERE id BETWEEN {first} AND {first + 1199}",
           f"UPDATE audit.audit_log_data SET changed_by = 'erased' WHERE id = {first + 1200}")  # fmt: skip
    assert len(log.problems()) == 22
    log.sealer.seal(resync="erasure 2026-17")
    stays_clean(log, 2001)
    tamper(log.db, f"DELETE FROM audit.audit_log_data WHERE id = {first + 1201}")
    assert log.problems() == [("deleted_row", 3, first + 1201)]
    tamper(log.db, f"UPDATE audit.audit_log_data SET changed_by = 'eve' WHERE id = {first + 1200}")
    assert log.problems() == [("modified_row", 3, first + 1200), ("deleted_row", 3, first + 1201)]


def test_a_resync_does_not_accept_what_comes_later(log: SealedLog) -> None:
    """An object that was altered when the key's holder accepted it may not be altered again unseen."""
    off = "ALTER TABLE item DISABLE TRIGGER dbfleet_audit_insert"
    on = "ALTER TABLE item ENABLE ALWAYS TRIGGER dbfleet_audit_insert"
    tamper(log.db, off, on)
    assert log.problems() == [("altered_between_seals", None, None)]
    log.sealer.seal(resync="we had to")
    stays_clean(log, 101)
    tamper(log.db, off, on)
    assert log.problems() == [("altered_between_seals", None, None)]
    log.sealer.seal()
    assert [kind for kind, _block, _id in log.problems()] == ["altered_between_seals"]


def test_rows_that_were_archived(log: SealedLog) -> None:
    log.change(101, 120)
    log.sealer.seal()
    log.sealer.archive([[1, 1]])
    assert log.headers()[-1]["kind"] == "archive"
    stays_clean(log)
    archived = "DELETE FROM audit.audit_log_data AS d USING audit.seal AS c WHERE c.number = {} AND c.ids @> d.id"
    row = log.id_of(3)
    tamper(log.db, f"UPDATE audit.audit_log_data SET changed_by = 'eve' WHERE id = {row}")
    assert log.problems() == [("modified_row", 1, row)]
    tamper(log.db, archived.format(1))
    stays_clean(log, 201)
    row = log.id_of(103)
    tamper(log.db, f"DELETE FROM audit.audit_log_data WHERE id = {row}")
    assert log.problems() == [("deleted_row", 3, row)]


def test_a_new_key(log: SealedLog) -> None:
    old, new = log.sealer.key, make_key(log.sealer.directory, "new")
    log.change(101, 105)
    calls = 0
    # The controller goes away after each of the run's calls in turn; then nothing is in its way.
    log.sealer.key = new
    finished = False
    while not finished:
        log.sealer.cut = calls
        try:
            log.sealer.seal(previous_signing_key=old.private)
            finished = True
        except ConnectionAbortedError:
            calls += 1
        log.sealer.cut = None
        known = [old, new] if "key" in {header["kind"] for header in log.headers()} else [old]
        for key in known:
            assert log.sealer.problems(public_key=[key.public]) == []
    assert calls >= 3
    kinds = [header["kind"] for header in log.headers()]
    assert kinds.count("key") == 1
    stays_clean(log, 201)
    assert log.sealer.problems(public_key=[old.public]) == []
    stranger = make_key(log.sealer.directory, "stranger")
    assert {kind for kind, _block, _id in log.sealer.problems(public_key=[stranger.public])} == {"unknown_key"}


def test_a_key_that_was_replaced_counts_no_more(log: SealedLog) -> None:
    old, new = log.sealer.key, make_key(log.sealer.directory, "new")
    log.sealer.key = new
    log.sealer.seal(previous_signing_key=old.private)
    log.sealer.key = old
    assert "which the ledger says has been replaced" in log.sealer.refusal(resync="nothing has happened")
    # Whoever has the old key, and the ledger and the database, goes round that.
    row = log.id_of(3)
    tamper(log.db, f"UPDATE audit.audit_log_data SET changed_by = 'eve' WHERE id = {row}")
    with unittest.mock.patch.object(_sealing, "retired_keys", return_value=frozenset()):
        log.sealer.seal(resync="nothing has happened")
    log.sealer.key = new
    headers = log.headers()
    replaced = next(header["number"] for header in headers if header["kind"] == "key")
    forged = sorted({header["number"] for header in headers if header["number"] > replaced})
    assert "resync" in {header["kind"] for header in headers if header["number"] in forged}
    for key in (old, new):
        assert log.sealer.problems(public_key=[key.public]) == [
            *(("bad_signature", number, None) for number in forged),
            ("modified_row", 1, row),
        ]


def test_a_lost_key(log: SealedLog) -> None:
    old, new = log.sealer.key, make_key(log.sealer.directory, "new")
    log.sealer.key = new
    assert "give the old one as previous_signing_key" in log.sealer.refusal()
    log.sealer.seal(resync="the old key is lost")
    both = [old.public, new.public]
    assert log.sealer.problems(public_key=both) == []
    log.change(101, 105)
    log.sealer.seal()
    assert log.sealer.problems(public_key=both) == []
    row = log.id_of(3)
    tamper(log.db, f"DELETE FROM audit.audit_log_data WHERE id = {row}")
    assert log.sealer.problems(public_key=both) == [("deleted_row", 1, row)]
    assert {kind for kind, _block, _id in log.problems()} == {"unknown_key", "deleted_row"}
