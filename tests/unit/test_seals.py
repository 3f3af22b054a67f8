# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role audit_seal reasons on the controller: where ledgers are, what is refused, what is said in a line."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import GENESIS, Entry, Seal
from ansible_collections.dbfleet.audit.plugins.plugin_utils import _rollout as rollout
from ansible_collections.dbfleet.audit.plugins.plugin_utils import _seals as seals
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ledger import Ledger

NOTHING = {
    **dict.fromkeys(["signing_key_content", "previous_signing_key", "previous_signing_key_content", "resync"], ""),
    "signing_key": "/etc/seal.pem",
    "ledger": "/srv/ledger",
    "resync_databases": [],
}


def test_every_name_makes_a_file_of_its_own_inside_of_the_directory():
    assert seals.ledger_path("/srv", "pg3", "shop") == "/srv/pg3/shop.jsonl"
    assert seals.ledger_path("/srv", "maria1") == "/srv/maria1.jsonl"
    names = ["a/b", "a%2Fb", "..", ".", "../../etc/passwd", "a b", "a+b", "é", "%C3%A9", "a\nb", "x" * 63, "é" * 31]
    paths = [seals.ledger_path("/srv", "pg3", name) for name in names]
    assert len(set(paths)) == len(names)
    for path in paths:
        assert os.path.dirname(os.path.normpath(path)) == "/srv/pg3"
        assert not os.path.basename(path).startswith(".")
        assert len(os.path.basename(path)) < 255
    assert seals.ledger_path("/srv", "..", "shop") == "/srv/%2E./shop.jsonl"


def problems(hosts: list[str] | None = None, **given: Any) -> str:
    return "\n".join(seals.seal_problems({**NOTHING, **given}, hosts or ["pg1"]))


def test_what_cannot_be_meant_is_named():
    assert problems() == ""
    assert problems(signing_key="~/seal.pem", ledger="~/ledger") == ""
    assert "audit_seal_signing_key is missing" in problems(signing_key="")
    assert "audit_seal_signing_key_content are both set" in problems(signing_key_content="x")
    assert "audit_seal_ledger is 'ledger'" in problems(ledger="ledger")
    assert problems(resync="restored") == ""
    assert "--limit the run" in problems(["pg1", "pg2"], resync="restored")
    assert "without audit_seal_resync" in problems(resync_databases=["shop"])


def test_what_was_sealed_is_said_in_a_line():
    sealed = {"rows": 4211, "seals": [{}, {}, {}], "number": 12, "unsealed": 0, "seconds": 0.44}
    predicted = {"rows": 0, "seals": [], "unsealed": 1, "seconds": 0.1}
    failed = {"failed": True, "msg": "no audit trail", "seconds": 0.1}
    assert seals.seal_lines([sealed, predicted, failed], ["shop", "", "crm"], "pg3") == [
        "pg3 shop: 4,211 rows in 3 seals, last seal 12, unsealed 0, 0.4 s",
        "pg3: 1 id to look through for rows to seal, 0.1 s",
        "FAILED pg3 crm: no audit trail",
    ]


def test_a_verification_counts_seals_and_says_what_was_left_half_done():
    proof = {"valid": True, "problems": [], "recorded": True, "tampering_refused": True, "probes": 3}
    sealed = {**proof, "blocks_checked": 12, "rows_checked": 182044, "seal_state": "seal 13 is in the ledger"}
    assert rollout.proof_lines([proof, sealed], ["crm", "shop"], "pg3", "") == [
        "OK pg3 crm: 3 policies probed, tampering refused, 0 problems",
        "OK pg3 shop: 3 policies probed, tampering refused, 12 seals and 182,044 rows verified, 0 problems",
        "  seal 13 is in the ledger",
    ]


def test_a_line_of_a_ledger_may_hold_what_other_readers_take_for_its_end(tmp_path: pathlib.Path):
    path = tmp_path / "ledger.jsonl"
    fields = {"chain": "c", "kind": "resync", "attested": {"reason": "one\u2028two\x85three"}, "sealed_at": "now"}
    first = Seal.of({**fields, "number": 1, "previous": GENESIS})
    second = Seal.of({**fields, "number": 2, "previous": first.digest()})
    ledger = Ledger(str(path))
    with ledger.locked():
        ledger.append([Entry(first, "00"), Entry(second, "00")])
    assert ledger.last() == Entry(second, "00")
    assert [entry.seal.number for entry in ledger.tail(2)] == [1, 2]
