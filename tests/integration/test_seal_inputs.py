# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a sealing run and a verification are given wrong: one clear error, before anything has changed."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
import running
from auditing import trail_database
from databases import Database
from first_seal import assert_completed, digest_of_all, first_sealed
from sealing import Sealer, make_key


@pytest.fixture
def sealer(trail: Database, tmp_path: pathlib.Path) -> Sealer:
    return first_sealed(trail, tmp_path)


def wrong_inputs(sealer: Sealer, directory: pathlib.Path) -> dict[str, tuple[dict[str, t.Any], str]]:
    """Return by what is wrong the options and what the message says."""
    other, hidden = make_key(directory, "other"), make_key(directory, "hidden", "open sesame")
    rsa, garbage, empty = (directory / name for name in ("rsa.pem", "garbage.pem", "empty.jsonl"))
    running.subprocess.run(
        ["openssl", "genpkey", "-algorithm", "rsa", "-out", rsa, "-pkeyopt", "rsa_keygen_bits:2048"],
        check=True,
        capture_output=True,
    )
    garbage.write_text("nothing")
    empty.touch()
    pem = pathlib.Path(other.private).read_text()
    return {
        "another key": (
            {"signing_key": other.private},
            "give the old one as previous_signing_key, once, to change keys",
        ),
        "a public key": ({"signing_key": sealer.key.public}, "signing_key is not a private key that can be read"),
        "an RSA key": ({"signing_key": str(rsa)}, "signing_key is no Ed25519 key; make one with: openssl genpkey"),
        "no key in the file": ({"signing_key": str(garbage)}, "signing_key is not a private key that can be read"),
        "a key without its passphrase": (
            {"signing_key": hidden.private},
            "is signing_key_passphrase missing or wrong?",
        ),
        "a key with another passphrase": (
            {"signing_key": hidden.private, "signing_key_passphrase": "x"},
            "is signing_key_passphrase missing or wrong?",
        ),
        "a passphrase that no key needs": (
            {"signing_key_passphrase": "x"},
            "signing_key_passphrase is given, and the key is not encrypted",
        ),
        "no key": ({"signing_key": None}, "signing_key or signing_key_content is missing"),
        "two keys": ({"signing_key_content": pem}, "signing_key and signing_key_content"),
        "no such file": (
            {"signing_key": "/nonexistent/a.pem"},
            "/nonexistent/a.pem on the controller cannot be read: No such file",
        ),
        "a directory as key": ({"signing_key": str(directory)}, "cannot be read: Is a directory"),
        "a wrong previous key": (
            {"signing_key": other.private, "previous_signing_key": other.private},
            "give the old one as previous_signing_key",
        ),
        "no ledger": ({"ledger": None}, "ledger is missing"),
        "an empty ledger": ({"ledger": str(empty)}, "is it the right ledger?"),
        "no ledger there": ({"ledger": str(directory / "new" / "a.jsonl")}, "is it the right ledger?"),
        "a ledger below a file": (
            {"ledger": f"{garbage}/a.jsonl"},
            "garbage.pem/a.jsonl on the controller cannot be written: File exists",
        ),
        "a directory as ledger": ({"ledger": str(directory)}, "Is a directory"),
        "a ledger where nobody can write": ({"ledger": "/proc/a/ledger.jsonl"}, "cannot be written: No such file"),
        "something else as ledger": (
            {"ledger": _text(directory / "text.jsonl", "hello\n")},
            "is not a line of a ledger",
        ),
        "blocks of no rows": ({"block_rows": 0}, "block_rows"),
        "no number": ({"block_rows": "many"}, "block_rows"),
    }


def _text(path: pathlib.Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_wrong_input_is_one_clear_error_before_anything_has_changed(
    trail: Database, sealer: Sealer, tmp_path: pathlib.Path
) -> None:
    before = digest_of_all(trail, sealer)
    (tmp_path / "wrong").mkdir()
    found = {}
    for what, (options, expected) in wrong_inputs(sealer, tmp_path / "wrong").items():
        message = sealer.refusal(**options)
        if expected not in message or digest_of_all(trail, sealer) != before:
            found[what] = (message, digest_of_all(trail, sealer) == before)
    assert found == {}, found
    assert_completed(trail, sealer)


def test_the_ledger_of_another_database_is_refused(
    trail: Database, sealer: Sealer, pg: t.Any, tmp_path: pathlib.Path
) -> None:
    with trail_database(pg) as other:
        (tmp_path / "other").mkdir()
        # These two are copies of one database, chain included.
        other.execute("UPDATE audit.seal_state SET chain = gen_random_uuid()")
        others = first_sealed(other, tmp_path / "other")
        others.seal()
        before = digest_of_all(trail, sealer), digest_of_all(other, others)
        message = sealer.refusal(ledger=str(others.ledger), signing_key=others.key.private)
        assert "belongs to another log" in message
        assert (digest_of_all(trail, sealer), digest_of_all(other, others)) == before
        assert_completed(other, others)
    assert_completed(trail, sealer)


def test_an_encrypted_key_signs_with_its_passphrase(trail: Database, tmp_path: pathlib.Path) -> None:
    sealer = Sealer(trail.login, tmp_path)
    sealer.key = make_key(tmp_path, "hidden", "open sesame")
    sealer.seal(signing_key_passphrase="open sesame")
    assert sealer.problems() == []
