# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ledgers, as a file and as objects of a storage that speaks S3."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
import s3fs
from moto.server import ThreadedMotoServer

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import GENESIS, Entry, Seal
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ledger import ledger_at

CHAIN = "c0ffee00-0000-0000-0000-000000000000"


def entries(last: int, first: int = 1, before: str = GENESIS) -> list[Entry]:
    """Return entries that follow one another."""
    found = []
    for number in range(first, last + 1):
        seal = Seal(CHAIN, number, "rows", "2026-11-21", ((number, number),), 1, "00" * 32, {}, "", before, "key")
        before = seal.digest()
        found.append(Entry(seal, "ab" * 64))
    return found


@pytest.fixture(params=["file", "objects", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[str]:
    """Return where a ledger is to be: a path, a URL of a directory, a URL of a bucket."""
    if request.param == "file":
        yield str(tmp_path / "deep" / "ledger.jsonl")
    elif request.param == "objects":
        yield (tmp_path / "ledger").as_uri()
    else:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        # What one server was given, the next one in this process has as well.
        bucket = f"ledgers-{tmp_path.name.replace('_', '-')}".lower()[:60].rstrip("-")
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
        yield f"s3://{bucket}/shop"
        server.stop()


def test_what_was_added_is_read_again(place: str) -> None:
    ledger = ledger_at(place)
    assert ledger.last() is None
    made = entries(5)
    with ledger.locked():
        ledger.append(made[:2])
        ledger.append(made[2:])
    again = ledger_at(place)
    assert again.entries() == (made, [entry.seal.digest() for entry in made])
    assert again.last() == made[-1]
    assert again.tail(3) == made[-3:]
    assert again.tail(99) == made


def test_nothing_is_added_that_does_not_follow(place: str) -> None:
    ledger = ledger_at(place)
    made = entries(3)
    with ledger.locked():
        ledger.append(made[:1])
        with pytest.raises(AuditError, match="seal 3 does not follow the ledger's last, 1"):
            ledger.append(made[2:])
        with pytest.raises(AuditError, match="seal 1 does not follow"):
            ledger.append(made[:1])
    assert ledger_at(place).entries()[0] == made[:1]


@pytest.mark.parametrize("place", ["objects", "s3"], indirect=True)
def test_of_two_that_add_the_same_seal_one_is_refused(place: str) -> None:
    """Both have read the ledger before either has added to it; a file has a lock against that."""
    first, second = ledger_at(place), ledger_at(place)
    first.append(entries(1))
    second.last = lambda: None  # type: ignore[method-assign]
    with pytest.raises(AuditError, match="by another run"):
        second.append(entries(1))


def test_the_mark_of_a_verification_is_kept(place: str) -> None:
    ledger = ledger_at(place)
    with ledger.locked():
        ledger.append(entries(1))
    assert ledger.mark() is None
    ledger.set_mark("up to 1")
    assert ledger_at(place).mark() == "up to 1"
    assert len(ledger_at(place).entries()[0]) == 1


def test_half_a_line_is_no_line(tmp_path: pathlib.Path) -> None:
    """What a crash has left of a line is cut off before the next one is added."""
    path = tmp_path / "ledger.jsonl"
    ledger = ledger_at(str(path))
    made = entries(3)
    with ledger.locked():
        ledger.append(made[:2])
    path.write_bytes(path.read_bytes() + made[2].line().encode()[:50])
    assert ledger.last() == made[1]
    with ledger.locked():
        ledger.append(made[2:])
    assert ledger.entries()[0] == made


def test_a_line_that_is_none_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text("{}\n", encoding="utf-8")
    with pytest.raises(AuditError, match=r"line 1 of .*ledger.jsonl is not a line of a ledger"):
        ledger_at(str(path)).entries()


def test_a_url_without_its_library_names_the_package() -> None:
    with pytest.raises(AuditError, match=r"needs the Python package fsspec .* adlfs"):
        ledger_at("abfs://container/ledger")
