# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ledgers and archives, verified without a database; and what docs/seals.md says of it."""

from __future__ import annotations

import gzip
import json
import pathlib
import re
import subprocess
import sys
import typing as t

import pytest
from auditing import rollout, wanted
from databases import Database
from documentation import blocks_of
from fleet import lines, play
from running import ROOT, ModuleResult, run_module
from sealing import Sealer, make_key

PAGE = (ROOT / "docs" / "seals.md").read_text(encoding="utf-8")
ROWS = 300


class Archive(t.NamedTuple):
    """A sealed log, and its rows in a file."""

    sealer: Sealer
    path: pathlib.Path

    def verify(self, **options: t.Any) -> ModuleResult:
        """Verify the file with the ledger."""
        given = {
            "ledger": str(self.sealer.ledger),
            "public_key": [self.sealer.key.public],
            "archives": [str(self.path)],
        }
        return run_module("ledger_verify", fail_on_problem=False, **{**given, **options})

    def lines(self) -> list[bytes]:
        """Return the lines."""
        return self.path.read_bytes().splitlines(keepends=True)


@pytest.fixture
def archive(trail: Database, tmp_path: pathlib.Path) -> Archive:
    """Return a log of several seals; they hold values that a careless reader of lines would trip over."""
    trail.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    rollout(trail, policies=[wanted("public.item")])
    sealer = Sealer(trail.login, tmp_path, policies=[wanted("public.item")])
    trail.execute(f"INSERT INTO item SELECT i, 'é\r\n\u2028' || i FROM generate_series(1, {ROWS}) AS i")
    sealer.seal(block_rows=100)
    path = tmp_path / "audit_log.jsonl"
    rows = trail.execute("SELECT audit.canonical(d) FROM audit.audit_log_data AS d ORDER BY d.id")
    path.write_bytes(b"".join(text.encode() + b"\n" for (text,) in rows))
    return Archive(sealer, path)


def found(result: ModuleResult) -> list[tuple[str, int | None, int | None]]:
    return [(problem["type"], problem.get("block"), problem.get("id")) for problem in result["problems"]]


def id_of(line: bytes) -> int:
    return json.loads(line)["id"]


@pytest.mark.smoke
def test_an_untouched_archive_verifies_plain_and_compressed(archive: Archive):
    result = archive.verify()
    assert result["problems"] == []
    assert result["rows_checked"] == len(archive.lines()) >= ROWS
    entries = archive.sealer.ledger.read_text().splitlines()
    assert result["seals"] == len(entries) > 3
    assert result["last_digest"] == json.loads(entries[-1])["digest"]
    packed = archive.path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(archive.path.read_bytes()))
    assert archive.verify(archives=[str(packed)])["rows_checked"] == result["rows_checked"]
    halves = [archive.path.with_suffix(f".{number}") for number in (1, 2)]
    halves[0].write_bytes(b"".join(archive.lines()[:150]))
    halves[1].write_bytes(b"".join(archive.lines()[150:]))
    assert archive.verify(archives=[str(path) for path in halves])["valid"]


def test_a_line_that_was_changed_dropped_added_or_moved_is_named(archive: Archive):
    good = archive.lines()
    row = id_of(good[150])
    entries = [json.loads(line)["seal"] for line in archive.sealer.ledger.read_text().splitlines()]
    (block,) = [
        seal["number"] for seal in entries if any(first <= row <= last for first, last in seal["ids"])
    ]  # fmt: skip

    def after(*changed: bytes) -> list[tuple[str, int | None, int | None]]:
        archive.path.write_bytes(b"".join(changed))
        return found(archive.verify())

    assert after(*good[:150], good[150].replace(b'"INSERT"', b'"DELETE"'), *good[151:]) == [
        ("modified_row", block, None)
    ]
    assert after(*good[:150], *good[151:]) == [("deleted_row", block, row)]
    beyond = good[150].replace(b'{"id":%d,' % row, b'{"id":999999,')
    assert after(*good, beyond) == [("inserted_row", None, 999999)]
    assert after(*good[:151], *good[150:]) == [("duplicate_id", block, row)]
    assert after(*good[:150], good[151], good[150], *good[152:]) == [
        ("duplicate_id", block, row),
        ("deleted_row", block, row),
    ]
    assert after(*good, b"no row at all\n") == [("unreadable_line", None, None)]
    whole = [
        line for line in good if not any(first <= id_of(line) <= last for first, last in entries[block - 1]["ids"])
    ]
    assert after(*whole) == [("deleted_row", block, entries[block - 1]["ids"][0][0])]
    archive.path.write_bytes(b"")
    day = entries[0]["period"]
    nothing = archive.verify(first_day=day, last_day=day)
    assert {problem["type"] for problem in nothing["problems"]} == {"deleted_row"}


def test_a_ledger_that_was_edited_cut_off_or_signed_by_another_is_found(archive: Archive, tmp_path: pathlib.Path):
    good = archive.sealer.ledger.read_text()
    noted = json.loads(good.splitlines()[-1])["digest"]
    assert archive.verify(digest=noted)["valid"]
    archive.sealer.ledger.write_text("".join(good.splitlines(keepends=True)[:-1]))
    assert ("not_in_ledger", None, None) in found(archive.verify(digest=noted))
    archive.sealer.ledger.write_text(good.replace('"rows":100', '"rows":99', 1))
    assert {"broken_chain", "bad_signature"} <= {kind for kind, _block, _id in found(archive.verify())}
    archive.sealer.ledger.write_text(good)
    stranger = make_key(tmp_path, "stranger")
    assert {kind for kind, _block, _id in found(archive.verify(public_key=[stranger.public]))} == {"unknown_key"}


def test_what_cannot_be_read_is_said_in_one_sentence(archive: Archive, tmp_path: pathlib.Path):
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(archive.path.read_bytes())[:-20])
    for options, said in [
        ({"archives": [str(broken)]}, f"{broken} cannot be read to its end: "),
        ({"archives": [str(tmp_path / "none")]}, "cannot be read to its end: [Errno 2] No such file or directory"),
        ({"ledger": str(tmp_path / "none")}, "cannot be read: No such file or directory"),
        ({"public_key": [archive.sealer.key.private]}, "it is a private one"),
        ({"first_day": "October"}, "first_day is October, which is not a day like 2026-10-31"),
    ]:
        result = archive.verify(may_fail=True, **options)
        assert result.failed
        assert said in result.msg


def test_the_playbook_says_it_in_a_line_and_needs_no_inventory(archive: Archive):
    files = {"ledger": str(archive.sealer.ledger), "public_key": archive.sealer.key.public}
    given = ("-e", json.dumps({**files, "archives": [str(archive.path)]}))
    (line,) = lines(play("verify_ledger", None, *given))
    assert line.startswith(f"OK {archive.sealer.ledger}: ")
    assert line.endswith(", 0 problems")
    archive.path.write_bytes(b"".join(archive.lines()[1:]))
    result = play("verify_ledger", None, *given, check=False)
    assert result.rc == 2
    assert lines(result)[0].startswith(f"FAILED {archive.sealer.ledger}: ")
    assert lines(result)[1].startswith("  deleted_row: seal 1: rows that were sealed are missing (1): ")


def test_the_verifier_of_the_page_works_and_follows_a_change_of_key(archive: Archive, tmp_path: pathlib.Path):
    script = tmp_path / "verify.py"
    [verifier] = blocks_of("docs/seals.md", "python")
    script.write_text(verifier.text)
    new = make_key(tmp_path, "new")
    archive.sealer.seal(signing_key=new.private, previous_signing_key=archive.sealer.key.private)
    entries = archive.sealer.ledger.read_text().splitlines()

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, script, archive.sealer.key.public, archive.sealer.ledger]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    digest = json.loads(entries[-1])["digest"]
    assert run().stdout == f"{len(entries)} seals are whole; the last digest is {digest}\n"
    archive.sealer.ledger.write_text("\n".join(entries).replace('"rows":100', '"rows":99', 1) + "\n")
    assert run().returncode == 1


def test_the_page_explains_every_problem_that_verification_names():
    sources = [
        *(ROOT / "plugins/module_utils/_core" / f"{name}.py" for name in ("ledger_check", "ledger_archive")),
        ROOT / "plugins/plugin_utils/_seal_check.py",
    ]
    types = {
        name
        for source in sources
        for name in re.findall(r'Problem\(\s*"(\w+)"|^    "(\w+_(?:row|id))":', source.read_text(), re.MULTILINE)
        for name in name
        if name
    }
    assert {"modified_row", "altered_block", "unsealed", "unreadable_line"} <= types
    assert [name for name in sorted(types) if f"| `{name}` |" not in PAGE] == []
