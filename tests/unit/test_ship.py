# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What shipping works out without a server: messages of syslog, cursors, what to ask for, when to try again."""

from __future__ import annotations

import dataclasses
import email.utils
import json
import pathlib
import time

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.module_utils._core.seal import GENESIS, Entry, Seal
from ansible_collections.dbfleet.audit.plugins.module_utils._core.ship_step import COLLECTOR_SPEC, GAP, WINDOW, windows
from ansible_collections.dbfleet.audit.plugins.module_utils._core.shipped import message, parse
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_cursor import Cursor
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_destination import fingerprint, slug, split_url
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_http import Http, _retry_after, batches
from ansible_collections.dbfleet.audit.plugins.plugin_utils._ship_syslog import framed, rfc5424
from ansible_collections.dbfleet.audit.plugins.plugin_utils._trail_shipping import ship_lines, ship_logs, ship_problems

SEAL = Seal("4711", 12, "rows", "2026-11-20", ((7, 9),), 3, "00", {}, "2026-11-20T19:03:07.123456Z", GENESIS, "k")
LINE = '{"id":7,"changed_at":"2026-11-20T19:03:07.5","action":"INSERT","table_name":"é\u2028😀"}'.encode()
ORIGIN = {"server": "pg 3", "database": 'a"b]c\\d'}


def test_a_row_is_shipped_in_ascii_and_comes_back_as_the_same_bytes():
    for line in (LINE, b'{"id":7,"table_name":"\xff\xfe"}'):
        made = message(7, line, SEAL, ORIGIN)
        assert made.text.isascii()
        assert "\n" not in made.text
        shipped = parse(made.text.encode())
        assert shipped
        assert (shipped.row, shipped.seal, shipped.chain) == (line, 12, "4711")
        # What a collector has parsed and written anew.
        again = json.dumps({"_source": json.loads(made.text)}, indent=1, ensure_ascii=not line.isascii())
        assert parse(again.replace("\n", " ").encode(errors="surrogateescape")) == shipped


def test_a_message_of_syslog_is_as_rfc_5424_and_its_frame_as_rfc_5425_say():
    text = message(7, LINE, SEAL, ORIGIN)
    sent = rfc5424(text, SEAL, ORIGIN)
    header, _open, rest = sent.decode().partition(" [")
    assert header == "<110>1 2026-11-20T19:03:07.5Z pg_3 dbfleet.audit - INSERT"
    assert rest == f'dbfleet@32473 chain="4711" database="a\\"b\\]c\\\\d" seal="12" id="7"] {text.text}'
    assert framed(sent) == str(len(sent)).encode() + b" " + sent
    unparsed = message(7, b'{"id":7,', SEAL, ORIGIN)
    assert rfc5424(unparsed, SEAL, ORIGIN).startswith(b"<110>1 - pg_3 dbfleet.audit - - [")


def test_what_is_asked_for_is_cut_into_windows_and_leaves_gaps_out():
    assert list(windows([(1, 5), (7, 9)], 0)) == [(0, 9)]
    far = 9 + GAP + 2
    assert list(windows([(1, 9), (far, far)], 3)) == [(3, 9), (far - 1, far)]
    assert list(windows([(1, 2 * WINDOW + 1)], 0)) == [(0, WINDOW), (WINDOW, 2 * WINDOW), (2 * WINDOW, 2 * WINDOW + 1)]
    assert list(windows([(1, 9)], 9)) == []


def test_batches_hold_what_fits_and_one_that_does_not():
    messages = [message(number, LINE, SEAL, ORIGIN) for number in range(5)]
    size = len(messages[0].text) + 1
    assert [len(batch) for batch in batches(messages, 2 * size)] == [2, 2, 1]
    assert [len(batch) for batch in batches(messages, 1)] == [1] * 5


def test_a_collector_says_when_to_try_again():
    assert _retry_after("7") == 7
    soon = _retry_after(email.utils.formatdate(time.time() + 60, usegmt=True))
    assert soon is not None
    assert 50 < soon <= 60
    assert _retry_after(None) is _retry_after("soon") is None


def entries(number: int) -> list[Entry]:
    return [Entry(dataclasses.replace(SEAL, number=one), "") for one in range(1, number + 1)]


def test_a_cursor_that_is_not_of_this_ledger_is_refused_with_a_remedy(tmp_path: pathlib.Path):
    cursor = Cursor(str(tmp_path / "made" / "shop.cursor"))
    with cursor.locked():
        assert cursor.read() is None
        cursor.write("siem", entries(3)[2].seal)
        with pytest.raises(AuditError, match="another run ships by the cursor"), cursor.locked():
            pass
    position = cursor.read()
    assert position
    position.check(entries(3), cursor.path)
    position.check(entries(5), cursor.path)
    other = [Entry(dataclasses.replace(one.seal, chain="another"), "") for one in entries(5)]
    anew = [Entry(dataclasses.replace(one.seal, root="11"), "") for one in entries(5)]
    for ledger, said in [
        (entries(2), "seal 3 was shipped, and the ledger ends with 2: its end was cut off"),
        ([], "the ledger ends with none"),
        (other, "is of another log"),
        (anew, "seal 3 of the ledger is not the one that was shipped"),
    ]:
        with pytest.raises(AuditError, match=said):
            position.check(ledger, cursor.path)
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["shop.cursor", "shop.cursor.lock"]
    (tmp_path / "made" / "shop.cursor").write_text("half")
    with pytest.raises(AuditError, match=r"cannot be read .* delete it, and say with from_seal where to begin"):
        cursor.read()


def test_names_of_destinations_hold_nothing_secret():
    collector = dict.fromkeys(COLLECTOR_SPEC)
    endpoint = Http("https://siem.example.com:8088/ingest/path-token?key=query-token", collector, 1)
    assert endpoint.title == "https://siem.example.com:8088"
    assert endpoint.name.startswith("https_siem.example.com_8088-")
    assert "token" not in endpoint.title + endpoint.name
    assert endpoint.name != Http("https://siem.example.com:8088/other", collector, 1).name
    assert len(fingerprint("x")) == 8
    assert slug("/mnt/shipped") == "mnt_shipped"
    with pytest.raises(AuditError) as caught:
        split_url("https://eve:word@siem.example.com/", ("https",))
    assert "belong into `collector`" in str(caught.value)
    assert "word" not in str(caught.value)


def test_the_role_says_what_is_missing_and_what_was_shipped():
    given = {"url": "", "keep": "7x", "seal": False, "public_keys": [], "ledger": "s3://b/ledger", "cursors": ""}
    problems = ship_problems(given)
    for name in (
        "_shipping_trail_url is missing",
        "_seal_public_keys is missing",
        "_trail_cursors is missing",
        "_keep is",
    ):
        assert [problem for problem in problems if name in problem], name
    good = {**given, "url": "/mnt", "keep": "", "seal": True, "ledger": "/srv/ledger"}
    assert ship_problems(good) == []
    (log,) = ship_logs([{"name": "shop", "schema": "audit"}], "/srv/ledger", "pg3", "/srv/cursor")
    assert (log["ledger"], log["cursor"]) == ("/srv/ledger/pg3/shop.jsonl", "/srv/cursor/pg3/shop.cursor")
    result = {
        "rows": 1204,
        "seals": 3,
        "destination": "https://siem",
        "behind": 0,
        "behind_since": None,
        "seconds": 0.84,
    }
    assert ship_lines([result], ["shop"], "pg3") == [
        "pg3 shop: 1,204 rows of 3 seals shipped to https://siem, nothing behind, 0.8 s"
    ]
    behind = {**result, "behind": 1, "behind_since": "2026-11-20", "failed": True, "msg": "down"}
    assert ship_lines([behind], [""], "db1") == [
        "FAILED db1: down",
        "db1: 1,204 rows of 3 seals shipped to https://siem, 1 seal behind, since 2026-11-20, 0.8 s",
    ]
